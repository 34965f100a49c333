"""Adjusted prices beside the price as traded: moved anchors, impossible levels, rounding; and price limits.

Forward-adjusted (qfq) prices are the traded ones times a factor that rises to 1 at the day of the download.
A factor that falls means that rows of two downloads were put together.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I64, Bools
from barcast.core.bars import LONG_HOLE_SESSIONS
from barcast.core.limits import FREE_SESSIONS, HALF_TICK, board_limits, boards_of
from barcast.quality.steps import moves
from barcast.quality.table import Table, row_numbers

#: A fall of the implied factor below this is a stitched anchor, on top of what rounding can do.
ANCHOR_STEP = 0.002
#: Falls of the implied factor above this that rounding can explain are noise worth knowing.
NOISE_STEP = 0.005
#: An adjusted close may exceed the traded one by this share and still be rounding.
ABOVE_RAW = 0.0005
#: What rounding and odd last prices may add to a limit, besides two ticks.
LIMIT_SLACK = 0.005


def anchor_findings(table: Table) -> list[pl.DataFrame]:
    """Name stitched anchors, adjusted closes above traded ones, rounding noise and broken price limits."""
    adjusted = (table.frame["basis"] == "adjusted").to_numpy()
    raw = np.where(adjusted, table.column("close_raw"), np.nan)
    found = [_beyond_limit(table)]
    if np.isfinite(raw).any():
        found += [*_falling_factor(table, raw), _above_raw(table, raw)]
    return found


def _falling_factor(table: Table, raw: F64) -> list[pl.DataFrame]:
    """Name falls of close / close_raw: by more than rounding a stitched anchor, else noise."""
    with np.errstate(invalid="ignore", divide="ignore"):
        implied = np.log(table.close / raw)
        step = np.where(table.previous >= 0, implied - implied[table.previous], np.nan)
        rounding = HALF_TICK / table.close + HALF_TICK / table.close[table.previous]
    stitched = row_numbers(step < -(ANCHOR_STEP + rounding))
    noisy = row_numbers((step < -NOISE_STEP) & ~(step < -(ANCHOR_STEP + rounding)))
    return [
        table.findings("stitched_anchor", stitched, np.expm1(step[stitched]), _both(table, raw, stitched)),
        table.findings("factor_noise", noisy, np.expm1(step[noisy]), _both(table, raw, noisy)),
    ]


def _both(table: Table, raw: F64, rows: I64) -> list[str]:
    before = raw[table.previous[rows]]
    return [
        f"adjusted {move}, as traded {a:.6g} -> {b:.6g}"
        for move, a, b in zip(moves(table, rows), before, raw[rows], strict=True)
    ]


def _above_raw(table: Table, raw: F64) -> pl.DataFrame:
    with np.errstate(invalid="ignore", divide="ignore"):
        above = table.close / raw - 1
    rows = row_numbers(above > ABOVE_RAW)
    if _anchored_at_start(table, above):
        rows = rows[:0]
    words = [
        f"adjusted {a:.6g}, as traded {b:.6g}" for a, b in zip(table.close[rows], raw[rows], strict=True)
    ]
    return table.findings("adjusted_above_raw", rows, above[rows], words)


def _anchored_at_start(table: Table, above: F64) -> bool:
    """Whether this is backward-adjusted (hfq) data, whose prices lie above the traded ones by design.

    Only the first session with traded prices is asked, so that later bars cannot change the answer.
    """
    times = table.frame["time"].to_numpy()
    known = np.isfinite(above)
    first = above[known & (times == times[known].min())]
    return len(first) > 2 and bool(np.median(first) > ABOVE_RAW)


def _beyond_limit(table: Table) -> pl.DataFrame:
    """Name moves that the exchange's daily price limit does not allow (China, daily bars)."""
    if table.market != "cn" or not table.calendar.is_daily:
        return table.findings("beyond_limit", row_numbers(np.zeros(len(table), bool)))
    change = np.expm1(table.log_return)
    before = table.close[table.previous]
    with np.errstate(invalid="ignore", divide="ignore"):
        allowed = _price_limit(table) + LIMIT_SLACK + 4 * HALF_TICK / before
        rows = row_numbers((np.abs(change) > allowed) & ~_without_limit(table))
    return table.findings("beyond_limit", rows, change[rows], moves(table, rows))


def _price_limit(table: Table) -> F64:
    """Return the daily limit of each row's board, as a fraction; ST shares have less."""
    board = boards_of(table.symbols)[table.symbol_of_row]
    return board_limits(board, table.frame["time"].to_numpy())


def _without_limit(table: Table) -> Bools:
    """Whether a row is among the first of its symbol, or the first after a long hole.

    Whether a first row is a listing cannot be told from bars, so all boards get the most that any allows.
    """
    early = np.arange(len(table)) - table.first_row < FREE_SESSIONS
    gap = table.session - table.session[table.previous] - 1
    return np.asarray(early | ((table.previous >= 0) & (gap > LONG_HOLE_SESSIONS)), bool)
