"""What every network shares: its sizes and the masked loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sizes:
    """What the data decides about a network's shape."""

    num_inputs: int
    num_symbols: int
    num_horizons: int


def masked_mse(prediction: Tensor, target: Tensor, num_labels: int) -> Tensor:
    """Squared error summed over known labels, over the count of the whole (global) batch.

    NaN targets are unknown labels and weigh nothing, so that accumulation and halved batches agree.
    """
    known = torch.isfinite(target)
    error = torch.where(known, prediction.float() - target.nan_to_num(), 0.0)
    return error.square().sum() / num_labels
