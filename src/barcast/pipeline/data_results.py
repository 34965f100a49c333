"""What the data verbs give back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import polars as pl

from barcast.pipeline.ingest import Task
from barcast.sources.base import num_failures
from barcast.sources.history import History

#: Failures shown with a result; all of them are in the store.
_SHOWN_FAILURES = 20


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """What an import or update did.

    Attributes
    ----------
    store : str
        Folder of the store.
    version : int
        The version that holds the result.
    published : bool
        False when nothing was new.
    declared : dict
        What was taken for granted: market, frequency, calendar, basis, volume unit, zone, stamp.
    num_files, num_resumed_files : int
        Files or frames read; of these, taken up from an interrupted call.
    num_read, num_rows, num_symbols : int
        Rows read; rows and symbols that were written.
    first, last : date or datetime
        Times of the first and last bar written.
    num_repeated, num_conflicts, num_unfinished, num_without_prices, num_failures : int
        Identical repeats left out; rows that disagree about a (symbol, time); unfinished bars and rows
        without any price left out; rows of the failure table.
    changes : dict of int
        For an update: rows and symbols of each class, as in ``store.merge.Merge``.
    notes, examples : tuple of str
        For people.
    failures : tuple of dict
        The first failures.
    seconds : float
        Wall time.
    """

    store: str
    version: int
    published: bool
    declared: dict[str, Any]
    num_files: int
    num_resumed_files: int = 0
    num_read: int = 0
    num_rows: int = 0
    num_symbols: int = 0
    first: date | datetime | None = None
    last: date | datetime | None = None
    num_repeated: int = 0
    num_conflicts: int = 0
    num_unfinished: int = 0
    num_without_prices: int = 0
    num_failures: int = 0
    changes: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    failures: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """What an import would read.

    Attributes
    ----------
    declared : dict
        What would be taken for granted.
    num_files, num_bytes : int
        All of the input.
    num_looked_at : int
        So many files were looked into, the first ones.
    looked_at : tuple of dict
        For those of them that could be read: name, rows, roles of columns, unused columns, symbols, first and
        last time, and the first row as it is understood.
    failures : tuple of dict
        What could not be read in these files.
    notes : tuple of str
        For people.
    """

    declared: dict[str, Any]
    num_files: int
    num_bytes: int
    num_looked_at: int
    looked_at: tuple[dict[str, Any], ...]
    failures: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What an export wrote."""

    path: str
    num_files: int
    num_rows: int
    num_symbols: int
    version: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class StatusResult:
    """What adding a status table did.

    Attributes
    ----------
    store : str
        Folder of the store.
    version : int
        The version that holds the result.
    published : bool
        False when nothing was new.
    num_given, num_facts : int
        Rows of the table given, and of the store's table now.
    not_stored : tuple of str
        Symbols of the table given that have no bar in the store.
    left_out : tuple of str
        Why rows of the table given were left out: spellings that are no symbols of this market.
    """

    store: str
    version: int
    published: bool
    num_given: int
    num_facts: int
    not_stored: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def result_of(
    task: Task,
    history: History,
    version: int,
    resumed: int,
    written: pl.DataFrame,
    failures: pl.DataFrame | None = None,
) -> ImportResult:
    """Sum up a call that read ``history`` and wrote the rows ``written``."""
    lost = history.failures if failures is None else failures
    times = written["time"]
    return ImportResult(
        store=str(task.folder),
        version=version,
        published=True,
        declared=task.declared,
        num_files=len(task.units),
        num_resumed_files=resumed,
        num_read=history.num_read,
        num_rows=len(written),
        num_symbols=written["symbol"].n_unique(),
        first=times.min(),  # type: ignore[arg-type]
        last=times.max(),  # type: ignore[arg-type]
        num_repeated=history.num_repeated,
        num_conflicts=len(history.conflicts),
        num_unfinished=history.num_unfinished,
        num_without_prices=history.num_without_prices,
        num_failures=num_failures(lost),
        notes=history.notes,
        failures=tuple(lost.head(_SHOWN_FAILURES).to_dicts()),
        seconds=round(time.perf_counter() - task.began, 3),
    )


def nothing_new(task: Task, version: int, why: str) -> ImportResult:
    """Sum up a call that had nothing to read."""
    return ImportResult(
        store=str(task.folder),
        version=version,
        published=False,
        declared=task.declared,
        num_files=len(task.units),
        notes=(why,),
        seconds=round(time.perf_counter() - task.began, 3),
    )
