"""Who serves a symbol: the universal model, unless the evidence for its dedicated model is good.

What a symbol gained by its dedicated model on `route` rows is its true gain, plus luck of its own, plus luck
that all symbols share (errors of one session are correlated across symbols: the variance of a market's mean
is 13 to 28 times that of independent rows). Three steps keep luck from deciding, on gains divided by each
symbol's own standard deviation: the more two models differ, the wilder the gain and the larger its mean.

1. *The common gain.* The market's mean gain is judged by blocks of sessions, never by rows. Is it anything
   but luck? Posterior probability by the Bayes factor of a mean against 0 under the unit-information prior
   (Kass and Wasserman 1995), with Student tails for few blocks. The prior is even odds, at 0: "universal".
2. *Own departures.* A symbol's mean gain less the market's in the same sessions, with its error. Departures
   may also spread through shared luck of either sign (see `shared_luck`), and errors are widened by that.
3. *Empirical Bayes* over all symbols: departures are 0 for a share of symbols and normal for the rest, with
   the shares, means and variances (a mixture over a grid) of the largest marginal likelihood, which is
   penalised in favour of 0 as by Stephens (2017, "False discovery rates: a new deal").

Each symbol then has an expected gain and a probability that it gains. A departure of exactly 0 is no gain of
its own: it counts as far as the common gain is real. Those leave the universal model who are expected to
gain and do so with at least 65 %, likeliest first, as long as ``min_probability`` of all who leave gain on
average (Newton et al. 2004). So the doubtful follow where many surely gain, and stay where nobody does.

Letters: R rows sorted by symbol, S symbols, T blocks, J parts of the mixture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from barcast.core.arrays import F64, I32, I64, Bools
from barcast.core.errors import UsageError
from barcast.ensemble.hierarchy import (
    Cells,
    Deviations,
    balanced_blocks,
    deviations,
    distinct,
    shared_luck,
    symbol_of_row,
)
from barcast.evaluation.intervals import MIN_BLOCKS

Policy = Literal["evidence", "prefer-dedicated", "universal"]
Server = Literal["universal", "dedicated"]
#: Fewer rows than this say nothing about a symbol of its own.
MIN_ROWS = 20
#: Symbols' worth of prior belief that a departure is 0.
_NULL_SYMBOLS = 10.0
#: The narrowest part of the mixture, in typical errors; narrower ones cannot be told from 0.
_NARROWEST = 0.25
#: Where parts of one width lie, in widths: true departures may be skewed.
_PLACES = (-1.5, 0.0, 1.5)
_MAX_STEPS = 500
#: Nobody leaves whose own gain is less likely than this.
_LEAST_PROBABILITY = 0.65


@dataclass(frozen=True)
class RouteEvidence:
    """Why a symbol is served by whom. Gains are universal less dedicated loss, in the loss's own unit.

    Attributes
    ----------
    gain, standard_error : float
        Mean over the symbol's rows, and its error with all luck in it; NaN where there is too little.
    posterior_mean, probability : float
        Expected true gain, and the probability that it is above 0; NaN where there is too little.
    num_rows, num_blocks : int
        Rows, and blocks of sessions they lie in.
    decision : str
        ``universal`` or ``dedicated``.
    reason : str
        One sentence.
    """

    gain: float
    standard_error: float
    posterior_mean: float
    probability: float
    num_rows: int
    num_blocks: int
    decision: Server
    reason: str


@dataclass(frozen=True)
class CommonGain:
    """What the market as a whole gains by dedicated models.

    Attributes
    ----------
    gain, standard_error : float
        Mean over all rows, in standard deviations of the symbol's rows, and its error by blocks of sessions;
        NaN with fewer than 5 blocks.
    probability : float
        That it is anything but luck, 0 to 1.
    posterior_mean, posterior_sd : float
        Of the true common gain, if there is one.
    num_blocks : int
        Blocks of sessions.
    """

    gain: float
    standard_error: float
    probability: float
    posterior_mean: float
    posterior_sd: float
    num_blocks: int


@dataclass(frozen=True)
class Departures:
    """What symbols' own departures from the common gain look like, in standard deviations of a row.

    Attributes
    ----------
    centres, scales, shares : F64, shape (J,)
        Means, about the common gain, and standard deviations of the mixture's parts, the first 0 and 0 ("as
        everybody"), and their shares.
    """

    centres: F64
    scales: F64
    shares: F64

    @property
    def spread(self) -> float:
        """Standard deviation of true departures, over all symbols."""
        mean = float(self.shares @ self.centres)
        return math.sqrt(float(self.shares @ (np.square(self.scales) + np.square(self.centres - mean))))


@dataclass(frozen=True)
class Routing:
    """Who serves each of S symbols, with the evidence.

    Attributes
    ----------
    policy : str
        What was asked for.
    dedicated : Bools, shape (S,)
        Whether the dedicated model serves.
    has_dedicated : Bools, shape (S,)
        Whether there is one.
    gain, standard_error, posterior_mean, probability : F64, shape (S,)
        As in :class:`RouteEvidence`.
    num_rows, num_blocks : I64, shape (S,)
        As in :class:`RouteEvidence`.
    min_probability : float
        What those who leave under the policy ``evidence`` have at least, on average.
    common : CommonGain
        The market's gain.
    departures : Departures
        How symbols differ.
    """

    policy: Policy
    dedicated: Bools
    has_dedicated: Bools
    gain: F64
    standard_error: F64
    posterior_mean: F64
    probability: F64
    num_rows: I64
    num_blocks: I64
    min_probability: float
    common: CommonGain
    departures: Departures

    def evidence(self, position: int) -> RouteEvidence:
        """Return the evidence of one symbol, by position."""
        return RouteEvidence(
            gain=float(self.gain[position]),
            standard_error=float(self.standard_error[position]),
            posterior_mean=float(self.posterior_mean[position]),
            probability=float(self.probability[position]),
            num_rows=int(self.num_rows[position]),
            num_blocks=int(self.num_blocks[position]),
            decision="dedicated" if self.dedicated[position] else "universal",
            reason=self._reason(position),
        )

    def _reason(self, position: int) -> str:
        if not self.has_dedicated[position]:
            return "There is no dedicated model."
        if self.policy != "evidence":
            return f"The policy `{self.policy}` was asked for."
        rows, blocks = int(self.num_rows[position]), int(self.num_blocks[position])
        probability = float(self.probability[position])
        if math.isnan(probability):
            return (
                f"Too little to judge by: {rows} rows in {blocks} blocks of sessions, where {MIN_ROWS} rows "
                f"in {MIN_BLOCKS} blocks are needed."
            )
        if self.dedicated[position]:
            return f"The dedicated model is better with probability {probability:.0%}."
        if self.posterior_mean[position] <= 0:
            return "The dedicated model is expected to be no better."
        return (
            f"The gain may be luck: it is real with probability {probability:.0%}, and those who leave need "
            f"{self.min_probability:.0%} on average."
        )


def route(
    gain: F64,
    offsets: npt.NDArray[np.integer],
    session: I32 | I64,
    *,
    horizon: int,
    delay: int,
    policy: Policy = "evidence",
    has_dedicated: Bools | None = None,
    min_probability: float = 0.8,
) -> Routing:
    """Decide who serves each symbol.

    Parameters
    ----------
    gain : F64, shape (R,)
        Universal less dedicated loss on `route` rows: squared errors divided by the row's variance, so that
        wild symbols do not drown calm ones. Rows where it is not finite are left out.
    offsets : shape (S + 1,)
        Rows of each symbol.
    session : shape (R,)
        Session of each row, a count from 0.
    horizon, delay : int
        Sessions a label spans, and from decision to entry.
    policy : str
        ``evidence``; ``prefer-dedicated`` serves every dedicated model there is; ``universal`` none.
    has_dedicated : Bools, shape (S,), optional
        Symbols that have a dedicated model; by default those with a row.
    min_probability : float
        Least probability of a gain, on average over the symbols that leave.

    Raises
    ------
    UsageError
        On shapes that do not fit, an unknown policy, or a probability outside 0.5 to 1.
    """
    symbol, num_symbols = symbol_of_row(offsets, len(gain)), len(offsets) - 1
    known = np.isfinite(gain)
    has = np.bincount(symbol[known], minlength=num_symbols) > 0 if has_dedicated is None else has_dedicated
    _check(gain, session, num_symbols, has, policy, min_probability)
    known &= has[symbol]
    sample = _Sample.of(gain[known], symbol[known], session[known], num_symbols, horizon, delay)
    common, departures = _common(sample), _fit_departures(sample.departure, sample.variance)
    mean, probability = _posterior(sample, common, departures)
    leaves = _leaving(mean, probability, min_probability)
    dedicated = {"evidence": leaves, "prefer-dedicated": has, "universal": np.zeros_like(has)}[policy]
    error = sample.scale * np.sqrt(sample.variance + common.standard_error**2)
    return Routing(
        policy=policy, dedicated=dedicated, has_dedicated=has, gain=sample.gain,
        standard_error=np.where(np.isfinite(error), error, np.nan), posterior_mean=mean,
        probability=probability, num_rows=sample.num_rows, num_blocks=sample.num_blocks,
        min_probability=min_probability, common=common, departures=departures,
    )  # fmt: skip


def _check(
    gain: F64, session: I32 | I64, num_symbols: int, has: Bools, policy: str, min_probability: float
) -> None:
    if len(session) != len(gain) or len(has) != num_symbols:
        raise UsageError(
            f"{len(gain):,} gains of {num_symbols:,} symbols, beside {len(session):,} sessions and "
            f"{len(has):,} symbols that have a dedicated model or not",
            "give a session for each row, and `has_dedicated` for each symbol",
        )
    if policy not in get_args(Policy) or not 0.5 <= min_probability < 1:
        raise UsageError(
            f"`policy` is {policy!r} and `min_probability` {min_probability}",
            f"choose one of {', '.join(get_args(Policy))}, and a probability from 0.5 to below 1",
        )


@dataclass(frozen=True)
class _Sample:
    """Gains of symbols and of blocks."""

    gain: F64  # (S,), NaN without rows
    scale: F64  # (S,), what gains of a row were divided by
    departure: F64  # (S,), from the market in the same sessions
    variance: F64  # (S,), of the departure's error; infinite where there is too little
    num_rows: I64  # (S,)
    num_blocks: I64  # (S,)
    block_sums: F64  # (T,), gains of all symbols
    block_rows: F64  # (T,)

    @classmethod
    def of(
        cls, gain: F64, symbol: I64, session: I32 | I64, num_symbols: int, horizon: int, delay: int
    ) -> _Sample:
        block, num_blocks = balanced_blocks(session, horizon, delay)
        cells = Cells(symbol, block, num_symbols, num_blocks)
        size = cells.sums(np.ones(len(gain)))
        own, scale = _moments(cells, gain)
        gain = gain / scale[symbol]
        rank = distinct(session)[1]
        apart = gain - (np.bincount(rank, gain) / np.maximum(np.bincount(rank), 1))[rank]
        found = deviations(cells.sums(apart)[..., None], size, np.zeros((num_blocks, 1)))
        square = cells.sums(np.square(apart)).sum(axis=1)
        return cls(
            own, scale, found.mean[:, 0], _errors(found, square), found.size.astype(np.int64),
            found.num_blocks, cells.sums(gain).sum(axis=0), size.sum(axis=0),
        )  # fmt: skip


def _moments(cells: Cells, gain: F64) -> tuple[F64, F64]:
    """Return mean and standard deviation of each symbol's gains, shapes (S,); the latter is never 0."""
    rows = cells.sums(np.ones(len(gain))).sum(axis=1)
    mean = cells.sums(gain).sum(axis=1) / np.where(rows > 0, rows, np.nan)
    square = cells.sums(np.square(gain - mean[cells.symbol])).sum(axis=1)
    scale = np.sqrt(square / np.maximum(rows - 1, 1))
    usual = float(np.median(scale[scale > 0])) if (scale > 0).any() else 1.0
    return mean, np.where(scale > 0, scale, usual)


def _errors(found: Deviations, square: F64) -> F64:
    """Return the variance of each departure's error, shape (S,).

    A symbol's own rows give its size: a handful of blocks would give it badly. How much less rows of one
    block tell than independent ones (labels overlap) is averaged over all symbols.
    """
    rows, blocks = found.size, found.num_blocks
    enough = (rows >= MIN_ROWS) & (blocks >= MIN_BLOCKS)
    safe = np.where(enough, rows, 2.0)
    independent = np.maximum(square - safe * np.square(found.mean[:, 0]), 0.0) / (safe - 1) / safe
    use = enough & (independent > 0)
    by_blocks = found.variance[use] * (blocks[use] - 3) / (blocks[use] - 1)
    inflation = max(float((by_blocks / independent[use]).mean()), 1.0) if use.any() else 1.0
    variance = np.where(enough, inflation * independent, np.inf)
    return variance * shared_luck(found, variance)


def _common(sample: _Sample) -> CommonGain:
    """Judge the market's mean gain by blocks of sessions."""
    filled = sample.block_rows > 0
    sums, rows = sample.block_sums[filled], sample.block_rows[filled]
    num = len(sums)
    mean = float(sums.sum() / rows.sum()) if num else math.nan
    if num < MIN_BLOCKS:
        return CommonGain(mean, math.nan, 0.0, 0.0, 0.0, num)
    error = math.sqrt(float(np.square(sums - mean * rows).sum()) * num / (num - 1)) / float(rows.sum())
    return CommonGain(
        mean, error, _probability_real(mean, error, num), mean * num / (num + 1),
        error * math.sqrt(num / (num + 1) * (num - 1) / (num - 3)), num,
    )  # fmt: skip


def _probability_real(mean: float, error: float, num: int) -> float:
    """Return the posterior probability that a mean of ``num`` blocks is not 0, at even odds before.

    The Bayes factor of Student marginals: under 0 the mean has its error; otherwise true mean and error
    together, where the true mean varies as much as one block does.
    """
    if error <= 0:
        return 1.0 if mean else 0.0
    square = min(abs(mean) / error, 1e9) ** 2 / (num - 1)
    log_factor = 0.5 * (num * (math.log1p(square) - math.log1p(square / (num + 1))) - math.log1p(num))
    return 1 / (1 + math.exp(-log_factor))


def _fit_departures(departure: F64, variance: F64) -> Departures:
    """Fit the mixture of true departures by expectation-maximisation of the penalised marginal likelihood."""
    use = np.isfinite(variance) & (variance > 0)
    d, v = departure[use], variance[use]
    if not len(d):
        return Departures(np.zeros(1), np.zeros(1), np.ones(1))
    narrowest = _NARROWEST * math.sqrt(float(np.median(v)))
    widest = 2 * math.sqrt(max(float((np.square(d) - v).max()), narrowest**2))
    widths = narrowest * 2.0 ** np.arange(math.ceil(math.log2(widest / narrowest)) + 1)
    scales = np.concatenate([[0.0], np.repeat(widths, len(_PLACES))])
    centres = np.concatenate([[0.0], np.outer(widths, _PLACES).ravel()])
    total = v[:, None] + np.square(scales)
    shares = np.full(len(scales), 1 / len(scales))
    null = np.where(scales == 0, _NULL_SYMBOLS, 0.0)
    for _ in range(_MAX_STEPS):
        parts = _parts(d[:, None] - centres, total, shares)
        before, shares = shares, (parts.sum(axis=0) + null) / (len(d) + _NULL_SYMBOLS)
        if np.abs(shares - before).max() < 1e-5:
            break
    return Departures(centres, scales, shares)


def _parts(departure: F64, total: F64, shares: F64) -> F64:
    """Return the probability of each part of the mixture for each symbol, shape (S, J)."""
    with np.errstate(divide="ignore"):  # a part without a share
        score = np.log(shares) - 0.5 * (np.log(total) + np.square(departure) / total)
    score = np.exp(score - score.max(axis=1, keepdims=True))
    return np.asarray(score / score.sum(axis=1, keepdims=True))


def _leaving(mean: F64, probability: F64, min_probability: float) -> Bools:
    """Return who leaves: the most symbols, likeliest first, that gain with this probability on average."""
    leaves = np.zeros(len(mean), bool)
    able = np.flatnonzero((mean > 0) & (probability > _LEAST_PROBABILITY))  # NaN stays
    order = able[np.argsort(-probability[able], kind="stable")]
    average = np.cumsum(probability[order]) / np.arange(1, len(order) + 1)
    leaves[order[average >= min_probability]] = True
    return leaves


def _posterior(sample: _Sample, common: CommonGain, found: Departures) -> tuple[F64, F64]:
    """Return the expected true gain, and the probability that it is above 0, shapes (S,); NaN: too little."""
    from scipy.special import ndtr  # local: one function of a large library

    enough = np.isfinite(sample.variance) & (common.num_blocks >= MIN_BLOCKS)
    v = np.where(enough, sample.variance, 1.0)[:, None]
    v = np.maximum(v, np.finfo(np.float64).tiny)
    apart = np.where(enough, sample.departure, 0.0)[:, None] - found.centres
    square = np.square(found.scales)
    parts = _parts(apart, v + square, found.shares)
    shrink = square / (square + v)
    mean, variance = found.centres + shrink * apart, shrink * v
    # With no common gain the part at 0 has no gain at all.
    alone = np.where(square > 0, ndtr(mean / np.sqrt(np.where(variance > 0, variance, 1.0))), 0.0)
    spread = np.sqrt(np.maximum(variance + common.posterior_sd**2, np.finfo(np.float64).tiny))
    together = ndtr((common.posterior_mean + mean) / spread)
    above = (parts * ((1 - common.probability) * alone + common.probability * together)).sum(axis=1)
    expected = common.probability * common.posterior_mean + (parts * mean).sum(axis=1)
    return np.where(enough, sample.scale * expected, np.nan), np.where(enough, above, np.nan)
