"""``barcast train``: one model, from the store to weights, calibrated predictions and a comparison."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from barcast.core.arrays import I64
from barcast.core.atomic import write_text
from barcast.core.bars import MIN_SYMBOLS
from barcast.core.config import from_plain, to_plain
from barcast.core.errors import RunError, UsageError
from barcast.core.predictions import write_predictions
from barcast.core.progress import Progress, clock, count
from barcast.core.runs import RunFolder, command_to_type, run_folder, run_identity, start_run
from barcast.core.texts import counted
from barcast.core.workspace import Workspace
from barcast.features import FeatureSet
from barcast.models.registry import ModelEntry, model_entry
from barcast.models.tabular import TabularModel
from barcast.pipeline.dataset import Dataset, build_dataset, resolve_features, run_features
from barcast.pipeline.forecast import ScoreMap, fit_score_map, prediction_rows
from barcast.pipeline.market import Market, load_market, segment_counts
from barcast.pipeline.settings import RunConfig
from barcast.pipeline.unfinished import failure_recorded
from barcast.store import MarketStore
from barcast.store.lock import writer_lock
from barcast.windows.index import MIN_BARS, own_bars

#: Segments whose rows go into the predictions table.
SCORED = ("weigh", "route", "test")
#: Findings of each kind that are saved with a run; their counts are whole.
EXAMPLES = 20


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
    market: Market | None = None,
) -> Trained:  # fmt: skip
    """Train and evaluate one model by segments; a finished run is found again, one that was cut off goes on.

    Returns
    -------
    Trained
        The run, with weights, state and predictions on `weigh`, `route` and (sealed) `test`.
    """
    progress = progress or Progress(enabled=False)
    entry = model_entry(config.model)
    started = time.perf_counter()
    features = resolve_features(workspace, config.data.features)
    if market is None:
        progress.note("reading the store, checking bars, making labels")
        market = load_market(workspace, config.data)
    if config.data.asof[:10] not in ("", market.cutoff[:10]):
        progress.note(f"as of {config.data.asof}: the last stored session up to then is {market.cutoff}")
    config = _in_one_spelling(config, market)
    identity = _identity(config.identity(), market, features)
    run = run_folder(workspace, config.model, identity)
    if run.is_done and not fresh:
        progress.note(f"{run.name} is there already (use --fresh to train it again)")
        return Trained(run, market)
    if market.left_out:
        found = ", ".join(f"{kind} {num:,}" for kind, num in market.left_out.items())
        progress.note(f"rows left out by the quality policy: {found}")
    if market.small_universe:
        progress.note(
            f"small universe (fewer than {MIN_SYMBOLS} symbols a session): features normalised on `fit`, "
            "target the return over trailing volatility, scores through time instead of RankIC"
        )
    _check_look_back(config, market)
    progress.note(f"features `{features.name}` for {count(len(market.bars))} bars")
    dataset = build_dataset(market, workspace, features, tabular=entry.kind == "tabular")
    with writer_lock(run.path), failure_recorded(run):
        run = begin(workspace, config, identity, dataset, fresh=fresh)
        prepared = time.perf_counter()
        progress.note(f"training {config.model} on {count(int(dataset.teach.sum()))} rows")
        outcome = fit_model(entry, config, dataset, run, progress)
        trained = time.perf_counter()
        maps = _calibrate_and_predict(run, config, dataset, outcome, progress)
        save_state(run, dataset, maps)
        write_text(run.path / "quality.json", market.quality.to_json(max_findings=EXAMPLES))
        times = {
            "prepare_seconds": round(prepared - started, 3),
            "train_seconds": round(trained - prepared, 3),
        }
        used = np.concatenate([np.flatnonzero(dataset.teach), dataset.rows_to_judge("stop", "weigh")])
        chosen_until = last_known(dataset, used)
        finish(run, dataset, outcome, started, chosen_until=chosen_until, **times)
    progress.note(f"{run.name} done in {clock(time.perf_counter() - started)}")
    return Trained(run, market)


def _check_look_back(config: RunConfig, market: Market) -> None:
    """Refuse windows that no symbol can fill: they cost memory and hold nothing but padding."""
    longest = int(own_bars(market.bars.life_start).max())
    if config.train is not None and (asked := config.train.look_back_window) > longest:
        raise UsageError(
            f"`look_back_window` is {asked}, but no symbol has more than {longest} bars",
            f"--look-back-window {min(longest, 60)}",
        )


def _in_one_spelling(config: RunConfig, market: Market) -> RunConfig:
    """Return the config without what is a matter of typing: another spelling is the same run.

    Symbols are named as the store has them; the cutoff, part of the identity, says what ``asof`` did.
    """
    return replace(config, data=replace(config.data, symbols=market.config.symbols, asof=""))


def _identity(plain: dict[str, Any], market: Market, features: FeatureSet) -> str:
    return run_identity({**plain, "features_code": features.code_digest()}, market.cutoff, market.data_digest)


def begin(
    workspace: Workspace, config: RunConfig, identity: str, dataset: Dataset, *, fresh: bool, **facts: Any
) -> RunFolder:
    """Make the run's folder, keep its store version, copy the source of user features."""
    kind = config.model if "parent" not in facts else f"{config.model}-final"
    if fresh:
        run_folder(workspace, kind, identity).checkpoint.unlink(missing_ok=True)
    known = {**market_facts(dataset.market), "features_code": dataset.features.code_digest(), **facts}
    run = start_run(workspace, kind, identity, config.plain(), {**known, "model": config.model})
    (run.path / "comparison.json").unlink(missing_ok=True)  # it was about the weights that go now
    MarketStore.open(workspace.market).cite(dataset.market.store_version, run.name)
    for file in dataset.features.files:
        write_text(run.path / "features" / file.path.name, file.text)
    return run


def market_facts(market: Market) -> dict[str, Any]:
    """Return what run.json says about the data."""
    bars = market.bars
    return {
        "store_version": market.store_version,
        "cutoff": market.cutoff,
        "data_key": market.data_key,
        "label_key": market.label_key,
        "data_digest": market.data_digest,
        "num_symbols": bars.num_symbols,
        "num_rows": len(bars),
        "num_sessions": len(bars.calendar),
        "small_universe": market.small_universe,
        "quality_policy": dict(market.policy.choices),
        "left_out": market.left_out,
        "segments": segment_counts(market),
    }


@dataclass(frozen=True)
class Outcome:
    """A fitted model and how to use it.

    Attributes
    ----------
    predict : callable
        Rows (n,) to scores (n, H).
    facts : dict
        Steps, best score and speed, for run.json.
    """

    predict: Any
    facts: dict[str, Any]


def fit_model(
    entry: ModelEntry, config: RunConfig, dataset: Dataset, run: RunFolder, progress: Progress,
    *, parent: RunFolder | None = None,
) -> Outcome:  # fmt: skip
    """Fit a tabular model or train a network; with ``parent`` refit it with everything chosen kept."""
    fit = _fit_tabular if entry.kind == "tabular" else _fit_network
    return fit(entry, config, dataset, run, progress, parent)


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
    return Outcome(lambda wanted: model.predict(dataset.inputs[wanted]), facts)


def _fit_network(
    entry: ModelEntry, config: RunConfig, dataset: Dataset, run: RunFolder, progress: Progress,
    parent: RunFolder | None,
) -> Outcome:  # fmt: skip
    import torch

    from barcast.training.loop import fit_network
    from barcast.training.networks import TrainingData, build_network, make_resident
    from barcast.training.predict import predict_windows

    options = config.train
    assert options is not None
    if dataset.features.window_normalised or not entry.supports_stretches:
        options = replace(options, stretch_length=1)
    torch.manual_seed(config.seed)
    network = build_network(entry, config.options, dataset.inputs.shape[1], len(dataset.vocabulary),
                            dataset.target.shape[1], options.device)  # fmt: skip
    target = np.where(dataset.teach[:, None], dataset.target, np.nan).astype(np.float32)
    bars = dataset.market.bars
    resident = make_resident(
        dataset.inputs, dataset.embedding[bars.symbol_of_row], bars.life_start, target,
        options.device, anchored=dataset.features.window_normalised,
    )  # fmt: skip
    stop = np.zeros(len(bars), bool)
    stop[dataset.rows_to_judge("stop")] = True
    steps = None
    if parent is not None:
        # As many passes over the labels as the evaluation found best: more labels, more steps.
        info, num_rows = parent.info, int(dataset.teach.sum())
        steps = max(round(info["best_step"] * num_rows / max(info["num_teaching_rows"], 1)), 1)
    assert entry.loss is not None
    data = TrainingData(resident, bars.lives, dataset.teach, stop)
    judge = dataset.stop_score()
    result = fit_network(network, data, options, entry.loss, judge, run, progress, steps=steps)
    facts = {
        "best_score": result.best_score if np.isfinite(result.best_score) else None,
        "best_step": result.best_step,
        "steps": result.steps,
        "seconds": result.seconds,
        "labels_per_second": result.labels_per_second,
        "threads": result.threads,
        "num_parameters": sum(p.numel() for p in network.parameters()),
    }
    window = options.look_back_window
    return Outcome(lambda rows: predict_windows(network, resident, rows, window, progress=progress), facts)


def _calibrate_and_predict(
    run: RunFolder, config: RunConfig, dataset: Dataset, outcome: Outcome, progress: Progress
) -> tuple[ScoreMap, ...]:
    market = dataset.market
    rows = dataset.rows_to_score(*SCORED)
    progress.note(f"predicting {count(len(rows))} rows of {', '.join(SCORED)}")
    started = time.perf_counter()
    scores = np.asarray(outcome.predict(rows), np.float64)
    seconds = time.perf_counter() - started
    weigh = np.isin(rows, dataset.rows_to_judge("weigh"))
    maps = tuple(
        fit_score_map(
            scores[weigh, h],
            market.labels.y[rows[weigh], h],
            market.volatility[rows[weigh]],
            market.bars.session[rows[weigh]],
            horizon,
        )
        for h, horizon in enumerate(market.labels.spec.horizons)
    )
    frame = prediction_rows(market, rows, scores, maps, run=run.name, model=config.model, seed=config.seed)
    write_predictions(run.predictions, frame)
    run.update(predict_seconds=round(seconds, 3), num_predictions=len(frame))
    return maps


def finish(
    run: RunFolder, dataset: Dataset, outcome: Outcome, started: float, *, chosen_until: str, **facts: Any
) -> None:
    """Write what is left and mark the run done; only then is the checkpoint of no more use.

    ``chosen_until`` says when the last label was known that stopped, chose or calibrated anything.
    """
    run.write("failures.json", failures(dataset))
    write_text(run.path / "card.md", model_card(run, dataset))
    taught_until = last_known(dataset, np.flatnonzero(dataset.teach))
    run.update(
        status="done",
        num_teaching_rows=int(dataset.teach.sum()),
        last_teaching_session=str(last_teaching_session(dataset)),
        taught_until=taught_until,
        chosen_until=max(taught_until, chosen_until),
        total_seconds=round(time.perf_counter() - started, 3),
        weights_bytes=run.weights.stat().st_size,
        **facts,
        **outcome.facts,
    )
    run.checkpoint.unlink(missing_ok=True)


def last_teaching_session(dataset: Dataset) -> np.datetime64:
    """Return the last decision session whose label taught."""
    bars = dataset.market.bars
    return np.datetime64(bars.calendar.times[bars.session[dataset.teach].max()])


def last_known(dataset: Dataset, rows: I64) -> str:
    """Return when the last label of the rows (n,) became known."""
    market = dataset.market
    return str(market.bars.calendar.times[market.labels.last_known_at[rows].max()])


def known_until(run: RunFolder) -> str:
    """Return when the last label became known that taught, stopped, chose or calibrated a finished run.

    Runs of versions that did not write it down used nothing beyond the end of `weigh`.
    """
    info = run.info
    if "chosen_until" in info:
        return str(info["chosen_until"])
    return max(str(info["taught_until"]), str(run.read("state.json")["segments"]["weigh"][1]))


def check_known_by(workspace: Workspace, run: RunFolder, asof: str) -> None:
    """Refuse to serve a session that a run knows more than.

    Raises
    ------
    RunError
        When a label that taught, stopped, chose or calibrated it became known after ``asof``.
    """
    known = known_until(run)
    if np.datetime64(known) > np.datetime64(asof):
        again = command_to_type(workspace, "train", run.info["model"], "--asof", asof, "--final")
        raise RunError(
            f"`{run.name}` was taught, chosen and calibrated by labels known until {known}: a forecast as of "
            f"{asof} would have seen its own outcome",
            f"train on what was known then: {again}",
        )


def save_state(run: RunFolder, dataset: Dataset, maps: tuple[ScoreMap, ...]) -> None:
    """Write what a prediction needs besides the weights."""
    scaler = dataset.scaler
    run.write(
        "state.json",
        {
            "universe": dataset.market.bars.symbols,
            "vocabulary": dataset.vocabulary,
            "features": dataset.features.names,
            "feature_set": dataset.features.name,
            "target": dataset.target_name,
            "small_universe": dataset.market.small_universe,
            "scaler": None if scaler is None else {"mean": scaler.mean.tolist(), "std": scaler.std.tolist()},
            "maps": to_plain(maps),
            "segments": {
                name: [str(dataset.market.bars.calendar.times[i]) for i in span]
                for name, span in dataset.market.plan.spans.items()
            },
        },
    )


def model_card(run: RunFolder, dataset: Dataset) -> str:
    """Return what a person should know before using this model, as Markdown."""
    market, info = dataset.market, run.info
    bars = market.bars
    spans = {
        name: f"{bars.calendar.times[first]} to {bars.calendar.times[last]}"
        for name, (first, last) in market.plan.spans.items()
    }
    step, symbol = "session" if bars.calendar.is_daily else "bar", f"{bars.market} symbol"
    lines = [
        f"# {run.name}",
        "",
        f"- model `{info['model']}`; command: `{info['command']}`",
        f"- data: {counted(bars.num_symbols, symbol)}, {len(bars):,} bars to {market.cutoff}, "
        f"store version {market.store_version}, digest `{market.data_digest}`",
        f"- features `{dataset.features.name}`, target `{dataset.target_name}`, entry after "
        f"{market.config.delay}, horizons {', '.join(map(str, market.config.horizons))} {step}s",
    ]
    parent = info.get("parent")
    if parent is None:
        lines += [f"- {name}: {span}" for name, span in spans.items()]
        lines.append("- scores: comparison.json and report.html; `test` is sealed until it is opened")
    else:
        lines.append(f"- refit on every known label; its evidence is that of its parent `{parent}`")
    if market.quality.survivors_only:
        lines.append("- survivors only: the data holds no symbol that was delisted, which flatters any score")
    lines.append("- a forecast is an expected log return with its standard deviation; it is not advice")
    return "\n".join(lines) + "\n"


def load_maps(run: RunFolder) -> tuple[ScoreMap, ...]:
    """Read a run's score maps."""
    return tuple(from_plain(ScoreMap, values, "state.maps") for values in run.read("state.json")["maps"])


def failures(dataset: Dataset) -> list[dict[str, str]]:
    """Return the symbols that this run could not serve, why, and what serves them instead."""
    bars = dataset.market.bars
    lengths = np.diff(bars.offsets)
    longest = np.zeros(bars.num_symbols, np.int64)
    np.maximum.at(longest, bars.symbol_of_row, own_bars(bars.life_start))
    reasons = dict(dataset.market.without_bars)
    for position, symbol in enumerate(bars.symbols):
        if not lengths[position]:
            reasons[symbol] = "no usable bar: all lie outside the calendar"
        elif longest[position] < MIN_BARS:
            found = f"{longest[position]} bars without a long hole"
            reasons[symbol] = f"short history: {found}, {MIN_BARS} are needed"
    return [
        {"symbol": symbol, "stage": "predict", "reason": reason, "fallback": "no prediction"}
        for symbol, reason in sorted(reasons.items())
    ]


def refit(
    workspace: Workspace, parent: RunFolder, config: RunConfig, *, progress: Progress | None = None,
    market: Market | None = None, fresh: bool = False,
) -> RunFolder:  # fmt: skip
    """Refit a finished run on every known label.

    Steps, penalties and score maps stay as the evaluation chose them; so what chose them is known to the
    refit too. The new run carries no scores of its
    own: nothing is left that could judge it. Its evidence is the parent's.

    Raises
    ------
    RunError
        When the parent is not finished, or knows more than the session that is to be the last.
    """
    if not parent.is_done:
        raise RunError(f"run `{parent.name}` is not finished", f"barcast train {config.model}")
    progress = progress or Progress(enabled=False)
    started = time.perf_counter()
    entry = model_entry(config.model)
    market = market or load_market(workspace, config.data)
    check_known_by(workspace, parent, market.cutoff)
    config = _in_one_spelling(config, market)
    features = run_features(parent, config.data.features)
    identity = _identity({**config.identity(), "final_of": parent.info["id"]}, market, features)
    run = run_folder(workspace, f"{config.model}-final", identity)
    if run.is_done and not fresh:
        progress.note(f"{run.name} is there already")
        return run
    dataset = build_dataset(market, workspace, features, tabular=entry.kind == "tabular", final=True)
    with writer_lock(run.path), failure_recorded(run):
        run = begin(workspace, config, identity, dataset, fresh=fresh, final=True, parent=parent.name)
        progress.note(f"refitting {config.model} on all {count(int(dataset.teach.sum()))} known labels")
        outcome = fit_model(entry, config, dataset, run, progress, parent=parent)
        save_state(run, dataset, load_maps(parent))
        finish(run, dataset, outcome, started, chosen_until=known_until(parent))
    return run
