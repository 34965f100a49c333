"""The mirror between one run's folder and its trackers.

The folder comes first: a line is sent once it is in metrics.jsonl, and what a tracker has already is not
sent again. ``tracking.json`` remembers by tracker how to find its tracked run and the last step it was sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from barcast.core.config import digest
from barcast.core.errors import BarcastError
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.tracking.base import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    Tracker,
    about_run,
    finite_numbers,
    step_and_numbers,
    without_secrets,
)
from barcast.tracking.config import Place

MEMORY = "tracking.json"


class Mirror:
    """Trackers of one training; without trackers every method does nothing.

    Parameters
    ----------
    trackers : mapping of str to Tracker
    place : Place or None
        None only where there are no trackers.
    """

    def __init__(self, trackers: Mapping[str, Tracker] | None = None, place: Place | None = None) -> None:
        self._trackers = dict(trackers or {})
        self._place = place
        self._progress = Progress(enabled=False)
        self._run: RunFolder | None = None
        self._memory: dict[str, dict[str, Any]] = {}
        self._states: dict[str, str] = {}

    def follow(self, run: RunFolder, progress: Progress, *, fresh: bool = False) -> RunFolder:
        """Start tracking a run whose config.json is written; what it knows already is sent first.

        Parameters
        ----------
        fresh : bool
            What the folder holds is of an earlier training: another tracked run begins.

        Returns
        -------
        RunFolder
            The same folder; lines appended to its metrics reach the trackers too.
        """
        if self._run is None and self._trackers:
            self._run, self._progress = run, progress
            self._start(run, fresh=fresh)
        return FollowedRun(run.path, self) if self._run and self._run.path == run.path else run

    def _start(self, run: RunFolder, *, fresh: bool) -> None:
        assert self._place is not None
        about, where = about_run(run, self._place.root), self._place.key()
        known = {} if fresh else _remembered(run)
        for name, tracker in list(self._trackers.items()):
            mine = known.get(name, {})
            with self._sheltered(name):
                started = tracker.start(about, mine if mine.get("where") == where else {})
                self._memory[name] = {"step": -1, **started, "where": where}
                self._states[name] = "running"
                self._progress.note(f"tracked by {name}, {tracker.where()}")
        self._record()
        for line in [] if fresh else run.read_metrics():
            self._send(line)
        self._remember()

    def line(self, values: Mapping[str, Any]) -> None:
        """Send one line of metrics.jsonl."""
        self._send(values)
        self._remember()

    def _send(self, values: Mapping[str, Any]) -> None:
        step, numbers = step_and_numbers(values)
        for name, tracker in list(self._trackers.items()):
            if step > self._memory[name]["step"]:
                with self._sheltered(name):
                    tracker.log(step, numbers)
                    self._memory[name]["step"] = step

    def results(self, scores: Mapping[str, float], facts: Mapping[str, str]) -> None:
        """Send the final scores and the paths of what the run made, unless they were sent before."""
        key, numbers = digest({"scores": scores, "facts": facts}), finite_numbers(scores)
        for name, tracker in list(self._trackers.items()):
            memory = self._memory.get(name, {})
            if self._run and memory.get("results") != key:
                with self._sheltered(name):
                    tracker.summarise(max(memory["step"], 0), numbers, facts)
                    memory["results"] = key
        self._remember()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Close the tracked runs as what happens within ends: finished, failed or interrupted."""
        try:
            yield
        except Exception as error:
            self._close(FAILED, without_secrets(f"{type(error).__name__}: {error}"))
            raise
        except BaseException:
            self._close(INTERRUPTED, "stopped from outside")
            raise
        self._close(FINISHED, "")

    def _close(self, status: str, reason: str) -> None:
        if self._run is None:
            return
        for name, tracker in list(self._trackers.items()):
            with self._sheltered(name):
                tracker.finish(status, reason)
                self._states[name] = status
        self._trackers.clear()
        self._record()

    # --- failures and memory ---------------------------------------------------------------------------

    @contextmanager
    def _sheltered(self, name: str) -> Iterator[None]:
        """Switch a tracker off that fails; nothing of it reaches the training but a note."""
        try:
            yield
        except (Exception, SystemExit) as error:
            reason = without_secrets(f"{type(error).__name__}: {error}")
            broken = self._trackers.pop(name)
            with suppress(Exception, SystemExit):
                broken.finish(FAILED, "tracking failed")
            self._states[name] = f"off: {reason}"
            self._progress.note(f"tracking by {name} is off for this run: {reason}")
            self._record()

    def _record(self) -> None:
        """Write into run.json how each tracker fares."""
        if self._run is not None:
            with suppress(OSError, BarcastError):
                self._run.update(tracking=self._states)

    def _remember(self) -> None:
        if self._run is not None and self._memory:
            with suppress(OSError, BarcastError):
                self._run.write(MEMORY, {**_remembered(self._run), **self._memory})


def _remembered(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Return what tracking.json says; nothing where it is missing or damaged: tracking then begins anew."""
    try:
        found = run.read(MEMORY)
    except BarcastError:
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class FollowedRun(RunFolder):
    """A run's folder whose evaluation lines go to its trackers too."""

    mirror: Mirror

    def append_metrics(self, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl, then send it."""
        super().append_metrics(values)
        self.mirror.line(values)
