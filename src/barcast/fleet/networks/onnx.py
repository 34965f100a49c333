"""One symbol's network as operators of ONNX, its own normalisation included.

Letters: B windows, L look-back, F inputs, D width, H horizons.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from barcast.core.arrays import F32
from barcast.fleet.networks.packing import Packed
from barcast.fleet.networks.presets import Kind
from barcast.fleet.networks.recurrence import NUM_GATES
from barcast.fleet.onnx import INPUTS, Graph
from barcast.windows.normalise import CLIP

#: Gates in the order of ONNX (``i o f c`` and ``z r h``), as places in torch's.
_ORDER: dict[Kind, tuple[int, ...]] = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}


def add_network(graph: Graph, packed: Packed) -> str:
    """Append a network to a graph that reads windows (B, L, F), and return the name of its outputs (B, H).

    Rows before a life's first bar are NaN.
    """
    shape, scaler = packed.shape, packed.scaler
    views = shape.views(torch.from_numpy(packed.weights)[None])
    weights = {name: view[0].numpy() for name, view in views.items()}
    states = graph.add("Transpose", _scaled(graph, packed), perm=[1, 0, 2])
    for depth in range(shape.num_layers):
        states = _add_layer(graph, packed, weights, depth, states)
    last = graph.add("Gather", states, graph.constant(-1, np.int64), axis=0)
    ones = graph.constant(np.ones(shape.hidden_size), np.float32)
    normed = graph.add("LayerNormalization", last, ones, axis=-1, epsilon=1e-5)
    head = (graph.constant(weights[f"head.{name}"], np.float32) for name in ("weight", "bias"))
    outputs = graph.add("Gemm", normed, *head, transB=1)
    return graph.add("Mul", outputs, graph.constant(scaler.target, np.float32))


def _scaled(graph: Graph, packed: Packed) -> str:
    """Append the symbol's own scaling; what is missing, or before a life, is 0 after it."""
    scaler = packed.scaler
    moved = graph.add("Sub", INPUTS, graph.constant(scaler.mean, np.float32))
    scaled = graph.add("Mul", moved, graph.constant(scaler.scale, np.float32))
    if scaler.clipped:
        ends = (graph.constant(end, np.float32) for end in (-CLIP, CLIP))
        scaled = graph.add("Clip", scaled, *ends)
    return graph.add("Where", graph.add("IsNaN", scaled), graph.constant(0, np.float32), scaled)


def _add_layer(graph: Graph, packed: Packed, weights: dict[str, F32], depth: int, states: str) -> str:
    """Append a recurrent layer that reads (L, B, .) and gives (L, B, D)."""
    kind, width = packed.shape.kind, packed.shape.hidden_size
    own = {name: weights.get(f"{name}_l{depth}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    none = np.zeros(NUM_GATES[kind] * width, np.float32)  # one bias is all that an LSTM learns
    feed, recur, *biases = (_reordered(kind, none if each is None else each) for each in own.values())
    given = (feed[None], recur[None], np.concatenate(biases)[None])
    extra: dict[str, Any] = {"linear_before_reset": 1} if kind == "gru" else {}
    found = graph.add(
        kind.upper(),
        states,
        *(graph.constant(each, np.float32) for each in given),
        hidden_size=width,
        **extra,
    )
    return graph.add("Squeeze", found, graph.constant([1], np.int64))


def _reordered(kind: Kind, array: F32) -> F32:
    """Return gates (gates * D, ...) in the order of ONNX."""
    gates = array.reshape(NUM_GATES[kind], -1, *array.shape[1:])
    return np.asarray(gates[list(_ORDER[kind])].reshape(array.shape))
