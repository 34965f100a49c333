"""The loop of a search: which trial comes next, in this process or in several, and what becomes of it."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from barcast.core.atomic import write_json
from barcast.core.errors import RunError
from barcast.core.progress import Progress, clock
from barcast.core.workspace import Workspace
from barcast.pipeline.market import Market
from barcast.pipeline.settings import RunConfig
from barcast.pipeline.trials import Worker
from barcast.tuning.study import COMPLETE, Candidate, Study


class Attempts(Protocol):
    """Where trials run."""

    def attempt(
        self, tables: Mapping[str, Mapping[str, Any]], threads: int, folder: Path,
        observer: Callable[[int, float], bool],
    ) -> dict[str, Any]:  # fmt: skip
        """Run one trial and say how it ended, as `Bench.attempt` does."""
        ...


class Search:
    """What serial and parallel searches share: when to go on, what to do with an answer, what to show."""

    def __init__(
        self,
        path: Path,
        study: Study,
        facts: dict[str, Any],
        trials: int,
        deadline: float,
        progress: Progress,
    ) -> None:
        self.path = path
        self.study = study
        self.facts = facts
        self.progress = progress
        self._wanted = trials
        self._deadline = deadline
        self._started = time.monotonic()
        records = study.trials()
        self.num_tried = self._tried_before = sum(record.is_tried for record in records)
        if self.num_tried:
            progress.note(f"{path.name}: {self.num_tried} of {trials} trials are done")
        self._best = max(
            (r.score for r in records if r.state == COMPLETE and r.score is not None), default=None
        )

    def wants_more(self, running: int = 0) -> bool:
        """Return whether a trial should begin."""
        return self.num_tried + running < self._wanted and time.monotonic() < self._deadline

    def task(self, candidate: Candidate) -> dict[str, Any]:
        """Return what `Bench.attempt` takes of a candidate, in values of JSON."""
        options = self.study.space.by_owner(candidate.options)
        return {"options": options, "folder": str(self.path / "work" / str(candidate.number))}

    def settle(self, candidate: Candidate, answer: Mapping[str, Any]) -> None:
        """Write down how a trial ended."""
        number, seconds = candidate.number, answer["seconds"]
        if answer["kind"] == "done":
            self.study.complete(number, answer["score"], seconds)
            self._best = max(answer["score"], self._best) if self._best is not None else answer["score"]
            if not self.facts["threads"] and answer["threads"]:
                # rounding depends on their number: what the first trial measured holds for all
                self.facts["threads"] = answer["threads"]
                write_json(self.path / "tune.json", self.facts)
        elif answer["kind"] == "pruned":
            self.study.prune(number, seconds)
        else:
            self.study.fail(number, answer["reason"], seconds)
        self.num_tried += 1
        self.show(final=not self.wants_more())

    def next(self, busy: int = 0) -> Candidate | None:
        """Begin the next trial; None when no more are wanted.

        Options that were tried before would be trained to the same bits: their score is taken, and counts.
        """
        while self.wants_more(busy):
            candidate = self.study.ask()
            score = self.study.score_of(candidate)
            if score is None:
                return candidate
            self.settle(candidate, {"kind": "done", "score": score, "threads": 0, "seconds": 0.0})
        return None

    def show(self, *, final: bool = False) -> None:
        """Show how far the search is."""
        done, spent = self.num_tried - self._tried_before, time.monotonic() - self._started
        best = "-" if self._best is None else f"{self._best:.4f}"
        line = f"trial {self.num_tried}/{self._wanted}  best stop {best}"
        if done:
            left = min((self._wanted - self.num_tried) * spent / done, self._deadline - time.monotonic())
            line += f"  {60 * done / spent:.1f} trials/min  about {clock(left)} left"
        self.progress.step(line, final=final)


def run_serial(search: Search, bench: Attempts) -> None:
    """Run trials in this process, one after the other."""
    while (candidate := search.next()) is not None:

        def observer(step: int, best: float, number: int = candidate.number) -> bool:
            search.show()
            return search.study.report(number, step, best)

        task = search.task(candidate)
        threads = search.facts["threads"]
        search.settle(candidate, bench.attempt(task["options"], threads, Path(task["folder"]), observer))


def run_parallel(
    search: Search, workspace: Workspace, config: RunConfig, market: Market, parallel: int
) -> None:
    """Run trials in processes; one that dies is replaced, and its trial waits to be tried again."""
    import torch

    threads = max(torch.get_num_threads() // parallel, 1)
    told = {"workspace": str(workspace.root), "config": config.plain(), "version": market.store_version,
            "threads": threads}  # fmt: skip
    inbox: queue.Queue[tuple[Worker, dict[str, Any] | None]] = queue.Queue()
    workers: list[Worker] = []
    try:
        while search.wants_more(len(workers)) and len(workers) < parallel:
            workers.append(Worker(told, threads, inbox))
        while workers:
            worker, message = inbox.get()
            if worker not in workers:
                continue
            if message is not None and message["kind"] == "score":
                number = worker.candidate.number
                worker.say({"end": search.study.report(number, message["step"], message["best"])})
                search.show()
                continue
            if message is None:
                workers[workers.index(worker)] = worker = _replaced(search, worker, told, threads, inbox)
                continue
            worker.is_ready = True
            if worker.candidate is not None:
                search.settle(worker.candidate, message)
                worker.candidate = None
            worker.candidate = search.next(sum(each.candidate is not None for each in workers))
            if worker.candidate is not None:
                worker.say(search.task(worker.candidate))
            else:
                workers.remove(worker)
                worker.close()
    finally:
        for worker in workers:
            worker.close()


def _replaced(
    search: Search, dead: Worker, told: Mapping[str, Any], threads: int, inbox: queue.Queue[Any]
) -> Worker:
    """Return a new worker for a dead one, whose trial is lost."""
    dead.close()
    if not dead.is_ready:
        raise RunError(
            "a worker process ended before its first trial", "what it said stands above; --parallel 1"
        )
    if dead.candidate is not None:
        search.progress.note(f"worker {dead.pid} died in trial {dead.candidate.number}, which is tried again")
        search.study.lose(dead.candidate.number)
    return Worker(told, threads, inbox)
