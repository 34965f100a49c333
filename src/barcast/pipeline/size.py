"""``--size auto``: the largest network that a plan lets through and that `stop` supports.

The plan chooses the candidates, and trains nothing. Where there are several and somebody is going to train,
each is trained for half an epoch and judged on `stop`. What was planned and tried is kept, trial by trial::

    cache/sizes/<model>-<id>/
        size.json    candidates, refused sizes but those that memory refused, and scores of finished trials
        work/        scratch of the running trial
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from barcast.core.atomic import read_json, write_json
from barcast.core.config import digest, to_plain
from barcast.core.durations import minutes_of
from barcast.core.errors import OutOfMemoryError, ResourceError, UsageError
from barcast.core.lock import writer_lock
from barcast.core.progress import Progress, clock, count
from barcast.core.workspace import Workspace
from barcast.models.registry import model_entry
from barcast.pipeline.attributes import attributes_of
from barcast.pipeline.chosen import SIZE_AUTO, Sized
from barcast.pipeline.dataset import resolve_features
from barcast.pipeline.market import Market, load_market
from barcast.pipeline.plan import check_is_network, workload
from barcast.pipeline.searched import stop_known
from barcast.pipeline.settings import RunConfig, resolve
from barcast.pipeline.train import identity_of, in_one_spelling
from barcast.pipeline.trials import Bench
from barcast.planning.memory import gib
from barcast.planning.network import beside_embeddings
from barcast.planning.plan import Plan, make_plan
from barcast.planning.rules import independent_labels
from barcast.planning.workload import Workload

#: The network without any preset.
DEFAULT = "default"
#: Minutes that comparing sizes and the run may take.
TIME_BUDGET = 120.0
#: A trial ends at its second look at `stop` of four: half an epoch.
LOOKS, LOOKS_OF_AN_EPOCH = 2, 4

#: Trains a config for half an epoch in a scratch folder; its best score on `stop`, or why there is none.
Attempt = Callable[[RunConfig, Path], float | str]


@dataclass
class Decision:
    """What is known so far about the sizes of one question.

    Attributes
    ----------
    key : str
        Digest of all that was asked: another question's answer is none of this one's.
    candidates : dict of str to float
        Sizes that the plan lets through, smallest first, and the planned seconds of a trial.
    refused : dict of str to str
        Why the plan refuses the others.
    trials : dict of str to float or str
        Score of each finished trial, or why it has none.
    against : dict of str to str
        What speaks against a candidate that is one all the same: nothing is smaller.
    short : dict of str to str
        Sizes that there was no memory to measure. There may be next time, so the file does not hold them.
    """

    key: str
    candidates: dict[str, float]
    refused: dict[str, str]
    trials: dict[str, float | str] = field(default_factory=dict)
    against: dict[str, str] = field(default_factory=dict)
    short: dict[str, str] = field(default_factory=dict)

    @property
    def has_scores(self) -> bool:
        """Whether `stop` has anything to say."""
        return any(isinstance(tried, float) for tried in self.trials.values())

    @property
    def left(self) -> dict[str, float]:
        """Planned seconds of the trials that are still to be made; a single candidate needs none."""
        if len(self.candidates) == 1:
            return {}
        return {name: each for name, each in self.candidates.items() if name not in self.trials}

    @classmethod
    def read(cls, file: Path, key: str, sizes: Iterable[str]) -> Decision | None:
        """Return what a file knows about the question; None where it is missing, broken or of another."""
        try:
            found = cls(**read_json(file))
            numbers = [*found.candidates.values()]
            numbers += [tried for tried in found.trials.values() if not isinstance(tried, str)]
            is_whole = (
                found.key == key
                and not found.short
                and {*found.candidates, *found.refused} <= {*sizes}
                and {*found.trials, *found.against} <= {*found.candidates}
                and all(isinstance(text, str) for text in found.against.values())
                and all(isinstance(number, float) and math.isfinite(number) for number in numbers)
            )
        except (OSError, ValueError, TypeError, AttributeError):
            return None
        return found if is_whole and found.candidates else None

    def write(self, file: Path) -> None:
        """Keep it; each finished trial is a line."""
        plain = asdict(self)
        del plain["short"]
        write_json(file, plain)


def choose_size(
    workspace: Workspace, model: str, flags: Mapping[str, Any], file: Path | None = None,
    *, minutes: float | str | None = None, compare: bool = False, progress: Progress | None = None,
    planned: Callable[[Workload], Plan] = make_plan, attempt: Attempt | None = None,
) -> Sized:  # fmt: skip
    """Choose the largest size that the plan lets through and, with ``compare``, that `stop` supports.

    `stop` supports a size whose score after half an epoch is not below the best one of the smaller sizes.
    Nothing later than `stop` is looked at.

    Parameters
    ----------
    flags : mapping
        Options of the run without its size; those that name a width or depth win over any preset.
    minutes : float or str, optional
        What trials and run may take, 120 by default; ``"1h30m"`` says it too.
    compare : bool
        Train the candidates where there are several. Without it nothing is trained: what they were found to
        be worth before is remembered, else the largest is taken.
    planned, attempt : callable, optional
        What plans a workload, and what tries a candidate.

    Raises
    ------
    UsageError
        For a model that the loop does not train, or beside weights to start from.
    ResourceError
        When not even the smallest network fits into memory.
    StoreBusyError
        When another process compares the same.
    """
    progress = progress or Progress(enabled=False)
    minutes = minutes_of(minutes, "time_budget") or TIME_BUDGET
    configs = _networks(workspace, model, flags, file)
    base = configs[DEFAULT]
    with progress.about(f"{SIZE_AUTO}: "):
        progress.note("reading the store to see what its labels support")
        market = load_market(workspace, base.data)
        key = _key(workspace, configs, market, minutes)

        def plan(before: Decision) -> Decision:
            return plan_sizes(before, configs, workload(workspace, base, market), minutes, planned, progress)

        folder = workspace.cache / "sizes" / f"{model}-{key[:12]}"
        if compare:
            trial = attempt or _half_epochs(workspace, base, market)
            decision = _compared(folder, key, configs, plan, trial, progress)
        else:
            decision = _planned_before(folder, key, configs, plan, progress)
        return _told(model, decision, market, progress)


def _told(model: str, decision: Decision, market: Market, progress: Progress) -> Sized:
    """Say what a decision came to, size by size, and return it as a run keeps it."""
    left = decision.left
    if left:
        decision = replace(decision, trials={})  # some of several scores tell nothing
    size, verdicts = judge(decision)
    presets = _presets(model)
    reasons = tuple(
        f"{name}: {why}" if name in decision.candidates else f"{name} refused: {why}"
        for name, why in ((name, verdicts[name]) for name in presets)
    )
    for reason in reasons:
        progress.note(reason)
    found = Sized(
        size=size, options=presets[size], candidates=tuple(decision.candidates), to_compare=tuple(left),
        trial_seconds=sum(left.values()), reasons=reasons,
    )  # fmt: skip
    if not decision.has_scores:
        return found
    return replace(found, num_compared=len(decision.trials), until=stop_known(market))


def _presets(model: str) -> dict[str, Mapping[str, Any]]:
    return {DEFAULT: {}, **model_entry(model).sizes}


def _networks(
    workspace: Workspace, model: str, flags: Mapping[str, Any], file: Path | None
) -> dict[str, RunConfig]:
    """Return the config of each size; refuse what makes no sense beside ``auto``."""
    check_is_network(model)
    found = {
        name: resolve(workspace, model, {**flags, "size": None if name == DEFAULT else name}, file)
        for name in _presets(model)
    }
    train = found[DEFAULT].train
    if train is not None and train.warm_start:
        raise UsageError(
            f"{SIZE_AUTO} beside --warm-start: weights fit networks of their own size alone",
            "name the size of the run that they come from",
        )
    return found


def _key(workspace: Workspace, configs: Mapping[str, RunConfig], market: Market, minutes: float) -> str:
    """Return a digest of the runs that the sizes would be, and of the budget: it decides who is tried."""
    base = configs[DEFAULT]
    features = resolve_features(workspace, base.data.features)
    attributes = attributes_of(workspace, base, market)
    runs = {
        name: identity_of(in_one_spelling(config, market).identity(), market, features, attributes, None)
        for name, config in configs.items()
    }
    return digest({"runs": runs, "minutes": minutes})


# --- what the plan says ------------------------------------------------------------------------------------


def plan_sizes(
    before: Decision, configs: Mapping[str, RunConfig], work: Workload, minutes: float,
    planned: Callable[[Workload], Plan], progress: Progress,
) -> Decision:  # fmt: skip
    """Return which sizes are candidates; only those that the labels support are measured, and not again.

    What the labels support is a rule: no more parameters beside embeddings than independent labels. The
    smallest network is refused by memory alone.

    Raises
    ------
    ResourceError
        When it is.
    """
    shared = {name: beside_embeddings(work.entry, each.options, work.sizes) for name, each in configs.items()}
    supported = independent_labels(work.num_teaching_rows, configs[DEFAULT].data.horizons)
    found, budget = replace(before, short={}), 60 * minutes
    candidates, order = found.candidates, sorted(configs, key=lambda each: shared[each])
    seen: dict[str, Any] = {}
    for name in order:
        options = configs[name].options
        same = next((other for other, known in seen.items() if known == options), None)
        seen[name] = options
        if name in candidates or name in found.refused:
            continue
        if same is not None:
            found.refused[name] = f"the same network as {same}"
            continue
        too_many = shared[name] > supported and (
            f"{count(shared[name])} parameters beside embeddings, {count(supported)} independent labels"
        )
        if candidates and too_many:
            found.refused[name] = too_many
            continue
        progress.note(f"measuring a few steps of {name}")
        plan, short = _planned(replace(work, options=options), planned)
        refusal = short if plan is None else _refusal(plan, budget, tuple(candidates.values()))
        if refusal and not candidates:
            raise ResourceError(
                f"no size of `{work.model}` fits this machine: {name}: {refusal}",
                "a smaller --batch-size, --look-back-window or --limit; `barcast plan train` says what takes "
                "it",
            )
        if plan is None or refusal:
            (found.short if plan is None else found.refused)[name] = refusal
            continue
        if not candidates and (against := _against(plan, too_many or "", budget)):
            found.against[name] = against
        candidates[name] = _trial_seconds(plan)
    return replace(found, candidates={name: candidates[name] for name in order if name in candidates})


def _planned(work: Workload, planned: Callable[[Workload], Plan]) -> tuple[Plan | None, str]:
    """Return the plan of a size, or in which words memory was too short for one."""
    try:
        return planned(work), ""
    except OutOfMemoryError as error:
        return None, error.found


def _against(plan: Plan, too_many: str, budget: float) -> str:
    """Say what speaks against the smallest size, which is taken all the same; empty where nothing does."""
    said = [f"{too_many}: more than they support"] if too_many else []
    if plan.run_seconds > budget:
        said.append(f"its run would take {_time(plan.run_seconds)}, the budget is {_time(budget)}: too long")
    return f"{'; '.join(said)}, but the smallest there is" if said else ""


def _time(seconds: float) -> str:
    """Write a time for people; less than a second is not 0:00."""
    return clock(seconds) if seconds >= 1 else f"{seconds:.2g} s"


def _refusal(plan: Plan, budget: float, trials: tuple[float, ...]) -> str:
    """Say why a size will not do beside the trials of smaller ones; empty where it does."""
    if not plan.fits:
        short = plan.host if plan.host.fits is False or plan.device is None else plan.device
        there = gib(short.available or 0)
        return f"needs {gib(short.peak)} of memory, {there} are available, a tenth stays free"
    seconds = plan.run_seconds + sum(trials) + _trial_seconds(plan)
    if trials and seconds > budget:
        return f"trials and a run would take {_time(seconds)}, the budget is {_time(budget)}"
    return ""


def _trial_seconds(plan: Plan) -> float:
    """Return how long half an epoch takes, and the looks at `stop`."""
    look = plan.compute.judging_seconds_per_epoch / plan.work.train.evaluations_per_epoch
    return plan.compute.seconds_per_epoch * LOOKS / LOOKS_OF_AN_EPOCH + LOOKS * look


# --- what `stop` says --------------------------------------------------------------------------------------


def _compared(
    folder: Path, key: str, configs: Mapping[str, RunConfig], plan: Callable[[Decision], Decision],
    attempt: Attempt, progress: Progress,
) -> Decision:  # fmt: skip
    """Return the decision with a trial of each candidate, where there are several; none is made twice."""
    file = folder / "size.json"
    with writer_lock(folder):
        shutil.rmtree(folder / "work", ignore_errors=True)
        decision = _planned_before(folder, key, configs, plan, progress)
        decision.write(file)
        if len(decision.candidates) == 1:
            return decision
        for name, seconds in decision.candidates.items():
            if name not in decision.trials:
                progress.note(f"half an epoch of {name}, judged on `stop`: about {clock(seconds)}")
                decision.trials[name] = attempt(configs[name], folder / "work")
                decision.write(file)
    return decision


def _planned_before(
    folder: Path, key: str, configs: Mapping[str, RunConfig], plan: Callable[[Decision], Decision],
    progress: Progress,
) -> Decision:  # fmt: skip
    """Return what was planned and tried before; sizes of which nothing is known are planned now."""
    found = Decision.read(folder / "size.json", key, configs)
    if found is None or {*found.candidates, *found.refused} != {*configs}:
        return plan(found or Decision(key, {}, {}))
    done = "planned" if found.left or not found.trials else "planned and compared"
    progress.note(f"as {done} before; remove {folder} to plan and to compare anew")
    return found


def _half_epochs(workspace: Workspace, base: RunConfig, market: Market) -> Attempt:
    """Return what trains a candidate as a run of one epoch begins, from the run's seed, and judges it."""
    assert base.train is not None
    epoch = replace(
        base.train, epochs=1, evaluations_per_epoch=LOOKS_OF_AN_EPOCH, patience=LOOKS_OF_AN_EPOCH, num_seeds=1
    )
    bench = Bench(workspace, replace(base, train=epoch), market)

    def attempt(config: RunConfig, folder: Path) -> float | str:
        assert config.train is not None
        best = -math.inf

        def watch(step: int, score: float) -> bool:
            nonlocal best
            best = score
            return step + 1 >= LOOKS

        tables = {config.model: to_plain(config.options), "train": {"lr": config.train.lr}}
        found = bench.attempt(tables, 0, folder, watch)
        return str(found["reason"]) if found["kind"] == "failed" else best

    return attempt


def judge(decision: Decision) -> tuple[str, dict[str, str]]:
    """Return the size to take, and what there is to say of each."""
    said = {**decision.refused, **decision.short}
    size, best = "", -math.inf
    for name in decision.candidates:
        tried = decision.trials.get(name, "the plan lets it through")
        if isinstance(tried, str):
            said[name] = tried
        elif tried >= best:
            size, best = name, tried
            said[name] = f"{tried:.4f} on `stop` after half an epoch"
        else:
            said[name] = f"{tried:.4f} on `stop` after half an epoch, less than {size}"
    if size:
        said[size] += ": the largest that `stop` supports"
    else:
        size = list(decision.candidates)[-1]
        said[size] = decision.against.get(size, "the largest that the plan lets through")
        if decision.trials:
            said[size] += f"; `stop` does not decide: {decision.trials[size]}"
    for name, against in decision.against.items():
        if against not in said[name]:
            said[name] += f"; {against}"
    return size, said
