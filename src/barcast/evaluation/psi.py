"""Whether the inputs of a model still look like those it learned from: population stability index.

``PSI = sum (p - q) ln(p / q)`` over bins of one feature, ``q`` the shares of the rows that taught, ``p`` of
those since. Two samples of one population differ too: rows of a session are alike and features remember, so
thousands of rows may be worth a few dozen. What remains is measured: sessions of the reference are redrawn in
blocks (both a reference and a sample as long as the new one), which gives mean and spread of the PSI of
unchanged inputs: the noise to subtract, and a threshold that any of the features exceeds with at most a
stated probability.

Letters: R rows, F features, T sessions, B bins, D draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from barcast.core.arrays import F32, F64, I32, I64, Bools
from barcast.core.config import to_plain
from barcast.core.errors import UsageError
from barcast.evaluation.intervals import MIN_BLOCKS, Blocks, resample
from barcast.evaluation.results import without_nan
from barcast.evaluation.skill import overlap_correlation

#: The customary mark below which a shift is of no consequence (Siddiqi 2006).
MATERIAL = 0.1
#: Features whose draws are kept at once.
_CHUNK = 16


@dataclass(frozen=True)
class InputShift:
    """How far one feature moved.

    Attributes
    ----------
    feature : str
        Its name.
    psi : float
        As measured.
    noise : float
        Mean PSI of unchanged inputs.
    threshold : float
        What PSI must exceed to be no accident.
    missing_before, missing_since : float
        Shares of rows without a value.
    shifted : bool
        Beyond the threshold, and at least 0.1 above the noise.
    """

    feature: str
    psi: float
    noise: float
    threshold: float
    missing_before: float
    missing_since: float
    shifted: bool

    @property
    def sentence(self) -> str:
        """What to tell the user."""
        told = f"PSI {self.psi:.2g}, of which {self.noise:.2g} is noise"
        if self.missing_since - self.missing_before > 0.05:
            told += f"; missing in {self.missing_since:.0%} of the rows, {self.missing_before:.0%} before"
        return f"{self.feature}: {'shifted' if self.shifted else 'as before'} ({told})."

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON, None for what is not defined."""
        plain: dict[str, Any] = without_nan(to_plain(self) | {"sentence": self.sentence})
        return plain


@dataclass(frozen=True)
class InputReference:
    """How the inputs that taught were spread: small enough to keep beside a model.

    Attributes
    ----------
    features : tuple of str
        F names.
    edges : F64, shape (F, num_bins - 1)
        Quantiles of the valid values that divide them into equal shares.
    counts : F64, shape (T, F, B)
        Rows by session and bin; the last bin holds what is missing.
    """

    features: tuple[str, ...]
    edges: F64
    counts: F64

    @classmethod
    def of(
        cls,
        features: Sequence[str],
        inputs: F32,
        session: I32,
        valid: Bools | None = None,
        *,
        num_bins: int = 10,
    ) -> InputReference:
        """Read the rows that taught.

        Parameters
        ----------
        features : sequence of str, length F
        inputs : F32, shape (R, F)
            A value that is not finite is missing.
        session : I32, shape (R,)
            Session of each row.
        valid : Bools, shape (R, F), optional
            False where a value, though finite, stands for a missing one.
        num_bins : int
            Bins of equal shares; a value that recurs across two of their borders gets a bin of its own.

        Raises
        ------
        UsageError
            On fewer than two bins, or no rows.
        """
        if num_bins < 2 or not len(inputs):
            raise UsageError(f"PSI needs at least 2 bins and some rows, got {num_bins} and {len(inputs)}")
        shares = np.arange(1, num_bins) / num_bins
        edges = np.zeros((len(features), num_bins - 1))
        for position in range(len(features)):
            value, present = _column(inputs, valid, position)
            edges[position] = np.quantile(value[present], shares) if present.any() else math.nan
        return cls(tuple(features), edges, bin_counts(edges, inputs, session, valid))


def input_psi(
    reference: InputReference,
    inputs: F32,
    session: I32,
    valid: Bools | None = None,
    *,
    memory: int,
    rate: float = 0.05,
    num_draws: int = 500,
    seed: int = 0,
) -> tuple[InputShift, ...]:
    """Compare inputs since training with those that taught.

    Parameters
    ----------
    reference : InputReference
        Of the rows that taught.
    inputs, session, valid
        Rows since, as for :meth:`InputReference.of`.
    memory : int
        Sessions over which features remember (their longest look-back): the length of a block. Too short a
        block takes the slow wandering of a volatility for a shift.
    rate : float
        Probability that any feature of unchanged inputs is beyond its threshold.
    num_draws, seed : int
        Redrawings, and their seed.

    Returns
    -------
    tuple of InputShift
        One a feature, in order. Threshold and noise are NaN, and nothing is called shifted, where the
        reference has fewer than 5 blocks.

    Raises
    ------
    UsageError
        Where the features differ in number, there is no row, or nothing is remembered.
    """
    if memory < 1:
        raise UsageError(f"`memory` is {memory}: features remember at least their own session, 1")
    if inputs.shape[1] != len(reference.features) or not len(inputs):
        raise UsageError(
            f"the reference has {len(reference.features)} features, the rows since training are "
            f"{inputs.shape}",
            "give the same features in the same order, and at least one row",
        )
    recent = bin_counts(reference.edges, inputs, session, valid)
    old, new = reference.counts.sum(axis=0), recent.sum(axis=0)
    measured = psi(old, new)
    draws = _null_draws(reference.counts, len(recent), memory, num_draws, seed)
    noise, threshold = _limits(draws, len(reference.counts) // memory, memory, rate)
    missing = [(part[:, -1] / part.sum(axis=1)).tolist() for part in (old, new)]
    shifted = (measured > threshold) & (measured - noise >= MATERIAL)
    columns = [part.tolist() for part in (measured, noise, threshold)]
    return tuple(
        InputShift(*values)
        for values in zip(reference.features, *columns, *missing, shifted.tolist(), strict=True)
    )


def psi(old: F64, new: F64) -> F64:
    """Return the population stability index over the last axis of two tables of counts.

    A bin empty on one side counts as half a row there; one empty on both does not count.
    """
    used = (old > 0) | (new > 0)
    q, p = (np.maximum(part, 0.5) / part.sum(axis=-1, keepdims=True) for part in (old, new))
    index: F64 = np.where(used, (p - q) * np.log(p / q), 0.0).sum(axis=-1)
    return index


def bin_counts(edges: F64, inputs: F32, session: I32, valid: Bools | None) -> F64:
    """Return rows by session (from the first to the last), feature and bin, shape (T, F, B).

    Between the ``K`` edges lie ``K + 1`` bins, at even places; an edge that recurs is a value of its own with
    the odd (or even) place between; the last place is for what is missing. ``B = 2 K + 2``.
    """
    first = int(session.min())
    num_sessions, num_places = int(session.max()) - first + 1, 2 * edges.shape[1] + 2
    counts = np.empty((num_sessions, len(edges), num_places))
    start = (session - first).astype(np.int64) * num_places
    for position, borders in enumerate(edges):
        value, present = _column(inputs, valid, position)
        place = np.where(present, _places(borders, value), num_places - 1)
        table = np.bincount(start + place, minlength=num_sessions * num_places)
        counts[:, position] = table.reshape(num_sessions, num_places)
    return counts


def _column(inputs: F32, valid: Bools | None, position: int) -> tuple[F32, Bools]:
    value = inputs[:, position]
    present = np.isfinite(value)
    return value, present if valid is None else present & valid[:, position]


def _places(borders: F64, value: F32) -> I64:
    left, right = (np.searchsorted(borders, value, side=side) for side in ("left", "right"))
    # A value that recurs enough to be several borders must not share a bin with its neighbours, or a feature
    # constant in training could move without being seen.
    return np.where(right - left > 1, left + right, 2 * right)


def _null_draws(counts: F64, num_recent: int, memory: int, num_draws: int, seed: int) -> F64:
    """Return PSI between two samples redrawn from the reference, shape (D, F); none if it is too short."""
    num_sessions, num_features, num_places = counts.shape
    if num_sessions < MIN_BLOCKS * memory:
        return np.empty((0, num_features))
    generator = np.random.default_rng(seed)
    old, new = (
        _draw_blocks(generator, num_sessions, length, memory, num_draws)
        for length in (num_sessions, num_recent)
    )
    draws = np.empty((num_draws, num_features))
    for start in range(0, num_features, _CHUNK):
        part = counts[:, start : start + _CHUNK]
        flat = part.reshape(num_sessions, -1)
        tables = (resample(flat, blocks).reshape(num_draws, -1, num_places) for blocks in (old, new))
        draws[:, start : start + _CHUNK] = psi(*tables)
    return draws


def _draw_blocks(
    generator: np.random.Generator, num_sessions: int, drawn: int, memory: int, num_draws: int
) -> Blocks:
    length = min(max(memory, 1), drawn)
    starts = generator.integers(0, num_sessions, (num_draws, -(-drawn // length)), dtype=np.int64)
    return Blocks(starts, length, drawn, math.nan)


def _limits(draws: F64, num_blocks: int, memory: int, rate: float) -> tuple[F64, F64]:
    """Return mean PSI of unchanged inputs and each feature's threshold, each of shape (F,).

    PSI of unchanged inputs is nearly a multiple of a chi-squared variable with the freedom that its mean and
    spread imply (Satterthwaite 1946). The multiple is itself estimated, from as many blocks as the reference
    has, so thresholds are quantiles of Fisher's F; a normal or redrawn quantile is crossed several times too
    often.
    """
    from scipy.special import fdtri  # local: slow to import

    if not len(draws):
        return np.full(draws.shape[1], math.nan), np.full(draws.shape[1], math.nan)
    mean, spread = draws.mean(axis=0), draws.std(axis=0, ddof=1)
    freedom = 2 * mean**2 / np.where(spread > 0, spread, 1.0) ** 2
    # Blocks cut through what a feature remembers; this is what they lose of it, at most.
    noise = mean * (1 + 2 * overlap_correlation(memory, memory))
    reach = fdtri(np.maximum(freedom, 1.0), num_blocks - 1, 1 - rate / draws.shape[1])
    return noise, np.where(spread > 0, noise * reach, 0.0)
