"""Seats of a batch: whose rows lie where, how far each is, and what a step gathers from them.

Letters: G seats, T = L - 1 + K steps, B sequences of each, K predictions, F inputs, H horizons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from barcast.core.arrays import F32, I64
from barcast.fleet.networks.lessons import Lessons
from barcast.training.config import TrainConfig, lr_for
from barcast.training.step import warm_up_then_cosine
from barcast.windows.index import Stretches


@dataclass
class Standing:
    """How far one symbol is: what a saved state keeps of it beside its weights.

    Attributes
    ----------
    position : int
        Of the symbol in the batch.
    step, epoch, step_in_epoch : int
        Done so far.
    best_score : float or None
        Best on `stop` (R2 against zero) and the epoch after which it was reached.
    seconds : float
        Its share of the batch's computing.
    curve : list
        One entry an epoch: loss in training, score on `stop`.
    """

    position: int
    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    best_score: float | None = None
    best_epoch: int = 0
    epochs_since_best: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Seat:
    """A symbol at work: what it learns from, how far it is, the steps of its present epoch."""

    lessons: Lessons
    standing: Standing
    batches: list[Stretches] = field(default_factory=list)

    def __post_init__(self) -> None:
        preset = self.lessons.preset
        highest = preset.lr or lr_for(preset.hidden_size)
        self._rates = warm_up_then_cosine(TrainConfig(lr=highest, warmup=preset.warmup))

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        standing = self.standing
        within = (standing.step_in_epoch + 1) / len(self.batches)
        return self._rates((standing.epoch + within) / self.lessons.preset.epochs)

    def next_stretches(self) -> Stretches:
        """Return what its next step learns from."""
        if not self.batches:
            self.batches = self.lessons.batches(self.standing.epoch)
        return self.batches[self.standing.step_in_epoch]

    def count_step(self, loss: float) -> bool:
        """Count a step done; return whether an epoch ended with it."""
        standing = self.standing
        standing.step += 1
        standing.step_in_epoch += 1
        standing.loss_sum += loss
        return standing.step_in_epoch == len(self.batches)

    def end_epoch(self, score: float | None) -> bool:
        """Write an epoch down and begin the next; return whether its weights are the best so far.

        Those of the last epoch are where nothing judges them (no score).
        """
        standing = self.standing
        standing.epoch += 1
        loss = standing.loss_sum / len(self.batches)
        standing.curve.append({"epoch": standing.epoch, "train_loss": loss, "stop_score": score})
        best = standing.best_score
        better = score is None or (math.isfinite(score) and (best is None or score > best))
        if better:
            standing.best_score, standing.best_epoch = score, standing.epoch
        standing.epochs_since_best = 0 if better else standing.epochs_since_best + 1
        standing.step_in_epoch, standing.loss_sum, self.batches = 0, 0.0, []
        return better

    @property
    def finished(self) -> bool:
        """Whether its epochs or its patience ended."""
        preset, standing = self.lessons.preset, self.standing
        if preset.fixed_epochs:
            return standing.epoch >= preset.fixed_epochs
        return standing.epoch >= preset.epochs or standing.epochs_since_best >= preset.patience


class Pool:
    """The rows of all seats, each in a room longer than the longest symbol: its last row is padding."""

    def __init__(self, num_seats: int, num_rows: int, num_inputs: int, num_horizons: int) -> None:
        self.room = num_rows + 1
        self.inputs = torch.zeros(num_seats, self.room, num_inputs)
        self.taught, self.judged = (torch.empty(num_seats, self.room, num_horizons) for _ in range(2))

    def put(self, seat: int, lessons: Lessons) -> None:
        """Give a seat's room to another symbol."""
        length = len(lessons.inputs)
        for room, values, nothing in (
            (self.inputs, lessons.inputs, 0.0), (self.taught, lessons.taught, torch.nan),
            (self.judged, lessons.judged, torch.nan),
        ):  # fmt: skip
            room[seat, length:] = nothing
            room[seat, :length] = torch.from_numpy(values)

    def keep(self, seats: I64) -> None:
        """Keep those seats only."""
        chosen = torch.from_numpy(seats)
        self.inputs, self.taught, self.judged = (
            each[chosen] for each in (self.inputs, self.taught, self.judged)
        )

    def gather(
        self, seats: I64, stretches: Sequence[Stretches], look_back: int, length: int, count: int, *,
        judged: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Gather inputs (G, T, B, F) and targets (G, K, B, H) of at most B stretches a seat.

        NaN is what does not teach, or does not judge.
        """
        index = indices(stretches, look_back, length, count, padding=self.room - 1)
        flat = torch.from_numpy(index + (seats * self.room)[:, None, None])
        targets = self.judged if judged else self.taught
        return (
            self.inputs.flatten(0, 1)[flat],
            targets.flatten(0, 1)[flat[:, look_back - 1 :]],
        )


def indices(stretches: Sequence[Stretches], look_back: int, length: int, count: int, *, padding: int) -> I64:
    """Return the rows that stretches read, (G, T, B).

    What lies outside of a life, and a sequence that is not there (fewer than ``count``), reads ``padding``.
    """
    first, start, stop = (np.zeros((len(stretches), count), np.int64) for _ in range(3))
    for seat, own in enumerate(stretches):
        first[seat, : len(own)], start[seat, : len(own)], stop[seat, : len(own)] = (
            own.first, own.life_start, own.life_stop,
        )  # fmt: skip
    index = first[:, None, :] + np.arange(1 - look_back, length)[:, None]
    inside = (index >= start[:, None, :]) & (index < stop[:, None, :])
    return np.where(inside, index, padding)


def squared_errors(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared errors and known targets (G, K, B, H): 0 and False where a target is unknown."""
    known = torch.isfinite(targets)
    return torch.where(known, outputs - targets.nan_to_num(), 0.0).square(), known


def padded(values: Sequence[F32], num_rows: int) -> F32:
    """Lay symbols (n, F) side by side, (G, R, F), zeros after each."""
    found = np.zeros((len(values), num_rows, values[0].shape[1]), np.float32)
    for seat, own in enumerate(values):
        found[seat, : len(own)] = own
    return found
