"""``report.html``: a run's facts put into the page's words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from barcast.core.errors import BarcastError, RunError
from barcast.core.runs import RunFolder
from barcast.core.texts import Text, counted
from barcast.core.workspace import Workspace
from barcast.evaluation.align import CommonRows
from barcast.evaluation.results import Comparison
from barcast.evaluation.series import ModelSeries, model_series
from barcast.evaluation.sums import METRICS
from barcast.evaluation.words import METRIC_NAMES
from barcast.models.registry import model_entry
from barcast.pipeline.compare import Compared
from barcast.pipeline.market import Market, segment_counts
from barcast.pipeline.members import curves
from barcast.pipeline.predict import NO_SIZE, Forecasts
from barcast.pipeline.report_fleet import fleet_failures, fleet_part
from barcast.pipeline.report_routes import routing_part
from barcast.pipeline.report_scores import (
    finite,
    headline_of,
    interval_note,
    score_format,
    score_tables,
    verdict_of,
)
from barcast.quality import KINDS
from barcast.reports import data as page
from barcast.reports.page import write_report

#: Notes that the page itself shows from other facts.
_SAID_BY_THE_PAGE = {"survivors_only", "small_universe"}


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
    name, kind = _name_in(rows, run.name), model_entry(info["model"]).kind
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
        interval_note=interval_note(chosen),
        data=_data_summary(market, info),
        verdict=verdict_of(asked),
        headline=headline_of(asked, name),
        comparisons=tuple(score_tables(compared, name)),
        monthly=tuple(_monthly(series, chosen)),
        deciles=_deciles(series, chosen),
        calibration=_calibration(series, chosen),
        predictions=tuple(_predictions(forecasts, chosen.horizon))
        if isinstance(forecasts, Forecasts)
        else (),
        symbols=_symbol_scores(series, chosen),
        loss=_loss(run, market, info),
        segments=tuple(_segments(market, [comparison.segment for comparison in compared.comparisons])),
        failures=(*_failures(run), *(fleet_failures(run) if kind == "fleet" else ())),
        warnings=tuple(note.text for note in chosen.notes if note.kind not in _SAID_BY_THE_PAGE)
        + (_warnings(forecasts, chosen.horizon) if isinstance(forecasts, Forecasts) else ()),
        config=run.read("config.json"),
        environment=run.read("environment.json"),
        empty=tuple(_empty(forecasts, chosen, series)),
        fleet=fleet_part(run, rows, series, chosen.horizon) if kind == "fleet" else None,
        routing=routing_part(run, chosen.horizon) if kind == "routed" else None,
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


def _monthly(series: ModelSeries, comparison: Comparison) -> Iterable[page.MonthlyScores]:
    if not series.months:
        return
    for metric in series.months[0].scores:
        points = tuple(
            page.MonthPoint(
                month=month.month,
                mean=finite(month.scores[metric].value),
                low=finite(month.scores[metric].low),
                high=finite(month.scores[metric].high),
                segment=comparison.segment,
            )
            for month in series.months
        )
        yield page.MonthlyScores(
            name=METRIC_NAMES[metric],
            points=points,
            neutral=METRICS[metric].no_skill,
            format=score_format(metric),
        )


def _deciles(series: ModelSeries, comparison: Comparison) -> tuple[page.DecileReturns, ...]:
    if series.deciles is None:
        return ()
    points = tuple(
        page.Bucket(bucket=i + 1, mean=finite(s.value), low=finite(s.low), high=finite(s.high))
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
            realised=finite(y.value),
            low=finite(y.low),
            high=finite(y.high),
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
    score = Text("R² of the target", "目标 R²") if market.small_universe else Text.same("RankIC")
    best = {None: info.get("best_step"), **{one["seed"]: one["best_step"] for one in info.get("members", ())}}
    found = []
    for seed, lines in curves(run).items():
        points = tuple(
            page.LossPoint(
                step=line["step"], epoch=line["epoch"], train_loss=line["train_loss"],
                stop_score=line["stop_score"], learning_rate=line["lr"],
            )
            for line in lines
        )  # fmt: skip
        name = Text.same(run.name) if seed is None else Text(f"seed {seed}", f"种子 {seed}")
        found.append(page.LossCurve(name=name, points=points, best_step=best.get(seed), score_name=score))
    return tuple(found)


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
