"""``report.html``: a run's facts put into the page's words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from barcast.core.errors import BarcastError, RunError
from barcast.core.runs import RunFolder
from barcast.core.texts import Text, counted
from barcast.core.workspace import Workspace
from barcast.evaluation.align import CommonRows
from barcast.evaluation.notes import IN_SAMPLE
from barcast.evaluation.results import (
    ABSENT,
    BETTER,
    CONSTANT,
    FEW_SESSIONS,
    NAIVE,
    ONE_CLASS,
    REFERENCE,
    SAME,
    UNKNOWN,
    WORSE,
    Comparison,
    Row,
    Score,
    Table,
)
from barcast.evaluation.series import ModelSeries, model_series
from barcast.evaluation.sums import METRICS
from barcast.evaluation.words import METRIC_NAMES, SEGMENT_NAMES, full_name, model_name, number
from barcast.pipeline.compare import Compared
from barcast.pipeline.market import Market, segment_counts
from barcast.pipeline.predict import NO_SIZE, Forecasts
from barcast.quality import KINDS
from barcast.reports import data as page
from barcast.reports.page import write_report

_PERCENT = {"r2", "direction", "up_share", "quantile_coverage"}
_RETURNS = {"mae", "rmse", "pinball"}
_REASONS = {
    CONSTANT: Text("undefined: the forecast never varies", "无定义：预测值不变"),
    ONE_CLASS: Text("undefined: every outcome has the same sign", "无定义：所有结果同号"),
    FEW_SESSIONS: Text("too few sessions", "交易日太少"),
    ABSENT: Text("not given by this model", "该模型不提供"),
}
_ITSELF = page.Cell(note=Text("the row that is subtracted", "被减的就是这一行"))
#: Notes that the page itself shows from other facts.
_SAID_BY_THE_PAGE = {"survivors_only", "small_universe"}
#: Columns that stand together; what is not named here, the deciding score and its differences, comes first.
_VIEWS: dict[str, page.View] = {
    **dict.fromkeys(("mae", "rmse", "r2", "log_loss", "brier", "pinball", "quantile_coverage"), "errors"),
    **dict.fromkeys(("direction", "up_share", "mcc", "auc", "session_auc"), "direction"),
    **dict.fromkeys(("ic", "rank_ic", "icir", "rank_icir"), "order"),
}
_LOWER = {"mae", "rmse", "log_loss", "brier", "pinball"}
_NEUTRAL = {
    "rank_ic": 0.0,
    "ic": 0.0,
    "r2": 0.0,
    "mcc": 0.0,
    "auc": 0.5,
    "session_auc": 0.5,
    "direction": 0.5,
}


def write_run_report(
    workspace: Workspace,
    run: RunFolder,
    compared: Compared,
    market: Market,
    forecasts: Forecasts | BarcastError,
) -> Path:
    """Write ``report.html`` into the run's folder and return its path.

    ``forecasts`` may be the error that stood in their way: the page then says so.
    """
    data = report_data(run, compared, market, forecasts)
    path = run.path / "report.html"
    write_report(path, data)
    return path


def report_data(
    run: RunFolder, compared: Compared, market: Market, forecasts: Forecasts | BarcastError
) -> page.ReportData:
    """Collect everything the page shows."""
    info, place = run.info, _chosen(compared)
    chosen, rows = compared.comparisons[place], compared.rows[place]
    name = _name_in(rows, run.name)
    series = model_series(rows, name, cross_sectional=chosen.cross_sectional)
    asked = _of_every_horizon(compared, chosen.segment)
    return page.ReportData(
        title=_title(info["model"], market),
        run_id=run.name,
        model=info["model"],
        created=info["created"],
        command=info["command"],
        version=version("barcast"),
        horizon=chosen.horizon,
        horizons=tuple(one.horizon for one in asked),
        scope=_scope(compared, chosen.horizon),
        delay=chosen.delay,
        small_universe=market.small_universe,
        test_openings=compared.openings.total,
        test_openings_elsewhere=compared.openings.elsewhere,
        interval_note=_interval_note(chosen),
        data=_data_summary(market, info),
        verdict=_verdict(asked),
        headline=_headline(asked, name),
        comparisons=tuple(_comparisons(compared, name)),
        monthly=tuple(_monthly(series, chosen)),
        deciles=_deciles(series, chosen),
        calibration=_calibration(series, chosen),
        predictions=tuple(_predictions(forecasts, chosen.horizon))
        if isinstance(forecasts, Forecasts)
        else (),
        symbols=_symbol_scores(series, chosen),
        loss=_loss(run, market, info),
        segments=tuple(_segments(market, [comparison.segment for comparison in compared.comparisons])),
        failures=tuple(_failures(run)),
        warnings=tuple(note.text for note in chosen.notes if note.kind not in _SAID_BY_THE_PAGE)
        + (_warnings(forecasts, chosen.horizon) if isinstance(forecasts, Forecasts) else ()),
        config=run.read("config.json"),
        environment=run.read("environment.json"),
        empty=tuple(_empty(forecasts, chosen, series)),
    )


def _chosen(compared: Compared) -> int:
    """Return which comparison the page is about: the last segment's, at its shortest horizon."""
    shortest = _of_every_horizon(compared, compared.comparisons[-1].segment)[0]
    return compared.comparisons.index(shortest)


def _of_every_horizon(compared: Compared, segment: str) -> list[Comparison]:
    """Return the comparisons of a segment, shortest horizon first."""
    return sorted((c for c in compared.comparisons if c.segment == segment), key=lambda c: c.horizon)


def _warnings(forecasts: Forecasts, horizon: int) -> tuple[Text, ...]:
    return (*[NO_SIZE] * (not forecasts.has_size(horizon)), *forecasts.warnings)


def _scope(compared: Compared, horizon: int) -> Text | None:
    """Say which horizon is drawn, where there are several."""
    others = sorted({c.horizon for c in compared.comparisons} - {horizon})
    if not others:
        return None
    found = ", ".join(map(str, others))
    return Text(
        f"Shown for horizon {horizon} only; the comparison has a tab for each of the others too ({found}).",
        f"此处只展示预测期 {horizon}；其他预测期（{found.replace(', ', '、')}）见模型比较中的各个标签页。",
    )


def _name_in(rows: CommonRows, run: str) -> str:
    """Return what the tables call this run: its model's name, or ``model [run]`` where there are several."""
    for forecast in rows.forecasts:
        if forecast.run == run:
            return forecast.name
    raise RunError(
        f"`{run}` has no forecast on the rows that every model covers in `{rows.segment}`: nothing to report",
        f"barcast compare {run}",
    )


def _title(model: str, market: Market) -> Text:
    kinds = {
        "cn": Text("A-share symbol", "中国 A 股标的"),
        "us": Text("US symbol", "美股标的"),
        "crypto": Text("coin", "加密货币标的"),
    }
    kind = kinds.get(market.bars.market, Text("symbol", "标的"))
    symbols = market.bars.num_symbols
    return Text(f"{model} on {counted(symbols, kind.en)}", f"{model}：{symbols:,} 个{kind.zh}")


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _interval_note(comparison: Comparison) -> Text:
    block, level = comparison.all_rows.block_length, comparison.level
    note = Text(
        f"{level:.0%} intervals from blocks of {counted(block, 'session')}",
        f"{level:.0%} 区间，按每块 {block} 个时点重抽样",
    )
    return note.in_steps(daily=comparison.is_daily)


_OUTCOMES = {
    BETTER: Text("better than {}", "优于{}"),
    WORSE: Text("worse than {}", "劣于{}"),
    SAME: Text("not distinguishable from {}", "与{}无法区分"),
    UNKNOWN: Text("not yet comparable with {}", "尚无法与{}比较"),
}


def _verdict(comparisons: Sequence[Comparison]) -> page.Verdict:
    """Say the outcome of every horizon in a line, and the whole texts below; the worst sets the tone."""
    outcomes = [against.outcome for one in comparisons for against in one.all_rows.verdict.against]
    tone: Literal["positive", "neutral", "negative"] = "neutral"
    if outcomes and all(outcome == BETTER for outcome in outcomes):
        tone = "positive"
    elif WORSE in outcomes:
        tone = "negative"
    lines = [_outcome_line(one) for one in comparisons]
    details = [one.verdict for one in comparisons]
    if len(comparisons) > 1:
        names = [Text(f"Horizon {one.horizon}:", f"预测期 {one.horizon}：") for one in comparisons]
        lines = [name + line for name, line in zip(names, lines, strict=True)]
        details = [name + detail for name, detail in zip(names, details, strict=True)]
    headline = Text("; ".join(line.en for line in lines), "；".join(line.zh for line in lines))
    return page.Verdict(tone=tone, headline=headline, details=tuple(details))


def _outcome_line(comparison: Comparison) -> Text:
    found = comparison.all_rows.verdict
    parts = [(_OUTCOMES[a.outcome], a.opponent) for a in found.against]
    english = ", ".join(text.en.format(opponent) for text, opponent in parts)
    chinese = "，".join(text.zh.format(full_name(opponent).zh) for text, opponent in parts)
    return Text(f"{found.best}: {english}", f"{full_name(found.best).zh}：{chinese}")


def _headline(comparisons: Sequence[Comparison], model: str) -> page.HeadlineScore | None:
    """Return the score of the shortest horizon, with ridge's and the other horizons' beside it."""
    comparison, metric = comparisons[0], comparisons[0].primary
    table = comparison.all_rows
    row = _row(table, model)
    if row is None:
        return None
    score = row.scores[metric]
    notes = []
    if reference := _row(table, table.reference):
        value = number(metric, reference.scores[metric].value)
        name = model_name(table.reference)
        notes.append(Text(f"{name.en}: {value} on the same rows", f"同样样本上{name.zh}：{value}"))
    for other in comparisons[1:]:
        if found := _row(other.all_rows, model):
            value = number(metric, found.scores[metric].value)
            notes.append(Text(f"horizon {other.horizon}: {value}", f"预测期 {other.horizon}：{value}"))
    note = Text(" · ".join(one.en for one in notes), " · ".join(one.zh for one in notes)) if notes else None
    return page.HeadlineScore(
        name=METRIC_NAMES[metric],
        value=_number(score.value),
        low=_number(score.low),
        high=_number(score.high),
        segment=comparison.segment,
        format="percent" if metric in _PERCENT else "score",
        note=note,
    )


def _row(table: Table, model: str) -> Row | None:
    return next((row for row in table.rows if row.model == model), None)


def _comparisons(compared: Compared, model: str) -> Iterable[page.Comparison]:
    titles = {"all": ("all rows", "全部样本"), "tradable": ("tradable rows", "仅可成交样本")}
    several = len({c.horizon for c in compared.comparisons}) > 1
    for comparison in reversed(compared.comparisons):
        horizon = f", h={comparison.horizon}" if several else ""
        note = next((note.text for note in comparison.notes if note.kind == IN_SAMPLE), None)
        for name, table in comparison.tables.items():
            english, chinese = titles[name]
            segment = SEGMENT_NAMES[comparison.segment]
            title = Text(f"{segment.en}{horizon}, {english}", f"{segment.zh}{horizon}，{chinese}")
            yield _comparison(comparison, table, model, title, note)


def _comparison(
    comparison: Comparison, table: Table, model: str, title: Text, note: Text | None
) -> page.Comparison:
    metrics = list(dict.fromkeys(metric for row in table.rows for metric in row.scores))
    metrics.sort(key=lambda metric: metric != comparison.primary)
    columns = [_metric_column(metrics[0], "skill")]
    if table.reference:
        columns.append(_difference_column("vs_reference", table.reference, metrics[0]))
    if table.best_naive:
        columns.append(_difference_column("vs_naive", table.best_naive, metrics[0]))
    columns += [_metric_column(metric, _VIEWS[metric]) for metric in metrics[1:]]
    columns += [
        page.Column(key="coverage", title=Text("covers", "覆盖"), format="percent"),
        page.Column(key="train_seconds", title=Text("trained in", "训练用时"), format="seconds", view="cost"),
        page.Column(key="size_bytes", title=Text("size", "大小"), format="bytes", view="cost"),
        page.Column(
            key="predict_seconds", title=Text("predicted in", "预测用时"), format="seconds", view="cost"
        ),
    ]
    return page.Comparison(
        title=title,
        columns=tuple(columns),
        rows=tuple(_comparison_row(row, table, metrics, model) for row in table.rows),
        chart_key=comparison.primary,
        note=note,
    )


def _format(metric: str) -> page.Format:
    return "percent" if metric in _PERCENT else "basis_points" if metric in _RETURNS else "score"


def _metric_column(metric: str, view: page.View) -> page.Column:
    better = None if metric == "up_share" else "lower" if metric in _LOWER else "higher"
    return page.Column(
        key=metric, title=METRIC_NAMES[metric], format=_format(metric), better=better,  # type: ignore[arg-type]
        neutral=_NEUTRAL.get(metric), view=view,
    )  # fmt: skip


def _difference_column(key: str, opponent: str, metric: str) -> page.Column:
    return page.Column(
        key=key,
        title=Text(f"minus {opponent}", f"减{model_name(opponent).zh}"),
        format=_format(metric),
        neutral=0.0,
        help=Text(
            "Paired difference of the first column at the same times; an interval above 0 is a real lead.",
            "第一列在相同时间上的配对差；区间全在 0 以上才算真正领先。",
        ),
    )


def _comparison_row(row: Row, table: Table, metrics: list[str], model: str) -> page.ComparisonRow:
    cells = [_cell(row.scores.get(metrics[0]))]
    for opponent, differences in ((table.reference, row.vs_reference), (table.best_naive, row.vs_naive)):
        if opponent:
            cells.append(_ITSELF if opponent == row.model else _cell(differences.get(metrics[0])))
    cells += [_cell(row.scores.get(metric)) for metric in metrics[1:]]
    cost = row.cost
    cells += [
        page.Cell(value=_number(value))
        for value in (row.coverage, cost.train_seconds, cost.size_bytes, cost.predict_seconds)
    ]
    group = {NAIVE: "naive", REFERENCE: "reference"}.get(row.kind, "model")
    return page.ComparisonRow(
        name=model_name(row.model), cells=tuple(cells), group=group, is_this_run=row.model == model,  # type: ignore[arg-type]
        typed=row.model,
    )  # fmt: skip


def _cell(score: Score | None) -> page.Cell:
    if score is None or not math.isfinite(score.value):
        return page.Cell(note=_REASONS.get(score.flag if score else ABSENT, _REASONS[ABSENT]))
    return page.Cell(
        value=score.value, low=_number(score.low), high=_number(score.high), seed_sd=_number(score.seed_sd)
    )


def _monthly(series: ModelSeries, comparison: Comparison) -> Iterable[page.MonthlyScores]:
    if not series.months:
        return
    for metric in series.months[0].scores:
        points = tuple(
            page.MonthPoint(
                month=month.month,
                mean=_number(month.scores[metric].value),
                low=_number(month.scores[metric].low),
                high=_number(month.scores[metric].high),
                segment=comparison.segment,
            )
            for month in series.months
        )
        yield page.MonthlyScores(
            name=METRIC_NAMES[metric],
            points=points,
            neutral=METRICS[metric].no_skill,
            format="percent" if metric in _PERCENT else "score",
        )


def _deciles(series: ModelSeries, comparison: Comparison) -> tuple[page.DecileReturns, ...]:
    if series.deciles is None:
        return ()
    points = tuple(
        page.Bucket(bucket=i + 1, mean=_number(s.value), low=_number(s.low), high=_number(s.high))
        for i, s in enumerate(series.deciles.returns)
    )
    return (page.DecileReturns(segment=comparison.segment, points=points),)


def _calibration(series: ModelSeries, comparison: Comparison) -> tuple[page.Calibration, ...]:
    curve = series.calibration
    if curve is None or not any(curve.y_hat):
        return ()
    points = tuple(
        page.CalibrationPoint(
            forecast=forecast,
            realised=_number(y.value),
            low=_number(y.low),
            high=_number(y.high),
            num_rows=num,
        )
        for forecast, y, num in zip(curve.y_hat, curve.y, curve.count, strict=True)
    )
    return (page.Calibration(kind="return", segment=comparison.segment, points=points),)


def _symbol_scores(series: ModelSeries, comparison: Comparison) -> page.SymbolScores:
    frame = series.symbols
    columns = (
        page.Column(key="num_rows", title=Text("rows", "行数"), format="integer"),
        page.Column(key="mae", title=Text("MAE", "MAE"), format="basis_points", better="lower"),
        page.Column(key="direction", title=METRIC_NAMES["direction"], format="percent", neutral=0.5),
        page.Column(key="r2", title=METRIC_NAMES["r2"], format="percent", neutral=0.0),
        page.Column(
            key="rank_ic_over_time", title=Text("rank correlation over time", "时序秩相关"), format="score",
            neutral=0.0,
        ),
    )  # fmt: skip
    return page.SymbolScores(
        columns=columns,
        symbols=tuple(frame["symbol"].to_list()),
        values=tuple(tuple(frame[column.key].to_list()) for column in columns),
        segment=comparison.segment,
    )


def _loss(run: RunFolder, market: Market, info: dict[str, Any]) -> tuple[page.LossCurve, ...]:
    lines = run.read_metrics()
    if not lines:
        return ()
    points = tuple(
        page.LossPoint(
            step=line["step"], epoch=line["epoch"], train_loss=line["train_loss"],
            stop_score=line["stop_score"], learning_rate=line["lr"],
        )
        for line in lines
    )  # fmt: skip
    score = Text("R² of the target", "目标 R²") if market.small_universe else Text.same("RankIC")
    return (
        page.LossCurve(
            name=Text.same(run.name), points=points, best_step=info.get("best_step"), score_name=score
        ),
    )


def _segments(market: Market, shown: Sequence[str]) -> Iterable[page.Segment]:
    bars, counts = market.bars, segment_counts(market)
    for name, (first, last) in market.plan.spans.items():
        found = counts[name]
        yield page.Segment(
            name=name,
            first_session=str(bars.calendar.times[first]),
            last_session=str(bars.calendar.times[last]),
            num_sessions=last - first + 1,
            num_labelled=found["labelled"],
            num_purged=found["purged"],
            num_terminal=found["terminal"] + found["purged_terminal"],
            num_unknown=found["unknown"],
            is_sealed=name == "test" and name not in shown,
        )


def _data_summary(market: Market, info: dict[str, Any]) -> page.DataSummary:
    bars = market.bars
    return page.DataSummary(
        store_version=market.store_version,
        market=bars.market,
        frequency=bars.calendar.frequency,
        calendar=bars.calendar.name,
        basis=market.basis,
        num_symbols=bars.num_symbols,
        num_rows=len(bars),
        num_sessions=len(bars.calendar),
        first_session=str(bars.calendar.times[0]),
        last_session=str(bars.calendar.times[-1]),
        survivors_only=market.quality.survivors_only,
        digest=market.data_digest,
        defects=tuple(
            page.DefectRow(
                kind=row.kind,
                title=KINDS[row.kind].title,
                num_rows=row.num_findings,
                num_symbols=row.num_symbols,
                policy=row.policy,
                example=Text.same(row.example),
            )
            for row in market.quality.summary_rows(market.policy)
        ),
    )


def _predictions(forecasts: Forecasts, horizon: int) -> Iterable[page.Prediction]:
    asof, end = forecasts.asof, forecasts.for_sessions[horizon]
    for rank, row in enumerate(forecasts.table.filter(horizon=horizon).iter_rows(named=True), start=1):
        yield page.Prediction(
            symbol=row["symbol"], as_of=asof, for_session=end, y_hat=row["y_hat"], sigma=row["sigma"],
            p_up=row["p_up"], score=row["score"], rank=rank,
        )  # fmt: skip
    for symbol, english, chinese in forecasts.reasons.iter_rows():
        yield page.Prediction(symbol=symbol, as_of=asof, for_session=end, note=Text(english, chinese))


def _failures(run: RunFolder) -> Iterable[page.Failure]:
    for row in run.read("failures.json"):
        yield page.Failure(
            symbol=row["symbol"],
            stage=Text(row["stage"], {"predict": "预测"}.get(row["stage"], row["stage"])),
            error=Text.same(row["reason"]),
            fallback=Text(row["fallback"], {"no prediction": "不预测"}.get(row["fallback"], row["fallback"])),
        )


def _empty(
    forecasts: Forecasts | BarcastError, comparison: Comparison, series: ModelSeries
) -> Iterable[page.EmptyReason]:
    if not isinstance(forecasts, Forecasts):
        reason = Text(f"No forecasts: {forecasts}", f"没有预测：{forecasts}")
        yield page.EmptyReason(section="predictions", reason=reason)
    if series.calibration is not None and not any(series.calibration.y_hat):
        yield page.EmptyReason(section="calibration", reason=NO_SIZE)
    if not comparison.cross_sectional:
        reason = Text(
            "Left out: a small universe has too few symbols at a time to sort into buckets.",
            "未给出：标的过少，无法在同一时间按分数分组。",
        )
        yield page.EmptyReason(section="deciles", reason=reason)
