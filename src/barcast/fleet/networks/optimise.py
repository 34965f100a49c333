"""AdamW for G networks at once, each with its own rate, decay and count of steps.

Loshchilov and Hutter 2019, with torch's defaults; decay shrinks matrices only. Gradients are clipped by each
network's own norm. No network's numbers enter another's.

Letters: G networks, P weights of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from barcast.core.arrays import F64
from barcast.fleet.networks.stacked import Shape

_BETAS, _EPSILON = (0.9, 0.999), 1e-8


@dataclass
class Moments:
    """Running means of gradients and of their squares, (G, P) each."""

    first: Tensor
    second: Tensor


def decayed(shape: Shape) -> Tensor:
    """Return 1 for each weight that decays and 0 for the others, (P,)."""
    parts = [torch.full((prod(own),), float(len(own) > 1)) for own in shape.weights.values()]
    return torch.cat(parts)


def adamw(
    weights: Tensor, gradients: Tensor, moments: Moments, decay_of: Tensor, *,
    rates: F64, decays: F64, steps: F64, clips: F64,
) -> None:  # fmt: skip
    """Move weights (G, P) by one step, in place.

    ``rates``, ``decays``, ``clips`` and ``steps``, the number of each network's step from 1 on, are (G,).
    """
    norms = gradients.norm(dim=1)
    gradients.mul_((_column(clips) / (norms + 1e-6)[:, None]).clamp_(max=1.0))
    moments.first.lerp_(gradients, 1 - _BETAS[0])
    moments.second.mul_(_BETAS[1]).addcmul_(gradients, gradients, value=1 - _BETAS[1])
    weights.mul_(1 - _column(rates * decays) * decay_of)
    root = moments.second.sqrt().div_(_column((1 - _BETAS[1] ** steps) ** 0.5)).add_(_EPSILON)
    weights.addcdiv_(moments.first * _column(rates / (1 - _BETAS[0] ** steps)), root, value=-1)


def _column(values: F64) -> Tensor:
    return torch.from_numpy(values).float()[:, None]
