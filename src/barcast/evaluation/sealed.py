"""The sealed test: each opening of a test segment is counted and shown beside every score that follows.

A test segment judges honestly once. Looking again after a change fits the change to it, and no interval
knows. So a workspace counts openings per data and label, whichever run, model or command looked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from barcast.core.atomic import read_json, write_json
from barcast.core.errors import DataError, explained

FILE_NAME = "seals.json"


@dataclass(frozen=True)
class Opening:
    """One look at a test segment.

    Attributes
    ----------
    time : str
        When, UTC, ISO 8601.
    run : str
        Who looked.
    count : int
        How many looks there had been, this one included.
    """

    time: str
    run: str
    count: int


@dataclass(frozen=True)
class TestSeal:
    """The openings of a workspace's test segments, kept in one file.

    Parameters
    ----------
    path : Path
        ``seals.json`` in the workspace; made at the first opening.
    """

    path: Path

    def open(self, data_key: str, label_key: str, run: str) -> Opening:
        """Count one more look and return it. Call it before the outcomes are read, not after.

        Safe against other processes and against a kill: a look is counted whole or not at all.

        Parameters
        ----------
        data_key, label_key : str
            Digests of the data and of the label with its segments; a look at the same pair is the same test.
        run : str
            The run that looks.

        Raises
        ------
        DataError
            Where the file is damaged: a count is never started afresh in silence.
        ResourceError
            Where the file cannot be written: then the segment must stay sealed.
        """
        with _locked(self.path):
            seals = self._read()
            looks = seals.setdefault(_key(data_key, label_key), [])
            looks.append({"time": datetime.now(UTC).isoformat(timespec="seconds"), "run": run})
            write_json(self.path, seals)
        return Opening(**looks[-1], count=len(looks))

    def count(self, data_key: str, label_key: str) -> int:
        """Return how often this test was opened."""
        return len(self.history(data_key, label_key))

    def history(self, data_key: str, label_key: str) -> tuple[Opening, ...]:
        """Return every look at this test, first to last."""
        looks = self._read().get(_key(data_key, label_key), [])
        return tuple(Opening(**look, count=place) for place, look in enumerate(looks, start=1))

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        if not self.path.exists():
            return {}
        try:
            seals: dict[str, list[dict[str, Any]]] = read_json(self.path)
            for looks in seals.values():
                for look in looks:
                    Opening(**look, count=0)
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self.path} is damaged ({error}): how often tests were opened is unknown",
                "restore it from a backup; or remove it, knowing that earlier looks are then forgotten",
            ) from error
        return seals


def _key(data_key: str, label_key: str) -> str:
    return f"{data_key}/{label_key}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock beside ``path``; the system releases it when a process dies."""
    with explained("writing", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.lock").open("a+b") as file:
            if sys.platform == "win32":
                import msvcrt

                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            yield
