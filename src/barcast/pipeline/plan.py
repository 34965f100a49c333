"""``barcast plan train``: from a config and the store to a plan, without training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from barcast.core.errors import UsageError
from barcast.core.progress import Progress, clock
from barcast.core.workspace import Workspace
from barcast.models.heads import head_of
from barcast.models.network import Sizes
from barcast.models.registry import model_entry
from barcast.pipeline.attributes import attributes_of, sizes_of, vocabularies
from barcast.pipeline.chosen import Sized
from barcast.pipeline.dataset import enough_history, make_target, resolve_features, teaching_rows
from barcast.pipeline.market import Market, held_out, load_market
from barcast.pipeline.settings import RunConfig
from barcast.pipeline.train import SCORED, remarks
from barcast.planning.machine import THIS, device_of
from barcast.planning.plan import Plan, make_plan
from barcast.planning.workload import Workload
from barcast.windows.index import cut_stretches, random_phases


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
    found = make_plan(work, target)
    return replace(found, notes=(*found.notes, *remarks(config), *still_to_compare(config.sized)))


def check_is_network(model: str) -> None:
    """Refuse models that the training loop does not train.

    Raises
    ------
    UsageError
        Naming what plans those.
    """
    kind = model_entry(model).kind
    if kind == "fleet":
        raise UsageError(
            f"only networks that all symbols share are planned: `{model}` fits a model for each symbol",
            f"barcast fleet {model.removeprefix('fleet-')} --dry-run",
        )
    if kind != "network":
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


def still_to_compare(sized: Sized | None, who: str = "`train`") -> tuple[str, ...]:
    """Say what a training, or ``who`` it is, does that a plan or a dry run of ``--size auto`` does not."""
    if sized is None or not sized.to_compare:
        return ()
    before = [name for name in sized.candidates if name not in sized.to_compare]
    done = f" ({', '.join(before)} before)" if before else ""
    return (
        f"this is the plan of {sized.size}: {who} first compares {', '.join(sized.to_compare)} on `stop`"
        f"{done}, half an epoch each, {clock(sized.trial_seconds)} in all, and takes the largest that it "
        "supports",
    )
