"""Fits a plan: hands out units, most valuable first, and plans anew what did not begin as time goes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from barcast.core.arrays import F64
from barcast.fleet.budget import Plan
from barcast.fleet.calibrate import Overhead, Pace
from barcast.fleet.floor import CUT, Floor, Landed
from barcast.fleet.queue import Queue
from barcast.fleet.work import Unit

#: Of the 99 % quantile of a normal variable.
Z_99 = 2.326
#: Presets are planned anew after this share of the budget, so many seconds at the earliest; without a budget
#: what is expected is counted anew after so many seconds.
REPLAN_SHARE, REPLAN_SECONDS, RECOUNT_SECONDS = 0.01, 0.5, 10.0
#: Seconds of a worker after which its overhead counts half.
OVERHEAD_SECONDS = 20.0


def fit_plan(plan: Plan, floor: Floor, begun: Sequence[Unit] = ()) -> None:
    """Fit until nothing waits, or nothing that waits has time; what is still at work at the cut stays so.

    Units that an earlier call began come first, put together as they were: they go on from what they saved.

    Raises
    ------
    Interrupted
        At a signal, with everything kept that was finished.
    """
    _Run(plan, floor, begun).to_the_end()


class _Run:
    """The fits of one plan, whose indices and letters it speaks."""

    def __init__(self, plan: Plan, floor: Floor, begun: Sequence[Unit]) -> None:
        self._plan, self._floor, self._job = plan, floor, floor.job
        symbols = plan.candidates.symbols
        self._index = {symbol: index for index, symbol in enumerate(symbols)}
        position = {symbol: index for index, symbol in enumerate(self._job.candidates.symbols)}
        self._of_job = [position[symbol] for symbol in symbols]
        self._queue = Queue(plan.candidates.order, len(symbols))
        self._pace, self._overhead = Pace(plan.ladder), Overhead(OVERHEAD_SECONDS * plan.num_workers)
        able = np.flatnonzero(plan.top >= 0)
        self._worker_bytes = float(plan.memory[plan.top[able], able].max(initial=0.0))
        self._memory_factor = 1.0
        self._cost: F64 = plan.expected
        self._expected: dict[str, float] = {}
        self._planned_at = -math.inf
        self._begun = [each for each in begun if self._index.keys() >= set(each.symbols)]

    def to_the_end(self) -> None:
        """See :func:`fit_plan`."""
        while True:
            units = self._choose()
            if not units and not self._floor.flights and self._queue.waiting.size:
                self._replan()
                units = self._choose()
            self._floor.turn(units)
            if not self._floor.flights or self._floor.is_over:
                return
            for landed in self._floor.wait():
                self._take_in(landed)
            self._show()

    # --- what is at work, and how long it takes ----------------------------------------------------------

    def _take_in(self, landed: Landed) -> None:
        """Learn the pace, and what workers hold, from a finished unit of this plan."""
        unit = landed.unit
        self._expected.pop(unit.symbols[0], None)
        if unit.symbols[0] not in self._index:
            return
        rung, members = self._plan.ladder.index(unit.preset), [self._index[name] for name in unit.symbols]
        computed = sum(each.seconds for each in landed.results)
        self._overhead.observe(computed, landed.occupied)
        if all(each.status == "done" for each in landed.results):
            modelled = float(self._plan.expected[rung, members].sum())
            self._pace.observe(unit.preset, modelled, computed, self._plan.costs[unit.preset].spread)
        known = float(self._plan.memory[rung, members].max())
        self._memory_factor = max(self._memory_factor, landed.memory_bytes / max(known, 1.0))

    def _busy(self) -> float:
        """Seconds of workers that what is at work still takes; what is late has a tenth before it."""
        now, expected = self._floor.clock(), self._expected
        flights = ((each, expected.get(first, 0.0)) for first, each in self._floor.flights.items())
        return sum(max(seconds - (now - flight.began), seconds / 10) for flight, seconds in flights)

    def _replan(self) -> None:
        """Choose presets anew for what did not begin, with the time that is left at the pace of now."""
        plan, self._planned_at = self._plan, self._floor.clock()
        overhead = self._overhead.factor
        factors = np.array([self._pace.factor(preset) * overhead for preset in plan.ladder])
        self._cost = plan.expected * factors[:, None]
        left = max(self._floor.seconds_left, 0.0)
        rung = plan.again(self._queue.waiting, left, self._busy(), self._num_workers, factors)
        self._queue.set(rung, self._cost[np.maximum(rung, 0), np.arange(len(rung))])

    def _show(self) -> None:
        self._floor.show(lambda: (self._queue.seconds_left + self._busy()) / self._num_workers)

    # --- who is next -------------------------------------------------------------------------------------

    def _choose(self) -> list[Unit]:
        """Return the units that begin now: those whose workers died, or whose driver, then by the queue."""
        budget = self._job.limits.budget
        every = RECOUNT_SECONDS if budget is None else max(REPLAN_SECONDS, REPLAN_SHARE * budget)
        if self._floor.clock() - self._planned_at >= every:
            self._replan()
        units: list[Unit] = []
        while self._has_seat(len(units)) and (unit := self._floor.next_again()) is not None:
            if self._is_known(unit) and self._may_start(self._seconds_of(unit), unit.preset, units):
                units.append(self._begin(unit))
        for find in (self._next_begun, self._next):
            while self._has_seat(len(units)) and (found := find(units)) is not None:
                units.append(self._begin(found))
        return units

    def _is_known(self, unit: Unit) -> bool:
        """Return whether it is known what the preset of a unit takes."""
        return unit.preset in self._plan.ladder

    def _next_begun(self, units: Sequence[Unit]) -> Unit | None:
        """Return the next unit that an earlier call began, if its preset is still allowed and has time."""
        while self._begun:
            unit = self._begun.pop(0)
            members = [self._index[symbol] for symbol in unit.symbols]
            if not self._is_known(unit):
                continue
            is_allowed = self._plan.top[members].min() >= self._plan.ladder.index(unit.preset)
            if is_allowed and self._may_start(self._seconds_of(unit), unit.preset, units):
                for member in members:
                    self._queue.take(member)
                return unit
        return None

    def _seconds_of(self, unit: Unit) -> float:
        known = [self._index[symbol] for symbol in unit.symbols if symbol in self._index]
        return float(self._cost[self._plan.ladder.index(unit.preset), known].sum())

    def _begin(self, unit: Unit) -> Unit:
        self._expected[unit.symbols[0]] = self._seconds_of(unit)
        return unit

    def _next(self, begun: Sequence[Unit]) -> Unit | None:
        """Return the next unit that has time, lighter than planned if need be; None where none has."""
        while (index := self._queue.next(self._num_workers)) is not None:
            for rung in range(int(self._queue.rung[index]), -1, -1):
                preset, seconds = self._plan.ladder[rung], float(self._cost[rung, index])
                if self._fits(rung, index) and self._may_start(seconds, preset, begun):
                    return self._unit(index, rung, begun)
            self._queue.put_back(index)
        return None

    def _unit(self, index: int, rung: int, begun: Sequence[Unit]) -> Unit:
        """Make a unit of a symbol and, where it may have several, the next ones of its preset and options."""
        members, preset = [index], self._plan.ladder[rung]
        if self._job.batch_size > 1:
            waiting, first = self._queue.waiting, self._of_job[index]
            # no worker shall have a full unit while another has none
            most = min(self._job.batch_size, math.ceil((len(waiting) + 1) / self._num_workers))
            seconds = float(self._cost[rung, index])
            for mate in waiting[self._queue.rung[waiting] == rung].tolist():
                seconds += float(self._cost[rung, mate])
                if len(members) == most or not self._may_start(seconds, preset, begun):
                    break
                if self._job.may_share(first, self._of_job[mate]):
                    members.append(self._queue.take(mate))
        return self._job.unit([self._of_job[member] for member in members], preset)

    def _may_start(self, seconds: float, preset: str, begun: Sequence[Unit]) -> bool:
        """Return whether a unit is expected to end within the budget, and hardly ever ends after the cut."""
        left = self._floor.seconds_left
        if math.isinf(left):
            return True
        before = 0.0
        if len(self._floor.flights) + len(begun) >= self._num_workers:  # it waits for a worker
            queued = sum(self._expected[unit.symbols[0]] for unit in begun)
            before = (self._busy() + queued) / self._num_workers
        cost = self._plan.costs[preset]
        spread = math.hypot(self._pace.spread(cost.spread), cost.level_error)
        late = seconds * math.exp(Z_99 * spread - spread**2 / 2)
        return before + seconds <= left and before + late <= left + CUT * (self._job.limits.budget or 0.0)

    # --- memory ------------------------------------------------------------------------------------------

    @property
    def _num_workers(self) -> int:
        """Workers that memory allows, as far as it is known."""
        need = self._worker_bytes * self._memory_factor
        return max(min(self._floor.most_units(need), self._floor.num_workers), 1)

    def _has_seat(self, num_more: int) -> bool:
        """Return whether one more unit may be at work."""
        at_work, need = len(self._floor.flights) + num_more, self._worker_bytes * self._memory_factor
        if at_work and self._floor.is_full:
            return False
        return at_work < max(self._floor.most_units(need), 1)

    def _fits(self, rung: int, index: int) -> bool:
        return self._floor.most_units(float(self._plan.memory[rung, index]) * self._memory_factor) > 0
