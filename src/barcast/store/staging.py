"""Finished parts of an unfinished import: a ledger and Parquet files, gone once a version is published.

A part is named by what went into it (paths, sizes, times of modification, options), so work is taken up again
only where nothing has changed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from barcast.core.atomic import atomic_path
from barcast.core.errors import explained


@dataclass(frozen=True)
class Staging:
    """The folder in which an import collects its parts.

    Parameters
    ----------
    folder : Path
        ``staging/`` of a store; the writer lock must be held.
    """

    folder: Path

    def parts(self) -> dict[str, dict[str, Any]]:
        """Return the ledger: part name to what was noted about it. A torn last line counts as absent."""
        path = self.folder / "ledger.jsonl"
        found: dict[str, dict[str, Any]] = {}
        if not path.is_file():
            return found
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                found[entry["part"]] = entry["note"]
            except (ValueError, KeyError):
                continue
        return found

    def add(self, part: str, tables: Mapping[str, pl.DataFrame], note: Mapping[str, Any]) -> None:
        """Keep a finished part: first its tables, then its line in the ledger."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            with atomic_path(self.folder / f"{part}.{name}.parquet") as temporary:
                table.write_parquet(temporary, compression="lz4", statistics=False)
        with (
            explained("writing", self.folder),
            (self.folder / "ledger.jsonl").open("a", encoding="utf-8") as file,
        ):
            # a line of its own even after a torn one
            file.write("\n" + json.dumps({"part": part, "note": note}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def table(self, part: str, name: str) -> pl.DataFrame:
        """Read one table of a part."""
        return pl.read_parquet(self.folder / f"{part}.{name}.parquet")

    def clear(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
