"""From stored rows to adjusted bars.

The rule: a stored row keeps what its source gave, with two cumulative factors that are 1 on the symbol's
first bar. ``split_factor`` multiplies prices for splits only, ``total_factor`` for splits and dividends::

    adjusted price  = price  * total_factor
    adjusted volume = volume / split_factor     (a 2:1 split doubles the factor and the shares that trade)

Both factors of a bar depend on that bar and earlier ones only, so history cut at any session gives the same
numbers as the whole, and re-downloading with another anchor changes no ratio. Rows of basis ``adjusted`` have
factors of 1; rows of basis ``split`` have a ``split_factor`` of 1 because their volume is adjusted already.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I32, I64, Bools, Times
from barcast.core.bars import Bars
from barcast.core.calendar import Calendar
from barcast.store.status import special_rows


def to_bars(frame: pl.DataFrame, calendar: Calendar, market: str, status: pl.DataFrame | None = None) -> Bars:
    """Adjust stored rows and place them on a calendar.

    Parameters
    ----------
    frame : pl.DataFrame, R rows
        Columns of ``STORE_COLUMNS``, sorted by symbol and time, (symbol, time) unique. ``time`` is ``Date``
        for daily bars; for intraday bars ``Datetime("us")`` without a zone, meant as UTC.
    calendar : Calendar
        The sessions. Rows whose time is not among them are left out; a symbol that so loses all rows stays,
        empty.
    market : str
        ``cn``, ``us``, ``crypto`` or ``other``.
    status : pl.DataFrame, optional
        Status table of the store: ``delisted``, ``st`` and ``listed`` rows give the fields of these names in
        ``Bars``. A suspended session has no bar, so ``suspended`` rows change nothing here.

    Returns
    -------
    Bars
        Prices in quote currency times ``total_factor``; volume over ``split_factor``. Null prices, volumes,
        amounts and raw closes become NaN. ``close_traded`` is the stored close where the basis is ``raw``,
        else ``close_raw``.
    """
    starts = _run_starts(frame["symbol"])
    symbols = tuple(frame["symbol"].gather(starts).to_list())
    session = calendar.index(frame["time"].to_numpy())
    counts = np.diff(np.append(starts, len(frame)))
    on_calendar = session >= 0
    if not on_calendar.all():
        owner = np.repeat(np.arange(len(symbols)), counts)
        counts = np.bincount(owner[on_calendar], minlength=len(symbols))
        frame, session = frame.filter(pl.Series(on_calendar)), session[on_calendar]
    total, split = _floats(frame, "total_factor"), _floats(frame, "split_factor")
    traded = pl.when(pl.col("basis") == "raw").then("close").otherwise("close_raw").cast(pl.Float64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Bars(
        symbols=symbols,
        offsets=offsets,
        session=session,
        open=_floats(frame, "open") * total,
        high=_floats(frame, "high") * total,
        low=_floats(frame, "low") * total,
        close=_floats(frame, "close") * total,
        volume=_floats(frame, "volume") / split,
        amount=_floats(frame, "amount"),
        close_traded=frame.select(traded.alias("traded"))["traded"].to_numpy(),
        calendar=calendar,
        market=market,
        delisted=_delisted(symbols, calendar, status),
        special=_special(symbols, counts, calendar.days[session], status),
        listed=_listed(symbols, offsets, calendar.days[session], status),
    )


def _run_starts(symbol: pl.Series) -> I64:
    """First row of each run of equal symbols."""
    if not len(symbol):
        return np.zeros(0, np.int64)
    return (symbol != symbol.shift(1)).fill_null(True).arg_true().to_numpy().astype(np.int64)


def _floats(frame: pl.DataFrame, name: str) -> F64:
    return frame[name].cast(pl.Float64).to_numpy()


def _delisted(symbols: tuple[str, ...], calendar: Calendar, status: pl.DataFrame | None) -> I32:
    """Return the first session at which each delisting had happened and was known; -1 where there is none.

    An announcement ahead ends nothing yet: until the day itself a missing bar may be a halt.
    """
    found = np.full(len(symbols), -1, np.int32)
    if status is None or status.is_empty() or not symbols:
        return found
    known = (
        status.filter(pl.col("kind") == "delisted")
        .group_by("symbol")
        .agg(known_at=pl.max_horizontal("start", "known_at").cast(pl.Date).min())
    )
    rows = pl.DataFrame({"symbol": symbols}).with_row_index("position").join(known, on="symbol")
    entry = np.searchsorted(calendar.days, rows["known_at"].to_numpy().astype("datetime64[D]"))
    inside = entry < len(calendar)
    found[rows["position"].to_numpy()[inside]] = entry[inside]
    return found


def _special(symbols: tuple[str, ...], counts: I64, days: Times, status: pl.DataFrame | None) -> Bools | None:
    """Return the rows under special treatment, None where there are none."""
    owner = np.repeat(np.arange(len(symbols), dtype=np.int32), counts)
    special = special_rows(status, symbols, owner, days)
    return special if special.any() else None


def _listed(symbols: tuple[str, ...], offsets: I64, days: Times, status: pl.DataFrame | None) -> Times | None:
    """Return each symbol's listing day where it was on record by the first bar, None where none was."""
    has_rows = np.diff(offsets) > 0
    if status is None or not has_rows.any():
        return None
    first = np.full(len(symbols), "NaT", "datetime64[D]")
    first[has_rows] = days[offsets[:-1][has_rows]]
    known = (
        pl.DataFrame({"symbol": symbols, "first": first})
        .join(status.filter(pl.col("kind") == "listed"), on="symbol", how="left", maintain_order="left")
        .with_columns(early=pl.max_horizontal("start", "known_at") <= pl.col("first"))
        .group_by("symbol", maintain_order=True)
        .agg(pl.col("start").filter("early").max())
    )
    listed = known["start"].to_numpy().astype("datetime64[D]")
    return None if np.isnat(listed).all() else listed
