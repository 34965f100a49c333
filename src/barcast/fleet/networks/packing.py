"""A trained network as bytes, and back: one safetensors file, float32, nothing executable.

Its weights have torch's names, so that ``torch.nn.LSTM`` or ``GRU`` takes them (:func:`as_module`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

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


class DedicatedNetwork(nn.Module):
    """A packed network of torch's own layers, for export: windows (B, L, F) of raw inputs to (B, H).

    Rows before a life's first bar are NaN; inputs are scaled inside, outputs are in the target's units.
    """

    def __init__(self, packed: Packed) -> None:
        super().__init__()
        shape, scaler = packed.shape, packed.scaler
        kind = nn.LSTM if shape.kind == "lstm" else nn.GRU
        self.recurrent = kind(shape.num_inputs, shape.hidden_size, shape.num_layers, batch_first=True)
        self.norm = nn.LayerNorm(shape.hidden_size, elementwise_affine=False)
        self.head = nn.Linear(shape.hidden_size, shape.num_horizons)
        self.clip = 5.0 if scaler.clipped else float("inf")
        self.mean, self.scale, self.target = (
            nn.Buffer(torch.from_numpy(each.copy())) for each in (scaler.mean, scaler.scale, scaler.target)
        )
        own = {
            name: view[0].clone()
            for name, view in shape.views(torch.from_numpy(packed.weights)[None]).items()
        }
        for depth in range(shape.num_layers):  # one bias is all that an LSTM learns
            own.setdefault(f"bias_hh_l{depth}", torch.zeros_like(own[f"bias_ih_l{depth}"]))
        self.head.load_state_dict({name: own.pop(f"head.{name}") for name in ("weight", "bias")})
        self.recurrent.load_state_dict(own)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return outputs (B, H) of the windows' last bars."""
        scaled = ((inputs - self.mean) * self.scale).clamp(-self.clip, self.clip)
        states = self.recurrent(torch.nan_to_num(scaled))[0][:, -1]
        out: Tensor = self.head(self.norm(states)) * self.target
        return out


def as_module(packed: Packed) -> nn.Module:
    """Return the network in torch's own layers, in eval mode."""
    return DedicatedNetwork(packed).eval()


def stack(networks: Sequence[Packed]) -> Tensor:
    """Return the weights of networks of one shape, (G, P)."""
    return torch.from_numpy(np.stack([network.weights for network in networks]))
