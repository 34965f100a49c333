"""Which symbols' models decayed, among thousands that are tested at once.

Each symbol's gain over a zero forecast before and after training is compared block by block (Welch's t, one
side), and the p-values are cut by the step-up procedure of Benjamini and Hochberg (1995), so that of the
symbols named no more than a stated share is expected to be named in vain.

Benjamini-Hochberg and not Benjamini-Yekutieli (2001), although symbols move together: outcomes and forecasts
are taken less their mean over the session first, which removes the shock that all share; what industries and
styles leave correlates losses positively, and under positive regression dependence the first procedure holds
its rate (Benjamini and Yekutieli 2001, theorem 1.2). The second holds it under any dependence by dividing the
rate by ``1 + 1/2 + ... + 1/S``, 9 for 5,000 symbols, which would leave most decayed models unnamed.

Letters: S symbols, T sessions, N blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from barcast.core.arrays import F64
from barcast.core.config import to_plain
from barcast.evaluation.intervals import MIN_BLOCKS, default_block_length
from barcast.evaluation.metrics import ratio
from barcast.evaluation.results import without_nan
from barcast.evaluation.skill import block_means, overlap_correlation


@dataclass(frozen=True)
class Named:
    """A symbol whose model decayed.

    Attributes
    ----------
    symbol : str
        Its name.
    before, since : float
        Mean gain over a zero forecast before and after training, in the unit of the outcome.
    effect : float
        The fall in standard deviations of a block.
    p_value, q_value : float
        Of the symbol alone; and the smallest rate of false discoveries at which it would be named.
    num_before, num_since : int
        Blocks with a value.
    """

    symbol: str
    before: float
    since: float
    effect: float
    p_value: float
    q_value: float
    num_before: int
    num_since: int

    @property
    def sentence(self) -> str:
        """What to tell the user."""
        return (
            f"{self.symbol}: its gain over a zero forecast fell from {self.before:.3g} to {self.since:.3g} "
            f"a row ({self.num_before} blocks before, {self.num_since} since; q = {self.q_value:.2g})."
        )

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain: dict[str, Any] = without_nan(to_plain(self) | {"sentence": self.sentence})
        return plain


@dataclass(frozen=True)
class Naming:
    """What testing every symbol found.

    Attributes
    ----------
    named : tuple of Named
        Smallest p-value first.
    p_value, q_value : F64, shape (S,)
        Of every symbol; NaN where there was too little to judge.
    block_length : int
        Sessions in a block.
    rate : float
        Share of the named expected to be named in vain, at most.
    """

    named: tuple[Named, ...]
    p_value: F64
    q_value: F64
    block_length: int
    rate: float

    @property
    def num_judged(self) -> int:
        """Symbols with at least 5 blocks on either side."""
        return int(np.isfinite(self.p_value).sum())

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "named": [named.plain() for named in self.named],
            "num_judged": self.num_judged,
            "num_not_judged": len(self.p_value) - self.num_judged,
            "block_length": self.block_length,
            "rate": self.rate,
        }


def name_symbols(
    symbols: Sequence[str], reference: F64, since: F64, *, label_sessions: int, rate: float = 0.1
) -> Naming:
    """Name the symbols whose gain fell.

    Parameters
    ----------
    symbols : sequence of str, length S
        Names.
    reference, since : F64, shape (S, T)
        Gain by symbol and session before and after training (the two may differ in T), NaN where there is
        no row; from `barcast.evaluation.skill.gains`, less what the session did to all.
    label_sessions : int
        Sessions from a decision until its outcome is known.
    rate : float
        Share of the named that may be named in vain. It holds for one look; a symbol that is not named today
        may be tested again tomorrow, at the price of another such share.
    """
    shortest = min(reference.shape[1], since.shape[1])
    length = default_block_length(shortest, label_sessions, 0)
    blocks = block_means(reference, length), block_means(since, length)
    correlation = overlap_correlation(label_sessions, length)
    (before, spread_before, num_before), (after, spread_after, num_after) = map(_moments, blocks)
    p_value = fall_p_values(*blocks, correlation)
    q_value = q_values(p_value)
    spread = np.sqrt((spread_before + spread_after) / 2)
    effect = ratio(before - after, spread)
    chosen = np.flatnonzero(q_value <= rate)
    named = tuple(
        Named(
            symbols[s], float(before[s]), float(after[s]), float(effect[s]), float(p_value[s]),
            float(q_value[s]), int(num_before[s]), int(num_after[s]),
        )
        for s in chosen[np.argsort(p_value[chosen], kind="stable")].tolist()
    )  # fmt: skip
    return Naming(named, p_value, q_value, length, rate)


def fall_p_values(before: F64, after: F64, correlation: float = 0.0) -> F64:
    """Return the probability of a fall in mean as large as seen if nothing changed, shape (S,).

    Welch's t on blocks, one side: the spread after training may differ from that before. Standard errors are
    widened for blocks of which neighbours correlate.

    Parameters
    ----------
    before, after : F64, shape (S, N)
        Block means; NaN ones are left out.
    correlation : float
        Of neighbouring blocks.

    Returns
    -------
    F64, shape (S,)
        NaN below 5 blocks on a side or without any spread.
    """
    from scipy.special import stdtr  # local: slow to import

    (mean_0, variance_0, num_0), (mean_1, variance_1, num_1) = _moments(before), _moments(after)
    error_0, error_1 = ratio(variance_0, num_0), ratio(variance_1, num_1)
    error = error_0 + error_1
    judged = (num_0 >= MIN_BLOCKS) & (num_1 >= MIN_BLOCKS) & (error > 0)
    freedom = ratio(error**2, ratio(error_0**2, num_0 - 1) + ratio(error_1**2, num_1 - 1))
    t = ratio(mean_0 - mean_1, np.sqrt(error * (1 + 2 * correlation)))
    return np.where(judged, stdtr(freedom, -t), np.nan)


def q_values(p_value: F64) -> F64:
    """Return for each p-value the smallest rate of false discoveries at which it is rejected.

    Benjamini and Hochberg's step-up procedure; NaN p-values are no tests and stay NaN.
    """
    tested = np.flatnonzero(np.isfinite(p_value))
    order = tested[np.argsort(p_value[tested], kind="stable")]
    raised = p_value[order] * len(order) / np.arange(1, len(order) + 1)
    q_value = np.full(len(p_value), math.nan)
    q_value[order] = np.minimum.accumulate(raised[::-1])[::-1]
    return q_value


def _moments(blocks: F64) -> tuple[F64, F64, F64]:
    """Return mean, variance (ddof 1) and number of the finite blocks of each row, each of shape (S,)."""
    finite = np.isfinite(blocks)
    num = finite.sum(axis=1).astype(np.float64)
    mean = ratio(np.where(finite, blocks, 0.0).sum(axis=1), num)
    apart = np.where(finite, blocks - mean[:, None], 0.0)
    return mean, ratio((apart**2).sum(axis=1), num - 1), num
