"""The sealed test: each opening of a test segment is counted and shown beside every score that follows.

A test segment judges honestly once. Looking again after a change fits the change to it, and no interval
knows. So a workspace counts openings, whichever run, model or command looked: those of the very same rows,
and those of other versions or selections of the data that asked the same question of the same dates. One
appended session, or one symbol less, makes no test new.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from barcast.core.atomic import read_json, write_json
from barcast.core.config import from_plain, to_plain
from barcast.core.errors import DataError, UsageError, explained

FILE_NAME = "seals.json"


@dataclass(frozen=True, kw_only=True)
class SealedTest:
    """Which test is meant.

    Attributes
    ----------
    data_key, label_key : str
        Digests of the rows, and of the label with its segments: the very same test.
    market : str
        What the rows are of, whatever their version, such as ``us 1d XNYS``.
    horizons : tuple of int
        Sessions from entry to exit.
    delay : int
        Sessions from decision to entry.
    first, last : str
        First and last decision time of the segment, ISO 8601.
    """

    data_key: str
    label_key: str
    market: str
    horizons: tuple[int, ...]
    delay: int
    first: str
    last: str

    @property
    def key(self) -> str:
        """Names the very same test."""
        return f"{self.data_key}/{self.label_key}"

    def overlaps(self, other: SealedTest) -> bool:
        """Whether a look at ``other`` told something about this test: one horizon and one date are enough."""
        return (
            (self.market, self.delay) == (other.market, other.delay)
            and bool(set(self.horizons) & set(other.horizons))
            and self.first <= other.last
            and other.first <= self.last
        )


@dataclass(frozen=True)
class Openings:
    """How often a test was opened.

    Attributes
    ----------
    total : int
        All looks at its dates.
    elsewhere : int
        Those among them at other versions or selections of the data, other horizons beside a shared one, or
        other borders.
    """

    total: int = 0
    elsewhere: int = 0


@dataclass(frozen=True)
class Opening:
    """One look at a test segment.

    Attributes
    ----------
    time : str
        When, UTC, ISO 8601.
    run : str
        Who looked.
    test : SealedTest or None
        What was looked at; None in files of versions that did not write it down.
    """

    time: str
    run: str
    test: SealedTest | None = None


@dataclass(frozen=True)
class TestSeal:
    """The openings of a workspace's test segments, kept in one file.

    Parameters
    ----------
    path : Path
        ``seals.json`` in the workspace; made at the first opening.
    """

    path: Path

    def open(self, test: SealedTest, run: str) -> Opening:
        """Count one more look and return it. Call it before the outcomes are read, not after.

        Safe against other processes and against a kill: a look is counted whole or not at all.

        Parameters
        ----------
        test : SealedTest
            What is looked at.
        run : str
            The run that looks.

        Raises
        ------
        DataError
            Where the file is damaged: a count is never started afresh in silence.
        ResourceError
            Where the file cannot be written: then the segment must stay sealed.
        """
        look = Opening(datetime.now(UTC).isoformat(timespec="seconds"), run, test)
        with _locked(self.path):
            seals = self._read()
            seals.setdefault(test.key, []).append(look)
            write_json(self.path, to_plain(seals))
        return look

    def count(self, test: SealedTest) -> Openings:
        """Return how often this test was opened, on these very rows and on others of the same dates."""
        here, elsewhere = 0, 0
        for key, looks in self._read().items():
            if key == test.key:
                here += len(looks)
            else:
                elsewhere += sum(look.test is not None and test.overlaps(look.test) for look in looks)
        return Openings(here + elsewhere, elsewhere)

    def history(self, test: SealedTest) -> tuple[Opening, ...]:
        """Return every look at these very rows and segments, first to last."""
        return tuple(self._read().get(test.key, ()))

    def _read(self) -> dict[str, list[Opening]]:
        if not self.path.exists():
            return {}
        try:
            return {
                key: [from_plain(Opening, look, f"{key}[{place}]") for place, look in enumerate(looks)]
                for key, looks in read_json(self.path).items()
            }
        except (ValueError, TypeError, AttributeError, UsageError) as error:
            raise DataError(
                f"{self.path} is damaged ({error}): how often tests were opened is unknown",
                "restore it from a backup; or remove it, knowing that earlier looks are then forgotten",
            ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock beside ``path``; the system releases it when a process dies."""
    with explained("writing", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.lock").open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
