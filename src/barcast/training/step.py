"""One step of training: gather, forward and backward in as many parts as memory allows, clip, update.

Everything random in a step is a function of (seed, step), and what a batch's parts add up to is the gradient
of the whole batch, so that accumulation and halved batches agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from barcast.core.arrays import I64
from barcast.core.errors import RunError
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.training.config import TrainConfig
from barcast.training.memory import is_out_of_memory
from barcast.training.networks import TrainingData, make_optimizer
from barcast.training.precision import autocast
from barcast.windows.gather import Batch, gather_stretches, gather_windows
from barcast.windows.index import Stretches

T = TypeVar("T")

#: Loss of a batch: prediction, target, labels of the global batch.
Loss = Callable[[Tensor, Tensor, int], Tensor]
#: What a step learns from: rows whose windows are gathered, or stretches.
Which = I64 | Stretches


class Stepper:
    """Applies one batch after the other to a network.

    Parameters
    ----------
    network : Module
    data : TrainingData
    config : TrainConfig
    loss : callable
    run : RunFolder
        Where steps that did not fit into memory are recorded, and found again by a run that resumes.
    progress : Progress
    """

    def __init__(
        self, network: nn.Module, data: TrainingData, config: TrainConfig, loss: Loss, run: RunFolder,
        progress: Progress,
    ) -> None:  # fmt: skip
        self.network, self.data, self.config, self.loss = network, data, config, loss
        self.run, self.progress = run, progress
        self.optimizer = make_optimizer(network, config)
        labels = torch.isfinite(data.resident.target).sum(dim=1).cpu().numpy()
        self.labels_before = np.concatenate([[0], np.cumsum(labels)])
        self.halvings: list[dict[str, int]] = run.recorded.get("halvings", [])

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, which: Which, step: int, share: float) -> tuple[int, float]:
        """Learn from a batch; return its number of known labels and its loss.

        ``step`` counts from the beginning of the run, ``share`` is how much of the planned training is done
        with this step.
        """
        self._set_rate(share)
        num_labels, loss = self._num_labels(which), 0.0
        if num_labels:
            loss = self._gradients(which, num_labels, step)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
            self.optimizer.step()
        return num_labels, loss

    def try_out(self, which: Which) -> None:
        """Compute the first part of a batch and forget its gradient."""
        self._backward(self._gather(next(_split(which, self._num_parts(0)))), 1, 0)
        self.optimizer.zero_grad(set_to_none=True)

    def until_it_fits(self, attempt: Callable[[], T], which: Which, step: int = 0) -> T:
        """Return what ``attempt`` gives; where memory runs out it starts again in twice as many parts."""
        while True:
            try:
                return attempt()
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self._num_parts(step) >= len(which):
                    raise
            self._halve(step)  # outside of the handler, which keeps the failed attempt's tensors alive

    def _num_labels(self, which: Which) -> int:
        """Count the known labels of a batch before any of it is gathered."""
        if isinstance(which, Stretches):
            low = np.maximum(which.first, which.life_start)
            high = np.minimum(which.first + self.config.stretch_length, which.life_stop)
        else:
            low, high = which, which + 1
        return int((self.labels_before[high] - self.labels_before[low]).sum())

    def _gradients(self, which: Which, num_labels: int, step: int) -> float:
        """Sum the gradients of a batch's parts and return the loss."""

        def attempt() -> float:
            torch.manual_seed(_mix(self.config.seed, step))
            self.network.train()
            self.optimizer.zero_grad(set_to_none=True)
            parts = _split(which, self._num_parts(step))
            return sum(self._backward(self._gather(part), num_labels, step) for part in parts)

        return self.until_it_fits(attempt, which, step)

    def _num_parts(self, step: int) -> int:
        """Return in how many parts a step is computed; a run that resumes repeats its halvings."""
        past = [each["parts"] for each in self.halvings if each["step"] <= step]
        return max([self.config.gradient_accumulation_steps, *past])

    def _halve(self, step: int) -> None:
        parts = 2 * self._num_parts(step)
        self.halvings = [*self.halvings, {"step": step, "parts": parts}]
        if self.run.recorded:
            self.run.update(halvings=self.halvings)
        self.progress.note(
            f"step {step} did not fit into memory: batches of {self.config.batch_size} labels are "
            f"computed in {parts} parts from here on: the same gradient but for rounding and dropout's draws"
        )

    def _backward(self, batch: Batch, num_labels: int, step: int) -> float:
        assert batch.target is not None
        with autocast(self.config):
            prediction = self.network(batch.inputs, batch.symbol, batch.num_predictions)
        value = self.loss(prediction, batch.target, num_labels)
        if not torch.isfinite(value):
            raise RunError(
                f"the loss became {float(value.detach())} at step {step}",
                "lower --lr, or look for extreme inputs with `barcast data check`",
            )
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    def _gather(self, which: Which) -> Batch:
        config, resident = self.config, self.data.resident
        if isinstance(which, Stretches):
            return gather_stretches(resident, which, config.look_back_window, config.stretch_length)
        rows = torch.from_numpy(which).to(resident.inputs.device)
        return gather_windows(resident, rows, config.look_back_window)

    def _set_rate(self, share: float) -> None:
        warmup, share = self.config.warmup, min(share, 1.0)  # a refit may take a few steps more
        factor = (
            share / warmup if share < warmup else 0.5 * (1 + np.cos(np.pi * (share - warmup) / (1 - warmup)))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * max(float(factor), 1e-3)


def _split(which: Which, parts: int) -> Iterator[Which]:
    for chunk in np.array_split(np.arange(len(which)), min(parts, len(which))):
        yield which.take(chunk) if isinstance(which, Stretches) else which[chunk]


def _mix(seed: int, step: int) -> int:
    """Return one 63-bit seed a step (splitmix64), so that neighbouring steps share nothing."""
    value = (seed * 0x9E3779B97F4A7C15 + step + 1) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (value ^ (value >> 31)) >> 1
