"""What a finished run wrote down, against what its past alone gives: state, predictions table, outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from barcast.audit.findings import Finding, Value
from barcast.audit.laboratory import Ledger
from barcast.audit.workings import rows_of_table, settled
from barcast.core.arrays import F64, I64, Bools
from barcast.core.bars import Bars
from barcast.core.predictions import SEGMENTS, read_predictions
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.features import FeatureSet
from barcast.labels import forward_labels, trailing_volatility
from barcast.pipeline import scoring
from barcast.pipeline.dataset import make_panel, make_target
from barcast.pipeline.forecast import ScoreMap, fit_target_map
from barcast.pipeline.market import (
    VOLATILITY_BARS,
    Market,
    held_out,
    load_bars,
    segments_of,
    session_times,
)
from barcast.pipeline.record import load_maps
from barcast.pipeline.settings import RunConfig
from barcast.pipeline.train import SCORED
from barcast.windows.index import MIN_BARS, own_bars
from barcast.windows.normalise import FittedScaler

#: Recorded statistics that agree to this are the same.
STATE_TOLERANCE = 1e-5
#: Scores recomputed from a shorter history and in other batches, relative to the spread of the scores.
SCORE_TOLERANCE = 1e-3
#: Share of a session's recomputed scores that may differ: trees jump where a rounded input meets a threshold.
THRESHOLD_SHARE = 0.002

PREDICTIONS, TABLE = "recomputed predictions", "predictions table"
STATE = "recorded state"
ABOUT = {
    STATE: "teaching rows, vocabulary, scaler, score maps made again from history up to their segments",
    TABLE: "segments, outcomes, their dates and flags of every row; outcomes of test rows are sealed",
    PREDICTIONS: "whole sessions predicted again with the run's weights, the store read as of that session",
}


@dataclass(frozen=True)
class Recorded:
    """A run, what it wrote, and the data it was made from.

    Attributes
    ----------
    workspace : Workspace
    run : RunFolder
    config : RunConfig
    state : dict
        Content of state.json.
    market : Market
        The same rows, read and labelled again.
    features : FeatureSet
    """

    workspace: Workspace
    run: RunFolder
    config: RunConfig
    state: dict[str, Any]
    market: Market
    features: FeatureSet

    def universe(self, bars: Bars) -> Bools:
        """Return which symbols belong to the recorded universe, shape (S,)."""
        return np.isin(np.array(bars.symbols), np.array(self.state["universe"]))

    def score(self, bars: Bars, rows: I64) -> F64:
        """Return scores (n, H) of rows, as ``barcast predict`` computes them."""
        return self.score_and_volatility(bars, rows)[0]

    def score_and_volatility(self, bars: Bars, rows: I64) -> tuple[F64, F64]:
        """Return scores (n, H) and trailing volatility (n,) through the path that serves predictions."""
        return scoring.score_rows(
            self.workspace, self.run, self.config, self.state, bars, self.features, self.universe(bars), rows
        )


def check_records(recorded: Recorded, ledger: Ledger, *, seed: int, progress: Progress) -> None:
    """Check everything that a finished evaluation wrote."""
    progress.note("recorded vocabulary, scaler and score maps")
    table = read_predictions(recorded.run.predictions)
    past = _past(recorded)
    findings = [
        *_teaching(recorded, past), *_vocabulary(recorded, past), *_scaler(recorded, past),
        *_maps(recorded, past, table),
    ]  # fmt: skip
    ledger.add(
        STATE, findings, len(recorded.state["vocabulary"]) + 3 * len(recorded.state["maps"]), ABOUT[STATE]
    )
    progress.note("recorded predictions")
    ledger.add(TABLE, _table(recorded, table), len(table), ABOUT[TABLE])
    for time in _sessions_to_repeat(table, seed):
        asof = str(time.astype(recorded.market.bars.calendar.times.dtype))
        progress.note(f"predicting {asof} again from history up to it")
        findings, num_values = _repeat(recorded, table, time, asof)
        ledger.add(PREDICTIONS, findings, num_values, ABOUT[PREDICTIONS])


def _past(recorded: Recorded) -> Market:
    """Return the market as it was known when `weigh` was settled."""
    market = recorded.market
    bars = market.bars.until(min(settled(market, "weigh"), len(market.bars.calendar) - 1))
    labels = forward_labels(bars, market.labels.spec)
    return replace(
        market,
        bars=bars,
        labels=labels,
        segment=segments_of(market.plan, bars, labels),
        volatility=trailing_volatility(bars, VOLATILITY_BARS),
    )


def _kept_rows(recorded: Recorded, past: Market, segment: str) -> Bools:
    """Return the rows of a segment whose symbols are not held out, shape (R,)."""
    bars = past.bars
    held = held_out(bars.symbols, recorded.config.data.hold_out_fold)[bars.symbol_of_row]
    return past.rows_of(segment) & ~held


def _taught_rows(recorded: Recorded, past: Market) -> Bools:
    """Return the rows that may teach: of `fit`, with a target and enough bars, not held out, shape (R,)."""
    target = np.isfinite(make_target(past)[0]).any(axis=1)
    return _kept_rows(recorded, past, "fit") & (own_bars(past.bars.life_start) >= MIN_BARS) & target


def _teaching(recorded: Recorded, past: Market) -> list[Finding]:
    """Count the rows that may teach again: a label that reaches into a later segment must not be one."""
    bars, rows = past.bars, _taught_rows(recorded, past)
    info = recorded.run.info
    last = str(bars.calendar.times[bars.session[rows].max(initial=0)])
    for name, expected in (("num_teaching_rows", int(rows.sum())), ("last_teaching_session", last)):
        if info[name] != expected:
            return [
                Finding(
                    check=STATE, stage="teaching", column=name, found=info[name], expected=expected,
                    cut=str(bars.calendar.times[-1]), columns=(name,),
                    detail="the rows that taught are not those whose labels are known inside `fit`",
                )
            ]  # fmt: skip
    return []


def _vocabulary(recorded: Recorded, past: Market) -> list[Finding]:
    """Compare the vocabulary with the symbols whose rows may teach: only these can have an embedding."""
    taught = np.unique(past.bars.symbol_of_row[_taught_rows(recorded, past)])
    expected = {past.bars.symbols[symbol] for symbol in taught}
    written = set(recorded.state["vocabulary"])
    wrong = sorted(written ^ expected)
    if not wrong:
        return []
    detail = (
        "has an embedding but no row that may teach" if wrong[0] in written else "taught, but is not recorded"
    )
    return [
        Finding(
            check=STATE, stage="vocabulary", column="symbol", symbol=wrong[0], found=len(written),
            expected=len(expected), detail=detail, num_values=len(wrong), columns=tuple(wrong[:10]),
        )
    ]  # fmt: skip


def _scaler(recorded: Recorded, past: Market) -> list[Finding]:
    """Fit the scaler again, on `fit` rows and no others."""
    written = recorded.state["scaler"]
    if written is None:
        return []
    panel = make_panel(past.bars, recorded.features, None, "audit", cached=False)
    fitted = FittedScaler.fit(panel.values, _kept_rows(recorded, past, "fit"))
    for name, expected in (("mean", fitted.mean), ("std", fitted.std)):
        found = np.array(written[name], np.float64)
        wrong = np.flatnonzero(
            np.abs(found - expected) > STATE_TOLERANCE * np.maximum(fitted.std, np.abs(expected))
        )
        if len(wrong):
            first = int(wrong[0])
            columns = tuple(f"{panel.names[column]}.{name}" for column in wrong)
            return [
                Finding(
                    check=STATE, stage="scaler", column=columns[0], found=float(found[first]),
                    expected=float(expected[first]), num_values=len(wrong), columns=columns,
                    cut=str(past.bars.calendar.times[-1]),
                    detail="the recorded scaler is not the one that `fit` rows alone give",
                )
            ]  # fmt: skip
    return []


def _maps(recorded: Recorded, past: Market, table: pl.DataFrame) -> list[Finding]:
    """Fit score maps again, on recorded scores of `weigh` and labels known then."""
    weigh = table.filter(pl.col("segment") == "weigh")
    for column, written in enumerate(load_maps(recorded.run)):
        own = weigh.filter(pl.col("horizon") == written.horizon)
        rows = rows_of_table(past.bars, own)
        rows, score = rows[rows >= 0], own["score"].to_numpy()[rows >= 0]
        inside = _kept_rows(recorded, past, "weigh")[rows]
        rows, score = rows[inside], score[inside]
        y, volatility, session = past.labels.y[rows, column], past.volatility[rows], past.bars.session[rows]
        target = recorded.config.data.target
        fitted = fit_target_map(score, y, volatility, session, written.horizon, target)
        for name, found, expected in _numbers(
            written, fitted, own_quantiles=recorded.config.train is not None
        ):
            if abs(found - expected) > STATE_TOLERANCE * max(abs(expected), abs(found)):
                return [
                    Finding(
                        check=STATE, stage="calibration", column=f"{name}_{written.horizon}", found=found,
                        expected=expected, cut=str(past.bars.calendar.times[-1]), columns=(name,),
                        detail="the recorded score map is not the one that `weigh` rows alone give",
                    )
                ]  # fmt: skip
    return []


def _numbers(
    written: ScoreMap, fitted: ScoreMap, *, own_quantiles: bool
) -> Iterator[tuple[str, float, float]]:
    """Yield name, recorded and expected value of what a map holds.

    The shifts of a network's own quantiles cannot be fitted again from a table that holds them moved already.
    """
    for name in ("slope", "width", "volatility", "odds"):
        yield name, getattr(written, name), getattr(fitted, name)
    if not own_quantiles:
        for place, (found, expected) in enumerate(zip(written.shifts, fitted.shifts, strict=True)):
            yield f"shift {place}", found, expected


def _table(recorded: Recorded, table: pl.DataFrame) -> list[Finding]:
    """Compare every row of the predictions table with labels and segments made again."""
    market = recorded.market
    rows = rows_of_table(market.bars, table)
    gone = np.flatnonzero(rows < 0)
    if len(gone):
        detail = "the table has a row where the data has no bar"
        return [_table_finding(table, int(gone[0]), "row", "a row", "no bar", detail, len(gone))]
    column = np.array([market.labels.spec.horizons.index(h) for h in table["horizon"].to_list()])
    sealed = (table["segment"] == "test").to_numpy()
    y = np.where(sealed, np.nan, market.labels.y[rows, column])
    names = np.array([*SEGMENTS, "none"])
    expected: dict[str, tuple[pl.Series, str]] = {
        "segment": (
            pl.Series(names[market.segment[rows]].tolist()),
            "the row's label belongs to another segment",
        ),
        "y": (
            pl.Series(y).fill_nan(None),
            "the recorded outcome is not the label, or a sealed one was written",
        ),
        "known_at": (
            session_times(market.bars, market.labels.known_at[rows, column]),
            "the outcome is said to be known at another time",
        ),
        "tradable": (pl.Series(market.labels.tradable[rows]), "the flag is not that of the entry session"),
    }
    for name, (values, detail) in expected.items():
        wrong = table[name].ne_missing(values.cast(table[name].dtype)).arg_true()
        if len(wrong):
            row = int(wrong[0])
            found, should = _plain(table[name][row]), _plain(values[row])
            return [_table_finding(table, row, name, found, should, detail, len(wrong))]
    return []


def _plain(value: Any) -> Value:
    return value if value is None or isinstance(value, int | float) else str(value)


def _table_finding(
    table: pl.DataFrame, row: int, column: str, found: Value, expected: Value, detail: str, count: int
) -> Finding:
    return Finding(
        check=TABLE, stage="predictions", column=column, symbol=table["symbol"][row],
        time=str(table["time"][row]), found=found, expected=expected, detail=detail, num_values=count,
        columns=(column,),
    )  # fmt: skip


def _sessions_to_repeat(table: pl.DataFrame, seed: int) -> list[np.datetime64]:
    """Return one session each of the scored segments."""
    rng = np.random.default_rng([seed, 3])
    chosen = []
    for segment in SCORED:
        times = table.filter(pl.col("segment") == segment)["time"].unique().sort().to_numpy()
        if len(times):
            chosen.append(times[int(rng.integers(len(times)))])
    return chosen


def _repeat(
    recorded: Recorded, table: pl.DataFrame, time: np.datetime64, asof: str
) -> tuple[list[Finding], int]:
    """Read the store as of ``time``, predict its symbols again and compare with what was recorded."""
    bars = load_bars(recorded.workspace, replace(recorded.config.data, asof=asof)).bars
    bars = bars.until(int(np.searchsorted(bars.calendar.times, np.datetime64(asof))))
    own = table.filter(pl.col("time") == pl.lit(time))
    num_values = 0
    for column, score_map in enumerate(load_maps(recorded.run)):
        part = own.filter(pl.col("horizon") == score_map.horizon)
        rows = rows_of_table(bars, part)
        gone = np.flatnonzero(rows < 0)
        if len(gone):
            detail = "the row was predicted although its bar is not there in history up to that session"
            found = _table_finding(part, int(gone[0]), "row", "a row", "no bar", detail, len(gone))
            return [replace(found, check=PREDICTIONS, cut=asof)], num_values
        scores, volatility = recorded.score_and_volatility(bars, rows)
        again = {
            "score": scores[:, column],
            "y_hat": score_map.y_hat(scores[:, column]),
            "sigma": score_map.sigma(volatility),
        }
        again["p_up"] = score_map.p_up(scores[:, column], again["y_hat"], again["sigma"])
        num_values += len(rows) * len(again)
        finding = _first_unlike(part, again, table.filter(pl.col("horizon") == score_map.horizon), asof)
        if finding:
            return [finding], num_values
    return [], num_values


def _first_unlike(
    part: pl.DataFrame, again: dict[str, F64], whole: pl.DataFrame, asof: str
) -> Finding | None:
    """Compare with a tolerance that follows the column's spread over the whole table: one row has none."""
    for name, values in again.items():
        written, everywhere = part[name].to_numpy(), whole[name].to_numpy()
        size = max(float(np.std(everywhere)), float(np.abs(everywhere).mean()) * STATE_TOLERANCE)
        wrong = np.flatnonzero(~(np.abs(written - values) <= SCORE_TOLERANCE * size))
        if len(wrong) > THRESHOLD_SHARE * len(written):
            row = int(wrong[0])
            detail = "the run's weights give another value when history ends at that session"
            finding = _table_finding(
                part, row, name, float(written[row]), float(values[row]), detail, len(wrong)
            )
            return replace(finding, check=PREDICTIONS, cut=asof)
    return None
