"""How much symbols really differ: what averaging, routing and shrinkage have in common.

A number estimated for each of thousands of symbols (a mean gain, a mean log score, a slope) differs between
symbols for three reasons: it truly differs, its own rows were few, and the market's luck hit some harder than
others. Only the first is worth acting on. Sums over *blocks of sessions* tell them apart.

Letters: R rows, S symbols, T blocks, K members or 1. A *cell* is one symbol in one block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from barcast.core.arrays import F64, I32, I64
from barcast.core.errors import UsageError
from barcast.evaluation.intervals import MIN_BLOCKS, default_block_length

#: Redrawings of the blocks' signs by which the market's luck is judged, and the share it is taken at.
_NUM_FLIPS = 200
_LUCK_LEVEL = 0.99
_FLIP_SEED = 0


@dataclass(frozen=True)
class Cells:
    """Where each row belongs.

    Attributes
    ----------
    symbol, block : I64, shape (R,)
        Position of the symbol and of the block.
    num_symbols, num_blocks : int
        S and T.
    """

    symbol: npt.NDArray[np.integer]
    block: npt.NDArray[np.integer]
    num_symbols: int
    num_blocks: int

    def sums(self, values: F64) -> F64:
        """Return sums of row values (R,) as (S, T), or of (R, K) as (S, T, K); 0 where a cell is empty."""
        if values.ndim == 2:
            return np.stack([self.sums(column) for column in values.T], axis=-1)
        index = self.symbol * self.num_blocks + self.block
        flat = np.bincount(index, values, self.num_symbols * self.num_blocks)
        return flat.astype(np.float64, copy=False).reshape(self.num_symbols, self.num_blocks)


@dataclass(frozen=True)
class Deviations:
    """By how much each symbol's mean departs from the common one.

    Attributes
    ----------
    mean : F64, shape (S, K)
        The departure, per unit of size; 0 where a symbol has nothing.
    variance : F64, shape (S,)
        Of its error, summed over K; infinite where a symbol has fewer than 5 blocks.
    residual : F64, shape (S, T, K)
        Sums of the cells less what the common part and the symbol's own mean explain.
    size : F64, shape (S,)
        What sums were divided by.
    num_blocks : I64, shape (S,)
        Blocks in which a symbol has something.
    """

    mean: F64
    variance: F64
    residual: F64
    size: F64
    num_blocks: I64


def symbol_of_row(offsets: npt.NDArray[np.integer], num_rows: int) -> I64:
    """Return the symbol's position for each row, shape (R,).

    Raises
    ------
    UsageError
        When the offsets do not cover the rows.
    """
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != num_rows or (np.diff(offsets) < 0).any():
        raise UsageError(
            f"`offsets` has to run from 0 to the {num_rows:,} rows, and never down",
            "sort the rows by symbol; symbol s owns rows offsets[s]:offsets[s + 1]",
        )
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def distinct(counts: I32 | I64) -> tuple[I64, I64]:
    """Return the distinct values of small counts from 0, sorted, and the place of each among them.

    As ``numpy.unique``, which sorts, and is slower by far.
    """
    present = np.bincount(counts) > 0
    return np.flatnonzero(present), (np.cumsum(present) - 1)[counts]


def balanced_blocks(session: I32 | I64, horizon: int, delay: int) -> tuple[I64, int]:
    """Return the block of each row and how many there are: runs of sessions of nearly one length.

    No block is shorter than :func:`default_block_length` says for labels that reach ``horizon + delay``
    sessions ahead, unless all sessions make no more than one.
    """
    sessions, rank = distinct(session)
    num = max(len(sessions) // default_block_length(len(sessions), horizon, delay), 1)
    return rank * num // max(len(sessions), 1), num


def deviations(sums: F64, size: F64, common: F64) -> Deviations:
    """Compare every symbol with the common mean of the same blocks.

    Parameters
    ----------
    sums : F64, shape (S, T, K)
        Sums of a cell.
    size : F64, shape (S, T)
        What makes a sum a mean: rows, or sums of squares; 0 where a cell is empty.
    common : F64, shape (T, K) or (S, T, K)
        The common mean of each block. It takes with it what hits all symbols of a session alike.

    Notes
    -----
    The variance is that of a ratio of sums over independent blocks (Liang and Zeger 1986). Its factor
    ``n / (n - 3)`` for n blocks makes the mean of ``departure^2 / variance`` 1 where nothing but noise is at
    work: the mean of 1 / chi-square(n - 1) is 1 / (n - 3).
    """
    total = size.sum(axis=1)
    safe = np.where(total > 0, total, 1.0)
    apart = sums - common * size[..., None]
    mean = apart.sum(axis=1) / safe[:, None]
    residual = apart - mean[:, None, :] * size[..., None]
    num = np.count_nonzero(size > 0, axis=1)
    enough = num >= MIN_BLOCKS
    scale = np.where(enough, num / np.where(enough, num - 3, 1), np.inf)
    with np.errstate(invalid="ignore"):  # 0 * inf: too few blocks, whatever the sum
        variance = np.square(residual).sum(axis=(1, 2)) / safe**2 * scale
    return Deviations(mean, np.where(enough, variance, np.inf), residual, total, num)


def shared_luck(found: Deviations, variance: F64) -> float:
    """Return by how much departures may spread beyond their errors through luck that symbols share.

    Errors of one session are correlated across symbols, with either sign: models that lean long all gain in
    a quarter that rises. Departures of thousands of symbols then spread widely or hardly at all, together,
    and a wide spread looks like real differences. So the signs of whole blocks are flipped at random, the
    same for all symbols, which keeps that correlation and leaves no difference; the 99 % quantile of the
    mean of ``departure^2 / variance`` over the draws is what luck can do. At least 1.
    """
    use = np.isfinite(variance) & (variance > 0)
    num_blocks: int = found.residual.shape[1]
    if not use.any() or num_blocks < 2:
        return 1.0
    flips = np.random.default_rng(_FLIP_SEED).choice((-1.0, 1.0), (_NUM_FLIPS, num_blocks))
    weight = 1 / (found.size[use] * np.sqrt(variance[use]))
    residual = (found.residual[use] * weight[:, None, None]).transpose(1, 0, 2).reshape(num_blocks, -1)
    products = residual @ residual.T / np.count_nonzero(use)
    spread: F64 = np.einsum("ij,jk,ik->i", flips, products, flips)
    # residuals have lost their mean, and with it one block's worth of spread
    return max(float(np.quantile(spread, _LUCK_LEVEL)) * num_blocks / (num_blocks - 1), 1.0)


def between_variance(square: F64, variance: F64) -> float:
    """Return the variance of the true departures between symbols (Paule and Mandel 1982).

    The t at which the mean of ``square / (t + variance)`` is ``(n - 1) / n``; 0 where the errors alone
    explain the spread.

    Parameters
    ----------
    square : F64, shape (S,)
        Squared departures.
    variance : F64, shape (S,)
        Of their errors; symbols whose variance is 0 or infinite do not count.
    """
    use = np.isfinite(variance) & (variance > 0)
    square, variance = square[use], variance[use]
    degrees = len(square) - 1
    if degrees < 1 or (square / variance).sum() <= degrees:
        return 0.0
    low, high = 0.0, float(square.sum()) / degrees
    for _ in range(60):
        middle = 0.5 * (low + high)
        too_small = bool((square / (middle + variance)).sum() > degrees)
        low, high = (middle, high) if too_small else (low, middle)
    return 0.5 * (low + high)


def strength(between: float, variance: F64) -> F64:
    """Return the share of a departure that is real, ``between / (between + variance)``; 0 for 0 / 0."""
    total = between + variance
    return np.asarray(between / np.where(total > 0, total, 1.0))
