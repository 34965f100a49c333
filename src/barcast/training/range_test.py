"""Which learning rate? Raise it step by step until the loss runs away (Smith 2017, cyclical learning rates).

Rates too low change nothing, then the loss falls, ends its fall, and climbs. The highest rate of a training
should lie between where it falls fastest and a tenth of where it runs away; a tenth of where it is lowest
does.
The steepest point alone is too low on market data: what falls first is the size of the random outputs that an
untrained network gives, not its error about the market.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

import numpy as np
import torch
from torch import nn

from barcast.core.arrays import F64
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.training.batches import epoch_batches
from barcast.training.config import TrainConfig
from barcast.training.memory import memory_explained
from barcast.training.networks import TrainingData
from barcast.training.precision import DivergedError
from barcast.training.step import Loss, Stepper
from barcast.training.threads import choose_threads

LOWEST, HIGHEST, NUM_STEPS = 1e-6, 1.0, 300
#: Weight of the past in the running mean of losses: ten steps, a fifth of a decade of rates.
SMOOTHING = 0.9
#: The loss runs away once it lies above its lowest by so much of where it began.
RISE = 0.5
#: Steps on either side between which a slope is measured, and steps before the running mean means anything.
SPAN = 10
#: A fall smaller than so many standard errors of the running mean is no fall.
CERTAIN = 6.0


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    Attributes
    ----------
    rates, losses, smooth : tuple of float
        One entry a step: learning rate, loss of the batch before it was learned from, running mean.
    steepest, lowest : float or None
        Rates at which the loss fell fastest and was lowest; None where it did not fall beyond its noise.
    diverged : float or None
        Rate at which it ran away; None where it never did.
    suggested : float
        A tenth of ``lowest``, else of ``diverged``, else of the highest rate.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smooth: tuple[float, ...]
    steepest: float | None
    lowest: float | None
    diverged: float | None
    suggested: float


def range_test(
    network: nn.Module, data: TrainingData, config: TrainConfig, loss: Loss, progress: Progress,
    *, num_steps: int = NUM_STEPS,
) -> RangeTest:  # fmt: skip
    """Train fresh weights on batches of `fit` with rates from 1e-6 to 1; they are of no use afterwards.

    Raises
    ------
    ResourceError
        When a step does not fit into memory.
    """
    rates: list[float] = []
    losses: list[float] = []
    diverged = None
    threads_before = torch.get_num_threads()
    batches = chain.from_iterable(epoch_batches(data, config, epoch) for epoch in count())
    with tempfile.TemporaryDirectory() as folder, memory_explained(
        f"not enough memory for steps of {config.batch_size} labels", "a smaller --batch-size or network"
    ):  # fmt: skip
        stepper = Stepper(network, data, config, loss, RunFolder(Path(folder)), progress, _geometric)
        try:
            stepper.compute_with(_num_threads(stepper, data, config))
            for number, which in enumerate(islice(batches, num_steps)):
                share = number / (num_steps - 1)
                try:
                    num_labels, value = stepper.step(which, number, share)
                except DivergedError:
                    diverged = _geometric(share)
                    break
                if num_labels:  # not where fp16 has skipped the step
                    rates.append(_geometric(share))
                    losses.append(value)
                if runs_away(losses):
                    diverged = _geometric(share)
                    break
                if progress.due():
                    progress.step(
                        f"step {number + 1}/{num_steps}  rate {_geometric(share):.2e}  loss {value:.4f}"
                    )
        finally:
            stepper.close()
            torch.set_num_threads(threads_before)
    return judged(rates, losses, diverged)


def _num_threads(stepper: Stepper, data: TrainingData, config: TrainConfig) -> int:
    if config.device != "cpu":
        return 0
    if config.threads:
        return config.threads
    first = epoch_batches(data, config, 0)[0]
    return choose_threads(lambda threads: stepper.try_out(first, threads))


def runs_away(losses: list[float]) -> bool:
    """Return whether the running mean has climbed by half of where it began above its lowest."""
    if len(losses) <= SPAN:
        return False
    smooth = running_mean(losses)[SPAN:]
    return bool(smooth[-1] - smooth.min() > RISE * abs(smooth[0]))


def judged(rates: list[float], losses: list[float], diverged: float | None) -> RangeTest:
    """Return the curve with what it says."""
    smooth = running_mean(losses)
    steepest, lowest = _fall(np.log(rates), np.asarray(losses), smooth)
    suggested = (lowest or diverged or HIGHEST) / 10
    return RangeTest(
        tuple(rates), tuple(losses), tuple(smooth.tolist()), steepest, lowest, diverged, suggested
    )


def running_mean(losses: list[float]) -> F64:
    """Return the exponential running mean of n losses, shape (n,), without a pull towards its start."""
    total, weight, found = 0.0, 0.0, []
    for value in losses:
        total = SMOOTHING * total + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        found.append(total / weight)
    return np.array(found, np.float64)


def _fall(log_rates: F64, losses: F64, smooth: F64) -> tuple[float | None, float | None]:
    """Return the rates at the steepest place and at the end of the fall, if what falls is more than noise."""
    if len(losses) < 4 * SPAN:
        return None, None
    lowest = SPAN + int(smooth[SPAN:].argmin())
    # neighbours differ by noise alone, more or less: a fall spreads over many steps
    noise = float(np.median(np.abs(np.diff(losses)))) / (0.6745 * np.sqrt(2))
    error = noise * np.sqrt((1 - SMOOTHING) / (1 + SMOOTHING))
    if lowest < 3 * SPAN or smooth[SPAN] - smooth[lowest] < CERTAIN * error:
        return None, None
    middle = np.arange(2 * SPAN, lowest - SPAN + 1)
    slopes = (smooth[middle + SPAN] - smooth[middle - SPAN]) / (
        log_rates[middle + SPAN] - log_rates[middle - SPAN]
    )
    steepest = log_rates[middle[slopes.argmin()]]
    return float(np.exp(steepest)), float(np.exp(log_rates[lowest]))


def _geometric(share: float) -> float:
    return float(LOWEST * (HIGHEST / LOWEST) ** share)
