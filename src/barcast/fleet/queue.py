"""The order in which symbols are fitted: the most valuable first, but no long one alone at the end."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from barcast.core.arrays import F64, I64
from barcast.fleet.budget import UNIVERSAL


class Queue:
    """Symbols that wait for their fit, by index; letters as in :mod:`barcast.fleet.budget`.

    Parameters
    ----------
    order : I64, shape (n,)
        Indices of the symbols that wait, the most valuable first.
    num_symbols : int
        S.
    """

    def __init__(self, order: I64, num_symbols: int) -> None:
        self._order = order
        self._waits = np.zeros(num_symbols, np.bool_)
        self._waits[order] = True
        self._rank = np.full(num_symbols, num_symbols)
        self._rank[order] = np.arange(len(order))
        self.rung: I64 = np.full(num_symbols, UNIVERSAL, np.int64)
        self._seconds: F64 = np.zeros(num_symbols)
        self._by_value: Iterator[int] = iter(())
        self._by_length: list[int] = []
        self.seconds_left = 0.0

    @property
    def waiting(self) -> I64:
        """Return the symbols that wait, universal ones included, the most valuable first."""
        return self._order[self._waits[self._order]]

    def set(self, rung: I64, seconds: F64) -> None:
        """Give symbols rungs and expected seconds, both of shape (S,); universal ones are passed over."""
        self.rung, self._seconds = rung, seconds
        planned = self.waiting
        planned = planned[rung[planned] >= 0]
        self._by_value = iter(planned.tolist())
        # the longest stands last; of equals the most valuable
        self._by_length = planned[np.lexsort((-self._rank[planned], seconds[planned]))].tolist()
        self.seconds_left = float(seconds[planned].sum())

    def next(self, num_workers: int) -> int | None:
        """Take out and return the symbol whose turn it is; None where no planned one waits.

        That is the most valuable, unless the longest would keep one worker busy while the others, done with
        all the rest, are idle: then it is the longest.
        """
        while self._by_length and not self._is_planned(self._by_length[-1]):
            self._by_length.pop()
        if not self._by_length:
            return None
        longest = self._by_length[-1]
        if self._seconds[longest] * num_workers >= self.seconds_left:
            return self.take(longest)
        return self.take(next(index for index in self._by_value if self._is_planned(index)))

    def _is_planned(self, index: int) -> bool:
        return bool(self._waits[index] and self.rung[index] >= 0)

    def take(self, index: int) -> int:
        """Take a symbol out, whatever its turn."""
        self._waits[index] = False
        if self.rung[index] >= 0:
            self.seconds_left -= float(self._seconds[index])
        return index

    def put_back(self, index: int) -> None:
        """Let a symbol wait that was taken out; it is in nobody's way until rungs are set again."""
        self._waits[index] = True
        self.rung[index] = UNIVERSAL
