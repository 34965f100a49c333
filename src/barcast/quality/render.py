"""The check as lines for a terminal, in English or 中文."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import polars as pl

from barcast.core.texts import Language, Text
from barcast.quality.kinds import KINDS, Choice, known_kind
from barcast.quality.policy import QualityPolicy
from barcast.quality.report import QualityReport

_HEADER = (
    Text("kind", "种类"), Text("what", "含义"), Text("found", "数量"),
    Text("symbols", "代码数"), Text("policy", "处理"), Text("for example", "例"),
)  # fmt: skip
_CHOICES: dict[Choice, Text] = {
    "refuse": Text("refuse", "拒绝 refuse"),
    "mask": Text("mask", "排除 mask"),
    "accept": Text("accept", "接受 accept"),
}
_CHECKED = Text(
    "{rows:,} rows, {symbols:,} symbols, {first} .. {last} ({market}, {calendar}, {frequency})",
    "{rows:,} 行，{symbols:,} 个代码，{first} .. {last}（{market}，{calendar}，{frequency}）",
)
_CLEAN = Text("no defect found", "未发现缺陷")
_TODO = Text("what to do", "怎么办")
#: Longest example in the table.
EXAMPLE_WIDTH = 72


def table_rows(report: QualityReport, policy: QualityPolicy, lang: Language = "en") -> list[tuple[str, ...]]:
    """Return the header and one row of words for each kind that was found."""
    rows = [tuple(text.in_language(lang) for text in _HEADER)]
    for row in report.summary_rows(policy):
        rows.append(
            (
                row.kind,
                KINDS[row.kind].title.in_language(lang),
                f"{row.num_findings:,}",
                f"{row.num_symbols:,}" if row.num_symbols else "-",
                _CHOICES[row.policy].in_language(lang),
                _cut(row.example),
            )
        )
    return rows


def report_lines(report: QualityReport, policy: QualityPolicy, lang: Language = "en") -> list[str]:
    """Return the whole report as lines: what was checked, the table, and what to do about each kind."""
    head = _CHECKED.in_language(lang).format(
        rows=report.num_rows, symbols=report.num_symbols, first=report.first, last=report.last,
        market=report.market, calendar=report.calendar, frequency=report.frequency,
    )  # fmt: skip
    rows = table_rows(report, policy, lang)
    if len(rows) == 1:
        return [head, _CLEAN.in_language(lang)]
    advice = [f"  {row[0]}: {KINDS[row[0]].todo.in_language(lang)}" for row in rows[1:]]
    return [head, "", *_aligned(rows, numbers=(2, 3)), "", f"{_TODO.in_language(lang)}:", *advice]


def finding_lines(report: QualityReport, kind: str, lang: Language = "en", limit: int = 20) -> list[str]:
    """Return the offending rows of one kind, largest values first, and how many more there are.

    Raises
    ------
    UsageError
        On an unknown kind (with the nearest name).
    """
    known = known_kind(kind)
    size = pl.col("value").abs().fill_nan(0)
    part = report.of(kind).sort(size, descending=True, maintain_order=True)
    head = f"{kind}: {known.title.in_language(lang)} ({len(part):,}). {known.meaning.in_language(lang)}"
    rows = [
        (row["symbol"], _span(row["time"], row["until"]), row["detail"], row["file"] or "")
        for row in part.head(limit).iter_rows(named=True)
    ]
    more = [f"... {len(part) - limit:,}"] if len(part) > limit else []
    return [head, *(_aligned(rows, numbers=()) if rows else []), *more]


def _span(first: object, last: object) -> str:
    return f"{first}" if first == last else f"{first} .. {last}"


def _cut(text: str) -> str:
    return text if len(text) <= EXAMPLE_WIDTH else text[: EXAMPLE_WIDTH - 3] + "..."


def _width(text: str) -> int:
    """Columns that a text takes in a terminal: Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _aligned(rows: Sequence[tuple[str, ...]], numbers: tuple[int, ...]) -> list[str]:
    """Pad columns to one width, the columns ``numbers`` to the right."""
    widths = [max(_width(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = []
        for column, (text, width) in enumerate(zip(row, widths, strict=True)):
            pad = " " * (width - _width(text))
            cells.append(pad + text if column in numbers else text + pad)
        lines.append("  ".join(cells).rstrip())
    return lines
