"""``barcast predict``: the next sessions' forecast for every symbol, from a finished run.

Only the rows that the answer depends on are computed: the look-back of every symbol's last bar and the
features' warm-up before it. That cut history gives the same values as the whole one is what the audit checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I64, Bools
from barcast.core.atomic import atomic_path
from barcast.core.bars import Bars
from barcast.core.errors import RunError
from barcast.core.predictions import LIVE, conform, write_predictions
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, list_runs, open_run
from barcast.core.workspace import Workspace
from barcast.features import FeatureSet
from barcast.labels import trailing_volatility
from barcast.models.registry import model_entry
from barcast.pipeline.dataset import embedding_index, make_panel, normalised, run_features
from barcast.pipeline.market import VOLATILITY_BARS, load_bars, resolve_symbols
from barcast.pipeline.settings import RunConfig, from_run
from barcast.pipeline.train import load_maps
from barcast.store import MarketStore
from barcast.windows.index import MIN_BARS, own_bars
from barcast.windows.normalise import FittedScaler, check_coverage

#: Sessions since the last training label: a warning, then a refusal.
OLD_SESSIONS, TOO_OLD_SESSIONS = 63, 252


@dataclass(frozen=True)
class Forecasts:
    """What ``predict`` answers.

    Attributes
    ----------
    run : str
        The run that answered.
    asof : str
        The last session known.
    for_session : str
        The session at whose close the (first) horizon ends.
    table : pl.DataFrame
        Rows of the predictions table, segment ``live``, best score first.
    reasons : pl.DataFrame
        ``symbol, reason`` of symbols without a forecast.
    warnings : tuple of str
    """

    run: str
    asof: str
    for_session: str
    table: pl.DataFrame
    reasons: pl.DataFrame
    warnings: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "run": self.run,
            "asof": self.asof,
            "for_session": self.for_session,
            "forecasts": self.table.select(
                "symbol", "horizon", "delay", "score", "y_hat", "sigma", "p_up", "route"
            ).to_dicts(),
            "without_forecast": self.reasons.to_dicts(),
            "warnings": list(self.warnings),
        }


def newest_run(workspace: Workspace, name: str | None) -> RunFolder:
    """Return the named run, or the newest finished one: first of those with a refit, then any but ridge.

    Raises
    ------
    RunError
        When there is none.
    """
    if name:
        return open_run(workspace, name)
    runs = [run for run in list_runs(workspace) if run.is_done]
    refitted = {run.info.get("parent") for run in runs}
    done = [run for run in runs if not run.info.get("final")]
    for preferred in (
        lambda run: run.name in refitted,
        lambda run: run.info["model"] != "ridge",
        lambda _: True,
    ):
        found = [run for run in done if preferred(run)]
        if found:
            return found[-1]
    raise RunError("no finished run in this workspace", "barcast train lstm")


def write_table(forecasts: Forecasts, path: Path) -> None:
    """Write the whole table, as Parquet or CSV by the name's ending."""
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            forecasts.table.write_parquet(temporary)
        else:
            forecasts.table.drop("quantiles").write_csv(temporary)


def predict(
    workspace: Workspace,
    run: RunFolder,
    *,
    symbols: Sequence[str] = (),
    asof: str = "",
    allow_old: bool = False,
    progress: Progress | None = None,
    save: bool = True,
) -> Forecasts:
    """Forecast from the last session known, with the run's refit where there is one.

    Parameters
    ----------
    symbols : sequence of str
        In any spelling; empty means every symbol of the store. Statistics always use the run's universe.
    asof : str
        Last session that may be known; empty means the store's last.

    Raises
    ------
    CoverageError
        When the session is incomplete.
    RunError
        When the run is unfinished, or its last training label is more than a year old and ``allow_old`` is
        not set.
    SymbolError
        When a symbol is not in the store.
    """
    progress = progress or Progress(enabled=False)
    config = from_run(run.read("config.json"))
    bars = _all_bars(workspace, config, asof)
    run = serving_run(workspace, run, bars.calendar.times[-1])
    state = run.read("state.json")
    warnings = _age_warnings(run, bars, allow_old)
    universe = np.isin(np.array(bars.symbols), np.array(state["universe"]))
    at = len(bars.calendar) - 1
    if not state["small_universe"]:
        check_coverage(bars.session, universe[bars.symbol_of_row], at)
    wanted = resolve_symbols(MarketStore.open(workspace.market), symbols)
    last_rows, reasons = _rows_and_reasons(bars, at, wanted or bars.symbols)
    features = run_features(run, state["feature_set"])
    progress.note(f"predicting {len(last_rows)} symbols as of {bars.calendar.times[at]} with {run.name}")
    scores, volatility = score_rows(workspace, run, config, state, bars, features, universe, last_rows)
    table = _table(run, config, bars, last_rows, scores, volatility)
    kept = run.path / "live" / f"{_stamp(bars.calendar.times[at])}.parquet"
    if save and not symbols and not kept.exists():  # what was served once is evidence: it is not rewritten
        write_predictions(kept, table)
    exit_time = bars.calendar.next_after(bars.calendar.times[at], config.data.delay + config.data.horizons[0])
    return Forecasts(run.name, str(bars.calendar.times[at]), str(exit_time), table, reasons, warnings)


def _with_final(command: str) -> str:
    return command if "--final" in command.split() else f"{command} --final"


def serving_run(workspace: Workspace, run: RunFolder, asof: np.datetime64) -> RunFolder:
    """Return the run's newest refit that was taught nothing later than ``asof``, else the run itself.

    Raises
    ------
    RunError
        When the run is unfinished, or when even its own labels reach beyond ``asof``: such a forecast would
        have seen its outcome.
    """
    if not run.is_done:
        raise RunError(f"run `{run.name}` is not finished", "run the same `barcast train` again: it resumes")
    refits = [
        other for other in list_runs(workspace) if other.info.get("parent") == run.name and other.is_done
    ]
    for candidate in (*reversed(refits), run):
        if np.datetime64(candidate.info["taught_until"]) <= asof:
            return candidate
    raise RunError(
        f"`{run.name}` was taught labels up to {run.info['taught_until']}: a forecast as of {asof} would "
        "have seen its own outcome",
        f"train on what was known then: barcast train {run.info['model']} --asof {str(asof)[:10]} --final",
    )


def _all_bars(workspace: Workspace, config: RunConfig, asof: str) -> Bars:
    """Every symbol of the store, not only the run's: a symbol that no model ever saw is predicted too."""
    wanted = config.data.symbols or config.data.limit
    if wanted:
        config = replace(config, data=replace(config.data, symbols=(), limit=0))
    return load_bars(workspace, replace(config.data, asof=asof)).bars


def _age_warnings(run: RunFolder, bars: Bars, allow_old: bool) -> tuple[str, ...]:
    info = run.info
    last = np.datetime64(info["last_teaching_session"])
    age = int((bars.calendar.times > last).sum()) // bars.calendar.bars_per_day
    if age > TOO_OLD_SESSIONS and not allow_old:
        raise RunError(
            f"the last label that taught `{run.name}` is of {last}, {age} sessions before the forecast",
            f"refit it on everything known: {_with_final(info['command'])}   (or add --allow-old)",
        )
    if age > OLD_SESSIONS:
        return (f"the last label that taught {run.name} is {age} sessions old: consider a refit (--final)",)
    return ()


def _rows_and_reasons(bars: Bars, at: int, wanted: Sequence[str]) -> tuple[I64, pl.DataFrame]:
    """Return the last row of each symbol that can be predicted, and why the others cannot."""
    nowhere = sorted(set(wanted) - set(bars.symbols))
    rows, symbols, reasons = [], nowhere.copy(), ["no usable bar up to this session"] * len(nowhere)
    age = own_bars(bars.life_start)
    for position in np.flatnonzero(np.isin(np.array(bars.symbols), np.array(wanted))):
        first, stop = bars.offsets[position], bars.offsets[position + 1]
        if first == stop:
            reason = "no usable bar"
        elif bars.session[stop - 1] != at:
            reason = f"no bar in the last session (its last is {bars.times[stop - 1]})"
        elif age[stop - 1] < MIN_BARS:
            reason = (
                f"short history: {age[stop - 1]} bars since its start or a long hole, {MIN_BARS} are needed"
            )
        else:
            rows.append(stop - 1)
            continue
        symbols.append(bars.symbols[position])
        reasons.append(reason)
    table = pl.DataFrame(
        {"symbol": symbols, "reason": reasons}, schema={"symbol": pl.String, "reason": pl.String}
    )
    return np.array(rows, np.int64), table


def score_rows(
    workspace: Workspace, run: RunFolder, config: RunConfig, state: dict[str, object], bars: Bars,
    features: FeatureSet, universe: Bools, last_rows: I64,
) -> tuple[F64, F64]:  # fmt: skip
    """Return scores (n, H) and volatility (n,) of the wanted rows, computing only what they depend on."""
    look_back = config.train.look_back_window if config.train else 1
    keep = needed_rows(bars, last_rows, look_back, max(features.max_warmup, VOLATILITY_BARS) + 1)
    tail = bars.take(keep)
    rows = (np.cumsum(keep) - 1)[last_rows]
    panel = make_panel(tail, features, None, "", cached=False)
    scaler = state["scaler"]
    fitted = None if scaler is None else FittedScaler(np.array(scaler["mean"]), np.array(scaler["std"]))  # type: ignore[index]
    inputs = normalised(panel, tail, features, fitted, universe)
    embedding = embedding_index(tail.symbols, tuple(state["vocabulary"]))  # type: ignore[arg-type]
    entry = model_entry(config.model)
    volatility = trailing_volatility(tail, VOLATILITY_BARS)[rows]
    if entry.kind == "tabular":
        from barcast.training.checkpoint import load_arrays

        model = entry.build(config.options, config.seed)
        model.load(load_arrays(run.weights))
        return np.asarray(model.predict(inputs[rows]), np.float64), volatility
    from barcast.training.loop import predict_windows
    from barcast.training.networks import load_network, make_resident

    num_horizons = len(config.data.horizons)
    network = load_network(
        entry, config.options, inputs.shape[1], len(state["vocabulary"]), num_horizons, run.weights  # type: ignore[arg-type]
    )  # fmt: skip
    nothing = np.full((len(tail), num_horizons), np.nan, np.float32)
    resident = make_resident(
        inputs, embedding[tail.symbol_of_row], tail.life_start, nothing, "cpu",
        anchored=features.window_normalised,
    )  # fmt: skip
    return predict_windows(network, resident, rows, look_back).astype(np.float64), volatility


def needed_rows(bars: Bars, last_rows: I64, look_back: int, warmup: int) -> Bools:
    """Return the rows that the windows of ``last_rows`` depend on, shape (R,).

    These are all rows from the oldest session in any window on (session statistics read every symbol there),
    and ``warmup`` own bars before them.
    """
    keep = np.zeros(len(bars), bool)
    if not len(last_rows):
        return keep
    first = np.maximum(last_rows - look_back + 1, bars.life_start[last_rows])
    oldest = int(bars.session[first].min())
    needed = bars.session >= oldest
    counts = np.bincount(bars.symbol_of_row[needed], minlength=bars.num_symbols)
    starts = np.maximum(bars.offsets[1:] - counts - warmup, bars.offsets[:-1])
    for start, stop in zip(starts, bars.offsets[1:], strict=True):
        keep[start:stop] = True
    return keep


def _table(
    run: RunFolder, config: RunConfig, bars: Bars, rows: I64, scores: F64, volatility: F64
) -> pl.DataFrame:
    from scipy.special import ndtr

    frames = []
    for h, score_map in enumerate(load_maps(run)):
        y_hat, sigma = score_map.y_hat(scores[:, h]), score_map.sigma(volatility)
        last = bars.calendar.times[-1].astype("datetime64[us]")
        frames.append(
            pl.DataFrame(
                {
                    "symbol": np.array(bars.symbols, dtype=object)[bars.symbol_of_row[rows]].tolist(),
                    "time": [last.item()] * len(rows),
                    "score": scores[:, h],
                    "y_hat": y_hat,
                    "sigma": sigma,
                    "p_up": ndtr(y_hat / sigma),
                },
                schema_overrides={"symbol": pl.String, "time": pl.Datetime("us")},
            )
            .with_columns(
                pl.lit(run.name).alias("run"),
                pl.lit(config.model).alias("model"),
                pl.lit(config.seed).alias("seed"),
                pl.lit(LIVE).alias("segment"),
                pl.lit(score_map.horizon).alias("horizon"),
                pl.lit(config.data.delay).alias("delay"),
                pl.lit("return").alias("target"),
                pl.lit("universal").alias("route"),
            )
            .sort("score", descending=True)
        )
    return conform(pl.concat(frames))


def _stamp(time: np.datetime64) -> str:
    return str(time).replace(":", "")
