"""What a reader must know before believing a table."""

from __future__ import annotations

import numpy as np

from barcast.core.bars import MIN_SYMBOLS
from barcast.core.texts import Text, counted
from barcast.evaluation.align import CommonRows
from barcast.evaluation.results import Note, Table
from barcast.evaluation.sealed import Openings
from barcast.evaluation.settings import Settings

#: Share of variance above which a daily return forecast is more likely a leak than a discovery.
SUSPICIOUS_R2 = 0.02
#: Kind of the note on a segment that forecasts were fitted on.
IN_SAMPLE = "in_sample"
_LOW_COVERAGE = 0.8
_FEW_BLOCKS = 10


def notes_on(rows: CommonRows, settings: Settings, table: Table) -> tuple[Note, ...]:
    """Return the warnings and explanations of a comparison, leaks first."""
    return (
        *_leak_notes(rows, settings, table),
        *_universe_notes(rows, settings),
        *_coverage_notes(rows),
        *_session_notes(table),
        *_tradable_notes(rows),
        *_sealed_notes(rows, settings),
        *_in_sample_notes(rows),
        *_search_notes(table),
    )


def _leak_notes(rows: CommonRows, settings: Settings, table: Table) -> list[Note]:
    if not settings.daily or rows.segment == "fit":
        return []
    found = {row.model: row.scores["r2"].value for row in table.rows}
    return [
        Note(
            "leak",
            Text(
                f"{model}: R² against zero of {value:.2%}. Forecasts of daily returns rarely pass 0.5 %; "
                f"above {SUSPICIOUS_R2:.0%}, look for a leak first: run the audit.",
                f"{model}：对零 R² 为 {value:.2%}。日收益率预测很少超过 0.5 %；超过 {SUSPICIOUS_R2:.0%} "
                "时请先排查信息泄漏：运行审计。",
            ),
        )
        for model, value in found.items()
        if value > SUSPICIOUS_R2
    ]


def _universe_notes(rows: CommonRows, settings: Settings) -> list[Note]:
    notes = []
    typical = int(np.median(np.bincount(rows.session)))
    if not settings.cross_sectional:
        text = Text(
            f"Small universe ({counted(typical, 'symbol')} a session): IC and RankIC are left out below "
            f"{MIN_SYMBOLS}; R² against zero decides, AUC beside it.",
            f"小样本空间（每个时点 {typical} 个标的）：少于 {MIN_SYMBOLS} 个时不计算 IC 与 RankIC；"
            "以对零 R² 判定，并列出 AUC。",
        )
        notes.append(Note("small_universe", text))
    elif typical < MIN_SYMBOLS:
        text = Text(
            f"Sessions hold {counted(typical, 'symbol')}, fewer than {MIN_SYMBOLS}: RankIC is noisy here; "
            "prefer the time-series scores.",
            f"每个时点只有 {typical} 个标的，少于 {MIN_SYMBOLS}：RankIC 噪声很大，宜看时间序列指标。",
        )
        notes.append(Note("thin_sessions", text))
    if settings.survivors_only:
        text = Text(
            "Survivors only: no symbol of this panel was ever delisted, which flatters every row.",
            "仅含存续标的：样本中没有任何退市标的，所有结果都偏乐观。",
        )
        notes.append(Note("survivors_only", text))
    return notes


def _coverage_notes(rows: CommonRows) -> list[Note]:
    notes = []
    empty = ", ".join(sorted(name for name, covered in rows.coverage.items() if not covered))
    if empty:
        text = Text(f"Left out, no usable forecast: {empty}.", f"没有可用预测，未参与比较：{empty}。")
        notes.append(Note("no_forecast", text))
    share = len(rows) / rows.num_labelled
    if share < _LOW_COVERAGE:
        least = min(rows.names, key=lambda name: (rows.coverage[name], name))
        said = f"{least} ({rows.coverage[least]:.1%})"
        text = Text(
            f"Only {share:.1%} of the labelled rows are covered by every model; {said} covers least.",
            f"所有模型共同覆盖的样本只占有标签样本的 {share:.1%}；覆盖最少的是 {said}。",
        )
        notes.append(Note("coverage", text))
    return notes


def _session_notes(table: Table) -> list[Note]:
    if table.num_blocks >= _FEW_BLOCKS:
        return []
    sessions, blocks = table.num_sessions, table.num_blocks
    text = Text(
        f"Only {counted(blocks, 'block')} in {counted(sessions, 'session')}: intervals are rough, or "
        "missing.",
        f"{sessions} 个交易时点只构成 {blocks} 块：区间粗略，或无法给出。",
    )
    return [Note("few_sessions", text)]


def _tradable_notes(rows: CommonRows) -> list[Note]:
    if rows.tradable.any():
        return []
    return [Note("untradable", Text("No row could be traded.", "没有任何一行可以成交。"))]


def _sealed_notes(rows: CommonRows, settings: Settings) -> list[Note]:
    if rows.segment != "test":
        return []
    if settings.openings is None:
        text = Text(
            "Nobody counted how often this test segment was looked at.", "没有记录这段测试集被查看过多少次。"
        )
    else:
        text = _openings_text(settings.openings)
    return [Note("sealed", text)]


def _in_sample_notes(rows: CommonRows) -> list[Note]:
    if rows.segment == "route":
        return [Note(IN_SAMPLE, _routed_text(name)) for name in sorted(rows.routed)]
    if rows.segment != "weigh":
        return []
    text = Text(
        "The size of the forecasts was fitted on these very rows (`weigh`): MAE, RMSE, R², Brier and log "
        "loss are partly in-sample and flatter. The IC family and AUC, which read the order only, are not.",
        "预测的幅度正是在这些样本（`weigh`）上拟合的：MAE、RMSE、R²、Brier 与对数损失部分属于样本内结果，"
        "会偏乐观；只看次序的 IC 类指标与 AUC 不受影响。",
    )
    return [Note(IN_SAMPLE, text)]


def _routed_text(name: str) -> Text:
    return Text(
        f"{name}: who serves whom was decided on these very rows (`route`), which flatters it; `test` tells.",
        f"{name}：由谁服务正是在这些样本（`route`）上决定的，此处的得分偏乐观；要看 `test`。",
    )


def _search_notes(table: Table) -> list[Note]:
    return [
        Note(
            "searched",
            Text(
                f"{row.model}: chosen among {counted(row.num_trials, 'trial')} on `stop`. The best of many "
                "is partly luck there; on later segments its score is that of one candidate, like any other.",
                f"{row.model}：在 `stop` 上从 {row.num_trials} 次试验中选出。多次试验中的最好者在 `stop` "
                "上含有运气成分；在其后的分段上，它与其他结果一样，只是一个候选的得分。",
            ),
        )
        for row in table.rows
        if row.num_trials
    ]


def _openings_text(openings: Openings) -> Text:
    total, elsewhere = openings.total, openings.elsewhere
    english = "opened once" if total == 1 else f"opened {total} times"
    chinese = f"已开启 {total} 次"
    if elsewhere:
        which = "on other versions, selections or horizons over the same dates"
        english += f" ({elsewhere} of them {which})" if elsewhere < total else f", {which}"
        chinese += (
            f"，其中 {elsewhere} 次" if elsewhere < total else "，都"
        ) + "是针对同一时期的其他数据版本、选取或预测期"
    return Text(
        f"The test segment was {english}; each look devalues the next.",
        f"测试集{chinese}；每多看一次，其后的结果就更不可信。",
    )
