"""``barcast adapt``: embeddings for symbols that a finished network never saw, all else as it was.

The result is a run of its own beside the one it was made from: its table has the new rows last, so that
every other symbol is forecast by the same bits; score maps, universe and evidence are those of that run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from barcast.core.arrays import I64, Bools
from barcast.core.config import to_plain
from barcast.core.errors import DataError, RunError, UsageError
from barcast.core.lock import writer_lock
from barcast.core.progress import Progress, clock
from barcast.core.runs import RunFolder, run_folder, run_identity
from barcast.core.workspace import Workspace
from barcast.models.heads import head_of
from barcast.models.registry import model_entry
from barcast.pipeline.attributes import attribute_values, identity_codes, sizes_of
from barcast.pipeline.dataset import (
    Dataset,
    embedding_index,
    enough_history,
    make_panel,
    make_target,
    normalised,
    run_features,
)
from barcast.pipeline.market import Market, as_of, load_market
from barcast.pipeline.predict import serving_run
from barcast.pipeline.record import begin, finish, known_until, last_known
from barcast.pipeline.searched import inherit_search
from barcast.pipeline.settings import RunConfig, from_run
from barcast.pipeline.unfinished import failure_recorded
from barcast.pipeline.warm import moved_weights, weights_digest
from barcast.store import MarketStore
from barcast.windows.normalise import FittedScaler

if TYPE_CHECKING:
    from torch import nn

    from barcast.training.adapt import Choice, RowFitter

#: Known labels that a new symbol must have to get a row of its own.
MIN_LABELS = 120
#: Share of each new symbol's labels, its last ones, that chooses the number of steps.
HELD_OUT = 0.2


@dataclass(frozen=True)
class Adaptation:
    """What adapting came to.

    Attributes
    ----------
    run : RunFolder or None
        The new run; None where nothing was written, because no number of steps helped.
    adapted_from : str
        The run whose table got the new rows: a refit, where there is one.
    symbols : dict of str to int
        New symbols that got a row, with their known labels.
    too_few : dict of str to int
        New symbols with fewer known labels than asked for.
    losses : dict of int to float
        Loss on the labels held out by number of steps; 0 is "unknown".
    steps : int
        Chosen number of steps; 0 where adapting did not help.
    sureness : float
        By how many of its standard errors the best loss is lower than that of "unknown".
    helps : bool
        Whether that is beyond chance.
    seconds : float
    """

    run: RunFolder | None
    adapted_from: str
    symbols: dict[str, int]
    too_few: dict[str, int]
    losses: dict[int, float]
    steps: int
    sureness: float
    helps: bool
    seconds: float

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        found: dict[str, Any] = to_plain(replace(self, run=None))
        return {**found, "run": self.run.name if self.run else None}


def adapt(
    workspace: Workspace,
    run: RunFolder,
    *,
    symbols: Sequence[str] = (),
    asof: str = "",
    min_labels: int = MIN_LABELS,
    anyway: bool = False,
    progress: Progress | None = None,
) -> Adaptation:
    """Give symbols that a finished run (or its refit) never saw an embedding of their own.

    Parameters
    ----------
    symbols : sequence of str
        In any spelling; empty means every symbol of the store that the run does not know.
    asof : str
        Last session that may be known; empty means the store's last.
    min_labels : int
        Known labels that a symbol must have.
    anyway : bool
        Write a run even where no number of steps beats "unknown" on the labels held out.

    Raises
    ------
    RunError
        When the run is not finished, has no symbol embedding, or knows what comes after ``asof``.
    DataError
        When no new symbol has enough known labels.
    """
    progress = progress or Progress(enabled=False)
    started = time.perf_counter()
    config = _config_with_identity(run)
    market = load_market(workspace, replace(as_of(config.data, asof), symbols=(), limit=0))
    base = serving_run(workspace, run, market.bars.calendar.times[-1])
    dataset = _dataset(workspace, base, config, market)
    wanted = MarketStore.open(workspace.market).resolve(symbols)
    enough, too_few = _new_symbols(base, dataset, wanted, min_labels)
    dataset = _with_rows_for(workspace, base, dataset, tuple(enough))
    asked = {"adapted_from": base.info["id"], "symbols": list(enough), "weights": weights_digest(base)}
    folder = run_folder(
        workspace, f"{config.model}-adapted", run_identity(asked, market.cutoff, market.data_digest)
    )
    if folder.is_done:
        progress.note(f"{folder.name} is there already")
        return _recorded(folder, base, too_few)
    progress.note(f"adapting {base.name} to {len(enough)} new symbols")
    fitter, choice, steps = _fit(base, config, dataset, len(enough), anyway)
    found = Adaptation(
        None, base.name, enough, too_few, choice.losses, steps, choice.sureness, choice.helps,
        time.perf_counter() - started,
    )  # fmt: skip
    if not steps:
        progress.note("no number of steps clearly beats the unknown identity on labels held out")
        return found
    with writer_lock(folder.path), failure_recorded(folder):
        folder = _write(workspace, folder.path.name.rpartition("-")[2], base, config, dataset, fitter, found)
    seconds = time.perf_counter() - started
    progress.note(f"{folder.name} done in {clock(seconds)}")
    return replace(found, run=folder, seconds=seconds)


def _config_with_identity(run: RunFolder) -> RunConfig:
    """Return the config of a run whose network has a row for each symbol; any other is refused."""
    config = from_run(run.read("config.json"))
    if not getattr(config.options, "stock_embedding_dim", 0):
        raise RunError(
            f"`{run.name}` has no symbol embedding: a {config.model} without identity",
            "choose a network that was trained with --stock-embedding-dim above 0: barcast runs",
        )
    return config


def _recorded(folder: RunFolder, base: RunFolder, too_few: dict[str, int]) -> Adaptation:
    told = folder.info["adapted"]
    losses = {int(steps): loss for steps, loss in told.pop("losses").items()}
    seconds = folder.info["total_seconds"]
    return Adaptation(folder, base.name, too_few=too_few, losses=losses, seconds=seconds, **told)


def _dataset(workspace: Workspace, base: RunFolder, config: RunConfig, market: Market) -> Dataset:
    """Return every row of the store as the run reads it, by its own features, scaler and universe."""
    state = base.read("state.json")
    features = run_features(base, state["feature_set"])
    panel = make_panel(market.bars, features, workspace, market.data_digest)
    scaler = state["scaler"]
    fitted = None if scaler is None else FittedScaler(np.array(scaler["mean"]), np.array(scaler["std"]))
    universe = np.isin(np.array(market.bars.symbols), np.array(state["universe"]))
    target, name = make_target(replace(market, small_universe=state["small_universe"]))
    teach = market.labels.known.any(axis=1) & enough_history(market) & np.isfinite(target).any(axis=1)
    return Dataset(
        market=market,
        features=features,
        inputs=normalised(panel, market.bars, features, fitted, universe),
        target=target,
        target_name=name,
        vocabulary=tuple(state["vocabulary"]),
        embedding=embedding_index(market.bars.symbols, tuple(state["vocabulary"])),
        scaler=fitted,
        teach=teach,
        attributes={name: tuple(values) for name, values in state.get("attributes", {}).items()},
    )


def _new_symbols(
    base: RunFolder, dataset: Dataset, wanted: Sequence[str], min_labels: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the symbols without a row that have enough known labels, and the others, with their numbers."""
    bars, known = dataset.market.bars, set(dataset.vocabulary)
    if old := [symbol for symbol in wanted if symbol in known]:
        raise UsageError(
            f"`{base.name}` knows {', '.join(old[:3])} already", "name symbols that it never saw"
        )
    counts = np.bincount(bars.symbol_of_row[dataset.teach], minlength=bars.num_symbols)
    numbers = dict(zip(bars.symbols, counts.tolist(), strict=True))
    new = {name: numbers.get(name, 0) for name in sorted(wanted or set(numbers) - known)}
    enough = {name: number for name, number in new.items() if number >= min_labels}
    if not enough:
        most = f"; the most are {max(new.values())}" if new else ""
        raise DataError(
            f"no symbol that `{base.name}` does not know has {min_labels} known labels{most}",
            "wait for more sessions, or --min-labels; until then they are forecast with an unknown identity",
        )
    return enough, {name: number for name, number in new.items() if name not in enough}


def _with_rows_for(workspace: Workspace, base: RunFolder, dataset: Dataset, new: tuple[str, ...]) -> Dataset:
    """Return the dataset with the new symbols last in the vocabulary, taught by their labels alone."""
    bars, vocabulary = dataset.market.bars, (*dataset.vocabulary, *new)
    values = attribute_values(MarketStore.open(workspace.market), tuple(dataset.attributes), bars.symbols)
    own = embedding_index(bars.symbols, vocabulary)
    theirs = (own > len(dataset.vocabulary))[bars.symbol_of_row]
    return replace(
        dataset,
        vocabulary=vocabulary,
        embedding=identity_codes(own, values, dataset.attributes),
        teach=dataset.teach & theirs,
    )


def held_out_labels(dataset: Dataset) -> tuple[Bools, Bools]:
    """Return the rows (R,) that teach and those held out: the last fifth of each symbol's labels.

    A label that is known only after the symbol's first row held out serves neither.
    """
    bars = dataset.market.bars
    early, late = np.zeros(len(bars), bool), np.zeros(len(bars), bool)
    for rows in _rows_of_each(dataset):
        held = rows[len(rows) - int(np.ceil(HELD_OUT * len(rows))) :]
        before = rows[: len(rows) - len(held)]
        known = dataset.market.labels.last_known_at[before] <= bars.session[held[0]]
        early[before[known]], late[held] = True, True
    return early, late


def _rows_of_each(dataset: Dataset) -> list[I64]:
    rows = np.flatnonzero(dataset.teach)
    borders = np.flatnonzero(np.diff(dataset.market.bars.symbol_of_row[rows])) + 1
    return np.split(rows, borders)


def _fit(
    base: RunFolder, config: RunConfig, dataset: Dataset, num_new: int, anyway: bool
) -> tuple[RowFitter, Choice, int]:
    """Choose the number of steps on labels held out, then fit on all labels; 0 leaves the rows "unknown"."""
    from barcast.pipeline.fit import host_data, loop_options
    from barcast.training.adapt import RowFitter, choose_steps

    entry, head = model_entry(config.model), head_of(dataset.target_name)
    assert config.train is not None and entry.loss is not None
    on_cpu = replace(config, train=replace(config.train, device="cpu"))
    options = loop_options(entry, on_cpu, dataset)
    early, late = held_out_labels(dataset)
    fitter = RowFitter(
        _grown(base, config, dataset), options, head.loss or entry.loss, num_new, max(config.data.horizons)
    )
    bars = dataset.market.bars
    block = (bars.session // (fitter.overlap)).astype(np.int64)
    choice = choose_steps(fitter, host_data(replace(dataset, teach=early), late), dataset.target, block)
    steps = choice.best if choice.helps or anyway else 0
    if steps:
        fitter.fit(host_data(dataset, late), steps)
    return fitter, choice, steps


def _grown(base: RunFolder, config: RunConfig, dataset: Dataset) -> nn.Module:
    """Return the run's network with a row for each new symbol, "unknown" so far."""
    from barcast.models.network import Sizes
    from barcast.training.checkpoint import load_tensors
    from barcast.training.networks import build_networks

    num_outputs = len(config.data.horizons) * head_of(dataset.target_name).width
    sizes = Sizes(dataset.inputs.shape[1], len(dataset.vocabulary), num_outputs, sizes_of(dataset.attributes))
    network = build_networks(model_entry(config.model), config.options, sizes, config.num_seeds)
    tensors = load_tensors(base.weights)[0]
    state = base.read("state.json")
    network.load_state_dict(moved_weights(tensors, state, dataset.vocabulary, dataset.attributes))
    return network


def _write(
    workspace: Workspace, identity: str, base: RunFolder, config: RunConfig, dataset: Dataset,
    fitter: RowFitter, found: Adaptation,
) -> RunFolder:  # fmt: skip
    """Write the new run; what it knows is what the other one knew, and the new symbols' labels."""
    from barcast.training.checkpoint import save_tensors

    evaluated = str(base.info.get("parent", base.name))
    how = {"final": True, "parent": evaluated, "adapted_from": base.name}
    run = begin(workspace, config, identity, dataset, fresh=False, **how)
    inherit_search(run, base)
    save_tensors(run.weights, fitter.network.state_dict(), {"steps": found.steps})
    state = base.read("state.json")
    own = [*state.get("adapted", []), *found.symbols]
    run.write("state.json", {**state, "vocabulary": dataset.vocabulary, "adapted": own})
    taught = last_known(dataset, np.flatnonzero(dataset.teach))
    told = {name: getattr(found, name) for name in ("symbols", "losses", "steps", "sureness", "helps")}
    finish(
        run, dataset, {"adapted": told},
        time.perf_counter() - found.seconds, chosen_until=max(known_until(base), taught),
        taught_before=str(base.info["taught_until"]),
    )  # fmt: skip
    return run
