"""Ranks, correlations and areas inside groups of rows (sessions, symbols, months), without a loop.

Letters: R rows, G groups. Values are finite: callers drop the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from barcast.core.arrays import F64, I32, I64, Bools


@dataclass(frozen=True)
class Groups:
    """Which group each row belongs to.

    Attributes
    ----------
    index : I32, shape (R,)
        The group of each row, 0 .. G-1, in any order; sums are faster where it is sorted.
    num : int
        G; groups may be empty.
    """

    index: I32
    num: int

    @cached_property
    def sizes(self) -> I64:
        """Rows in each group, shape (G,)."""
        return np.bincount(self.index, minlength=self.num).astype(np.int64)

    @cached_property
    def starts(self) -> I64:
        """Where each group starts once rows are sorted by group, shape (G,)."""
        return np.cumsum(self.sizes) - self.sizes

    @cached_property
    def _is_compact(self) -> bool:
        return bool((self.sizes > 0).all() and (np.diff(self.index) >= 0).all())

    def sums(self, values: F64 | Bools) -> F64:
        """Return the sum of each group, shape (G,); 0 for an empty one."""
        if self._is_compact and self.num:
            return np.add.reduceat(values, self.starts, dtype=np.float64)
        return np.bincount(self.index, weights=values, minlength=self.num).astype(np.float64, copy=False)

    def spread(self, values: F64) -> F64:
        """Return each group's value on all of its rows, shape (R,)."""
        return np.repeat(values, self.sizes) if self._is_compact else values[self.index]


@dataclass(frozen=True)
class Sorted:
    """Rows sorted by group, then value: what ranks and areas are read from.

    Attributes
    ----------
    values : F64, shape (R,)
        The values, row by row.
    groups : Groups
        The groups.
    order : I64, shape (R,)
        Row at each sorted place.
    tie : I64, shape (R,)
        Which run of equal values (within one group) each sorted place is in.
    start, stop : I64, shape (runs,)
        First place of each run, and the place after its last.
    """

    values: F64
    groups: Groups
    order: I64
    tie: I64
    start: I64
    stop: I64

    @classmethod
    def by(cls, values: F64, groups: Groups, order: I64 | None = None) -> Sorted:
        """Sort rows by group, then value; ``order`` sorts them by value already."""
        order = np.argsort(values) if order is None else order
        # Integers of 16 bits or fewer are sorted by counting, so the second pass costs almost nothing.
        narrow = groups.index.astype(np.min_scalar_type(max(groups.num - 1, 0)))
        order = order[np.argsort(narrow[order], kind="stable")].astype(np.int64, copy=False)
        return cls(values, groups, order, *_runs(values[order], groups.starts[groups.sizes > 0]))

    @cached_property
    def ranks(self) -> F64:
        """The rank of each row inside its group, from 1, ties averaged, shape (R,)."""
        ranks = np.empty(len(self.order))
        place = (0.5 * (self.start + self.stop + 1))[self.tie]
        ranks[self.order] = place - np.repeat(self.groups.starts, self.groups.sizes)
        return ranks

    @cached_property
    def varies(self) -> Bools:
        """Whether a group holds two different values, shape (G,).

        Exact, unlike a variance above zero: the mean of equal floats need not equal them.
        """
        filled = self.groups.sizes > 0
        first = self.groups.starts[filled]
        varies = np.zeros(self.groups.num, bool)
        varies[filled] = self.tie[first] != self.tie[first + self.groups.sizes[filled] - 1]
        return varies

    def auc(self, up: Bools, down: Bools, min_size: int = 1) -> F64:
        """Return the area under the curve of each group (Mann-Whitney, ties 1/2), shape (G,).

        Rows that are neither ``up`` nor ``down`` do not count. NaN for groups with fewer than ``min_size``
        rows that do, or of one class only.
        """
        num_up, num_down = self.groups.sums(up), self.groups.sums(down)
        defined = (num_up > 0) & (num_down > 0) & (num_up + num_down >= min_size)
        before = np.concatenate([[0], np.cumsum(down[self.order])])
        downs_below = (0.5 * (before[self.start] + before[self.stop]))[self.tie]
        wins = np.concatenate([[0.0], np.cumsum(np.where(up[self.order], downs_below, 0.0))])
        stops = self.groups.starts + self.groups.sizes
        won = wins[stops] - wins[self.groups.starts] - num_up * before[self.groups.starts]
        return np.where(defined, won / np.where(defined, num_up * num_down, 1.0), np.nan)


def group_correlation(x: F64, y: F64, groups: Groups, defined: Bools) -> F64:
    """Return the Pearson correlation of ``x`` and ``y`` in each group, shape (G,).

    NaN where not ``defined`` (groups too small, or with a constant side).
    """
    size = np.maximum(groups.sizes, 1)
    x = x - groups.spread(groups.sums(x) / size)
    y = y - groups.spread(groups.sums(y) / size)
    variances = groups.sums(x * x) * groups.sums(y * y)
    defined = defined & (variances > 0)  # the square of a tiny spread may vanish
    return np.where(defined, groups.sums(x * y) / np.sqrt(np.where(defined, variances, 1.0)), np.nan)


def auc_placements(up: Bools, down: Bools, score: F64, order: I64 | None = None) -> F64:
    """Return for each row the share of rows of the other class it is ordered rightly against, shape (R,).

    An up row is right against a down row that scores lower, ties count 1/2. The mean over up rows, and the
    mean over down rows, is the area under the curve; so placements summed by session carry the sampling
    error of the pooled area (DeLong, DeLong and Clarke-Pearson 1988, clustered as by Obuchowski 1997).
    Both classes must be present; rows of neither get 0. ``order`` sorts the rows by score already.
    """
    order = np.argsort(score) if order is None else order
    tie, start, stop = _runs(score[order], np.zeros(1, np.int64))
    sorted_up, sorted_down = up[order], down[order]
    ups_before = np.concatenate([[0], np.cumsum(sorted_up)])
    downs_before = np.concatenate([[0], np.cumsum(sorted_down)])
    downs_below = (downs_before[start] + downs_before[stop]) / (2 * downs_before[-1])
    ups_above = 1 - (ups_before[start] + ups_before[stop]) / (2 * ups_before[-1])
    placements = np.empty(len(score))
    placements[order] = np.where(sorted_up, downs_below[tie], np.where(sorted_down, ups_above[tie], 0.0))
    return placements


def _runs(values: F64, borders: I64) -> tuple[I64, I64, I64]:
    """Return, for sorted values, the run of equals each is in, and where runs start and stop.

    A run never crosses a border.
    """
    is_new = np.ones(len(values), bool)
    is_new[1:] = values[1:] != values[:-1]
    is_new[borders[borders < len(values)]] = True
    start = np.flatnonzero(is_new).astype(np.int64)
    stop = np.append(start[1:], len(values)).astype(np.int64)
    return np.cumsum(is_new) - 1, start, stop
