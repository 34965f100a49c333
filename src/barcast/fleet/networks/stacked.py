"""G networks of one shape: their weights are rows of one matrix, their forward pass is one.

A network is a stack of recurrent layers, a layer norm without weights of its own (the head's would be
redundant) and a linear map to the horizons. The names and shapes of weights are torch's.

Letters: G networks, T steps, B sequences of each, K predictions, F inputs, D width, H horizons, P weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from barcast.fleet.networks.presets import Kind, NetworkPreset
from barcast.fleet.networks.recurrence import GRU, LSTM, NUM_GATES, scaled
from barcast.models.draws import Dropout, drawing_from

#: From this width on oneDNN's LSTM, network after network, is faster than products of whole stacks: the
#: weights stay in the core's cache for a whole sequence, and its kernels know products of few rows.
FUSED_WIDTH = 32


@dataclass(frozen=True)
class Shape:
    """What the networks of a stack have in common."""

    kind: Kind
    hidden_size: int
    num_layers: int
    num_inputs: int
    num_horizons: int

    @classmethod
    def of(cls, preset: NetworkPreset, num_inputs: int, num_horizons: int) -> Shape:
        """Return the shape of a preset's networks."""
        return cls(preset.kind, preset.hidden_size, preset.num_layers, num_inputs, num_horizons)

    @property
    def weights(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of one network's weights, in order.

        One bias a layer is enough for an LSTM; of a GRU's recurrent product it is no multiple of the other.
        """
        gates = NUM_GATES[self.kind] * self.hidden_size
        found: dict[str, tuple[int, ...]] = {}
        for depth in range(self.num_layers):
            found[f"weight_ih_l{depth}"] = (gates, self.hidden_size if depth else self.num_inputs)
            found[f"weight_hh_l{depth}"] = (gates, self.hidden_size)
            found[f"bias_ih_l{depth}"] = (gates,)
            if self.kind == "gru":
                found[f"bias_hh_l{depth}"] = (gates,)
        return {
            **found,
            "head.weight": (self.num_horizons, self.hidden_size),
            "head.bias": (self.num_horizons,),
        }

    @property
    def size(self) -> int:
        """P, numbers of one network."""
        return sum(prod(shape) for shape in self.weights.values())

    def views(self, stack: Tensor) -> dict[str, Tensor]:
        """Return the weights by name, (G, ...) each, as views of the stack (G, P)."""
        sizes = [prod(shape) for shape in self.weights.values()]
        parts = torch.split(stack, sizes, dim=1)
        return {
            name: part.view(len(stack), *shape)
            for (name, shape), part in zip(self.weights.items(), parts, strict=True)
        }

    def initial(self, seed: int) -> Tensor:
        """Return fresh weights (P,): uniform in 1 / sqrt(D), biases 0, an LSTM's forget gates open (1)."""
        generator = torch.Generator().manual_seed(seed)
        flat: Tensor = (torch.rand(self.size, generator=generator) * 2 - 1) * self.hidden_size**-0.5
        for name, view in self.views(flat[None]).items():
            if "bias" in name:
                view.zero_()
                if self.kind == "lstm" and "ih" in name:
                    view[:, self.hidden_size : 2 * self.hidden_size] = 1.0
        return flat


@dataclass(frozen=True)
class Masks:
    """Dropout of one step: between layers (G, T, B, D) each, and before the head (G, K, B, D)."""

    between: tuple[Tensor, ...]
    head: Tensor


def draw_masks(
    shape: Shape, seeds: Sequence[int], dropout: float, steps: int, outputs: int, count: int
) -> Masks:
    """Draw what each network drops from a seed of its own, whatever its neighbours and its seat are."""
    layer, width, own = Dropout(dropout), shape.hidden_size, []
    for seed in seeds:
        with drawing_from(torch.Generator().manual_seed(seed)):
            between = [layer(torch.ones(steps, count, width)) for _ in range(shape.num_layers - 1)]
            own.append([*between, layer(torch.ones(outputs, count, width))])
    *between, head = (torch.stack(each) for each in zip(*own, strict=True))
    return Masks(tuple(between), head)


def forward(
    shape: Shape, weights: dict[str, Tensor], inputs: Tensor, num_predictions: int,
    masks: Masks | None = None, counts: Sequence[int] = (),
) -> Tensor:  # fmt: skip
    """Map inputs (G, T, B, F) to outputs (G, K, B, H) of the last K steps, each network its own.

    ``counts`` says how many of its B sequences each network needs; the outputs of the others mean nothing.
    """
    counts = counts or [inputs.shape[2]] * len(inputs)
    states = inputs
    for depth in range(shape.num_layers):
        if depth and masks is not None:
            states = states * masks.between[depth - 1]
        states = _layer(shape, weights, depth, states, counts)
    states = torch.nn.functional.layer_norm(states[:, -num_predictions:], (shape.hidden_size,))
    if masks is not None:
        states = states * masks.head
    out = torch.baddbmm(
        weights["head.bias"].unsqueeze(1), states.flatten(1, 2), weights["head.weight"].transpose(1, 2)
    )
    return out.view(*states.shape[:3], -1)


def _layer(
    shape: Shape, weights: dict[str, Tensor], depth: int, inputs: Tensor, counts: Sequence[int]
) -> Tensor:
    own = {name.rsplit("_", 1)[0]: weights[name] for name in weights if name.endswith(f"_l{depth}")}
    if _is_fused(shape, inputs):
        return _by_turns(own, inputs, counts)
    feed, recur, bias = (scaled(shape.kind, own[name]) for name in ("weight_ih", "weight_hh", "bias_ih"))
    given = torch.baddbmm(bias.unsqueeze(1), inputs.flatten(1, 2), feed.transpose(1, 2))
    given, recur = given.view(*inputs.shape[:3], -1), recur.transpose(1, 2).contiguous()
    if shape.kind == "lstm":
        return LSTM.apply(given, recur)  # type: ignore[no-any-return, no-untyped-call]
    return GRU.apply(given, recur, scaled("gru", own["bias_hh"]).unsqueeze(1))  # type: ignore[no-any-return, no-untyped-call]


def _is_fused(shape: Shape, inputs: Tensor) -> bool:
    mkldnn: Any = torch.backends.mkldnn
    at_home = inputs.device.type == "cpu" and inputs.dtype == torch.float32
    return (
        shape.kind == "lstm" and shape.hidden_size >= FUSED_WIDTH and at_home
        and bool(mkldnn.is_available() and mkldnn.enabled)
    )  # fmt: skip


def _by_turns(own: dict[str, Tensor], inputs: Tensor, counts: Sequence[int]) -> Tensor:
    """Run one network after the other through oneDNN's LSTM, each over the sequences it needs."""
    width, most = own["weight_hh"].shape[-1], inputs.shape[2]
    zero, none = inputs.new_zeros(1, most, width), inputs.new_zeros(4 * width)
    weights = (own[name].unbind(0) for name in ("weight_ih", "weight_hh", "bias_ih"))
    training, found = torch.is_grad_enabled(), []
    for x, count, *each in zip(inputs, counts, *weights, strict=True):
        start = zero[:, :count]
        states = torch.lstm(
            x[:, :count], (start, start), [*each, none], True, 1, 0.0, training, False, False
        )[0]
        found.append(torch.nn.functional.pad(states, (0, 0, 0, most - count)) if count < most else states)
    return torch.stack(found)
