"""Who fits units, and how: what a driver hands out and gets back, and the work inside of one worker."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from barcast.core.memory import pss_bytes
from barcast.fleet.work import TRY_AGAIN, FitSource, SymbolResult, Unit

#: Libraries that bring threads of their own read these as they are loaded; workers share the cores already.
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMBA_NUM_THREADS",
        "POLARS_MAX_THREADS",
    ),
    "1",
)
#: Reading the memory of a large process takes milliseconds: so often, and when it has grown by so much. To
#: see whether it has costs 50 microseconds on a busy machine, so that is not done after each short unit.
_MEASURE_SECONDS, _MEASURE_GROWTH, _LOOK_SECONDS = 0.5, 1.05, 0.02
#: A worker that holds this much more than after its first unit has grown; to replace another helps nothing.
_GROWN = 1.25


class Outcome(NamedTuple):
    """What a worker says of a unit: fields as in :class:`Finished`."""

    results: tuple[SymbolResult, ...]
    seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Finished:
    """What became of one unit.

    Attributes
    ----------
    unit : Unit
    results : tuple of SymbolResult
        One a symbol, in order; empty where the worker died.
    lost : str
        How the worker died in the middle of this unit; empty where results came.
    worker : str
        Who had it.
    seconds : float
        Of the fit, by the worker's clock.
    memory_bytes : int
        What the worker occupied lately: its proportional set size, mapped pages included.
    """

    unit: Unit
    results: tuple[SymbolResult, ...] = ()
    lost: str = ""
    worker: str = ""
    seconds: float = 0.0
    memory_bytes: int = 0

    @classmethod
    def of(cls, unit: Unit, worker: str, outcome: Outcome) -> Finished:
        """Put together what the driver knows and what the worker says."""
        return cls(unit, outcome.results, "", worker, outcome.seconds, outcome.memory_bytes)


class Executor(Protocol):
    """Fits units somewhere. It writes nothing and decides nothing: the driver does.

    A unit that was submitted comes back exactly once: with its results, or as lost because its worker died in
    the middle of it. Units that merely waited for that worker are given to another one.
    """

    @property
    def capacity(self) -> int:
        """How many units the driver should have handed in and not got back yet, as of now.

        Every worker has one; of short units some more wait, so that no worker waits for the driver.
        """
        ...

    def submit(self, unit: Unit) -> None:
        """Hand in a unit; returns at once."""
        ...

    def results(self, timeout: float) -> list[Finished]:
        """Return what has ended, waiting for the first until ``timeout`` seconds are over.

        Returns at once, with nothing, when nothing is under way.

        Raises
        ------
        BarcastError
            When workers cannot begin at all.
        """
        ...

    def close(self) -> None:
        """End all workers, in the middle of a unit too; may be called again."""
        ...


class Worker:
    """The work of one worker: it makes its fit once and keeps an eye on its memory.

    Parameters
    ----------
    source : FitSource
    limit_bytes : int, optional
        Its share of the memory.
    """

    def __init__(self, source: FitSource, limit_bytes: int | None = None) -> None:
        self._fit = source.make()
        self._limit = limit_bytes
        self._first_bytes = 0
        self._memory_bytes = 0
        self._resident = 0
        self._measured_at = self._looked_at = 0.0

    def run(self, unit: Unit) -> Outcome:
        """Fit one unit; an error of the fit becomes the failure of the symbol that it comes from."""
        began = time.perf_counter()
        results = self._results(unit)
        seconds = time.perf_counter() - began
        self._measure()
        held = self._memory_bytes
        return Outcome(tuple(replace(each, memory_bytes=held) for each in results), seconds, held)

    def _results(self, unit: Unit) -> tuple[SymbolResult, ...]:
        """Fit a unit; where that raises, each half, down to the symbol that cannot be fitted."""
        try:
            return tuple(self._fit(unit))
        except Exception as error:  # one bad symbol never stops thousands
            if len(unit.symbols) == 1:
                reason = f"{type(error).__name__}: {error}"
                return (SymbolResult(unit.symbols[0], unit.preset, "failed", reason=reason, todo=TRY_AGAIN),)
        return tuple(result for half in unit.halves() for result in self._results(half))

    def _measure(self) -> None:
        now = time.perf_counter()
        if now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at, resident = now, _resident_pages()
        if now - self._measured_at > _MEASURE_SECONDS or resident > _MEASURE_GROWTH * self._resident:
            self._memory_bytes = pss_bytes()
            self._first_bytes = self._first_bytes or self._memory_bytes
            self._measured_at, self._resident = now, resident

    @property
    def is_outgrown(self) -> bool:
        """Whether it holds more than its share because it has grown, so that a new one would hold less."""
        limit = self._limit
        return limit is not None and self._memory_bytes > max(limit, _GROWN * self._first_bytes)


def use_one_thread() -> None:
    """Tell libraries that are loaded from now on in this process to use one thread."""
    os.environ.update(ONE_THREAD)


def _resident_pages() -> int:
    """Return the pages that this process has in memory; 0 where the system does not say (outside Linux)."""
    try:
        descriptor = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return 0
    try:
        return int(os.read(descriptor, 200).split()[1])
    finally:
        os.close(descriptor)
