"""Bayesian model averaging: what weight each member of a symbol's ensemble deserves.

Weights are pseudo-BMA+ (Yao, Vehtari, Simpson and Gelman 2018): ``mean_b softmax(z^(b) + ln prior)`` with
``z_k^(b) = n / h * sum_g a_g l_gk / sum_g a_g n_g``, where ``l_gk`` is member k's log score summed over
block g of ``h`` sessions (labels of horizon h overlap: h rows say what one does), ``n_g`` the block's rows,
n all of them, and ``a`` is exponential, which after division is Dirichlet(1, ..., 1).

Partial pooling
---------------
One symbol's few months say little about its members; all symbols' say much, as far as symbols are alike. Let
``D_s`` be a symbol's mean log scores a row, each member against the mean of members, and ``m`` the market's.
With ``D_s ~ N(d_s, V_s)`` and ``d_s ~ N(m, tau^2)`` the posterior mean of ``d_s`` is ``m + B_s (D_s - m)``,
``B_s = tau^2 / (tau^2 + V_s)``: the *strength* of the symbol's own evidence. It takes the place of ``D_s``
in every draw: ``z_s^(b) = n_s / h * ((1 - B_s) m^(b) + B_s D_s^(b))``. ``V_s`` comes from blocks of
sessions, ``tau^2`` from how much further symbols are apart than ``V_s`` and the luck they share explain.
``tau = 0`` gives the weights of the market's mean scores, a large ``tau`` the symbol's own. The factor stays
``n_s / h`` although the market's means are known better than that: with the evidence of all rows nearly
everything would go to one member, and members that are about equally good are worth more averaged.

Symbols may have different members. A symbol's strength is found among those with the same ones; the market's
mean of a member is that of all symbols that have it, each row against the members that everybody has.

Letters: R rows sorted by symbol, S symbols, K members, T blocks, D draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from barcast.core.arrays import F64, I32, I64, Bools
from barcast.core.errors import UsageError
from barcast.ensemble.densities import mixture_log_score
from barcast.ensemble.hierarchy import (
    Cells,
    between_variance,
    deviations,
    distinct,
    shared_luck,
    strength,
    symbol_of_row,
)

#: Draws times symbols worked on at once: half a megabyte a member stays in the cache.
_HELD = 64_000


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """How weights are found."""

    num_draws: int = 1000
    """Redrawings of the blocks."""
    seed: int = 0
    """Of the draws. Each block has its own stream, so neither order nor company of symbols matters to it."""
    min_sessions: int = 50
    """With fewer sessions weights move to the prior, by ``min_sessions / (min_sessions + sessions)``."""

    def __post_init__(self) -> None:
        if self.num_draws < 1 or self.min_sessions < 0:
            raise UsageError(
                f"`num_draws` is {self.num_draws} and `min_sessions` {self.min_sessions}",
                "draws are at least 1 and sessions at least 0",
            )


@dataclass(frozen=True)
class MemberEvidence:
    """Why a symbol's members weigh what they weigh; sequences are in the order of the members.

    Attributes
    ----------
    members : tuple of str
        K names.
    log_score : tuple of float
        Total over the rows that weighed, in nats; NaN for an excluded member.
    own, pooled, weights : tuple of float
        By the symbol's rows alone, by the market's mean scores, and as used.
    strength : float
        Share of the symbol's own departure from the market that counts, 0 to 1.
    num_rows, num_blocks : int
        Rows that weighed, and the blocks of ``horizon`` sessions they lie in.
    gain : float
        Mean log score a row of the mixture used less that of equal weights, on those very rows, in nats: what
        weighing could do at best. NaN without rows.
    excluded : tuple of str
        Members that the symbol does not have, or that lack a finite log score on some row: their weight is 0.
    """

    members: tuple[str, ...]
    log_score: tuple[float, ...]
    own: tuple[float, ...]
    pooled: tuple[float, ...]
    weights: tuple[float, ...]
    strength: float
    num_rows: int
    num_blocks: int
    gain: float
    excluded: tuple[str, ...]


@dataclass(frozen=True)
class Averaged:
    """Weights of all symbols, with evidence.

    Attributes
    ----------
    members : tuple of str
        K names.
    weights, own : F64, shape (S, K)
        As used, and by own rows alone; at least 0, each symbol's sum to 1.
    pooled : F64, shape (K,)
        By the market's mean scores, for a symbol with the usual number of rows.
    log_score : F64, shape (S, K)
        Totals in nats; NaN for excluded members.
    strength, gain : F64, shape (S,)
        As in :class:`MemberEvidence`.
    num_rows, num_blocks : I64, shape (S,)
        As in :class:`MemberEvidence`.
    excluded : Bools, shape (S, K)
        Members that may not weigh.
    """

    members: tuple[str, ...]
    weights: F64
    own: F64
    pooled: F64
    log_score: F64
    strength: F64
    gain: F64
    num_rows: I64
    num_blocks: I64
    excluded: Bools

    def evidence(self, position: int) -> MemberEvidence:
        """Return the evidence of one symbol, by position."""
        out = self.excluded[position].tolist()
        return MemberEvidence(
            members=self.members,
            log_score=tuple(self.log_score[position].tolist()),
            own=tuple(self.own[position].tolist()),
            pooled=tuple(self.pooled.tolist()),
            weights=tuple(self.weights[position].tolist()),
            strength=float(self.strength[position]),
            num_rows=int(self.num_rows[position]),
            num_blocks=int(self.num_blocks[position]),
            gain=float(self.gain[position]),
            excluded=tuple(name for name, gone in zip(self.members, out, strict=True) if gone),
        )


def average(
    log_density: F64,
    offsets: npt.NDArray[np.integer],
    session: I32 | I64,
    horizon: int,
    *,
    members: Sequence[str],
    prior: F64 | None = None,
    absent: Bools | None = None,
    options: Averaging | None = None,
) -> Averaged:
    """Weigh the members of every symbol.

    Parameters
    ----------
    log_density : F64, shape (R, K)
        From ``log_densities``, on rows on which no member was fitted or stopped (`weigh`). A row where no
        member's is finite has no known outcome and is left out. A member that lacks one on a row that is left
        gets weight 0 in that symbol; one that does so in most symbols that have it, in all of them.
    offsets : shape (S + 1,)
        Rows of each symbol.
    session : shape (R,)
        Session of each row, a count from 0; a symbol has one row a session.
    horizon : int
        Sessions a label spans.
    members : sequence of str
        K names.
    prior : F64, shape (K,) or (S, K), optional
        Prior weights, above 0; equal by default.
    absent : Bools, shape (S, K), optional
        Members that a symbol does not have: their weight is 0 whatever stands in ``log_density``, and
        where there are no rows too.
    options : Averaging, optional
        How weights are found.

    Returns
    -------
    Averaged
        A symbol without a usable row has the market's weights of its members; where no symbol has a row,
        the prior.

    Raises
    ------
    UsageError
        When shapes, names, prior or horizon do not fit.
    """
    options = options or Averaging()
    priors = _priors(prior, len(offsets) - 1, log_density.shape[1])
    _check(log_density, session, horizon, members)
    symbol = symbol_of_row(offsets, len(log_density))
    gone = np.zeros(priors.shape, bool) if absent is None else absent
    scores = _collect(np.where(gone[symbol], np.nan, log_density), symbol, gone, session, horizon)
    share = _strengths(scores)
    own, used, pooled = _weigh(scores, share, priors, options)
    rows = scores.rows.astype(np.int64)
    used[rows == 0] = restricted(np.broadcast_to(pooled, used.shape), ~scores.missing)[rows == 0]
    return Averaged(
        members=tuple(members), weights=used, own=own, pooled=pooled, strength=share,
        log_score=np.where(scores.missing | (rows == 0)[:, None], np.nan, scores.sums.sum(axis=1)),
        gain=_gains(log_density, symbol, used, scores.missing), excluded=scores.missing,
        num_rows=rows, num_blocks=np.count_nonzero(scores.size, axis=1),
    )  # fmt: skip


def _check(log_density: F64, session: I32 | I64, horizon: int, members: Sequence[str]) -> None:
    if log_density.shape != (len(session), len(members)) or not members:
        raise UsageError(
            f"`log_density` is {log_density.shape}, for {len(session):,} sessions and {len(members)} members",
            "give one row a session and one column a member",
        )
    if horizon < 1:
        raise UsageError(f"`horizon` is {horizon}: a label spans at least 1 session")


def _priors(prior: F64 | None, num_symbols: int, num_members: int) -> F64:
    given = np.ones(num_members) if prior is None else np.asarray(prior, np.float64)
    if given.shape not in ((num_members,), (num_symbols, num_members)) or not (given > 0).all():
        raise UsageError(
            f"`prior` has shape {given.shape} and {np.count_nonzero(~(given > 0))} values not above 0",
            f"give {num_members} weights above 0, or as many for each of {num_symbols:,} symbols",
        )
    given = np.broadcast_to(given, (num_symbols, num_members))
    return np.asarray(given / given.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class _Scores:
    """Log scores by symbol and block."""

    sums: F64  # (S, T, K), nats; 0 where a member is missing
    size: F64  # (S, T), rows
    missing: Bools  # (S, K), members that may not weigh
    block: I64  # (T,), which blocks of the calendar
    num_sessions: int  # in which any symbol has a row
    horizon: int

    @cached_property
    def alive(self) -> Bools:
        """Members that weigh anywhere, shape (K,)."""
        return np.asarray(~self.missing.all(axis=0))

    @cached_property
    def whole(self) -> Bools:
        """Symbols that have rows, and all members that weigh anywhere, shape (S,)."""
        return np.asarray(~self.missing[:, self.alive].any(axis=1) & (self.rows > 0))

    @cached_property
    def everywhere(self) -> Bools:
        """Members of all symbols that have rows, shape (K,)."""
        return np.asarray(~self.missing[self.rows > 0].any(axis=0))

    @cached_property
    def rows(self) -> F64:
        """Rows of each symbol, shape (S,)."""
        return np.asarray(self.size.sum(axis=1))


def _collect(log_density: F64, symbol: I64, absent: Bools, session: I32 | I64, horizon: int) -> _Scores:
    num_symbols = len(absent)
    finite = np.isfinite(log_density)
    known = finite.any(axis=1)
    gaps = [np.bincount(symbol[known], ~own, num_symbols) for own in finite[known].T]
    missing = np.array(gaps, dtype=bool).T | absent
    present = np.bincount(symbol[known], minlength=num_symbols) > 0
    having = present[:, None] & ~absent
    failed = (missing & having).sum(axis=0) > 0.5 * having.sum(axis=0)
    missing[:, failed | (present.any() & ~having.any(axis=0))] = True
    # a symbol without a usable member is one without rows
    known &= ~np.asarray(missing.all(axis=1))[symbol]
    block, index = distinct(session[known] // horizon)
    cells = Cells(symbol[known], index, num_symbols, len(block))
    usable = np.where(missing[symbol[known]], 0.0, log_density[known])
    return _Scores(
        cells.sums(usable), cells.sums(np.ones(len(usable))), missing, block,
        len(distinct(session[known])[0]), horizon,
    )  # fmt: skip


def _strengths(scores: _Scores) -> F64:
    """Return how far each symbol's own mean log scores are believed, shape (S,)."""
    share = np.zeros(len(scores.size))
    seen = scores.rows > 0
    if np.count_nonzero(seen) < 2:
        return seen.astype(np.float64)
    for missing in np.unique(scores.missing[seen], axis=0):
        alike = seen & (scores.missing == missing).all(axis=1)
        if np.count_nonzero(alike) > 1 and np.count_nonzero(~missing) > 1:
            share[alike] = _strengths_of(scores.sums[alike][:, :, ~missing], scores.size[alike])
    return share


def _strengths_of(sums: F64, size: F64) -> F64:
    """Return the strengths of symbols with the same members, shape (S,)."""
    contrast = sums - sums.mean(axis=2, keepdims=True)
    common = contrast.sum(axis=0) / np.maximum(size.sum(axis=0), 1)[:, None]
    found = deviations(contrast, size, common)
    variance = found.variance * shared_luck(found, found.variance)
    between = between_variance(np.square(found.mean).sum(axis=1), variance)
    return strength(between, variance)


def _draws(block: I64, options: Averaging) -> F64:
    """Return exponential weights of each block in each draw, shape (D, T); a block has its own stream."""
    drawn = np.empty((options.num_draws, len(block)))
    for column, number in enumerate(block.tolist()):
        stream = np.random.Philox(key=options.seed, counter=[0, 0, 0, number])
        drawn[:, column] = np.random.Generator(stream).standard_exponential(options.num_draws)
    return drawn


def _weigh(scores: _Scores, share: F64, priors: F64, options: Averaging) -> tuple[F64, F64, F64]:
    """Return weights by own rows (S, K), as used (S, K), and the market's (K,)."""
    draws = _draws(scores.block, options)
    rows = scores.rows
    nobody = scores.missing.all(axis=1, keepdims=True)
    log_priors = np.where(scores.missing & ~nobody, -np.inf, np.log(priors))
    market, pooled = _market(scores, draws, np.median(rows[rows > 0]) if rows.any() else 0.0, priors)
    own, used = np.empty_like(priors), np.empty_like(priors)
    step = max(_HELD // options.num_draws, 1)
    for first in range(0, len(rows), step):
        part = slice(first, first + step)
        mean = _means(draws, scores.sums[part], scores.size[part])
        factor = rows[part] / scores.horizon
        own[part] = _softmax(mean, factor, log_priors[part])
        mean += (1 - share[part]) * (market[:, :, None] - mean)
        used[part] = _softmax(mean, factor, log_priors[part])
    allowed = np.exp(log_priors) / np.exp(log_priors).sum(axis=1, keepdims=True)
    sessions = share * rows + (1 - share) * scores.num_sessions  # a symbol has one row a session
    base = restricted(priors.mean(axis=0), scores.alive)
    return (
        _to_prior(own, allowed, rows, options.min_sessions),
        _to_prior(used, allowed, sessions, options.min_sessions),
        _to_prior(pooled, base, np.array(scores.num_sessions), options.min_sessions),
    )


def _market(scores: _Scores, draws: F64, rows: float, priors: F64) -> tuple[F64, F64]:
    """Return the market's mean log scores a row in each draw (K, D), and the weights these give (K,).

    Where symbols have different members the scores are less those of the members that all have, of which
    a softmax takes no notice: whoever has a member would otherwise pass for what the member is worth.
    """
    sums, size = scores.sums, np.where(scores.missing[:, None, :], 0.0, scores.size[:, :, None])
    if scores.everywhere.any():
        level = sums[:, :, scores.everywhere].mean(axis=2, keepdims=True)
        sums = np.where(scores.missing[:, None, :], 0.0, sums - level)
    else:
        sums, size = sums[scores.whole], size[scores.whole]
    total = draws @ size.sum(axis=0)
    mean = (draws @ sums.sum(axis=0) / np.where(total == 0, 1.0, total)).T
    log_prior = np.where(scores.alive | ~scores.alive.any(), np.log(priors.mean(axis=0)), -np.inf)
    weights = _softmax(mean[:, :, None], np.array([rows / scores.horizon]), log_prior[None])
    return mean, weights[0]


def _means(draws: F64, sums: F64, size: F64) -> F64:
    """Return mean log scores a row in each draw, shape (K, D, S); 0 where a symbol has no rows."""
    rows = draws @ size.T
    rows[rows == 0] = 1.0
    return np.stack([draws @ column.T / rows for column in np.moveaxis(sums, 2, 0)])


def _softmax(mean: F64, factor: F64, log_prior: F64) -> F64:
    """Return ``mean_b softmax(factor * mean + log prior)``, shape (S, K), of means (K, D, S)."""
    score = mean * factor + log_prior.T[:, None, :]
    score -= score.max(axis=0)
    np.exp(score, out=score)
    score /= score.sum(axis=0)
    weights = score.mean(axis=1).T
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def restricted(weights: F64, allowed: Bools) -> F64:
    """Return weights (..., K) of allowed members alone, summing to 1.

    They stay as they are, to the bit, where nothing is to be taken away, and where nothing would be left.
    """
    kept = np.where(allowed, weights, 0.0)
    total = kept.sum(axis=-1, keepdims=True)
    same = (kept == weights).all(axis=-1, keepdims=True) | (total == 0)
    return np.asarray(np.where(same, weights, kept / np.where(same, 1.0, total)))


def _to_prior(weights: F64, prior: F64, num_sessions: F64 | I64, min_sessions: int) -> F64:
    """Move weights that stand on few sessions to the prior."""
    short = np.where(
        num_sessions < min_sessions, min_sessions / np.maximum(min_sessions + num_sessions, 1), 0
    )
    return np.asarray(weights + short[..., None] * (prior - weights))


def _gains(log_density: F64, symbol: I64, weights: F64, missing: Bools) -> F64:
    """Return the mean log score a row of the mixture less that of equal weights, shape (S,)."""
    values = np.where(missing[symbol], np.nan, log_density)
    gain = mixture_log_score(values, weights[symbol]) - mixture_log_score(values, np.ones_like(values))
    known = np.isfinite(gain)
    rows = np.bincount(symbol[known], minlength=len(weights))
    total = np.bincount(symbol[known], gain[known], len(weights))
    return np.where(rows > 0, total / np.maximum(rows, 1), np.nan)
