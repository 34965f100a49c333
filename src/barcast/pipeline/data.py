"""The data verbs: import, update, status, compact, export, and looks at what there is.

An import reads its input in parts, keeps each finished part beside the store, and publishes one version at
the end. Killed at any moment, it leaves the last version as it was; the same call goes on where it stopped.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from barcast.core.atomic import atomic_folder, atomic_path, refuse_folder
from barcast.core.errors import DataError, StoreError, UsageError
from barcast.core.lock import writer_lock
from barcast.core.progress import Progress
from barcast.core.symbols import MARKETS
from barcast.pipeline.data_results import (
    ExportResult,
    ImportPlan,
    ImportResult,
    nothing_new,
    result_of,
)
from barcast.pipeline.ingest import Place, Task, existing_store, find_workspace, prepare, read_all
from barcast.sources import SAMPLE_OPTIONS, ImportOptions, sample_source
from barcast.sources.base import VALUE_COLUMNS, failure, failure_table, num_failures
from barcast.sources.canonical import understand
from barcast.sources.history import History
from barcast.store import Compaction, MarketStore, StoreInfo, StoreMeta
from barcast.store.birth import begin_store, end_birth, refuse_lost_description
from barcast.store.merge import merge, write
from barcast.store.status import join_status, read_status

if TYPE_CHECKING:
    from barcast.pipeline.ingest import Given


def import_data(
    workspace: Place,
    given: Given,
    options: ImportOptions | None = None,
    *,
    replace_all: bool = False,
    status: Path | str | pl.DataFrame | None = None,
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
    facts = _facts(status, task)
    with writer_lock(task.folder):
        begin_store(task.folder)
        existing = existing_store(task.folder)
        if existing and not replace_all:
            return _imported_before(existing, task)
        history, resumed = read_all(task, (), now)
        if history.rows.is_empty():
            raise _nothing_readable(history.failures)
        store = existing or MarketStore(task.folder, _meta_of(task.options))
        beside = {"conflicts": history.conflicts, "failures": history.failures}
        if facts is not None:
            beside["status"] = join_status(existing.status(), facts) if existing else facts
        version = store.publish(history.rows, _note("import", task, history), periods=None, beside=beside)
        if not existing:
            store.meta.write(task.folder)  # from now on there is a store
            end_birth(task.folder)
        store.staging().clear()
    return result_of(task, history, version, resumed, history.rows)


def update_data(
    workspace: Place,
    given: Given,
    options: ImportOptions | None = None,
    *,
    same_anchor: bool = False,
    status: Path | str | pl.DataFrame | None = None,
    progress: Progress | None = None,
    now: datetime | None = None,
) -> ImportResult:
    """Merge new bars into the workspace's store.

    Sessions that both have are compared: corrections replace stored rows, a moved anchor replaces the
    symbol's whole history, and what cannot be joined without a false return is refused, symbol by symbol.
    Other parameters and errors as for ``import_data``; what was declared then need not be said again.

    Parameters
    ----------
    same_anchor : bool
        That this source never moves the anchor of its adjusted prices, so that they may be joined without
        any session in common. Kept with the version; not taken over by later updates.

    Raises
    ------
    StoreError
        When nothing was ever imported.
    """
    _require_store(workspace, given)
    task = replace(prepare(workspace, given, options, progress), same_anchor=same_anchor)
    facts = _facts(status, task)
    with writer_lock(task.folder):
        store = MarketStore.open(task.folder)
        version = store.version
        history, resumed = read_all(task, store.symbols(), now)
        change = merge(store, history.rows, history.linked, same_anchor=same_anchor)
        failures = pl.concat([history.failures, _refusals(change.refused)])
        beside = {"conflicts": _conflicts(store, history, change.refused)}
        if facts is not None:
            beside["status"] = join_status(store.status(), facts)
        published = not change.rows.is_empty() or store.beside.differ(version, beside)
        if published:
            note = _note("update", task, history) | {"changes": change.counts}
            version = write(store, change, note, beside | {"failures": failures})
        else:
            store.beside.write_unpublished(failures)
        store.staging().clear()
    result = result_of(task, history, version, resumed, change.rows, failures)
    return replace(result, published=published, changes=change.counts, examples=change.examples)


def compact_store(workspace: Place, *, keep_hours: int = 24) -> Compaction:
    """Merge small files and drop the versions that no run cites, but the last (``MarketStore.compact``)."""
    if keep_hours < 0:
        raise UsageError(f"--keep-hours {keep_hours}", "give a number of hours, 0 to keep none for readers")
    return MarketStore.open(find_workspace(workspace).market).compact(keep_hours)


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
        first_row=pl.struct("symbol", "time", *VALUE_COLUMNS, "basis").first(),
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
        num_looked_at=len(task.units[:most_files]),
        num_bytes=sum(unit.size for unit in task.units),
        looked_at=looked_at,
        failures=tuple(pl.concat([failure_table(lost), chunk.failures]).to_dicts()),
        notes=chunk.notes,
    )


def store_info(workspace: Place) -> StoreInfo:
    """Describe the workspace's store."""
    return MarketStore.open(find_workspace(workspace).market).info()


def store_failures(workspace: Place, version: int | None = None) -> pl.DataFrame:
    """Return what an import or update could not use, by default the last one."""
    return MarketStore.open(find_workspace(workspace).market).failures(version)


def store_conflicts(workspace: Place, version: int | None = None) -> pl.DataFrame:
    """Return rows of bars that sources gave twice with different values; ``kept`` marks the stored one."""
    return MarketStore.open(find_workspace(workspace).market).conflicts(version)


def store_status(workspace: Place, version: int | None = None) -> pl.DataFrame:
    """Return listings, delistings, suspensions and ST spells."""
    return MarketStore.open(find_workspace(workspace).market).status(version)


def store_symbols(workspace: Place) -> tuple[str, ...]:
    """Return the symbols that have a bar, sorted."""
    return MarketStore.open(find_workspace(workspace).market).symbols()


def export_data(
    workspace: Place,
    target: Path,
    *,
    form: str | None = None,
    per_symbol: bool = False,
    symbols: Sequence[str] | None = None,
    start: date | None = None,
    end: date | None = None,
    version: int | None = None,
    force: bool = False,
) -> ExportResult:
    """Write stored rows to one long file, or one file a symbol in a folder.

    The ending of a long file says its form; ``form``, parquet (the default) or csv, that of the files in a
    folder. A file that is there is replaced with ``force`` only, a folder that holds anything never.

    The columns are those of the store: prices as given, with their factors and basis. Importing the export
    again gives the same store (say ``volume_unit="share"``). Symbols are read in any spelling.

    Raises
    ------
    UsageError
        When the target is a folder that is not empty, or a folder where a file is meant, or a file that is
        there; when its ending is not known or not that of ``form``.
    SymbolError
        When a symbol is not in the store.
    DataError
        When no bar matches.
    """
    began = time.perf_counter()
    form = _form_of(target, form, per_symbol=per_symbol)
    if not per_symbol:
        _refuse_overwriting(target, force=force)
    store = MarketStore.open(find_workspace(workspace).market)
    version = store.version if version is None else version
    chosen = None if symbols is None else store.resolve(symbols, version)
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


def _imported_before(store: MarketStore, task: Task) -> ImportResult:
    """Give the last version back when this very input was imported into it before; refuse any other."""
    seen = {note.get("inputs") for _, _, note in store.table.history()}
    if task.inputs and task.inputs in seen:
        store.staging().clear()  # of an import that was killed when all but this was done
        return nothing_new(task, store.version, "this input was imported before; nothing to do")
    raise UsageError(
        f"{task.folder} has data already (version {store.version})",
        "`barcast data update` merges; `barcast data import --replace` starts over",
    )


def _require_store(workspace: Place, given: Given) -> None:
    """Refuse to update what was never imported, with the command that imports it."""
    place = find_workspace(workspace)
    refuse_lost_description(place.market)
    if existing_store(place.market) is None:
        paths = (
            [given] if isinstance(given, Path | str) else given if isinstance(given, Sequence) else ["PATH"]
        )
        command = shlex.join(["barcast", "data", "import", *map(str, paths), "-w", str(place.root)])
        raise StoreError(f"{place.market} holds nothing to update", f"{command} --market {'|'.join(MARKETS)}")


def _facts(status: Path | str | pl.DataFrame | None, task: Task) -> pl.DataFrame | None:
    """Read a status table before the bars, so that a mistake in it costs no waiting."""
    return None if status is None else read_status(status, task.options.market or "other")


def _meta_of(options: ImportOptions) -> StoreMeta:
    return StoreMeta(
        market=options.market or "other",
        frequency=options.frequency or "1d",
        calendar=options.calendar or "observed",
    )


def _nothing_readable(failures: pl.DataFrame) -> DataError:
    first = [_describe_failure(row) for row in failures.head(3).to_dicts()]
    return DataError(
        f"nothing could be imported ({num_failures(failures)} failures): {'; '.join(first) or 'no rows'}",
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


def _conflicts(store: MarketStore, history: History, refused: pl.DataFrame) -> pl.DataFrame:
    """Conflicts known before, less those on rows given anew, and the new ones; refused symbols stay."""
    key = ["symbol", "time"]
    given = history.rows.join(refused, on="symbol", how="anti").select(key)
    new = history.conflicts.join(refused, on="symbol", how="anti")
    known = store.conflicts()
    if known.is_empty():
        return new
    still = known.join(given, on=key, how="anti")
    return pl.concat([still, new], how="diagonal_relaxed").sort(*key, "file", "line")


def _note(verb: str, task: Task, history: History) -> dict[str, Any]:
    """Return what is kept with the version."""
    return {
        "verb": verb,
        "inputs": task.inputs,
        "declared": task.declared,
        "num_files": len(task.units),
        "num_read": history.num_read,
        "num_failures": num_failures(history.failures),
    }


def _form_of(target: Path, form: str | None, *, per_symbol: bool) -> str:
    """Settle what an export is written as."""
    if form not in (None, "parquet", "csv"):
        raise UsageError(f"unknown format `{form}`", "choose parquet or csv")
    if per_symbol:
        return form or "parquet"
    refuse_folder(target)
    ending = target.suffix.lower().removeprefix(".")
    if ending not in ("parquet", "csv"):
        raise UsageError(f"{target}: neither .csv nor .parquet", f"name it {target.stem}.{form or 'csv'}")
    if form not in (None, ending):
        raise UsageError(f"{target} does not end as --format {form}", "leave --format out")
    return ending


def _refuse_overwriting(target: Path, *, force: bool) -> None:
    if target.exists() and not force:
        raise UsageError(f"{target} exists", "choose another name or add --force")


def _write(rows: pl.DataFrame, path: Path, form: str) -> None:
    if form == "csv":
        rows.write_csv(path)
    else:
        rows.write_parquet(path, compression="zstd", compression_level=3)
