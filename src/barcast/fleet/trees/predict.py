"""Predictions of packed ensembles by one kernel: many rows of one symbol, or one row each of thousands.

Needs numpy and numba alone. The kernel checks what it follows, so that a damaged ensemble is an error and
never an access out of bounds: within a tree of m inner nodes every step enters a subtree that is smaller
and inside it.
"""

from __future__ import annotations

import numpy as np

from barcast.core.arrays import F32, F64, I64
from barcast.core.compilation import kernel
from barcast.core.errors import DataError
from barcast.fleet.trees.packed import (
    D_BOUNDS,
    D_CUTS,
    D_INPUTS,
    D_LEAVES,
    D_MEMBERS,
    D_NODES,
    D_NUM_CUTS,
    D_NUM_NODES,
    D_SIZES,
    D_TREES,
    D_WIDE,
    U32,
    Packed,
)
from barcast.fleet.trees.presets import MEMBERS

NUM_MEMBERS = len(MEMBERS)
_NOWHERE = -1


def predict_members(packed: Packed, inputs: F32, owner: str = "") -> F64:
    """Predict rows of one symbol.

    Parameters
    ----------
    packed : Packed
    inputs : F32, shape (n, F)
    owner : str, optional
        Whose ensemble it is, for the error.

    Returns
    -------
    F64, shape (n, H, K)
        In the units of the training target; NaN where a member is absent or an input is not finite.

    Raises
    ------
    DataError
        When the rows have another number of columns, or the ensemble is damaged.
    """
    check_width(inputs, packed.num_inputs)
    own = np.zeros(len(inputs), np.int64)
    out = np.empty((len(inputs), packed.num_horizons, NUM_MEMBERS))
    if predict_rows(packed.words, packed.floats, packed.directory[None], own, np.array(inputs), out) >= 0:
        name = f" of {owner}" if owner else ""
        raise DataError(
            f"the packed ensemble{name} is damaged: a node leads nowhere", "train the symbol again"
        )
    return out


def check_width(inputs: F32, num_inputs: int) -> None:
    """Refuse rows that are not as wide as the ensembles read.

    Raises
    ------
    DataError
    """
    if inputs.ndim != 2 or inputs.shape[1] != num_inputs:
        raise DataError(
            f"the ensembles read {num_inputs} features, the rows have shape {inputs.shape}",
            "build the rows with the features that the fleet was trained on",
        )


@kernel
def predict_rows(words: U32, floats: F32, directory: I64, which: I64, inputs: F32, out: F64) -> int:
    """Fill ``out`` (n, H, K); return -1, or the position of a damaged ensemble.

    ``which`` (n,) names the ensemble of each row in ``directory`` (S, H, 11). Rows of one ensemble stand
    together.
    """
    ranks = np.empty((len(which), inputs.shape[1]), np.int64)
    first = 0
    while first < len(which):
        end = first + 1
        while end < len(which) and which[end] == which[first]:
            end += 1
        owner: int = which[first]
        for h in range(directory.shape[1]):
            entry = directory[owner, h]
            if not rank_inputs(words, floats, entry, inputs[first:end], ranks[first:end]):
                return owner
            if not sum_members(words, floats, entry, ranks[first:end], out[first:end, h]):
                return owner
        first = end
    return _NOWHERE


@kernel
def rank_inputs(words: U32, floats: F32, entry: I64, inputs: F32, ranks: I64) -> bool:
    """Count, per value, the thresholds not above it; rows that are not finite are marked."""
    bounds = words[entry[D_BOUNDS] : entry[D_BOUNDS] + entry[D_INPUTS] + 1]
    cuts = floats[entry[D_CUTS] : entry[D_CUTS] + entry[D_NUM_CUTS]]
    for f in range(inputs.shape[1]):
        low, high = np.int64(bounds[f]), np.int64(bounds[f + 1])
        if low > high or high > len(cuts):
            return False
        for row in range(len(inputs)):
            ranks[row, f] = np.searchsorted(cuts[low:high], inputs[row, f], side="right")
    for row in range(len(inputs)):
        for f in range(inputs.shape[1]):
            if not np.isfinite(inputs[row, f]):
                ranks[row, 0] = -1
    return True


@kernel
def sum_members(words: U32, floats: F32, entry: I64, ranks: I64, out: F64) -> bool:
    """Fill ``out`` (n, K) with the members' outputs; return whether all trees are sound."""
    num_members = out.shape[1]
    num_nodes, num_trees, wide = entry[D_NUM_NODES], entry[D_TREES], entry[D_WIDE]
    table = entry[D_MEMBERS]
    sizes = words[entry[D_SIZES] : entry[D_SIZES] + num_trees]
    nodes = words[entry[D_NODES] : entry[D_NODES] + num_nodes * wide]
    leaves = floats[entry[D_LEAVES] : entry[D_LEAVES] + num_nodes + num_trees]
    tree, node = np.int64(0), np.int64(0)
    for k in range(num_members):
        last = tree + np.int64(words[table + k])
        if last > num_trees:
            return False
        for row in range(len(out)):
            out[row, k] = 0.0
        absent = last == tree
        while tree < last:
            size = np.int64(sizes[tree])
            if node + size > num_nodes:
                return False
            own = nodes[node * wide : (node + size) * wide]
            if not add_tree(own, leaves[node + tree : node + tree + size + 1], wide, ranks, out[:, k]):
                return False
            node += size
            tree += 1
        base = np.float64(floats[table + num_members + k])
        scale = np.float64(floats[table + 2 * num_members + k])
        for row in range(len(out)):
            unknown = absent or ranks[row, 0] < 0
            out[row, k] = np.nan if unknown else base + scale * out[row, k]
    complete: bool = tree == num_trees and node == num_nodes
    return complete


@kernel
def add_tree(nodes: U32, leaves: F32, wide: int, ranks: I64, out: F64) -> bool:
    """Add one tree's leaves; return whether it is sound.

    ``size`` counts the inner nodes of the subtree a row is in, which has one leaf more.
    """
    num_features = ranks.shape[1]
    for row in range(len(out)):
        node, leaf, size = np.int64(0), np.int64(0), np.int64(len(leaves) - 1)
        while size > 0:
            if wide == 1:
                word = np.int64(nodes[node])
                feature, rank, skip = word & 0xFF, (word >> 8) & 0xFF, word >> 16
            else:
                word = np.int64(nodes[2 * node])
                feature, rank, skip = word & 0xFFFF, word >> 16, np.int64(nodes[2 * node + 1])
            if feature >= num_features or skip >= size:
                return False
            if ranks[row, feature] <= rank:
                node += 1
                size = skip
            else:
                node += 1 + skip
                leaf += 1 + skip
                size -= 1 + skip
        out[row] += leaves[leaf]
    return True
