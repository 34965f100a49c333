"""What the report says of a fleet: costs, weights, skill and curves of symbols, and who has no model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from barcast.core.arrays import F64
from barcast.core.config import to_plain
from barcast.core.runs import RunFolder
from barcast.core.texts import Text
from barcast.ensemble.hierarchy import Cells, balanced_blocks, deviations
from barcast.evaluation.align import CommonRows
from barcast.evaluation.series import MIN_ROWS_OVER_TIME, ModelSeries
from barcast.evaluation.words import METRIC_NAMES
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.ledger_rows import LedgerRow
from barcast.fleet.trees.presets import MEMBERS, configured
from barcast.pipeline.fleet_engine import engine_of
from barcast.pipeline.fleet_seen import LEANS_ON
from barcast.pipeline.fleet_weights import POOLED_MEAN, WEIGHTS, ZERO
from barcast.pipeline.settings import RunConfig, from_run
from barcast.reports.data import Column, Failure
from barcast.reports.fleet import (
    MOST_SESSIONS,
    Detail,
    Fleet,
    Learning,
    MemberErrors,
    MemberWeights,
    shown_in_detail,
)

#: Of the 97.5 % quantile of a normal variable; `deviations` has widened the error for few blocks.
Z_95 = 1.96
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_NAMES = {
    "forest": Text("forest", "随机森林"), "xgboost": Text.same("XGBoost"), "lightgbm": Text.same("LightGBM"),
    ZERO: Text("zero", "零预测"), POOLED_MEAN: Text("pooled mean", "合并均值"),
}  # fmt: skip
#: Reasons that are said in Chinese too; others are an error's own words.
_CHINESE = (
    (r"too short: ([\d,]+) of ([\d,]+) training rows", r"历史过短：训练样本 \1 行，至少需要 \2 行"),
    (r"too short: ([\d,]+) of ([\d,]+) labels in `stop`", r"历史过短：stop 段标签 \1 个，至少需要 \2 个"),
    (r"no time left in the budget(.*)", r"预算时间已用完\1"),
    (r"still at work when the budget ended: cut off", "预算结束时仍在训练：已中止"),
    (r"constant target: (.*)", r"目标恒定：\1"),
)
_STAGES = {"failed": Text("failed", "失败"), "left_out": Text("left out", "未纳入")}
_UNIVERSAL = Text("a universal model serves it: barcast route", "由通用模型服务：barcast route")
_UNCORRECTED = Text("this run gives it the universal forecast", "本运行给出通用预测")


@dataclass(frozen=True)
class _Skills:
    """Skill of symbols on rows that no model learned from, as arrays over ``CommonRows.symbols``."""

    column: Column
    value: F64  # NaN where a symbol has too few rows
    low: F64
    high: F64
    num_rows: F64
    has_size: bool

    def of(self, places: Sequence[int]) -> dict[str, list[float | int | None]]:
        """Return columns for symbols by place; -1 for those without a row."""
        return {
            "skill": [number(self.value[p]) if p >= 0 else None for p in places],
            "low": [number(self.low[p], 3) if p >= 0 else None for p in places],
            "high": [number(self.high[p], 3) if p >= 0 else None for p in places],
            "judged": [int(self.num_rows[p]) if p >= 0 else 0 for p in places],
        }


def fleet_part(run: RunFolder, rows: CommonRows, series: ModelSeries, horizon: int) -> Fleet:
    """Collect what the page shows of a fleet, on the rows that its comparison is about."""
    config = from_run(run.read("config.json"))
    place = config.data.horizons.index(horizon)
    with Ledger.open(run.fleet / LEDGER) as ledger:
        done = ledger.rows(status=["done"])
        weights = {symbol: each[place] for symbol, each in ledger.pooled(WEIGHTS).items()}
        counts = {str(status): num for status, num in ledger.counts().items()}
        size = ledger.size_bytes()
    skills = _skills(rows, series)
    where = {symbol: position for position, symbol in enumerate(rows.symbols)}
    places = [where.get(row.symbol, -1) for row in done]
    names = _member_names(weights)
    columns = skills.of(places) | _columns(done, place, names, weights)
    times, sessions = _sessions_of(rows)
    chosen = shown_in_detail(columns["skill"], len(times))
    paths = _paths(rows, series.model, [places[i] for i in chosen], sessions, skills.has_size)
    return Fleet(
        kind="trees" if config.model == "fleet-trees" else "networks", run=run.name, counts=counts,
        seconds=sum(row.seconds for row in done if not row.fitted_by), ledger_bytes=size,
        segment=rows.segment,
        num_sessions=rows.num_sessions, has_size=skills.has_size, skill=skills.column, symbols=columns,
        members=_members(names, weights), times=times,
        universal=run.recorded.get(LEANS_ON, {}).get("run", ""),
        strength=float(np.mean([each["strength"] for each in weights.values()])) if weights else None,
        details=tuple(
            Detail(
                symbol=done[i].symbol, forecast=forecast, outcome=outcome,
                errors=_errors(config, done[i], place), learning=_learning(done[i]),
            )
            for i, (forecast, outcome) in zip(chosen, paths, strict=True)
        ),
    )  # fmt: skip


def fleet_failures(run: RunFolder) -> list[Failure]:
    """Return who has no model of its own, why, and what to do or what serves it."""
    with Ledger.open(run.fleet / LEDGER) as ledger:
        rows = ledger.rows(status=["failed", "left_out"])
    is_residual = LEANS_ON in run.recorded
    return [
        Failure(
            symbol=row.symbol, stage=_STAGES[row.status], error=reason_text(row.reason),
            fallback=_fallback(row.todo, is_residual),
        )
        for row in sorted(rows, key=lambda row: (row.status, row.symbol))
    ]  # fmt: skip


def _fallback(todo: str, is_residual: bool) -> Text:
    """Say what serves a symbol without a model of its own, and what to do about it."""
    if not is_residual:
        return Text.same(todo) if todo else _UNIVERSAL
    return Text(f"{_UNCORRECTED.en}: {todo}", f"{_UNCORRECTED.zh}：{todo}") if todo else _UNCORRECTED


def reason_text(reason: str) -> Text:
    """Say a reason of the ledger in both languages, as far as it is a usual one."""
    for pattern, chinese in _CHINESE:
        if found := re.fullmatch(pattern, reason):
            return Text(reason, found.expand(chinese))
    return Text.same(reason)


# --- skill ---------------------------------------------------------------------------------------------


def _skills(rows: CommonRows, series: ModelSeries) -> _Skills:
    """Judge each symbol: R squared against zero, or by order alone where forecasts have no size."""
    num = np.bincount(rows.symbol, minlength=len(rows.symbols)).astype(np.float64)
    y_hat = rows.of(series.model)[0].outputs.y_hat
    enough = num >= MIN_ROWS_OVER_TIME
    if y_hat is None or not y_hat.any():
        frame = series.symbols
        of = dict(zip(frame["symbol"], frame["rank_ic_over_time"].fill_null(np.nan), strict=True))
        value = np.array([of.get(symbol, np.nan) for symbol in rows.symbols])
        title = Text("rank correlation over time", "时序秩相关")
        column = Column(key="skill", title=title, format="score", better="higher", neutral=0.0)
        nothing = np.full(len(num), np.nan)
        return _Skills(column, value, nothing, nothing, num, has_size=False)
    block, num_blocks = balanced_blocks(rows.session, rows.horizon, rows.delay)
    cells = Cells(rows.symbol.astype(np.int64), block, len(num), num_blocks)
    saved, size = cells.sums(rows.y**2 - (rows.y - y_hat) ** 2), cells.sums(rows.y**2)
    found = deviations(saved[..., None], size, np.zeros((num_blocks, 1)))
    value = np.where(enough, found.mean[:, 0], np.nan)
    half = np.where(np.isfinite(found.variance), Z_95 * np.sqrt(found.variance), np.nan)
    column = Column(
        key="skill", title=METRIC_NAMES["r2"], format="percent", better="higher", neutral=0.0,
        help=Text("1 less the squared errors over those of zero", "1 减去平方误差与零预测平方误差之比"),
    )  # fmt: skip
    return _Skills(column, value, value - half, value + half, num, has_size=True)


# --- columns -------------------------------------------------------------------------------------------


def _columns(
    done: Sequence[LedgerRow], place: int, names: Sequence[str], weights: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "symbol": [row.symbol for row in done],
        "preset": [row.preset for row in done],
        "seconds": [number(row.seconds, 3) for row in done],
        "bytes": [row.model_bytes + row.native_bytes for row in done],
        "memory": [row.memory_bytes for row in done],
        "rows": [row.num_rows for row in done],
    }
    if not all("horizons" in row.metrics for row in done):
        return columns | {"epoch": [row.metrics.get("best_epoch") for row in done]}
    members = [row.metrics["horizons"][place]["members"] for row in done]
    for member in MEMBERS:
        if any(member in own for own in members):
            columns[f"trees {member}"] = [own.get(member, {}).get("trees") for own in members]
    for k, name in enumerate(names):
        own = (_weight(weights.get(row.symbol), name) for row in done)
        columns[f"weight {k}"] = [None if weight is None else round(weight, 3) for weight in own]
    return columns


def _weight(evidence: Mapping[str, Any] | None, name: str) -> float | None:
    """Return what a member weighs; None where the symbol does not have it."""
    if evidence is None or name in evidence["excluded"]:
        return None
    return float(evidence["weights"][evidence["members"].index(name)])


def _member_names(weights: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the members that at least one symbol has, in their order."""
    names: dict[str, None] = {}
    for each in weights.values():
        names |= dict.fromkeys(each["members"])
    return [name for name in names if any(_weight(each, name) is not None for each in weights.values())]


def _members(names: Sequence[str], weights: Mapping[str, Mapping[str, Any]]) -> tuple[MemberWeights, ...]:
    found = []
    for name in names:
        own = [each for each in weights.values() if _weight(each, name) is not None]
        of = np.array([_weight(each, name) for each in own], np.float64)
        first = [max(each["weights"]) == _weight(each, name) for each in own]
        low, quarter, middle, three, high = np.quantile(of, _QUANTILES).tolist()
        market = [each["pooled"][each["members"].index(name)] for each in own]
        each_symbol = MemberWeights(
            name=_NAMES.get(name, Text.same(name)), num_symbols=len(own), mean=float(of.mean()),
            quantiles=(low, quarter, middle, three, high), market=float(np.median(market)),
            leads=sum(first) / len(weights), log_score=_over_zero(own, name),
        )  # fmt: skip
        found.append(each_symbol)
    return tuple(found)


def _over_zero(evidence: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Return the mean over symbols of a member's log score a row less that of zero."""
    gains = []
    for each in evidence:
        own, zero = (each["log_score"][each["members"].index(n)] for n in (name, ZERO))
        if own is not None and zero is not None and each["num_rows"]:
            gains.append((own - zero) / each["num_rows"])
    return float(np.mean(gains)) if gains else None


# --- curves --------------------------------------------------------------------------------------------


def _sessions_of(rows: CommonRows) -> tuple[tuple[str, ...], list[int]]:
    """Return the sessions that are drawn, evenly thinned where there are many, and their positions."""
    step = math.ceil(rows.num_sessions / MOST_SESSIONS)
    sessions = list(range(0, rows.num_sessions, step))
    unit: Literal["D", "m"] = "D" if (rows.times == rows.times.astype("datetime64[D]")).all() else "m"
    return tuple(np.datetime_as_string(rows.times[sessions], unit=unit).tolist()), sessions


def _paths(
    rows: CommonRows, model: str, places: Sequence[int], sessions: Sequence[int], has_size: bool
) -> list[tuple[tuple[float | None, ...], tuple[float | None, ...]]]:
    """Return forecasts and outcomes of symbols in the sessions that are drawn."""
    outputs = rows.of(model)[0].outputs
    said = outputs.y_hat if has_size and outputs.y_hat is not None else outputs.score
    line, column = (np.full(size, -1) for size in (len(rows.symbols), rows.num_sessions))
    wanted = [place for place in places if place >= 0]
    line[wanted], column[sessions] = np.arange(len(wanted)), np.arange(len(sessions))
    keep = (line[rows.symbol] >= 0) & (column[rows.session] >= 0)
    at = line[rows.symbol[keep]], column[rows.session[keep]]
    drawn = np.full((2, len(wanted), len(sessions)), np.nan)
    drawn[0][at], drawn[1][at] = said[keep] * (1e4 if has_size else 1.0), rows.y[keep] * 1e4
    lines = iter(zip(*(_lines(matrix) for matrix in drawn), strict=True))
    return [next(lines) if place >= 0 else ((), ()) for place in places]


def _lines(matrix: F64) -> list[tuple[float | None, ...]]:
    return [tuple(number(value, 3) for value in line) for line in matrix.tolist()]


def _errors(config: RunConfig, row: LedgerRow, place: int) -> tuple[MemberErrors, ...]:
    """Return how the members of an ensemble did, and when the boosters among them stopped."""
    if "horizons" not in row.metrics:
        return ()
    own = {k: v for k, v in config.options.symbol_options.get(row.symbol, {}).items() if k != "features"}
    preset = configured(row.preset, engine_of(config.model).shared(config.options), own)
    judged = row.metrics["horizons"][place]
    found = []
    for name in (each for each in MEMBERS if each in judged["members"]):
        known = judged["members"][name]
        options = to_plain(getattr(preset, name))
        rmse = {segment: known[f"rmse_{segment}"] for segment in ("stop", "weigh")}
        zero = {segment: judged["zero"][f"rmse_{segment}"] for segment in rmse}
        errors = MemberErrors(
            name=name, trees=known["trees"], most=options.get("num_rounds", options.get("num_trees")),
            stops=bool(options.get("early_stopping_rounds")),
            rmse={segment: number(error) for segment, error in rmse.items()},
            r2={segment: _skill(error, zero[segment]) for segment, error in rmse.items()},
        )  # fmt: skip
        found.append(errors)
    return tuple(found)


def _skill(rmse: float | None, zero: float | None) -> float | None:
    return None if rmse is None or not zero else number(1 - (rmse / zero) ** 2)


def _learning(row: LedgerRow) -> Learning | None:
    curve = row.metrics.get("curve")
    if not curve:
        return None
    losses, scores = (
        tuple(None if line[name] is None else number(line[name]) for line in curve)
        for name in ("train_loss", "stop_score")
    )
    return Learning(train_loss=losses, stop_score=scores, best_epoch=row.metrics["best_epoch"])


def number(value: float | None, digits: int = 4) -> float | None:
    """Return a number with the digits that a picture shows; None where there is none."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")
