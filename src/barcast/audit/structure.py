"""Rules that can be read off the rows themselves, checked by plain loops."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from barcast.audit.findings import Finding
from barcast.audit.workings import Snapshot
from barcast.audit.world import World
from barcast.core.arrays import F64, I64
from barcast.core.bars import Bars
from barcast.core.predictions import SEGMENTS
from barcast.labels import LabelSpec, tradable_closes

#: Labels recomputed one by one.
NUM_LABELS = 2000
#: Log returns that agree to this are equal.
LABEL_TOLERANCE = 1e-9
#: Misplaced entries that are recognised, in sessions.
SHIFTS = (-2, -1, 1, 2)


def check_factors(world: World) -> list[Finding]:
    """Factors must be 1 on each symbol's first bar: an anchor at the end is set by later splits."""
    factors = ["total_factor", "split_factor"]
    first = world.frame.group_by("symbol", maintain_order=True).agg(pl.col("time", *factors).first())
    for name in factors:
        wrong = first.filter((pl.col(name) - 1).abs() > 1e-9)
        if len(wrong):
            row = wrong.row(0, named=True)
            return [
                Finding(
                    check="factor anchor", stage="factors", column=name, symbol=row["symbol"],
                    time=str(row["time"]), found=float(row[name]), expected=1.0, num_values=len(wrong),
                    columns=tuple(n for n in factors if ((first[n] - 1).abs() > 1e-9).any()),
                    detail="factors must be 1 on a symbol's first bar; anchored later, every adjusted price "
                    "before the anchor depends on splits and dividends after it",
                )
            ]  # fmt: skip
    return []


def check_labels(taken: Snapshot, seed: int) -> tuple[list[Finding], int]:
    """Recompute a sample of labels from closes, one row at a time.

    Returns
    -------
    tuple
        The finding, if any, and how many labels were recomputed.
    """
    bars, labels = taken.bars, taken.market.labels
    known = np.flatnonzero(labels.known.any(axis=1))
    rng = np.random.default_rng([seed, 1])
    rows = np.sort(rng.choice(known, min(NUM_LABELS, len(known)), replace=False)) if len(known) else known
    for column, horizon in enumerate(labels.spec.horizons):
        own = rows[labels.known[rows, column]]
        naive = np.array([naive_label(bars, int(row), horizon, labels.spec) for row in own]).reshape(-1, 2)
        wrong = ~(np.abs(labels.y[own, column] - naive[:, 0]) <= LABEL_TOLERANCE)
        early = labels.known_at[own, column] < naive[:, 1]
        if wrong.any():
            row = int(own[wrong][0])
            detail = _shift_words(bars, own[wrong], labels.y[:, column], horizon, labels.spec)
            found, expected, name = labels.y[row, column], naive[wrong][0, 0], f"y_{horizon}"
        elif early.any():
            row = int(own[early][0])
            found, expected, name = labels.known_at[row, column], naive[early][0, 1], f"known_at_{horizon}"
            detail = "the label is said to be known before its exit has traded"
        else:
            continue
        return [_row_finding(bars, row, "label", "labels", name, (found, expected), detail,
                             int((wrong | early).sum()))], len(rows)  # fmt: skip
    return [], len(rows)


def naive_label(bars: Bars, row: int, horizon: int, spec: LabelSpec, shift: int = 0) -> tuple[float, float]:
    """Return the log return that a decision at ``row`` earns and when it is known; NaN where nobody can tell.

    Entry at the close of exactly ``delay`` sessions later, exit at the close of ``horizon`` sessions after
    that or the first one within ``max_wait`` days; a symbol without any later bar leaves at its last.
    """
    symbol = int(bars.symbol_of_row[row])
    own = slice(int(bars.offsets[symbol]), int(bars.offsets[symbol + 1]))
    sessions, closes = bars.session[own].tolist(), bars.close[own].tolist()
    entry_at = int(bars.session[row]) + spec.delay + shift
    exit_at = entry_at + horizon
    entry = leave = None
    for position, session in enumerate(sessions):
        if session == entry_at:
            entry = position
        if session >= exit_at and leave is None:
            leave = position
    if entry is None:
        return math.nan, math.nan
    if leave is None:
        return math.log(closes[-1] / closes[entry]), float(exit_at)
    if sessions[leave] - exit_at > spec.max_wait * bars.calendar.bars_per_day:
        return math.nan, math.nan
    return math.log(closes[leave] / closes[entry]), float(sessions[leave])


def _shift_words(bars: Bars, rows: I64, y: F64, horizon: int, spec: LabelSpec) -> str:
    """Say whether the labels are those of an entry some sessions off."""
    some = rows[:200]
    for shift in SHIFTS:
        moved = np.array([naive_label(bars, int(row), horizon, spec, shift)[0] for row in some])
        if np.mean(np.abs(y[some] - moved) <= LABEL_TOLERANCE) > 0.5:
            sessions = f"{abs(shift)} session{'s' * (abs(shift) > 1)}"
            return f"the label is shifted: its entry lies {sessions} too {'late' if shift > 0 else 'early'}"
    return "the label is not the return from entry to exit"


def check_tradable(taken: Snapshot) -> list[Finding]:
    """Compare each row's flag with that of its entry session's own close, false where that has no bar."""
    bars, labels = taken.bars, taken.market.labels
    own = tradable_closes(bars)
    at = {
        (int(symbol), int(session)): bool(flag)
        for symbol, session, flag in zip(bars.symbol_of_row, bars.session, own, strict=True)
    }
    delay = labels.spec.delay
    expected = np.array(
        [
            at.get((int(s), int(t) + delay), False)
            for s, t in zip(bars.symbol_of_row, bars.session, strict=True)
        ],
        bool,
    )
    wrong = np.flatnonzero(labels.tradable != expected)
    if not len(wrong):
        return []
    row = int(wrong[0])
    values = (bool(labels.tradable[row]), bool(expected[row]))
    text = f"the flag must be that of the close {delay} session(s) later, at which the row enters"
    return [_row_finding(bars, row, "tradable", "tradable", "tradable", values, text, len(wrong))]


def check_segments(taken: Snapshot) -> list[Finding]:
    """Name the first row of a segment that was decided, or whose label is known, outside it."""
    bars, market = taken.bars, taken.market
    known_at = market.labels.last_known_at
    for code, name in enumerate(SEGMENTS):
        first, last = market.plan.spans[name]
        rows = np.flatnonzero(market.segment == code)
        outside = (bars.session[rows] < first) | (bars.session[rows] > last)
        late = (known_at[rows] > last) | (known_at[rows] < 0)
        wrong = rows[outside | late]
        if len(wrong):
            row = int(wrong[0])
            ends = bars.calendar.times
            text = (
                f"`{name}` ends at {ends[min(last, len(ends) - 1)]}; the row must be purged, since its label "
                "reaches into what judges it"
            )
            known = int(known_at[row])
            found = str(ends[known]) if known >= 0 else "unknown"
            values = (f"label known {found}", f"known by {ends[min(last, len(ends) - 1)]}")
            return [_row_finding(bars, row, "segment border", "segments", name, values, text, len(wrong))]
    return []


def _row_finding(
    bars: Bars, row: int, check: str, stage: str, column: str, values: tuple[object, object], detail: str,
    num_values: int,
) -> Finding:  # fmt: skip
    found, expected = (_plain(value) for value in values)
    return Finding(
        check=check, stage=stage, column=column, symbol=bars.symbols[bars.symbol_of_row[row]],
        time=str(bars.times[row]), found=found, expected=expected, detail=detail, num_values=num_values,
        columns=(column,),
    )  # fmt: skip


def _plain(value: object) -> float | str | None:
    if isinstance(value, bool | str):
        return str(value).lower() if isinstance(value, bool) else value
    number = float(value)  # type: ignore[arg-type]
    return number if np.isfinite(number) else None
