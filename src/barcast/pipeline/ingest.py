"""Reading what an import or update is given, part by part; finished parts are kept until a version is out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from barcast.core.config import digest, to_plain
from barcast.core.progress import Progress, clock, count
from barcast.core.symbols import Reading
from barcast.core.workspace import Workspace
from barcast.sources import FileSource, FrameSource, ImportOptions, Source
from barcast.sources.base import Chunk, Unit, failure_table
from barcast.sources.canonical import understand
from barcast.sources.history import History, assemble
from barcast.store import MarketStore
from barcast.store.staging import Staging

if TYPE_CHECKING:
    from barcast.sources.frames import Frames

    Given: TypeAlias = Source | Path | str | Sequence[Path | str] | Frames

Place: TypeAlias = Workspace | Path | str | None

#: Raised whenever staged parts of an older barcast must not be taken up.
_STAGE_FORMAT = 2
_PART_BYTES, _PART_FILES = 64 << 20, 128


@dataclass(frozen=True)
class Task:
    """One call, with everything resolved before anything is read."""

    folder: Path
    source: Source
    units: tuple[Unit, ...]
    options: ImportOptions
    progress: Progress
    began: float
    same_anchor: bool = False

    @property
    def declared(self) -> dict[str, Any]:
        """What is taken for granted, as it is echoed and kept with the version."""
        return self.options.declared() | ({"same_anchor": True} if self.same_anchor else {})

    @property
    def inputs(self) -> str:
        """Digest of input and options; empty where the input has no identity."""
        keys = [unit.key for unit in self.units]
        return _digest(keys, self.options) if all(keys) else ""


def prepare(
    workspace: Place,
    given: Given,
    options: ImportOptions | None,
    progress: Progress | None,
    *,
    fresh: bool = False,
) -> Task:
    """List the input and resolve the options; with ``fresh`` nothing that was declared before is taken over.

    Raises
    ------
    UsageError
        On options that are missing or contradict the store.
    DataError
        When there is nothing to read.
    """
    began = time.perf_counter()
    folder = find_workspace(workspace).market
    source = _source(given)
    units = source.units()
    existing = existing_store(folder)
    remembered: dict[str, Any] = {}
    if existing:
        meta = existing.meta
        fixed = {"market": meta.market, "frequency": meta.frequency, "calendar": meta.calendar}
        remembered = ({} if fresh else existing.declared()) | fixed
    resolved = (options or ImportOptions()).resolved(remembered)
    progress = progress or Progress(enabled=False)
    files = "1 file" if len(units) == 1 else f"{len(units)} files"
    progress.note(f"reading {files}: {resolved.describe()}")
    return Task(folder, source, units, resolved, progress, began)


def find_workspace(workspace: Place) -> Workspace:
    """Return the workspace meant, found as the commands do."""
    return workspace if isinstance(workspace, Workspace) else Workspace.find(workspace)


def _source(given: Given) -> Source:
    if isinstance(given, Path | str):
        return FileSource((Path(given),))
    if isinstance(given, Mapping) or hasattr(given, "columns"):
        return FrameSource.of(given)
    if isinstance(given, Sequence):
        return FileSource(tuple(Path(path) for path in given))
    return given


def existing_store(folder: Path) -> MarketStore | None:
    """Return the store, where one was ever published."""
    if not (folder / "store.json").is_file():
        return None
    store = MarketStore.open(folder)
    return None if store.is_empty else store


def read_all(task: Task, stored: Sequence[str], now: datetime | None) -> tuple[History, int]:
    """Read every part, taking up finished ones; return the history and how many files were taken up."""
    staging = Staging(task.folder / "staging")
    ledger, chunks, resumed, done = staging.parts(), [], 0, 0
    batches = list(_batches(task.units))
    began = time.perf_counter()
    for batch in batches:
        part = _part_name(batch, task.options) if len(batches) > 1 else ""
        if part in ledger:
            chunks.append(_unstage(staging, part, ledger[part]))
            resumed += len(batch)
        else:
            chunks.append(_read_batch(task, batch))
            if part:
                _stage(staging, part, chunks[-1])
        done += len(batch)
        _tell(task, done, sum(chunk.num_read for chunk in chunks), began)
    if resumed:
        task.progress.note(f"{resumed} files were read by an earlier call")
    task.progress.step("joining, checking and writing", final=True)
    return assemble(chunks, task.options, stored, now), resumed


def _batches(units: Sequence[Unit]) -> Iterator[tuple[Unit, ...]]:
    batch: list[Unit] = []
    size = 0
    for unit in units:
        if batch and (size + unit.size > _PART_BYTES or len(batch) == _PART_FILES):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(unit)
        size += unit.size
    if batch:
        yield tuple(batch)


def _read_batch(task: Task, batch: Sequence[Unit]) -> Chunk:
    pieces, lost = task.source.pieces(batch, task.options)
    chunk = understand(pieces, task.options)
    return replace(chunk, failures=pl.concat([failure_table(lost), chunk.failures])) if lost else chunk


def _digest(keys: Sequence[str], options: ImportOptions) -> str:
    return digest({"keys": list(keys), "options": to_plain(options), "format": _STAGE_FORMAT})


def _part_name(batch: Sequence[Unit], options: ImportOptions) -> str:
    """Name a part by what goes into it; empty (never staged) where the input has no identity."""
    return _digest([unit.key for unit in batch], options) if all(unit.key for unit in batch) else ""


def _stage(staging: Staging, part: str, chunk: Chunk) -> None:
    note = asdict(replace(chunk, rows=pl.DataFrame(), failures=pl.DataFrame()))
    del note["rows"], note["failures"]
    staging.add(part, {"rows": chunk.rows, "failures": chunk.failures}, note)


def _unstage(staging: Staging, part: str, note: dict[str, Any]) -> Chunk:
    readings = {spelling: Reading(**reading) for spelling, reading in note["readings"].items()}
    rest: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in note.items()
    }
    rest |= {name: staging.table(part, name) for name in ("rows", "failures")}
    return Chunk(**(rest | {"readings": readings}))


def _tell(task: Task, done: int, rows: int, began: float) -> None:
    elapsed = max(time.perf_counter() - began, 1e-9)
    left = elapsed / done * (len(task.units) - done)
    task.progress.step(
        f"read {done}/{len(task.units)} files, {count(rows)} rows, "
        f"{count(rows / elapsed)} rows/s, {clock(left)} left",
        final=done == len(task.units),
    )
