"""Bars as flat columns: what the store hands out and every later room computes on.

Rows are sorted by symbol, then time. Prices are *adjusted*: multiplied by ``total_factor`` (cumulative, 1 on
the symbol's first bar), volume divided by ``split_factor``; so a ratio never depends on when the data was
downloaded. A suspended day has no row.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from barcast.core.arrays import F64, I32, I64, Bools, Times
from barcast.core.calendar import Calendar

#: Fewer symbols a session than this give no session statistics, ranks or IC: small-universe rules apply.
MIN_SYMBOLS = 30
#: A hole of more sessions than this restarts warm-ups and windows, and ends the wait for an exit price.
LONG_HOLE_SESSIONS = 20

#: Columns of the market store, in order. `amount` and `close_raw` may be null throughout.
STORE_COLUMNS = (
    "symbol", "time", "open", "high", "low", "close", "volume", "amount", "split_factor", "total_factor",
    "close_raw", "basis",
)  # fmt: skip
BASES = ("raw", "split", "adjusted")


@dataclass(frozen=True)
class Bars:
    """Adjusted bars of S symbols in R rows on one calendar.

    Attributes
    ----------
    symbols : tuple of str
        Canonical names, sorted.
    offsets : I64, shape (S + 1,)
        Rows of symbol ``s`` are ``offsets[s]:offsets[s + 1]``.
    session : I32, shape (R,)
        Entry of the calendar each row belongs to; strictly increasing within a symbol.
    open, high, low, close : F64, shape (R,)
        Adjusted prices in quote currency; finite and positive (defective rows are masked before).
    volume : F64, shape (R,)
        Split-adjusted shares or coins; NaN where the source has none.
    amount : F64, shape (R,)
        Turnover in quote currency as the source gives it; NaN where unknown.
    close_traded : F64, shape (R,)
        The close as traded (before any adjustment) where known, else NaN. Only price-limit rules read it.
    calendar : Calendar
        The sessions.
    market : str
        ``cn``, ``us``, ``crypto`` or ``other``; price-limit rules depend on it.
    delisted : I32, shape (S,)
        Session at which a delisting had happened and was known, by the status table; -1 where there is none.
    special : Bools, shape (R,), or None
        Rows under special treatment (ST), as known on their day; None where no status says anything.
    listed : Times, shape (S,), or None
        Day of the symbol's listing, ``datetime64[D]``, where that was on record by its first bar, else NaT;
        None where no status says anything. Only price-limit rules read these two.
    """

    symbols: tuple[str, ...]
    offsets: I64
    session: I32
    open: F64
    high: F64
    low: F64
    close: F64
    volume: F64
    amount: F64
    close_traded: F64
    calendar: Calendar
    market: str
    delisted: I32
    special: Bools | None = None
    listed: Times | None = None

    def __len__(self) -> int:
        return len(self.session)

    @property
    def num_symbols(self) -> int:
        """How many symbols there are."""
        return len(self.symbols)

    @cached_property
    def symbol_of_row(self) -> I32:
        """The symbol's position in ``symbols`` for each row, shape (R,)."""
        return np.repeat(np.arange(self.num_symbols, dtype=np.int32), np.diff(self.offsets))

    @cached_property
    def times(self) -> Times:
        """Bar time of each row, shape (R,)."""
        return self.calendar.times[self.session]

    @cached_property
    def hole_sessions(self) -> int:
        """Longest hole, in calendar entries, across which a window may reach."""
        return LONG_HOLE_SESSIONS * self.calendar.bars_per_day

    @cached_property
    def lives(self) -> I64:
        """Borders of unbroken stretches of rows, shape (num_lives + 1,).

        A new life begins with each symbol and after each hole of more than 20 sessions. Whether a row starts
        a life is known at that row, so nothing here looks ahead.
        """
        rows = len(self)
        if not rows:
            return np.zeros(1, np.int64)
        starts = np.zeros(rows, bool)
        starts[1:] = np.diff(self.session) > self.hole_sessions + 1
        starts[self.offsets[:-1][np.diff(self.offsets) > 0]] = True
        return np.append(np.flatnonzero(starts), rows).astype(np.int64)

    @cached_property
    def life_start(self) -> I64:
        """First row of the life each row belongs to, shape (R,)."""
        return np.repeat(self.lives[:-1], np.diff(self.lives))

    def take(self, keep: Bools) -> Bars:
        """Return the rows where ``keep`` is true; symbols without rows stay, empty."""
        counts = np.bincount(self.symbol_of_row[keep], minlength=self.num_symbols)
        return replace(
            self,
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            special=None if self.special is None else self.special[keep],
            **{name: getattr(self, name)[keep] for name in _COLUMNS},
        )

    def until(self, session: int) -> Bars:
        """Return the history that was known after ``session`` closed: later rows and sessions are gone."""
        calendar = replace(self.calendar, times=self.calendar.times[: session + 1])
        delisted = np.where(self.delisted <= session, self.delisted, -1).astype(np.int32)
        return replace(self.take(self.session <= session), calendar=calendar, delisted=delisted)

    def content_digest(self) -> str:
        """Return a hash of every row, so that a run can name the data it saw."""
        state = hashlib.blake2b(digest_size=16)
        state.update("\n".join(self.symbols).encode())
        for array in (
            self.offsets,
            self.calendar.times,
            self.delisted,
            *(getattr(self, name) for name in _COLUMNS),
            *(array for array in (self.special, self.listed) if array is not None),
        ):
            state.update(np.ascontiguousarray(array).view(np.uint8).data)
        return state.hexdigest()


_COLUMNS = ("session", "open", "high", "low", "close", "volume", "amount", "close_traded")
