"""Listings, delistings, suspensions and ST spells: dated facts beside the bars, never filled bars."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from barcast.core.arrays import I32, Bools, Times
from barcast.core.errors import DataError, UsageError, explained
from barcast.core.symbols import read_symbols
from barcast.core.texts import some
from barcast.sources.text import decode
from barcast.sources.times import read_moments

Read = TypeVar("Read")
STATUS_SCHEMA = {
    "symbol": pl.String,
    "kind": pl.String,      # listed, delisted, suspended, st
    "start": pl.Date,
    "end": pl.Date,         # its last day; null while it lasts
    "known_at": pl.Date,    # the day from which it may be used
}  # fmt: skip
STATUS_KINDS = ("listed", "delisted", "suspended", "st")
_DATES = ("start", "end", "known_at")
_NEEDED = f"it needs symbol, kind ({', '.join(STATUS_KINDS)}) and start; dates are written 2024-01-31"


def read_status(given: Path | str | pl.DataFrame, market: str) -> pl.DataFrame:
    """Read a table of dated facts from a CSV or Parquet file, or take a frame; see ``conform_status``.

    Raises
    ------
    DataError
        When there is no such file or it is no table, and as for ``conform_status``.
    """
    return read_beside(given, "there is no status table", _NEEDED, partial(conform_status, market=market))


def read_beside(
    given: Path | str | pl.DataFrame,
    absent: str,
    needed: str,
    conform: Callable[[pl.DataFrame], Read],
) -> Read:
    """Read a table that stands beside the bars, from a CSV or Parquet file or a frame, and conform it.

    Parameters
    ----------
    absent, needed : str
        What is said when it is not there, and what it needs, for messages.

    Raises
    ------
    DataError
        When there is no such file or it is no table, and whatever ``conform`` refuses, with the file.
    """
    if isinstance(given, pl.DataFrame):
        return conform(given)
    given = Path(given)
    if not given.is_file():
        raise DataError(f"{absent} at {given}", "name a CSV or Parquet file")
    with explained("reading", given):
        try:
            if given.suffix in (".parquet", ".pq"):
                return conform(pl.read_parquet(given))
            return conform(_split(decode(given.read_bytes())[0]))
        except pl.exceptions.PolarsError as error:
            raise DataError(f"{given} is no table: {str(error).splitlines()[0]}", needed) from error
        except DataError as error:
            raise DataError(f"{given}: {error.found}", error.todo or needed) from error


def _split(text: str) -> pl.DataFrame:
    """Split CSV; reading line by line, other than by columns, can name the rows that do not fit."""
    header, *rows = [row for row in csv.reader(io.StringIO(text)) if row] or [[]]
    names = [name.strip().lower() for name in header]
    uneven = [f"row {n} `{','.join(row)}`" for n, row in enumerate(rows, 1) if len(row) != len(names)]
    if uneven:
        raise DataError(f"rows with other columns than the {len(names)} of the header: {some(uneven, '; ')}")
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def conform_status(frame: pl.DataFrame, market: str) -> pl.DataFrame:
    """Give a table of dated facts the columns of ``STATUS_SCHEMA``.

    Parameters
    ----------
    frame : pl.DataFrame
        ``symbol``, ``kind``, ``start``; ``end`` may be absent or empty, and so may ``known_at``, which is
        then the start: nothing is known before it happens.
    market : str
        How symbols are read.

    Raises
    ------
    DataError
        On a missing column, an unknown kind, an unreadable symbol or date, or an end before the start, with
        the first such rows. What cannot be read is never taken for absent.
    """
    if missing := [name for name in ("symbol", "kind", "start") if name not in frame.columns]:
        raise DataError(f"the status table has no column {', '.join(missing)}", _NEEDED)
    told = pl.DataFrame([as_text(frame, name).alias(f"{name}_told") for name in STATUS_SCHEMA])
    readings, reasons = read_symbols(told["symbol_told"].drop_nulls().unique(), market)
    names = {spelling: reading.symbol for spelling, reading in readings.items()}
    table = told.with_columns(
        pl.col("symbol_told").replace_strict(names, default=None, return_dtype=pl.String).alias("symbol"),
        pl.col("kind_told").str.to_lowercase().alias("kind"),
        *(_dates(told[f"{name}_told"]).alias(name) for name in _DATES),
    )
    unread = [pl.col(name).is_null() & pl.col(f"{name}_told").is_not_null() for name in _DATES]
    good = (
        pl.all_horizontal(pl.col("symbol", "start").is_not_null(), pl.col("kind").is_in(STATUS_KINDS))
        & ~pl.any_horizontal(unread)
        & (pl.col("start") <= pl.col("end")).fill_null(True)
    )
    bad = table.with_row_index("row", 1).filter(~good.fill_null(False)).to_dicts()
    if bad:
        rows = some([f"row {row['row']}: {_why(row, reasons)}" for row in bad], "; ")
        raise DataError(f"{len(bad)} rows of the status table cannot be read: {rows}", _NEEDED)
    table = table.with_columns(pl.col("known_at").fill_null(pl.col("start"))).select(list(STATUS_SCHEMA))
    return table.unique(maintain_order=True).sort("symbol", "start", "kind")


def _why(row: dict[str, Any], reasons: dict[str, str]) -> str:
    """Say what is wrong with a row of the status table."""
    if row["symbol"] is None:
        return reasons.get(row["symbol_told"], "no symbol")
    if row["kind"] not in STATUS_KINDS:
        return f"{row['symbol_told']} has the kind `{row['kind_told'] or ''}`"
    for name in _DATES:
        if row[name] is None and (row[f"{name}_told"] or name == "start"):
            return f"{row['symbol_told']} has the {name} `{row[f'{name}_told'] or ''}`, which is no date"
    return f"{row['symbol_told']} ends on {row['end']}, before it starts on {row['start']}"


def as_text(frame: pl.DataFrame, name: str) -> pl.Series:
    """Return a column as text, null where it is empty; dates as 2024-01-31."""
    if name not in frame.columns:
        return pl.Series(name, [None] * len(frame), pl.String)
    values = frame[name]
    text = (values.cast(pl.Date) if values.dtype == pl.Datetime else values).cast(pl.String).str.strip_chars()
    return text.set(text == "", None)


def _dates(text: pl.Series) -> pl.Series:
    try:
        return read_moments(text)["moment"].dt.date()
    except UsageError as error:
        raise DataError(error.found, _NEEDED) from error


def join_status(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Add facts to those known; the same symbol, kind and start is the same fact, told anew."""
    joined = pl.concat([old, new]).unique(["symbol", "kind", "start"], keep="last", maintain_order=True)
    return joined.sort("symbol", "start", "kind")


def special_rows(
    status: pl.DataFrame | None, symbols: tuple[str, ...], symbol_of_row: I32, session_days: Times
) -> Bools:
    """Return which bars were under special treatment (ST), as was known on their own day, shape (R,).

    A bar counts when an ``st`` spell of its symbol has begun by its day, had become known by then, and has
    not ended before it (``end`` is the last day; an open end lasts). Only facts with
    ``known_at <= day`` are read, so the answer for a day is the same when later facts are added.

    Parameters
    ----------
    status : pl.DataFrame, optional
        What ``MarketStore.status`` returns: columns of ``STATUS_SCHEMA``.
    symbols : tuple of str
        ``Bars.symbols``.
    symbol_of_row : I32, shape (R,)
        ``Bars.symbol_of_row``.
    session_days : array of datetime64[D], shape (R,)
        The day of each bar: ``bars.calendar.days[bars.session]``.
    """
    special = np.zeros(len(symbol_of_row), bool)
    if status is None:
        return special
    # `code` is the position in `symbols`, so that millions of rows are joined by numbers
    codes = pl.DataFrame({"symbol": symbols}, schema={"symbol": pl.String}).with_row_index("code")
    spells = status.filter(pl.col("kind") == "st").join(codes, on="symbol")
    if spells.is_empty():
        return special
    bars = pl.DataFrame({"code": symbol_of_row.astype(np.uint32), "day": session_days}).with_row_index("row")
    day = pl.col("day")
    lasting = (pl.max_horizontal("start", "known_at") <= day) & (pl.col("end") >= day).fill_null(True)
    special[bars.join(spells, on="code").filter(lasting)["row"].to_numpy()] = True
    return special
