"""What a comparison needs to know besides the predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from barcast.evaluation.intervals import Bootstrap
from barcast.evaluation.results import Cost
from barcast.evaluation.sealed import Openings
from barcast.evaluation.sums import METRICS

#: Names that are naive rows whatever their route says, in the order in which a table shows them.
NAIVE_MODELS = ("zero", "historical_mean", "always_up", "reversal", "persistence")
#: Scores that a row shows only where its model gives the output they need.
OPTIONAL = ("log_loss", "brier", "pinball", "quantile_coverage")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a comparison needs to know besides the predictions."""

    cross_sectional: bool
    """Whether sessions hold enough symbols (30) for the IC family."""
    reference: str = "ridge"
    """The trained row to beat: a model, or one run of it where others of its name are ordinary rows."""
    naive: tuple[str, ...] = NAIVE_MODELS
    """Names of naive rows; models whose every row is routed ``naive`` count as well."""
    costs: Mapping[str, Cost] = field(default_factory=dict)
    """Time and size, by model or by run; a run tells two trainings of one model apart."""
    num_trials: Mapping[str, int] = field(default_factory=dict)
    """Candidates on `stop` that options were chosen among, by run; absent where nobody searched."""
    quantile_levels: tuple[float, ...] = ()
    """Levels of the table's quantiles; without them quantiles are not scored."""
    openings: Openings | None = None
    """How often the test segment was opened; None where nobody counts."""
    daily: bool = True
    """Whether bars are daily: R squared above 2 % then raises a warning."""
    survivors_only: bool = False
    """Whether the panel holds no delisted symbol; the table is then stamped so."""
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    """How intervals are drawn."""

    @property
    def primary(self) -> str:
        """The score that decides."""
        return "rank_ic" if self.cross_sectional else "r2"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The scores that every row shows, defined or not."""
        return tuple(
            name
            for name, metric in METRICS.items()
            if name not in OPTIONAL and (self.cross_sectional or not metric.cross_sectional)
        )
