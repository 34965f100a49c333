"""``barcast tune``: search options of a model and its training by their score on `stop`.

::

    runs/tune-<model>-<id>/
        study.db     every trial, from the moment it begins
        tune.json    what was searched, every trial, the best one
        best.toml    for `barcast train --config`, with the number of trials
        work/        scratch of running trials

Only `stop` is looked at: `weigh`, `route` and `test` know nothing of the search. The best of many scores on
`stop` is a flattered one; how good the options are is to be read on `route`.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from barcast.core.atomic import read_json, write_json, write_text
from barcast.core.config import to_plain, to_toml
from barcast.core.durations import minutes_of
from barcast.core.errors import RunError, UsageError
from barcast.core.lock import writer_lock
from barcast.core.progress import Progress
from barcast.core.runs import command_line, command_to_type, run_identity
from barcast.core.workspace import Workspace
from barcast.models.registry import model_entry
from barcast.pipeline.dataset import resolve_features
from barcast.pipeline.market import Market, load_market
from barcast.pipeline.search import Search, run_parallel, run_serial
from barcast.pipeline.searched import stop_known
from barcast.pipeline.settings import DataConfig, RunConfig, resolve
from barcast.pipeline.size import TIME_BUDGET
from barcast.pipeline.train import in_one_spelling
from barcast.pipeline.trials import Bench, with_options
from barcast.training.config import TrainConfig
from barcast.tuning.space import Space, make_space
from barcast.tuning.study import COMPLETE, TrialRecord, check_optuna, open_study

#: Options of the data that may vary: the labels, rows and segments that are judged stay the same.
_DATA_OPTIONS = ("features",)
#: Options that best.toml leaves to whoever trains: they say where and how often, not what.
_LEFT_OPEN = {"seed", "num_seeds", "warm_start", "device", "threads", "checkpoint_seconds"}
#: Evaluations of a tabular model before it may be pruned.
_TABULAR_WARMUP = 10


@dataclass(frozen=True)
class Tuning:
    """What a search ends with.

    Attributes
    ----------
    path : Path
        Its folder.
    model : str
    trials : tuple of TrialRecord
        Every trial that has begun, also those that were cut off.
    importance : mapping of str to float
        Share of each option in reaching the best trials; empty where too few are done.
    until : str
        When the last label of `stop` became known, which chose the best.
    seconds : float
        Wall time of this call.
    next : str
        The command that trains the best.
    size_trials : int
        Sizes that ``--size auto`` had compared on the same `stop` before; they count too.
    """

    path: Path
    model: str
    trials: tuple[TrialRecord, ...]
    importance: Mapping[str, float]
    until: str
    seconds: float
    next: str
    size_trials: int = 0

    @property
    def name(self) -> str:
        """The folder's name, which users type."""
        return self.path.name

    @property
    def num_trials(self) -> int:
        """How many candidates were looked at: the number that goes with every later score."""
        return sum(record.is_tried for record in self.trials) + self.size_trials

    @cached_property
    def best(self) -> TrialRecord:
        """The trial with the best score on `stop`, the first of equals.

        Raises
        ------
        RunError
            When none has a score.
        """
        done = [record for record in self.trials if record.state == COMPLETE and record.score is not None]
        if not done:
            reasons = [record.reason for record in self.trials if record.reason]
            found = f"`{self.name}`: none of {self.num_trials} trials has a score"
            raise RunError(f"{found}; the last said: {reasons[-1]}" if reasons else found, "another --space")
        return max(done, key=lambda record: record.score or 0.0)

    @property
    def best_file(self) -> Path:
        """What `barcast train --config` takes."""
        return self.path / "best.toml"

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "tune": self.name,
            "folder": str(self.path),
            "model": self.model,
            "num_trials": self.num_trials,
            "size_trials": self.size_trials,
            "best": to_plain(self.best),
            "best_file": str(self.best_file),
            "trials": to_plain(self.trials),
            "importance": dict(self.importance),
            "until": self.until,
            "seconds": round(self.seconds, 3),
            "next": self.next,
        }


def plan_search(
    workspace: Workspace,
    model: str,
    flags: Mapping[str, Any] | None = None,
    file: Path | None = None,
    space_file: Path | None = None,
    *,
    minutes: float | str | None = None,
    compare_sizes: bool = False,
    progress: Progress | None = None,
) -> tuple[RunConfig, Space]:
    """Return what all trials share, and what varies: options that are given leave the space.

    Settings files say where the search starts. ``size`` fixes the options that it stands for; ``auto`` is
    chosen as `resolve` does, with ``compare_sizes``.

    Parameters
    ----------
    minutes : float, optional
        Those of the search. ``auto`` has as many, but no more than it has without a search: a longer search
        is for more trials, not for larger networks.

    Raises
    ------
    UsageError
        On an option or a value that makes no sense, in any file or flag.
    """
    if compare_sizes:
        check_optuna()
    flags, minutes = dict(flags or {}), minutes_of(minutes, "time_budget")
    budget = min(minutes, TIME_BUDGET) if minutes is not None and flags.get("size") == "auto" else None
    asked = resolve(
        workspace, model, {**flags, "time_budget": budget}, file, compare_sizes=compare_sizes,
        progress=progress,
    )  # fmt: skip
    config = replace(asked, tuned=None)
    if config.train is not None and (config.num_seeds > 1 or config.train.warm_start):
        raise UsageError(
            "a search judges single networks from fresh weights: it takes neither --seeds nor --warm-start",
            "search first, then barcast train --tuned TUNE --seeds 5",
        )
    entry = model_entry(model)
    given = {name: value for name, value in flags.items() if value is not None}
    sized = {name for preset in entry.sizes.values() for name in preset} if "size" in given else set()
    fixed = {*given, *sized}
    kinds: dict[str, type] = {"data": DataConfig, model: entry.config}
    if config.train is not None:
        kinds["train"] = TrainConfig
    space = make_space(model, kinds, fixed, space_file, _DATA_OPTIONS)
    for name in next((each.values for each in space.parameters if each.name == "features"), ()):  # type: ignore[union-attr]
        resolve_features(workspace, name)
    _check_values(config, space)
    return config, space


def _check_values(config: RunConfig, space: Space) -> None:
    """Refuse a value that no combination with others makes sense of.

    Raises
    ------
    UsageError
        As the model or the loop says it.
    """
    chance = random.Random(0)
    for parameter in space.parameters:
        for value in parameter.ends():
            refused = None
            for attempt in range(20):  # beside the options it starts with, then beside others of the space
                others = (
                    {each.name: chance.choice(each.ends()) for each in space.parameters} if attempt else {}
                )
                try:
                    with_options(config, space.by_owner({**others, parameter.name: value}))
                    break
                except UsageError as error:
                    refused = refused or error
            else:
                assert refused is not None
                raise refused


def tune(
    workspace: Workspace,
    config: RunConfig,
    space: Space,
    *,
    trials: int = 30,
    minutes: float | str | None = None,
    parallel: int = 1,
    progress: Progress | None = None,
) -> Tuning:
    """Search the space until so many trials are done; the same search goes on where it stopped.

    Parameters
    ----------
    config, space
        From `plan_search`.
    trials : int
        Candidates in all, those of earlier calls included.
    minutes : float, optional
        No trial begins later than so many minutes after this call.
    parallel : int
        Processes; each has its share of the threads.

    Raises
    ------
    RunError
        When no trial has a score.
    StoreBusyError
        When another process searches the same.
    """
    minutes = minutes_of(minutes, "time_budget")
    if trials < 1 or parallel < 1:
        raise UsageError("`trials` and `parallel` are at least 1", "--trials 30")
    progress, started = progress or Progress(enabled=False), time.monotonic()
    progress.note("reading the store, checking bars, making labels")
    market = load_market(workspace, config.data)
    path = workspace.runs / search_name(workspace, config, space, market)
    with writer_lock(path):
        shutil.rmtree(path / "work", ignore_errors=True)
        facts = _begin(path, config, space, market)
        with open_study(path / "study.db", path.name, space, config.seed, warmup=_warmup(config)) as study:
            study.begin(space.start(_values(config, space)))
            deadline = started + 60 * minutes if minutes is not None else float("inf")
            search = Search(path, study, facts, trials, deadline, progress)
            if parallel > 1:
                run_parallel(search, workspace, config, market, parallel)
            else:
                run_serial(search, Bench(workspace, config, market))
            train = command_to_type(workspace, "train", config.model, "--tuned", path.name)
            found = Tuning(
                path, config.model, study.trials(), study.importance(), stop_known(market),
                time.monotonic() - started, train, facts["size_trials"],
            )  # fmt: skip
        shutil.rmtree(path / "work", ignore_errors=True)
        write_text(found.best_file, _best_toml(found, config, space))
        write_json(path / "tune.json", {**search.facts, **found.plain(), "status": "done"})
    return found


def _warmup(config: RunConfig) -> int:
    """Return how many evaluations a trial has before it may be pruned: a quarter of a network's."""
    if config.train is None:
        return _TABULAR_WARMUP
    return max(config.train.evaluations_per_epoch * config.train.epochs // 4, 1)


def search_name(workspace: Workspace, config: RunConfig, space: Space, market: Market) -> str:
    """Return the folder's name: what is searched, on which rows, decide it; not for how long."""
    choices = [each.values for each in space.parameters if each.name == "features"]
    names = choices[0] if choices and isinstance(choices[0], tuple) else (config.data.features,)
    asked = {
        "config": in_one_spelling(config, market).identity(),
        "space": space.plain(),
        "features_code": [resolve_features(workspace, name).code_digest() for name in names],
    }
    return f"tune-{config.model}-{run_identity(asked, market.cutoff, market.data_digest)[:12]}"


def describe_search(workspace: Workspace, config: RunConfig, space: Space) -> dict[str, Any]:
    """Return which folder a search would use, and what it holds already; nothing is searched."""
    market = load_market(workspace, config.data)
    path = workspace.runs / search_name(workspace, config, space, market)
    known = read_json(path / "tune.json") if (path / "tune.json").is_file() else {}
    done = known.get("num_trials", 0) - known.get("size_trials", 0)
    return {"tune": path.name, "done": done, "space": space.plain()}


def tuned_config(
    workspace: Workspace, name: str, model: str = "", file: Path | None = None, refit: str | None = None
) -> tuple[str, Path]:
    """Return the model and the best.toml of a finished search: by name, a unique beginning of it, or path.

    Raises
    ------
    UsageError
        When another model is named, or options come from elsewhere too.
    RunError
        When there is no such search, or it is not finished.
    """
    if file is not None or refit:
        raise UsageError(f"two sources of options: --tuned {name} and {file or refit}", "name one of them")
    folders = sorted(found.parent for found in workspace.runs.glob("tune-*/tune.json"))
    exact = [folder for folder in folders if name == folder.name or Path(name).resolve() == folder]
    found = exact or [folder for folder in folders if folder.name.startswith(name)]
    if len(found) > 1:
        begun = ", ".join(folder.name for folder in found)
        raise RunError(f"`{name}` begins the names of several searches: {begun}", "give more of the name")
    if not found:
        there = ", ".join(folder.name for folder in folders)
        known = f"there are: {there}" if there else "this workspace has none yet"
        raise RunError(f"no search called `{name}`; {known}", "one of these names, or barcast tune")
    facts = read_json(found[0] / "tune.json")
    if not (found[0] / "best.toml").is_file():
        raise RunError(f"`{found[0].name}` is not finished", f"run it again, it goes on: {facts['command']}")
    if model not in ("", facts["model"]):
        other = f"`{found[0].name}` is of {facts['model']}, not {model}"
        raise UsageError(other, f"barcast train --tuned {name}")
    return str(facts["model"]), found[0] / "best.toml"


def _values(config: RunConfig, space: Space) -> dict[str, Any]:
    """Return the options of the config that vary, as plain values."""
    plain = {"data": config.data, "train": config.train, config.model: config.options}
    return {each.name: to_plain(getattr(plain[each.owner], each.name)) for each in space.parameters}


def _begin(path: Path, config: RunConfig, space: Space, market: Market) -> dict[str, Any]:
    """Write down what is searched before anything is computed; return the facts that outlive this call."""
    file = path / "tune.json"
    known: dict[str, Any] = {"created": datetime.now(UTC).isoformat(), "threads": 0, "size_trials": 0}
    if file.is_file():
        known |= read_json(file)
    compared = config.sized.num_compared if config.sized else 0
    facts = {
        **known,
        "size_trials": max(compared, known["size_trials"]),  # also where the size is named the next time
        "name": path.name,
        "model": config.model,
        "command": command_line(),
        "status": "running",
        "config": config.plain(),
        "space": space.plain(),
        "cutoff": market.cutoff,
        "data_key": market.data_key,
        "label_key": market.label_key,
        "store_version": market.store_version,
    }
    write_json(file, facts)
    return facts


def _best_toml(found: Tuning, config: RunConfig, space: Space) -> str:
    """Return the best options with everything else that shaped the trials, and how many there were."""
    best = with_options(config, space.by_owner(found.best.options))
    tables: dict[str, Any] = {"data": best.data, best.model: best.options}
    if best.train is not None:
        tables["train"] = best.train
    lines = [f"# the best of {found.num_trials} trials of {found.name}, by its score on `stop`: "
             f"{found.best.score:.6f}", f"seed = {best.seed}"]  # fmt: skip
    for table, part in tables.items():
        kept = [each.name for each in fields(part) if each.name not in _LEFT_OPEN]
        values = {name: value for name in kept if (value := to_plain(getattr(part, name))) is not None}
        lines += ["", f"[{table}]", *(f"{name} = {to_toml(value)}" for name, value in values.items())]
    lines += ["", "# goes with every score of a run that takes these options", "[tuned]"]
    lines += [
        f"model = {to_toml(found.model)}",
        f"run = {to_toml(found.name)}",
        f"trials = {found.num_trials}",
        f"until = {to_toml(found.until)}",
    ]
    return "\n".join(lines) + "\n"
