"""Writes that are there whole or not at all: a temporary name beside the target, then a rename."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from barcast.core.errors import UsageError, explained

TEMPORARY_MARK = ".tmp-"
_TEMPORARY = re.compile(re.escape(TEMPORARY_MARK) + r"\d+-[0-9a-f]{8}$")
#: A temporary name older than this was left by a process that was killed.
LEFTOVER_SECONDS = 24 * 3600


def temporary_beside(path: Path) -> Path:
    """Return an unused name in the folder of ``path``, so that a rename stays on one file system."""
    return path.with_name(f"{path.name}{TEMPORARY_MARK}{os.getpid()}-{uuid.uuid4().hex[:8]}")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary file name; on success it is flushed to disk and replaces the file ``path``.

    Raises
    ------
    UsageError
        When ``path`` is a folder.
    """
    refuse_folder(path)
    with explained("writing", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        try:
            yield temporary
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)  # the new name itself
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success it becomes ``path``. Nothing that exists is ever replaced.

    Raises
    ------
    UsageError
        When ``path`` is there already, unless as an empty folder.
    """
    path = path.resolve()  # `.` has no name to put a temporary one beside
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(f"{path} exists and is no empty folder", "name a new or an empty folder")
    with explained("writing", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        temporary.mkdir()
        try:
            yield temporary
            for file in temporary.rglob("*"):
                _flush(file)
            temporary.replace(path)  # the system refuses when somebody filled the folder meanwhile
            _flush(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def refuse_folder(path: Path) -> None:
    """Refuse a folder where a file is to be written; commands ask before they compute anything.

    Raises
    ------
    UsageError
        When ``path`` is a folder.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder", f"name a file, for example {path / 'NAME'}")


def sweep_leftovers(folder: Path) -> int:
    """Remove what killed writers left directly in ``folder`` over a day ago; return how much."""
    oldest = time.time() - LEFTOVER_SECONDS
    swept = 0
    for path in folder.glob(f"*{TEMPORARY_MARK}*"):
        try:
            if not _TEMPORARY.search(path.name) or path.stat().st_mtime > oldest:
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:  # gone meanwhile, or not ours to remove: leftovers do no harm
            continue
        swept += 1
    return swept


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in order, readable by people."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
