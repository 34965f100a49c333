"""Random draws inside a network while it trains: dropout, and whatever else is random in a forward pass.

Several parts of a batch may be computed at once, so draws come from a generator that belongs to the thread
that computes the part (:func:`drawing_from`); without one, and on a GPU, from the device's own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16


class _Local(threading.local):
    generator: torch.Generator | None = None


_local = _Local()


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Let this thread's draws on the CPU come from ``generator``."""
    before, _local.generator = _local.generator, generator
    try:
        yield
    finally:
        _local.generator = before


def generator_for(device: torch.device) -> torch.Generator | None:
    """Return the generator that draws on a device come from; None is the device's own."""
    return _local.generator if device.type == "cpu" else None


class Dropout(nn.Module):
    """Set values to 0 with probability ``p`` and scale the others up (Srivastava et al. 2014).

    On a CPU torch's own draws one 32-bit number a value; 16 bits are enough to tell 0.1 from 0.1 +- 0.00001
    and take less than half the time.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """Return values of the same shape; in eval mode the same values."""
        if not self.training or not self.p:
            return values
        if values.device.type != "cpu":
            return nn.functional.dropout(values, self.p)
        dropped = round(self.p * _LEVELS)
        keep = _sixteen_bits(values) >= dropped - _LEVELS // 2
        return values * keep.to(values.dtype).mul_(_LEVELS / (_LEVELS - dropped))


def _sixteen_bits(like: Tensor) -> Tensor:
    """Return uniform 16-bit whole numbers, four from each draw."""
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator_for(like.device))
    return words.view(torch.int16)[: like.numel()].view(like.shape)
