"""Pooled LightGBM: one gradient-boosted forest over the rows of every symbol (Ke et al. 2017).

Regression on the training target, one forest a horizon; the number of rounds is the best on `stop`, judged
every ten rounds by the same score that stops the networks. Stored as LightGBM's own text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from barcast.core.arrays import F32, F64
from barcast.core.errors import UsageError
from barcast.models.registry import register
from barcast.models.tabular import Scorer

_DEFAULT = "without it the default is taken"


@dataclass(frozen=True, kw_only=True)
class LightGBMConfig:
    """Options of the pooled forest."""

    num_leaves: int = 63
    learning_rate: float = 0.05
    num_rounds: int = 300
    """Most rounds; `stop` decides how many are kept."""
    min_data_in_leaf: int = 500
    feature_fraction: float = 0.7
    bagging_fraction: float = 0.5
    max_bin: int = 63
    lambda_l2: float = 1.0
    num_threads: int = 0
    """0 takes every core; the result is the same for any count."""

    def __post_init__(self) -> None:
        at_least = {"num_leaves": 2, "num_rounds": 1, "min_data_in_leaf": 1, "max_bin": 2, "num_threads": 0}
        for name, low in at_least.items():
            if getattr(self, name) < low:
                raise UsageError(
                    f"[lightgbm] `{name}` must be at least {low}, got {getattr(self, name)}", _DEFAULT
                )
        for name in ("learning_rate", "feature_fraction", "bagging_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(
                    f"[lightgbm] `{name}` must be in (0, 1], got {getattr(self, name)}", _DEFAULT
                )
        if not 0 <= self.lambda_l2 < np.inf:
            raise UsageError(f"[lightgbm] `lambda_l2` must not be negative, got {self.lambda_l2}", _DEFAULT)


@register("lightgbm", "tabular", LightGBMConfig, summary="pooled gradient-boosted trees")
class LightGBM:
    """One booster a horizon."""

    def __init__(self, config: LightGBMConfig, seed: int = 0) -> None:
        self.config = config
        self.seed = seed
        self.boosters: list[Any] = []

    def fit(self, inputs: F32, target: F32, rows: np.ndarray, score: Scorer) -> dict[str, float]:
        """Grow ``num_rounds`` trees on ``rows``, keep the count that scores best on `stop`."""
        grown = self._grow(inputs, target, rows, [self.config.num_rounds] * target.shape[1])
        candidates = sorted({*range(10, self.config.num_rounds + 1, 10), self.config.num_rounds})
        scores: dict[str, float] = {}
        best, kept = -np.inf, candidates[-1]
        running = _RunningSum(grown)
        for rounds in candidates:
            value = score(running.up_to(rounds))
            scores[f"{rounds} rounds"] = value
            if value > best:
                best, kept = value, rounds
        self.boosters = [_cut(booster, kept) for booster in grown]
        return scores

    def refit(self, inputs: F32, target: F32, rows: np.ndarray) -> None:
        """Grow the same number of trees on more rows."""
        self.boosters = self._grow(inputs, target, rows, [b.num_trees() for b in self.boosters])

    def predict(self, inputs: F32) -> F64:
        """Return scores (R, H)."""
        return np.stack([np.asarray(booster.predict(inputs)) for booster in self.boosters], axis=1)

    def state(self) -> dict[str, np.ndarray]:
        """Return each booster's text as bytes."""
        texts = [booster.model_to_string() for booster in self.boosters]
        return {f"horizon_{h}": np.frombuffer(text.encode(), np.uint8) for h, text in enumerate(texts)}

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Restore ``state()``."""
        import lightgbm

        texts = [state[f"horizon_{h}"].tobytes().decode() for h in range(len(state))]
        self.boosters = [lightgbm.Booster(model_str=text) for text in texts]

    def _grow(self, inputs: F32, target: F32, rows: np.ndarray, rounds: list[int]) -> list[Any]:
        import lightgbm

        config = self.config
        parameters = {
            "objective": "regression",
            "num_leaves": config.num_leaves,
            "learning_rate": config.learning_rate,
            "min_data_in_leaf": min(config.min_data_in_leaf, max(len(rows) // 50, 1)),
            "feature_fraction": config.feature_fraction,
            "bagging_fraction": config.bagging_fraction,
            "bagging_freq": 1,
            "max_bin": config.max_bin,
            "lambda_l2": config.lambda_l2,
            "num_threads": config.num_threads,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        grown = []
        for h in range(target.shape[1]):
            known = rows[np.isfinite(target[rows, h])]
            data = lightgbm.Dataset(inputs[known], target[known, h], free_raw_data=True)
            grown.append(lightgbm.train(parameters, data, num_boost_round=rounds[h]))
        return grown


class _RunningSum:
    """Predictions of growing forests: each candidate only adds its own new trees to the one before."""

    def __init__(self, boosters: list[Any]) -> None:
        self.boosters = boosters
        self.rounds = 0
        self.total: F64 | float = 0.0

    def up_to(self, rounds: int) -> Callable[[F32], F64]:
        """Return the predict function of the first ``rounds`` trees, for the same inputs every time."""

        def predict(inputs: F32) -> F64:
            added = rounds - self.rounds
            new = [b.predict(inputs, start_iteration=self.rounds, num_iteration=added) for b in self.boosters]
            self.total = self.total + np.stack(new, axis=1)
            self.rounds = rounds
            return np.asarray(self.total)

        return predict


def _cut(booster: Any, rounds: int) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=rounds))
