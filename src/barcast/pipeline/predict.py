"""``barcast predict``: the next sessions' forecast for every symbol, from a finished run.

Only the rows that the answer depends on are computed: the look-back of every symbol's last bar and the
features' warm-up before it. That cut history gives the same values as the whole one is what the audit checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I64, Bools
from barcast.core.atomic import atomic_path, refuse_folder
from barcast.core.bars import Bars
from barcast.core.calendar import exchange_days
from barcast.core.champion import is_champion
from barcast.core.errors import RunError, UsageError
from barcast.core.predictions import read_predictions, write_predictions
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, command_to_type, list_runs, open_run
from barcast.core.texts import Text
from barcast.core.workspace import Workspace
from barcast.features import FeatureSet
from barcast.labels import trailing_volatility
from barcast.models.heads import PLAIN, Head, head_of
from barcast.models.registry import model_entry
from barcast.pipeline.attributes import attribute_values, identity_codes
from barcast.pipeline.dataset import embedding_index, make_panel, normalised, run_features
from barcast.pipeline.fleet_engine import look_back_of
from barcast.pipeline.forecast import live_rows
from barcast.pipeline.load import load_model
from barcast.pipeline.market import VOLATILITY_BARS, CheckedBars, load_bars
from barcast.pipeline.record import check_known_by, check_market, known_until, load_maps, of_another_market
from barcast.pipeline.settings import RunConfig, from_run, server_of
from barcast.pipeline.unfinished import check_done
from barcast.store import MarketStore
from barcast.windows.index import MIN_BARS, own_bars
from barcast.windows.normalise import FittedScaler, check_coverage

#: Sessions since the last training label: a warning, then a refusal.
OLD_SESSIONS, TOO_OLD_SESSIONS = 63, 252
#: Sessions that a store may be behind today before somebody must have forgotten to update it.
STALE_SESSIONS = 5
#: Said of forecasts whose score map is zero.
NO_SIZE = Text(
    "no size could be calibrated on `weigh`: only the order of the scores is a forecast",
    "在校准段（weigh）上无法校准出预测幅度：只有分数的次序才是预测",
)
_REASONS = {"symbol": pl.String, "reason": pl.String, "reason_zh": pl.String}
#: How a forecasts file may end.
OUTPUT_ENDINGS = (".parquet", ".csv", ".json")


@dataclass(frozen=True)
class Forecasts:
    """What ``predict`` answers.

    Attributes
    ----------
    run : str
        The run that answered.
    parent : str
        The run whose refit it is; empty for an evaluation.
    taught_until : str
        When the last label that taught it became known.
    chosen_until : str
        When the last label that taught, stopped, chose or calibrated it became known.
    asof : str
        The last session known.
    for_sessions : mapping of int to str
        The session at whose close each horizon ends.
    table : pl.DataFrame
        Rows of the predictions table, segment ``live``, best score first within each horizon.
    reasons : pl.DataFrame
        ``symbol, reason, reason_zh`` of symbols without a forecast.
    warnings : tuple of Text
    """

    run: str
    parent: str
    taught_until: str
    chosen_until: str
    asof: str
    for_sessions: Mapping[int, str]
    table: pl.DataFrame
    reasons: pl.DataFrame
    warnings: tuple[Text, ...]

    @property
    def for_session(self) -> str:
        """The session at whose close the shortest horizon ends."""
        return self.for_sessions[min(self.for_sessions)]

    def has_size(self, horizon: int) -> bool:
        """Whether any forecast of a horizon says more than an order (`NO_SIZE`)."""
        return bool((self.table.filter(horizon=horizon)["y_hat"] != 0).any())

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "run": self.run,
            "parent": self.parent or None,
            "taught_until": self.taught_until,
            "chosen_until": self.chosen_until,
            "asof": self.asof,
            "for_session": self.for_session,
            "for_sessions": {str(horizon): end for horizon, end in self.for_sessions.items()},
            "forecasts": self.table.select(
                "symbol", "horizon", "delay", "score", "y_hat", "sigma", "p_up", "route"
            ).to_dicts(),
            "without_forecast": self.reasons.select("symbol", "reason").to_dicts(),
            "warnings": [warning.en for warning in self.warnings],
        }


def newest_run(workspace: Workspace, name: str | None) -> RunFolder:
    """Return the named run, or the newest finished one: first of those with a refit, then any but ridge.

    Runs of another market than the store's are passed over.

    Raises
    ------
    RunError
        When there is none.
    """
    if name:
        return open_run(workspace, name)
    runs = [run for run in list_runs(workspace) if run.is_done and not of_another_market(workspace, run)]
    refitted = {_refitted(run) for run in runs}
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


def check_output(path: Path) -> None:
    """Refuse a place that forecasts cannot be written to, before anything is computed.

    Raises
    ------
    UsageError
        On a folder, or an ending that says no known format.
    """
    refuse_folder(path)
    if path.suffix.lower() not in OUTPUT_ENDINGS:
        raise UsageError(
            f"{path}: a file of forecasts ends in {', '.join(OUTPUT_ENDINGS)}", f"--output {path.stem}.csv"
        )


def write_table(forecasts: Forecasts, path: Path) -> None:
    """Write the whole table, as Parquet, CSV or JSON by the name's ending."""
    check_output(path)
    kind, flat = path.suffix.lower(), forecasts.table.drop("quantiles")
    if "T" not in forecasts.asof:  # a session of daily bars is a date
        flat = flat.with_columns(pl.col("time", "known_at").cast(pl.Date))
    with atomic_path(path) as temporary:
        if kind == ".parquet":
            forecasts.table.write_parquet(temporary)
        elif kind == ".json":
            flat.write_json(temporary)
        else:
            flat.write_csv(temporary)


def predict(
    workspace: Workspace,
    run: RunFolder,
    *,
    symbols: Sequence[str] = (),
    asof: str = "",
    allow_old: bool = False,
    progress: Progress | None = None,
    save: bool | None = None,
) -> Forecasts:
    """Forecast from the last session known, with the run's refit where there is one.

    Parameters
    ----------
    symbols : sequence of str
        In any spelling; empty means the symbols that the run was asked for, or else every symbol of the
        store. Statistics always use the run's universe.
    asof : str
        Last session that may be known; empty means the store's last.
    save : bool, optional
        Whether the answer for the whole market is kept in the run's ``live`` folder, by default unless
        ``asof`` makes it a replay, which nobody was served.

    Raises
    ------
    CoverageError
        When the session is incomplete.
    RunError
        When the run is unfinished or of another market, or its last training label is more than a year old
        and ``allow_old`` is not set.
    SymbolError
        When a symbol is not in the store.
    """
    progress = progress or Progress(enabled=False)
    check_market(workspace, run)
    config = from_run(run.read("config.json"))
    if config.model == "routed":
        from barcast.pipeline.route import predict_routed  # local: it predicts by the runs that it joins

        return predict_routed(
            workspace, run, symbols=symbols, asof=asof, allow_old=allow_old, progress=progress, save=save
        )
    found = _all_bars(workspace, config, asof)
    bars, now = found.bars, found.bars.calendar.times[-1]
    run = serving_run(workspace, run, now)
    state = run.read("state.json")
    warnings = [*_age_warnings(workspace, run, bars, asof, allow_old), *_session_warnings(bars, asof)]
    universe = np.isin(np.array(bars.symbols), np.array(state["universe"]))
    at = len(bars.calendar) - 1
    if not state["small_universe"]:
        check_coverage(bars.session, universe[bars.symbol_of_row], at)
    wanted = MarketStore.open(workspace.market).resolve(symbols) or _own_symbols(config, state)
    last_rows, reasons = _rows_and_reasons(found, at, wanted or (*bars.symbols, *found.without_bars))
    warnings += _unknown_warnings(bars, last_rows, state["vocabulary"])
    features = run_features(run, state["feature_set"])
    progress.note(f"predicting {len(last_rows)} symbols as of {now} with {run.name}")
    outputs, volatility = output_rows(workspace, run, config, state, bars, features, universe, last_rows)
    served = np.isfinite(outputs).all(axis=1)
    if not served.all():
        reasons = pl.concat([reasons, _without_model(run, bars, last_rows[~served])]).sort("symbol")
    outputs, volatility, last_rows = outputs[served], volatility[served], last_rows[served]
    head = run_head(config)
    table = live_rows(
        bars, last_rows, head.scores(outputs), volatility, load_maps(run), delay=config.data.delay,
        run=run.name, model=config.row_name, seed=config.seed, route=server_of(config),
        quantiles=head.quantiles(outputs),
    )  # fmt: skip
    if not symbols and (not asof if save is None else save):
        keep_served(run, now, table)
    return _answer(run, config, bars, table, reasons, warnings)


def _own_symbols(config: RunConfig, state: dict[str, Any]) -> Sequence[str]:
    """Return the symbols of a run that was trained on chosen ones; empty for a run of the whole store."""
    own = config.data.symbols or (state["universe"] if config.data.limit else ())
    return own and (*own, *state.get("adapted", ()))


def _answer(
    run: RunFolder, config: RunConfig, bars: Bars, table: pl.DataFrame, reasons: pl.DataFrame,
    warnings: Sequence[Text],
) -> Forecasts:  # fmt: skip
    info, now, delay = run.info, bars.calendar.times[-1], config.data.delay
    ends = {h: str(bars.calendar.next_after(now, delay + h)) for h in sorted(config.data.horizons)}
    return Forecasts(
        run.name,
        info.get("parent", ""),
        info["taught_until"],
        known_until(run),
        str(now),
        ends,
        table,
        reasons,
        tuple(warnings),
    )


def keep_served(run: RunFolder, asof: np.datetime64, table: pl.DataFrame) -> None:
    """Write down what was served of this session; what is there stays, another answer stands beside it."""
    name, count = str(asof).replace(":", ""), 1
    path = run.path / "live" / f"{name}.parquet"
    while path.exists():
        if read_predictions(path).equals(table):
            return
        count += 1
        path = path.with_name(f"{name}.{count}.parquet")
    write_predictions(path, table)


def serving_run(workspace: Workspace, run: RunFolder, asof: np.datetime64) -> RunFolder:
    """Return the run's refit that knows most, but nothing later than ``asof``, else the run itself.

    Raises
    ------
    RunError
        When the run is unfinished, or when even the labels that taught, stopped, chose or calibrated itself
        reach beyond ``asof``: such a forecast would have seen its outcome.
    """
    check_done(run)
    able = [other for other in refits_of(workspace, run) if np.datetime64(known_until(other)) <= asof]
    if able:
        return max(able, key=known_until)
    check_known_by(workspace, run, str(asof))
    return run


def refits_of(workspace: Workspace, run: RunFolder) -> list[RunFolder]:
    """Return the finished refits of an evaluated run; adapted ones (`barcast adapt`) serve by name only."""
    return [other for other in list_runs(workspace) if other.is_done and _refitted(other) == run.name]


def _refitted(run: RunFolder) -> str:
    """Return which run a refit was made from; empty where it is none."""
    return "" if "adapted_from" in run.info else str(run.info.get("parent", ""))


def _all_bars(workspace: Workspace, config: RunConfig, asof: str) -> CheckedBars:
    """Every symbol of the store, not only the run's: a symbol that no model ever saw is predicted too."""
    return load_bars(workspace, replace(config.data, symbols=(), limit=0, asof=asof))


def _age_warnings(workspace: Workspace, run: RunFolder, bars: Bars, asof: str, allow_old: bool) -> list[Text]:
    info = run.info
    taught = info["taught_until"]
    # A refit as of the same session can answer it; one that knows what came later cannot.
    until = ["--asof", str(bars.calendar.times[-1])] if asof else []
    parent = info.get("parent", run.name)
    command = command_to_type(workspace, "train", "--refit", parent, *until)
    if not asof and is_champion(workspace, run.name):
        command += f" && {command_to_type(workspace, 'promote', parent)}"
    later = bars.calendar.times > np.datetime64(taught)
    age = int(later.sum()) // bars.calendar.bars_per_day
    if age > TOO_OLD_SESSIONS and not allow_old:
        anyway = command_to_type(workspace, "predict", run.name, *until, "--allow-old")
        raise RunError(
            f"`{run.name}` was taught by labels known until {taught}, {age} trading days before the forecast",
            f"refit it on everything known: {command}   (or as it is: {anyway})",
        )
    if age <= OLD_SESSIONS:
        return []
    return [
        Text(
            f"{run.name} was taught by labels known until {taught} only, {age} trading days ago; refit it on "
            f"everything known before you use a forecast: {command}",
            f"{run.name} 只学到 {taught} 为止已知的标签，距今 {age} 个交易日；"
            f"使用预测前请用全部已知数据重新拟合：{command}",
        )
    ]


def _session_warnings(bars: Bars, asof: str) -> list[Text]:
    """Say which session answers for a day without one, and when it is clearly older than it should be."""
    last, today = bars.calendar.days[-1].item(), _today()
    if asof and (asked := datetime.fromisoformat(asof).date()) != last:
        text = Text(
            f"as of {asof}: the last stored session up to then is {last}",
            f"截至 {asof}：到那时为止仓库中的最后一个交易日是 {last}",
        )
        return [text, *_stale_warnings(bars, last, min(asked, today))]
    return [] if asof else _stale_warnings(bars, last, today)


def _stale_warnings(bars: Bars, last: date, today: date) -> list[Text]:
    """Say when the newest bar is clearly older than ``today``."""
    missed = len(exchange_days(bars.calendar.name, last + timedelta(days=1), today)) if last < today else 0
    if missed <= STALE_SESSIONS:
        return []
    return [
        Text(
            f"the newest bar is of {last}, about {missed} sessions before {today}: these forecasts start "
            f"there. Bring newer bars (barcast data update), or say --asof {last} to mean it",
            f"最新一根 K 线是 {last}，距 {today} 约 {missed} 个交易日：预测从那时起算。"
            f"请更新数据（barcast data update），或用 --asof {last} 明确指定",
        )
    ]


def _today() -> date:
    return datetime.now(UTC).date()


def _unknown_warnings(bars: Bars, rows: I64, vocabulary: Sequence[str]) -> list[Text]:
    """Say how many forecast symbols taught the run nothing."""
    known = set(vocabulary)
    unknown = [name for row in rows if (name := bars.symbols[bars.symbol_of_row[row]]) not in known]
    if not unknown:
        return []
    names = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
    return [
        Text(
            f"{len(unknown)} of {len(rows)} symbols never taught this run ({names}): their forecasts come "
            "from their bars alone, with an unknown identity",
            f"{len(rows)} 个标的中有 {len(unknown)} 个未参与本次训练（{names}）："
            "其预测只来自自身的 K 线，身份按未知处理",
        )
    ]


def _rows_and_reasons(found: CheckedBars, at: int, wanted: Sequence[str]) -> tuple[I64, pl.DataFrame]:
    """Return the last row of each symbol that can be predicted, and why the others cannot."""
    bars = found.bars
    places = {symbol: position for position, symbol in enumerate(bars.symbols)}
    age = own_bars(bars.life_start)
    rows, reasons = [], []
    for symbol in sorted(wanted):
        if symbol in places:
            reason = _why_not(bars, at, age, places[symbol])
        else:
            reason = _why_absent(found.without_bars.get(symbol, ""))
        if reason is None:
            rows.append(bars.offsets[places[symbol] + 1] - 1)
        else:
            said = reason.in_steps(daily=bars.calendar.is_daily)
            reasons.append((symbol, said.en, said.zh))
    return np.array(rows, np.int64), pl.DataFrame(reasons, schema=_REASONS, orient="row")


def _without_model(run: RunFolder, bars: Bars, rows: I64) -> pl.DataFrame:
    """Say of symbols that a fleet has no model for why that is."""
    from barcast.fleet.ledger import LEDGER, Ledger

    symbols = [bars.symbols[symbol] for symbol in bars.symbol_of_row[rows]]
    with Ledger.open(run.fleet / LEDGER) as ledger:
        told = {row.symbol: row.reason for row in ledger.rows()}
    found = [told.get(symbol, "it was not there when the fleet was fitted") for symbol in symbols]
    return pl.DataFrame(
        {
            "symbol": symbols,
            "reason": [f"no model of its own: {reason}" for reason in found],
            "reason_zh": [f"没有专属模型：{reason}" for reason in found],
        },
        schema=_REASONS,
    )


def _why_absent(reason: str) -> Text:
    if not reason:
        return Text("no usable bar up to this session", "截至该时点没有可用的 K 线")
    return Text(reason, f"没有可用的 K 线：{reason.rpartition(': ')[2]}")


def _why_not(bars: Bars, at: int, age: I64, position: int) -> Text | None:
    """Say why a symbol has no forecast at session ``at``; None where it has one."""
    stop = bars.offsets[position + 1]
    if bars.offsets[position] == stop:
        return _why_absent("")
    if bars.session[stop - 1] != at:
        last = bars.times[stop - 1]
        return Text(
            f"no bar in the last session (its last is {last})", f"最后一个时点没有 K 线（最近一根是 {last}）"
        )
    if age[stop - 1] < MIN_BARS:
        return Text(
            f"short history: {age[stop - 1]} bars since its start or a long hole, {MIN_BARS} are needed",
            f"历史太短：自上市或长缺口以来只有 {age[stop - 1]} 根 K 线，至少需要 {MIN_BARS} 根",
        )
    return None


def run_head(config: RunConfig) -> Head:
    """Return what the outputs of a run's model mean; a tabular one has a single output for each horizon."""
    return head_of(config.data.target) if config.train is not None else PLAIN


def score_rows(
    workspace: Workspace, run: RunFolder, config: RunConfig, state: Mapping[str, Any], bars: Bars,
    features: FeatureSet, universe: Bools, last_rows: I64,
) -> tuple[F64, F64]:  # fmt: skip
    """Return scores (n, H) and volatility (n,) of the wanted rows, computing only what they depend on."""
    outputs, volatility = output_rows(workspace, run, config, state, bars, features, universe, last_rows)
    return run_head(config).scores(outputs).astype(np.float64), volatility


def output_rows(
    workspace: Workspace, run: RunFolder, config: RunConfig, state: Mapping[str, Any], bars: Bars,
    features: FeatureSet, universe: Bools, last_rows: I64,
) -> tuple[F64, F64]:  # fmt: skip
    """Return outputs (n, H * W) and volatility (n,) of rows, computing only what they depend on."""
    look_back = look_back_of(config)
    keep = needed_rows(bars, last_rows, look_back, max(features.max_warmup, VOLATILITY_BARS) + 1)
    tail = bars.take(keep)
    rows = (np.cumsum(keep) - 1)[last_rows]
    panel = make_panel(tail, features, None, "", cached=False)
    scaler = state["scaler"]
    fitted = None if scaler is None else FittedScaler(np.array(scaler["mean"]), np.array(scaler["std"]))
    inputs = normalised(panel, tail, features, fitted, universe)
    model = load_model(run, config, state)
    volatility = trailing_volatility(tail, VOLATILITY_BARS)[rows]
    kind = model_entry(config.model).kind
    if kind == "tabular":
        return np.asarray(model.predict(inputs[rows]), np.float64), volatility
    if kind == "fleet":
        from barcast.pipeline.fleet_residual import with_universal_forecast  # local: it predicts itself
        from barcast.pipeline.fleet_rows import rows_to_serve

        own = model.scores(rows_to_serve(tail, inputs, len(config.data.horizons)), rows)
        return with_universal_forecast(workspace, run, config, bars, last_rows, own), volatility
    from barcast.training.networks import make_resident
    from barcast.training.predict import predict_windows

    vocabulary, known = tuple(state["vocabulary"]), state.get("attributes", {})
    values = attribute_values(MarketStore.open(workspace.market), tuple(known), tail.symbols)
    embedding = identity_codes(embedding_index(tail.symbols, vocabulary), values, known)
    nothing = np.full((len(tail), len(config.data.horizons) * run_head(config).width), np.nan, np.float32)
    resident = make_resident(
        inputs, embedding[tail.symbol_of_row], tail.life_start, nothing, "cpu",
        anchored=features.window_normalised,
    )  # fmt: skip
    return predict_windows(model, resident, rows, look_back).astype(np.float64), volatility


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
