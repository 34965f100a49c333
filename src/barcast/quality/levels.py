"""Quiet steps: the price has another level, and no trade took it there.

A step is *quiet* when it was made before the open, the day's own range is small beside it, it dwarfs the
symbol's habit, and no factor explains it. Splits that the source missed, prices in the wrong unit and a
second security under the same symbol look so; news seldom does, because news trades.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I64, Bools
from barcast.quality.steps import NO_FACTOR, moves, overnight_move
from barcast.quality.table import Table, row_numbers

#: Least |log| step; share of it made before the open; range within the bar as a share of it.
LEAST_STEP, OVERNIGHT_SHARE, RANGE_SHARE = 0.3, 0.75, 0.15
#: How many times the symbol's median and large (90 %) moves the step must be.
TIMES_MEDIAN, TIMES_LARGE = 8.0, 4.0
#: Rows before the step from which habit and turnover are taken.
TRAILING_ROWS = 60
#: A step at this many times the usual volume and turnover is news.
NEWS_TURNOVER = 5.0
#: A step undone after at most this many rows is a spike.
SPIKE_ROWS = 5
#: Shares below this trade too seldom, in ticks too coarse, for a step of their price to mean anything.
LEAST_PRICE = {"us": 1.0, "cn": 1.0}
#: Undone: within this of the level before, and within a third of the step.
BACK_WITHIN = 0.15


@dataclass(frozen=True)
class QuietSteps:
    """Quiet steps in row order.

    Attributes
    ----------
    rows : I64, shape (n,)
        Where the new level shows first.
    step : F64, shape (n,)
        Log return.
    news : Bools, shape (n,)
        Whether the trading speaks for a real move all the same.
    """

    rows: I64
    step: F64
    news: Bools


def level_findings(table: Table) -> list[pl.DataFrame]:
    """Name missed factors, spikes, and symbols whose price alternates between two levels."""
    steps = quiet_steps(table)
    missed = steps.rows[~steps.news]
    return [
        table.findings("missed_factor", missed, np.exp(table.raw_return[missed]), moves(table, missed)),
        *_undone(table, steps),
    ]


def quiet_steps(table: Table) -> QuietSteps:
    """Find the quiet steps; each is decided by its own row and earlier ones."""
    move = table.raw_return
    rows = row_numbers((np.abs(move) > LEAST_STEP) & (np.abs(table.factor_step) < NO_FACTOR))
    dearer = np.maximum(table.close[rows], table.close[table.previous[rows]])
    rows = rows[dearer >= LEAST_PRICE.get(table.market, 0.0)]
    with np.errstate(invalid="ignore", divide="ignore"):
        span = np.log(table.column("high")[rows] / table.column("low")[rows])
    rows = rows[
        (overnight_move(table, rows) / move[rows] > OVERNIGHT_SHARE)
        & (np.abs(span) < RANGE_SHARE * np.abs(move[rows]))
    ]
    rows = rows[np.array([_dwarfs_habit(table, row) for row in rows], bool)]
    return QuietSteps(rows, move[rows], np.array([_is_news(table, row) for row in rows], bool))


def _past(table: Table, row: int) -> slice:
    return slice(max(int(table.first_row[row]), row - TRAILING_ROWS), row)


def _dwarfs_habit(table: Table, row: int) -> bool:
    """Compare a step with the symbol's moves before it; earlier steps of the kind are not habit."""
    usual = np.abs(table.raw_return[_past(table, row)])
    usual = usual[usual < LEAST_STEP]
    if not len(usual):
        return True
    habit = max(TIMES_MEDIAN * np.median(usual), TIMES_LARGE * np.quantile(usual, 0.9))
    return bool(abs(table.raw_return[row]) > habit)


def _is_news(table: Table, row: int) -> bool:
    """Whether both shares and turnover are many times the usual: a wrong unit or a split raises only one."""
    past = _past(table, row)
    return all(_is_many_times(column[past], column[row]) for column in (table.volume, table.turnover))


def _is_many_times(past: F64, now: float) -> bool:
    past = past[np.isfinite(past)]
    return bool(len(past) and now > NEWS_TURNOVER * np.median(past) > 0)


def _undone(table: Table, steps: QuietSteps) -> list[pl.DataFrame]:
    """Pair steps with the next one of their symbol that leads back: once is a spike, more are two levels."""
    with np.errstate(invalid="ignore", divide="ignore"):
        level = np.log(table.close) + np.log(table.column("total_factor"))
    first, second = steps.rows[:-1], steps.rows[1:]
    away = steps.step[:-1]
    gap = np.abs(level[second] - level[table.previous[first]])
    owner = table.symbol_of_row[first]
    same = owner == table.symbol_of_row[second]
    undone = same & (gap < np.minimum(BACK_WITHIN, np.abs(away) / 3))
    first, second, away, owner = first[undone], second[undone], away[undone], owner[undone]
    often = np.bincount(owner, minlength=len(table.symbols))[owner] > 1
    spike = ~often & (second - first <= SPIKE_ROWS)
    until = table.previous[second[spike]]
    return [
        table.findings("spike", first[spike], np.exp(away[spike]), moves(table, first[spike]), until),
        _two_securities(table, first[often], second[often]),
    ]


def _two_securities(table: Table, first: I64, second: I64) -> pl.DataFrame:
    """Make one finding for each symbol from its pairs of steps away and back; ``value`` counts the steps."""
    steps = np.union1d(first, second)
    starts = np.flatnonzero(np.diff(table.symbol_of_row[steps], prepend=-1))
    ends = np.append(starts[1:], len(steps))[: len(starts)]
    levels = np.sort([table.close[table.previous[steps]], table.close[steps]], axis=0)
    words = [
        f"{stop - start} switches between about {np.median(levels[0, start:stop]):.4g} "
        f"and {np.median(levels[1, start:stop]):.4g}"
        for start, stop in zip(starts, ends, strict=True)
    ]
    number = (ends - starts).astype(np.float64)
    return table.findings("two_securities", steps[starts], number, words, steps[ends - 1])
