"""The Delta table of bars: reading a version in order, and adding one atomically."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from barcast.core.arrays import I64
from barcast.core.atomic import read_json, write_json
from barcast.core.bars import STORE_COLUMNS
from barcast.core.calendar import FREQUENCIES
from barcast.core.errors import DataError, StoreError, explained

if TYPE_CHECKING:
    from deltalake import DeltaTable

_CONFIGURATION = {  # old versions stay readable until compaction decides otherwise
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
    "delta.checkpointInterval": "20",  # opening reads the log from the last checkpoint on
}
#: Key of our own note in a commit.
_NOTE = "barcast"


@dataclass(frozen=True)
class BarsTable:
    """A Delta table of store rows, partitioned by ``period``.

    Parameters
    ----------
    folder : Path
        Where it rests; it may not exist yet.
    frequency : str
        Decides the period: a year, or a month for bars shorter than an hour.
    """

    folder: Path
    frequency: str

    def latest(self) -> int | None:
        """Return the last published version; None where there is none. Reads names only, so it is cheap."""
        # an entry of the log appears under its number by one rename, and none is ever removed
        names = (self.folder / "_delta_log").glob("*.json")
        return max((int(name.stem) for name in names if name.stem.isdigit()), default=None)

    def open(self, version: int | None = None) -> DeltaTable:
        """Open a version, by default the last one.

        Raises
        ------
        DataError
            When nothing was ever published, or that version does not exist or no longer.
        """
        from deltalake import DeltaTable

        self.require(version)
        with _explained("reading", self.folder):
            return DeltaTable(str(self.folder), version=version)

    def require(self, version: int | None = None) -> None:
        """Refuse a version that cannot be read; errors as for ``open``."""
        latest = self.latest()
        if latest is None:
            raise DataError(
                f"{self.folder.parent} is empty", "fill it: barcast data import PATH --market ..."
            )
        if version is None:
            return
        if not 0 <= version <= latest:
            raise DataError(
                f"no version {version} of the store: versions are 0 to {latest}",
                "barcast data info lists them",
            )
        if version in self.dropped():
            raise DataError(
                f"version {version} of the store was dropped when it was compacted",
                "only the last version and those that a run cites are kept",
            )

    def files(self, version: int | None = None) -> pl.DataFrame:
        """List the files of a version: ``path`` in the folder and ``period``."""
        actions = pl.DataFrame(self.open(version).get_add_actions(flatten=True))
        return actions.select("path", period="partition.period").sort("period", "path")

    def scan(self, version: int | None = None, periods: tuple[int, int] | None = None) -> pl.LazyFrame:
        """Return the rows of a version in no order, columns of ``STORE_COLUMNS``.

        Raises
        ------
        DataError
            When nothing was ever published.
        """
        files = self.files(version)
        if periods is not None:
            files = files.filter(pl.col("period").is_between(*periods))
        if files.is_empty():
            return self.empty().lazy()
        # the table's own list of addresses is percent-encoded, which polars does not undo
        paths = [self.folder / path for path in files["path"]]
        return pl.scan_parquet(paths, glob=False, hive_partitioning=False).select(STORE_COLUMNS)

    def empty(self) -> pl.DataFrame:
        """No rows, with the right types."""
        time = pl.Date() if self.frequency == "1d" else pl.Datetime("us")
        kinds = {"symbol": pl.String(), "time": time, "basis": pl.String()}
        return pl.DataFrame(schema={name: kinds.get(name, pl.Float64()) for name in STORE_COLUMNS})

    def period(self, time: pl.Expr) -> pl.Expr:
        """Return the partition of a bar."""
        year = time.dt.year().cast(pl.Int32)
        if FREQUENCIES[self.frequency] >= 3600:
            return year
        return year * 100 + time.dt.month().cast(pl.Int32)

    def commit(self, rows: pl.DataFrame, periods: Sequence[int] | None, note: Mapping[str, Any]) -> int:
        """Add a version in one step.

        Parameters
        ----------
        rows : pl.DataFrame
            Sorted by symbol and time.
        periods : sequence of int, optional
            Partitions whose old rows these replace; empty to append; None to replace everything.
        note : Mapping
            What happened; kept with the version.

        Returns
        -------
        int
            The new version's number.
        """
        from deltalake import CommitProperties, WriterProperties, write_deltalake

        data = rows.select(STORE_COLUMNS).with_columns(period=self.period(pl.col("time")))
        replaced = ", ".join(map(str, sorted(periods or ())))
        how: dict[str, Any] = {"mode": "append"}
        if periods is None or replaced:
            how = {"mode": "overwrite", "predicate": f"period in ({replaced})" if replaced else None}
        self.folder.mkdir(parents=True, exist_ok=True)
        with _explained("writing", self.folder):
            write_deltalake(
                str(self.folder),
                data,
                partition_by=["period"],
                configuration=_CONFIGURATION,
                writer_properties=WriterProperties(compression="SNAPPY"),
                commit_properties=CommitProperties(
                    custom_metadata={_NOTE: json.dumps(note, ensure_ascii=False)}
                ),
                **how,
            )
        version = self.latest()
        if version is None:
            raise StoreError(f"{self.folder} was written but holds no version")
        return version

    def history(self) -> list[tuple[int, datetime, dict[str, Any]]]:
        """List versions, newest first: number, local time, and the note given to ``commit``, if any."""
        if self.latest() is None:
            return []
        return [
            (
                entry["version"],
                datetime.fromtimestamp(entry["timestamp"] / 1000).astimezone(),
                json.loads(entry[_NOTE]) if _NOTE in entry else {},
            )
            for entry in self.open().history()
        ]

    def dropped(self) -> frozenset[int]:
        """Return the versions that compaction dropped: none of them is read, even where its files survive."""
        path = self._kept_path
        if not path.is_file():
            return frozenset()
        kept = read_json(path)
        return frozenset(range(kept["through"] + 1)) - frozenset(kept["versions"])

    def compact(self, cited: Collection[int], keep_hours: int) -> int:
        """Merge small files and drop those that no kept version needs.

        Kept are the last, the cited, and those that were the last one within ``keep_hours``. They are written
        down before any file goes: killed in between, a version is either whole or refused, and the next
        compaction goes on.

        Returns
        -------
        int
            Number of files removed.
        """
        table = self.open()
        with _explained("compacting", self.folder):
            table.optimize.compact()
        last = int(table.version())
        oldest = datetime.now(UTC) - timedelta(hours=keep_hours)
        lately = {version - 1 for version, time, _ in self.history() if version > 0 and time > oldest}
        kept = sorted(({last} | lately | set(cited)) - self.dropped())
        write_json(self._kept_path, {"through": last, "versions": kept})
        with _explained("compacting", self.folder):
            removed = table.vacuum(
                retention_hours=keep_hours,
                dry_run=False,
                enforce_retention_duration=False,
                full=True,
                keep_versions=kept,
            )
        return len(removed)

    @property
    def _kept_path(self) -> Path:
        return self.folder.parent / "kept.json"


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Sort rows by symbol and time, fast where they come as a few sorted runs (as files of a store do).

    The runs, not the rows, are sorted, and the rows gathered: a fifth of the time of sorting millions of
    names.
    """
    if frame.is_empty():
        return frame
    symbol, time = frame["symbol"], frame["time"]
    begins = ((symbol != symbol.shift(1)) | (time <= time.shift(1))).fill_null(True)
    starts = begins.arg_true()
    lengths = np.diff(np.append(starts.to_numpy(), len(frame)))
    runs = pl.DataFrame(
        {
            "symbol": symbol.gather(starts),
            "first": time.gather(starts),
            "last": time.gather(pl.Series(starts.to_numpy() + lengths - 1)),
            "start": starts.cast(pl.Int64),
            "length": lengths,
        }
    ).sort("symbol", "first")
    before = runs["symbol"] == runs["symbol"].shift(1)
    if (before & (runs["first"] <= runs["last"].shift(1))).any():  # runs of one symbol overlap
        return frame.sort("symbol", "time")
    if runs["start"].is_sorted():
        return frame
    return frame[_ranges(runs["start"].to_numpy(), runs["length"].to_numpy())]


def _ranges(starts: I64, lengths: I64) -> I64:
    """Concatenate ``start .. start + length - 1`` of each run."""
    begins = np.cumsum(lengths) - lengths
    return np.repeat(starts - begins, lengths) + np.arange(lengths.sum())


@contextmanager
def _explained(action: str, path: Path) -> Iterator[None]:
    """As ``core.errors.explained``, for the table library's own errors too."""
    from deltalake.exceptions import DeltaError

    with explained(action, path):
        try:
            yield
        except DeltaError as error:
            text = str(error)
            if "No space left" in text or "ermission denied" in text:
                raise OSError(text) from error
            raise StoreError(
                f"{action} {path}: {text}", "barcast data info shows whether it can be read"
            ) from error
