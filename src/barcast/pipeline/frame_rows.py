"""Users' own frames, one a symbol, as rows of a fleet on one calendar: that of all their indices together.

.. warning::
   What a target reaches is not seen in it: `label_sessions` says so. A row's target counts as known when so
   many rows of its own symbol have passed, and as many entries of the calendar; a symbol that pauses thus has
   targets that become known later, and no row teaches whose target reaches what it is judged on.

Letters: R rows, S symbols, T entries of the calendar.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from barcast.core.arrays import F32, F64, I8, I32, I64
from barcast.core.errors import DataError, UsageError
from barcast.core.texts import some
from barcast.fleet.data import FleetData
from barcast.pipeline.frame_tables import Keys, Table, read_table, read_target

if TYPE_CHECKING:
    from barcast.pipeline.frame_tables import Column, Frame


@dataclass(frozen=True)
class FrameRows:
    """Rows of S symbols sorted by name, then by index; R in all.

    Attributes
    ----------
    symbols : tuple of str
    columns : tuple of str
    kind : str
        What the indices hold.
    calendar : array, shape (T,)
        Every value of an index, in order.
    offsets : I64, shape (S + 1,)
    inputs : F32, shape (R, F)
        NaN where missing.
    target : F64, shape (R,)
        NaN where not known.
    session : I32, shape (R,)
        Entry of the calendar.
    failures : mapping of str to str
        Why the other symbols are not among them.
    ignored : mapping of str to tuple of str
        Columns by symbol that the others do not have.
    """

    symbols: tuple[str, ...]
    columns: tuple[str, ...]
    kind: str
    calendar: Keys
    offsets: I64
    inputs: F32
    target: F64
    session: I32
    failures: Mapping[str, str]
    ignored: Mapping[str, tuple[str, ...]]

    def known_at(self, label_sessions: int) -> I32:
        """Return when each target counts as known, shape (R,); -1 where it is not, or an input is missing."""
        known = self.session.astype(np.int64) + label_sessions
        for first, stop in zip(self.offsets[:-1], self.offsets[1:], strict=True):
            reached = self.session[
                first + label_sessions : stop
            ]  # by its own rows, where it has so many more
            own = slice(first, first + len(reached))
            known[own] = np.maximum(known[own], reached)
        known = np.minimum(known, len(self.calendar) - 1)  # whoever gave it knows it by then
        usable = np.isfinite(self.target) & np.isfinite(self.inputs).all(axis=1)
        return np.where(usable, known, -1).astype(np.int32)

    def incomplete(self) -> dict[str, int]:
        """Return how many rows lack an input, of each symbol that has such rows."""
        lacking = ~np.isfinite(self.inputs).all(axis=1)
        counts = np.add.reduceat(lacking, self.offsets[:-1]).tolist() if self.symbols else []
        return {symbol: num for symbol, num in zip(self.symbols, counts, strict=True) if num}

    def data(self, segment: I8) -> FleetData:
        """Return the rows as a fleet reads them, each with its segment (R,)."""
        lengths = np.diff(self.offsets)
        return FleetData(
            self.symbols, self.offsets, self.inputs, self.target[:, None].astype(np.float32), self.session,
            segment, np.repeat(self.offsets[:-1], lengths),
        )  # fmt: skip

    def digest(self) -> str:
        """Return a digest of all rows."""
        told = hashlib.blake2b(digest_size=8)
        told.update(repr((self.symbols, self.columns)).encode())
        for array in (self.offsets, self.inputs, self.target, self.session):
            told.update(np.ascontiguousarray(array).data)
        return told.hexdigest()


def read_frames(features: Mapping[str, Frame], targets: Mapping[str, Column], index: str = "") -> FrameRows:
    """Read features and targets of all symbols; a symbol that cannot be used is a failure with its reason.

    Columns are those that most symbols have; a symbol that lacks one fails, others than these are ignored.

    Raises
    ------
    UsageError
        On anything but two mappings by symbol, or names that differ in type alone.
    DataError
        When no symbol can be used.
    """
    given, wanted = _by_name(features, "features"), _by_name(targets, "targets")
    if not given and not wanted:
        raise DataError("no symbol is given: features and targets are empty", "fit({'AAPL': frame}, {...})")
    failures = {name: "targets, but no features" for name in wanted if name not in given}
    tables, failed = _tables(given, index)
    failures |= failed
    columns = _common([table.columns for table in tables.values()])
    kind = next(iter(Counter(table.kind for table in tables.values()).most_common(1)), ("", 0))[0]
    found: dict[str, tuple[Table, F64]] = {}
    for name, table in tables.items():
        try:
            if name not in wanted:
                raise DataError("features, but no targets")
            if table.kind != kind:
                raise DataError(f"its index holds {table.kind}, that of others {kind}")
            kept = _with_columns(table, columns)
            found[name] = kept, read_target(wanted[name], kept)
        except DataError as error:
            failures[name] = error.found
    if not found:
        raise DataError(
            "no symbol can be used: " + some([f"{name}: {why}" for name, why in failures.items()], "; ", 3),
            "mend what the reasons say",
        )
    ignored = {
        name: others
        for name in sorted(found)
        if (others := tuple(each for each in tables[name].columns if each not in columns))
    }
    return _joined(found, columns, kind, dict(sorted(failures.items())), ignored)


def rows_to_predict(
    features: Mapping[str, Frame], columns: Sequence[str], kind: str, index: str
) -> FrameRows:
    """Read features alone, of the columns and the kind of index that a fleet learned from.

    Raises
    ------
    UsageError
        On anything but a mapping by symbol.
    DataError
        On frames that cannot be used, each with its reason.
    """
    tables, failures = _tables(_by_name(features, "features"), index)
    found: dict[str, tuple[Table, F64]] = {}
    for name, table in tables.items():
        try:
            kept = _with_columns(table, columns)
            if kept.kind != kind:
                raise DataError(f"its index holds {kept.kind}, those that taught {kind}")
            found[name] = kept, np.full(len(kept.keys), np.nan)
        except DataError as error:
            failures[name] = error.found
    if failures or not found:
        told = [f"{name}: {why}" for name, why in sorted(failures.items())]
        raise DataError(
            f"frames that cannot be predicted: {some(told, '; ', 3)}" if told else "no frame to predict",
            "mend them or leave them out",
        )
    return _joined(found, tuple(columns), kind, {}, {})


def _by_name(given: object, what: str) -> dict[str, object]:
    if not isinstance(given, Mapping):
        raise UsageError(
            f"{what}: expected a dict by symbol, found {type(given).__name__}",
            f"fit({what}={{'AAPL': frame, ...}})",
        )
    named = {str(name): value for name, value in given.items()}
    if len(named) != len(given):
        raise UsageError(f"{what}: two symbols have one name as text", "name symbols by text")
    return named


def _tables(given: Mapping[str, object], index: str) -> tuple[dict[str, Table], dict[str, str]]:
    tables, failures = {}, {}
    for name, frame in sorted(given.items()):
        try:
            tables[name] = read_table(frame, index)
        except DataError as error:
            failures[name] = error.found
    return tables, failures


def _common(columns: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the columns that most symbols have, of equally many the larger set, as the first orders them."""
    counts = Counter(frozenset(names) for names in columns)
    chosen = max(counts, key=lambda names: (counts[names], len(names)), default=frozenset())
    return next((names for names in columns if set(names) == chosen), ())


def _with_columns(table: Table, columns: Sequence[str]) -> Table:
    if table.columns == tuple(columns):
        return table
    if missing := [name for name in columns if name not in table.columns]:
        raise DataError(f"columns are missing that others have: {some(missing)}")
    places = [table.columns.index(name) for name in columns]
    return replace(table, columns=tuple(columns), values=table.values[:, places])


def _joined(
    found: Mapping[str, tuple[Table, F64]], columns: tuple[str, ...], kind: str,
    failures: Mapping[str, str], ignored: Mapping[str, tuple[str, ...]],
) -> FrameRows:  # fmt: skip
    names = sorted(found)
    calendar = _calendar([found[name][0].keys for name in names])
    lengths = [len(found[name][1]) for name in names]
    inputs = np.empty((sum(lengths), len(columns)), np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    for name, first, stop in zip(names, offsets[:-1], offsets[1:], strict=True):
        inputs[first:stop] = found[name][0].values
    session = [np.searchsorted(calendar, found[name][0].keys) for name in names]
    return FrameRows(
        tuple(names), columns, kind, calendar, offsets, inputs,
        np.concatenate([found[name][1] for name in names]), np.concatenate(session).astype(np.int32),
        failures, ignored,
    )  # fmt: skip


def _calendar(keys: Sequence[Keys]) -> Keys:
    if keys[0].dtype != object:
        return np.unique(np.concatenate(keys))
    try:
        values = sorted({value for each in keys for value in each})
    except TypeError as error:
        raise UsageError(
            f"the symbols' indices cannot be sorted together: {error}", "one kind of index for all symbols"
        ) from error
    calendar = np.empty(len(values), object)
    calendar[:] = values
    return calendar
