"""Trials of a search: each trains as a run does, in memory, and leaves nothing behind.

One process keeps its data and runs trial after trial. With several, the parent alone asks and tells the
study; workers are told what to try and answer in lines of JSON, so that a worker may die at any moment.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from barcast.core.arrays import F32, F64, I64
from barcast.core.config import read_values
from barcast.core.errors import BarcastError
from barcast.core.memory import keep_freed_memory
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.models.registry import model_entry
from barcast.pipeline.attributes import attributes_of
from barcast.pipeline.dataset import Dataset, build_dataset, resolve_features
from barcast.pipeline.fit import fit_model
from barcast.pipeline.market import Market, load_market
from barcast.pipeline.settings import RunConfig, from_run
from barcast.pipeline.train import check_look_back
from barcast.training.config import lr_for

#: Options by settings table.
Tables = Mapping[str, Mapping[str, Any]]
#: Told the number of an evaluation and the best score so far; says whether the trial is to end.
Observer = Callable[[int, float], bool]
#: How libraries are told how many threads a process may have, before they are imported.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")


class _PrunedError(Exception):
    """Ends a trial that fell behind."""


@dataclass(frozen=True)
class _WatchedDataset(Dataset):
    """A dataset whose judge tells each score to somebody, who may end the trial by raising."""

    watch: Callable[[float], None] = lambda score: None

    def stop_score(self) -> Callable[[I64, F32 | F64], float]:
        judge = super().stop_score()

        def watched(rows: I64, outputs: F32 | F64) -> float:
            score = judge(rows, outputs)
            self.watch(score)
            return score

        return watched


def with_options(config: RunConfig, tables: Tables) -> RunConfig:
    """Return a config with other options; a rate at its default stays the default of another width.

    Raises
    ------
    UsageError
        When they make no sense, each or together.
    """
    parts = {"data": config.data, "train": config.train, config.model: config.options}
    parts |= {
        table: replace(parts[table], **read_values(type(parts[table]), values, table))
        for table, values in tables.items()
    }
    options, train = parts[config.model], parts["train"]
    if train is not None and "lr" not in tables.get("train", {}) and _has_default_rate(config):
        train = replace(train, lr=lr_for(options.hidden_size))
    return replace(config, data=parts["data"], train=train, options=options)


def _has_default_rate(config: RunConfig) -> bool:
    return config.train is not None and config.train.lr == lr_for(config.options.hidden_size)


class Bench:
    """The data of one process, shared by its trials as long as they ask for the same.

    Parameters
    ----------
    workspace : Workspace
    config : RunConfig
        What every trial shares.
    market : Market
    """

    def __init__(self, workspace: Workspace, config: RunConfig, market: Market) -> None:
        self.workspace = workspace
        self.config = config
        self.market = market
        self._asked: Any = None
        self._dataset: Dataset | None = None

    def attempt(self, tables: Tables, threads: int, folder: Path, observer: Observer) -> dict[str, Any]:
        """Train one trial in a scratch folder, which goes afterwards.

        Returns
        -------
        dict
            ``kind`` is ``done`` (with ``score`` and ``threads``), ``pruned`` or ``failed`` (with ``reason``);
            ``seconds`` beside it.
        """
        started = time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            found = self._train(tables, threads, RunFolder(folder), observer)
        except _PrunedError:
            found = {"kind": "pruned"}
        except BarcastError as error:
            found = {"kind": "failed", "reason": str(error)}
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return found | {"seconds": time.perf_counter() - started}

    def _train(self, tables: Tables, threads: int, scratch: RunFolder, observer: Observer) -> dict[str, Any]:
        config = with_options(self.config, tables)
        check_look_back(config, self.market)
        if config.train is not None:
            wanted = config.train.threads or threads
            config = replace(config, train=replace(config.train, threads=wanted, checkpoint_seconds=1e9))
        dataset = self._data_for(config)
        scratch.write("run.json", {"name": scratch.name, "status": "running"})
        known = {each.name: getattr(dataset, each.name) for each in fields(dataset)}
        watched = _WatchedDataset(**known, watch=_ending(observer))
        outcome = fit_model(model_entry(config.model), config, watched, scratch, Progress(enabled=False))
        score = outcome.facts["best_score"]
        if score is None:
            return {"kind": "failed", "reason": "no score on `stop` was a number"}
        return {"kind": "done", "score": score, "threads": outcome.facts.get("threads", 0)}

    def _data_for(self, config: RunConfig) -> Dataset:
        asked = (config.data.features, getattr(config.options, "static", ()))
        if self._dataset is None or asked != self._asked:
            self._dataset = None  # before the next one is built: two would need twice the memory
            self._dataset = build_dataset(
                self.market,
                self.workspace,
                resolve_features(self.workspace, config.data.features),
                tabular=model_entry(config.model).kind == "tabular",
                attributes=attributes_of(self.workspace, config, self.market),
            )
            self._asked = asked
        return self._dataset


def _ending(observer: Observer) -> Callable[[float], None]:
    """Return what counts evaluations, keeps the best score and ends a trial that its observer gives up."""
    best, step = -np.inf, 0

    def watch(score: float) -> None:
        nonlocal best, step
        best = max(best, score)  # a score that is no number is never better
        if np.isfinite(best) and observer(step, float(best)):
            raise _PrunedError
        step += 1

    return watch


class Worker:
    """A process that runs trials, seen from the parent.

    Messages arrive in ``inbox`` as (worker, message); (worker, None) says that it is dead.

    Parameters
    ----------
    told : mapping
        What `work` reads first.
    threads : int
        Threads that it may use.
    inbox : Queue
    """

    def __init__(self, told: Mapping[str, Any], threads: int, inbox: queue.Queue[Any]) -> None:
        self.candidate: Any = None
        self.is_ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "barcast.pipeline.trials"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, **dict.fromkeys(_THREADS, str(threads))},
            start_new_session=True,  # Ctrl-C is for the parent, which ends its workers
        )
        self._listener = threading.Thread(target=self._listen, args=(inbox,), daemon=True)
        self._listener.start()
        self.say(told)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def say(self, message: Mapping[str, Any]) -> None:
        """Send a message; one that is dead has said so in the inbox."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except OSError:
            return

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            try:
                stream.close()
            except OSError:  # what was not yet sent has nobody to read it
                continue

    def _listen(self, inbox: queue.Queue[Any]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):  # else a kill cut it off
                inbox.put((self, json.loads(line)))
        inbox.put((self, None))


def work() -> None:
    """Run trials as a worker until the parent says no more, or is gone.

    Standard output belongs to the messages: whatever a library prints goes to standard error.
    """
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    keep_freed_memory()

    def hear() -> dict[str, Any]:
        line = sys.stdin.readline()
        if not line:
            raise SystemExit
        heard: dict[str, Any] = json.loads(line)
        return heard

    def say(message: Mapping[str, Any]) -> None:
        try:
            channel.write(json.dumps(message) + "\n")
            channel.flush()
        except BrokenPipeError as error:
            raise SystemExit from error

    def observer(step: int, best: float) -> bool:
        say({"kind": "score", "step": step, "best": best})
        return bool(hear()["end"])

    told = hear()
    workspace, config = Workspace(Path(told["workspace"])), from_run(told["config"])
    bench = Bench(workspace, config, load_market(workspace, config.data, version=told["version"]))
    say({"kind": "ready"})
    while True:
        task = hear()
        say(bench.attempt(task["options"], told["threads"], Path(task["folder"]), observer))


if __name__ == "__main__":
    work()
