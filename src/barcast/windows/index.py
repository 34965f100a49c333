"""Windows and stretches as integers: which rows a prediction reads, without copying any.

A *window* of row ``i`` is the symbol's own bars ``i-L+1 .. i``. A *stretch* is ``L-1+K`` consecutive bars
that give K predictions in one pass of a causal model; its first prediction reads exactly that row's window.
Neither crosses a hole of more than 20 sessions; what lies before the first bar is padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from barcast.core.arrays import I64, Bools

#: A symbol with fewer own bars than this (since its start or a long hole) gets a reason, not a prediction.
MIN_BARS = 20


def own_bars(life_start: I64) -> I64:
    """Return how many bars each row's life has up to and including that row, shape (R,)."""
    return np.arange(len(life_start), dtype=np.int64) - life_start + 1


@dataclass(frozen=True)
class Stretches:
    """K consecutive target rows each, with the borders of the life they lie in.

    Attributes
    ----------
    first : I64, shape (M,)
        First target row; may lie before the life when the phase starts there.
    life_start, life_stop : I64, shape (M,)
        The life's rows; rows outside are padding.
    """

    first: I64
    life_start: I64
    life_stop: I64

    def __len__(self) -> int:
        return len(self.first)

    def take(self, which: I64) -> Stretches:
        """Return the chosen stretches."""
        return Stretches(self.first[which], self.life_start[which], self.life_stop[which])


def cut_stretches(lives: I64, wanted: Bools, length: int, phase: I64 | None = None) -> Stretches:
    """Cut every life into stretches of ``length`` target rows; each row is the target of exactly one.

    Parameters
    ----------
    lives : I64, shape (num_lives + 1,)
        Borders of unbroken rows.
    wanted : Bools, shape (R,)
        Rows that have something to learn or to score; stretches without any are left out.
    length : int
        K, target rows a stretch.
    phase : I64, shape (num_lives,), optional
        How far each life's first stretch starts before the life, in 0 .. K-1; 0 where not given.
    """
    start, stop = lives[:-1], lives[1:]
    first = start if phase is None else start - phase
    counts = np.maximum(-(-(stop - first) // length), 0)
    life = np.repeat(np.arange(len(start)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    firsts = first[life] + within * length
    seen = np.concatenate([[0], np.cumsum(wanted)])
    low = np.maximum(firsts, start[life])
    high = np.minimum(firsts + length, stop[life])
    useful = seen[high] > seen[low]
    life = life[useful]
    return Stretches(firsts[useful], start[life], stop[life])


def random_phases(num_lives: int, length: int, *, seed: int, epoch: int) -> I64:
    """Return one phase a life, a function of (seed, epoch) alone so that a resumed run sees the same ones."""
    return np.random.default_rng([seed, epoch, 1]).integers(0, length, num_lives)


def shuffled(count: int, *, seed: int, epoch: int) -> I64:
    """Return a permutation that is a function of (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch, 2]).permutation(count)
