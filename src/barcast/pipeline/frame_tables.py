"""One user's frame as plain arrays: its index, its columns, its values; what cannot be used is said.

pandas is never imported for it: whoever brings a pandas frame has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from barcast.core.arrays import F64, I64
from barcast.core.errors import DataError
from barcast.core.texts import some

if TYPE_CHECKING:
    import pandas as pd

    Frame: TypeAlias = pd.DataFrame | pl.DataFrame
    Column: TypeAlias = pd.Series[Any] | pl.Series

#: An index: dates and times, numbers, or objects that can be sorted.
Keys: TypeAlias = npt.NDArray[Any]
TIMES, ZONED, NUMBERS = "times", "times with a zone", "numbers"
_NUMERIC = "biuf"
#: Beyond it a value is infinite to models, which read single precision.
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Table:
    """A frame's n rows.

    Attributes
    ----------
    keys : array, shape (n,)
        The index, strictly increasing.
    kind : str
        What it holds; indices of one kind can be sorted together.
    columns : tuple of str
    values : F64, shape (n, F)
        NaN where missing, else finite in single precision.
    """

    keys: Keys
    kind: str
    columns: tuple[str, ...]
    values: F64


def is_pandas(given: object) -> bool:
    """Return whether an object is pandas' own."""
    return type(given).__module__.partition(".")[0] == "pandas"


def read_table(frame: Frame, index: str = "") -> Table:
    """Read a frame.

    Parameters
    ----------
    frame : pandas or polars frame
    index : str
        Column that holds the index; empty: pandas' own.

    Raises
    ------
    DataError
        On anything but a frame; on an index that is out of order, holds a value twice, or misses one; on
        columns of one name, or that hold no numbers; on infinite values.
    """
    if isinstance(frame, pl.DataFrame):
        keys, kind, names, values = _read_polars(frame, index)
    elif is_pandas(frame) and hasattr(frame, "columns"):
        keys, kind, names, values = _read_pandas(frame, index)
    else:
        raise DataError(f"no pandas or polars frame but a {type(frame).__name__}")
    _check_order(keys)
    if not names:
        raise DataError("a frame without a column")
    found = np.argwhere(np.abs(values) > _LARGEST)
    if len(found):
        row, column = found[0]
        raise DataError(
            f"{len(found):,} infinite values, the first in `{names[column]}` at {keys[row]} "
            f"({values[row, column]:g})"
        )
    return Table(keys, kind, tuple(names), values)


def read_target(target: Column, table: Table) -> F64:
    """Return the target of each row of a table, shape (n,); NaN where it is not known.

    A pandas series is joined by its index; a polars one has none and goes row by row.

    Raises
    ------
    DataError
        On anything but a series of numbers; on one that does not fit the table, or holds nothing for it; on
        infinite values.
    """
    if isinstance(target, pl.Series):
        if len(target) != len(table.keys):
            raise DataError(f"{len(target):,} targets for {len(table.keys):,} rows")
        if not (target.dtype.is_numeric() or target.dtype == pl.Boolean):
            raise DataError(f"targets are no numbers but {target.dtype}")
        values = target.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    elif is_pandas(target) and hasattr(target, "index") and not hasattr(target, "columns"):
        if getattr(target.dtype, "kind", "O") not in _NUMERIC:
            raise DataError(f"targets are no numbers but {target.dtype}")
        values = _joined(target, table)
    else:
        raise DataError(f"targets in no series but a {type(target).__name__}")
    if infinite := int((np.abs(values) > _LARGEST).sum()):
        first = table.keys[int(np.argmax(np.abs(values) > _LARGEST))]
        raise DataError(f"{infinite:,} infinite targets, the first at {first}")
    if not np.isfinite(values).any():
        raise DataError("no target is known at any of its rows")
    return values


def _read_polars(frame: pl.DataFrame, index: str) -> tuple[Keys, str, list[str], F64]:
    if index not in frame.columns:
        raise DataError(
            f"no column `{index}` that would be its index"
            if index
            else "a polars frame has no index: say which column it is (index=NAME)"
        )
    others = frame.drop(index)
    _check_numeric(
        (name, kind.is_numeric() or kind == pl.Boolean, str(kind)) for name, kind in others.schema.items()
    )
    values = others.select(pl.all().cast(pl.Float64).fill_null(float("nan"))).to_numpy()
    return *_polars_keys(frame[index]), others.columns, values


def _polars_keys(column: pl.Series) -> tuple[Keys, str]:
    kind, zone = TIMES, getattr(column.dtype, "time_zone", None)
    if column.null_count():
        raise DataError(f"{column.null_count():,} rows have no index")
    if zone:
        column, kind = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None), ZONED
    if column.dtype.is_numeric():
        kind = NUMBERS
    elif not column.dtype.is_temporal():
        return _object_keys(column.to_list())
    return _plain_keys(column.to_numpy(), kind)


def _read_pandas(frame: Any, index: str) -> tuple[Keys, str, list[str], F64]:
    if index:
        if index not in frame.columns:
            raise DataError(f"no column `{index}` that would be its index")
        frame = frame.set_index(index)
    names = [str(name) for name in frame.columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"several columns have one name: {some(twice)}")
    _check_numeric(
        (name, getattr(kind, "kind", "O") in _NUMERIC, str(kind))
        for name, kind in zip(names, frame.dtypes, strict=True)
    )
    values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    return *_pandas_keys(frame.index), names, values


def _pandas_keys(index: Any) -> tuple[Keys, str]:
    if index.nlevels > 1:
        raise DataError(f"an index of {index.nlevels} levels: one is needed, for instance the session")
    kind = getattr(index.dtype, "kind", "O")
    if kind == "M":
        if getattr(index, "tz", None) is None:
            return _plain_keys(index.to_numpy(), TIMES)
        return _plain_keys(index.tz_convert("UTC").tz_localize(None).to_numpy(), ZONED)
    if kind in "iuf":
        return _plain_keys(index.to_numpy(dtype=np.float64 if kind == "f" else None), NUMBERS)
    return _object_keys(list(index))


def _plain_keys(keys: Keys, kind: str) -> tuple[Keys, str]:
    missing = np.isnat(keys) if keys.dtype.kind == "M" else np.isnan(keys.astype(np.float64))
    if missing.any():
        raise DataError(f"{int(missing.sum()):,} rows have no index")
    return keys, kind


def _object_keys(values: Sequence[Any]) -> tuple[Keys, str]:
    kinds = sorted({type(value).__name__ for value in values})
    if len(kinds) > 1:
        raise DataError(f"its index holds values of several kinds: {some(kinds)}")
    if values and isinstance(values[0], date) and not isinstance(values[0], datetime):
        return np.array(values, "datetime64[D]"), TIMES
    keys = np.empty(len(values), object)
    keys[:] = values
    return keys, kinds[0] if kinds else TIMES


def _check_numeric(columns: Any) -> None:
    wrong = [f"`{name}` ({kind})" for name, is_numeric, kind in columns if not is_numeric]
    if wrong:
        raise DataError(f"columns that hold no numbers: {some(wrong)}")


def _check_order(keys: Keys) -> None:
    if not len(keys):
        raise DataError("a frame without a row")
    try:
        wrong = np.flatnonzero(~(keys[1:] > keys[:-1]).astype(bool))
    except TypeError as error:
        raise DataError(f"an index that cannot be sorted: {error}") from error
    if not len(wrong):
        return
    before, after = keys[wrong[0]], keys[wrong[0] + 1]
    if before == after:
        raise DataError(f"its index holds {after} twice")
    raise DataError(f"its index is out of order: {after} comes after {before}")


def _joined(target: Any, table: Table) -> F64:
    keys, kind = _pandas_keys(target.index)
    values = np.asarray(target.to_numpy(dtype=np.float64, na_value=np.nan))
    if kind != table.kind:
        raise DataError(f"the index of its targets holds {kind}, that of its rows {table.kind}")
    if len(keys) == len(table.keys) and (keys == table.keys).all():
        return values
    order: I64 = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    if len(keys):
        _check_order(keys)
    place = np.minimum(np.searchsorted(keys, table.keys), max(len(keys) - 1, 0))
    found = (keys[place] == table.keys).astype(bool) if len(keys) else np.zeros(len(table.keys), bool)
    return np.where(found, values[place] if len(keys) else np.nan, np.nan)
