"""Listings, delistings, suspensions and ST spells: dated facts beside the bars, never filled bars."""

from __future__ import annotations

import polars as pl

from barcast.core.errors import DataError
from barcast.core.symbols import read_symbols

STATUS_SCHEMA = {
    "symbol": pl.String,
    "kind": pl.String,      # listed, delisted, suspended, st
    "start": pl.Date,
    "end": pl.Date,         # null while it lasts
    "known_at": pl.Date,    # the day from which it may be used
}  # fmt: skip
STATUS_KINDS = ("listed", "delisted", "suspended", "st")


def conform_status(frame: pl.DataFrame, market: str) -> pl.DataFrame:
    """Give a table of dated facts the columns of ``STATUS_SCHEMA``.

    Parameters
    ----------
    frame : pl.DataFrame
        ``symbol``, ``kind``, ``start``; ``end`` may be absent or null, and so may ``known_at``, which is then
        the start: nothing is known before it happens.
    market : str
        How symbols are read.

    Raises
    ------
    DataError
        On a missing column, an unknown kind, an unreadable symbol or date, with the first such rows.
    """
    missing = [name for name in ("symbol", "kind", "start") if name not in frame.columns]
    if missing:
        raise DataError(
            f"the status table has no column {', '.join(missing)}", "it needs symbol, kind, start"
        )
    spelled = frame["symbol"].cast(pl.String)
    readings, reasons = read_symbols(spelled.drop_nulls().unique(), market)
    names = {spelling: reading.symbol for spelling, reading in readings.items()}
    table = frame.select(
        symbol=spelled.replace_strict(names, default=None, return_dtype=pl.String),
        kind=pl.col("kind").cast(pl.String).str.to_lowercase(),
        start=_dates(frame, "start"),
        end=_dates(frame, "end"),
        known_at=_dates(frame, "known_at").fill_null(_dates(frame, "start")),
    )
    good = pl.col("symbol").is_not_null() & pl.col("start").is_not_null() & pl.col("kind").is_in(STATUS_KINDS)
    if len(bad := frame.filter(~table.select(good.fill_null(False)).to_series())):
        why = next(iter(reasons.values()), "")
        raise DataError(
            f"{len(bad)} rows of the status table cannot be read, first {bad.row(0)} {why}",
            f"kinds are {', '.join(STATUS_KINDS)}; dates are written 2024-01-31",
        )
    return table.unique(maintain_order=True).sort("symbol", "start", "kind")


def join_status(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Add facts to those known; the same symbol, kind and start is the same fact, told anew."""
    joined = pl.concat([old, new]).unique(["symbol", "kind", "start"], keep="last", maintain_order=True)
    return joined.sort("symbol", "start", "kind")


def _dates(frame: pl.DataFrame, name: str) -> pl.Series:
    if name not in frame.columns:
        return pl.Series(name, [None] * len(frame), pl.Date)
    values = frame[name]
    if values.dtype == pl.String:
        return values.str.to_date("%Y-%m-%d", strict=False)
    return values.cast(pl.Date)
