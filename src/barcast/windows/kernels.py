"""Compiled loops of the normalisation: one pass over the rows each."""

from __future__ import annotations

import numpy as np

from barcast.core.arrays import F32, F64, I32, Bools
from barcast.core.compilation import kernel


@kernel
def session_statistics(values: F32, session: I32, in_universe: Bools, mean: F64, std: F64) -> None:
    """Fill mean and standard deviation (T, F) over the universe's finite values; 0 where nothing varies."""
    count = np.zeros(mean.shape)
    for row in range(values.shape[0]):
        if not in_universe[row]:
            continue
        day = session[row]
        for feature in range(values.shape[1]):
            value = values[row, feature]
            if np.isfinite(value):
                # Welford: a plain sum of squares loses a feature whose mean dwarfs its spread
                count[day, feature] += 1.0
                delta = value - mean[day, feature]
                mean[day, feature] += delta / count[day, feature]
                std[day, feature] += delta * (value - mean[day, feature])
    for day in range(mean.shape[0]):
        for feature in range(mean.shape[1]):
            spread = 0.0
            if count[day, feature] > 1:
                spread = np.sqrt(std[day, feature] / (count[day, feature] - 1.0))
            # what float32 inputs cannot resolve is no spread
            std[day, feature] = spread if spread > 1e-6 * abs(mean[day, feature]) else 0.0


@kernel
def normalise_rows(values: F32, row_of: I32, mean: F64, scale: F64, clip: float, out: F32) -> None:
    """Fill ``out`` (R, F + 1) with clipped z-scores, 0 where missing, and the share of present features."""
    num_rows, num_features = values.shape
    for row in range(num_rows):
        line = row_of[row]
        present = 0
        for feature in range(num_features):
            value = values[row, feature]
            if np.isfinite(value):
                present += 1
                z = (value - mean[line, feature]) * scale[line, feature]
                out[row, feature] = min(max(z, -clip), clip)
            else:
                out[row, feature] = 0.0
        out[row, num_features] = present / num_features
