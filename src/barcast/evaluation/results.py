"""What a comparison says, as plain rows: saved as JSON, shown as text, drawn by a report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from barcast.core.config import to_plain
from barcast.core.texts import Text

#: Why a score, or its interval, is missing or special.
CONSTANT = "constant"
ONE_CLASS = "one class"
ABSENT = "absent"
FEW_SESSIONS = "too few sessions"

#: What a paired difference says.
BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "not distinguishable", "unknown"

NAIVE, REFERENCE, MODEL = "naive", "reference", "model"


@dataclass(frozen=True)
class Note:
    """Something a reader must know before believing a table."""

    kind: str
    text: Text


@dataclass(frozen=True)
class Score:
    """A score and its interval by blocks of sessions.

    Attributes
    ----------
    value, low, high : float
        Mean over seeds and its interval over sessions; NaN where undefined.
    seed_sd : float
        Standard deviation (ddof 1) over seeds, beside the interval and not in it; NaN for one seed.
    flag : str
        Why something is missing or special: ``constant`` (the forecast never varies), ``one class``,
        ``absent`` (the model gives no such output), ``too few sessions`` (no interval); else empty.
    """

    value: float
    low: float
    high: float
    seed_sd: float = math.nan
    flag: str = ""


@dataclass(frozen=True)
class Cost:
    """What a model costs; None where nobody measured it.

    Attributes
    ----------
    train_seconds, predict_seconds : float, optional
        Wall time of training, and of predicting the segment.
    size_bytes : int, optional
        Size of what is needed to predict.
    """

    train_seconds: float | None = None
    size_bytes: int | None = None
    predict_seconds: float | None = None


@dataclass(frozen=True)
class Row:
    """One model of a table.

    Attributes
    ----------
    model : str
        Its name.
    kind : str
        ``naive``, ``reference`` or ``model``.
    num_seeds : int
        Seeds averaged.
    coverage : float
        Share of labelled rows the model covers; scores are on the rows that all models cover.
    scores : mapping of str to Score
        By score; the IC family is absent in a small universe.
    vs_reference, vs_naive : mapping of str to Score
        Paired difference to the reference and to the best naive row, this model minus that one; empty where
        there is none.
    num_ic_sessions : float
        Sessions in which RankIC is defined, mean over seeds.
    rank_ic_t : float
        Newey-West t statistic of the mean RankIC.
    design_effect : float
        How many times the variance of direction accuracy exceeds that of independent rows.
    cost : Cost
        Time and size.
    num_trials : int
        Candidates on `stop` that its options were chosen among; 0 where nobody searched.
    """

    model: str
    kind: str
    num_seeds: int
    coverage: float
    scores: Mapping[str, Score]
    vs_reference: Mapping[str, Score]
    vs_naive: Mapping[str, Score]
    num_ic_sessions: float
    rank_ic_t: float
    design_effect: float
    cost: Cost = field(default_factory=Cost)
    num_trials: int = 0


@dataclass(frozen=True)
class Against:
    """The best model against one other row.

    Attributes
    ----------
    opponent, kind : str
        The row it is compared with, and that row's kind.
    difference : Score
        Best model minus opponent, with an interval that allows for having picked the best of several.
    outcome : str
        ``better``, ``worse``, ``not distinguishable`` or ``unknown``.
    """

    opponent: str
    kind: str
    difference: Score
    outcome: str


@dataclass(frozen=True)
class Verdict:
    """Whether any of it beats doing nothing.

    Attributes
    ----------
    metric : str
        The score that decides.
    best : str
        The best trained model by it, empty where none is defined.
    num_candidates : int
        How many models it was picked from.
    against : tuple of Against
        Against the reference and the best naive row, where they exist.
    text : Text
        The same in words.
    """

    metric: str
    best: str
    num_candidates: int
    against: tuple[Against, ...]
    text: Text

    @property
    def outcomes(self) -> tuple[tuple[str, str], ...]:
        """Kind of opponent and outcome: what must agree for two verdicts to say the same."""
        return tuple((item.kind, item.outcome) for item in self.against)


@dataclass(frozen=True)
class Table:
    """All models on one set of rows.

    Attributes
    ----------
    rows : tuple of Row
        Naive rows, then the reference, then other models by name.
    reference, best_naive : str
        The rows that differences are taken to; empty where there is none.
    num_rows, num_sessions, num_symbols : int
        Size of the set.
    block_length, num_blocks : int
        Sessions in a block of the bootstrap, and blocks in a draw.
    verdict : Verdict
        What the table says.
    """

    rows: tuple[Row, ...]
    reference: str
    best_naive: str
    num_rows: int
    num_sessions: int
    num_symbols: int
    block_length: int
    num_blocks: int
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """Models on the rows that all of them cover, with and without rows that could not be traded.

    Attributes
    ----------
    segment, target : str
        What was scored.
    horizon, delay : int
        The label, in sessions.
    first, last : str
        First and last decision time, ISO 8601.
    cross_sectional : bool
        Whether sessions hold enough symbols for the IC family.
    primary : str
        The score that decides: ``rank_ic``, or ``r2`` in a small universe.
    num_labelled : int
        Rows of the table with a known outcome, forecast or not.
    num_common : int
        Of these, the rows that every model covers.
    level : float
        Nominal coverage of the intervals.
    openings : int or None
        How often the test segment was opened; None where nobody counts.
    openings_elsewhere : int
        Those among them at other versions, selections or horizons over the same dates.
    all_rows : Table
        On every common row.
    tradable_rows : Table or None
        On the rows that could be traded; None where that is all of them, or none.
    notes : tuple of Note
        Warnings and explanations.
    verdict : Text
        The verdict on all rows, and whether tradable rows change it.
    is_daily : bool
        Whether a session is a day, not an intraday bar.
    """

    segment: str
    target: str
    horizon: int
    delay: int
    first: str
    last: str
    cross_sectional: bool
    primary: str
    num_labelled: int
    num_common: int
    level: float
    openings: int | None
    openings_elsewhere: int
    all_rows: Table
    tradable_rows: Table | None
    notes: tuple[Note, ...]
    verdict: Text
    is_daily: bool = True

    @property
    def tables(self) -> dict[str, Table]:
        """The tables by name: ``all`` and, where it differs, ``tradable``."""
        tables = {"all": self.all_rows}
        return tables if self.tradable_rows is None else tables | {"tradable": self.tradable_rows}

    def to_plain(self) -> dict[str, Any]:
        """Return dicts, lists and numbers; what is not a number becomes None."""
        plain: dict[str, Any] = without_nan(to_plain(self))
        return plain

    def to_json(self) -> str:
        """Return the comparison as JSON text."""
        return json.dumps(self.to_plain(), ensure_ascii=False, indent=2, allow_nan=False)

    def to_frame(self) -> pl.DataFrame:
        """Return one row a table, model and score; differences beside it, null where undefined."""
        rows = [
            {
                "rows": name, "model": row.model, "kind": row.kind, "num_seeds": row.num_seeds,
                "coverage": row.coverage, "metric": metric,
                "value": score.value, "low": score.low, "high": score.high, "seed_sd": score.seed_sd,
                **_difference("vs_reference", row.vs_reference.get(metric)),
                **_difference("vs_naive", row.vs_naive.get(metric)),
                "flag": score.flag,
            }
            for name, table in self.tables.items()
            for row in table.rows
            for metric, score in row.scores.items()
        ]  # fmt: skip
        frame = pl.DataFrame(rows, infer_schema_length=None)
        return frame.with_columns(pl.col(pl.Float64).fill_nan(None))


def _difference(name: str, score: Score | None) -> dict[str, float]:
    score = score or Score(math.nan, math.nan, math.nan)
    return {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}


def without_nan(value: Any) -> Any:
    """Return plain values with every number that JSON cannot hold turned into None."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
