"""Who gets which preset inside a budget of time and memory: the most valuable symbols come first.

Letters: P presets of the ladder, light to heavy; S symbols.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from barcast.core.arrays import F64, I64, Bools
from barcast.core.config import to_plain
from barcast.core.progress import clock
from barcast.core.texts import counted, some
from barcast.fleet.calibrate import CostModel, Measured, fit_cost
from barcast.fleet.limits import Limits, num_workers, room_bytes, size_text

#: Share of the budget that a plan leaves free: workers wait for each other at the end.
MARGIN = 0.02
#: Share of what is left that goes to nobody's heavier preset yet: fits may turn out slower, and then the
#: least valuable symbols would go without. Plans are made anew all the time: in the end little of it stays.
RESERVE = 0.15
#: A worker may take so much more than the most that was seen.
MEMORY_MARGIN = 1.15
#: No model of its own.
UNIVERSAL = -1


@dataclass(frozen=True)
class Candidates:
    """Symbols that may get a model of their own.

    Attributes
    ----------
    symbols : tuple of str
        S names, each once.
    positions : I64, shape (S,)
        Where they are in ``FleetData.symbols``.
    rows : I64, shape (S,)
        Rows that teach.
    value : F64, shape (S,)
        What a symbol is worth, turnover for example; higher comes first, NaN last, ties by name.
    """

    symbols: tuple[str, ...]
    positions: I64
    rows: I64
    value: F64

    @property
    def order(self) -> I64:
        """Return indices, the most valuable first, shape (S,)."""
        return np.lexsort((np.array(self.symbols, dtype=np.str_), -np.nan_to_num(self.value, nan=-np.inf)))

    @property
    def rank(self) -> I64:
        """Return 0 for the most valuable symbol, shape (S,)."""
        rank = np.empty(len(self.symbols), np.int64)
        rank[self.order] = np.arange(len(self.symbols))
        return rank

    def only(self, which: I64) -> Candidates:
        """Return some of them, by index."""
        symbols = tuple(self.symbols[index] for index in which)
        return Candidates(symbols, self.positions[which], self.rows[which], self.value[which])


def assign(cost: F64, top: I64, order: I64, capacity: float) -> I64:
    """Choose a rung of the ladder for each symbol.

    The heaviest rung that all can have, then, most valuable first, the heaviest that what is left allows but
    for a reserve. Where not even the lightest fits all, it goes to the most valuable ones.

    Parameters
    ----------
    cost : F64, shape (P, S)
        Seconds.
    top : I64, shape (S,)
        The heaviest rung a symbol may have; ``UNIVERSAL`` where none.
    order : I64, shape (S,)
        Indices, the most valuable first; those that are missing get nothing.
    capacity : float
        Seconds of all workers together.

    Returns
    -------
    I64, shape (S,)
        Rungs; ``UNIVERSAL`` for those that get none.
    """
    rung = np.full(top.shape, UNIVERSAL, np.int64)
    able = order[top[order] >= 0]
    for base in range(len(cost) - 1, -1, -1):
        had = np.minimum(top[able], base)
        left = capacity - float(cost[had, able].sum())
        if left >= 0:
            rung[able] = had
            _upgrade(rung, cost, top, able, left - RESERVE * capacity)
            return rung
    left = capacity
    for index in able.tolist():
        if cost[0, index] <= left:
            left -= cost[0, index]
            rung[index] = 0
    return rung


def _upgrade(rung: I64, cost: F64, top: I64, able: I64, left: float) -> None:
    for index in able[rung[able] < top[able]].tolist():
        now = cost[rung[index], index]
        for heavier in range(int(top[index]), int(rung[index]), -1):
            if cost[heavier, index] - now <= left:
                left -= cost[heavier, index] - now
                rung[index] = heavier
                break


@dataclass(frozen=True)
class Plan:
    """Which preset each symbol gets, and what that takes.

    Attributes
    ----------
    candidates : Candidates
    ladder : tuple of str
        P presets, light to heavy, that are measured and no heavier than asked.
    costs : mapping of str to CostModel
    limits : Limits
    num_workers : int
        As memory allows.
    base_bytes : int
        Memory without any worker.
    expected : F64, shape (P, S)
        Mean seconds of computing.
    memory : F64, shape (P, S)
        Most bytes of a worker.
    top : I64, shape (S,)
        The heaviest rung a symbol may have, ``UNIVERSAL`` where none.
    rung : I64, shape (S,)
        What it gets.
    refused : mapping of str to str
        Why a symbol can have no preset at all, whatever time is left.
    spent : float
        Seconds of the budget that were gone when the plan was made.
    """

    candidates: Candidates
    ladder: tuple[str, ...]
    costs: Mapping[str, CostModel]
    limits: Limits
    num_workers: int
    base_bytes: int
    expected: F64
    memory: F64
    top: I64
    rung: I64
    refused: Mapping[str, str]
    spent: float = 0.0

    @property
    def presets(self) -> dict[str, str]:
        """Return the preset of each symbol that gets one, the most valuable first."""
        symbols, ladder = self.candidates.symbols, self.ladder
        return {symbols[i]: ladder[self.rung[i]] for i in self.candidates.order if self.rung[i] >= 0}

    @property
    def universal(self) -> dict[str, str]:
        """Return the reason of each symbol that gets no model of its own."""
        reason = f"no time left in the budget, not even for `{self.ladder[0]}`"
        left = [self.candidates.symbols[i] for i in self.candidates.order if self.rung[i] < 0]
        return {symbol: self.refused.get(symbol, reason) for symbol in left}

    @property
    def work_seconds(self) -> F64:
        """Return mean seconds of computing of each symbol, shape (S,); 0 for those that get nothing."""
        given = np.maximum(self.rung, 0), np.arange(len(self.rung))
        return np.where(self.rung >= 0, self.expected[given], 0.0)

    @property
    def seconds(self) -> float:
        """Wall clock that all fits take: all work shared out, but no less than the longest fit."""
        work = self.work_seconds
        return max(float(work.sum()) / self.num_workers, float(work.max(initial=0.0)))

    @property
    def interval(self) -> tuple[float, float]:
        """Wall clock within which ``seconds`` is known from so few fits, 95 %."""
        used = {self.ladder[rung] for rung in np.unique(self.rung) if rung >= 0}
        error = 1.96 * max((self.costs[preset].level_error for preset in used), default=0.0)
        return self.seconds * math.exp(-error), self.seconds * math.exp(error)

    @property
    def memory_bytes(self) -> int:
        """Most that the process tree holds."""
        own = [self.memory[rung, index] for index, rung in enumerate(self.rung) if rung >= 0]
        return self.base_bytes + int(self.num_workers * max(own, default=0.0))

    @property
    def disk_bytes(self) -> int:
        """What the models take on disk."""
        rows = self.candidates.rows
        sizes = [
            self.costs[preset].disk.at(rows[self.rung == rung]).sum()
            for rung, preset in enumerate(self.ladder)
        ]
        return int(sum(sizes))

    def render(self) -> tuple[str, ...]:
        """Return lines for people."""
        asked = "" if self.limits.budget is None else f", budget {clock(self.limits.budget)}"
        spent = f", {clock(self.spent)} of it gone" if asked and self.spent >= 1 else ""
        lines = [
            f"{counted(len(self.candidates.symbols), 'symbol')}, {counted(self.num_workers, 'worker')}"
            f"{asked}{spent}"
        ]
        work = self.work_seconds
        for rung in range(len(self.ladder) - 1, -1, -1):
            own = self.rung == rung
            if own.any():
                lines.append(
                    f"  {self.ladder[rung]:<12}{own.sum():>7,} symbols  {work[own].mean():8.3f} s each"
                )
        lines.extend(self._left_lines())
        low, high = self.interval
        return (
            *lines,
            f"time {clock(self.seconds)} ({clock(low)} to {clock(high)}), "
            f"memory {size_text(self.memory_bytes)}, disk {size_text(self.disk_bytes)}",
        )

    def _left_lines(self) -> list[str]:
        by_reason: dict[str, list[str]] = {}
        for symbol, reason in self.universal.items():
            by_reason.setdefault(reason, []).append(symbol)
        return [
            f"  {'universal':<12}{len(symbols):>7,} symbols  {reason}: {some(symbols, most=3)}"
            for reason, symbols in by_reason.items()
        ]

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        presets = self.presets
        low, high = self.interval
        return {
            "num_symbols": len(self.candidates.symbols),
            "num_workers": self.num_workers,
            "limits": to_plain(self.limits),
            "seconds": self.seconds,
            "seconds_low": low,
            "seconds_high": high,
            "spent_seconds": self.spent,
            "memory_bytes": self.memory_bytes,
            "disk_bytes": self.disk_bytes,
            "counts": {name: sum(each == name for each in presets.values()) for name in self.ladder},
            "presets": presets,
            "universal": self.universal,
            "costs": to_plain(dict(self.costs)),
        }

    def again(self, waiting: I64, seconds: float, busy: float, num_workers: int, factors: F64) -> I64:
        """Choose the presets of those that have none yet anew.

        Parameters
        ----------
        waiting : I64, shape (n,)
            Indices, the most valuable first.
        seconds : float
            Wall clock that is left.
        busy : float
            Seconds of all workers together that what is at work still takes.
        num_workers : int
        factors : F64, shape (P,)
            By which fits of a preset take longer than expected.

        Returns
        -------
        I64, shape (S,)
            Rungs; ``UNIVERSAL`` outside ``waiting``.
        """
        if math.isinf(seconds):
            rung = np.full(self.top.shape, UNIVERSAL, np.int64)
            rung[waiting] = self.top[waiting]
            return rung
        cost = self.expected * factors[:, None]
        top = np.minimum(self.top, _heaviest(cost <= seconds))
        return assign(cost, top, waiting, seconds * num_workers * (1 - MARGIN) - busy)


def make_plan(
    candidates: Candidates, ladder: Sequence[str], costs: Mapping[str, CostModel], limits: Limits,
    *, base_bytes: int = 0, spent: float = 0.0,
) -> Plan:  # fmt: skip
    """Plan a fleet. The same arguments give the same plan.

    Where memory lets heavy presets run on few workers alone, the number of workers is chosen that leaves the
    fewest symbols universal, then that with the heaviest presets.

    Parameters
    ----------
    candidates : Candidates
        Symbols that nothing is fitted for.
    ladder : sequence of str
        Presets, light to heavy; the last is the one asked for. Those without cost model are passed over.
    costs : mapping of str to CostModel
    limits : Limits
    base_bytes : int
        Memory of the process tree without workers.
    spent : float
        Seconds of the budget that are gone.

    Raises
    ------
    ResourceError
        When not even one worker fits into the memory, with the least that would do.
    """
    ladder = tuple(preset for preset in ladder if preset in costs)
    if not ladder:
        raise ValueError("no preset of the ladder is measured")
    rows = candidates.rows
    expected = np.stack([costs[preset].expected(rows) for preset in ladder])
    memory = np.stack([costs[preset].memory.at(rows) for preset in ladder]) * MEMORY_MARGIN
    slow = _too_slow(expected, limits, spent)
    top = _heaviest(~slow & (memory <= room_bytes(limits, base_bytes)))
    refused = _refusals(candidates, ladder[0], expected[0], slow[0], limits, top)
    if rows.size and (top < 0).all() and not slow[0].all():
        num_workers(limits, base_bytes, float(memory[0][~slow[0]].min()))  # says what would do
    plan = Plan(
        candidates,
        ladder,
        costs,
        limits,
        limits.workers,
        base_bytes,
        expected,
        memory,
        top,
        top,
        refused,
        spent,
    )
    found: list[Plan] = []
    for heaviest in range(len(ladder) - 1, -1, -1):
        each = _capped(plan, heaviest)
        if not found or each.num_workers > found[-1].num_workers:
            found.append(each)
    return max(found, key=_merit)


def only_measured(
    ladder: Sequence[str], known: Sequence[Measured], limits: Limits, base_bytes: int
) -> list[Measured]:
    """Return finished symbols that have a lighter preset for no reason but that it was measured on them.

    The limits allow them the heaviest: it is expected to take no more than they say, and where time is
    limited a symbol no shorter had it within the time. Under a budget there is none: a second fit would take
    the time of another's first.
    """
    asked, most = ladder[-1], limits.time_per_symbol
    had = [each for each in known if each.preset == asked]
    lighter = [each for each in known if each.preset != asked]
    if most is not None:
        longest = max((each.rows for each in had if each.seconds <= most), default=-1)
        lighter = [each for each in lighter if each.rows <= longest]
    if limits.budget is not None or not had or not lighter:
        return []
    cost, rows = fit_cost(asked, known), np.array([each.rows for each in lighter], np.int64)
    fits = ~_too_slow(cost.expected(rows), limits, 0.0)
    fits &= cost.memory.at(rows) * MEMORY_MARGIN <= room_bytes(limits, base_bytes)
    return [each for each, may in zip(lighter, fits, strict=True) if may]


def _capped(plan: Plan, heaviest: int) -> Plan:
    """Return the plan with no preset above a rung, on the workers that memory allows then."""
    top = np.minimum(plan.top, heaviest)
    able = np.flatnonzero(top >= 0)
    workers = num_workers(plan.limits, plan.base_bytes, plan.memory[top[able], able].max(initial=0.0))
    budget = plan.limits.budget
    capacity = math.inf if budget is None else workers * (budget - plan.spent) * (1 - MARGIN)
    rung = assign(plan.expected, top, plan.candidates.order, capacity)
    return replace(plan, num_workers=workers, top=top, rung=rung)


def _merit(plan: Plan) -> tuple[int, int, float]:
    given = plan.rung[plan.rung >= 0]
    return len(given), int(given.min(initial=len(plan.ladder))), float(given.sum())


def _too_slow(expected: F64, limits: Limits, spent: float) -> Bools:
    most = math.inf if limits.budget is None else limits.budget - spent
    return expected > min(most, limits.time_per_symbol or math.inf)


def _heaviest(allowed: Bools) -> I64:
    """Return the heaviest allowed rung of each column, ``UNIVERSAL`` where none is."""
    reversed_first = np.argmax(allowed[::-1], axis=0)
    return np.where(allowed.any(axis=0), len(allowed) - 1 - reversed_first, UNIVERSAL)


def _refusals(
    candidates: Candidates, lightest: str, seconds: F64, slow: Bools, limits: Limits, top: I64
) -> dict[str, str]:
    """Say why symbols can have no preset at all; those that the budget alone keeps out are not among them."""
    reasons = {}
    for index in np.flatnonzero(top < 0).tolist():
        if not slow[index]:
            reason = (
                f"`{lightest}` takes more memory than --max-memory {size_text(limits.max_memory or 0)} leaves"
            )
        elif limits.time_per_symbol is not None and seconds[index] > limits.time_per_symbol:
            reason = f"`{lightest}` takes longer than --time-per-symbol {limits.time_per_symbol:g}s"
        else:
            continue
        reasons[candidates.symbols[index]] = reason
    return reasons
