"""Facts about symbols that do not change in time, or are taken not to: name, industry, whatever is known.

One row a symbol, columns of text. They stand beside the bars of a version like the status table.

.. warning::
   A fact has no date. An industry as recorded today was perhaps another one at the start of the data, and
   may have been chosen knowing what happened since: a model that is given it (``--static industry``) sees
   that much of the future. Exchange and board follow from the code of a symbol and are safe.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import polars as pl

from barcast.core.errors import DataError
from barcast.core.symbols import read_symbols
from barcast.core.texts import some
from barcast.store.status import as_text, read_beside

_NEEDED = "it needs one row a symbol: symbol, and columns such as name, industry"


def read_facts(given: Path | str | pl.DataFrame, market: str) -> pl.DataFrame:
    """Read a table of facts from a CSV or Parquet file, or take a frame; see `conform_facts`.

    Raises
    ------
    DataError
        When there is no such file or it is no table, and as for `conform_facts`.
    """
    return read_beside(given, "there is no table of facts", _NEEDED, partial(conform_facts, market=market))


def conform_facts(frame: pl.DataFrame, market: str) -> pl.DataFrame:
    """Give a table of facts canonical symbols, lower-case columns of text, and one row a symbol.

    Parameters
    ----------
    frame : pl.DataFrame
        ``symbol`` and at least one other column; an empty value is null.
    market : str
        How symbols are read.

    Raises
    ------
    DataError
        Without these columns, on a symbol that cannot be read, or on two rows that disagree about one.
    """
    frame = frame.rename(str.lower)
    if "symbol" not in frame.columns or len(frame.columns) < 2:
        raise DataError(f"the table of facts has the columns {', '.join(frame.columns)}", _NEEDED)
    told = pl.DataFrame([as_text(frame, name) for name in frame.columns])
    readings, reasons = read_symbols(told["symbol"].drop_nulls().unique(), market)
    if reasons or told["symbol"].null_count():
        why = list(reasons.values()) or ["a row without a symbol"]
        raise DataError(f"symbols of the table of facts that cannot be read: {some(why, '; ')}", _NEEDED)
    names = {spelling: reading.symbol for spelling, reading in readings.items()}
    facts = told.with_columns(pl.col("symbol").replace_strict(names, return_dtype=pl.String)).unique()
    twice = facts.filter(pl.col("symbol").is_duplicated())["symbol"].unique().sort().to_list()
    if twice:
        raise DataError(f"rows of the table of facts disagree about {some(twice)}", "keep one row a symbol")
    return facts.select("symbol", pl.exclude("symbol")).sort("symbol")


def join_facts(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Add facts to those known, value by value; what is told anew wins, an empty value takes nothing away."""
    if old.is_empty():
        return new
    both = old.join(new, on="symbol", how="full", coalesce=True, suffix="_new")
    shared = [name for name in new.columns if name in old.columns and name != "symbol"]
    merged = both.with_columns(pl.coalesce(f"{name}_new", name).alias(name) for name in shared)
    return merged.drop(f"{name}_new" for name in shared).sort("symbol")
