"""Whether a network fits at all: counted before there is one, so that no run fails of its width."""

from __future__ import annotations

from typing import Any

from barcast.core.errors import OutOfMemoryError
from barcast.core.progress import count
from barcast.models.network import Sizes
from barcast.models.registry import ModelEntry
from barcast.planning.machine import host_memory
from barcast.planning.memory import FLOAT, gib
from barcast.planning.network import parameters_by_component
from barcast.planning.probe import fixed_bytes
from barcast.training.config import TrainConfig

_SMALLER = "a smaller network: --size, --hidden-size or --num-layers"


def check_room(entry: ModelEntry, options: Any, sizes: Sizes, train: TrainConfig) -> None:
    """Refuse a network whose weights and what goes with each of them are more than the memory there is.

    What goes with them does not depend on the batch: gradients, the optimizer's moments, the best weights,
    the weights of finished seeds. Batches come on top, so not every network that passes fits.

    Raises
    ------
    OutOfMemoryError
        With what is needed and what is there.
    """
    try:
        parameters = sum(parameters_by_component(entry, options, sizes).values())
    except (RuntimeError, OverflowError, TypeError) as error:  # sizes beyond 64 bits
        if "verflow" not in str(error):
            raise
        raise OutOfMemoryError(f"no memory holds a `{entry.name}` of these options", _SMALLER) from error
    # weights, the best ones and those of finished seeds; gradients and moments
    needed = FLOAT * parameters * (1 + train.num_seeds) + fixed_bytes(parameters, train.optimizer)
    available, limited_by = _memory(train.device)
    if available is not None and needed > available:
        raise OutOfMemoryError(
            f"a `{entry.name}` of these options has {count(parameters)} parameters, which take at least "
            f"{gib(needed)} to train (weights twice, gradients, optimizer); {gib(available)} are available "
            f"({limited_by})",
            _SMALLER,
        )


def _memory(device: str) -> tuple[int | None, str]:
    """Return the memory of the device that trains, None where nothing is known, and what limits it."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory), device
    memory = host_memory()
    return memory.available, memory.limited_by
