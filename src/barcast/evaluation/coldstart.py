"""Skill on symbols that a model never saw: two models beside each other, paired by blocks of sessions.

A model *retains* its skill when it stands above zero by both RankIC and R² against zero, and its difference
to the other model is not below zero. A constant fails: it orders nothing, so that it has no RankIC, and its
R² is zero or less. Letters: n rows, T sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from barcast.core.arrays import F64, I32
from barcast.evaluation.intervals import Bootstrap, interval, plan_blocks, resample
from barcast.evaluation.metrics import rank_ic

#: Held-out symbols in a session below which their order says nothing.
MIN_HELD_OUT = 5


@dataclass(frozen=True)
class SessionScores:
    """What each session says of a model.

    Attributes
    ----------
    rank_ic : F64, shape (T,)
        NaN where outcomes or scores do not vary, or rows are fewer than 5.
    error, square : F64, shape (T,)
        Sums of squared errors of the expected return, and of squared outcomes.
    """

    rank_ic: F64
    error: F64
    square: F64


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    @property
    def is_above_zero(self) -> bool:
        """Whether the interval lies above zero."""
        return bool(self.low > 0)

    @property
    def is_below_zero(self) -> bool:
        """Whether the interval lies below zero."""
        return bool(self.high < 0)


@dataclass(frozen=True)
class Skill:
    """RankIC and R² against zero, or the paired differences of two models in both."""

    rank_ic: Estimate
    r2: Estimate


def session_scores(y: F64, score: F64, y_hat: F64, session: I32, num_sessions: int) -> SessionScores:
    """Score rows (n,) session by session; rows without an outcome are left out."""
    known = np.isfinite(y)
    y, score, y_hat, session = y[known], score[known], y_hat[known], session[known]
    return SessionScores(
        rank_ic(y, score, session, num_sessions, min_size=MIN_HELD_OUT),
        np.bincount(session, weights=np.square(y - y_hat), minlength=num_sessions).astype(np.float64),
        np.bincount(session, weights=np.square(y), minlength=num_sessions).astype(np.float64),
    )


def pooled(folds: Sequence[SessionScores]) -> SessionScores:
    """Put folds of one market together: RankIC is averaged over them, sums are added."""
    series = np.stack([fold.rank_ic for fold in folds])
    known = np.isfinite(series)
    count = known.sum(axis=0)
    mean = np.where(count > 0, np.where(known, series, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
    return SessionScores(mean, sum(f.error for f in folds), sum(f.square for f in folds))  # type: ignore[arg-type]


def skill(scores: SessionScores, *, horizon: int, delay: int) -> Skill:
    """Return a model's scores with their intervals."""
    return _measure(scores.rank_ic, scores.square - scores.error, scores.square, horizon, delay)


def difference(one: SessionScores, other: SessionScores, *, horizon: int, delay: int) -> Skill:
    """Return what ``one`` scores more than ``other``, paired by session."""
    return _measure(one.rank_ic - other.rank_ic, other.error - one.error, one.square, horizon, delay)


def retains(one: SessionScores, other: SessionScores, *, horizon: int, delay: int) -> bool:
    """Return whether ``one`` has skill, and not less of it than ``other``."""
    own = skill(one, horizon=horizon, delay=delay)
    gap = difference(one, other, horizon=horizon, delay=delay)
    has_skill = own.rank_ic.is_above_zero and own.r2.is_above_zero
    return has_skill and not (gap.rank_ic.is_below_zero or gap.r2.is_below_zero)


def _measure(series: F64, gain: F64, square: F64, horizon: int, delay: int) -> Skill:
    known = np.isfinite(series)
    statistics = np.column_stack([np.where(known, series, 0.0), known, gain, square]).astype(np.float64)
    blocks = plan_blocks(len(series), horizon, delay, Bootstrap())
    totals, draws = statistics.sum(axis=0), resample(statistics, blocks)
    found = []
    for top, bottom in ((0, 1), (2, 3)):
        with np.errstate(invalid="ignore", divide="ignore"):
            value, drawn = totals[top] / totals[bottom], draws[:, top] / draws[:, bottom]
        found.append(Estimate(float(value), *interval(float(value), drawn, blocks)))
    return Skill(*found)
