"""The packed ensemble of one symbol: a few flat arrays in one bytes object, a few bytes a node.

A tree's inner nodes stand in preorder and its leaves from left to right, so a node needs no links: its left
child comes next, and ``skip``, the number of inner nodes in its left subtree, says where the right one is.
A subtree without inner nodes is a leaf. Thresholds of a feature are few (they come from bins), so they
stand in one sorted table, and a node carries a rank in it: a row's value is ranked once, and all trees
compare small whole numbers. That is exact.

Layout, in little-endian words of 32 bits (H horizons; K = 3 members, absent ones have no trees; F inputs)::

    magic, version, CRC-32 of all that follows, words, F, H
    per horizon:
        thresholds C, trees T, inner nodes N, words a node (1 or 2)
        trees of each member [K], base [K] f32, scale [K] f32
        where each feature's thresholds begin [F + 1], thresholds [C] f32
        inner nodes of each tree [T]
        nodes: [N] feature (8 bits), rank (8), skip (16), or [N, 2] feature (16), rank (16), skip (32)
        leaves [N + T] f32

A member's output is ``base + scale * sum of leaves``; a row goes left where its value is below the threshold.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from barcast.core.arrays import F32, F64, I32, I64, Bools
from barcast.core.compilation import kernel
from barcast.core.errors import DataError
from barcast.fleet.trees.presets import MEMBERS, MemberName

U32 = npt.NDArray[np.uint32]

MAGIC = 0x46455242  # "BREF"
VERSION = 1
_HEADER_WORDS = 6
_TODO = "train the symbol again"

#: Columns of a directory: where the parts of one horizon begin, in words, and how long they are.
DIRECTORY = (
    "members", "num_inputs", "bounds", "cuts", "num_cuts", "sizes", "num_trees", "nodes", "num_nodes",
    "node_words", "leaves",
)  # fmt: skip
(
    D_MEMBERS,
    D_INPUTS,
    D_BOUNDS,
    D_CUTS,
    D_NUM_CUTS,
    D_SIZES,
    D_TREES,
    D_NODES,
    D_NUM_NODES,
    D_WIDE,
    D_LEAVES,
) = range(len(DIRECTORY))


@dataclass(frozen=True)
class Trees:
    """T trees of one member, N inner nodes.

    Attributes
    ----------
    sizes : I32, shape (T,)
        Inner nodes of each tree.
    feature : I32, shape (N,)
    threshold : F32, shape (N,)
        A row goes left where its feature is below.
    skip : I32, shape (N,)
        Inner nodes of the left subtree.
    value : F32, shape (N + T,)
        Leaves of each tree, from left to right.
    base, scale : float
        The output is ``base + scale * sum of leaves``.
    """

    sizes: I32
    feature: I32
    threshold: F32
    skip: I32
    value: F32
    base: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class Linked:
    """Trees whose nodes name their children; ``c >= 0`` is inner node c, ``c < 0`` is leaf ``-c - 1``.

    Attributes
    ----------
    roots : I64, shape (T,)
    left, right : I64, shape (N,)
    feature : I32, shape (N,)
    threshold : F32, shape (N,)
    value : F32, shape (number of leaves,)
    """

    roots: I64
    left: I64
    right: I64
    feature: I32
    threshold: F32
    value: F32

    def flat(self, base: float = 0.0) -> Trees:
        """Bring the nodes into preorder; what no root reaches is left out."""
        num_trees, num_nodes = len(self.roots), len(self.left)
        sizes, order = np.zeros(num_trees, np.int32), np.empty(num_nodes, np.int64)
        skip, leaves = np.empty(num_nodes, np.int32), np.empty(num_nodes + num_trees, np.int64)
        kept = walk_in_preorder(self.roots, self.left, self.right, sizes, order, skip, leaves)
        order, leaves = order[:kept], leaves[: kept + num_trees]
        return Trees(
            sizes, self.feature[order], self.threshold[order], skip[:kept], self.value[leaves], base=base
        )


@kernel
def walk_in_preorder(
    roots: I64, left: I64, right: I64, sizes: I32, order: I64, skip: I32, leaves: I64
) -> int:
    """List inner nodes and leaves as a walk from each root meets them; return how many inner ones."""
    stack, above = np.empty(len(left) + 2, np.int64), np.empty(len(left) + 2, np.int64)
    total, num_leaves = 0, 0
    for tree in range(len(roots)):
        first = total
        stack[0], above[0] = roots[tree], -1
        waiting = 1
        while waiting:
            waiting -= 1
            node, parent = stack[waiting], above[waiting]
            if parent >= 0:
                skip[parent] = total - parent - 1
            if node < 0:
                leaves[num_leaves] = -node - 1
                num_leaves += 1
                continue
            stack[waiting], above[waiting] = right[node], total
            stack[waiting + 1], above[waiting + 1] = left[node], -1
            waiting += 2
            order[total] = node
            total += 1
        sizes[tree] = total - first
    return total


def pack(horizons: Sequence[Mapping[MemberName, Trees]], num_inputs: int) -> bytes:
    """Pack the members of each horizon.

    Parameters
    ----------
    horizons : sequence of mappings
        Trees by member, one mapping a horizon; features are positions below ``num_inputs``.
    num_inputs : int
        F, columns of a row.

    Raises
    ------
    DataError
        When there are more features, or thresholds of one feature, than 16 bits can count.
    """
    body = b"".join(_pack_horizon(members, num_inputs) for members in horizons)
    words = _HEADER_WORDS + len(body) // 4
    sealed = np.array([words, num_inputs, len(horizons)], "<u4").tobytes() + body
    return np.array([MAGIC, VERSION, zlib.crc32(sealed)], "<u4").tobytes() + sealed


def _pack_horizon(members: Mapping[MemberName, Trees], num_inputs: int) -> bytes:
    present = [members[name] for name in MEMBERS if name in members]
    sizes = np.concatenate([m.sizes for m in present])
    feature = np.concatenate([m.feature for m in present])
    skip = np.concatenate([m.skip for m in present])
    bounds, cuts, rank = _ranked(feature, np.concatenate([m.threshold for m in present]), num_inputs)
    # `initial` is for trees without any inner node
    if max(feature.max(initial=0), rank.max(initial=0)) >= 2**16:
        raise DataError(
            f"{num_inputs} features, one of them with {rank.max(initial=0) + 1} thresholds: more than 65536",
            "train on fewer features, or with fewer bins",
        )
    narrow = (
        feature.max(initial=0) < 2**8 and rank.max(initial=0) < 2**8 and skip.max(initial=0) < 2**16
    )  # fmt: skip
    if narrow:
        nodes = feature.astype("<u4") | rank.astype("<u4") << 8 | skip.astype("<u4") << 16
    else:
        nodes = np.stack([feature.astype("<u4") | rank.astype("<u4") << 16, skip.astype("<u4")], axis=1)
    trees = [len(members[name].sizes) if name in members else 0 for name in MEMBERS]
    outputs = [
        (members[name].base, members[name].scale) if name in members else (0.0, 0.0) for name in MEMBERS
    ]
    parts = [
        np.array([len(cuts), len(sizes), len(feature), 1 if narrow else 2, *trees], "<u4"),
        np.array(outputs, "<f4").T, bounds.astype("<u4"), cuts.astype("<f4"), sizes.astype("<u4"),
        nodes, np.concatenate([m.value for m in present]).astype("<f4"),
    ]  # fmt: skip
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


def _ranked(feature: I32, threshold: F32, num_inputs: int) -> tuple[I64, F32, I64]:
    """Return where a feature's thresholds begin (F + 1,), the thresholds (C,), and nodes' ranks (N,)."""
    bits = (threshold + np.float32(0.0)).view(np.uint32)  # -0.0 becomes 0.0
    # order of floats as order of whole numbers: flip all bits of negative ones, the sign of the others
    ascending = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))
    keys, place = np.unique(feature.astype(np.uint64) << np.uint64(32) | ascending, return_inverse=True)
    bounds = np.searchsorted(keys >> np.uint64(32), np.arange(num_inputs + 1, dtype=np.uint64))
    ordered = keys.astype(np.uint32)
    cuts = np.where(ordered >> 31 == 1, ordered ^ np.uint32(1 << 31), ~ordered).astype(np.uint32)
    return bounds, cuts.view(np.float32), place - bounds[feature]


@dataclass(frozen=True)
class Packed:
    """A packed ensemble, read: views of its words, and where the parts are.

    Attributes
    ----------
    words : U32, shape (W,)
    floats : F32, shape (W,)
        The same memory.
    directory : I64, shape (H, 11)
        Columns ``DIRECTORY``.
    """

    words: U32
    floats: F32
    directory: I64

    @property
    def num_horizons(self) -> int:
        """H."""
        return len(self.directory)

    @property
    def num_inputs(self) -> int:
        """F, columns of a row."""
        return int(self.directory[0, D_INPUTS])

    @property
    def present(self) -> Bools:
        """Which members each horizon has, shape (H, K)."""
        return np.array([self._members(entry)[0] > 0 for entry in self.directory])

    def trees(self, horizon: int = 0) -> dict[MemberName, Trees]:
        """Return the members of one horizon (by position), as they were packed."""
        entry = self.directory[horizon]
        counts, base, scale = self._members(entry)
        bounds, cuts, sizes, leaves = (self._part(entry, *names) for names in (
            (D_BOUNDS, entry[D_INPUTS] + 1), (D_CUTS, entry[D_NUM_CUTS]), (D_SIZES, entry[D_TREES]),
            (D_LEAVES, entry[D_NUM_NODES] + entry[D_TREES]),
        ))  # fmt: skip
        feature, rank, skip = self._nodes(entry)
        try:
            threshold = cuts.view(np.float32)[bounds[feature] + rank]
        except IndexError as error:
            raise _damaged("", "a node has no threshold") from error
        if (int(counts.sum()), int(sizes.sum())) != (len(sizes), len(feature)):
            raise _damaged("", f"{counts.sum()} trees of {len(sizes)}, {sizes.sum()} nodes of {len(feature)}")
        found: dict[MemberName, Trees] = {}
        tree = node = 0
        for k, name in enumerate(MEMBERS):
            own = sizes[tree : tree + counts[k]].astype(np.int32)
            end = node + int(own.sum())
            value = leaves.view(np.float32)[node + tree : end + tree + counts[k]]
            if counts[k]:
                found[name] = Trees(
                    own, feature[node:end], threshold[node:end], skip[node:end], value,
                    base=float(base[k]), scale=float(scale[k]),
                )  # fmt: skip
            tree, node = tree + int(counts[k]), end
        return found

    def _part(self, entry: I64, start: int, length: int) -> U32:
        return self.words[entry[start] : entry[start] + length]

    def _members(self, entry: I64) -> tuple[U32, F32, F32]:
        table = self._part(entry, D_MEMBERS, 3 * len(MEMBERS)).reshape(3, -1)
        return table[0], table[1].view(np.float32), table[2].view(np.float32)

    def _nodes(self, entry: I64) -> tuple[I32, I32, I32]:
        nodes = self._part(entry, D_NODES, entry[D_NUM_NODES] * entry[D_WIDE]).astype(np.int64)
        if entry[D_WIDE] == 1:
            parts = nodes & 0xFF, nodes >> 8 & 0xFF, nodes >> 16
        else:
            parts = nodes[::2] & 0xFFFF, nodes[::2] >> 16, nodes[1::2]
        return parts[0].astype(np.int32), parts[1].astype(np.int32), parts[2].astype(np.int32)


def unpack(model: bytes, owner: str = "") -> Packed:
    """Read a packed ensemble without copying it.

    Parameters
    ----------
    model : bytes
    owner : str, optional
        Whose it is, for the error.

    Raises
    ------
    DataError
        On anything but a whole ensemble of this format. Links that lead nowhere are found when it predicts.
    """
    if len(model) % 4 or len(model) < 4 * _HEADER_WORDS:
        raise _damaged(owner, f"{len(model)} bytes")
    words = np.frombuffer(model, "<u4")
    magic, version, checksum, length, num_inputs, num_horizons = (int(w) for w in words[:_HEADER_WORDS])
    if magic != MAGIC or length != len(words):
        raise _damaged(owner, f"{len(words)} words, of {length} announced")
    if version != VERSION:
        raise DataError(
            f"the packed ensemble{_of(owner)} has version {version}, known is {VERSION}", "update barcast"
        )
    if zlib.crc32(memoryview(model)[12:]) != checksum:
        raise _damaged(owner, "its checksum differs")
    directory = []
    position = _HEADER_WORDS
    for _ in range(num_horizons):
        entry, position = _entry(words, position, num_inputs)
        if position > len(words):
            raise _damaged(owner, "it ends too soon")
        directory.append(entry)
    if position != len(words) or not directory or not num_inputs:
        raise _damaged(owner, f"{len(words) - position} words are left over")
    return Packed(words, words.view("<f4"), np.array(directory, np.int64))


def _entry(words: U32, start: int, num_inputs: int) -> tuple[list[int], int]:
    """Return a row of the directory and where the next horizon begins: past the end where it is damaged."""
    if start + 4 > len(words):
        return [], len(words) + 1
    num_cuts, num_trees, num_nodes, wide = (int(w) for w in words[start : start + 4])
    members = start + 4
    bounds = members + 3 * len(MEMBERS)
    cuts = bounds + num_inputs + 1
    sizes = cuts + num_cuts
    nodes = sizes + num_trees
    leaves = nodes + num_nodes * wide
    entry = [
        members, num_inputs, bounds, cuts, num_cuts, sizes, num_trees, nodes, num_nodes, wide, leaves
    ]  # fmt: skip
    return entry, leaves + num_nodes + num_trees if wide in (1, 2) else len(words) + 1


def _damaged(owner: str, how: str) -> DataError:
    return DataError(f"the packed ensemble{_of(owner)} is damaged: {how}", _TODO)


def _of(owner: str) -> str:
    return f" of {owner}" if owner else ""


def combine(members: F64, weights: F64, constant: F64) -> F64:
    """Join members' outputs into scores: ``sum of weights * members + constant``.

    Parameters
    ----------
    members : F64, shape (..., K)
        NaN where a member is absent: its weight is 0, and it counts for nothing.
    weights : F64, shape (..., K)
    constant : F64, shape (...)

    Returns
    -------
    F64, shape (...)
    """
    return np.asarray(np.where(weights == 0, 0.0, members * weights).sum(axis=-1) + constant)
