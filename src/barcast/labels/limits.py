"""Which closes could be traded: daily price limits, zero volume.

Only the exchanges of mainland China have daily limits here. A close at the upper limit finds no seller and
one at the lower limit no buyer, so a strategy that trades there is a fiction. Suspended days have no bar.

Rules, by board (first characters and exchange of a canonical symbol):

=============  ==================  ==========================================================================
board          symbols             limit
=============  ==================  ==========================================================================
main           60*.SH, 00*.SZ      10 %; 5 % under special treatment (ST), where that is known
ChiNext        30*.SZ              10 % before 2020-08-24, then 20 %
STAR           68*.SH              20 %
Beijing        *.BJ                30 %
others         funds, B shares     none known, so none applied
=============  ==================  ==========================================================================

A new listing has no limit in its first five sessions on STAR, on ChiNext from 2020-08-24 and on the main
board from 2023-04-10; in Beijing on its first day. Before those dates the first day closed at most 44 % above
the issue price after an opening at most 20 % above it, so a close 20 % above the open and at the high is that
limit. Listings are recognised by a first bar after the calendar's first session.
"""

from __future__ import annotations

import numpy as np

from barcast.core.arrays import F64, I8, I64, Bools, Times
from barcast.core.bars import Bars

MAIN, CHINEXT, STAR, BEIJING, OTHER = range(5)
LIMITS = np.array([0.10, 0.10, 0.20, 0.30, np.nan])
CHINEXT_REFORM = np.datetime64("2020-08-24")
CHINEXT_LIMIT_SINCE_REFORM = 0.20
MAIN_REFORM = np.datetime64("2023-04-10")
SPECIAL_TREATMENT_LIMIT = 0.05
FREE_SESSIONS = 5

#: Half a cent: the most that rounding to two decimals can move a price.
HALF_TICK = 0.005


def tradable_closes(bars: Bars, special: Bools | None = None) -> Bools:
    """Whether each row's own close could be traded, shape (R,).

    False at a limit-up or limit-down close and at zero volume. An unknown (NaN) volume counts as traded.

    Warnings
    --------
    The flag of a row reads that row's close. It says something about an *entry at that close*; used for a
    decision at the open of the same session it would be a leak.
    """
    tradable: Bools = (limit_closes(bars, special) == 0) & (bars.volume != 0)
    return tradable


def limit_closes(bars: Bars, special: Bools | None = None) -> I8:
    """Return +1 for rows that closed at the upper price limit, -1 at the lower one, else 0, shape (R,).

    The limit is the reference price (previous day's close, restated on ex-dates) times one plus or minus the
    board's percentage, rounded half up to two decimals. Where both traded closes are known this is exact to
    the cent; on ex-dates and without traded closes it allows for what rounding adjusted prices can do. A
    close *beyond* the limit shows that no limit was in force.

    Parameters
    ----------
    bars : Bars, R rows
        Markets other than ``cn`` have no limits.
    special : Bools, shape (R,), optional
        Rows under special treatment.
    """
    hit = np.zeros(len(bars), np.int8)
    if bars.market != "cn":
        return hit
    # nothing trades beyond a limit in force, so a close at one is the day's high or low: few rows qualify
    rows = np.flatnonzero((bars.close >= bars.high) | (bars.close <= bars.low))
    before, age = (array[rows] for array in _previous_day(bars))
    board = np.array([board_of(symbol) for symbol in bars.symbols], np.int64)[bars.symbol_of_row[rows]]
    free = _free_listing(bars, rows, board)
    limit = _limits(bars, rows, board, special)
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


def board_of(symbol: str) -> int:
    """Return the board of a canonical A-share symbol, ``OTHER`` for anything else."""
    code, _, exchange = symbol.partition(".")
    if exchange == "BJ":
        return BEIJING
    boards = {("60", "SH"): MAIN, ("00", "SZ"): MAIN, ("30", "SZ"): CHINEXT, ("68", "SH"): STAR}
    return boards.get((code[:2], exchange), OTHER)


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


def _limits(bars: Bars, rows: I64, board: I64, special: Bools | None) -> F64:
    """Return the board's percentage at each row as a fraction, NaN where it has none."""
    limit = LIMITS[board]
    reformed = (bars.calendar.days >= CHINEXT_REFORM)[bars.session[rows]]
    limit[(board == CHINEXT) & reformed] = CHINEXT_LIMIT_SINCE_REFORM
    if special is not None:
        limit[special[rows] & (board == MAIN)] = SPECIAL_TREATMENT_LIMIT
    return limit


def _listing_day(bars: Bars, rows: I64) -> Times:
    first = bars.session[bars.offsets[:-1][bars.symbol_of_row[rows]]]
    return bars.calendar.days[first]


def _listed_in_data(bars: Bars, rows: I64) -> Bools:
    """Whether the row's symbol has its first bar after the calendar's first day."""
    later: Bools = _listing_day(bars, rows) > bars.calendar.days[:1]
    return later


def _free_listing(bars: Bars, rows: I64, board: I64) -> Bools:
    """Whether the row's symbol was listed, in this data, without a limit for its first five sessions."""
    listed = _listing_day(bars, rows)
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
