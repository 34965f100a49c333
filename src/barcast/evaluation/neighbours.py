"""What an embedding knows: who is near whom, and whether that is more than chance.

Directions are measured from the mean of all vectors, because what all have in common tells nobody apart.
Letters: N vectors, E their width, k neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from barcast.core.arrays import F32, F64, I64
from barcast.core.errors import UsageError

#: Rows of the similarity matrix held at once.
_CHUNK = 1024
#: Shuffles, and redraws of an interval, where nobody asks for another number.
NUM_SHUFFLES = 1000
#: A p-value up to this counts as more than chance.
LEVEL = 0.05
#: With fewer labels, redrawing them says nothing; purity is then clear from so many times chance on.
MIN_LABELS, CLEAR = 10, 1.1


@dataclass(frozen=True, kw_only=True)
class Purity:
    """How often neighbours share a label, beside the same number under shuffled labels.

    Attributes
    ----------
    column : str
        What the labels are.
    k : int
        Neighbours looked at.
    num_symbols, num_labels : int
        Symbols with a label, and different labels among them.
    value, low, high : float
        Share of the neighbours with the symbol's own label, with its 95 % interval by redrawing whole labels
        (symbols of one label are not independent); NaN where there are fewer than 10 labels to draw.
    chance, chance_low, chance_high : float
        Mean and 95 % range under shuffled labels.
    p_value : float
        Share of shuffles at least as pure, the observed one counted in.
    num_shuffles : int
    """

    column: str
    k: int
    num_symbols: int
    num_labels: int
    value: float
    low: float
    high: float
    chance: float
    chance_low: float
    chance_high: float
    p_value: float
    num_shuffles: int

    @property
    def is_more_than_chance(self) -> bool:
        """Whether shuffled labels are hardly ever so pure."""
        return self.p_value <= LEVEL

    @property
    def is_clear(self) -> bool:
        """Whether purity stands clear of chance by its own interval too, or by a tenth where it has none."""
        low = self.low if math.isfinite(self.low) else self.value / CLEAR
        return self.is_more_than_chance and low > self.chance


@dataclass(frozen=True, kw_only=True)
class Movement:
    """How long vectors are beside fresh ones, which are normal with a known standard deviation.

    Attributes
    ----------
    ratio : float
        Root mean square of the values over that of fresh ones.
    fresh_low, fresh_high : float
        95 % range of ``ratio`` for vectors that never moved.
    """

    ratio: float
    fresh_low: float
    fresh_high: float

    @property
    def has_moved(self) -> bool:
        """Whether training made the vectors longer than chance makes fresh ones."""
        return self.ratio > self.fresh_high


def directions(vectors: F32) -> F32:
    """Return the vectors (N, E) from their mean, at length 1; zero where one is the mean itself."""
    apart = vectors - vectors.mean(axis=0)
    lengths = np.linalg.norm(apart, axis=1, keepdims=True)
    return np.asarray(np.divide(apart, lengths, out=np.zeros_like(apart), where=lengths > 0), np.float32)


def nearest(units: F32, k: int, rows: I64 | None = None) -> tuple[I64, F32]:
    """Return the k nearest others by cosine and how similar they are, best first.

    Parameters
    ----------
    units : F32, shape (N, E)
        From `directions`.
    k : int
        At most N - 1.
    rows : I64, shape (n,), optional
        Whose neighbours; by default everybody's.

    Returns
    -------
    I64 and F32, shape (n, k)
        Positions and cosines; the smaller position first where two are equally near.

    Raises
    ------
    UsageError
        When there are not so many others.
    """
    if not 1 <= k < len(units):
        raise UsageError(f"{k} neighbours of {len(units)} symbols", f"--neighbours 1 to {len(units) - 1}")
    rows = np.arange(len(units)) if rows is None else rows
    found, similar = np.empty((len(rows), k), np.int64), np.empty((len(rows), k), np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        cosine = units[part] @ units.T
        cosine[np.arange(len(part)), part] = -np.inf
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        found[start : start + _CHUNK] = order
        similar[start : start + _CHUNK] = np.take_along_axis(cosine, order, axis=1)
    return found, similar


def purity(
    vectors: F32,
    labels: Sequence[str],
    column: str,
    k: int,
    *,
    num_shuffles: int = NUM_SHUFFLES,
    seed: int = 0,
) -> Purity:
    """Measure how often the k nearest neighbours share a label; symbols without one ('') are left out.

    Raises
    ------
    UsageError
        When fewer than k + 2 symbols have a label, all have the same one, or shuffles are fewer than 1,000.
    """
    if num_shuffles < NUM_SHUFFLES:
        raise UsageError(f"{num_shuffles} shuffles", f"at least {NUM_SHUFFLES}")
    given = np.array(labels, dtype=np.str_)
    known = np.flatnonzero(given != "")
    names, code = np.unique(given[known], return_inverse=True)
    if len(known) < k + 2 or len(names) < 2:
        raise UsageError(
            f"`{column}` is known of {len(known)} of {len(labels)} symbols, with {len(names)} values: "
            f"too few for {k} neighbours",
            "barcast data facts FILE.csv, --facts FILE.csv, or fewer --neighbours",
        )
    neighbours, _ = nearest(directions(vectors)[known], k)
    own = (code[neighbours] == code[:, None]).mean(axis=1)
    value, rng = float(own.mean()), np.random.default_rng(seed)
    shuffled = np.empty(num_shuffles)
    for turn in range(num_shuffles):
        mixed = rng.permutation(code)
        shuffled[turn] = (mixed[neighbours] == mixed[:, None]).mean()
    low, high = _by_labels(own, code, len(names), num_shuffles, rng)
    chance_low, chance_high = np.quantile(shuffled, [0.025, 0.975])
    num_as_pure = int((shuffled >= value - 1e-12).sum())
    return Purity(
        column=column, k=k, num_symbols=len(known), num_labels=len(names), value=value, low=low, high=high,
        chance=float(shuffled.mean()), chance_low=float(chance_low), chance_high=float(chance_high),
        p_value=(1 + num_as_pure) / (1 + num_shuffles), num_shuffles=num_shuffles,
    )  # fmt: skip


def _by_labels(
    own: F64, code: I64, num_labels: int, num_draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the 95 % interval of a mean over symbols when whole labels are drawn again; NaN with few."""
    if num_labels < MIN_LABELS:
        return math.nan, math.nan
    sums, counts = np.bincount(code, weights=own), np.bincount(code)
    times = rng.multinomial(num_labels, np.full(num_labels, 1 / num_labels), size=num_draws)
    low, high = np.quantile((times @ sums) / (times @ counts), [0.025, 0.975])
    return float(low), float(high)


def movement(vectors: F32, fresh_std: float) -> Movement:
    """Compare the length of vectors (N, E) with that of fresh ones, normal with ``fresh_std``."""
    ratio = float(np.sqrt(np.square(vectors, dtype=np.float64).mean())) / fresh_std
    reach = 1.96 / math.sqrt(2 * vectors.size)  # of a root mean square of normal values
    return Movement(ratio=ratio, fresh_low=1 - reach, fresh_high=1 + reach)


def principal_axes(vectors: F32) -> tuple[F64, F64]:
    """Return the vectors' places on their two widest axes (N, 2), and the share of variance of each (2,).

    The axes of a width of 1 are itself and nothing. Each axis points to where its longest place is positive,
    so that equal vectors give an equal picture everywhere.
    """
    apart = np.asarray(vectors - vectors.mean(axis=0), np.float64)
    left, lengths, _ = np.linalg.svd(apart, full_matrices=False)
    places, shares = np.zeros((len(vectors), 2)), np.zeros(2)
    kept = min(2, len(lengths))
    places[:, :kept] = left[:, :kept] * lengths[:kept]
    longest = places[np.abs(places).argmax(axis=0), [0, 1]]
    total = float(np.square(lengths).sum())
    shares[:kept] = np.square(lengths[:kept]) / total if total else 0.0
    return places * np.where(longest < 0, -1.0, 1.0), shares
