"""Dedicated models: one a symbol, thousands of them a fleet. Here are their options; the fleet fits them.

A preset says how much work a symbol's model is. What a fleet may take altogether (minutes, memory, workers)
shapes no model but through the preset that each symbol is given, and is no option of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from barcast.core.errors import UsageError
from barcast.models.registry import register


@dataclass(frozen=True, kw_only=True)
class FleetTreesConfig:
    """Options of an ensemble a symbol: random forest, XGBoost and LightGBM, averaged by their evidence."""

    preset: Literal["extreme", "fast", "standard", "high", "published"] = "standard"
    """The heaviest that a symbol may get; a budget gives lighter ones to some."""
    min_rows: int = 500
    """Fewest training rows of a symbol that gets a model of its own."""
    forest: dict[str, Any] = field(default_factory=dict)
    """What differs from the preset, for every symbol; likewise ``xgboost`` and ``lightgbm``."""
    xgboost: dict[str, Any] = field(default_factory=dict)
    lightgbm: dict[str, Any] = field(default_factory=dict)
    symbol_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What differs for single symbols: a table a symbol (``--symbol-config``)."""

    def __post_init__(self) -> None:
        if self.min_rows < 2:
            raise UsageError(
                f"[fleet-trees] `min_rows` must be at least 2, got {self.min_rows}", "left out, it is 500"
            )


@dataclass(frozen=True, kw_only=True)
class RoutedConfig:
    """The two runs of which a routed one is made, and the rule."""

    universal: str
    fleet: str
    policy: Literal["evidence", "prefer-dedicated", "universal"] = "evidence"


@register(
    "fleet-trees", "fleet", FleetTreesConfig, data_defaults={"features": "core12"},
    summary="a forest, XGBoost and LightGBM for each symbol, averaged by their evidence",
)  # fmt: skip
@register("routed", "routed", RoutedConfig, summary="each symbol by the universal model or by its own")
def not_of_one_piece(config: object, seed: int) -> None:
    """Refuse to be built like a model of one piece.

    Raises
    ------
    NotImplementedError
        Always: `pipeline.fleet` fits the symbols of a fleet one by one, `pipeline.route` joins two runs.
    """
    raise NotImplementedError("a fleet is fitted symbol by symbol, a routed run is made of two")
