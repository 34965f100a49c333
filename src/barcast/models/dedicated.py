"""Dedicated models: one a symbol, thousands of them a fleet. Here are their options; the fleet fits them.

A preset says how much work a symbol's model is. What a fleet may take altogether (minutes, memory, workers)
shapes no model but through the preset that each symbol is given, and is no option of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from barcast.core.errors import UsageError
from barcast.models.registry import register


def _check_universal(table: str, on: str, universal: str) -> None:
    if universal and on == "target":
        raise UsageError(
            f"[{table}] `universal` names what a residual fleet leans on, and this one learns the target",
            "--on residual; or leave `universal` out",
        )


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
    on: Literal["target", "residual"] = "target"
    """``residual``: models learn what a universal run leaves, and are added to it as far as believed."""
    universal: str = ""
    """Of a residual fleet the universal run; empty: the newest that learned the same rows and target."""

    def __post_init__(self) -> None:
        _check_universal("fleet-trees", self.on, self.universal)
        if self.min_rows < 2:
            raise UsageError(
                f"[fleet-trees] `min_rows` must be at least 2, got {self.min_rows}", "without it it is 500"
            )


@dataclass(frozen=True, kw_only=True)
class FleetNetworksConfig:
    """Options of a recurrent network a symbol."""

    preset: Literal["16", "32", "64", "128x2", "256x3", "auto"] = "64"
    """Width, and layers where there are several; a budget gives narrower ones to some symbols. ``auto``:
    chosen on `stop` by a sample of symbols, before a run begins."""
    min_rows: int = 250
    """Fewest training rows of a symbol that gets a network of its own."""
    hidden_size: int = 0
    """Width of the recurrent state; 0: the preset's."""
    num_layers: int = 0
    """Stacked layers; 0: the preset's."""
    dropout: float = 0.1
    """Between layers and before the head."""
    look_back_window: int = 60
    """Own bars a prediction reads."""
    stretch_length: int = 120
    """Predictions of one pass; 1 trains on plain windows."""
    batch_size: int = 480
    """Labels a step."""
    epochs: int = 30
    """Most epochs."""
    patience: int = 6
    """Epochs without a better score on the symbol's own `stop` before training ends."""
    lr: float = 0.0
    """Highest learning rate; 0: 3e-3 up to width 64, beyond in inverse proportion."""
    weight_decay: float = 1e-2
    """Of AdamW."""
    symbol_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What differs for single symbols: a table a symbol (``--symbol-config``)."""
    on: Literal["target", "residual"] = "target"
    """``residual``: networks learn what a universal run leaves, and are added to it as far as believed."""
    universal: str = ""
    """Of a residual fleet the universal run; empty: the newest that learned the same rows and target."""

    def __post_init__(self) -> None:
        _check_universal("fleet networks", self.on, self.universal)


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
@register(
    "fleet-lstm", "fleet", FleetNetworksConfig, data_defaults={"features": "core12"},
    summary="an LSTM for each symbol, trained many at once",
)  # fmt: skip
@register(
    "fleet-gru", "fleet", FleetNetworksConfig, data_defaults={"features": "core12"},
    summary="a GRU for each symbol, trained many at once",
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
