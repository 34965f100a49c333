"""What the report shows, as plain typed values: a run fills them, the page draws them, JSON carries them.

Nothing here computes a score. Returns are log returns as fractions (0.01 is one percent), shares and
probabilities are fractions, times are ISO text in the zone of the data. ``None`` means "no value" (NaN and
infinities become ``None`` on the way to JSON) and is drawn as a dash; a :class:`Cell` can say why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from barcast.core.errors import UsageError
from barcast.core.texts import Text

if TYPE_CHECKING:
    from barcast.reports.fleet import Fleet, Routing

Format = Literal[
    "text", "integer", "number", "score", "percent", "basis_points", "seconds", "bytes"
]  # fmt: skip
View = Literal["skill", "errors", "direction", "order", "cost"]
Section = Literal[
    "comparison", "monthly", "deciles", "calibration", "predictions", "symbols", "training", "defects",
    "segments", "failures",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Column:
    """How one column of numbers is titled, explained, printed and judged."""

    key: str
    """Name in the CSV download: English, no blanks."""
    title: Text
    format: Format
    """``score`` has four decimals; ``percent`` and ``basis_points`` take fractions."""
    better: Literal["higher", "lower"] | None = None
    """Which end is marked as the best of the column; ``None`` marks nothing."""
    neutral: float | None = None
    """Value without skill, where bars start: 0 for RankIC, 0.5 for AUC; ``None`` draws dots."""
    help: Text | None = None
    """One sentence: what the number means."""
    view: View = "skill"
    """The columns that stand together: a comparison shows one view at a time, so that it fits the page."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number with its interval, or a text; or nothing, and why."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    text: str | None = None
    """What a column of format ``text`` shows."""
    seed_sd: float | None = None
    """Standard deviation of ``value`` over seeds, where there are several; it is not in the interval."""
    note: Text | None = None
    """Why ``value`` is missing, or what is special about it."""


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One model of a comparison."""

    name: Text
    cells: tuple[Cell, ...]
    """One for each column, in order."""
    group: Literal["naive", "reference", "model"] = "model"
    """``naive`` rows know nothing, the ``reference`` (ridge) is the row to beat."""
    typed: str = ""
    """What a user types for this model, shown where ``name`` is a translation."""
    is_this_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Models scored on the rows that all of them cover: one segment, one choice of rows."""

    title: Text
    """For example "route, all rows": the label of its tab."""
    columns: tuple[Column, ...]
    rows: tuple[ComparisonRow, ...]
    chart_key: str
    """Key of the column that is drawn first."""
    note: Text | None = None

    def __post_init__(self) -> None:
        for row in self.rows:
            _equal_lengths(f"comparison row `{row.name.en}`", len(row.cells), "columns", len(self.columns))
        if self.columns and self.chart_key not in {column.key for column in self.columns}:
            raise UsageError(f"comparison `{self.title.en}`: no column `{self.chart_key}` to draw")


@dataclass(frozen=True, kw_only=True)
class HeadlineScore:
    """The one score shown large, with its interval."""

    name: Text
    """For example RankIC or AUC."""
    value: float | None
    low: float | None
    high: float | None
    segment: str
    format: Format = "score"
    note: Text | None = None
    """For example what ridge scores on the same rows."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the comparison says, in plain words."""

    tone: Literal["positive", "neutral", "negative"]
    headline: Text
    details: tuple[Text, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DefectRow:
    """One kind of defect found in the bars, and what was done about it."""

    kind: str
    title: Text
    num_rows: int
    num_symbols: int
    policy: str
    """``refuse``, ``mask`` or ``accept``."""
    example: Text | None = None
    """The worst case by name: symbol, date, values."""


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """The bars behind the run."""

    store_version: int
    market: str
    frequency: str
    calendar: str
    basis: tuple[str, ...]
    """Bases that occur: ``raw``, ``split``, ``adjusted``."""
    num_symbols: int
    num_rows: int
    num_sessions: int
    first_session: str
    last_session: str
    survivors_only: bool
    source: str = ""
    digest: str = ""
    """Hash of the rows that the run saw."""
    defects: tuple[DefectRow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One stretch of sessions and what it was used for."""

    name: str
    first_session: str
    last_session: str
    num_sessions: int
    num_labelled: int
    """Rows with a known label that stayed."""
    num_purged: int
    """Rows dropped because their label would be known inside a later segment."""
    num_terminal: int = 0
    """Of all these, rows of symbols that ended before the label's exit."""
    num_unknown: int = 0
    """Rows that lack a label."""
    is_sealed: bool = False


@dataclass(frozen=True, kw_only=True)
class LossPoint:
    """One moment of training."""

    step: int
    epoch: float
    train_loss: float | None = None
    stop_loss: float | None = None
    stop_score: float | None = None
    learning_rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class LossCurve:
    """How one network learned."""

    name: Text
    """Model and seed."""
    points: tuple[LossPoint, ...]
    best_step: int | None = None
    """Step whose weights were kept."""
    score_name: Text = field(default_factory=lambda: Text.same("RankIC"))
    """What ``stop_score`` is; higher is better."""


@dataclass(frozen=True, kw_only=True)
class MonthPoint:
    """A score's mean over the sessions of one month and one segment."""

    month: str
    """``2023-09``."""
    mean: float | None
    low: float | None = None
    high: float | None = None
    segment: str = ""


@dataclass(frozen=True, kw_only=True)
class MonthlyScores:
    """One score through time."""

    name: Text
    points: tuple[MonthPoint, ...]
    neutral: float = 0.0
    """The value of a forecast without skill: 0 for RankIC, 0.5 for AUC. Bars start there."""
    format: Format = "score"


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Realised returns of the rows whose score fell into one bucket."""

    bucket: int
    """1 holds the lowest scores."""
    mean: float | None
    """Mean realised log return, a fraction, over the horizon."""
    low: float | None = None
    high: float | None = None
    num_rows: int = 0


@dataclass(frozen=True, kw_only=True)
class DecileReturns:
    """Realised return by bucket of the score on one segment."""

    segment: str
    points: tuple[Bucket, ...]


@dataclass(frozen=True, kw_only=True)
class CalibrationPoint:
    """Mean forecast and mean outcome of rows with similar forecasts."""

    forecast: float
    realised: float | None
    low: float | None = None
    high: float | None = None
    num_rows: int = 0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Whether forecasts mean what they say, on one segment."""

    kind: Literal["return", "probability"]
    """Expected log return against mean log return, or p_up against the share of rises."""
    segment: str
    points: tuple[CalibrationPoint, ...]


@dataclass(frozen=True, kw_only=True)
class SymbolScores:
    """Scores of every symbol by itself, as columns.

    Attributes
    ----------
    columns : tuple of Column
        What is known about each symbol, say the number of rows and the mean absolute error.
    symbols : tuple of str, length S
    values : tuple of tuples, one of length S for each column
        ``None`` where a symbol has too few rows.
    """

    columns: tuple[Column, ...]
    symbols: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    segment: str = ""

    def __post_init__(self) -> None:
        _equal_lengths("symbol scores", len(self.values), "columns", len(self.columns))
        for column, values in zip(self.columns, self.values, strict=True):
            _equal_lengths(f"symbol scores `{column.key}`", len(values), "symbols", len(self.symbols))


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The forecast for one symbol from its newest bar, or the reason why there is none."""

    symbol: str
    as_of: str
    """Time of the last bar that the forecast knows."""
    for_session: str
    """Session at whose close the forecast return ends."""
    y_hat: float | None = None
    sigma: float | None = None
    p_up: float | None = None
    score: float | None = None
    rank: int | None = None
    """1 is the highest score of the session."""
    note: Text | None = None
    """For example "short history: 24 bars"."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One symbol that a stage could not serve, and what was done instead."""

    symbol: str
    stage: Text
    error: Text
    fallback: Text


@dataclass(frozen=True, kw_only=True)
class EmptyReason:
    """Why a section has nothing to show, where the page's own sentence is too general."""

    section: Section
    reason: Text


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything on the page.

    Raises
    ------
    UsageError
        From the parts, when a row has other columns than its table.
    """

    title: Text
    run_id: str
    model: str
    created: str
    """ISO 8601 with zone."""
    command: str
    """The exact command that made the run, ready to paste."""
    version: str
    """Of barcast."""
    horizon: int
    """Sessions from entry to exit."""
    horizons: tuple[int, ...] = ()
    """All of the run, where there are several."""
    scope: Text | None = None
    """Where there are several horizons: which one score, pictures, symbols and forecasts are about."""
    delay: int
    """Sessions from decision to entry."""
    small_universe: bool
    """Fewer than 30 symbols a session: time-series scores instead of scores across symbols."""
    test_openings: int
    """How often the sealed test segment was opened in the workspace; 0 is sealed."""
    test_openings_elsewhere: int = 0
    """Those among them at other versions, selections or horizons over the same dates."""
    interval_note: Text
    """How the intervals were made, for example "95 % intervals from blocks of 20 sessions"."""
    data: DataSummary
    verdict: Verdict
    headline: HeadlineScore | None = None
    comparisons: tuple[Comparison, ...] = ()
    monthly: tuple[MonthlyScores, ...] = ()
    deciles: tuple[DecileReturns, ...] = ()
    calibration: tuple[Calibration, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    symbols: SymbolScores | None = None
    loss: tuple[LossCurve, ...] = ()
    segments: tuple[Segment, ...] = ()
    failures: tuple[Failure, ...] = ()
    warnings: tuple[Text, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    """Resolved config: plain values, nested."""
    environment: dict[str, Any] = field(default_factory=dict)
    empty: tuple[EmptyReason, ...] = ()
    fleet: Fleet | None = None
    """Of a fleet alone; likewise ``routing`` of a routed run."""
    routing: Routing | None = None


def finite(value: Any) -> Any:
    """Replace NaN and infinities by ``None`` throughout a plain value."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return value


def _equal_lengths(what: str, found: int, other: str, expected: int) -> None:
    if found != expected:
        raise UsageError(f"{what}: {found} values for {expected} {other}")
