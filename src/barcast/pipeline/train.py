"""``barcast train``: one model, from the store to weights, calibrated predictions and a comparison."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from barcast.core.atomic import write_text
from barcast.core.config import from_plain, to_plain
from barcast.core.errors import RunError
from barcast.core.predictions import SEGMENTS, write_predictions
from barcast.core.progress import Progress, clock, count
from barcast.core.runs import RunFolder, run_identity, start_run
from barcast.core.workspace import Workspace
from barcast.models.registry import ModelEntry, model_entry
from barcast.pipeline.dataset import Dataset, build_dataset, resolve_features
from barcast.pipeline.forecast import ScoreMap, fit_score_map, prediction_rows
from barcast.pipeline.market import Market, load_market
from barcast.pipeline.settings import RunConfig
from barcast.store import MarketStore
from barcast.windows.index import own_bars

#: Segments whose rows go into the predictions table.
SCORED = ("weigh", "route", "test")


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
    progress.note("reading the store, checking bars, making labels")
    market = market or load_market(workspace, config.data)
    resolve_features(workspace, config.data.features)  # a name that is not known must leave no run behind
    run = _open(workspace, config, market)
    MarketStore.open(workspace.market).cite(market.store_version, run.name)
    if run.is_done and not fresh:
        progress.note(f"{run.name} is there already (use --fresh to train it again)")
        return Trained(run, market)
    if fresh:
        run.checkpoint.unlink(missing_ok=True)
        run.update(status="running")
    if market.small_universe:
        progress.note(
            "small universe (fewer than 30 symbols a session): features normalised on `fit`, target the "
            "return over trailing volatility, scores through time instead of RankIC"
        )
    progress.note(f"features `{config.data.features}` for {count(len(market.bars))} bars")
    dataset = build_dataset(market, workspace, tabular=entry.kind == "tabular")
    prepared = time.perf_counter()
    teach = dataset.teaching_rows()
    progress.note(f"training {config.model} on {count(int(teach.sum()))} rows")
    outcome = fit_model(entry, config, dataset, teach, run, progress)
    trained = time.perf_counter()
    maps = _calibrate_and_predict(run, config, dataset, outcome, progress)
    _finish(run, dataset, outcome, maps, teach, (started, prepared, trained, time.perf_counter()))
    progress.note(f"{run.name} done in {clock(time.perf_counter() - started)}")
    return Trained(run, market)


def _open(workspace: Workspace, config: RunConfig, market: Market) -> RunFolder:
    identity = run_identity(config.plain(), market.cutoff, market.data_digest)
    return start_run(workspace, config.model, identity, config.plain(), market_facts(market))


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
    entry: ModelEntry, config: RunConfig, dataset: Dataset, teach: np.ndarray, run: RunFolder,
    progress: Progress, *, parent: RunFolder | None = None,
) -> Outcome:  # fmt: skip
    """Fit a tabular model or train a network; with ``parent`` refit it with everything chosen kept."""
    fit = _fit_tabular if entry.kind == "tabular" else _fit_network
    return fit(entry, config, dataset, teach, run, progress, parent)


def _fit_tabular(
    entry: ModelEntry, config: RunConfig, dataset: Dataset, teach: np.ndarray, run: RunFolder,
    progress: Progress, parent: RunFolder | None,
) -> Outcome:  # fmt: skip
    from barcast.training.checkpoint import load_arrays, save_arrays

    model = entry.build(config.options, config.seed)
    rows = np.flatnonzero(teach)
    started = time.perf_counter()
    facts: dict[str, Any] = {}
    if parent is not None:
        model.load(load_arrays(parent.weights))
        model.refit(dataset.inputs, dataset.target, rows)
    else:
        stop = dataset.rows_to_score("stop")
        judge = dataset.stop_score()
        stop_inputs = dataset.inputs[stop]
        tried = model.fit(
            dataset.inputs, dataset.target, rows, lambda predict: judge(stop, predict(stop_inputs))
        )
        facts = {"best_score": max(tried.values()), "tried": tried}
    save_arrays(run.weights, model.state())
    facts["seconds"] = time.perf_counter() - started
    return Outcome(lambda wanted: model.predict(dataset.inputs[wanted]), facts)


def _fit_network(
    entry: ModelEntry, config: RunConfig, dataset: Dataset, teach: np.ndarray, run: RunFolder,
    progress: Progress, parent: RunFolder | None,
) -> Outcome:  # fmt: skip
    import torch

    from barcast.training.loop import TrainingData, fit_network, predict_windows
    from barcast.training.networks import build_network, make_resident

    options = config.train
    if dataset.features.window_normalised or not entry.supports_stretches:
        options = replace(options, stretch_length=1)
    torch.manual_seed(config.seed)
    network = build_network(entry, config.options, dataset.inputs.shape[1], len(dataset.vocabulary),
                            dataset.target.shape[1], options.device)  # fmt: skip
    target = np.where(teach[:, None], dataset.target, np.nan).astype(np.float32)
    bars = dataset.market.bars
    resident = make_resident(
        dataset.inputs, dataset.embedding[bars.symbol_of_row], bars.life_start, target,
        options.device, anchored=dataset.features.window_normalised,
    )  # fmt: skip
    stop = np.zeros(len(bars), bool)
    stop[dataset.rows_to_score("stop")] = True
    steps = None
    if parent is not None:
        info = parent.info
        steps = max(round(info["best_step"] * int(teach.sum()) / max(info["num_teaching_rows"], 1)), 1)
    assert entry.loss is not None
    result = fit_network(
        network, TrainingData(resident, bars.lives, teach, stop), options, entry.loss, dataset.stop_score(),
        run, progress, steps=steps,
    )  # fmt: skip
    facts = {
        "best_score": result.best_score if np.isfinite(result.best_score) else None,
        "best_step": result.best_step,
        "steps": result.steps,
        "seconds": result.seconds,
        "labels_per_second": result.labels_per_second,
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
    weigh = market.segment[rows] == SEGMENTS.index("weigh")
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


def _finish(
    run: RunFolder, dataset: Dataset, outcome: Outcome, maps: tuple[ScoreMap, ...], teach: np.ndarray,
    marks: tuple[float, float, float, float],
) -> None:  # fmt: skip
    save_state(run, dataset, maps)
    write_text(run.path / "quality.json", dataset.market.quality.to_json())
    run.write("failures.json", failures(dataset))
    write_text(run.path / "card.md", model_card(run, dataset))
    started, prepared, trained, done = marks
    run.update(
        status="done",
        num_teaching_rows=int(teach.sum()),
        last_teaching_session=str(last_teaching_session(dataset, teach)),
        prepare_seconds=round(prepared - started, 3),
        train_seconds=round(trained - prepared, 3),
        total_seconds=round(done - started, 3),
        weights_bytes=run.weights.stat().st_size,
        **outcome.facts,
    )


def last_teaching_session(dataset: Dataset, teach: np.ndarray) -> np.datetime64:
    """Return the last decision session whose label taught."""
    bars = dataset.market.bars
    return np.datetime64(bars.calendar.times[bars.session[teach].max()])


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


def model_card(run: RunFolder, dataset: Dataset, parent: RunFolder | None = None) -> str:
    """Return what a person should know before using this model, as Markdown."""
    market, info = dataset.market, run.info
    bars = market.bars
    spans = {
        name: f"{bars.calendar.times[first]} to {bars.calendar.times[last]}"
        for name, (first, last) in market.plan.spans.items()
    }
    lines = [
        f"# {run.name}",
        "",
        f"- model `{info['model']}`; command: `{info['command']}`",
        f"- data: {bars.num_symbols} {bars.market} symbols, {len(bars)} bars to {market.cutoff}, "
        f"store version {market.store_version}, digest `{market.data_digest}`",
        f"- features `{dataset.features.name}`, target `{dataset.target_name}`, entry after "
        f"{market.config.delay}, horizons {', '.join(map(str, market.config.horizons))} sessions",
    ]
    if parent is None:
        lines += [f"- {name}: {span}" for name, span in spans.items()]
        lines.append("- scores: comparison.json and report.html; `test` is sealed until it is opened")
    else:
        lines.append(f"- refit on every known label; its evidence is that of its parent `{parent.name}`")
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
    table = []
    lengths = np.diff(bars.offsets)
    longest = np.zeros(bars.num_symbols, np.int64)
    np.maximum.at(longest, bars.symbol_of_row, own_bars(bars.life_start))
    for position, symbol in enumerate(bars.symbols):
        if not lengths[position]:
            reason = "no usable bar: all were masked or lie outside the calendar"
        elif longest[position] < 20:
            reason = f"short history: {longest[position]} bars without a long hole, 20 are needed"
        else:
            continue
        table.append({"symbol": symbol, "stage": "predict", "reason": reason, "fallback": "no prediction"})
    return table


def refit(
    workspace: Workspace, parent: RunFolder, config: RunConfig, *, progress: Progress | None = None,
    market: Market | None = None, fresh: bool = False,
) -> RunFolder:  # fmt: skip
    """Refit a finished run on every known label.

    Steps, penalties and score maps stay as the evaluation chose them. The new run carries no scores of its
    own: nothing is left that could judge it. Its evidence is the parent's.

    Raises
    ------
    RunError
        When the parent is not finished.
    """
    if not parent.is_done:
        raise RunError(f"run `{parent.name}` is not finished", f"barcast train {config.model}")
    progress = progress or Progress(enabled=False)
    started = time.perf_counter()
    entry = model_entry(config.model)
    market = market or load_market(workspace, config.data)
    plain = {**config.plain(), "final_of": parent.info["id"]}
    identity = run_identity(plain, market.cutoff, market.data_digest)
    facts = {**market_facts(market), "final": True, "parent": parent.name}
    run = start_run(workspace, f"{config.model}-final", identity, config.plain(), facts)
    if run.is_done and not fresh:
        progress.note(f"{run.name} is there already")
        return run
    dataset = build_dataset(market, workspace, tabular=entry.kind == "tabular")
    teach = dataset.teaching_rows(final=True)
    progress.note(f"refitting {config.model} on all {count(int(teach.sum()))} known labels")
    outcome = fit_model(entry, config, dataset, teach, run, progress, parent=parent)
    save_state(run, dataset, load_maps(parent))
    run.write("failures.json", failures(dataset))
    write_text(run.path / "card.md", model_card(run, dataset, parent))
    run.update(
        status="done",
        num_teaching_rows=int(teach.sum()),
        last_teaching_session=str(last_teaching_session(dataset, teach)),
        total_seconds=round(time.perf_counter() - started, 3),
        weights_bytes=run.weights.stat().st_size,
        **outcome.facts,
    )
    return run
