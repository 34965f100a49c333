"""Moves that are too large, too round, or at odds with their factor.

A move is measured between two consecutive usable rows of a symbol, so a row without a price costs nothing
but itself.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I64, Bools
from barcast.quality.table import Table, row_numbers

#: |log return| above which a move is extreme: per day, and per bar within a day.
EXTREME_DAILY, EXTREME_INTRADAY = 0.4, 0.1
#: Splits of n new for one old share, or one new for n old.
SPLIT_RATIOS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 50, 100)
#: How near the log ratio of closes must be to a split's: the day's own move is on top of the split.
SPLIT_NEARNESS = 0.03
#: A factor that steps by less than this took no note of a split.
NO_FACTOR = 0.05
#: Factor steps above this are compared with the price; half of the step is enough to count as taken up.
FACTOR_STEP, TAKEN_UP = 0.1, 0.5
#: |log factor step| of a distribution that deserves a look.
LARGE_DISTRIBUTION = 0.3
#: Factors of splits are exact, and whole up to here (reverse splits go far).
EXACT_SPLIT, LARGEST_SPLIT = 0.002, 250


def step_findings(table: Table) -> list[pl.DataFrame]:
    """Name extreme and split-like moves, factors the price does not follow, and very large distributions."""
    return [_extreme(table), _split_like(table), _unmatched(table), _large_distributions(table)]


def moves(table: Table, rows: I64) -> list[str]:
    """Say from where to where the close moved, and what the factor did."""
    close, before = table.close[rows], table.close[table.previous[rows]]
    factor = np.exp(table.factor_step[rows])
    return [
        f"{a:.6g} -> {b:.6g}" + (f", factor x{f:.6g}" if abs(f - 1) > EXACT_SPLIT else "")
        for a, b, f in zip(before, close, factor, strict=True)
    ]


def overnight_move(table: Table, rows: I64) -> F64:
    """Return log(open / close of the previous usable row); NaN without an open."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(table.column("open")[rows] / table.close[table.previous[rows]])


def _extreme(table: Table) -> pl.DataFrame:
    limit = EXTREME_DAILY if table.calendar.is_daily else EXTREME_INTRADAY
    rows = row_numbers(np.abs(table.log_return) > limit)
    return table.findings("extreme_return", rows, table.log_return[rows], moves(table, rows))


def _split_like(table: Table) -> pl.DataFrame:
    ratios = np.log(np.array(SPLIT_RATIOS, np.float64))
    size = np.abs(table.raw_return)
    rows = row_numbers((size > ratios[0] - SPLIT_NEARNESS) & (np.abs(table.factor_step) < NO_FACTOR))
    distance = np.abs(size[rows][:, None] - ratios)
    near = distance.min(axis=1) <= SPLIT_NEARNESS
    rows, which = rows[near], distance.argmin(axis=1)[near]
    words = [
        f"{move}, near " + (f"{SPLIT_RATIOS[ratio]}/1" if up else f"1/{SPLIT_RATIOS[ratio]}")
        for move, ratio, up in zip(moves(table, rows), which, table.raw_return[rows] > 0, strict=True)
    ]
    return table.findings("split_like_jump", rows, np.exp(table.raw_return[rows]), words)


def _unmatched(table: Table) -> pl.DataFrame:
    step = table.factor_step
    rows = row_numbers(np.abs(step) > FACTOR_STEP)
    taken_up = np.fmax(-overnight_move(table, rows) / step[rows], -table.raw_return[rows] / step[rows])
    rows = rows[taken_up < TAKEN_UP]
    return table.findings("unmatched_factor", rows, np.exp(step[rows]), moves(table, rows))


def _large_distributions(table: Table) -> pl.DataFrame:
    step = table.factor_step
    rows = row_numbers(np.abs(step) > LARGE_DISTRIBUTION)
    # As-traded prices split, and not every source says which of its factors are splits.
    as_traded = (table.frame["basis"][rows] == "raw").to_numpy()
    rows = rows[~(as_traded & _is_split(step[rows]))]
    return table.findings("large_distribution", rows, np.exp(step[rows]), moves(table, rows))


def _is_split(step: F64) -> Bools:
    """Whether a step is that of n new for m old shares, both up to 5, or of a larger whole ratio."""
    small = {new / old for old in range(1, 5) for new in range(old + 1, 6)}
    ratios = np.log(np.array(sorted(small | set(range(6, LARGEST_SPLIT + 1))), np.float64))
    return np.asarray(np.abs(np.abs(step)[:, None] - ratios).min(axis=1) < EXACT_SPLIT, bool)
