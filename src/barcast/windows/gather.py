"""Batches as gathers: the panel rests on the device that trains, a batch is one index operation.

Letters: B batch, L look-back, K predictions of a stretch, F inputs, H horizons, R rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from barcast.core.arrays import I64
from barcast.windows.index import Stretches


@dataclass(frozen=True)
class Resident:
    """Everything a batch is gathered from, on one device.

    Attributes
    ----------
    inputs : Tensor, shape (R, F)
        Normalised features and validity, float32.
    symbol : Tensor, shape (R,) or (R, 1 + A)
        Embedding index of each row's symbol, and of its A attributes where the model reads them; 0 is
        "unknown".
    life_start : Tensor, shape (R,)
        First row each row's window may reach.
    target : Tensor, shape (R, H)
        What the loss compares with; NaN where there is nothing to learn.
    anchored : bool
        Whether inputs are log prices and log volume to be measured from the window's own last close.
    """

    inputs: Tensor
    symbol: Tensor
    life_start: Tensor
    target: Tensor
    anchored: bool = False


@dataclass(frozen=True)
class Batch:
    """What a network reads: inputs (B, T, F), symbol (B,) or (B, 1 + A), how many last steps to predict."""

    inputs: Tensor
    symbol: Tensor
    num_predictions: int
    target: Tensor | None = None


def rows_on_device(which: I64 | Stretches, device: torch.device | str) -> Tensor:
    """Bring what a batch is made of to the device.

    Returns
    -------
    Tensor, shape (B,) or (3, B)
        Rows; of stretches their first row, and where their life starts and stops.
    """
    if isinstance(which, Stretches):
        which = np.stack([which.first, which.life_start, which.life_stop])
    return torch.from_numpy(which).to(device)


def gather_windows(data: Resident, rows: Tensor, look_back: int) -> Batch:
    """Gather the windows that end at ``rows`` (B,), left-padded with zeros where the life is shorter."""
    steps = torch.arange(look_back - 1, -1, -1, device=rows.device)
    index = rows[:, None] - steps
    inside = index >= data.life_start[rows][:, None]
    inputs = data.inputs[index.clamp_(min=0)]
    inputs = anchor(inputs, inside) if data.anchored else inputs * inside[..., None]
    return Batch(inputs, data.symbol[rows], 1, data.target[rows][:, None, :])


def gather_stretches(data: Resident, stretches: Tensor, look_back: int, length: int) -> Batch:
    """Gather stretches (3, B) of ``look_back - 1 + length`` bars with ``length`` targets each."""
    first, start, stop = stretches[..., None].unbind()
    index = first + torch.arange(1 - look_back, length, device=stretches.device)
    inside = (index >= start) & (index < stop)
    safe = torch.minimum(torch.maximum(index, start), stop - 1)
    inputs = data.inputs[safe] * inside[..., None]
    last = slice(look_back - 1, None)
    target = data.target[safe[:, last]].masked_fill(~inside[:, last, None], float("nan"))
    return Batch(inputs, data.symbol[start[:, 0]], length, target)


def anchor(inputs: Tensor, inside: Tensor) -> Tensor:
    """Measure log prices from the window's last close and log volume from the window's mean.

    ``inputs`` (B, L, 6) holds log open, high, low, close, volume (NaN where missing) and validity. The result
    is free of price and volume scale, reads nothing outside the window, and is 0 where a value is missing.
    """
    present = torch.isfinite(inputs) & inside[..., None]
    known = inputs.nan_to_num()
    prices = (known[..., :4] - known[:, -1:, 3:4]) * ANCHORED_PRICE_SCALE
    volume = known[..., 4:5]
    weight = present[..., 4:5].to(inputs.dtype)
    mean = (volume * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    return torch.where(present, torch.cat([prices, volume - mean, known[..., 5:]], dim=-1), 0.0)


#: Log price moves inside a window are a few percent; this brings them to the order of one.
ANCHORED_PRICE_SCALE = 20.0
