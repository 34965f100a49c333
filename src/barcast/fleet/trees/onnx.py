"""One symbol's ensemble as operators of ONNX: all trees in one, their weights and constants after it.

What the packed kernel does, in the same terms: a row goes left where its input is below the threshold, and a
row with an input that is not finite has no score.

Letters: B rows, H horizons, K members, T members with trees of all horizons.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from barcast.core.arrays import F64
from barcast.fleet.onnx import INPUTS, TREES_DOMAIN, Graph
from barcast.fleet.trees.packed import Packed, Trees
from barcast.fleet.trees.presets import MEMBERS


def add_ensemble(graph: Graph, packed: Packed, weights: F64, constant: F64) -> str:
    """Append an ensemble to a graph that reads rows (B, F), and return the name of its scores (B, H), F64.

    Parameters
    ----------
    packed : Packed
    weights : F64, shape (H, K)
        Of the members, in the order of ``MEMBERS``.
    constant : F64, shape (H,)
        What the score adds to them.
    """
    present = [
        (h, weights[h, MEMBERS.index(name)], trees)
        for h in range(packed.num_horizons)
        for name, trees in packed.trees(h).items()
    ]
    # an operator without any tree is none: where nothing counts, all of them stand there, times zero
    counted = [each for each in present if each[1]] or present
    factors, added = np.zeros((len(counted), packed.num_horizons)), np.array(constant, np.float64)
    for place, (h, weight, trees) in enumerate(counted):
        factors[place, h] = weight * trees.scale
        added[h] += weight * trees.base
    sums = graph.add(
        "TreeEnsembleRegressor", INPUTS, domain=TREES_DOMAIN, **_attributes([trees for *_, trees in counted])
    )
    weighed = graph.add("MatMul", graph.cast(sums, np.float64), graph.constant(factors, np.float64))
    scores = graph.add("Add", weighed, graph.constant(added, np.float64))
    unknown = graph.add("And", _broken(graph), graph.constant((weights != 0).any(axis=1)[None], np.bool_))
    return graph.add("Where", unknown, graph.constant(np.nan, np.float64), scores)


def _broken(graph: Graph) -> str:
    """Append which rows have an input that is not finite, (B, 1)."""
    broken = graph.add("Or", graph.add("IsNaN", INPUTS), graph.add("IsInf", INPUTS))
    worst = graph.add("ReduceMax", graph.cast(broken, np.float32), axes=[1], keepdims=1)
    return graph.cast(worst, np.bool_)


def _attributes(members: Sequence[Trees]) -> dict[str, Any]:
    """Return the attributes of the trees of T members, each of which is a target of its own."""
    found: dict[str, list[Any]] = {
        name: []
        for name in (
            "nodes_treeids", "nodes_nodeids", "nodes_modes", "nodes_featureids", "nodes_values",
            "nodes_truenodeids", "nodes_falsenodeids", "target_treeids", "target_nodeids", "target_ids",
            "target_weights",
        )
    }  # fmt: skip
    tree = 0
    for target, trees in enumerate(members):
        node = 0
        for place, size in enumerate(trees.sizes.tolist()):
            inner = slice(node, node + size)
            leaves = trees.value[node + place : node + place + size + 1].tolist()
            left, right = _children(trees.skip[inner].tolist())
            none = [0] * len(leaves)
            _extend(found, {
                "nodes_treeids": [tree] * (size + len(leaves)), "nodes_nodeids": range(size + len(leaves)),
                "nodes_modes": ["BRANCH_LT"] * size + ["LEAF"] * len(leaves),
                "nodes_featureids": trees.feature[inner].tolist() + none,
                "nodes_values": trees.threshold[inner].tolist() + [0.0] * len(leaves),
                "nodes_truenodeids": left + none, "nodes_falsenodeids": right + none,
                "target_treeids": [tree] * len(leaves), "target_ids": [target] * len(leaves),
                "target_nodeids": range(size, size + len(leaves)), "target_weights": leaves,
            })  # fmt: skip
            node, tree = node + size, tree + 1
    return {**found, "n_targets": len(members)}


def _extend(lists: dict[str, list[Any]], more: dict[str, Iterable[Any]]) -> None:
    for name, values in more.items():
        lists[name].extend(values)


def _children(skip: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the left and right child of each inner node of one tree; leaf l is ``len(skip) + l``."""
    num_inner = len(skip)
    left, right = [0] * num_inner, [0] * num_inner
    waiting = [(0, 0, num_inner)] if num_inner else []  # node, its subtree's first leaf and inner nodes
    while waiting:
        node, leaf, size = waiting.pop()
        before = skip[node]
        after = size - 1 - before
        left[node] = node + 1 if before else num_inner + leaf
        right[node] = node + 1 + before if after else num_inner + leaf + before + 1
        if before:
            waiting.append((node + 1, leaf, before))
        if after:
            waiting.append((node + 1 + before, leaf + before + 1, after))
    return left, right
