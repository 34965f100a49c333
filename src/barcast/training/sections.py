"""Where the wall time of a training goes.

One clock hand: entering a section closes the one before it, so the sections always add up to the wall time.
A loop that is not profiled carries a :class:`Sections`, whose methods do nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: Parts of one step, in order; ``optimizer`` includes the clipping of gradients.
STEP_SECTIONS = ("gather", "transfer", "forward", "backward", "optimizer")
#: What happens beside the steps.
LOOP_SECTIONS = ("evaluation", "saving", "other")
SECTIONS = (*STEP_SECTIONS, *LOOP_SECTIONS)
#: Steps before the ones whose parts are kept: they make buffers and fill caches.
WARM_UP = 10
#: Steps whose parts are kept one by one; on a GPU the only ones that wait for the device.
PROFILED = 50
#: Entered by a thread while others compute the parts of a step, and by those when they are done.
WAITING = "waiting"


class Sections:
    """Told where a training is; this one does not listen."""

    def enter(self, name: str) -> None:
        """Say which of ``SECTIONS`` begins."""

    def end_step(self, num_labels: int) -> None:
        """Say that a step is over and how many labels it learned from."""

    def stop(self) -> None:
        """Say that training is over."""


@dataclass
class Timer(Sections):
    """Measures the sections of a training.

    Threads that compute parts of a step at the same time measure their own; the wall time of the step is
    shared out in proportion to what they add up to.

    Parameters
    ----------
    wait : callable, optional
        Waits for the device, as ``torch.cuda.synchronize``; called at the borders of the profiled steps only.
        None where computation is done when a call returns: then every step's parts are measured.
    clock : callable
        Seconds.

    Attributes
    ----------
    steps : list of dict
        Seconds by section of single steps after the warm-up, at most ``PROFILED``.
    """

    wait: Callable[[], None] | None = None
    clock: Callable[[], float] = time.perf_counter
    steps: list[dict[str, float]] = field(default_factory=list)
    num_steps: int = 0
    num_labels: int = 0
    _seconds: dict[str, float] = field(default_factory=dict)
    _early: list[dict[str, float]] = field(default_factory=list)
    _section: str = "other"
    _mark: float | None = None
    _step: dict[str, float] = field(default_factory=dict)
    _parts: dict[str, float] = field(default_factory=dict)
    _workers: dict[int, tuple[str, float]] = field(default_factory=dict)
    _owner: int = field(default_factory=threading.get_ident)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, name: str) -> None:
        """Close the section before and begin ``name``; in another thread than the owner's, of its own."""
        if threading.get_ident() != self._owner:
            self._enter_beside(name)
        else:
            self._close(WAITING if name in STEP_SECTIONS and not self._in_detail() else name)

    def end_step(self, num_labels: int) -> None:
        """Close a step; what follows is ``other`` until said otherwise."""
        self._close("other")
        step = _shared_out(self._step, self._parts)
        for name, spent in step.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + spent
        if self.num_steps < WARM_UP:
            self._early.append(step)
        elif len(self.steps) < PROFILED:
            self.steps.append(step)
        self._step, self._parts = {}, {}
        self.num_steps += 1
        self.num_labels += num_labels

    def stop(self) -> None:
        """Close the last section."""
        self._close("other")
        self._mark = None

    @property
    def profiled(self) -> list[dict[str, float]]:
        """Seconds by section of single steps: those after the warm-up, or all of a very short training."""
        return self.steps or self._early

    def totals(self) -> dict[str, float]:
        """Return seconds by section, in the order of ``SECTIONS``; their sum is the wall time.

        Steps whose parts were not told apart, so as not to slow the device, are shared out as the profiled
        ones were.
        """
        known: dict[str, float] = {}
        for step in self.profiled:
            for name, spent in step.items():
                known[name] = known.get(name, 0.0) + spent
        found = _shared_out(self._seconds, {name: known.get(name, 0.0) for name in STEP_SECTIONS})
        found["other"] = found.get("other", 0.0) + found.get(WAITING, 0.0) + sum(self._step.values())
        return {name: found.get(name, 0.0) for name in SECTIONS}

    def _in_detail(self) -> bool:
        return self.wait is None or self.num_steps < WARM_UP + PROFILED

    def _close(self, name: str) -> None:
        if self.wait is not None and self._section in STEP_SECTIONS:
            self.wait()
        now = self.clock()
        if self._mark is not None:
            of_a_step = self._section in STEP_SECTIONS or self._section == WAITING
            into = self._step if of_a_step else self._seconds
            into[self._section] = into.get(self._section, 0.0) + now - self._mark
        self._section, self._mark = name, now

    def _enter_beside(self, name: str) -> None:
        now, thread = self.clock(), threading.get_ident()
        before, since = self._workers.get(thread, (WAITING, now))
        with self._lock:
            if before != WAITING:
                self._parts[before] = self._parts.get(before, 0.0) + now - since
            self._workers[thread] = (name, now)


def _shared_out(spent: dict[str, float], parts: dict[str, float]) -> dict[str, float]:
    """Share the time that was spent waiting out among sections, in proportion to ``parts``."""
    total = sum(parts.values())
    if not total:
        return dict(spent)
    found = {name: seconds for name, seconds in spent.items() if name != WAITING}
    for name, part in parts.items():
        found[name] = found.get(name, 0.0) + spent.get(WAITING, 0.0) * part / total
    return found


def timer_for(device: str) -> Timer:
    """Return a timer that waits for the device where its work goes on after a call returns."""
    if not device.startswith("cuda"):
        return Timer()
    import torch

    def wait() -> None:
        torch.cuda.synchronize(device)

    return Timer(wait)


def plain_sections(timer: Timer) -> list[dict[str, Any]]:
    """Return name, seconds, share of the wall time, and mean and median seconds a step of each section."""
    from statistics import mean, median

    totals = timer.totals()
    wall = sum(totals.values()) or 1.0
    lines = []
    for name, seconds in totals.items():
        parts = [step.get(name, 0.0) for step in timer.profiled] if name in STEP_SECTIONS else []
        each = {"step_mean": mean(parts), "step_median": median(parts)} if parts else {}
        lines.append({"name": name, "seconds": seconds, "share": seconds / wall, **each})
    return lines
