"""Caches are folders of files that can be made again: bounded by size, those used longest ago go first."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from barcast.core.atomic import TEMPORARY_MARK

_ABANDONED_AFTER_SECONDS = 3600


def touch(path: Path) -> None:
    """Mark an entry as used now, which `evict` goes by; where it may not be written, it looks old."""
    with suppress(OSError):
        os.utime(path)


def evict(folder: Path, suffix: str, max_bytes: int, *, keep: Path | None = None) -> tuple[Path, ...]:
    """Remove the entries that were used longest ago until the rest fit into ``max_bytes``.

    Parameters
    ----------
    folder : Path
        Where the entries are; it need not exist.
    suffix : str
        How their names end. Temporary files beside them go when their writer must be dead.
    max_bytes : int
        What may stay.
    keep : Path, optional
        An entry that stays whatever its size.

    Returns
    -------
    tuple of Path
        What was removed. A process that has an entry mapped keeps its data.
    """
    removed = []
    entries: list[tuple[float, int, Path]] = []
    for path in folder.glob(f"*{suffix}*") if folder.is_dir() else ():
        try:
            found = path.stat()
        except FileNotFoundError:  # another process was quicker
            continue
        if TEMPORARY_MARK not in path.name:
            entries.append((found.st_mtime, found.st_size, path))
        elif time.time() - found.st_mtime > _ABANDONED_AFTER_SECONDS:
            removed.append(path)
    size = sum(entry_size for _, entry_size, _ in entries)
    for _, entry_size, path in sorted(entries):
        if size > max_bytes and path != keep:
            removed.append(path)
            size -= entry_size
    for path in removed:
        path.unlink(missing_ok=True)
    return tuple(removed)
