"""When a skill was lost: a one-sided CUSUM chart over blocks of sessions (Page 1954).

``S = max(0, S + (reference mean - block mean) / reference sd - allowance)``; it alarms where ``S`` crosses a
threshold. Means over blocks at least twice as long as a label are nearly independent and nearly normal, so
the distribution of the largest ``S`` depends only on how many blocks the reference has (its mean and spread
are *estimated*, and the simulation estimates them anew in every draw), on how many are watched, and on what
correlation is left from block to block. The threshold is the quantile of that distribution, simulated: "at
most 5 % of models that never change alarm within 250 sessions" means just that.

.. note::
    Measured on simulated markets (overlapping labels of 6 sessions, storms, industries): of 1,000 charts that
    may alarm in 5 % within 250 sessions 2 to 5 % do; 7 to 10 % where skill itself wanders by a third over two
    months and so is not stationary enough to tell from decay.

Letters: D draws, M blocks of the reference, N blocks watched, T sessions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from barcast.core.arrays import F64
from barcast.core.config import to_plain
from barcast.core.errors import UsageError
from barcast.evaluation.intervals import MIN_BLOCKS, default_block_length
from barcast.evaluation.results import without_nan
from barcast.evaluation.skill import block_means, overlap_correlation

Measure = Literal["rank_ic", "gain"]
_NUM_DRAWS = 40_000
#: Correlations are rounded up to steps of this size, so that many charts share one simulation.
_STEP = 0.05
_MAX_CORRELATION = 0.8


@dataclass(frozen=True)
class Chart:
    """What became of one series of skill since training.

    Attributes
    ----------
    name : str
        Whose: ``all``, or a cohort's name.
    measure : str
        ``rank_ic`` or ``gain`` (mean gain over a zero forecast, in units of a symbol's usual one).
    block_length : int
        Sessions in a block.
    num_reference, num_watched : int
        Blocks with a value.
    reference, since : float
        Mean skill before and after training; NaN where there is none.
    path : tuple of float
        ``S`` after each block, in standard deviations of a block.
    threshold : float
        What it must cross; NaN where the chart cannot be kept.
    rate : float
        Share of unchanged models that may alarm within ``span`` sessions.
    span : int
        Sessions for which the rate holds; watched on for longer, more will alarm.
    alarm : int or None
        Last decision session of the block in which the threshold was crossed.
    known_at : int or None
        The session at which this was known.
    onset : int or None
        First session of the run of blocks that led to the alarm: where the fall began, roughly.
    reason : str
        Why there is no chart; empty where there is.
    """

    name: str
    measure: Measure
    block_length: int
    num_reference: int
    num_watched: int
    reference: float
    since: float
    path: tuple[float, ...]
    threshold: float
    rate: float
    span: int
    alarm: int | None = None
    known_at: int | None = None
    onset: int | None = None
    reason: str = ""

    @property
    def sentence(self) -> str:
        """What to tell the user, sessions by number."""
        return self.told("session {}".format)

    def told(self, when: Callable[[int], str]) -> str:
        """Return what to tell the user; ``when`` names a session."""
        if self.reason:
            return f"{self.name}: not watched, {self.reason}."
        told = f"{self.measure} {self.reference:.3g} before, {self.since:.3g} since"
        if self.alarm is None:
            return f"{self.name}: no sign of decay ({told}, {self.num_watched} blocks)."
        return (
            f"{self.name}: skill fell from about {when(self.onset or 0)} on, seen at "
            f"{when(self.known_at or 0)} ({told}; {self.rate:.2g} of unchanged models alarm in {self.span} "
            "sessions)."
        )

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON, None for what is not defined."""
        plain: dict[str, Any] = without_nan(to_plain(self) | {"sentence": self.sentence})
        return plain


@dataclass(frozen=True, kw_only=True)
class Cusum:
    """How charts are kept.

    Attributes
    ----------
    label_sessions : int
        Sessions from a decision until its outcome is known.
    rate : float
        Share of charts of unchanged models that may alarm within ``span`` sessions.
    span : int
        Sessions for which the rate is stated.
    allowance : float
        Falls smaller than this many standard deviations of a block are let pass; falls of twice its size are
        found soonest.
    """

    label_sessions: int
    rate: float = 0.05
    span: int = 250
    allowance: float = 0.5

    def __post_init__(self) -> None:
        if self.label_sessions < 0 or not 0 < self.rate < 1 or self.span < 1 or self.allowance < 0:
            raise UsageError(
                "a chart needs `label_sessions` >= 0, `rate` between 0 and 1, `span` >= 1 and `allowance` >= "
                f"0, got {self.label_sessions}, {self.rate}, {self.span} and {self.allowance}"
            )

    def shared_by(self, num_charts: int) -> Cusum:
        """Return how to keep each of several charts so that the rate holds for all of them together."""
        return replace(self, rate=self.rate / num_charts)

    def block_length(self, num_reference: int) -> int:
        """Return the sessions in a block for a reference of so many sessions."""
        return default_block_length(num_reference, self.label_sessions, 0)

    def chart(self, name: str, measure: Measure, reference: F64, watched: F64, first: int) -> Chart:
        """Keep one chart.

        Parameters
        ----------
        name, measure : str
            See :class:`Chart`.
        reference, watched : F64, shape (T,)
            Skill by session before and after training; NaN where undefined.
        first : int
            Session of ``watched[0]``.

        Returns
        -------
        Chart
            Without threshold, and with the reason, where the reference has fewer than 5 blocks or does not
            vary, or no block is watched in full.
        """
        length = self.block_length(len(reference))
        before, after = (block_means(part[None], length)[0] for part in (reference, watched))
        before = before[np.isfinite(before)]
        num_watched = int(np.isfinite(after).sum())
        made = Chart(
            name, measure, length, len(before), num_watched, _mean(before), _mean(after[np.isfinite(after)]),
            (), math.nan, self.rate, self.span, reason=_not_watched(before, num_watched, length),
        )  # fmt: skip
        return made if made.reason else self._watch(made, before, after, first)

    def _watch(self, made: Chart, before: F64, after: F64, first: int) -> Chart:
        length = made.block_length
        falls = (before.mean() - after) / before.std(ddof=1)
        path = _path(np.nan_to_num(falls, nan=self.allowance)[:, None], self.allowance)[:, 0]
        correlation = block_correlation(before, overlap_correlation(self.label_sessions, length))
        num_watched = -(-self.span // length)
        threshold = cusum_threshold(len(before), num_watched, correlation, self.allowance, self.rate)
        found = made.__dict__ | {"path": tuple(path.tolist()), "threshold": threshold}
        crossed = np.flatnonzero(path > threshold)
        if len(crossed):
            block = int(crossed[0])
            started = int(np.flatnonzero(np.r_[0.0, path[:block]] == 0)[-1])
            alarm = first + (block + 1) * length - 1
            found |= {
                "alarm": alarm, "known_at": alarm + self.label_sessions, "onset": first + started * length,
            }  # fmt: skip
        return Chart(**found)


def block_correlation(blocks: F64, least: float) -> float:
    """Return the correlation from block to block to calibrate with.

    What the overlap of labels can cause, or the reference's own where that is larger (skill that comes and
    goes): its first autocorrelation, freed of the bias of a short series (Kendall 1954), rounded up to 0.05.
    """
    apart = blocks - blocks.mean()
    own = float(apart[1:] @ apart[:-1] / (apart @ apart))
    own = (len(blocks) * own + 1) / (len(blocks) - 3)
    return min(math.ceil(max(own, least) / _STEP - 1e-9) * _STEP, _MAX_CORRELATION)


def cusum_threshold(
    num_reference: int, num_watched: int, correlation: float, allowance: float, rate: float
) -> float:
    """Return what the largest ``S`` of an unchanged series exceeds with probability ``rate``.

    Parameters
    ----------
    num_reference, num_watched : int
        Blocks from which mean and spread are estimated (at least 3), and blocks watched.
    correlation : float
        From block to block (autoregression of order 1).
    allowance : float
        Of the chart.
    rate : float
        Probability that any of the blocks watched is above the threshold. Below 1e-4 of little meaning: the
        simulation has 40,000 draws.
    """
    largest = _largest(num_reference, num_watched, round(correlation, 6), allowance)
    return float(np.quantile(largest, 1 - rate))


@lru_cache(maxsize=64)
def _largest(num_reference: int, num_watched: int, correlation: float, allowance: float) -> F64:
    """Return the largest ``S`` of each draw, shape (D,)."""
    generator = np.random.default_rng(0)
    series = generator.standard_normal((num_reference + num_watched, _NUM_DRAWS))
    fresh = math.sqrt(1 - correlation**2)
    for block in range(1, len(series)):
        series[block] = correlation * series[block - 1] + fresh * series[block]
    before, after = series[:num_reference], series[num_reference:]
    falls = (before.mean(axis=0) - after) / before.std(axis=0, ddof=1)
    largest: F64 = _path(falls, allowance).max(axis=0)
    return largest


def _path(falls: F64, allowance: float) -> F64:
    """Return ``S`` after each block, shape (N, D), from standardised falls of that shape."""
    path = np.empty_like(falls)
    level = np.zeros(falls.shape[1])
    for block, fall in enumerate(falls):
        level = np.maximum(level + fall - allowance, 0.0)
        path[block] = level
    return path


def _not_watched(before: F64, num_watched: int, length: int) -> str:
    if len(before) < MIN_BLOCKS:
        return (
            f"the reference has {len(before)} blocks of {length} sessions, at least {MIN_BLOCKS} are needed"
        )
    if np.ptp(before) == 0:
        return "skill does not vary in the reference"
    if not num_watched:
        return f"no block of {length} sessions is complete since training"
    return ""


def _mean(values: F64) -> float:
    return float(values.mean()) if len(values) else math.nan
