"""How much work an ensemble of one symbol is: named presets, and what may be changed in them.

``published`` is the trimmed ensemble that papers and forums run per stock; the others are a ladder by work,
up to ``high``. Hyper-parameters carry the names of the libraries they come from where those agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from barcast.core.config import nearest, read_values
from barcast.core.errors import UsageError

MemberName = Literal["forest", "xgboost", "lightgbm"]
#: Members of an ensemble, in the order of every array that has a member axis.
MEMBERS: tuple[MemberName, ...] = ("forest", "xgboost", "lightgbm")

_DEFAULT = "without it the preset's value is taken"


def _at_least(config: Any, where: str, **lowest: float) -> None:
    for name, low in lowest.items():
        if not low <= getattr(config, name) < np.inf:
            raise UsageError(
                f"[{where}] `{name}` must be at least {low}, got {getattr(config, name)}", _DEFAULT
            )


def _at_most(config: Any, where: str, **highest: int) -> None:
    for name, high in highest.items():
        if getattr(config, name) > high:
            raise UsageError(
                f"[{where}] `{name}` must be at most {high}, got {getattr(config, name)}", _DEFAULT
            )


def _is_share(config: Any, where: str, *names: str) -> None:
    for name in names:
        if not 0 < getattr(config, name) <= 1:
            raise UsageError(f"[{where}] `{name}` must be in (0, 1], got {getattr(config, name)}", _DEFAULT)


@dataclass(frozen=True, kw_only=True)
class ForestConfig:
    """Options of the random forest (Breiman 2001); defaults as ``published``."""

    ALSO_CALLED: ClassVar[dict[str, str]] = {"n_estimators": "num_trees", "num_rounds": "num_trees"}

    num_trees: int = 100
    max_depth: int = 10
    max_features: float = 0.8
    """Share of the features that a node looks at."""
    min_samples_leaf: int = 10
    """Fewest distinct rows on either side of a split."""
    max_samples: float = 0.8
    """Draws with replacement a tree, as a share of the rows."""
    max_bin: int = 64
    """Bins a feature is cut into before training."""

    def __post_init__(self) -> None:
        _at_least(self, "forest", num_trees=1, max_depth=1, min_samples_leaf=1, max_bin=2)
        _at_most(self, "forest", max_bin=256, max_depth=64)
        _is_share(self, "forest", "max_features", "max_samples")


@dataclass(frozen=True, kw_only=True)
class XGBoostConfig:
    """Options of XGBoost (Chen & Guestrin 2016), method ``hist``; defaults as ``published``."""

    ALSO_CALLED: ClassVar[dict[str, str]] = {
        "n_estimators": "num_rounds", "num_boost_round": "num_rounds", "eta": "learning_rate",
        "alpha": "reg_alpha", "lambda": "reg_lambda",
    }  # fmt: skip

    num_rounds: int = 70
    max_depth: int = 4
    learning_rate: float = 0.2
    subsample: float = 0.8
    colsample_bytree: float = 0.8
    reg_alpha: float = 0.1
    reg_lambda: float = 1.0
    min_child_weight: float = 1.0
    max_bin: int = 64
    early_stopping_rounds: int = 15
    """Rounds without a lower error on `stop` before training ends; 0 grows all rounds."""

    def __post_init__(self) -> None:
        _at_least(self, "xgboost", num_rounds=1, max_depth=1, max_bin=2, early_stopping_rounds=0,
                  reg_alpha=0, reg_lambda=0, min_child_weight=0)  # fmt: skip
        _is_share(self, "xgboost", "learning_rate", "subsample", "colsample_bytree")


@dataclass(frozen=True, kw_only=True)
class LightGBMConfig:
    """Options of LightGBM (Ke et al. 2017), row-wise histograms; defaults as ``published``."""

    ALSO_CALLED: ClassVar[dict[str, str]] = {
        "n_estimators": "num_rounds", "num_boost_round": "num_rounds", "num_iterations": "num_rounds",
        "early_stopping_round": "early_stopping_rounds", "min_child_samples": "min_data_in_leaf",
        "subsample": "bagging_fraction", "colsample_bytree": "feature_fraction",
    }  # fmt: skip

    num_rounds: int = 80
    max_depth: int = 5
    num_leaves: int = 31
    learning_rate: float = 0.2
    feature_fraction: float = 0.8
    bagging_fraction: float = 0.8
    min_data_in_leaf: int = 50
    max_bin: int = 63
    """One bin of the 64 is LightGBM's own, for missing values."""
    early_stopping_rounds: int = 0
    """Rounds without a lower error on `stop` before training ends; 0 grows all rounds."""

    def __post_init__(self) -> None:
        _at_least(self, "lightgbm", num_rounds=1, max_depth=1, num_leaves=2, min_data_in_leaf=1, max_bin=2,
                  early_stopping_rounds=0)  # fmt: skip
        _is_share(self, "lightgbm", "learning_rate", "feature_fraction", "bagging_fraction")


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """What is fitted for one symbol."""

    members: tuple[MemberName, ...] = MEMBERS
    forest: ForestConfig = field(default_factory=ForestConfig)
    xgboost: XGBoostConfig = field(default_factory=XGBoostConfig)
    lightgbm: LightGBMConfig = field(default_factory=LightGBMConfig)
    min_rows: int = 500
    """Fewest training rows of a symbol that gets its own ensemble."""
    features: tuple[int, ...] = ()
    """Columns of the inputs that are used, by position; none named: all."""

    def __post_init__(self) -> None:
        _at_least(self, "ensemble", min_rows=2)
        if not self.members or len(set(self.members)) != len(self.members):
            raise UsageError(
                f"[ensemble] `members` must name one or more of {', '.join(MEMBERS)}, each once; "
                f"got {list(self.members)}",
                _DEFAULT,
            )
        if min(self.features, default=0) < 0 or len(set(self.features)) != len(self.features):
            raise UsageError(
                f"[ensemble] `features` must be positions from 0, each once; got {list(self.features)}",
                "without it every column is used",
            )


# before its first tree a booster costs its library's set-up: 5 ms of XGBoost, 3 of LightGBM
_EXTREME = EnsembleConfig(
    members=("forest",),
    forest=ForestConfig(num_trees=50, max_depth=5, max_features=0.3, min_samples_leaf=30),
)
_FAST = EnsembleConfig(
    members=("forest", "lightgbm"),
    forest=ForestConfig(num_trees=75, max_depth=5, max_features=0.3, min_samples_leaf=30),
    lightgbm=LightGBMConfig(num_rounds=50, num_leaves=7, learning_rate=0.1, early_stopping_rounds=6),
)
_STANDARD = EnsembleConfig(
    forest=ForestConfig(num_trees=100, max_depth=6, max_features=0.3, min_samples_leaf=50),
    xgboost=XGBoostConfig(
        num_rounds=150, max_depth=3, learning_rate=0.05, min_child_weight=20, early_stopping_rounds=15
    ),
    lightgbm=LightGBMConfig(num_rounds=150, num_leaves=7, learning_rate=0.05, early_stopping_rounds=15),
)
_HIGH = EnsembleConfig(
    forest=ForestConfig(num_trees=300, max_depth=6, max_features=0.3, min_samples_leaf=50),
    xgboost=XGBoostConfig(
        num_rounds=300, max_depth=3, learning_rate=0.05, min_child_weight=20, early_stopping_rounds=42
    ),
    lightgbm=LightGBMConfig(num_rounds=300, num_leaves=15, learning_rate=0.05, early_stopping_rounds=42),
)
#: By work, the lightest first; ``published`` stands apart.
PRESETS: Mapping[str, EnsembleConfig] = {
    "extreme": _EXTREME, "fast": _FAST, "standard": _STANDARD, "high": _HIGH, "published": EnsembleConfig(),
}  # fmt: skip


def configured(preset: str, *overrides: Mapping[str, Any]) -> EnsembleConfig:
    """Return a preset with values replaced, those of later mappings last.

    A member's options are a table of its name: ``{"min_rows": 300, "xgboost": {"max_depth": 3}}``.

    Raises
    ------
    UsageError
        On an unknown preset or option, with the nearest known one, and on a value that makes no sense.
    """
    if preset not in PRESETS:
        raise UsageError(f"no preset `{preset}`", nearest(preset, PRESETS))
    config = PRESETS[preset]
    for given in overrides:
        config = _replaced(config, given)
    return config


def _replaced(config: EnsembleConfig, given: Mapping[str, Any]) -> EnsembleConfig:
    tables = {name: value for name, value in given.items() if name in MEMBERS}
    plain = read_values(EnsembleConfig, {k: v for k, v in given.items() if k not in tables}, "ensemble")
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise UsageError(
                f"ensemble.{name}: expected a table, found `{table!r}`", "write NAME = VALUE lines"
            )
        member = getattr(config, name)
        plain[name] = replace(member, **read_values(type(member), table, f"ensemble.{name}"))
    return replace(config, **plain)
