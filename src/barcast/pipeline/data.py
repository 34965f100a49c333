"""The data verbs: import, update, info, export.

An import reads its input in parts, keeps each finished part beside the store, and publishes one version at
the end. Killed at any moment, it leaves the last version as it was; the same call goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from barcast.core.atomic import atomic_folder, atomic_path
from barcast.core.errors import DataError, UsageError, explained
from barcast.core.progress import Progress
from barcast.pipeline.ingest import Place, Task, existing_store, find_workspace, prepare, read_all
from barcast.pipeline.market import resolve_symbols
from barcast.sources import SAMPLE_OPTIONS, ImportOptions, sample_source
from barcast.sources.base import failure, failure_table
from barcast.sources.canonical import understand
from barcast.sources.history import History
from barcast.store import MarketStore, StoreInfo, StoreMeta
from barcast.store.birth import begin_store, end_birth
from barcast.store.lock import writer_lock
from barcast.store.merge import merge, write
from barcast.store.status import STATUS_SCHEMA, conform_status, join_status

if TYPE_CHECKING:
    from barcast.pipeline.ingest import Given

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
    looked_at : tuple of dict
        For the first files: name, rows, roles of columns, unused columns, symbols, first and last time.
    failures : tuple of dict
        What could not be read in these files.
    notes : tuple of str
        For people.
    """

    declared: dict[str, Any]
    num_files: int
    num_bytes: int
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


def import_data(
    workspace: Place,
    given: Given,
    options: ImportOptions | None = None,
    *,
    replace_all: bool = False,
    status: Path | pl.DataFrame | None = None,
    progress: Progress | None = None,
    now: datetime | None = None,
) -> ImportResult:
    """Fill the workspace's store.

    Parameters
    ----------
    workspace : Workspace, path or None
        None finds it as the commands do.
    given : paths, frames or Source
        CSV or Parquet files or folders; one long frame or a dict of frames by symbol; or any ``Source``.
    options : ImportOptions, optional
        What the columns do not say.
    replace_all : bool
        Replace what the store holds; older versions stay readable.
    status : path or frame, optional
        Listings, delistings, suspensions and ST spells (``store.status``).
    progress : Progress, optional
        Where to write progress; nowhere by default.
    now : datetime, optional
        The present, aware; later bars are refused and unfinished ones left out.

    Raises
    ------
    UsageError
        When something would have to be guessed, or the store has data already.
    StoreError
        When other files are where the store would go, or the store has lost its description.
    DataError
        When nothing at all could be imported.
    SymbolError
        When two securities would end under one name.
    """
    task = prepare(workspace, given, options, progress, fresh=replace_all)
    with writer_lock(task.folder):
        begin_store(task.folder)
        existing = existing_store(task.folder)
        if existing and not replace_all:
            if (version := _imported_before(existing, task.inputs)) is not None:
                existing.staging().clear()  # of an import that was killed when all but this was done
                return _nothing_new(task, version, "this input was imported before; nothing to do")
            raise UsageError(
                f"{task.folder} has data already (version {existing.version})",
                "`barcast data update` merges; `barcast data import --replace` starts over",
            )
        history, resumed = read_all(task, (), now)
        if history.rows.is_empty():
            raise _nothing_readable(history.failures)
        meta = existing.meta if existing else _meta_of(task.options)
        store = existing or MarketStore(task.folder, meta)
        facts = _status(status, store if existing else None, task.options)
        note = _note("import", task, history)
        beside = {"status": facts, "conflicts": history.conflicts, "failures": history.failures}
        version = store.publish(history.rows, note, periods=None, beside=beside)
        if not existing:
            meta.write(task.folder)  # from now on there is a store
            end_birth(task.folder)
        store.staging().clear()
    return _result(task, history, version, resumed, history.rows)


def update_data(
    workspace: Place,
    given: Given,
    options: ImportOptions | None = None,
    *,
    status: Path | pl.DataFrame | None = None,
    progress: Progress | None = None,
    now: datetime | None = None,
) -> ImportResult:
    """Merge new bars into the workspace's store.

    Sessions that both have are compared: corrections replace stored rows, a moved anchor replaces the
    symbol's whole history, and what cannot be joined without a false return is refused, symbol by symbol.
    Parameters and errors as for ``import_data``; what was declared then need not be said again.
    """
    task = prepare(workspace, given, options, progress)
    with writer_lock(task.folder):
        store = MarketStore.open(task.folder)
        before = store.version
        history, resumed = read_all(task, store.symbols(), now)
        change = merge(store, history.rows, history.linked)
        failures = pl.concat([history.failures, _refusals(change.refused)])
        facts, known = _status(status, store, task.options), store.status()
        if change.rows.is_empty() and facts.equals(known):
            store.staging().clear()
            result = _result(task, history, before, resumed, change.rows, failures)
            return replace(result, published=False, changes=change.counts, examples=change.examples)
        note = _note("update", task, history) | {"changes": change.counts}
        beside = {"status": facts, "conflicts": _conflicts(store, history), "failures": failures}
        version = write(store, change, note, beside)
        store.staging().clear()
    result = _result(task, history, version, resumed, change.rows, failures)
    return replace(result, changes=change.counts, examples=change.examples)


def import_sample(workspace: Place, progress: Progress | None = None) -> ImportResult:
    """Import the five stocks of ``bokeh-sampledata``; does nothing where that was done before."""
    return import_data(workspace, sample_source(), SAMPLE_OPTIONS, progress=progress)


def plan_import(
    workspace: Place, given: Given, options: ImportOptions | None = None, *, most_files: int = 5
) -> ImportPlan:
    """Say what ``import_data`` would read and take for granted, looking into the first files only."""
    task = prepare(workspace, given, options, None)
    pieces, lost = task.source.pieces(task.units[:most_files], task.options)
    chunk = understand(pieces, task.options)
    spans = chunk.rows.group_by("file").agg(
        rows=pl.len(),
        symbols=pl.col("symbol").unique().sort().head(5),
        num_symbols=pl.col("symbol").n_unique(),
        first=pl.col("time").min(),
        last=pl.col("time").max(),
    )
    by_file = {row.pop("file"): row for row in spans.to_dicts()}
    looked_at = tuple(
        {"name": piece.name, "roles": piece.header.roles, "unused": list(piece.header.ignored)}
        | by_file.get(number, {"rows": 0})
        for number, piece in enumerate(pieces)
    )
    return ImportPlan(
        declared=task.options.declared(),
        num_files=len(task.units),
        num_bytes=sum(unit.size for unit in task.units),
        looked_at=looked_at,
        failures=tuple(pl.concat([failure_table(lost), chunk.failures]).to_dicts()),
        notes=chunk.notes,
    )


def store_info(workspace: Place) -> StoreInfo:
    """Describe the workspace's store."""
    return MarketStore.open(find_workspace(workspace).market).info()


def store_failures(workspace: Place) -> pl.DataFrame:
    """Return what the last import or update could not read."""
    return MarketStore.open(find_workspace(workspace).market).failures()


def store_symbols(workspace: Place) -> tuple[str, ...]:
    """Return the symbols that have a bar, sorted."""
    return MarketStore.open(find_workspace(workspace).market).symbols()


def export_data(
    workspace: Place,
    target: Path,
    *,
    form: str = "parquet",
    per_symbol: bool = False,
    symbols: Sequence[str] | None = None,
    start: date | None = None,
    end: date | None = None,
    version: int | None = None,
) -> ExportResult:
    """Write stored rows to one long file, or one file a symbol in a folder; ``form`` is parquet or csv.

    The columns are those of the store: prices as given, with their factors and basis. Importing the export
    again gives the same store (say ``volume_unit="share"``). Symbols are read in any spelling.

    Raises
    ------
    UsageError
        When the target is a folder that is not empty, or a folder where a file is meant.
    SymbolError
        When a symbol is not in the store.
    DataError
        When no bar matches.
    """
    began = time.perf_counter()
    if form not in ("parquet", "csv"):
        raise UsageError(f"unknown format `{form}`", "choose parquet or csv")
    store = MarketStore.open(find_workspace(workspace).market)
    version = store.version if version is None else version
    chosen = None if symbols is None else resolve_symbols(store, symbols, version)
    rows = store.frame(chosen, start, end, version)
    if rows.is_empty():
        raise DataError("no bar matches what was asked for", "barcast data info shows what the store holds")
    parts = rows.partition_by("symbol", as_dict=True, maintain_order=True) if per_symbol else {}
    if per_symbol:
        with atomic_folder(target) as temporary:
            for (symbol,), part in parts.items():
                _write(part, temporary / f"{symbol}.{form}", form)
    else:
        with atomic_path(target) as temporary:
            _write(rows, temporary, form)
    return ExportResult(
        path=str(target),
        num_files=len(parts) or 1,
        num_rows=len(rows),
        num_symbols=rows["symbol"].n_unique(),
        version=version,
        seconds=round(time.perf_counter() - began, 3),
    )


def _imported_before(store: MarketStore, inputs: str) -> int | None:
    """Return the last version, when this very input was imported into the store before."""
    seen = {note.get("inputs") for _, _, note in store.table.history()}
    return store.version if inputs and inputs in seen else None


def _meta_of(options: ImportOptions) -> StoreMeta:
    return StoreMeta(
        market=options.market or "other",
        frequency=options.frequency or "1d",
        calendar=options.calendar or "observed",
    )


def _nothing_readable(failures: pl.DataFrame) -> DataError:
    first = [_describe_failure(row) for row in failures.head(3).to_dicts()]
    return DataError(
        f"nothing could be imported ({len(failures)} failures): {'; '.join(first) or 'no rows'}",
        "barcast data import --dry-run shows how the files are read",
    )


def _describe_failure(row: Mapping[str, Any]) -> str:
    where = ":".join(str(row[name]) for name in ("file", "line") if row[name] is not None)
    what = f" {row['column']} `{row['value']}`" if row["value"] is not None else ""
    return f"{where or row['symbol']}{what}: {row['reason']}"


def _refusals(refused: pl.DataFrame) -> pl.DataFrame:
    return failure_table(
        [failure("update", row["reason"], symbol=row["symbol"]) for row in refused.to_dicts()]
    )


def _conflicts(store: MarketStore, history: History) -> pl.DataFrame:
    """Conflicts known before, less those on rows given anew, and the new ones."""
    key = ["symbol", "time"]
    known = store.conflicts()
    if known.is_empty():
        return history.conflicts
    still = known.join(history.rows.select(key), on=key, how="anti")
    return pl.concat([still, history.conflicts], how="diagonal_relaxed")


def _status(
    given: Path | pl.DataFrame | None, store: MarketStore | None, options: ImportOptions
) -> pl.DataFrame:
    known = store.status() if store else pl.DataFrame(schema=STATUS_SCHEMA)
    if given is None:
        return known
    if isinstance(given, Path):
        with explained("reading", given):
            read = pl.read_parquet if given.suffix in (".parquet", ".pq") else pl.read_csv
            given = read(given)
    return join_status(known, conform_status(given, options.market or "other"))


def _note(verb: str, task: Task, history: History) -> dict[str, Any]:
    """Return what is kept with the version."""
    return {
        "verb": verb,
        "inputs": task.inputs,
        "declared": task.options.declared(),
        "num_files": len(task.units),
        "num_read": history.num_read,
        "num_failures": len(history.failures),
    }


def _result(
    task: Task,
    history: History,
    version: int,
    resumed: int,
    written: pl.DataFrame,
    failures: pl.DataFrame | None = None,
) -> ImportResult:
    lost = history.failures if failures is None else failures
    times = written["time"]
    return ImportResult(
        store=str(task.folder),
        version=version,
        published=True,
        declared=task.options.declared(),
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
        num_failures=len(lost),
        notes=history.notes,
        failures=tuple(lost.head(_SHOWN_FAILURES).to_dicts()),
        seconds=round(time.perf_counter() - task.began, 3),
    )


def _nothing_new(task: Task, version: int, why: str) -> ImportResult:
    return ImportResult(
        store=str(task.folder),
        version=version,
        published=False,
        declared=task.options.declared(),
        num_files=len(task.units),
        notes=(why,),
        seconds=round(time.perf_counter() - task.began, 3),
    )


def _write(rows: pl.DataFrame, path: Path, form: str) -> None:
    if form == "csv":
        rows.write_csv(path)
    else:
        rows.write_parquet(path, compression="zstd", compression_level=3)
