"""Random forest of regression trees (Breiman 2001) on binned features, grown by one compiled kernel.

Why our own: on 720 rows of 12 features, 100 trees of depth 10 take 42 ms in LightGBM's forest mode and 158
ms in scikit-learn, most of it spent outside the arithmetic; here 11. The rules are scikit-learn's:
bootstrap draws become weights, distinct rows count for the smallest leaf, a node looks at a random choice
of features and goes on looking while all it saw are constant, and the best gain in squared error wins, of
equal ones the first. Only the candidate thresholds differ: borders of quantile bins instead of every
midpoint.

Draws come from a generator of our own (SplitMix64; Steele, Lea & Flood 2014), seeded per tree: the same
seed gives the same bytes on every machine.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from barcast.core.arrays import F32, F64, I32, I64, U8
from barcast.core.compilation import kernel
from barcast.fleet.trees.packed import Trees
from barcast.fleet.trees.presets import ForestConfig

U32: TypeAlias = npt.NDArray[np.uint32]
U64: TypeAlias = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
#: What one draw of a row adds to its weight, whose lower bits count rows.
_DRAW_BITS = 32
_DRAW = 1 << _DRAW_BITS
#: A gain below this share of the forest's total squares is rounding.
_ROUNDING = 1e-12


def grow_forest(inputs: F32, target: F64, config: ForestConfig, seed: int) -> Trees:
    """Grow a forest.

    Parameters
    ----------
    inputs : F32, shape (n, F)
        Finite.
    target : F64, shape (n,)
        Finite.
    config : ForestConfig
    seed : int
        Any 64 bits.

    Returns
    -------
    Trees
        Whose sum over trees, times ``scale``, is the forest's mean.
    """
    num_rows, num_features = inputs.shape
    cuts = np.full((num_features, config.max_bin - 1), np.inf, np.float32)
    columns = np.ascontiguousarray(inputs.T)
    bins = np.empty(columns.shape, np.uint8)
    bin_features(np.sort(columns, axis=1), columns, cuts, bins)
    centre = math.fsum(target) / num_rows  # numpy's order of adding depends on the machine
    room = config.num_trees * max(num_rows // config.min_samples_leaf, 1)
    sizes = np.empty(config.num_trees, np.int32)
    feature, border, skip = (np.empty(room, np.int32) for _ in range(3))
    value = np.empty(room + config.num_trees, np.float32)
    total = grow_trees(
        bins, target - centre, config.max_bin, config.max_depth,
        max(int(config.max_features * num_features), 1), config.min_samples_leaf,
        max(round(config.max_samples * num_rows), 1), np.uint64(seed % 2**64), centre,
        sizes, feature, border, skip, value,
    )  # fmt: skip
    feature, border = feature[:total], border[:total]
    return Trees(
        sizes, feature, cuts[feature, border], skip[:total], value[: total + config.num_trees],
        base=0.0, scale=1.0 / config.num_trees,
    )  # fmt: skip


@kernel
def bin_features(ordered: F32, columns: F32, cuts: F32, bins: U8) -> None:
    """Cut each feature into bins of about equal counts; a row's bin is how many cuts are not above it.

    A value that fills a bin alone gets one (Ke et al. 2017). A cut lies between two neighbouring values:
    what is below it goes left.
    """
    most = cuts.shape[1]
    for f in range(len(columns)):
        values, borders = ordered[f], cuts[f]
        used, filled, first = 0, 0, 0
        wanted = len(values) / (most + 1)
        while first < len(values):
            end = first
            while end < len(values) and values[end] == values[first]:
                end += 1
            if filled and used < most and (filled >= wanted or end - first >= wanted):
                middle = np.float32(0.5 * (np.float64(values[first - 1]) + np.float64(values[first])))
                borders[used] = middle if middle > values[first - 1] else values[first]
                used += 1
                filled = 0
                wanted = (len(values) - first) / (most + 1 - used)
            filled += end - first
            first = end
        for row in range(columns.shape[1]):
            bins[f, row] = np.searchsorted(borders[:used], columns[f, row], side="right")


@kernel
def draw_below(state: U64, bound: int) -> Any:
    """Draw a whole number from [0, bound), by the upper half of SplitMix64; advances ``state``."""
    state[0] += _GOLDEN
    z = state[0]
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    z = z ^ (z >> _S31)
    return np.int64(((z >> _S32) * np.uint64(bound)) >> _S32)


@kernel
def grow_trees(
    bins: U8, target: F64, num_bins: int, max_depth: int, num_candidates: int, min_leaf: int,
    num_draws: int, seed: Any, centre: float, sizes: I32, feature: I32, border: I32, skip: I32, value: F32,
) -> int:  # fmt: skip
    """Grow all trees into flat arrays, see :class:`Trees`; return how many inner nodes there are."""
    num_rows = len(target)
    weight, weighted = np.empty(num_rows, np.int64), np.empty(num_rows)
    rows, spare = np.empty(num_rows, np.uint32), np.empty(num_rows, np.uint32)
    squares = 0.0
    for row in range(num_rows):
        squares += target[row] * target[row]
    state = np.empty(1, np.uint64)
    total = 0
    for tree in range(len(sizes)):
        state[0] = seed + np.uint64(tree + 1) * _MIX_1
        num_drawn = bootstrap(state, num_draws, target, weight, weighted, rows)
        sizes[tree] = grow_tree(
            bins, weight, weighted, rows, spare, num_drawn, num_bins, max_depth, num_candidates, min_leaf,
            squares * _ROUNDING, state, centre, feature[total:], border[total:], skip[total:],
            value[total + tree :],
        )  # fmt: skip
        total += sizes[tree]
    return total


@kernel
def bootstrap(state: U64, num_draws: int, target: F64, weight: I64, weighted: F64, rows: U32) -> int:
    """Draw rows with replacement; list the distinct ones in ``rows`` and return how many they are.

    A drawn row's ``weight`` is how often it was drawn times 2**32, and 1: one sum then counts draws and rows.
    """
    for row in range(len(weight)):
        weight[row] = 0
    for _ in range(num_draws):
        weight[draw_below(state, len(weight))] += _DRAW
    drawn = 0
    for row in range(len(weight)):
        weighted[row] = (weight[row] >> _DRAW_BITS) * target[row]
        if weight[row] > 0:
            weight[row] += 1
            rows[drawn] = row
            drawn += 1
    return drawn


@kernel
def grow_tree(
    bins: U8, weight: I64, weighted: F64, rows: U32, spare: U32, num_drawn: int, num_bins: int,
    max_depth: int, num_candidates: int, min_leaf: int, rounding: float, state: U64, centre: float,
    feature: I32, border: I32, skip: I32, value: F32,
) -> int:  # fmt: skip
    """Grow one tree depth first, the left side first; return its number of inner nodes.

    The stack holds what waits: first and last row, depth, and for a right side the node above, -1 for others.
    """
    order = np.arange(len(bins))
    counts, sums = np.zeros(num_bins, np.int64), np.zeros(num_bins)
    stack = np.empty((max_depth + 2, 4), np.int64)
    push(stack[0], 0, num_drawn, 0, -1)
    waiting, num_inner, num_leaves = 1, 0, 0
    while waiting:
        waiting -= 1
        low, high = stack[waiting, 0], stack[waiting, 1]
        depth, above = stack[waiting, 2], stack[waiting, 3]
        if above >= 0:
            skip[above] = num_inner - above - 1
        best, cut = -1, 0
        if depth < max_depth and high - low >= 2 * min_leaf:
            best, cut = best_split(
                bins, weight, weighted, rows[low:high], order, num_candidates, min_leaf, rounding, state,
                counts, sums,
            )  # fmt: skip
        if best < 0:
            value[num_leaves] = centre + mean_of(weight, weighted, rows[low:high])
            num_leaves += 1
            continue
        feature[num_inner], border[num_inner] = best, cut
        middle = low + partition(bins[best], rows[low:high], spare, cut)
        push(stack[waiting], middle, high, depth + 1, num_inner)
        push(stack[waiting + 1], low, middle, depth + 1, -1)
        waiting += 2
        num_inner += 1
    return num_inner


@kernel
def push(entry: I64, low: int, high: int, depth: int, above: int) -> None:
    """Fill one entry of the stack."""
    entry[0], entry[1], entry[2], entry[3] = low, high, depth, above


@kernel
def mean_of(weight: I64, weighted: F64, rows: U32) -> float:
    """Return the weighted mean target of rows."""
    total, sum_ = 0, 0.0
    for row in rows:
        total += weight[row]
        sum_ += weighted[row]
    return sum_ / (total >> _DRAW_BITS)


@kernel
def best_split(
    bins: U8, weight: I64, weighted: F64, rows: U32, order: I64, num_candidates: int, min_leaf: int,
    rounding: float, state: U64, counts: I64, sums: F64,
) -> tuple[int, int]:  # fmt: skip
    """Return feature and bin of the split that lowers squared error most, or (-1, 0); shuffles ``order``.

    ``counts`` and ``sums`` (num_bins,) are found and left full of zeros.
    """
    drawn, sum_ = 0, 0.0
    for row in rows:
        drawn += weight[row]
        sum_ += weighted[row]
    total = float(drawn >> _DRAW_BITS)
    best, best_feature, best_bin = sum_ * sum_ / total + rounding, -1, 0
    varies = False
    for tried in range(len(order)):
        if tried >= num_candidates and varies:
            break
        other = tried + draw_below(state, len(order) - tried)
        order[tried], order[other] = order[other], order[tried]
        lowest, highest = fill_histogram(bins[order[tried]], weight, weighted, rows, counts, sums)
        varies = varies or lowest < highest
        left_drawn, left_sum = 0, 0.0
        for b in range(lowest, highest):
            if counts[b] == 0:
                continue
            left_drawn += counts[b]
            left_sum += sums[b]
            left_rows = left_drawn & (_DRAW - 1)
            if left_rows < min_leaf or len(rows) - left_rows < min_leaf:
                continue
            left = float(left_drawn >> _DRAW_BITS)
            right, right_sum = total - left, sum_ - left_sum
            gain = left_sum * left_sum / left + right_sum * right_sum / right
            if gain > best:
                best, best_feature, best_bin = gain, order[tried], b
        counts[lowest : highest + 1] = 0
        sums[lowest : highest + 1] = 0.0
    return best_feature, best_bin


@kernel
def fill_histogram(
    column: U8, weight: I64, weighted: F64, rows: U32, counts: I64, sums: F64
) -> tuple[int, int]:
    """Sum draws, rows and targets by bin; return the lowest and the highest bin that has any."""
    lowest, highest = column[rows[0]], column[rows[0]]
    for row in rows:
        b = column[row]  # unsigned: a signed index would be asked whether it counts from the end
        lowest, highest = min(lowest, b), max(highest, b)
        counts[b] += weight[row]
        sums[b] += weighted[row]
    return int(lowest), int(highest)


@kernel
def partition(column: U8, rows: U32, spare: U32, cut: int) -> int:
    """Move the rows that go left to the front, both sides in their order; return how many they are."""
    left, right = 0, 0
    for k in range(len(rows)):
        row = rows[k]
        if column[row] <= cut:
            rows[left] = row
            left += 1
        else:
            spare[right] = row
            right += 1
    for k in range(right):
        rows[left + k] = spare[k]
    return left
