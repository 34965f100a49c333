"""Which closes could be traded: daily price limits, zero volume.

Only the exchanges of mainland China have daily limits here. A close at the upper limit finds no seller and
one at the lower limit no buyer, so a strategy that trades there is a fiction. Suspended days have no bar.

The boards and their limits are in `barcast.core.limits`; special treatment (ST) is read from `Bars.special`.

A new listing has no limit in its first five sessions on STAR, on ChiNext from 2020-08-24 and on the main
board from 2023-04-10; in Beijing on its first day. Before those dates the first day closed at most 44 % above
the issue price after an opening at most 20 % above it, so a close 20 % above the open and at the high is that
limit. A first bar is a listing where the status table says so; where that is silent, when the bar comes after
the calendar's first session.
"""

from __future__ import annotations

import numpy as np

from barcast.core.arrays import F64, I8, I64, Bools, Times
from barcast.core.bars import Bars
from barcast.core.limits import (
    CHINEXT,
    CHINEXT_REFORM,
    FREE_SESSIONS,
    HALF_TICK,
    MAIN,
    MAIN_REFORM,
    SPECIAL_TREATMENT_LIMIT,
    STAR,
    board_limits,
    boards_of,
)


def tradable_closes(bars: Bars) -> Bools:
    """Whether each row's own close could be traded, shape (R,).

    False at a limit-up or limit-down close and at zero volume. An unknown (NaN) volume counts as traded.

    Warnings
    --------
    The flag of a row reads that row's close. It says something about an *entry at that close*; used for a
    decision at the open of the same session it would be a leak.
    """
    tradable: Bools = (limit_closes(bars) == 0) & (bars.volume != 0)
    return tradable


def limit_closes(bars: Bars) -> I8:
    """Return +1 for rows that closed at the upper price limit, -1 at the lower one, else 0, shape (R,).

    The limit is the reference price (previous day's close, restated on ex-dates) times one plus or minus the
    board's percentage, rounded half up to two decimals. Where both traded closes are known this is exact to
    the cent; on ex-dates and without traded closes it allows for what rounding adjusted prices can do. A
    close *beyond* the limit shows that no limit was in force.

    Parameters
    ----------
    bars : Bars, R rows
        Markets other than ``cn`` have no limits.
    """
    hit = np.zeros(len(bars), np.int8)
    if bars.market != "cn":
        return hit
    # nothing trades beyond a limit in force, so a close at one is the day's high or low: few rows qualify
    rows = np.flatnonzero((bars.close >= bars.high) | (bars.close <= bars.low))
    before, age = (array[rows] for array in _previous_day(bars))
    board = boards_of(bars.symbols)[bars.symbol_of_row[rows]]
    free = _free_listing(bars, rows, board)
    limit = _limits(bars, rows, board)
    limit[(before < 0) | (free & (age < FREE_SESSIONS))] = np.nan

    price, reference, rounding, exact = _references(bars, rows, before)
    for sign, extreme in ((1, bars.high), (-1, bars.low)):
        goal = reference * (1 + sign * limit)
        # to the cent where traded prices are known; adjusted prices have no tick of their own
        goal = np.where(exact, np.floor(goal * 100 + 0.5 + 1e-6) / 100, goal)
        at_extreme = sign * (bars.close - extreme)[rows] >= 0
        hit[rows[at_extreme & (np.abs(price - goal) <= rounding)]] = sign
    if bars.calendar.is_daily:  # an intraday row does not hold the day's open
        first_day = (age == 0) & _listed_in_data(bars, rows) & ~free & ((board == MAIN) | (board == CHINEXT))
        risen = np.abs(bars.close - 1.2 * bars.open)[rows] <= _adjusted_rounding(bars.close[rows])
        hit[rows[first_day & risen & (bars.close >= bars.high)[rows]]] = 1
    return hit


def _previous_day(bars: Bars) -> tuple[I64, I64]:
    """Return the symbol's last row of an earlier day (-1 without one) and the days it has traded before."""
    rows = np.arange(len(bars), dtype=np.int64)
    first = np.repeat(bars.offsets[:-1], np.diff(bars.offsets))
    if bars.calendar.is_daily:
        return np.where(rows > first, rows - 1, -1), rows - first
    days = bars.calendar.days[bars.session]
    opens = np.ones(len(bars), bool)
    opens[1:] = days[1:] != days[:-1]
    opens |= rows == first
    day_start = np.maximum.accumulate(np.where(opens, rows, 0))
    count = np.cumsum(opens)
    return np.where(day_start > first, day_start - 1, -1), count - count[first]


def _limits(bars: Bars, rows: I64, board: I64) -> F64:
    """Return the limit at each row as a fraction, NaN where it has none."""
    limit = board_limits(board, bars.calendar.days[bars.session[rows]])
    if bars.special is not None:
        limit[bars.special[rows] & (board == MAIN)] = SPECIAL_TREATMENT_LIMIT
    return limit


def _first_day(bars: Bars, rows: I64) -> Times:
    """Return the day of the first bar of each row's symbol."""
    return bars.calendar.days[bars.session[bars.offsets[:-1][bars.symbol_of_row[rows]]]]


def _listed_in_data(bars: Bars, rows: I64) -> Bools:
    """Whether the first bar of the row's symbol is that of its listing, on record or by the calendar."""
    first = _first_day(bars, rows)
    guess: Bools = first > bars.calendar.days[:1]
    if bars.listed is None:
        return guess
    listed = bars.listed[bars.symbol_of_row[rows]]
    return np.where(listed <= first, listed == first, guess)  # NaT, and what was not known then: the guess


def _free_listing(bars: Bars, rows: I64, board: I64) -> Bools:
    """Whether the row's symbol was listed, in this data, without a limit for its first five sessions."""
    listed = _first_day(bars, rows)
    free: Bools = board == STAR
    free |= (board == CHINEXT) & (listed >= CHINEXT_REFORM)
    free |= (board == MAIN) & (listed >= MAIN_REFORM)
    return free & _listed_in_data(bars, rows)


def _adjusted_rounding(price: F64) -> F64:
    """Return what rounding can do to a comparison of two adjusted prices whose tick is not known."""
    return 3.2 * HALF_TICK + 5e-4 * price


def _references(bars: Bars, rows: I64, before: I64) -> tuple[F64, F64, F64, Bools]:
    """Return price, reference price, tolerance, and whether these are traded prices."""
    price, reference = bars.close[rows], bars.close[before]
    rounding = _adjusted_rounding(price)
    traded, traded_before = bars.close_traded[rows], bars.close_traded[before]
    restated = reference * traded / price  # yesterday's close in today's traded prices
    slack = 1.2 * HALF_TICK * (traded / price) * (1 + reference / price)
    ordinary = np.abs(traded_before - restated) <= slack + HALF_TICK
    exact = np.isfinite(traded) & np.isfinite(traded_before)
    return (
        np.where(exact, traded, price),
        np.where(exact, np.where(ordinary, np.round(traded_before, 2), np.round(restated, 2)), reference),
        np.where(exact, np.where(ordinary, HALF_TICK, 1.2 * slack + HALF_TICK), rounding),
        exact,
    )
