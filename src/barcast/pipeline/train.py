"""``barcast train``: one model, from the store to weights, calibrated predictions and a comparison."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from barcast.core.atomic import write_text
from barcast.core.bars import MIN_SYMBOLS
from barcast.core.config import digest
from barcast.core.cores import available_cores
from barcast.core.errors import UsageError
from barcast.core.lock import writer_lock
from barcast.core.predictions import write_predictions
from barcast.core.progress import Progress, clock, count
from barcast.core.runs import RunFolder, run_folder, run_identity
from barcast.core.texts import counted
from barcast.core.workspace import Workspace
from barcast.features import FeatureSet
from barcast.models.registry import ROW_MODELS, ModelEntry, model_entry
from barcast.pipeline.attributes import Values, attributes_of, sizes_of, vocabularies
from barcast.pipeline.dataset import Dataset, build_dataset, resolve_features, run_features
from barcast.pipeline.fit import Outcome, check_fits, fit_model
from barcast.pipeline.fleet_engine import look_back_of
from barcast.pipeline.forecast import ScoreMap, fit_maps, prediction_rows
from barcast.pipeline.market import Market, as_of, load_market
from barcast.pipeline.record import (
    EXAMPLES,
    PROFILE,
    begin,
    check_known_by,
    finish,
    known_until,
    last_known,
    load_maps,
    save_state,
)
from barcast.pipeline.searched import check_search_knows_nothing_later, inherit_search, remember_search
from barcast.pipeline.settings import RunConfig, from_run, server_of
from barcast.pipeline.unfinished import check_done, failure_recorded
from barcast.pipeline.warm import WarmSource, source_of_refit, warm_source
from barcast.windows.index import own_bars

if TYPE_CHECKING:
    from barcast.pipeline.fleet import FleetHow
    from barcast.pipeline.fleet_residual import Residual

#: Segments whose rows go into the predictions table.
SCORED = ("weigh", "route", "test")


@dataclass(frozen=True)
class Prepared:
    """What a training begins with, and everything that it would refuse before it computes features.

    Attributes
    ----------
    config : RunConfig
        In one spelling (`in_one_spelling`), the warm start by its run's whole name.
    market : Market
    features : FeatureSet
    attributes : Values
    warm : WarmSource or None
    identity : str
        Id of the run that it is.
    """

    config: RunConfig
    market: Market
    features: FeatureSet
    attributes: Values
    warm: WarmSource | None
    identity: str


@dataclass(frozen=True)
class Trained:
    """What training gives back to the verbs.

    Attributes
    ----------
    run : RunFolder
    market : Market
        Kept so that the comparison needs no second reading.
    """

    run: RunFolder
    market: Market


def train(
    workspace: Workspace, config: RunConfig, *, fresh: bool = False, progress: Progress | None = None,
    market: Market | None = None, follow: Callable[[RunFolder], RunFolder] | None = None,
    profile: bool = False, fleet: FleetHow | None = None, extend: bool = True,
) -> Trained:  # fmt: skip
    """Train and evaluate one model by segments; a finished run is found again, one that was cut off goes on.

    Parameters
    ----------
    follow : callable, optional
        Is given the run's folder before anything is fitted, and returns the one that takes metrics.
    profile : bool
        Whether a network's training is measured, into profile.json; it shapes nothing.
    fleet : FleetHow, optional
        What a fleet may take, and who computes it; None: what the last call on it might.
    extend : bool
        Whether a finished fleet goes on with the symbols that a limit left out.

    Returns
    -------
    Trained
        The run, with weights, state and predictions on `weigh`, `route` and (sealed) `test`.
    """
    progress = progress or Progress(enabled=False)
    entry, started = model_entry(config.model), time.perf_counter()
    ready = prepare(workspace, config, progress=progress, market=market, fresh=fresh)
    config, market, features, warm = ready.config, ready.market, ready.features, ready.warm
    identity, run = ready.identity, run_folder(workspace, config.model, ready.identity)
    if run.is_done and not fresh and not (extend and _has_more_to_fit(entry, run)):
        progress.note(f"{run.name} is there already (use --fresh to train it again)")
        _remember_searches(run, config, warm)
        return Trained(run, market)
    _note_peculiarities(config, market, progress)
    progress.note(f"features `{features.name}` for {count(len(market.bars))} bars")
    dataset = build_dataset(
        market, workspace, features, tabular=entry.kind in ROW_MODELS, attributes=ready.attributes
    )
    check_fits(entry, config, dataset)
    with writer_lock(run.path), failure_recorded(run):
        run = begin(workspace, config, identity, dataset, fresh=fresh, **_told(warm, progress))
        _remember_searches(run, config, warm)
        prepared = time.perf_counter()
        progress.note(f"training {config.model} on {count(int(dataset.teach.sum()))} rows")
        watched = follow(run) if follow else run
        residual = _residual(workspace, run, config, dataset, progress)
        outcome = fit_model(
            entry, config, dataset, watched, progress, warm=warm, profile=profile, fleet=fleet,
            residual=residual,
        )  # fmt: skip
        trained = time.perf_counter() - (run.read(PROFILE)["profile_seconds"] if profile else 0.0)
        maps = _calibrate_and_predict(run, config, dataset, outcome, progress)
        save_state(run, dataset, maps)
        write_text(run.path / "quality.json", market.quality.to_json(max_findings=EXAMPLES))
        finish(
            run, dataset, outcome.facts, started, chosen_until=_chosen_until(dataset, warm, residual),
            prepare_seconds=round(prepared - started, 3), train_seconds=round(trained - prepared, 3),
        )  # fmt: skip
    progress.note(f"{run.name} done in {clock(time.perf_counter() - started)}")
    return Trained(run, market)


def _chosen_until(dataset: Dataset, *taken_over: WarmSource | Residual | None) -> str:
    """Return when the last label became known that taught, stopped or calibrated an evaluation."""
    used = np.concatenate([np.flatnonzero(dataset.teach), dataset.rows_to_judge("stop", "weigh")])
    return max([last_known(dataset, used), *(source.known_until for source in taken_over if source)])


def _has_more_to_fit(entry: ModelEntry, run: RunFolder, parent: RunFolder | None = None) -> bool:
    if entry.kind != "fleet":
        return False
    from barcast.pipeline.fleet import has_more_to_fit, is_behind

    return has_more_to_fit(run) if parent is None else is_behind(run, parent)


def prepare(
    workspace: Workspace, config: RunConfig, *, progress: Progress | None = None,
    market: Market | None = None, compare_widths: bool = True, fresh: bool = False,
) -> Prepared:  # fmt: skip
    """Read what a training begins with, and refuse what makes no sense before anything is computed.

    Parameters
    ----------
    compare_widths : bool
        Whether a fleet whose width `stop` is to choose compares widths; else it has the widest one.
    fresh : bool
        Whether a finished run is trained again, and so has to fit again.

    Raises
    ------
    UsageError
        On features, attributes or a look-back that the store does not have, or a warm start of another shape.
    RunError
        When a search or the warm start knows what is to judge the run.
    OutOfMemoryError
        When a network that is still to be trained is, alone, larger than the memory.
    """
    features, progress = (
        resolve_features(workspace, config.data.features),
        progress or Progress(enabled=False),
    )
    market = _checked_market(workspace, config, market, progress)
    config = in_one_spelling(config, market)
    config = _of_one_width(workspace, config, market, features, progress, compare=compare_widths)
    attributes = attributes_of(workspace, config, market)
    check_look_back(config, market)
    config, warm = _warmed(workspace, config, market, features)
    config = _leaning(workspace, config, market, progress)
    identity = identity_of(config.identity(), market, features, attributes, warm)
    if fresh or not run_folder(workspace, config.model, identity).is_done:
        _check_network_fits(config, market, features, attributes)
    return Prepared(config, market, features, attributes, warm, identity)


def _checked_market(
    workspace: Workspace, config: RunConfig, market: Market | None, progress: Progress
) -> Market:
    """Return the market, read where it is not given; refuse options that know what is to judge them."""
    if market is None:
        progress.note("reading the store, checking bars, making labels")
        market = load_market(workspace, config.data)
    if config.data.asof[:10] not in ("", market.cutoff[:10]):
        progress.note(f"as of {config.data.asof}: the last stored session up to then is {market.cutoff}")
    check_search_knows_nothing_later(config, market)
    return market


def _note_peculiarities(config: RunConfig, market: Market, progress: Progress) -> None:
    for remark in remarks(config):
        progress.note(remark)
    if market.left_out:
        found = ", ".join(f"{kind} {num:,}" for kind, num in market.left_out.items())
        progress.note(f"rows left out by the quality policy: {found}")
    if market.small_universe:
        progress.note(
            f"small universe (fewer than {MIN_SYMBOLS} symbols a session): features normalised on `fit`, "
            "target the return over trailing volatility, scores through time instead of RankIC"
        )


def check_look_back(config: RunConfig, market: Market) -> None:
    """Refuse windows that no symbol can fill: they cost memory and hold nothing but padding."""
    longest = int(own_bars(market.bars.life_start).max())
    if (asked := look_back_of(config)) > longest:
        raise UsageError(
            f"`look_back_window` is {asked}, but no symbol has more than {longest} bars",
            f"--look-back-window {min(longest, 60)}",
        )


def _check_network_fits(config: RunConfig, market: Market, features: FeatureSet, attributes: Values) -> None:
    """Refuse a network that is larger than the memory, before there is a run that fails of it."""
    if config.train is None:
        return
    from barcast.models.network import Sizes  # local: these two bring torch along
    from barcast.planning.room import check_room

    num_symbols = market.bars.num_symbols
    known = sizes_of(vocabularies(attributes, np.ones(num_symbols, bool)))
    sizes = Sizes(len(features.names) + 1, num_symbols, len(market.config.horizons), known)
    check_room(model_entry(config.model), config.options, sizes, config.train)


def remarks(config: RunConfig) -> tuple[str, ...]:
    """Say what is odd about options that are taken all the same: a run of another machine may ask for it."""
    threads, cores = config.train.threads if config.train else 0, available_cores()
    if threads <= cores:
        return ()
    return (f"{threads} threads take turns on {counted(cores, 'core')}; --threads 0 finds the fastest",)


def in_one_spelling(config: RunConfig, market: Market) -> RunConfig:
    """Return the config without what is a matter of typing: another spelling is the same run.

    Symbols are named as the store has them; the cutoff, part of the identity, says what ``asof`` did.
    """
    return replace(config, data=replace(config.data, symbols=market.config.symbols, asof=""))


def _warmed(
    workspace: Workspace, config: RunConfig, market: Market, features: FeatureSet
) -> tuple[RunConfig, WarmSource | None]:
    """Return where the first weights come from, and the config with that run's whole name."""
    warm = warm_source(workspace, config, market, features)
    if warm is None or config.train is None:
        return config, None
    return replace(config, train=replace(config.train, warm_start=warm.run)), warm


def _of_one_width(
    workspace: Workspace, config: RunConfig, market: Market, features: FeatureSet, progress: Progress, *,
    compare: bool,
) -> RunConfig:  # fmt: skip
    """Return the config of a fleet of networks with the width that `stop` chose, where none was named."""
    if model_entry(config.model).kind != "fleet":
        return config
    from barcast.pipeline.fleet_width import with_width  # local: networks bring torch along

    return with_width(workspace, config, market, features, progress, compare=compare)


def _leaning(workspace: Workspace, config: RunConfig, market: Market, progress: Progress) -> RunConfig:
    """Return the config of a fleet with the whole name of the run that it leans on; of others as it is."""
    if model_entry(config.model).kind != "fleet":
        return config
    from barcast.pipeline.fleet_universal import with_universal  # local: it compares, and so trains, itself

    return with_universal(workspace, config, market, progress)


def _residual(
    workspace: Workspace, run: RunFolder, config: RunConfig, dataset: Dataset, progress: Progress,
    **refitted: RunFolder | None,
) -> Residual | None:  # fmt: skip
    """Return what a residual fleet learns; of any other run None."""
    if model_entry(config.model).kind != "fleet":
        return None
    from barcast.pipeline.fleet_residual import residual_of  # local: as above

    return residual_of(workspace, run, config, dataset, progress, **refitted)


def _refitted_universal(
    workspace: Workspace, parent: RunFolder, asof: str, market: Market, progress: Progress
) -> RunFolder | None:
    """Return the refit of the run that a residual fleet leans on, made where it is not there yet."""
    if model_entry(str(parent.info["model"])).kind != "fleet":
        return None
    from barcast.pipeline.fleet_universal import recorded_universal  # local: as above

    universal = recorded_universal(workspace, parent)
    if universal is None:
        return None
    config = from_run(universal.run.read("config.json"))
    config = replace(config, data=as_of(config.data, asof))
    return refit(workspace, universal.run, config, progress=progress, market=market)


def _remember_searches(run: RunFolder, config: RunConfig, warm: WarmSource | None) -> None:
    """Write down the search that chose the options, and the one that chose the first weights."""
    remember_search(run, config)
    if warm is not None:
        inherit_search(run, warm.folder)


def _told(warm: WarmSource | None, progress: Progress) -> dict[str, Any]:
    """Return what run.json says of a warm start, and say it."""
    if warm is None:
        return {}
    progress.note(f"starting from the weights of {warm.run}")
    return {"warm_start": warm.plain()}


def identity_of(
    plain: dict[str, Any], market: Market, features: FeatureSet, attributes: Values, warm: WarmSource | None
) -> str:
    """Return a run's id: everything that shapes it, digested."""
    shaping = {**plain, "features_code": features.code_digest()}
    if attributes:
        shaping["attributes"] = digest(attributes)
    if warm is not None:
        shaping["warm_start"] = warm.digest
    return run_identity(shaping, market.cutoff, market.data_digest)


def _calibrate_and_predict(
    run: RunFolder, config: RunConfig, dataset: Dataset, outcome: Outcome, progress: Progress
) -> tuple[ScoreMap, ...]:
    market = dataset.market
    rows = dataset.rows_to_score(*SCORED)
    progress.note(f"predicting {count(len(rows))} rows of {', '.join(SCORED)}")
    started = time.perf_counter()
    outputs = np.asarray(outcome.predict(rows), np.float64)
    seconds = time.perf_counter() - started
    served = np.isfinite(outputs).all(axis=1)  # a fleet has no model for some symbols
    rows, outputs = rows[served], outputs[served]
    scores, quantiles = outcome.head.scores(outputs), outcome.head.quantiles(outputs)
    weigh = np.isin(rows, dataset.rows_to_judge("weigh"))
    own = None if quantiles is None else quantiles[weigh]
    maps = fit_maps(market, rows[weigh], scores[weigh], dataset.target_name, own)
    frame = prediction_rows(
        market, rows, scores, maps, run=run.name, model=config.row_name, seed=config.seed,
        route=server_of(config), quantiles=quantiles,
    )  # fmt: skip
    write_predictions(run.predictions, frame)
    run.update(predict_seconds=round(seconds, 3), num_predictions=len(frame))
    return maps


def refitted_market(
    workspace: Workspace, parent: RunFolder, config: RunConfig, market: Market | None = None
) -> Market:
    """Return the market that a refit learns from, read where it is not given.

    Raises
    ------
    RunError
        When the run that is refitted knows more than its last session.
    """
    market = market or load_market(workspace, config.data)
    check_known_by(workspace, parent, market.cutoff)
    return market


def refit(
    workspace: Workspace, parent: RunFolder, config: RunConfig, *, progress: Progress | None = None,
    market: Market | None = None, fresh: bool = False, fleet: FleetHow | None = None, extend: bool = True,
) -> RunFolder:  # fmt: skip
    """Refit a finished run on every known label.

    Steps, penalties and score maps stay as the evaluation chose them; so what chose them is known to the
    refit too. The new run carries no scores of its own: nothing is left that could judge it. Its evidence is
    the parent's. A fleet's refit that is there already gets what its evaluation gained since, unless
    ``extend`` is false; where ``fleet`` says nothing it may take what the evaluation might.

    Raises
    ------
    RunError
        When the parent is not finished, or knows more than the session that is to be the last.
    """
    check_done(parent)
    progress = progress or Progress(enabled=False)
    started = time.perf_counter()
    entry = model_entry(config.model)
    market = refitted_market(workspace, parent, config, market)
    universal = _refitted_universal(workspace, parent, config.data.asof, market, progress)
    config = in_one_spelling(config, market)
    features = run_features(parent, config.data.features)
    attributes = attributes_of(workspace, config, market)
    warm = source_of_refit(workspace, parent)
    plain = {**config.identity(), "final_of": parent.info["id"]}
    identity = identity_of(plain, market, features, attributes, warm)
    run = run_folder(workspace, f"{config.model}-final", identity)
    if run.is_done and not fresh and not (extend and _has_more_to_fit(entry, run, parent)):
        progress.note(f"{run.name} is there already")
        inherit_search(run, parent)
        return run
    dataset = build_dataset(
        market, workspace, features, tabular=entry.kind in ROW_MODELS, final=True, attributes=attributes
    )
    check_fits(entry, config, dataset)
    with writer_lock(run.path), failure_recorded(run):
        how = {"final": True, "parent": parent.name, **_told(warm, progress)}
        run = begin(workspace, config, identity, dataset, fresh=fresh, **how)
        inherit_search(run, parent)
        progress.note(f"refitting {config.model} on all {count(int(dataset.teach.sum()))} known labels")
        residual = _residual(workspace, run, config, dataset, progress, evaluated=parent, serving=universal)
        outcome = fit_model(
            entry, config, dataset, run, progress, parent=parent, warm=warm, fleet=fleet, residual=residual
        )
        save_state(run, dataset, load_maps(parent))
        finish(run, dataset, outcome.facts, started, chosen_until=known_until(parent))
    return run
