"""What every source gives, and what stands between a file and the store.

::

    units -> pieces (columns split, roles known) -> chunk (values understood) -> history (clean)

A network provider joins by giving units and pieces; all that follows is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import polars as pl

from barcast.core.symbols import Reading
from barcast.sources.headers import Header
from barcast.sources.options import ImportOptions

#: What could not be imported: one row a file, a cell or a symbol.
FAILURE_SCHEMA = {
    "kind": pl.String,    # file, columns, empty, cells, more, symbol, time, value, future, basis, update
    "file": pl.String,
    "line": pl.Int64,     # from 1; the row number where the file has no lines; null for a whole file
    "symbol": pl.String,
    "column": pl.String,
    "value": pl.String,
    "reason": pl.String,
}  # fmt: skip
VALUE_COLUMNS = ("open", "high", "low", "close", "volume", "amount", "factor", "split_factor", "close_raw")


def row_schema(*, intraday: bool) -> dict[str, pl.DataType]:
    """Columns of a chunk's rows."""
    return {
        "symbol": pl.String(),
        "time": pl.Datetime("us") if intraday else pl.Date(),
        **dict.fromkeys(VALUE_COLUMNS, pl.Float64()),
        "basis": pl.String(),
        "file": pl.UInt32(),
        "line": pl.Int64(),
        "spelling": pl.String(),
    }


@dataclass(frozen=True)
class Unit:
    """One thing to read.

    Attributes
    ----------
    name : str
        What messages call it: a path, or a frame's symbol.
    size : int
        Bytes (rows of a frame): for batches and progress.
    key : str
        Changes when the content may have changed (size and time of modification); empty where unknown, so
        that staged work on it is never taken up again.
    """

    name: str
    size: int
    key: str = ""


@dataclass(frozen=True)
class Piece:
    """One file or frame, split into columns whose values are not understood yet.

    Attributes
    ----------
    name : str
        What failures call it.
    frame : pl.DataFrame
        Columns named as in ``header.roles``.
    header : Header
        The role of each column.
    first_line : int
        Line of the first row, from 1.
    symbol : str or None
        The spelling where no column gives it.
    notes : tuple of str
        What a person should know about how it was read.
    """

    name: str
    frame: pl.DataFrame
    header: Header
    first_line: int = 1
    symbol: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """Rows understood, symbols canonical, times settled; factors and duplicates are not looked at yet.

    Attributes
    ----------
    rows : pl.DataFrame
        ``symbol``, ``time``, ``VALUE_COLUMNS``, ``basis``, and where each came from: ``file`` (position in
        ``files``), ``line`` and ``spelling``. ``factor`` is adjusted over given price, to any anchor.
    failures : pl.DataFrame
        As ``FAILURE_SCHEMA``.
    files : tuple of str
        What the positions mean.
    readings : dict
        Spelling to canonical symbol.
    ignored : tuple of str
        Columns without a role.
    notes : tuple of str
        What was declared by the files themselves, and the like.
    num_read, num_without_prices : int
        Rows read, and rows left out because no price is in them (suspended days of some exports).
    """

    rows: pl.DataFrame
    failures: pl.DataFrame
    files: tuple[str, ...] = ()
    readings: dict[str, Reading] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    num_read: int = 0
    num_without_prices: int = 0


class Source(Protocol):
    """Where bars come from."""

    def units(self) -> tuple[Unit, ...]:
        """List what there is to read, in a fixed order, without reading it."""
        ...

    def pieces(
        self, units: Sequence[Unit], options: ImportOptions
    ) -> tuple[list[Piece], list[dict[str, object]]]:
        """Read some units; what cannot be read becomes failure rows instead of an error."""
        ...


def failure(kind: str, reason: str, **where: object) -> dict[str, object]:
    """Make one failure row; ``where`` holds file, line, symbol, column, value as known."""
    return {name: where.get(name) for name in FAILURE_SCHEMA} | {"kind": kind, "reason": reason}


def failure_table(rows: Sequence[dict[str, object]]) -> pl.DataFrame:
    """Make the failure table."""
    return pl.DataFrame(list(rows), schema=FAILURE_SCHEMA)


def num_failures(table: pl.DataFrame) -> int:
    """Count what a failure table tells of: a row of kind ``more`` stands for as many as its value says."""
    more = table.filter(pl.col("kind") == "more")
    if more.is_empty():
        return len(table)
    return len(table) - len(more) + int(more["value"].cast(pl.Int64).sum())
