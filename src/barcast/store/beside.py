"""Tables beside the bars: status, facts, conflicts and failures, one Parquet file for each change.

``<version>.parquet`` holds from that version of the bars on, until the next file; a table that stays as it
was is not written again. ``failures/unpublished.parquet`` is what the last update could not use, where it
made no version.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from barcast.core.atomic import atomic_path, sweep_leftovers

NAMES = ("status", "facts", "conflicts", "failures")


@dataclass(frozen=True)
class BesideTables:
    """The tables beside the versions of a store.

    Parameters
    ----------
    folder : Path
        The store's; whoever writes holds its writer lock.
    """

    folder: Path

    def read(self, name: str, version: int) -> pl.DataFrame | None:
        """Return a table as of a version; None where there was none yet."""
        numbers = self._numbers(name)
        position = bisect_right(numbers, version)
        return pl.read_parquet(self._path(name, numbers[position - 1])) if position else None

    def write(self, version: int, tables: Mapping[str, pl.DataFrame]) -> None:
        """Keep what changed under the number that the next version will have."""
        if "failures" in tables:
            self.write_unpublished(None)
        for name, table in tables.items():
            if self.differ(version - 1, {name: table}):
                with atomic_path(self._path(name, version)) as temporary:
                    table.write_parquet(temporary)

    def differ(self, version: int, tables: Mapping[str, pl.DataFrame]) -> bool:
        """Tell whether any of these tables is another than that of ``version``."""
        known = {name: self.read(name, version) for name in tables}
        return any(
            len(table) > 0 if (before := known[name]) is None else not table.equals(before)
            for name, table in tables.items()
        )

    def unpublished(self) -> pl.DataFrame | None:
        """Return what the last update could not use, where it made no version."""
        return pl.read_parquet(self._unpublished) if self._unpublished.is_file() else None

    def write_unpublished(self, failures: pl.DataFrame | None) -> None:
        """Keep, or forget where there is nothing, what an update without a new version could not use."""
        if failures is None or failures.is_empty():
            self._unpublished.unlink(missing_ok=True)
            return
        with atomic_path(self._unpublished) as temporary:
            failures.write_parquet(temporary)

    def drop_orphans(self, newest: int) -> None:
        """Remove what a killed writer left: half-written files, and those of a version that never came."""
        for name in NAMES:
            sweep_leftovers(self.folder / name)
            for number in self._numbers(name):
                if number > newest:
                    self._path(name, number).unlink()

    def drop_unread(self, versions: Collection[int]) -> None:
        """Remove the files that none of ``versions``, the last one among them, reads."""
        for name in NAMES:
            numbers = self._numbers(name)
            needed = {bisect_right(numbers, version) - 1 for version in versions}
            for position, number in enumerate(numbers):
                if position not in needed:
                    self._path(name, number).unlink()

    def _numbers(self, name: str) -> list[int]:
        files = (self.folder / name).glob("*.parquet")
        return sorted(int(file.stem) for file in files if file.stem.isdigit())

    def _path(self, name: str, version: int) -> Path:
        return self.folder / name / f"{version:08d}.parquet"

    @property
    def _unpublished(self) -> Path:
        return self.folder / "failures" / "unpublished.parquet"
