"""Everything in this process, one unit after another: for few symbols and for debugging."""

from __future__ import annotations

from collections import deque

from barcast.fleet.executors.base import Finished, Worker
from barcast.fleet.work import FitSource, Unit


class SerialExecutor:
    """Fits where it is called; a kill of the fit is a kill of the driver, and memory cannot be given back."""

    capacity = 1

    def __init__(self, source: FitSource) -> None:
        self._worker = Worker(source)
        self._queue: deque[Unit] = deque()

    def submit(self, unit: Unit) -> None:
        """Hand in a unit."""
        self._queue.append(unit)

    def results(self, timeout: float) -> list[Finished]:
        """Fit the unit that has waited longest, however long it takes."""
        if not self._queue:
            return []
        unit = self._queue.popleft()
        return [Finished.of(unit, "serial", self._worker.run(unit))]

    def close(self) -> None:
        """Forget what was not begun."""
        self._queue.clear()
