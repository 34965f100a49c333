"""Facts about symbols that do not change in time, or are taken not to: name, industry, whatever is known.

One row a symbol, columns of text. They stand beside the bars of a version like the status table.

.. warning::
   A fact has no date. An industry as recorded today was perhaps another one at the start of the data, and
   may have been chosen knowing what happened since: a model that is given it (``--static industry``) sees
   that much of the future. Exchange and board follow from the code of a symbol and are safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from barcast.core.errors import DataError
from barcast.core.symbols import read_symbols
from barcast.core.texts import counted, some
from barcast.sources.headers import fact_columns
from barcast.store.status import as_text, read_beside

_NEEDED = "it needs one row a symbol: symbol, and columns such as name, industry"


@dataclass(frozen=True)
class Told:
    """A table of facts as read.

    Attributes
    ----------
    facts : pl.DataFrame
        ``symbol`` and columns of text, sorted.
    left_out : tuple of str
        Why rows name no symbol, one reason for each spelling.
    """

    facts: pl.DataFrame
    left_out: tuple[str, ...] = ()


def read_facts(given: Path | str | pl.DataFrame, market: str) -> Told:
    """Read a table of facts from a CSV or Parquet file, or take a frame; see `conform_facts`.

    Raises
    ------
    DataError
        When there is no such file or it is no table, and as for `conform_facts`.
    """
    return read_beside(given, "there is no table of facts", _NEEDED, partial(conform_facts, market=market))


def conform_facts(frame: pl.DataFrame, market: str) -> Told:
    """Give a table of facts canonical symbols, lower-case columns of text, and one row a symbol.

    Rows whose symbol cannot be read are left out and told: lists of securities hold funds, indices and other
    markets' shares too.

    Parameters
    ----------
    frame : pl.DataFrame
        A column of symbols, under any name that an import takes, and at least one other; an empty value is
        null.
    market : str
        How symbols are read.

    Raises
    ------
    DataError
        Without these columns, when no symbol can be read, or on two rows that disagree about one.
    """
    columns = fact_columns(frame.columns)
    if "symbol" not in columns.values() or len(columns) < 2:
        raise DataError(f"the table of facts has the columns {', '.join(frame.columns)}", _NEEDED)
    frame = frame.rename(columns)
    told = pl.DataFrame([as_text(frame, name) for name in frame.columns])
    readings, reasons = read_symbols(told["symbol"].drop_nulls().unique(), market)
    unnamed = told["symbol"].null_count()
    left_out = (*sorted(reasons.values()), *[f"{counted(unnamed, 'row')} without a symbol"] * bool(unnamed))
    if left_out and not readings:
        raise DataError(f"no symbol of the table of facts can be read: {some(left_out, '; ')}", _NEEDED)
    names = {spelling: reading.symbol for spelling, reading in readings.items()}
    symbol = pl.col("symbol").replace_strict(names, default=None, return_dtype=pl.String)
    facts = told.with_columns(symbol).drop_nulls("symbol").unique()
    twice = facts.filter(pl.col("symbol").is_duplicated())["symbol"].unique().sort().to_list()
    if twice:
        raise DataError(f"rows of the table of facts disagree about {some(twice)}", "keep one row a symbol")
    return Told(facts.select("symbol", pl.exclude("symbol")).sort("symbol"), left_out)


def join_facts(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Add facts to those known, value by value; what is told anew wins, an empty value takes nothing away."""
    if old.is_empty():
        return new
    both = old.join(new, on="symbol", how="full", coalesce=True, suffix="_new")
    shared = [name for name in new.columns if name in old.columns and name != "symbol"]
    merged = both.with_columns(pl.coalesce(f"{name}_new", name).alias(name) for name in shared)
    return merged.drop(f"{name}_new" for name in shared).sort("symbol")
