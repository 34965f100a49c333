"""Fitting one model to a dataset: table models at once, networks by the training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from barcast.core.arrays import F32, F64, I64, Bools
from barcast.core.progress import Progress, clock
from barcast.core.runs import RunFolder
from barcast.models.heads import PLAIN, Head, head_of
from barcast.models.registry import ModelEntry
from barcast.models.tabular import TabularModel, predict_rows
from barcast.pipeline.attributes import sizes_of
from barcast.pipeline.dataset import Dataset
from barcast.pipeline.members import open_member, share_back
from barcast.pipeline.settings import RunConfig

if TYPE_CHECKING:
    from torch import nn

    from barcast.models.network import Sizes
    from barcast.pipeline.fleet import FleetHow
    from barcast.pipeline.fleet_residual import Residual
    from barcast.pipeline.warm import WarmSource
    from barcast.training.config import TrainConfig
    from barcast.training.loop import FitResult
    from barcast.training.networks import TrainingData


@dataclass(frozen=True)
class Outcome:
    """A fitted model and how to use it.

    Attributes
    ----------
    predict : callable
        Rows (n,) to outputs (n, H * W).
    facts : dict
        Steps, best score and speed, for run.json.
    head : Head
        What the outputs of ``predict`` mean.
    """

    predict: Any
    facts: dict[str, Any]
    head: Head = PLAIN


def fit_model(
    entry: ModelEntry, config: RunConfig, dataset: Dataset, run: RunFolder, progress: Progress,
    *, parent: RunFolder | None = None, warm: WarmSource | None = None, profile: bool = False,
    fleet: FleetHow | None = None, residual: Residual | None = None,
) -> Outcome:  # fmt: skip
    """Fit a tabular model or a fleet, or train a network; with ``parent`` refit it, all that was chosen kept.

    ``warm`` is where a network's first weights come from, by default chance; ``fleet`` is what a fleet may
    take, and ``residual`` what it learns where that is not the target.
    """
    if entry.kind == "fleet":
        return _fit_fleet(config, dataset, run, progress, parent, fleet, residual)
    if entry.kind == "tabular":
        return _fit_tabular(entry, config, dataset, run, progress, parent)
    return _fit_network(entry, config, dataset, run, progress, parent, warm, profile=profile)


def _fit_tabular(
    entry: ModelEntry, config: RunConfig, dataset: Dataset, run: RunFolder, progress: Progress,
    parent: RunFolder | None,
) -> Outcome:  # fmt: skip
    from barcast.training.checkpoint import load_arrays, save_arrays

    model: TabularModel = entry.build(config.options, config.seed)
    rows = np.flatnonzero(dataset.teach)
    started = time.perf_counter()
    facts: dict[str, Any] = {}
    if parent is not None:
        model.load(load_arrays(parent.weights))
        model.refit(dataset.inputs, dataset.target, rows)
    else:
        stop = dataset.rows_to_judge("stop")
        judge = dataset.stop_score()
        stop_inputs = dataset.inputs[stop]
        tried = model.fit(
            dataset.inputs, dataset.target, rows, lambda predict: judge(stop, predict(stop_inputs))
        )
        finite = {name: score if np.isfinite(score) else None for name, score in tried.items()}
        best = max((score for score in finite.values() if score is not None), default=None)
        facts = {"best_score": best, "tried": finite}
    save_arrays(run.weights, model.state())
    facts["seconds"] = time.perf_counter() - started
    return Outcome(lambda wanted: predict_rows(model, dataset.inputs, wanted), facts)


def _fit_fleet(
    config: RunConfig, dataset: Dataset, run: RunFolder, progress: Progress, parent: RunFolder | None,
    how: FleetHow | None, residual: Residual | None,
) -> Outcome:  # fmt: skip
    from barcast.pipeline.fleet import fit_fleet
    from barcast.pipeline.fleet_takes import record_how, recorded_how

    how = how or recorded_how(parent or run)
    if parent is not None:
        how = how.of_a_refit()
    elif how.only is None:  # else it says nothing of the fleet as a whole
        record_how(run, how)
    learned = dataset if residual is None else residual.learned
    fitted = fit_fleet(config, learned, run, progress, how, parent)
    facts = fitted.facts
    predict: Callable[[I64], F64] = partial(fitted.predict, dataset)
    if residual is not None:
        predict = residual.conclude(run, predict)
    if parent is None:
        stop = dataset.rows_to_judge("stop")
        scores = predict(stop)
        served = np.isfinite(scores).all(axis=1)
        score = dataset.stop_score()(stop[served], scores[served])
        facts = {**facts, "best_score": score if np.isfinite(score) else None}
    return Outcome(predict, facts)


def _fit_network(
    entry: ModelEntry, config: RunConfig, dataset: Dataset, run: RunFolder, progress: Progress,
    parent: RunFolder | None, warm: WarmSource | None, *, profile: bool,
) -> Outcome:  # fmt: skip
    from barcast.training.predict import predict_windows

    head = head_of(dataset.target_name)
    options = loop_options(entry, config, dataset)
    # another attempt may find more room for shards, and must cut the same
    data = _on_device(dataset, options, run.recorded.get("shard_rows"))
    run.update(shard_rows=data.shard_rows)
    schooling = _Schooling(entry, config, dataset, head, data, options, progress, warm)
    steps = _refit_steps(parent, int(dataset.teach.sum()), config.num_seeds)
    if config.num_seeds == 1:
        network = schooling.fresh(config.seed)
        result = schooling.train(network, run, config.seed, steps[0], profile=profile)
        facts = _facts(result) | {"best_step": result.best_step}
    else:
        network, facts = schooling.train_members(run, steps, profile=profile)
    facts["num_parameters"] = sum(p.numel() for p in network.parameters())
    window = options.look_back_window
    return Outcome(
        lambda rows: predict_windows(network, data.panel, rows, window, progress=progress), facts, head
    )


def _refit_steps(parent: RunFolder | None, num_rows: int, num_seeds: int) -> list[int | None]:
    """Return how many steps each network of a refit takes; None of an evaluation, which finds out.

    As many passes over the labels as the evaluation found best: more labels, more steps.
    """
    if parent is None:
        return [None] * num_seeds
    info = parent.info
    share = num_rows / max(info["num_teaching_rows"], 1)
    return [max(round(each["best_step"] * share), 1) for each in info.get("members", [info])]


def _facts(result: FitResult) -> dict[str, Any]:
    return {
        "best_score": result.best_score if np.isfinite(result.best_score) else None,
        "steps": result.steps,
        "seconds": result.seconds,
        "labels_per_second": result.labels_per_second,
        "threads": result.threads,
    }


@dataclass(frozen=True)
class _Schooling:
    """What every network of a run is trained with; `_fit_network` is its only user."""

    entry: ModelEntry
    config: RunConfig
    dataset: Dataset
    head: Head
    data: TrainingData
    options: TrainConfig
    progress: Progress
    warm: WarmSource | None

    def fresh(self, seed: int, place: int = 0) -> nn.Module:
        """Return the network that training begins with: fresh, or warm from a source's network ``place``."""
        network = fresh_network(self.entry, self.config, self.dataset, self.head, self.options.device, seed)
        if self.warm is not None:
            self.warm.give(network, self.dataset, place)
        return network

    def judge(self, rows: I64, outputs: F32) -> float:
        """Return the score of outputs on `stop`."""
        return self.dataset.stop_score()(rows, self.head.scores(outputs))

    def train(
        self, network: nn.Module, folder: RunFolder, seed: int, steps: int | None, *, profile: bool
    ) -> FitResult:
        """Train one network in its folder, with all processes there are."""
        from barcast.diagnosis.profile import write_profile
        from barcast.training.distributed import Job, helped
        from barcast.training.loop import fit_network
        from barcast.training.networks import shuffled_by
        from barcast.training.sections import timer_for

        loss = self.head.loss or self.entry.loss
        assert loss is not None
        options = replace(self.options, seed=seed, num_seeds=1)
        data = shuffled_by(self.data, seed)
        timer = timer_for(options.device) if profile else None
        sizes = _sizes(self.dataset, self.head)
        job = Job(self.config.model, self.config.options, options, sizes, self.dataset.target_name, steps)
        with helped(job, data, folder):
            result = fit_network(
                network, data, options, loss, self.judge, folder, self.progress, steps=steps, sections=timer
            )
        if timer is not None:
            write_profile(folder, network, data, options, loss, timer, result.threads, self.progress)
        return result

    def train_members(
        self, run: RunFolder, steps: Sequence[int | None], *, profile: bool
    ) -> tuple[nn.Module, dict[str, Any]]:
        """Train one network a seed, one after the other, and return their mean; what is finished is found."""
        from barcast.models.ensemble import SeedEnsemble
        from barcast.training.checkpoint import save_tensors
        from barcast.training.predict import predict_stop

        networks: list[nn.Module] = []
        members: list[dict[str, Any]] = []
        results: list[FitResult] = []
        for place, wanted in enumerate(steps):
            seed = self.config.seed + place
            folder = open_member(run, seed, sum(result.steps for result in results))
            network = self.fresh(seed, place)
            with self.progress.about(f"seed {seed} ({place + 1} of {len(steps)}): "):
                result = self.train(network, folder, seed, wanted, profile=profile and not place)
                judged = (
                    f", best stop {result.best_score:.4f} at {result.best_step}" if wanted is None else ""
                )
                self.progress.note(f"{result.steps} steps{judged}, {clock(result.seconds)}")
            share_back(folder)
            networks.append(network.eval())
            results.append(result)
            members.append({"seed": seed, **_facts(result), "best_step": result.best_step})
            run.update(members=members)
        if profile:
            run.write(
                "profile.json", RunFolder(run.path / "members" / str(self.config.seed)).read("profile.json")
            )
        ensemble = SeedEnsemble(networks)
        save_tensors(run.weights, ensemble.state_dict(), {"seeds": [each["seed"] for each in members]})
        seconds = sum(result.seconds for result in results)
        labels = sum(result.labels_per_second * result.seconds for result in results)
        facts = {**_facts(results[-1]), "steps": sum(result.steps for result in results), "seconds": seconds,
                 "labels_per_second": labels / max(seconds, 1e-9), "members": members}  # fmt: skip
        if steps[0] is None:
            score = self.judge(*predict_stop(ensemble, self.data, self.options, results[-1].threads))
            facts["best_score"] = score if np.isfinite(score) else None
        return ensemble, facts


def _sizes(dataset: Dataset, head: Head) -> Sizes:
    from barcast.models.network import Sizes  # brings torch along

    num_outputs = head.width * dataset.target.shape[1]
    return Sizes(dataset.inputs.shape[1], len(dataset.vocabulary), num_outputs, sizes_of(dataset.attributes))


def network_and_data(
    entry: ModelEntry, config: RunConfig, dataset: Dataset, head: Head, *, shard_rows: int | None = None
) -> tuple[nn.Module, TrainingData, TrainConfig]:
    """Return fresh weights, what they learn from, both on the device, and the options that hold for them.

    A panel that does not fit comes in shards of ``shard_rows``, or as many as fit where None. Of an ensemble
    the network is the one of the first seed.
    """
    options = loop_options(entry, config, dataset)
    network = fresh_network(entry, config, dataset, head, options.device, config.seed)
    return network, _on_device(dataset, options, shard_rows), options


def fresh_network(
    entry: ModelEntry, config: RunConfig, dataset: Dataset, head: Head, device: str, seed: int
) -> nn.Module:
    """Return an untrained network of the dataset's shape on the device."""
    import torch

    from barcast.training.networks import build_network

    torch.manual_seed(seed)
    sizes = _sizes(dataset, head)
    return build_network(
        entry, config.options, sizes.num_inputs, sizes.num_symbols, sizes.num_horizons, device,
        sizes.attributes,
    )  # fmt: skip


def loop_options(entry: ModelEntry, config: RunConfig, dataset: Dataset) -> TrainConfig:
    """Return the options that hold for a run's networks: on this process's device, windows where need be."""
    from barcast.training.distributed import whole_team

    assert config.train is not None
    options = replace(config.train, device=whole_team().device(config.train.device))
    if dataset.features.window_normalised or not entry.supports_stretches:
        options = replace(options, stretch_length=1)
    return options


def check_fits(entry: ModelEntry, config: RunConfig, dataset: Dataset) -> None:
    """Refuse what cannot be trained, before there is a run that fails of it.

    Raises
    ------
    ResourceError
        When no history fits into the limit of the panel's memory, with the least that would do.
    UsageError
        On options of a fleet's symbols that make no sense.
    """
    if entry.kind == "fleet":
        from barcast.pipeline.fleet import check_options

        check_options(config, dataset)
    if config.train is None or not config.train.panel_memory_gib:
        return
    from barcast.training.networks import check_panel_memory

    nothing = np.zeros(len(dataset.market.bars), bool)
    check_panel_memory(host_data(dataset, nothing), loop_options(entry, config, dataset))


def _on_device(dataset: Dataset, options: TrainConfig, shard_rows: int | None) -> TrainingData:
    from barcast.training.networks import put_on_device

    stop = np.zeros(len(dataset.market.bars), bool)
    stop[dataset.rows_to_judge("stop")] = True
    return put_on_device(host_data(dataset, stop), options, shard_rows)


def host_data(dataset: Dataset, stop: Bools) -> TrainingData:
    """Return what a network learns from, in host memory; ``stop`` (R,) are the rows that judge it."""
    from barcast.training.networks import TrainingData, make_resident

    target = np.where(dataset.teach[:, None], dataset.target, np.nan).astype(np.float32)
    bars = dataset.market.bars
    host = make_resident(
        dataset.inputs, dataset.embedding[bars.symbol_of_row], bars.life_start, target, "cpu",
        anchored=dataset.features.window_normalised,
    )  # fmt: skip
    return TrainingData(host, bars.lives, dataset.teach, stop)
