"""What a tabular model is: one row of normalised features in, a score per horizon out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from barcast.core.arrays import F32, F64, I64

#: Judges a candidate: takes its predict function, returns a score on `stop` (higher is better).
Scorer = Callable[[Callable[[F32], F64]], float]


class TabularModel(Protocol):
    """Fit on rows, predict rows, and turn into arrays (never pickles) and back."""

    def fit(self, inputs: F32, target: F32, rows: np.ndarray, score: Scorer) -> dict[str, float]:
        """Fit on ``rows``; sizes and penalties are chosen by ``score``. Returns the scores tried."""
        ...

    def refit(self, inputs: F32, target: F32, rows: np.ndarray) -> None:
        """Fit on more rows with everything that was chosen before kept."""
        ...

    def predict(self, inputs: F32) -> F64:
        """Return scores (R, H)."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Return the model as arrays."""
        ...

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Restore ``state()``."""
        ...


#: Rows that a model reads at once: of a whole market's, copies in its own precision would be gigabytes.
CHUNK_ROWS = 200_000


def predict_rows(model: TabularModel, inputs: F32, rows: I64) -> F64:
    """Return scores (n, H) of ``rows`` (n,) of the inputs (R, F), copied part by part."""
    parts = np.array_split(rows, -(-len(rows) // CHUNK_ROWS) or 1)
    return np.concatenate([model.predict(inputs[part]) for part in parts])
