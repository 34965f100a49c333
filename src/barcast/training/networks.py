"""From arrays to a network on a device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from barcast.core.arrays import F32, I64, Bools
from barcast.core.errors import UsageError
from barcast.models.ensemble import SeedEnsemble
from barcast.models.network import Sizes
from barcast.models.registry import ModelEntry
from barcast.training.checkpoint import load_tensors
from barcast.training.config import TrainConfig
from barcast.training.memory import memory_explained
from barcast.windows.gather import Resident
from barcast.windows.shards import FIELDS, NUM_SLOTS, Shards, Which, bytes_per_row, check_longest


@dataclass(frozen=True)
class TrainingData:
    """What the loop trains on.

    Attributes
    ----------
    resident : Resident
        Inputs and targets, on the device or, where they come in shards, in host memory; targets are NaN on
        every row that is not in `fit`.
    lives : I64, shape (num_lives + 1,)
        Borders of unbroken rows.
    fit, stop : Bools, shape (R,)
        Rows whose labels teach, and rows that decide when to stop.
    shards : Shards or None
        How the panel comes to the device where it does not fit as a whole.
    """

    resident: Resident
    lives: I64
    fit: Bools
    stop: Bools
    shards: Shards | None = None

    @property
    def panel(self) -> Resident | Shards:
        """What predictions read."""
        return self.shards or self.resident

    @property
    def shard_rows(self) -> int:
        """Most rows of a shard; 0 where the whole panel is on the device."""
        return self.shards.max_rows if self.shards else 0

    def place(self, which: Which) -> tuple[Resident, Which]:
        """Return what a training batch is gathered from on the device, and the batch in its rows."""
        return self.shards.place(which) if self.shards else (self.resident, which)


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
    entry: ModelEntry, options: Any, num_inputs: int, num_symbols: int, num_horizons: int, device: str,
    attributes: tuple[int, ...] = (),
) -> nn.Module:  # fmt: skip
    """Make an untrained network of the registered kind.

    Raises
    ------
    ResourceError
        When its weights do not fit into memory.
    """
    with memory_explained(
        f"not enough memory for the weights of a `{entry.name}` of these options",
        "a smaller network: --size, --hidden-size or --num-layers",
    ):
        network: nn.Module = entry.build(options, Sizes(num_inputs, num_symbols, num_horizons, attributes))
        return network.to(device)


def build_networks(entry: ModelEntry, options: Any, sizes: Sizes, num_seeds: int) -> nn.Module:
    """Make an untrained network on the CPU, or an ensemble of several."""
    networks = [entry.build(options, sizes) for _ in range(num_seeds)]
    return SeedEnsemble(networks) if num_seeds > 1 else networks[0]


def load_network(
    entry: ModelEntry, options: Any, num_inputs: int, num_symbols: int, num_horizons: int, path: Any,
    attributes: tuple[int, ...] = (), num_seeds: int = 1,
) -> nn.Module:  # fmt: skip
    """Make the network, or the ensemble of so many, and give it the weights of a run."""
    sizes = Sizes(num_inputs, num_symbols, num_horizons, attributes)
    network = build_networks(entry, options, sizes, num_seeds)
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


def _choose_shard_rows(host: Resident, config: TrainConfig) -> int:
    """Return the rows of a shard, 0 where the whole panel fits.

    The limit is `panel_memory_gib`; left at 0, half of what is free on a GPU, and none on a CPU.
    """
    limit = config.panel_memory_gib * 2.0**30
    if not limit:
        if not config.device.startswith("cuda"):
            return 0
        limit = torch.cuda.mem_get_info(config.device)[0] / 2
    size = bytes_per_row(host)
    return 0 if len(host.inputs) * size <= limit else max(int(limit / (NUM_SLOTS * size)), 1)


def check_panel_memory(data: TrainingData, config: TrainConfig) -> None:
    """Refuse a limit on a panel in host memory that its longest life does not fit into.

    Raises
    ------
    ResourceError
        With the least that would do.
    """
    if shard_rows := _choose_shard_rows(data.resident, config):
        check_longest(data.resident, data.lives, shard_rows)


def put_on_device(data: TrainingData, config: TrainConfig, shard_rows: int | None = None) -> TrainingData:
    """Bring a panel in host memory to the device, as a whole or in shards.

    ``shard_rows`` are those of a shard, 0 for none; None chooses by what fits.
    """
    host = data.resident
    if shard_rows is None:
        shard_rows = _choose_shard_rows(host, config)
    if shard_rows:
        return replace(data, shards=Shards(host, data.lives, shard_rows, config.device, config.seed))
    moved = {name: getattr(host, name).to(config.device) for name in FIELDS}
    return replace(data, resident=Resident(**moved, anchored=host.anchored))


def shuffled_by(data: TrainingData, seed: int) -> TrainingData:
    """Return the same data, in the same memory, for a seed: only the order of shards depends on one."""
    return replace(data, shards=data.shards.for_seed(seed)) if data.shards else data


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
