"""Pooled ridge regression on one row of normalised features: the row every other model has to beat.

Minimises ``|y - Xb|^2 + n * penalty * |b|^2`` (Hoerl and Kennard 1970) on the training target; the penalty is
the one whose predictions score best on `stop`. Inputs are z-scores, so one penalty fits all features; the
intercept is not shrunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from barcast.core.arrays import F32, F64
from barcast.core.errors import UsageError
from barcast.models.registry import register
from barcast.models.tabular import CHUNK_ROWS, Scorer


@dataclass(frozen=True, kw_only=True)
class RidgeConfig:
    """Options of ridge."""

    penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """Candidates, per row, chosen on `stop`."""

    def __post_init__(self) -> None:
        if not self.penalties or not all(0 <= penalty < np.inf for penalty in self.penalties):
            raise UsageError(
                f"[ridge] `penalties` must be one number or more, none negative, got {list(self.penalties)}",
                "penalties = [0.001, 0.1]; without it the default is taken",
            )


@register("ridge", "tabular", RidgeConfig, summary="pooled linear regression with an L2 penalty")
class Ridge:
    """Linear map from F inputs to H horizons."""

    def __init__(self, config: RidgeConfig, seed: int = 0) -> None:
        self.config = config
        self.weights: F64 = np.zeros((0, 0))
        self.penalty = 0.0

    def fit(self, inputs: F32, target: F32, rows: np.ndarray, score: Scorer) -> dict[str, float]:
        """Fit on ``rows`` of inputs (R, F) and target (R, H); ``score`` judges candidates on `stop`.

        Returns
        -------
        dict
            The score of each candidate penalty.
        """
        grams, sides, counts = _normal_equations(inputs, target, rows)
        best, scores = -np.inf, {}
        for penalty in self.config.penalties:
            weights = np.stack(
                [
                    _solve(gram, side, penalty * count)
                    for gram, side, count in zip(grams, sides, counts, strict=True)
                ],
                axis=1,
            )
            value = score(lambda x, w=weights: _with_intercept(x) @ w)  # type: ignore[misc]
            scores[f"penalty {penalty:g}"] = value
            if value > best or not self.weights.size:
                best, self.weights, self.penalty = max(-np.inf, value), weights, penalty
        return scores

    def predict(self, inputs: F32) -> F64:
        """Return scores (R, H)."""
        return np.asarray(_with_intercept(inputs) @ self.weights, np.float64)

    def state(self) -> dict[str, np.ndarray]:
        """Return what makes this model again."""
        return {"weights": self.weights, "penalty": np.array([self.penalty])}

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Restore ``state()``."""
        self.weights, self.penalty = state["weights"], float(state["penalty"][0])

    def refit(self, inputs: F32, target: F32, rows: np.ndarray) -> None:
        """Fit again on more rows, with the penalty as it is."""
        grams, sides, counts = _normal_equations(inputs, target, rows)
        solved = [_solve(g, s, self.penalty * n) for g, s, n in zip(grams, sides, counts, strict=True)]
        self.weights = np.stack(solved, axis=1)


def _with_intercept(inputs: F32) -> F64:
    return np.concatenate([np.ones((len(inputs), 1)), inputs], axis=1)


def _normal_equations(inputs: F32, target: F32, rows: np.ndarray) -> tuple[list[F64], list[F64], list[int]]:
    """Accumulate X'X and X'y in float64 per horizon (their known rows differ), chunk by chunk."""
    num_horizons, width = target.shape[1], inputs.shape[1] + 1
    grams = [np.zeros((width, width)) for _ in range(num_horizons)]
    sides = [np.zeros(width) for _ in range(num_horizons)]
    counts = [0] * num_horizons
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows[start : start + CHUNK_ROWS]
        x, y = _with_intercept(inputs[chunk]), target[chunk].astype(np.float64)
        for h in range(num_horizons):
            known = np.isfinite(y[:, h])
            xh = x if known.all() else x[known]
            grams[h] += xh.T @ xh
            sides[h] += xh.T @ y[known, h]
            counts[h] += int(known.sum())
    return grams, sides, counts


def _solve(gram: F64, side: F64, penalty: float) -> F64:
    shrink = np.full(len(side), max(penalty, 1e-9 * float(np.trace(gram)) / len(side)))
    shrink[0] = 0.0
    solved: F64 = np.linalg.lstsq(gram + np.diag(shrink), side, rcond=None)[0].astype(np.float64)
    return solved
