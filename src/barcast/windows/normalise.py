"""Features made comparable: per session over a recorded universe, or per feature as fitted on `fit`.

.. warning::
   Session statistics at session t use the bars of session t only, of the symbols in the run's recorded
   universe that have a bar on that day: a symbol that is listed later cannot reach them. Fitted statistics
   use the rows they are given, which must be training rows. Neither depends on which symbols are asked for.

In both cases a missing value becomes 0, and a last channel (validity) holds the share of the row's features
that were present, so that a model can tell "average" from "unknown".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from barcast.core.arrays import F32, F64, I32, Bools
from barcast.core.errors import CoverageError
from barcast.core.memory import release_mapped

#: Normalised values are clipped to +-5 standard deviations.
CLIP = 5.0
#: A session with less than this share of the usual number of universe symbols is refused when predicting.
MIN_COVERAGE = 0.8
#: "Usual" is the median over so many sessions before: one that is missing or thin itself hides nothing.
COVERAGE_SESSIONS = 20
#: Rows that are normalised at once: 50 MB of 48 features.
BLOCK_ROWS = 1 << 18
#: Less spread than this share of the mean is what float32 inputs cannot resolve, as in `session_statistics`.
RESOLUTION = 1e-6


@dataclass(frozen=True)
class FittedScaler:
    """Mean and standard deviation per feature, fitted on training rows.

    Attributes
    ----------
    mean, std : F64, shape (F,)
        ``std`` is 1 where a feature is constant up to rounding; NaN inputs are left out of both.
    """

    mean: F64
    std: F64

    @classmethod
    def fit(cls, values: F32, rows: Bools) -> FittedScaler:
        """Fit on the rows of ``values`` (R, F) where ``rows`` is true; at least one row is needed."""
        chosen = values[rows].astype(np.float64)
        with np.errstate(all="ignore"):
            count = np.isfinite(chosen).sum(axis=0)
            mean = np.where(count > 0, np.nansum(chosen, axis=0) / np.maximum(count, 1), 0.0)
            squares = np.nansum((chosen - mean) ** 2, axis=0)
        std = np.sqrt(squares / np.maximum(count - 1, 1))
        return cls(mean, np.where(std > RESOLUTION * np.abs(mean), std, 1.0))

    def transform(self, values: F32) -> F32:
        """Return (R, F + 1): clipped z-scores with 0 for missing, then the validity channel."""
        num_rows, num_features = values.shape
        zeros = np.zeros(num_rows, np.int32)
        return _apply(values, zeros, self.mean.reshape(1, num_features), self.std.reshape(1, num_features))


def session_normalise(values: F32, session: I32, num_sessions: int, in_universe: Bools) -> F32:
    """Z-score every feature within its session over the universe's rows.

    Parameters
    ----------
    values : F32, shape (R, F)
        Features; NaN where missing.
    session : I32, shape (R,)
        Calendar entry of each row.
    num_sessions : int
        Entries of the calendar.
    in_universe : Bools, shape (R,)
        Rows whose symbol belongs to the recorded universe; only these make the statistics.

    Returns
    -------
    F32, shape (R, F + 1)
        Z-scores clipped at 5, 0 where missing or where the session does not vary, then validity.
    """
    from barcast.windows.kernels import session_statistics  # local: brings the compiler along

    mean, std = np.zeros((2, num_sessions, values.shape[1]))
    session_statistics(values, session, in_universe, mean, std)
    return _apply(values, session, mean, std)


def check_coverage(session: I32, in_universe: Bools, at: int) -> None:
    """Refuse session statistics over a universe that is suddenly thin.

    Raises
    ------
    CoverageError
        When the universe symbols with a bar at ``at`` are fewer than 80 % of their median number over the 20
        sessions before; a session without any counts as 0.
    """
    counts = np.bincount(session[in_universe], minlength=at + 1)
    now, before = int(counts[at]), counts[max(at - COVERAGE_SESSIONS, 0) : at]
    usual = float(np.median(before)) if len(before) else 0.0
    if now < MIN_COVERAGE * usual:
        raise CoverageError(
            f"only {now} of the universe's symbols have a bar in the last session, usually {usual:.0f} have "
            "one: session statistics would not be comparable",
            "complete the session with `barcast data update`, or predict an earlier one with `--asof DATE`",
        )


def _apply(values: F32, row_of: I32, mean: F64, std: F64) -> F32:
    """Normalise block by block; of a mapped panel no more than a block stays in memory beside the result."""
    from barcast.windows.kernels import normalise_rows

    out = np.empty((values.shape[0], values.shape[1] + 1), np.float32)
    scale = np.where(std > 0, 1.0 / np.where(std > 0, std, 1.0), 0.0)
    for start in range(0, len(values), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        normalise_rows(values[block], row_of[block], mean, scale, CLIP, out[block])
        release_mapped(values[block])
    return out
