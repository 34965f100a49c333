"""The floor of a fleet: units at work, what they left behind, and the ledger that keeps it.

What was found finished and what starts next is one transaction; a unit goes to a worker after that, so its
preset is on record before its fit begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from barcast.core.interruption import end_if_asked, is_asked_to_end
from barcast.core.progress import Progress, clock
from barcast.fleet.budget import Candidates
from barcast.fleet.calibrate import Measured
from barcast.fleet.executors.base import Executor, Finished
from barcast.fleet.limits import Limits, room_bytes, size_text, workers_that_fit
from barcast.fleet.work import Begun, SymbolResult, Unit

#: The budget may be overshot by 5 %; what is at work a little before is cut off: workers take time to end.
CUT = 0.045
#: Nothing begins beside other work while this share of the memory is taken.
FULL = 0.95
#: Seconds: between two looks for a signal; until what is at work at a signal is given up; so close to a
#: moment is there.
LOOK, GRACE, CLOSE = 0.25, 10.0, 0.001
#: Seconds between two looks at memory, where it is limited and where it is only told: a look takes 10 ms a
#: gigabyte, and holds up those who are looked at.
WATCHED, TOLD = 1.0, 10.0
#: Workers that a unit may cost before its symbols are tried in smaller ones; of a single symbol, at all.
MOST_DEATHS = 2
DIED = "worker died (killed or out of memory)"
_DIED_TODO = "free some memory, or have fewer at work at a time: `barcast fleet retry-failed --workers 1`"


#: Starts workers: so many, each of which may occupy so many bytes (None: any) before it is replaced.
Workers = Callable[[int, int | None], Executor]


class LedgerWriter(Protocol):
    """What is written of a fleet while it is fitted; durable when the block, or the call, ends."""

    def together(self) -> AbstractContextManager[None]:
        """Make what is written in the block one transaction."""
        ...

    def start(self, units: Sequence[Unit]) -> None:
        """Note that units begin, with their presets."""
        ...

    def begun(self) -> Sequence[Begun]:
        """Return the units of several symbols that began and did not end."""
        ...

    def finish(self, results: Sequence[SymbolResult]) -> None:
        """Keep results."""
        ...

    def leave_out(self, reasons: Mapping[str, str]) -> None:
        """Note which symbols stay universal, and why."""
        ...


@dataclass(frozen=True)
class Job:
    """What a fleet is asked to fit.

    Attributes
    ----------
    candidates : Candidates
        Those that nothing is fitted for yet.
    ladder : tuple of str
        Presets, light to heavy; the last is the one asked for.
    limits : Limits
    batch_size : int
        Most symbols of a unit.
    overrides : mapping
        Options by symbol.
    mixed : bool
        Whether a unit takes symbols of any options, which it brings by symbol as its option ``symbols``; else
        its symbols share theirs.
    attempts : mapping
        Fits by symbol that an earlier call began and did not finish.
    known : sequence of Measured
        What earlier calls finished: it teaches the cost models.
    """

    candidates: Candidates
    ladder: tuple[str, ...]
    limits: Limits
    batch_size: int = 1
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mixed: bool = False
    attempts: Mapping[str, int] = field(default_factory=dict)
    known: Sequence[Measured] = ()

    def may_share(self, first: int, second: int) -> bool:
        """Return whether two candidates may be in one unit."""
        return self.mixed or self._options_of(first) == self._options_of(second)

    def _options_of(self, index: int) -> Mapping[str, Any]:
        return self.overrides.get(self.candidates.symbols[index], {})

    def unit(self, members: Sequence[int], preset: str) -> Unit:
        """Make a unit of candidates, by index, that may share one."""
        symbols = tuple(self.candidates.symbols[index] for index in members)
        positions = tuple(int(self.candidates.positions[index]) for index in members)
        attempt = 1 + max(self.attempts.get(symbol, 0) for symbol in symbols)
        options = self._options_of(members[0])
        if self.mixed:
            own = {symbol: self.overrides[symbol] for symbol in symbols if symbol in self.overrides}
            options = {"symbols": own} if own else {}
        return Unit(symbols, positions, preset, attempt, options)


@dataclass(frozen=True)
class Flight:
    """A unit at work.

    Attributes
    ----------
    unit : Unit
    began : float
        By the clock.
    share : float
        Of a worker: below 1 where more units were handed over than there are workers.
    """

    unit: Unit
    began: float
    share: float


@dataclass(frozen=True)
class Landed:
    """A unit that was finished, the seconds that it occupied a worker, and the bytes that this one held."""

    unit: Unit
    results: Sequence[SymbolResult]
    occupied: float
    memory_bytes: int

    @classmethod
    def of(cls, finished: Finished, occupied: float) -> Landed:
        """Read what an executor brings."""
        return cls(finished.unit, finished.results, occupied, finished.memory_bytes)


class Floor:
    """Units at work and the results of the others; parameters as of :class:`barcast.fleet.driver.Driver`.

    Attributes
    ----------
    job : Job
    progress : Progress
    clock : callable
    flights : dict of str to Flight
        By the first symbol of the unit.
    again : list of Unit
        To be tried once more: their workers died.
    results : dict of str to SymbolResult
        By symbol, without models: the ledger has them.
    base_bytes, now_bytes, peak : int
        Memory of the process tree before any worker, at the last look, and the most that was seen.
    num_lost : int
        Units whose worker died, each time counted.
    """

    def __init__(
        self, ledger: LedgerWriter, workers: Workers, job: Job, progress: Progress,
        clock: Callable[[], float], memory: Callable[[], int], started: float,
    ) -> None:  # fmt: skip
        self._ledger, self._workers, self._memory = ledger, workers, memory
        self.job, self.progress, self.clock, self._started = job, progress, clock, started
        self._executor: Executor | None = None
        self._opened: tuple[int, int | None] = (0, None)
        self._unsaved: list[SymbolResult] = []
        self._deaths: dict[str, int] = {}
        self._sampled = clock()
        self.flights: dict[str, Flight] = {}
        self.again: list[Unit] = []
        self.results: dict[str, SymbolResult] = {}
        self.base_bytes = self.now_bytes = self.peak = memory()
        self.num_lost = 0

    @property
    def spent(self) -> float:
        """Seconds since the budget began."""
        return self.clock() - self._started

    @property
    def seconds_left(self) -> float:
        """Seconds that are left of the budget; infinite without one."""
        return math.inf if self.job.limits.budget is None else self.job.limits.budget - self.spent

    @property
    def is_over(self) -> bool:
        """Whether it is time to cut off what is at work."""
        return self._until_cut < CLOSE

    @property
    def _until_cut(self) -> float:
        return self.seconds_left + CUT * (self.job.limits.budget or 0.0)

    def most_units(self, worker_bytes: float) -> int:
        """Return how many units may be at work where a worker takes so many bytes.

        As many as the executor takes, unless memory allows fewer workers than there are.
        """
        fitting = workers_that_fit(self.job.limits, self.base_bytes, worker_bytes)
        return self.executor.capacity if fitting >= self.num_workers else fitting

    @property
    def num_workers(self) -> int:
        """Workers that there are."""
        return self._opened[0]

    @property
    def executor(self) -> Executor:
        """The workers of the last :meth:`open`."""
        assert self._executor is not None
        return self._executor

    def open(self, num_workers: int) -> None:
        """Have so many workers; each may occupy its share of the memory. Others than before begin anew.

        While something is at work those that there are stay.
        """
        room = room_bytes(self.job.limits, self.base_bytes)
        wanted = (num_workers, None if math.isinf(room) else max(int(room / num_workers), 1))
        if self._opened != wanted and not self.flights:
            self.close()
            self._opened = wanted
            self._executor = self._workers(*wanted)

    def close(self) -> None:
        """End the workers, in the middle of a unit too."""
        if self._executor is not None:
            self._executor.close()
            self._executor = None

    @property
    def is_full(self) -> bool:
        """Whether the last look found nearly all memory taken that may be."""
        most = self.job.limits.max_memory
        return most is not None and self.now_bytes > FULL * most

    def next_again(self) -> Unit | None:
        """Take out the next unit that is to be tried once more; None where there is none."""
        return self.again.pop(0) if self.again else None

    def look_at_memory(self) -> int:
        """Return what the process tree holds now."""
        self._sampled, self.now_bytes = self.clock(), self._memory()
        self.peak = max(self.peak, self.now_bytes)
        return self.now_bytes

    def show(self, ahead: Callable[[], float] | None = None) -> None:
        """Show how many are done, how fast, what is at work, memory, failures, and the time left.

        Parameters
        ----------
        ahead : callable, optional
            Gives the seconds that are left; asked only where the line is shown.
        """
        if not self.progress.due():
            return
        num, total = len(self.results), len(self.job.candidates.symbols)
        failed = sum(each.status == "failed" for each in self.results.values())
        left = f"  {clock(ahead())} left" if ahead is not None else ""
        self.progress.step(
            f"{num:,}/{total:,} symbols  {num / max(self.spent, 1e-9):.1f}/s  {len(self.flights)} at work  "
            f"{size_text(self.now_bytes)}  {failed:,} failed{left}"
        )

    def turn(self, units: Sequence[Unit]) -> None:
        """Keep what has finished and begin these units, in one transaction; then hand them over."""
        if self._unsaved or units:
            with self._ledger.together():
                if self._unsaved:
                    self._ledger.finish(self._unsaved)
                if units:
                    self._ledger.start(units)
        for each in self._unsaved:
            self.results[each.symbol] = replace(each, model=b"", native=b"")
        self._unsaved = []
        for unit in units:
            share = min(1.0, self.num_workers / (len(self.flights) + 1))
            self.executor.submit(unit)
            self.flights[unit.symbols[0]] = Flight(unit, self.clock(), share)

    def wait(self) -> list[Landed]:
        """Return what has finished; after a moment, nothing.

        Raises
        ------
        Interrupted
            At a signal: after what was at work is finished and kept, or a while.
        """
        if is_asked_to_end():
            self._end()
        landed = self._collect(max(min(LOOK, self._until_cut), 0.0))
        if self.clock() - self._sampled >= (TOLD if self.job.limits.max_memory is None else WATCHED):
            self.look_at_memory()
        return landed

    def _collect(self, timeout: float) -> list[Landed]:
        landed = []
        for finished in self.executor.results(timeout):
            flight = self.flights.pop(finished.unit.symbols[0])
            if finished.lost:
                self._lose(finished.unit, finished.lost)
            else:
                self._unsaved.extend(finished.results)
                occupied = (self.clock() - flight.began) * flight.share
                landed.append(Landed.of(finished, occupied))
        return landed

    def _lose(self, unit: Unit, how: str) -> None:
        """Let a unit whose worker died be tried again: whole, then in halves, until one symbol is to blame.

        Whole first: a kill from outside is the more frequent, and the unit goes on from what it saved.
        """
        self.num_lost += 1
        deaths = 1 + self._deaths.get(unit.symbols[0], 0)  # its symbols were together all the time
        self._deaths.update(dict.fromkeys(unit.symbols, deaths))
        again = replace(unit, attempt=unit.attempt + 1)
        if deaths < MOST_DEATHS:
            self.again.append(again)
        elif len(unit.symbols) > 1:
            self.again.extend(again.halves())
        else:
            reason = f"{DIED}: {how}"
            self._unsaved.append(
                SymbolResult(unit.symbols[0], unit.preset, "failed", reason=reason, todo=_DIED_TODO)
            )

    def _end(self) -> None:
        """End at a signal: nothing begins any more, what is at work may finish."""
        self.progress.note(
            f"ending: what is at work may take {GRACE:.0f} seconds more; a second signal ends at once"
        )
        until = self.clock() + GRACE
        self.turn(())
        while self.flights and self.clock() < until:
            self._collect(LOOK)
            self.turn(())
        end_if_asked()
