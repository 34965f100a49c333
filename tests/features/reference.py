"""Every built-in feature once more, slowly: one bar at a time, from the formulas, in plain numpy.

Nothing here is shared with the package. ``life`` is one unbroken stretch of bars as a dict of columns; each
function gives the value at bar t, or is not called while t is below the feature's warm-up.
"""

import math

import numpy as np


def window(x, t, n):
    return np.array([x[t - n + 1 + j] for j in range(n)])


def over(a, b):
    return 0.0 if b == 0 else a / b


def is_flat(x):
    return np.ptp(x) == 0


def std(x):
    return 0.0 if is_flat(x) else float(np.sqrt(np.sum((x - np.mean(x)) ** 2) / (len(x) - 1)))


def average(x):
    return float(x[0]) if is_flat(x) else float(np.mean(x))


def r(life, t):
    return math.log(life["close"][t] / life["close"][t - 1])


def returns(life, t, n):
    return np.array([r(life, t - n + 1 + j) for j in range(n)])


def log_volume(life, t):
    return math.log(life["volume"][t] + 1)


def ema(values, n):
    """values: newest last, 4n of them."""
    weights = [(1 - 2 / (n + 1)) ** j for j in range(4 * n)]
    return sum(w * v for w, v in zip(weights, reversed(values), strict=True)) / sum(weights)


def macd_line(life, t):
    return ema(window(life["close"], t, 48), 12) - ema(window(life["close"], t, 104), 26)


def fit(life, t):
    y = np.log(window(life["close"], t, 20))
    x = np.arange(1, 21)
    slope, intercept = np.polyfit(x, y, 1)
    if is_flat(y):
        return 0.0, 0.0
    residual = y - slope * x - intercept
    return slope, 1 - np.sum(residual**2) / np.sum((y - y.mean()) ** 2)


def directional_index(life, t):
    plus = minus = 0.0
    for s in range(t - 13, t + 1):
        up = life["high"][s] - life["high"][s - 1]
        down = life["low"][s - 1] - life["low"][s]
        plus += up if up > down and up > 0 else 0
        minus += down if down > up and down > 0 else 0
    return over(abs(plus - minus), plus + minus)


def stochastic(life, t):
    low, high = min(window(life["low"], t, 14)), max(window(life["high"], t, 14))
    return over(life["close"][t] - low, high - low) - 0.5


def cci(life, t):
    typical = window((life["high"] + life["low"] + life["close"]) / 3, t, 20)
    centre = average(typical)
    deviation = 0.0 if is_flat(typical) else np.mean(np.abs(typical - centre))
    return over(typical[-1] - centre, 0.015 * deviation) / 100


def aroon(life, t):
    lows, highs = window(life["low"], t, 26)[::-1], window(life["high"], t, 26)[::-1]
    return (int(np.argmin(lows)) - int(np.argmax(highs))) / 25  # argmin finds the first: the newest


def true_range(life, t):
    high, low, before = life["high"][t], life["low"][t], life["close"][t - 1]
    return max(high - low, abs(high - before), abs(low - before))


def garman_klass(life, t):
    total = 0.0
    for s in range(t - 19, t + 1):
        total += 0.5 * math.log(life["high"][s] / life["low"][s]) ** 2
        total -= (2 * math.log(2) - 1) * math.log(life["close"][s] / life["open"][s]) ** 2
    return math.sqrt(max(0.0, total / 20))


def skewness(x):
    n = len(x)
    if is_flat(x):
        return 0.0
    centred = x - x.mean()
    biased = np.mean(centred**3) / np.mean(centred**2) ** 1.5
    return math.sqrt(n * (n - 1)) / (n - 2) * biased


def log_over(a, b):
    return 0.0 if a == 0 or b == 0 else math.log(a / b)


def rank(x):
    below, equal = sum(v < x[-1] for v in x), sum(v == x[-1] for v in x)
    return (below + (equal + 1) / 2) / len(x)


def impact(life, t, n):
    values = []
    for s in range(t - n + 1, t + 1):
        if np.isnan(life["volume"][s]):
            return math.nan
        if life["volume"][s] > 0:
            values.append(abs(r(life, s)) / (life["close"][s] * life["volume"][s]))
    return float(np.mean(values)) if values else 0.0


def location(life, t):
    high, low = life["high"][t], life["low"][t]
    return over(2 * life["close"][t] - high - low, high - low)


def volume_z(life, t):
    x = np.array([log_volume(life, s) for s in range(t - 19, t + 1)])
    return over(x[-1] - average(x), std(x))


def correlation(x, y):
    if np.isnan(x + y).any():
        return math.nan
    if is_flat(x) or is_flat(y):
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def volume_change(life, t):
    return math.log((life["volume"][t] + 1) / (life["volume"][t - 1] + 1))


def shape(name):
    def value(life, t):
        o, h, low, c = (life[k][t] for k in ("open", "high", "low", "close"))
        parts = {
            "upper_shadow": h - max(o, c),
            "lower_shadow": min(o, c) - low,
            "body": c - o,
            "clv": 2 * c - h - low,
        }
        return over(parts[name], h - low)

    return value


def flow(life, t):
    money = sum(location(life, s) * life["volume"][s] for s in range(t - 19, t + 1))
    return over(money, sum(life["volume"][s] for s in range(t - 19, t + 1)))


def vol(n):
    return lambda life, t: std(returns(life, t, n))


def ret(n):
    return lambda life, t: math.log(life["close"][t] / life["close"][t - n])


def sma(n):
    return lambda life, t: life["close"][t] / np.mean(window(life["close"], t, n)) - 1


def macd_hist(life, t):
    signal = ema([macd_line(life, s) for s in range(t - 35, t + 1)], 9)
    return (macd_line(life, t) - signal) / life["close"][t]


def bollinger(life, t):
    closes = window(life["close"], t, 20)
    return over(closes[-1] - average(closes), std(closes))


def parkinson(life, t):
    logs = np.log(window(life["high"], t, 20) / window(life["low"], t, 20))
    return math.sqrt(np.mean(logs**2) / (4 * math.log(2)))


def relative_volume(life, t):
    return math.log((life["volume"][t] + 1) / (np.mean(window(life["volume"], t, 20)) + 1))


TECH48 = {
    **{f"ret_{n}": (n, ret(n)) for n in (1, 2, 3, 5, 10, 20, 60)},
    "mom_60_5": (60, lambda b, t: math.log(b["close"][t - 5] / b["close"][t - 60])),
    "gap": (1, lambda b, t: math.log(b["open"][t] / b["close"][t - 1])),
    "intraday": (0, lambda b, t: math.log(b["close"][t] / b["open"][t])),
    "hl_range": (0, lambda b, t: math.log(b["high"][t] / b["low"][t])),
    **{name: (0, shape(name)) for name in ("upper_shadow", "lower_shadow", "body", "clv")},
    **{f"sma_{n}": (n - 1, sma(n)) for n in (5, 10, 20, 60)},
    "macd": (103, lambda b, t: macd_line(b, t) / b["close"][t]),
    "macd_hist": (138, macd_hist),
    "slope_20": (19, lambda b, t: fit(b, t)[0]),
    "r2_20": (19, lambda b, t: fit(b, t)[1]),
    "adx_14": (27, lambda b, t: np.mean([directional_index(b, s) for s in range(t - 13, t + 1)])),
    "rsi_14": (
        14,
        lambda b, t: (
            over(
                sum(max(b["close"][s] - b["close"][s - 1], 0) for s in range(t - 13, t + 1)),
                sum(abs(b["close"][s] - b["close"][s - 1]) for s in range(t - 13, t + 1)),
            )
            - 0.5
        ),
    ),
    "stoch_k": (13, stochastic),
    "stoch_d": (15, lambda b, t: np.mean([stochastic(b, s) for s in range(t - 2, t + 1)])),
    "cci_20": (19, cci),
    "boll_z": (19, bollinger),
    "boll_w": (19, lambda b, t: 4 * std(window(b["close"], t, 20)) / np.mean(window(b["close"], t, 20))),
    "aroon_25": (25, aroon),
    **{f"vol_{n}": (n, vol(n)) for n in (5, 20, 60)},
    "vol_ratio": (60, lambda b, t: log_over(vol(5)(b, t), vol(60)(b, t))),
    "parkinson_20": (19, parkinson),
    "gk_20": (19, garman_klass),
    "atr_14": (14, lambda b, t: np.mean([true_range(b, s) for s in range(t - 13, t + 1)]) / b["close"][t]),
    "skew_20": (20, lambda b, t: skewness(returns(b, t, 20))),
    "dd_60": (59, lambda b, t: b["close"][t] / max(window(b["close"], t, 60)) - 1),
    "up_60": (59, lambda b, t: b["close"][t] / min(window(b["close"], t, 60)) - 1),
    "rank_20": (19, lambda b, t: rank(window(b["close"], t, 20)) - 0.5),
    "dvol_1": (1, volume_change),
    "relvol_20": (19, relative_volume),
    "vol_z20": (19, volume_z),
    "amihud_rel": (60, lambda b, t: log_over(impact(b, t, 5), impact(b, t, 60))),
    "cmf_20": (19, flow),
    "corr_rv_20": (
        20,
        lambda b, t: correlation(
            returns(b, t, 20), np.array([volume_change(b, s) for s in range(t - 19, t + 1)])
        ),
    ),
}
CORE12_NAMES = (
    "ret_1", "ret_5", "ret_20", "mom_60_5", "gap", "up_60", "dd_60", "vol_60", "vol_ratio", "relvol_20",
    "amihud_rel", "corr_rv_20",
)  # fmt: skip
CORE12 = {name: TECH48[name] for name in CORE12_NAMES}
NEEDS_MORE_THAN_CLOSES = (
    "gap", "intraday", "hl_range", "upper_shadow", "lower_shadow", "body", "clv", "adx_14", "stoch_k",
    "stoch_d", "cci_20", "aroon_25", "parkinson_20", "gk_20", "atr_14", "dvol_1", "relvol_20", "vol_z20",
    "amihud_rel", "cmf_20", "corr_rv_20",
)  # fmt: skip
TECH_CLOSE = {name: value for name, value in TECH48.items() if name not in NEEDS_MORE_THAN_CLOSES}
MEANS = (5, 10, 15, 20, 25, 30)


def adv11(unit, price):
    return {
        "c_open": (0, lambda b, t: unit * (b["open"][t] / b["close"][t] - 1)),
        "c_high": (0, lambda b, t: unit * (b["high"][t] / b["close"][t] - 1)),
        "c_low": (0, lambda b, t: unit * (b["low"][t] / b["close"][t] - 1)),
        "n_close": (1, lambda b, t: unit * (b[price][t] / b[price][t - 1] - 1)),
        "n_adj_close": (1, lambda b, t: unit * (b["close"][t] / b["close"][t - 1] - 1)),
        **{
            f"d{n}": (n - 1, lambda b, t, n=n: unit * (np.mean(window(b["close"], t, n)) / b["close"][t] - 1))
            for n in MEANS
        },
    }


OHLCV5 = {
    **{name: (0, lambda b, t, name=name: math.log(b[name][t])) for name in ("open", "high", "low", "close")},
    "volume": (0, log_volume),
}
SETS = {
    "tech48": TECH48,
    "tech_close": TECH_CLOSE,
    "core12": CORE12,
    "adv11": adv11(1.0, "close"),
    "adv11_official": adv11(100.0, "close_traded"),
    "ohlcv5": OHLCV5,
}


def reference(set_name, bars):
    """The panel of ``bars``, float64, one life and one bar at a time."""
    table = SETS[set_name]
    out = np.full((len(bars), len(table)), np.nan)
    columns = ("open", "high", "low", "close", "volume", "close_traded")
    for first, stop in zip(bars.lives[:-1], bars.lives[1:], strict=True):
        life = {name: getattr(bars, name)[first:stop] for name in columns}
        for j, (warmup, value) in enumerate(table.values()):
            for t in range(warmup, stop - first):
                out[first + t, j] = value(life, t)
    return out
