"""Checkpoints: one safetensors file, tensors beside a JSON header, replaced atomically. Never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from barcast.core.atomic import atomic_path
from barcast.core.errors import RunError

_HEADER = "barcast"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header atomically."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        # its own `save_file` makes files that nobody else may read
        temporary.write_bytes(save(plain, metadata={_HEADER: json.dumps(header)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote.

    Raises
    ------
    RunError
        When the file cannot be read as safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            header = json.loads(file.metadata()[_HEADER])
    except (SafetensorError, KeyError, TypeError) as error:
        raise RunError(f"cannot read {path}: {error}", "train again with --fresh") from error
    return tensors, header


def pack(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put a prefix before every name."""
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def unpack(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with that prefix, without it."""
    start = prefix + "."
    return {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten an optimizer's per-parameter state to named tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave; the groups' settings stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def copy_state(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the weights that later steps do not touch."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write numpy arrays atomically."""
    save_tensors(path, {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, {})


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what :func:`save_arrays` wrote."""
    return {name: tensor.numpy() for name, tensor in load_tensors(path)[0].items()}
