"""What a check found, as a table that is saved, counted and shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from barcast.core.calendar import Calendar
from barcast.quality.kinds import KINDS, Choice
from barcast.quality.policy import QualityPolicy
from barcast.quality.table import FINDING_COLUMNS, WHOLE_PANEL


@dataclass(frozen=True)
class SummaryRow:
    """One kind of defect in numbers.

    Attributes
    ----------
    kind : str
        Name of the kind.
    num_findings, num_symbols : int
        Findings, and symbols that have one (0 for defects of the panel).
    policy : Choice
        What happens to the rows.
    example : str
        The largest finding in words: symbol, time, detail.
    """

    kind: str
    num_findings: int
    num_symbols: int
    policy: Choice
    example: str


@dataclass(frozen=True)
class QualityReport:
    """The findings of one check.

    Attributes
    ----------
    market, calendar, frequency : str
        What was checked.
    num_rows, num_symbols : int
        How much was checked.
    first, last : str
        Its first and last time, in ISO form; empty without rows.
    findings : pl.DataFrame
        ``kind, symbol, time, until, value, detail, file``, in the order of the registry, then by symbol
        and time. ``time`` is the row at which the defect shows (the first one of several), ``until`` the
        last one, both in the type of the checked frame. ``symbol`` is empty for defects of the panel.
        ``value`` is the number that tripped the threshold, NaN where there is none. ``file`` is null unless
        the source is known.
    """

    market: str
    calendar: str
    frequency: str
    num_rows: int
    num_symbols: int
    first: str
    last: str
    findings: pl.DataFrame

    @classmethod
    def build(
        cls, frame: pl.DataFrame, calendar: Calendar, market: str, found: Sequence[pl.DataFrame]
    ) -> QualityReport:
        """Put the detectors' findings in order."""
        times = frame["time"]
        return cls(
            market=market,
            calendar=calendar.name,
            frequency=calendar.frequency,
            num_rows=len(frame),
            num_symbols=frame["symbol"].n_unique(),
            first=str(times.min() or ""),
            last=str(times.max() or ""),
            findings=_in_order([part for part in found if len(part)], times.dtype),
        )

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each kind that has any, in the order of the registry."""
        counted = dict(self.findings.group_by("kind").len().iter_rows())
        return {kind: counted[kind] for kind in KINDS if kind in counted}

    @property
    def panel(self) -> pl.DataFrame:
        """The findings about the panel as a whole."""
        return self.findings.filter(pl.col("symbol") == WHOLE_PANEL)

    @property
    def survivors_only(self) -> bool:
        """Whether scores on this panel need the stamp "survivors only"."""
        return "no_delisted_symbol" in self.counts

    def of(self, kind: str) -> pl.DataFrame:
        """Return the findings of one kind."""
        return self.findings.filter(pl.col("kind") == kind)

    def summary_rows(self, policy: QualityPolicy | None = None) -> list[SummaryRow]:
        """Return one row for each kind that was found."""
        chosen = policy or QualityPolicy()
        rows = []
        for kind, count in self.counts.items():
            part = self.of(kind)
            symbols = part.filter(pl.col("symbol") != WHOLE_PANEL)["symbol"].n_unique()
            rows.append(SummaryRow(kind, count, symbols, chosen.choice(kind), example_words(part)))
        return rows

    def to_json(self, max_findings: int | None = None) -> str:
        """Return everything as JSON text; times in ISO form, NaN as null.

        Parameters
        ----------
        max_findings : int, optional
            Findings of each kind to give as examples, largest values first; all by default. ``counts`` and
            ``symbols`` (by kind) are those of the whole check either way.
        """
        shown = self.findings
        if max_findings is not None:
            size = pl.col("value").fill_nan(0).abs().rank("ordinal", descending=True)
            shown = shown.filter(size.over("kind") <= max_findings)
        columns = shown.with_columns(pl.col("time", "until").cast(pl.String), pl.col("value").fill_nan(None))
        head = {name: getattr(self, name) for name in _HEAD}
        return json.dumps(
            {
                **head, "survivors_only": self.survivors_only, "counts": self.counts,
                "symbols": {row.kind: row.num_symbols for row in self.summary_rows()},
                "max_findings": max_findings, "findings": columns.to_dict(as_series=False),
            },
            ensure_ascii=False, allow_nan=False,
        )  # fmt: skip


_HEAD = ("market", "calendar", "frequency", "num_rows", "num_symbols", "first", "last")
_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "kind": pl.String,
    "symbol": pl.String,
    "value": pl.Float64,
    "detail": pl.String,
    "file": pl.String,
}


def _in_order(found: list[pl.DataFrame], time: pl.DataType) -> pl.DataFrame:
    schema = pl.Schema({name: _TYPES.get(name, time) for name in FINDING_COLUMNS})
    if not found:
        return pl.DataFrame(schema=schema)
    order = pl.DataFrame({"kind": list(KINDS), "rank": range(len(KINDS))})
    value = pl.col("value")
    return (
        pl.concat(part.select(FINDING_COLUMNS).cast(schema) for part in found)
        .join(order, on="kind", how="left")
        .sort("rank", "symbol", "time")
        .select(FINDING_COLUMNS)
        .with_columns(pl.when(value.is_finite()).then(value).otherwise(float("nan")))
        .with_columns(pl.col("detail").fill_null(""))
    )


def example_words(part: pl.DataFrame) -> str:
    """Describe the finding of one kind with the largest value."""
    size = pl.col("value").fill_nan(0).abs()
    row = part.select(pl.all().sort_by(size, descending=True, maintain_order=True).first()).row(0, named=True)
    where = f"{row['symbol']} {row['time']}".strip()
    until = f" .. {row['until']}" if row["until"] != row["time"] else ""
    return f"{where}{until}" + (f": {row['detail']}" if row["detail"] else "")
