"""Slow, plain versions of the scores: loops over rows and sessions, written apart from the package."""

import math

import numpy as np


def ranks(values):
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]


def pearson(x, y):
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    top = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    bottom = math.fsum((a - mean_x) ** 2 for a in x) * math.fsum((b - mean_y) ** 2 for b in y)
    return top / math.sqrt(bottom)


def rows_of(session, which):
    return [i for i, value in enumerate(session) if value == which]


def ic(y, score, session, num_sessions, *, ranked, min_size=5):
    result = []
    for t in range(num_sessions):
        rows = rows_of(session, t)
        a, b = [y[i] for i in rows], [score[i] for i in rows]
        if len(rows) < min_size or len(set(a)) == 1 or len(set(b)) == 1:
            result.append(math.nan)
        else:
            result.append(pearson(ranks(a), ranks(b)) if ranked else pearson(a, b))
    return np.array(result)


def auc(y, score):
    wins = [
        1.0 if b > a else 0.5 if b == a else 0.0
        for b, up in zip(score, y, strict=True)
        if up > 0
        for a, down in zip(score, y, strict=True)
        if down < 0
    ]
    return sum(wins) / len(wins) if wins else math.nan


def session_auc(y, score, session, num_sessions):
    result = []
    for t in range(num_sessions):
        rows = [i for i in rows_of(session, t) if y[i] != 0]
        whole = {score[i] for i in rows_of(session, t)}
        usable = len(rows) >= 5 and len(whole) > 1
        result.append(auc([y[i] for i in rows], [score[i] for i in rows]) if usable else math.nan)
    return np.array(result)


def confusion(y, y_hat):
    cells = {"tp": 0, "tn": 0, "fp": 0, "fn": 0}
    for outcome, forecast in zip(y, y_hat, strict=True):
        if outcome > 0:
            cells["tp" if forecast > 0 else "fn"] += 1
        elif outcome < 0:
            cells["fp" if forecast > 0 else "tn"] += 1
    return cells


def mcc(y, y_hat):
    moved = [i for i, value in enumerate(y) if value != 0]
    up, called = [float(y[i] > 0) for i in moved], [float(y_hat[i] > 0) for i in moved]
    if not moved:
        return math.nan
    if len(set(up)) == 1 or len(set(called)) == 1:
        return 0.0
    return pearson(up, called)  # Matthews correlation is the Pearson correlation of two binary columns


def decile_returns(y, score, session, num_sessions, num_bins):
    result = np.full((num_sessions, num_bins), np.nan)
    for t in range(num_sessions):
        rows = rows_of(session, t)
        if len(rows) < num_bins or len({score[i] for i in rows}) == 1:
            continue
        place = ranks([score[i] for i in rows])
        for b in range(num_bins):
            inside = [
                y[i]
                for i, r in zip(rows, place, strict=True)
                if min(int((r - 0.5) / len(rows) * num_bins), num_bins - 1) == b
            ]
            if inside:
                result[t, b] = sum(inside) / len(inside)
    return result


def resample(statistics, starts, length):
    num_sessions = len(statistics)
    draws = []
    for blocks in starts:
        sessions = [(start + step) % num_sessions for start in blocks for step in range(length)]
        draws.append(sum(statistics[t] for t in sessions[:num_sessions]))
    return np.array(draws)
