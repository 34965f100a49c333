"""``barcast predict``: the next sessions' forecast for every symbol, from a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast.core.arrays import I64
from barcast.core.atomic import atomic_path, refuse_folder
from barcast.core.bars import Bars
from barcast.core.errors import RunError, UsageError
from barcast.core.predictions import read_predictions, write_predictions
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, list_runs, open_run
from barcast.core.texts import Text
from barcast.core.workspace import Workspace
from barcast.pipeline.dataset import run_features
from barcast.pipeline.forecast import live_rows
from barcast.pipeline.market import CheckedBars, load_bars
from barcast.pipeline.record import (
    check_known_by,
    check_market,
    known_until,
    load_maps,
    of_another_market,
    oldest_taught_until,
)
from barcast.pipeline.scoring import output_rows, run_head
from barcast.pipeline.serving_notes import age_warnings, session_warnings, unknown_warnings
from barcast.pipeline.settings import RunConfig, from_run, server_of
from barcast.pipeline.unfinished import check_done
from barcast.store import MarketStore
from barcast.windows.index import MIN_BARS, own_bars
from barcast.windows.normalise import check_coverage

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
    oldest_taught_until : str
        When the last one became known that taught the oldest of its models: earlier in a refreshed fleet.
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
    oldest_taught_until: str
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
            "oldest_taught_until": self.oldest_taught_until,
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
    warnings = [*age_warnings(workspace, run, bars, asof, allow_old), *session_warnings(bars, asof)]
    universe = np.isin(np.array(bars.symbols), np.array(state["universe"]))
    at = len(bars.calendar) - 1
    if not state["small_universe"]:
        check_coverage(bars.session, universe[bars.symbol_of_row], at)
    wanted = MarketStore.open(workspace.market).resolve(symbols) or _own_symbols(config, state)
    last_rows, reasons = _rows_and_reasons(found, at, wanted or (*bars.symbols, *found.without_bars))
    features = run_features(run, state["feature_set"])
    progress.note(f"predicting {len(last_rows)} symbols as of {now} with {run.name}")
    outputs, volatility = output_rows(workspace, run, config, state, bars, features, universe, last_rows)
    served = np.isfinite(outputs).all(axis=1)
    if not served.all():
        reasons = pl.concat([reasons, _without_model(run, bars, last_rows[~served])]).sort("symbol")
    outputs, volatility, last_rows = outputs[served], volatility[served], last_rows[served]
    warnings += _unknown(workspace, run, bars, last_rows)
    head = run_head(config)
    table = live_rows(
        bars, last_rows, head.scores(outputs), volatility, load_maps(run), delay=config.data.delay,
        run=run.name, model=config.row_name, seed=config.seed, route=server_of(config),
        quantiles=head.quantiles(outputs),
    )  # fmt: skip
    if is_served_to_all(symbols, asof, save):
        keep_served(run, now, table)
    return _answer(run, config, bars, table, reasons, warnings)


def _unknown(workspace: Workspace, run: RunFolder, bars: Bars, rows: I64) -> list[Text]:
    """Say which forecasts (n,) lack an identity, where the model that makes them knows symbols by name."""
    from barcast.pipeline.fleet_universal import recorded_universal  # local: few runs lean on another

    universal = recorded_universal(workspace, run)
    maker = run if universal is None else universal.run
    if not getattr(from_run(maker.read("config.json")).options, "stock_embedding_dim", 0):
        return []
    return unknown_warnings(bars, rows, maker.read("state.json")["vocabulary"])


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
        oldest_taught_until(run),
        known_until(run),
        str(now),
        ends,
        table,
        reasons,
        tuple(warnings),
    )


def is_served_to_all(symbols: Sequence[str], asof: str, save: bool | None) -> bool:
    """Return whether an answer is kept: that for the whole market, unless a replay or the caller says no."""
    return not symbols and (not asof if save is None else save)


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

    Of several that know as much it is the newest: it may be the one before with more of its models fitted
    again.

    Raises
    ------
    RunError
        When the run is unfinished and has no refit, or when even the labels that taught, stopped, chose or
        calibrated itself reach beyond ``asof``: such a forecast would have seen its outcome.
    """
    able = [other for other in refits_of(workspace, run) if np.datetime64(known_until(other)) <= asof]
    if able:
        return max(reversed(able), key=known_until)
    check_done(run)  # a fleet whose refit serves may be given more models meanwhile
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
