"""What pools of workers share: who gets which units, and what happens to those of a worker that is gone."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from barcast.core.errors import BarcastError, ResourceError
from barcast.fleet.executors.base import Finished, Outcome
from barcast.fleet.work import Unit

#: A worker has this much work waiting: longer than a driver takes to note results (a flush to the disk, a
#: moment without a core), short enough that little waits behind a long unit.
AHEAD_SECONDS = 0.1
#: However short the units, no more wait for one worker.
_MOST_AHEAD = 500
#: Weight of the newest unit in the mean of seconds.
_NEWEST = 0.1
#: Workers in a row that may die before they are ready.
_MOST_FAILED_STARTS = 3


class Pace:
    """How many units one worker is given at a time: one if they are long, as many as fill a moment if not.

    Parameters
    ----------
    batch_size : int, optional
        Fixes the number.
    """

    def __init__(self, batch_size: int | None = None) -> None:
        self._batch_size = batch_size
        self._seconds: float | None = None

    def note(self, seconds: float) -> None:
        """Learn how long a unit took."""
        before = seconds if self._seconds is None else self._seconds
        self._seconds = before + _NEWEST * (seconds - before)

    @property
    def allowance(self) -> int:
        """Units of one worker, the one that it fits included."""
        if self._batch_size is not None:
            return self._batch_size
        if self._seconds is None:
            return 1
        return 1 + int(min(AHEAD_SECONDS / max(self._seconds, 1e-9), _MOST_AHEAD))


@dataclass(frozen=True)
class Report:
    """What a worker says: what became of its next units, and whether it leaves because it has grown."""

    outcomes: tuple[Outcome, ...] = ()
    leaves: bool = False


@dataclass(frozen=True)
class Broken:
    """What a worker says that could not make its fit."""

    found: str
    todo: str

    @classmethod
    def of(cls, error: Exception) -> Broken:
        """Put an error in words."""
        if isinstance(error, BarcastError):
            return cls(error.found, error.todo)
        found = f"{type(error).__name__}: {error}"
        return cls(found, "the same command with --executor serial shows where, in full")


@dataclass
class Seat:
    """One worker as the pool sees it.

    Attributes
    ----------
    name : str
    is_ready : bool
        It has made its fit.
    units : deque of Unit
        Given to it and not back yet, in the order in which it takes them.
    """

    name: str
    is_ready: bool = False
    units: deque[Unit] = field(default_factory=deque)


S = TypeVar("S", bound=Seat)


class Pool(ABC, Generic[S]):
    """An executor of several workers; what carries the messages is up to those that build on it.

    Parameters
    ----------
    num_workers : int
    batch_size : int, optional
        Units of one worker at a time; by default as their measured seconds ask for.
    """

    def __init__(self, num_workers: int, batch_size: int | None) -> None:
        self._pace = Pace(batch_size)
        self._queue: deque[Unit] = deque()
        self._failed_starts = 0
        self._num_started = 0
        self._seats: list[S] = []
        for _ in range(num_workers):
            self._seats.append(self._start_next())

    @property
    def capacity(self) -> int:
        """See :class:`Executor`."""
        return len(self._seats) * self._pace.allowance

    def submit(self, unit: Unit) -> None:
        """See :class:`Executor`."""
        self._queue.append(unit)

    def results(self, timeout: float) -> list[Finished]:
        """See :class:`Executor`."""
        end = time.monotonic() + timeout
        finished: list[Finished] = []
        self._hand_out()
        while not finished and (self._queue or any(seat.units for seat in self._seats)):
            left = end - time.monotonic()
            finished = self._hear(max(left, 0.0))
            self._hand_out()
            if left <= 0:
                break
        return finished

    @abstractmethod
    def close(self) -> None:
        """See :class:`Executor`."""

    @abstractmethod
    def _start(self, name: str) -> S:
        """Start a worker without waiting for it."""

    @abstractmethod
    def _end(self, seat: S) -> str:
        """End a worker, if it has not ended already, and say how it ended."""

    @abstractmethod
    def _send(self, seat: S, units: list[Unit]) -> bool:
        """Give units to a worker; False, and nothing given, when it cannot take them now."""

    @abstractmethod
    def _hear(self, timeout: float) -> list[Finished]:
        """Wait for a message of any worker and take it in."""

    def _start_next(self) -> S:
        self._num_started += 1
        return self._start(f"worker {self._num_started}")

    def _hand_out(self) -> None:
        """Give waiting units to workers that have few; the least busy first, to each its share."""
        allowance = self._pace.allowance
        # Small refills would cost a message each.
        free = [
            seat for seat in self._seats if seat.is_ready and 4 * (allowance - len(seat.units)) >= allowance
        ]
        free.sort(key=lambda seat: len(seat.units))
        for place, seat in enumerate(free):
            share = math.ceil(len(self._queue) / (len(free) - place))
            units = list(islice(self._queue, min(share, allowance - len(seat.units))))
            if units and self._send(seat, units):
                seat.units.extend(units)
                for _ in units:
                    self._queue.popleft()

    def _take_in(self, seat: S, message: Report | Broken) -> list[Finished]:
        """Take in what a worker said."""
        if isinstance(message, Broken):
            self.close()
            raise BarcastError(f"the workers of the fleet cannot begin: {message.found}", message.todo)
        if not seat.is_ready:
            seat.is_ready, self._failed_starts = True, 0
        finished = []
        for outcome in message.outcomes:
            finished.append(Finished.of(seat.units.popleft(), seat.name, outcome))
            self._pace.note(outcome.seconds)
        if message.leaves:
            self._replace(seat, seat.units)
        return finished

    def _lose(self, seat: S, guilty: int | None) -> list[Finished]:
        """Take in that a worker died, in the middle of its unit number ``guilty`` (of those not back yet)."""
        how = self._end(seat)
        self._failed_starts += not seat.is_ready
        if self._failed_starts >= _MOST_FAILED_STARTS:
            self.close()
            raise ResourceError(
                f"workers of the fleet die as they start: {how}", "allow more memory, or fewer --workers"
            )
        others = (unit for place, unit in enumerate(seat.units) if place != guilty)
        lost = [] if guilty is None else [Finished(seat.units[guilty], lost=how, worker=seat.name)]
        self._replace(seat, others)
        return lost

    def _replace(self, seat: S, left_over: Iterable[Unit]) -> None:
        """Give a worker's place to a new one, and the units that it did not begin to whoever is free."""
        self._end(seat)
        self._queue.extendleft(reversed(list(left_over)))
        self._seats[self._seats.index(seat)] = self._start_next()
