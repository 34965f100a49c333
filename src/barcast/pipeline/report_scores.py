"""The report's scores: the verdict, the headline number, and the tables of comparison."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from barcast.core.texts import Text, counted
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
from barcast.evaluation.words import (
    METRIC_NAMES,
    SEGMENT_NAMES,
    among_trials,
    full_name,
    model_name,
    number,
)
from barcast.pipeline.compare import Compared
from barcast.reports import data as page

_PERCENT = {"r2", "direction", "up_share", "quantile_coverage"}
_RETURNS = {"mae", "rmse", "pinball"}
_REASONS = {
    CONSTANT: Text("undefined: the forecast never varies", "无定义：预测值不变"),
    ONE_CLASS: Text("undefined: every outcome has the same sign", "无定义：所有结果同号"),
    FEW_SESSIONS: Text("too few sessions", "交易日太少"),
    ABSENT: Text("not given by this model", "该模型不提供"),
}
_ITSELF = page.Cell(note=Text("the row that is subtracted", "被减的就是这一行"))
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


def finite(value: float | None) -> float | None:
    """Return the value, None where there is no number: JSON knows no NaN."""
    return None if value is None or not math.isfinite(value) else float(value)


def interval_note(comparison: Comparison) -> Text:
    """Say what the intervals are."""
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


def verdict_of(comparisons: Sequence[Comparison]) -> page.Verdict:
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


def headline_of(comparisons: Sequence[Comparison], model: str) -> page.HeadlineScore | None:
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
        value=finite(score.value),
        low=finite(score.low),
        high=finite(score.high),
        segment=comparison.segment,
        format=score_format(metric),
        note=note,
    )


def _row(table: Table, model: str) -> Row | None:
    return next((row for row in table.rows if row.model == model), None)


def score_tables(compared: Compared, model: str) -> Iterable[page.Comparison]:
    """Return the page's tables of scores, last segment first: with all rows, and with tradable ones only."""
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


def score_format(metric: str) -> page.Format:
    """Return how the page writes a score that is no error."""
    return "percent" if metric in _PERCENT else "score"


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
        page.Cell(value=finite(value))
        for value in (row.coverage, cost.train_seconds, cost.size_bytes, cost.predict_seconds)
    ]
    group = {NAIVE: "naive", REFERENCE: "reference"}.get(row.kind, "model")
    return page.ComparisonRow(
        name=model_name(row.model) + among_trials(row.num_trials), cells=tuple(cells), group=group,  # type: ignore[arg-type]
        is_this_run=row.model == model, typed=row.model,
    )  # fmt: skip


def _cell(score: Score | None) -> page.Cell:
    if score is None or not math.isfinite(score.value):
        return page.Cell(note=_REASONS.get(score.flag if score else ABSENT, _REASONS[ABSENT]))
    return page.Cell(
        value=score.value, low=finite(score.low), high=finite(score.high), seed_sd=finite(score.seed_sd)
    )
