"""Daily price limits of the exchanges of mainland China: which board a symbol is on, and what holds there.

=============  ==================  ==========================================================================
board          symbols             limit
=============  ==================  ==========================================================================
main           60*.SH, 00*.SZ      10 %; 5 % under special treatment (ST)
ChiNext        30*.SZ              10 % before 2020-08-24, then 20 %
STAR           68*.SH              20 %
Beijing        *.BJ                30 %
others         funds, B shares     none known, so none applied
=============  ==================  ==========================================================================
"""

from __future__ import annotations

import numpy as np

from barcast.core.arrays import F64, I64, Times
from barcast.core.errors import SymbolError
from barcast.core.symbols import read_symbol

MAIN, CHINEXT, STAR, BEIJING, OTHER = range(5)
_LIMITS = np.array([0.10, 0.10, 0.20, 0.30, np.nan])
_BOARDS = {("60", "SH"): MAIN, ("00", "SZ"): MAIN, ("30", "SZ"): CHINEXT, ("68", "SH"): STAR}
#: From this day on ChiNext has 20 %, and its new listings are free for five sessions.
CHINEXT_REFORM = np.datetime64("2020-08-24")
CHINEXT_LIMIT_SINCE_REFORM = 0.20
#: From this day on new listings of the main board are free for five sessions.
MAIN_REFORM = np.datetime64("2023-04-10")
SPECIAL_TREATMENT_LIMIT = 0.05
#: Sessions in which a new listing may have no limit.
FREE_SESSIONS = 5
#: Half a cent: the most that rounding to two decimals can move a price.
HALF_TICK = 0.005


def board_of(symbol: str) -> int:
    """Return the board of an A-share symbol, ``OTHER`` for anything else."""
    try:
        code, _, exchange = read_symbol(symbol, "cn").symbol.partition(".")
    except SymbolError:
        return OTHER
    return BEIJING if exchange == "BJ" else _BOARDS.get((code[:2], exchange), OTHER)


def boards_of(symbols: tuple[str, ...]) -> I64:
    """Return the board of each symbol, shape (S,)."""
    return np.array([board_of(symbol) for symbol in symbols], np.int64)


def board_limits(board: I64, days: Times) -> F64:
    """Return the daily limit as a fraction, NaN where none is known, shape (n,).

    Parameters
    ----------
    board : I64, shape (n,)
        Board of each row.
    days : array of datetime64, shape (n,)
        Day of each row.
    """
    limit = _LIMITS[board]
    limit[(board == CHINEXT) & (days >= CHINEXT_REFORM)] = CHINEXT_LIMIT_SINCE_REFORM
    return limit
