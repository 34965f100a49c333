"""Small markets with a planted signal, for dedicated networks."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from barcast.fleet.data import FleetData
from barcast.fleet.networks.packing import Packed
from barcast.fleet.networks.presets import NetworkPreset
from barcast.fleet.networks.trainer import BatchTrainer, Member

SMALL = {
    "hidden_size": 8, "look_back_window": 6, "stretch_length": 10, "batch_size": 30, "epochs": 4, "min_rows": 30,
    "lr": 1e-2,
}  # fmt: skip


def market(
    lengths: Sequence[int] = (150, 220, 180, 170, 200), seed: int = 0, num_inputs: int = 3
) -> FleetData:
    """Segments 60/15/10/5/10; half of the target's spread is the last two bars' first input; one has two lives."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    inputs, target, segment, life = [], [], [], []
    for start, length in zip(offsets, lengths, strict=False):
        x = rng.normal(size=(length, num_inputs)).astype(np.float32) * 3 + 1
        signal = (x[:, 0] - 1) / 3
        signal[1:] += signal[:-1].copy()
        inputs.append(np.column_stack([x, np.ones(length, np.float32)]))
        target.append(0.02 * (signal + rng.normal(size=length)))
        segment.append(
            np.searchsorted(np.cumsum([0.6, 0.15, 0.1, 0.05]) * length, np.arange(length), "right")
        )
        born = np.zeros(length, np.int64)
        born[40:] = 40 if length == 220 else 0
        life.append(born + start)
    y = np.concatenate(target).astype(np.float32)[:, None]
    y[rng.random(len(y)) < 0.05] = np.nan
    return FleetData(
        tuple(f"S{i}" for i in range(len(lengths))), offsets, np.concatenate(inputs), y,
        np.concatenate([np.arange(n) for n in lengths]).astype(np.int32),
        np.concatenate(segment).astype(np.int8), np.concatenate(life),
    )  # fmt: skip


def trainer_of(
    data: FleetData, positions: Sequence[int], *, seats: int = 0, own: dict | None = None, **options
) -> BatchTrainer:
    """A batch of those symbols; ``own`` are overrides by position."""
    members = [Member(p, NetworkPreset(**{**SMALL, **options, **(own or {}).get(p, {})})) for p in positions]
    return BatchTrainer(data, members, "small", 7, seats)


def trained(data: FleetData, positions: Sequence[int], **options) -> dict[int, object]:
    """Results by position of a batch that ran to its end."""
    batch = trainer_of(data, positions, **options)
    assert batch.run()
    return dict(zip(positions, batch.in_order(), strict=True))


class DedicatedNetwork(nn.Module):
    """The slow reference: a packed network of torch's own layers, windows (B, L, F) of raw inputs to (B, H).

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
