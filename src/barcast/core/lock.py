"""One writer at a time. The kernel holds the lock, so that the death of a writer frees it."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from barcast.core.errors import StoreBusyError, explained
from barcast.core.runs import command_line


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the store's writer lock.

    The file ``writer.lock`` stays and says who holds it, or who did last; only the kernel's lock on it
    counts, so nothing is left to clean up after a kill.

    Raises
    ------
    StoreBusyError
        When another writer holds it, with its process, machine, start and command.
    """
    path = folder / "writer.lock"
    with explained("locking", path):
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    with file:
        try:
            _take(file)
        except BlockingIOError as error:
            file.seek(0)
            raise StoreBusyError(
                f"{folder} is being written by {_holder(file.read())}",
                "wait for it to finish; reading is possible meanwhile",
            ) from error
        file.truncate(0)
        json.dump(_myself(), file)
        file.flush()
        yield


def _take(file: IO[str]) -> None:
    """Take the lock; a moment's patience, because `is_locked` holds it for an instant."""
    for left in reversed(range(5)):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not left:
                raise
            time.sleep(0.02)


def is_locked(folder: Path) -> bool:
    """Return whether a writer, this process included, holds the folder's lock right now."""
    try:
        with (folder / "writer.lock").open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _myself() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command_line("a Python program")[:200],
    }


def _holder(text: str) -> str:
    try:
        who = json.loads(text)
    except ValueError:
        return "another process"
    return f"process {who['pid']} on {who['host']} since {who['since']} (`{who['command']}`)"
