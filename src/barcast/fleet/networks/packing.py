"""A trained network as bytes, and back: one safetensors file, float32, nothing executable.

Its weights have torch's names, so that ``torch.nn.LSTM`` or ``GRU`` takes them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from barcast.core.arrays import F32
from barcast.core.errors import RunError
from barcast.fleet.networks.lessons import Scaler
from barcast.fleet.networks.stacked import Shape

_HEADER = "barcast"


@dataclass(frozen=True)
class Packed:
    """A trained network of one symbol.

    Attributes
    ----------
    shape : Shape
    look_back : int
        L, own bars a prediction reads.
    scaler : Scaler
    weights : F32, shape (P,)
    """

    shape: Shape
    look_back: int
    scaler: Scaler
    weights: F32


def pack(network: Packed) -> bytes:
    """Return the network as safetensors."""
    from safetensors.numpy import save

    views = network.shape.views(torch.from_numpy(network.weights)[None])
    arrays = {name: view[0].contiguous().numpy() for name, view in views.items()}
    scaler = network.scaler
    arrays |= {"input.mean": scaler.mean, "input.scale": scaler.scale, "target.scale": scaler.target}
    facts = {"look_back": network.look_back, "clipped": scaler.clipped, "shape": asdict(network.shape)}
    return save(arrays, metadata={_HEADER: json.dumps(facts)})


def unpack(data: bytes) -> Packed:
    """Read what :func:`pack` gave.

    Raises
    ------
    RunError
        When these bytes are no network.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
        facts = json.loads(header_of(data)[_HEADER])
        shape = Shape(**facts["shape"])
        scaler = Scaler(arrays["input.mean"], arrays["input.scale"], arrays["target.scale"], facts["clipped"])
        weights = np.concatenate([arrays[name].reshape(-1) for name in shape.weights])
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise RunError(f"a packed network cannot be read: {error}", "train the symbol again") from error
    return Packed(shape, facts["look_back"], scaler, weights)


def header_of(data: bytes) -> dict[str, str]:
    """Return the metadata of safetensors bytes, which its own reader of bytes leaves out."""
    length = int.from_bytes(data[:8], "little")
    found: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return found


def stack(networks: Sequence[Packed]) -> Tensor:
    """Return the weights of networks of one shape, (G, P)."""
    return torch.from_numpy(np.stack([network.weights for network in networks]))
