"""From arrays to a network on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from barcast.core.arrays import F32, I64, Bools
from barcast.core.errors import UsageError
from barcast.models.network import Sizes
from barcast.models.registry import ModelEntry
from barcast.training.checkpoint import load_tensors
from barcast.training.config import TrainConfig
from barcast.windows.gather import Resident


@dataclass(frozen=True)
class TrainingData:
    """What the loop trains on.

    Attributes
    ----------
    resident : Resident
        Inputs and targets on the device; targets are NaN on every row that is not in `fit`.
    lives : I64, shape (num_lives + 1,)
        Borders of unbroken rows.
    fit, stop : Bools, shape (R,)
        Rows whose labels teach, and rows that decide when to stop.
    """

    resident: Resident
    lives: I64
    fit: Bools
    stop: Bools


def check_device(name: str) -> None:
    """Refuse a device that this machine does not have, before any work is done.

    Raises
    ------
    UsageError
        With the devices there are.
    """
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = ["cpu", *(["cuda"] if num_gpus else []), *(f"cuda:{i}" for i in range(num_gpus))]
    if name not in known:
        raise UsageError(f"there is no device `{name}` here", f"--device {' or '.join(known)}")


def build_network(
    entry: ModelEntry, options: Any, num_inputs: int, num_symbols: int, num_horizons: int, device: str
) -> nn.Module:
    """Make an untrained network of the registered kind."""
    network: nn.Module = entry.build(options, Sizes(num_inputs, num_symbols, num_horizons))
    return network.to(device)


def load_network(
    entry: ModelEntry, options: Any, num_inputs: int, num_symbols: int, num_horizons: int, path: Any
) -> nn.Module:
    """Make the network and give it the weights of a run."""
    network = build_network(entry, options, num_inputs, num_symbols, num_horizons, "cpu")
    network.load_state_dict(load_tensors(path)[0])
    return network.eval()


def make_resident(
    inputs: F32, symbol: I64, life_start: I64, target: F32, device: str, *, anchored: bool = False
) -> Resident:
    """Put everything a batch is gathered from onto the device, once."""
    return Resident(
        inputs=torch.from_numpy(np.ascontiguousarray(inputs)).to(device),
        symbol=torch.from_numpy(np.ascontiguousarray(symbol)).to(device),
        life_start=torch.from_numpy(np.ascontiguousarray(life_start)).to(device),
        target=torch.from_numpy(np.ascontiguousarray(target)).to(device),
        anchored=anchored,
    )


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer that the config names, over groups with and without weight decay."""
    groups = decay_groups(network, config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr)


def decay_groups(network: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Weight decay shrinks matrices only; biases, norms and embeddings are left alone."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in network.named_parameters():
        is_matrix = parameter.ndim >= 2 and "embedding" not in name
        (matrices if is_matrix else others).append(parameter)
    return [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
