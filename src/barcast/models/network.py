"""What every network shares: its sizes and the masked loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from barcast.core.errors import UsageError

_DEFAULT = "mend the flag, or the model's table of the settings file; without it the default is taken"


@dataclass(frozen=True)
class Sizes:
    """What the data decides about a network's shape."""

    num_inputs: int
    num_symbols: int
    num_horizons: int
    attributes: tuple[int, ...] = ()
    """Known values of each attribute that has an embedding."""


def check_options(options: Any, **lows: int) -> None:
    """Refuse sizes below their lowest value, shares (``...dropout``) outside [0, 1), and repeats in a list.

    Raises
    ------
    UsageError
        Naming the option.
    """
    for name, low in lows.items():
        if getattr(options, name) < low:
            raise UsageError(f"`{name}` must be at least {low}, got {getattr(options, name)}", _DEFAULT)
    for name, value in vars(options).items():
        if name.endswith("dropout") and not 0 <= value < 1:
            raise UsageError(f"`{name}` must be in [0, 1), got {value}", _DEFAULT)
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise UsageError(f"`{name}` names one twice: {', '.join(value)}", "name each once")


def masked_mse(prediction: Tensor, target: Tensor, num_labels: int) -> Tensor:
    """Squared error summed over known labels, over the count of the whole (global) batch.

    NaN targets are unknown labels and weigh nothing, so that accumulation and halved batches agree.
    """
    known = torch.isfinite(target)
    error = torch.where(known, prediction.float() - target.nan_to_num(), 0.0)
    return error.square().sum() / num_labels
