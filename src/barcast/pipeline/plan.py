"""``barcast plan train`` and ``--size auto``: from a config and the store to a plan, without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from barcast.core.errors import ResourceError, UsageError
from barcast.core.progress import Progress, clock, count
from barcast.core.workspace import Workspace
from barcast.models.heads import head_of
from barcast.models.network import Sizes
from barcast.models.registry import ModelEntry, model_entry
from barcast.pipeline.attributes import attributes_of, sizes_of, vocabularies
from barcast.pipeline.dataset import enough_history, make_target, resolve_features, teaching_rows
from barcast.pipeline.market import Market, held_out, load_market
from barcast.pipeline.settings import RunConfig, resolve
from barcast.pipeline.train import SCORED
from barcast.planning.machine import THIS, device_of
from barcast.planning.network import beside_embeddings
from barcast.planning.plan import Plan, make_plan
from barcast.planning.rules import independent_labels
from barcast.planning.workload import Workload
from barcast.windows.index import cut_stretches, random_phases

#: The network without any preset.
DEFAULT = "default"
#: Minutes that a run may take where ``--size auto`` chooses.
TIME_BUDGET = 120.0


def plan_train(
    workspace: Workspace, config: RunConfig, *, target: str = THIS, progress: Progress | None = None
) -> Plan:
    """Plan a training: read the market as a dry run does, measure a few steps, put it together.

    Parameters
    ----------
    target : str
        ``this`` machine, or a GPU of the table in `planning.machine`.

    Raises
    ------
    UsageError
        For a model that the loop does not train, or an unknown target.
    ResourceError
        When not even a small step could be measured.
    """
    progress = progress or Progress(enabled=False)
    device_of(target)
    check_is_network(config.model)
    progress.note("reading the store, checking bars, making labels")
    work = workload(workspace, config, load_market(workspace, config.data))
    progress.note(f"measuring a few steps of {work.model} on rows of the right shape")
    return make_plan(work, target)


def check_is_network(model: str) -> None:
    """Refuse models that the training loop does not train.

    Raises
    ------
    UsageError
        Naming what plans those.
    """
    if model_entry(model).kind != "network":
        raise UsageError(
            f"only networks are planned: `{model}` sees one row at a time and trains in seconds",
            f"barcast train {model} --dry-run",
        )


def workload(workspace: Workspace, config: RunConfig, market: Market) -> Workload:
    """Count what a training of this config on this market would do."""
    entry, train, bars = model_entry(config.model), config.train, market.bars
    assert train is not None
    features = resolve_features(workspace, config.data.features)
    if features.window_normalised or not entry.supports_stretches:
        train = replace(train, stretch_length=1)
    target, target_name = make_target(market)
    num_outputs = head_of(target_name).width * target.shape[1]
    teach = teaching_rows(market, target)
    held = held_out(bars.symbols, config.data.hold_out_fold)[bars.symbol_of_row]
    long_enough = enough_history(market)
    stop = market.rows_of("stop") & long_enough & ~held
    taught = np.isin(np.arange(bars.num_symbols), bars.symbol_of_row[teach])
    known = vocabularies(attributes_of(workspace, config, market), taught)
    length = train.stretch_length
    phases = random_phases(len(bars.lives) - 1, length, seed=config.seed, epoch=0)
    return Workload(
        model=config.model,
        options=config.options,
        train=train,
        sizes=Sizes(len(features.names) + 1, int(taught.sum()), num_outputs, sizes_of(known)),
        num_rows=len(bars),
        num_sessions=len(bars.calendar),
        num_symbols=bars.num_symbols,
        life_lengths=tuple(int(each) for each in np.diff(bars.lives)),
        num_labels=int(np.isfinite(target[teach]).sum()),
        num_teaching_rows=int(teach.sum()),
        num_pieces=int(teach.sum()) if length == 1 else len(cut_stretches(bars.lives, teach, length, phases)),
        num_stop_pieces=int(stop.sum()) if length == 1 else len(cut_stretches(bars.lives, stop, length)),
        num_scored_rows=int((market.rows_of(*SCORED) & long_enough).sum()),
        anchored=features.window_normalised,
        target=target_name,
    )


@dataclass(frozen=True)
class ChosenSize:
    """What ``--size auto`` came to.

    Attributes
    ----------
    size : str
        A preset, or ``default`` for the network without one.
    options : mapping
        What the size stands for.
    reasons : tuple of str
        One line a size that was looked at, largest first.
    """

    size: str
    options: Mapping[str, Any]
    reasons: tuple[str, ...]


def choose_size(
    workspace: Workspace, model: str, flags: Mapping[str, Any], file: Path | None = None,
    *, minutes: float | None = None, progress: Progress | None = None,
    planned: Callable[[Workload], Plan] = make_plan,
) -> ChosenSize:  # fmt: skip
    """Choose the largest preset that the labels support, that fits, and whose run stays in the time budget.

    What the labels support is a rule, not a search: no more parameters beside embeddings than independent
    labels. It needs no step; only sizes that it allows are measured.

    Parameters
    ----------
    flags : mapping
        Options of the run without its size; those that name a width or depth win over any preset.
    minutes : float, optional
        The budget, 120 by default.

    Raises
    ------
    ResourceError
        When not even the network without a preset fits into memory.
    """
    check_is_network(model)
    minutes = TIME_BUDGET if minutes is None else minutes
    if not minutes > 0:
        raise UsageError(f"`time_budget` must be positive, got {minutes}", "--time-budget 120")
    progress = progress or Progress(enabled=False)
    entry = model_entry(model)
    sizes: dict[str, Mapping[str, Any]] = {DEFAULT: {}, **entry.sizes}
    configs = {
        name: resolve(workspace, model, {**flags, "size": None if name == DEFAULT else name}, file)
        for name in sizes
    }
    base = configs[DEFAULT]
    progress.note("--size auto: reading the store to see what its labels support")
    work = workload(workspace, base, load_market(workspace, base.data))
    supported = independent_labels(work.num_teaching_rows, base.data.horizons)
    reasons: list[str] = []
    for name in reversed(sizes):
        refused = _refusal(
            entry, replace(work, options=configs[name].options), supported, minutes, planned, name
        )
        reasons.append(f"{name}: {refused or 'the largest that does'}")
        progress.note(f"--size auto: {reasons[-1]}")
        if not refused:
            return ChosenSize(name, sizes[name], tuple(reasons))
    raise ResourceError(
        f"no size of `{model}` fits this machine: {reasons[-1]}",
        "a smaller --batch-size, --look-back-window or --limit; `barcast plan train` says what takes it",
    )


def _refusal(
    entry: ModelEntry, work: Workload, supported: int, minutes: float, planned: Callable[[Workload], Plan],
    name: str,
) -> str:  # fmt: skip
    """Say why a size will not do; empty where it does. The smallest is refused by memory only."""
    shared = beside_embeddings(entry, work.options, work.sizes)
    if name != DEFAULT and shared > supported:
        return f"{count(shared)} parameters beside embeddings, {count(supported)} independent labels"
    plan = planned(work)
    if not plan.fits:
        short = plan.host if plan.host.fits is False or plan.device is None else plan.device
        there = gib(short.available or 0)
        return f"needs {gib(short.peak)} of memory, {there} are available, a tenth stays free"
    if name != DEFAULT and plan.run_seconds > 60 * minutes:
        return f"a run would take {clock(plan.run_seconds)}, the budget is {clock(60 * minutes)}"
    return ""


def gib(size: float) -> str:
    """Write a size for people."""
    return f"{size / 2**30:.2f} GiB"
