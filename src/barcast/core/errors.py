"""Every error a user can meet, and the exit code the command line gives it.

::

    BarcastError                  1   something went wrong that we foresaw
    |-- UsageError                2   a flag, a config key or a call that makes no sense
    |-- DataError                 3   the input cannot be used as asked
    |   |-- SymbolError           3   a symbol that cannot be read, or two that collide
    |   |-- QualityError          3   a defect whose policy is `refuse`
    |   `-- CoverageError         3   too few symbols for session statistics
    |-- StoreError                4   the market store cannot be opened or written
    |   |-- StoreVersionError     4   written by a newer barcast
    |   `-- StoreBusyError        4   another process is writing
    |-- RunError                  5   a run that is missing, unfinished or too old
    |-- ResourceError             6   disk, permission or memory
    |   `-- OutOfMemoryError      6   a computation that is larger than the memory there is
    |-- LeakError                 7   the audit found a value that saw its future
    `-- OverlapError             75   another process is at the same work; try again later

Ctrl-C exits with 130, SIGTERM with 143. Anything else is a bug of ours: exit 70, with the traceback under
``--debug``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130


class BarcastError(Exception):
    """A foreseen error: what was asked, what was found, what to do.

    Parameters
    ----------
    found : str
        What is wrong, with the offending values.
    todo : str
        The next step, as a command where there is one.
    """

    exit_code = 1

    def __init__(self, found: str, todo: str = "") -> None:
        super().__init__(found if not todo else f"{found}\n  -> {todo}")
        self.found = found
        self.todo = todo


class UsageError(BarcastError, ValueError):
    """A flag, a config key or a call that makes no sense."""

    exit_code = 2


class DataError(BarcastError, ValueError):
    """The input cannot be used as asked."""

    exit_code = 3


class SymbolError(DataError):
    """A symbol that cannot be read, or two spellings that collide."""


class QualityError(DataError):
    """A defect whose policy is ``refuse``."""


class CoverageError(DataError):
    """Too few symbols have a bar for session statistics to mean anything."""


class StoreError(BarcastError):
    """The market store cannot be opened or written."""

    exit_code = 4


class StoreVersionError(StoreError):
    """The store was written by a newer barcast."""


class StoreBusyError(StoreError):
    """Another process is writing the store."""


class RunError(BarcastError):
    """A run that is missing, unfinished or too old."""

    exit_code = 5


class ResourceError(BarcastError):
    """Disk, permission or memory."""

    exit_code = 6


class OutOfMemoryError(ResourceError):
    """A computation that is larger than the memory there is."""


class LeakError(BarcastError):
    """The audit found a value that saw its future."""

    exit_code = 7


class OverlapError(BarcastError):
    """Another process is at the same work; this one did nothing and may be tried again later."""

    exit_code = 75


_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}


def is_not_allowed(error: BaseException | None) -> bool:
    """Whether the system refused for want of permission, or because the place is read-only."""
    return isinstance(error, OSError) and (error.errno in _NOT_ALLOWED or "ermission denied" in str(error))


@contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into errors that name the next step.

    Raises
    ------
    ResourceError
        On a full disk or a missing permission while ``action`` touches ``path``.
    """
    try:
        yield
    except OSError as error:
        text = str(error)
        if error.errno in _DISK_FULL or "No space left" in text:
            raise ResourceError(
                f"no space left on the disk while {action} {path}",
                "free some space and run the same command again: what was finished is kept",
            ) from error
        if is_not_allowed(error):
            raise ResourceError(
                f"no permission while {action} {path}",
                "choose another --workspace, or make this folder writable for you",
            ) from error
        raise
