"""Small markets with a planted signal, for dedicated networks."""

from collections.abc import Sequence

import numpy as np

from barcast.fleet.data import FleetData
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
