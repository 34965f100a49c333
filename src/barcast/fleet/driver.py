"""Drives a fleet: measures presets on symbols that it keeps, plans, and fits the plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from barcast.core.arrays import Bools
from barcast.core.config import to_plain
from barcast.core.errors import DataError
from barcast.core.interruption import signals_held
from barcast.core.memory import tree_pss_bytes
from barcast.core.progress import Progress
from barcast.core.progress import clock as clock_text
from barcast.core.texts import counted, some
from barcast.fleet.budget import MEMORY_MARGIN, RESERVE, Plan, make_plan
from barcast.fleet.calibrate import (
    NUM_POINTS,
    CostModel,
    Measured,
    calibration_symbols,
    fit_cost,
    models_of,
)
from barcast.fleet.floor import Floor, Job, Landed, LedgerWriter, Workers
from barcast.fleet.limits import size_text
from barcast.fleet.running import fit_plan
from barcast.fleet.work import Begun, Unit

#: Share of the budget after which nothing more is measured.
CALIBRATION_SHARE = 0.10
#: Under a budget the lightest preset is measured on more: it comes last, to the least valuable symbols, too
#: late to learn that it takes longer. It costs little.
LIGHTEST_POINTS = 30
#: A worker may take so many times more at the first fit of a preset than at one of the next lighter.
FIRST_FIT = 1.5
NO_TIME = "no time left in the budget"
CUT_OFF = "still at work when the budget ended: cut off"


@dataclass(frozen=True)
class Summary:
    """How a fleet went.

    Attributes
    ----------
    done : mapping of str to str
        Preset by symbol.
    failed, universal : mapping of str to str
        Reason by symbol.
    seconds : float
        Wall clock since the budget began, calibration included.
    overshoot : float
        Seconds beyond the budget; 0 where there is none.
    peak_memory : int
        Most bytes of the process tree that were seen: at looks a second apart where memory is limited, ten
        seconds where it is not. What lasts less may go unseen.
    num_lost : int
        Units whose worker died, each time counted.
    """

    done: Mapping[str, str]
    failed: Mapping[str, str]
    universal: Mapping[str, str]
    seconds: float
    overshoot: float
    peak_memory: int
    num_lost: int

    def render(self) -> str:
        """Return a line for people."""
        over = f", {self.overshoot:.1f} s over the budget" if self.overshoot else ""
        return (
            f"{counted(len(self.done), 'symbol')} fitted, {len(self.failed):,} failed, "
            f"{len(self.universal):,} left universal in {clock_text(self.seconds)}{over}; "
            f"about {size_text(self.peak_memory)} of memory at most"
        )

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain: dict[str, Any] = to_plain(self)
        return plain


class Driver:
    """One call of a fleet: :meth:`calibrate`, :meth:`plan`, then :meth:`run`; without the last a dry run.

    Use it as a context manager, or close it: that ends the workers, in the middle of what was cut off too.

    Parameters
    ----------
    ledger : LedgerWriter
        The driver alone writes it.
    workers : callable
        Starts workers; called again where memory allows another number than were there to measure.
    job : Job
    progress : Progress
    clock : callable
        Seconds.
    memory : callable
        Bytes of the process tree.
    started : float, optional
        When the budget began, by ``clock``; by default now.
    """

    def __init__(
        self, ledger: LedgerWriter, workers: Workers, job: Job, *, progress: Progress,
        clock: Callable[[], float] = time.monotonic, memory: Callable[[], int] = tree_pss_bytes,
        started: float | None = None,
    ) -> None:  # fmt: skip
        self._job, self._limits, self._ledger = job, job.limits, ledger
        begun = clock() if started is None else started
        self._floor = Floor(ledger, workers, job, progress, clock, memory, begun)
        self._index = {symbol: index for index, symbol in enumerate(job.candidates.symbols)}
        self._measured = list(job.known)
        self._untouched: Bools = np.ones(len(self._index), np.bool_)
        self._begun = [unit for each in ledger.begun() if (unit := self._again(each)) is not None]

    def _again(self, begun: Begun) -> Unit | None:
        """Put a unit of an earlier call together as it was; None where this job has no such one."""
        job = self._job
        if begun.preset not in job.ladder or not self._index.keys() >= set(begun.symbols):
            return None
        members = [self._index[symbol] for symbol in begun.symbols]
        is_one = all(job.may_share(members[0], member) for member in members)
        return job.unit(members, begun.preset) if is_one else None

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        self._floor.close()

    @property
    def base_bytes(self) -> int:
        """Memory of the process tree before any worker."""
        return self._floor.base_bytes

    # --- calibration -----------------------------------------------------------------------------------

    def calibrate(self) -> dict[str, CostModel]:
        """Fit a few symbols of different lengths with each preset that is not measured; return what is known.

        The lightest comes first: where not even that leaves time for all, no other is measured. Then the one
        that was asked for; where not all can have it, those between too while little of the budget is gone.
        Where memory is limited they come from light to heavy, and those stay unmeasured that would not fit.
        Without any limit the asked one alone is measured. What is fitted here counts as done.

        Raises
        ------
        Interrupted
            At a signal, with everything kept that was finished.
        """
        ladder, limits = self._job.ladder, self._limits
        presets = (ladder[0], ladder[-1], *ladder[-2:0:-1])
        if limits.max_memory is not None:
            presets = ladder  # what a heavier one takes is judged by the lighter ones
        elif limits.budget is None and limits.time_per_symbol is None:
            presets = ladder[-1:]
        # how much memory a worker takes is not known yet: there is one, where memory is limited
        with signals_held():
            self._floor.open(1 if limits.max_memory is not None else limits.workers)
            for preset in dict.fromkeys(presets):
                if not self._points(preset) and self._is_worth_measuring(preset):
                    self._measure(preset)
        return models_of(ladder, self._measured)

    def _points(self, preset: str) -> list[Measured]:
        return [each for each in self._measured if each.preset == preset]

    def _is_worth_measuring(self, preset: str) -> bool:
        ladder = self._job.ladder
        if self._limits.budget is None or preset == ladder[0]:
            return True
        time_for_all = self._floor.seconds_left * self._limits.workers
        if preset == ladder[-1]:
            return self._seconds_of_all(ladder[0]) < time_for_all
        if self._floor.spent > CALIBRATION_SHARE * self._limits.budget:
            return False
        return self._seconds_of_all(ladder[-1]) * (1 + RESERVE) > time_for_all

    def _seconds_of_all(self, preset: str) -> float:
        """Return the seconds that all the rest would take with a preset; none where it is not measured."""
        if not (own := self._points(preset)):
            return 0.0
        return float(fit_cost(preset, own).expected(self._job.candidates.rows[self._untouched]).sum())

    def _measure(self, preset: str) -> None:
        """Fit symbols of different lengths, the shortest first: alone under a budget or a memory limit."""
        candidates, floor, free = self._job.candidates, self._floor, self._go_on(preset)
        num = LIGHTEST_POINTS if preset == self._job.ladder[0] and self._limits.budget else NUM_POINTS
        num = min(num * self._job.batch_size, max(1, int(self._untouched.sum()) // 8))
        chosen = calibration_symbols(
            candidates.rows, candidates.rank, free, num, valuable=preset == self._job.ladder[-1]
        )
        if chosen:
            num_chosen = counted(len(chosen), "symbol")
            floor.progress.note(f"measuring {preset} on {num_chosen} of different lengths")
        size = min(self._job.batch_size, max(1, len(chosen) // 2))
        while True:
            units: list[Unit] = []
            while len(floor.flights) + len(units) < floor.num_workers and (lost := floor.next_again()):
                units.append(lost)
            while chosen and self._may_measure(preset, chosen[:size], len(units)):
                units.append(self._unit(chosen[:size], preset))
                chosen = [index for index in chosen if self._untouched[index]]
            floor.turn(units)
            if not floor.flights or floor.is_over:
                return
            self._learn(floor.wait())
            floor.show()

    def _go_on(self, preset: str) -> Bools:
        """Let units that an earlier call began with a preset come first; return who is in none, (S,)."""
        free = self._untouched.copy()
        for unit in self._begun:
            members = [self._index[symbol] for symbol in unit.symbols]
            free[members] = False
            rows = int(self._job.candidates.rows[members].max())
            if unit.preset == preset and self._floor.most_units(self._first_bytes(preset, rows)) > 0:
                self._untouched[members] = False
                self._floor.again.append(unit)
        return free

    def _unit(self, members: Sequence[int], preset: str) -> Unit:
        """Make a unit of the first member and those that may share it."""
        together = [index for index in members if self._job.may_share(members[0], index)]
        self._untouched[together] = False
        return self._job.unit(together, preset)

    def _may_measure(self, preset: str, members: Sequence[int], num_more: int) -> bool:
        """Return whether one more unit may begin now, by what the shorter ones took."""
        at_work, own = len(self._floor.flights) + num_more, self._points(preset)
        rows = self._job.candidates.rows[list(members)]
        if not own and self._limits.max_memory is None and self._limits.budget is None:
            return at_work < self._floor.num_workers
        if not own:
            fits = self._floor.most_units(self._first_bytes(preset, int(rows.max()))) > 0
            return at_work == 0 and self._floor.seconds_left > 0 and fits
        cost = fit_cost(preset, self._measured)
        if at_work >= self._floor.most_units(float(cost.memory.at(rows).max()) * MEMORY_MARGIN):
            return False
        budget, seconds = self._limits.budget, float(cost.expected(rows).sum())
        return budget is None or self._floor.spent + seconds < CALIBRATION_SHARE * budget

    def _first_bytes(self, preset: str, rows: int) -> float:
        """Return what a worker may take at the first fit of a preset, by the heaviest lighter one known."""
        ladder = self._job.ladder
        lighter = [each for each in ladder[: ladder.index(preset)] if self._points(each)]
        if not lighter:
            return 0.0
        return FIRST_FIT * float(fit_cost(lighter[-1], self._measured).memory.at(np.array([rows]))[0])

    def _learn(self, landed: Sequence[Landed]) -> None:
        rows = self._job.candidates.rows
        for flight in landed:
            for each in flight.results:
                if each.status == "done":
                    num_rows = int(rows[self._index[each.symbol]])
                    self._measured.append(Measured.of(each, num_rows, flight.memory_bytes))

    # --- plan and run ----------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Plan what is not fitted yet, with what is measured.

        Raises
        ------
        DataError
            When not one fit came to a good end.
        ResourceError
            When not even one worker fits into the memory.
        """
        rest = self._job.candidates.only(np.flatnonzero(self._untouched))
        costs, base = models_of(self._job.ladder, self._measured), self._floor.base_bytes
        if not costs:
            reasons = [f"{each.symbol}: {each.reason}" for each in self._floor.results.values()]
            raise DataError(
                f"no symbol could be fitted: {some(reasons, '; ', 3) or NO_TIME}",
                "mend what the reasons say, or a larger --budget",
            )
        return make_plan(
            rest, self._job.ladder, costs, self._limits, base_bytes=base, spent=self._floor.spent
        )

    def run(self, plan: Plan) -> Summary:
        """Fit what :meth:`plan` gives a preset; presets that did not begin yet change as time goes.

        Raises
        ------
        Interrupted
            At a signal, with everything kept that was finished; the same call goes on.
        """
        with signals_held():
            self._floor.open(plan.num_workers)
            fit_plan(plan, self._floor, self._begun)
        left = self._left(plan)
        if left:
            self._ledger.leave_out(left)
        return self._summary(left)

    def _left(self, plan: Plan) -> dict[str, str]:
        at_work = {symbol for flight in self._floor.flights.values() for symbol in flight.unit.symbols}
        return {
            symbol: plan.refused.get(symbol, CUT_OFF if symbol in at_work else NO_TIME)
            for symbol in self._index
            if symbol not in self._floor.results
        }

    def _summary(self, universal: Mapping[str, str]) -> Summary:
        floor, results = self._floor, self._floor.results.values()
        floor.look_at_memory()
        return Summary(
            done={each.symbol: each.preset for each in results if each.status == "done"},
            failed={each.symbol: each.reason for each in results if each.status == "failed"},
            universal=universal,
            seconds=floor.spent,
            overshoot=max(-floor.seconds_left, 0.0),
            peak_memory=floor.peak,
            num_lost=floor.num_lost,
        )
