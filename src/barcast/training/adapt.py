"""Fitting new rows of the symbol embedding, everything else frozen.

A new row begins as "unknown" and is pulled towards it: with a prior N(unknown, spread²) on each coordinate
and residuals of variance `noise`, the most likely row minimises the sum of losses plus noise / spread² times
its squared distance from "unknown". The spread is that of the rows that the network was trained with, so the
network itself says how far symbols lie apart. Labels of overlapping horizons count less: the pull is as many
times stronger as they overlap. Letters: B batch, K predictions of a stretch, H horizons, N symbols.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from barcast.core.arrays import F32, F64, I64
from barcast.models.ensemble import members_of
from barcast.models.identity import INITIAL_STD, OWN_TABLE
from barcast.training.batches import epoch_batches
from barcast.training.config import TrainConfig
from barcast.training.networks import TrainingData
from barcast.training.predict import predict_stop
from barcast.training.sections import Sections
from barcast.training.step import Loss, Which, gather
from barcast.windows.gather import Batch

#: Most steps, and steps between two looks at the labels held out.
MOST_STEPS, LOOK_EVERY = 300, 20
#: Standard errors by which the loss must be lower; more than 2, because the best of several looks is taken.
SURE = 2.5
#: Looks without a lower loss after which no more are taken.
PATIENCE = 4
#: Share of the spread that a step moves a coordinate by at most, about.
RATE = 0.1


@dataclass
class RowFitter:
    """Fits the last rows of each network's symbol embedding.

    Parameters
    ----------
    network : Module
        A network or an ensemble on the CPU, whose tables hold the new rows last.
    config : TrainConfig
        Of the run.
    loss : callable
        Of the run.
    num_new : int
        New rows.
    overlap : int
        Sessions that a label shares with the next one's: the longest horizon.
    """

    network: nn.Module
    config: TrainConfig
    loss: Loss
    num_new: int
    overlap: int

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)
        self.members = members_of(self.network)
        names = [name for name, _ in self.network.named_parameters() if name.endswith(OWN_TABLE)]
        self.tables = [self.network.get_parameter(name) for name in names]
        self.spreads = [_spread(table[: -self.num_new]) for table in self.tables]

    def fit(self, data: TrainingData, steps: int, look: Callable[[int], bool] = lambda step: True) -> None:
        """Begin at "unknown" and take so many steps, one batch each, or until ``look`` (step) says no."""
        rows = [table[:1].repeat(self.num_new, 1).requires_grad_() for table in self.tables]
        self._put(rows)
        groups = [
            {"params": [row], "lr": RATE * spread} for row, spread in zip(rows, self.spreads, strict=True)
        ]
        optimizer = torch.optim.Adam(groups)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # steps are small: threads would wait for each other most of the time
        try:
            self._steps(data, steps, look, optimizer, rows)
        finally:
            torch.set_num_threads(threads)

    def _steps(
        self, data: TrainingData, steps: int, look: Callable[[int], bool], optimizer: torch.optim.Optimizer,
        rows: list[Tensor],
    ) -> None:  # fmt: skip
        num_labels = int(torch.isfinite(data.resident.target).sum())
        pulls: list[float] = []
        for step, which in zip(range(steps), self._batches(data), strict=False):
            if step % LOOK_EVERY == 0 and not look(step):
                return
            batch = gather(which, data, self.config, Sections())
            noise = [self._learn(place, batch, row) for place, row in enumerate(rows)]
            # the variance of residuals is that of the network without any new row
            pulls = pulls or [self.overlap * n / s**2 for n, s in zip(noise, self.spreads, strict=True)]
            for row, table, pull in zip(rows, self.tables, pulls, strict=True):
                assert row.grad is not None
                row.grad += 2 * pull / num_labels * (row.detach() - table[:1])
            optimizer.step()
            self._put(rows)

    def held_out_losses(self, data: TrainingData, target: F32, block: I64) -> F64:
        """Return the loss on the rows held out by block, shape (num_blocks,): sums over known labels.

        ``target`` (R, H) and ``block`` (R,) are of all rows.
        """
        rows, outputs = predict_stop(self.network, data, self.config)
        groups = [np.flatnonzero(block[rows] == each) for each in np.unique(block[rows])]
        wanted, said = torch.from_numpy(target[rows])[:, None], torch.from_numpy(outputs)[:, None]
        return np.array([float(self.loss(said[group], wanted[group], 1)) for group in groups], np.float64)

    def _learn(self, place: int, batch: Batch, row: Tensor) -> float:
        """Leave the gradient of one network's loss on a batch with its new rows, and return the loss."""
        assert batch.target is not None
        table = self.tables[place].requires_grad_(True)
        prediction = self.members[place](batch.inputs, batch.symbol, batch.num_predictions)
        num_labels = max(int(torch.isfinite(batch.target).sum()), 1)
        loss: Tensor = self.loss(prediction, batch.target, num_labels)
        (gradient,) = torch.autograd.grad(loss, table)
        table.requires_grad_(False)
        row.grad = gradient[-self.num_new :].clone()
        return float(loss.detach())

    def _batches(self, data: TrainingData) -> Iterator[Which]:
        for epoch in itertools.count():
            yield from epoch_batches(data, self.config, epoch)

    def _put(self, rows: list[Tensor]) -> None:
        """Write the new rows into the tables; the others are not touched."""
        for table, row in zip(self.tables, rows, strict=True):
            table[-self.num_new :] = row.detach()


def _spread(table: Tensor) -> float:
    """Return the standard deviation of known rows (N, E) around "unknown", a coordinate."""
    apart = float((table[1:] - table[:1]).square().mean().sqrt()) if len(table) > 1 else 0.0
    return max(apart, INITIAL_STD)


@dataclass(frozen=True)
class Choice:
    """What labels held out say of the number of steps.

    Attributes
    ----------
    losses : dict of int to float
        Mean loss by number of steps; 0 is "unknown".
    best : int
        Steps of the lowest loss, at least one look.
    sureness : float
        By how many of its standard errors (over blocks of sessions) that loss is lower than at 0.
    """

    losses: dict[int, float]
    best: int
    sureness: float

    @property
    def helps(self) -> bool:
        """Whether the best is better than "unknown" beyond chance."""
        return self.sureness > SURE


def choose_steps(fitter: RowFitter, data: TrainingData, target: F32, block: I64) -> Choice:
    """Fit on the labels that teach and ask those held out how many steps were best.

    Parameters
    ----------
    block : I64, shape (R,)
        Blocks of sessions whose labels do not overlap with those of the next but one.
    """
    sums: dict[int, F64] = {}
    num_labels = max(int(np.isfinite(target[data.stop]).sum()), 1)

    def look(step: int) -> bool:
        sums[step] = fitter.held_out_losses(data, target, block)
        return step - min(sums, key=lambda each: float(sums[each].sum())) < PATIENCE * LOOK_EVERY

    fitter.fit(data, MOST_STEPS, look)
    losses = {step: float(found.sum()) / num_labels for step, found in sums.items()}
    best = min((step for step in losses if step), key=lambda step: losses[step])
    gains = sums[0] - sums[best]
    error = float(gains.std(ddof=1) * np.sqrt(len(gains))) if len(gains) > 1 else 0.0
    return Choice(losses, best, float(gains.sum()) / error if error else 0.0)
