"""What a store says about itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, TypeAlias

When: TypeAlias = date | datetime


@dataclass(frozen=True)
class VersionNote:
    """One entry of a store's history."""

    version: int
    time: datetime
    note: dict[str, Any]


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds.

    Attributes
    ----------
    path : str
        Its folder.
    version : int
        The last one.
    market, frequency, calendar : str
        As created.
    declared : dict
        What the last import said about its source.
    num_rows, num_symbols, num_sessions : int
        Stored bars; symbols with a bar; entries of the calendar.
    first, last : date or datetime
        Times of the first and last bar.
    bases : dict of int
        Symbols of each basis.
    num_conflicts, num_failures : int
        Rows that disagree about a bar of this version; what the last failures table tells of.
    num_files, size_bytes : int
        Files of this version, and bytes of the whole folder, older versions included.
    cited : dict of int
        Run to version.
    history : tuple of VersionNote
        Newest first.
    """

    path: str
    version: int
    market: str
    frequency: str
    calendar: str
    declared: dict[str, Any]
    num_rows: int
    num_symbols: int
    num_sessions: int
    first: When | None
    last: When | None
    bases: dict[str, int]
    num_conflicts: int
    num_failures: int
    num_files: int
    size_bytes: int
    cited: dict[str, int]
    history: tuple[VersionNote, ...] = field(default=())


@dataclass(frozen=True)
class Compaction:
    """What a compaction did.

    Attributes
    ----------
    path : str
        Folder of the store.
    version : int
        The last one, whose bars are those of before.
    kept, dropped : tuple of int
        Versions that stay readable, and those that no longer are.
    made : tuple of int
        Versions that the upkeep itself made, with the same bars.
    num_files : int
        Files of bars removed.
    size_before, size_bytes : int
        Bytes of the whole folder, before and after.
    """

    path: str
    version: int
    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    made: tuple[int, ...]
    num_files: int
    size_before: int
    size_bytes: int
