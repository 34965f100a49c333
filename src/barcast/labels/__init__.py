"""What we try to predict, and when it becomes known."""

from barcast.labels.forward import REASONS, Labels, LabelSpec, forward_labels
from barcast.labels.limits import limit_closes, tradable_closes
from barcast.labels.targets import (
    TARGETS,
    TargetSpec,
    TargetValues,
    build_target,
    trailing_volatility,
)

__all__ = [
    "REASONS", "TARGETS", "LabelSpec", "Labels", "TargetSpec", "TargetValues", "build_target",
    "forward_labels", "limit_closes", "tradable_closes", "trailing_volatility",
]  # fmt: skip
