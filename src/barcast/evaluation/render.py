"""A comparison as text: tables for the terminal, Markdown for documents, both in English and 中文.

::

    print(to_text(comparison, "zh"))
    Path("comparison.md").write_text(to_markdown(comparison))
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from barcast.core.texts import Text, counted
from barcast.evaluation.results import NAIVE, Comparison, Cost, Row, Table
from barcast.evaluation.sums import METRICS
from barcast.evaluation.words import (
    METRIC_NAMES,
    SEGMENT_NAMES,
    among_trials,
    cell,
    number,
    seconds,
    size,
    with_range,
)

if TYPE_CHECKING:
    from rich.console import Group

Language = Literal["en", "zh"]

_TITLES = {"all": Text("all rows", "全部样本"), "tradable": Text("tradable rows only", "仅可成交样本")}
_ALL_SCORES = Text("{}: scores over rows", "{}：逐行指标")
_BY_SESSION = Text("{}: scores across symbols, averaged over time", "{}：截面指标，按时间取平均")
_COSTS = Text("time and size", "用时与大小")
_MODEL, _COVERAGE = Text("model", "模型"), Text("covers", "覆盖")
_VERSUS, _BEST_NAIVE = Text("vs {}", "对 {}"), Text("vs {} (best naive)", "对 {}（最好的朴素基准）")
_NAIVE_MARK = Text("{} (naive)", "{}（朴素）")
_T_VALUE = Text("t of RankIC", "RankIC 的 t")
_COST = (Text("trained in", "训练"), Text("size", "大小"), Text("predicted in", "预测"))
_FOOTNOTE = Text(
    "[low, high]: {level:.0%} interval by blocks of {block} sessions; ± sd over seeds; "
    "* always the same direction; – undefined (IC family: the forecast never varies within a session) or not "
    "measured",
    "[下限, 上限] 为按每块 {block} 个时点重抽样的 {level:.0%} 区间；± 为种子间标准差；* 始终预测同一方向；"
    "– 无定义（IC 类：预测在截面内不变）或未测量",
)
_HEADING = Text(
    "Segment {segment}: {first} to {last}, {said}, {rows} rows ({share:.1%} of the labelled), "
    "{ahead} ahead, entry after {delay}",
    "{segment}：{first} 至 {last}，{sessions} 个时点，{symbols} 个标的，{rows} 行"
    "（占有标签样本的 {share:.1%}），预测未来 {horizon} 期，延迟 {delay} 期入场",
)


@dataclass(frozen=True)
class Grid:
    """One table as strings: a title, column heads, rows."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def _say(said: Text, language: Language) -> str:
    return said.zh if language == "zh" else said.en


def grids(comparison: Comparison, language: Language = "en", *, full: bool = True) -> tuple[Grid, ...]:
    """Return the tables to print: skill and differences, all scores, costs where measured.

    Without ``full`` the tradable rows get no table of all scores.
    """
    return tuple(_grids(comparison, language, full))


def _grids(comparison: Comparison, language: Language, full: bool) -> Iterator[Grid]:
    for name, table in comparison.tables.items():
        title = _say(_TITLES[name], language)
        yield _skill_grid(comparison.primary, table, title, language)
        if full or name == "all":
            yield from _score_grids(table, title, language)
    if any(row.cost != Cost() for row in comparison.all_rows.rows):
        yield _cost_grid(comparison.all_rows, language)


def _skill_grid(primary: str, table: Table, title: str, language: Language) -> Grid:
    heads = [_say(_MODEL, language), _say(_COVERAGE, language), _say(METRIC_NAMES[primary], language)]
    heads += [_say(_VERSUS, language).format(table.reference)] * bool(table.reference)
    heads += [_say(_BEST_NAIVE, language).format(table.best_naive)] * bool(table.best_naive)
    return Grid(title, tuple(heads), tuple(_skill_cells(row, primary, table, language) for row in table.rows))


def _skill_cells(row: Row, primary: str, table: Table, language: Language) -> tuple[str, ...]:
    seeds = f" ×{row.num_seeds}" if row.num_seeds > 1 else ""
    name = _say(_NAIVE_MARK, language).format(row.model) if row.kind == NAIVE else row.model
    name = _say(Text.same(name + seeds) + among_trials(row.num_trials), language)
    cells = [name, f"{row.coverage:.1%}", with_range(primary, row.scores[primary])]
    for opponent, differences in ((table.reference, row.vs_reference), (table.best_naive, row.vs_naive)):
        if opponent:
            known = primary in differences and row.model != opponent
            cells.append(with_range(primary, differences[primary], sign=True) if known else "·")
    return tuple(cells)


def _score_grids(table: Table, title: str, language: Language) -> Iterator[Grid]:
    """Yield one grid for the scores over all rows and one for those by session: each fits a terminal."""
    shown = list(dict.fromkeys(metric for row in table.rows for metric in row.scores))
    by_session = [metric for metric in shown if METRICS[metric].cross_sectional]
    over_rows = [metric for metric in shown if metric not in by_session]
    yield _score_grid(table, over_rows, _say(_ALL_SCORES, language).format(title), language)
    if by_session:
        grid = _score_grid(table, by_session, _say(_BY_SESSION, language).format(title), language)
        tests = (number("icir", row.rank_ic_t) for row in table.rows)
        rows = tuple((*cells, test) for cells, test in zip(grid.rows, tests, strict=True))
        yield Grid(grid.title, (*grid.heads, _say(_T_VALUE, language)), rows)


def _score_grid(table: Table, metrics: Sequence[str], title: str, language: Language) -> Grid:
    heads = (_say(_MODEL, language), *(_say(METRIC_NAMES[metric], language) for metric in metrics))
    rows = ((row.model, *(cell(metric, row.scores.get(metric)) for metric in metrics)) for row in table.rows)
    return Grid(title, heads, tuple(rows))


def _cost_grid(table: Table, language: Language) -> Grid:
    heads = (_say(_MODEL, language), *(_say(said, language) for said in _COST))
    rows = (
        (
            row.model,
            seconds(row.cost.train_seconds),
            size(row.cost.size_bytes),
            seconds(row.cost.predict_seconds),
        )
        for row in table.rows
    )
    return Grid(_say(_COSTS, language), heads, tuple(rows))


def _heading(comparison: Comparison, language: Language) -> str:
    table = comparison.all_rows
    step = "session" if comparison.is_daily else "bar"
    return _say(_HEADING.in_steps(daily=comparison.is_daily), language).format(
        segment=_say(SEGMENT_NAMES[comparison.segment], language),
        first=comparison.first[:16].removesuffix("T00:00"),
        last=comparison.last[:16].removesuffix("T00:00"),
        sessions=table.num_sessions,
        symbols=table.num_symbols,
        said=f"{counted(table.num_sessions, step)}, {counted(table.num_symbols, 'symbol')}",
        ahead=counted(comparison.horizon, step),
        rows=f"{table.num_rows:,}",
        share=comparison.num_common / comparison.num_labelled,
        horizon=comparison.horizon,
        delay=comparison.delay,
    )


def _footnote(comparison: Comparison, language: Language) -> str:
    said = _say(_FOOTNOTE.in_steps(daily=comparison.is_daily), language)
    return said.format(level=comparison.level, block=comparison.all_rows.block_length)


def _lines(comparison: Comparison, language: Language) -> list[str]:
    return [_footnote(comparison, language), *(_say(note.text, language) for note in comparison.notes)]


def to_markdown(comparison: Comparison, language: Language = "en") -> str:
    """Return heading, verdict, tables and notes as Markdown."""
    parts = [f"**{_heading(comparison, language)}**", _say(comparison.verdict, language)]
    for grid in grids(comparison, language):
        parts += [f"*{grid.title}*", _markdown_table(grid)]
    parts.append("\n".join(f"- {line}" for line in _lines(comparison, language)))
    return "\n\n".join(parts) + "\n"


def _markdown_table(grid: Grid) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"

    rule = "| --- |" + " ---: |" * (len(grid.heads) - 1)
    return "\n".join([line(grid.heads), rule, *(line(row) for row in grid.rows)])


def to_rich(comparison: Comparison, language: Language = "en") -> Group:
    """Return the comparison for a rich console; scores on tradable rows are shortened to the skill table."""
    from rich.box import SIMPLE_HEAD  # local: only a terminal needs rich
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    parts: list[Text | RichTable] = [Text(_heading(comparison, language), style="bold")]
    for grid in grids(comparison, language, full=False):
        table = RichTable(title=grid.title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for place, head in enumerate(grid.heads):
            table.add_column(head, justify="right" if place else "left", overflow="fold")
        for cells in grid.rows:
            table.add_row(*(Text(text) for text in cells))
        parts.append(table)
    parts += [Text(line, style="dim") for line in _lines(comparison, language)]
    parts.append(Text(_say(comparison.verdict, language), style="bold"))
    return Group(*parts)


def to_text(comparison: Comparison, language: Language = "en", *, width: int = 120) -> str:
    """Return the comparison as plain text of at most ``width`` columns."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as captured:
        console.print(to_rich(comparison, language))
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"
