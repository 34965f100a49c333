"""Networks trained one after another, as one would write it: what fleet_networks_bench.py puts beside batches.

A plain ``torch.nn.LSTM`` with the head, dropout, AdamW, clipping and labels a step of the preset, on one thread or on
all, whichever is faster. Generous to this side: every input of a step is gathered before the clock starts and reused
in each epoch, `stop` is never looked at, nothing is saved, and the allocator keeps what is freed.
"""

import time

import numpy as np
import torch
from torch import Tensor

from barcast.fleet.networks.lessons import Lessons
from barcast.fleet.networks.presets import NetworkPreset
from barcast.fleet.networks.seats import indices
from barcast.training.config import lr_for

#: Inputs (B, T, F), targets (B, K) with NaN where unknown, and how many are known.
Step = tuple[Tensor, Tensor, int]


class Network(torch.nn.Module):
    """The architecture of a preset, for one horizon."""

    def __init__(self, preset: NetworkPreset, num_inputs: int) -> None:
        super().__init__()
        between = preset.dropout if preset.num_layers > 1 else 0.0
        self.recurrent = torch.nn.LSTM(
            num_inputs, preset.hidden_size, preset.num_layers, batch_first=True, dropout=between
        )
        self.norm = torch.nn.LayerNorm(preset.hidden_size, elementwise_affine=False)
        self.dropout = torch.nn.Dropout(preset.dropout)
        self.head = torch.nn.Linear(preset.hidden_size, 1)

    def forward(self, inputs: Tensor, num_predictions: int) -> Tensor:
        """Map inputs (B, T, F) to outputs (B, K) of the last K steps."""
        states = self.recurrent(inputs)[0][:, -num_predictions:]
        return self.head(self.dropout(self.norm(states))).squeeze(-1)


def steps_of(lessons: Lessons) -> list[Step]:
    """Gather every step of an epoch; with a stretch length of 1 a step is of plain windows."""
    preset, num_rows = lessons.preset, len(lessons.inputs)
    rows = torch.from_numpy(np.concatenate([lessons.inputs, np.zeros_like(lessons.inputs[:1])]))
    taught = torch.from_numpy(np.append(lessons.taught[:, 0], np.float32(np.nan)))
    steps = []
    for batch in lessons.batches(0):
        index = indices([batch], preset.look_back_window, preset.stretch_length, len(batch), padding=num_rows)
        flat = torch.from_numpy(np.ascontiguousarray(index[0].T))
        targets = taught[flat[:, preset.look_back_window - 1 :]]
        steps.append((rows[flat], targets, int(torch.isfinite(targets).sum())))
    return steps


def trained(lessons: Lessons, seconds: float) -> tuple[int, int, float]:
    """Train one symbol until its epochs or seconds are over; return labels learned, epochs and seconds."""
    preset, steps = lessons.preset, steps_of(lessons)
    torch.manual_seed(0)
    network = Network(preset, lessons.inputs.shape[1])
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=preset.lr or lr_for(preset.hidden_size), weight_decay=preset.weight_decay
    )
    labels, epochs, spent, started = 0, 0, 0.0, time.perf_counter()
    while not epochs or (epochs < preset.epochs and spent < seconds):
        for inputs, targets, num_known in steps:
            errors = network(inputs, preset.stretch_length) - targets
            loss = torch.where(torch.isfinite(targets), errors, 0.0).square().sum() / num_known
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), preset.clip)
            optimizer.step()
            labels += num_known
        epochs, spent = epochs + 1, time.perf_counter() - started
    return labels, epochs, spent


def use_faster_threads(lessons: Lessons) -> None:
    """Compute on one thread or on all, whichever makes an epoch faster: small steps gain nothing from several."""
    everyone, rates = torch.get_num_threads(), {}
    trained(lessons, 0.0)  # kernels are made before anything is timed
    for threads in (1, everyone):
        torch.set_num_threads(threads)
        labels, _, spent = trained(lessons, 0.0)
        rates[threads] = labels / spent
    torch.set_num_threads(max(rates, key=rates.__getitem__))


def one_by_one(lessons: list[Lessons], seconds: float) -> dict:
    """Train symbol after symbol, each for its share of the seconds at most."""
    use_faster_threads(lessons[0])
    found = [trained(own, seconds / len(lessons)) for own in lessons]
    labels, epochs, spent = (sum(values) for values in zip(*found, strict=True))
    return {
        "labels": labels, "seconds": spent, "symbols": len(lessons), "epochs": epochs / len(lessons),
        "threads": torch.get_num_threads(),
    }  # fmt: skip
