"""One step of training: gather, forward and backward in as many parts as memory allows, clip, update.

Everything random in a step is a function of (seed, step), and what a batch's parts add up to is the gradient
of the whole batch, so that accumulation and halved batches agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from barcast.core.arrays import I64
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.models.draws import drawing_from
from barcast.training.augment import augment
from barcast.training.config import TrainConfig
from barcast.training.distributed import GradientSum, team_at_work
from barcast.training.memory import is_out_of_memory
from barcast.training.networks import TrainingData, make_optimizer
from barcast.training.precision import LOWEST_SCALE, DivergedError, LossScaling, arithmetic, autocast
from barcast.training.sections import WAITING, Sections
from barcast.training.threads import Workers
from barcast.windows.gather import Batch, gather_stretches, gather_windows, rows_on_device
from barcast.windows.index import Stretches

T = TypeVar("T")

#: Loss of a batch: prediction, target, labels of the global batch.
Loss = Callable[[Tensor, Tensor, int], Tensor]
#: What a step learns from: rows whose windows are gathered, or stretches.
Which = I64 | Stretches
#: Share of the planned training that is done with a step, to the step's learning rate.
Rates = Callable[[float], float]


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
    rates : callable, optional
        Learning rate by share of the planned training; by default linear warm-up, then cosine.
    """

    def __init__(
        self, network: nn.Module, data: TrainingData, config: TrainConfig, loss: Loss, run: RunFolder,
        progress: Progress, rates: Rates | None = None,
    ) -> None:  # fmt: skip
        self.network, self.data, self.config, self.loss = network, data, config, loss
        self.run, self.progress = run, progress
        self.optimizer = make_optimizer(network, config)
        self.scaling = LossScaling(config)
        self.rates = rates or warm_up_then_cosine(config)
        labels = torch.isfinite(data.resident.target).sum(dim=1).cpu().numpy()
        self.labels_before = np.concatenate([[0], np.cumsum(labels)])
        self.halvings: list[dict[str, int]] = run.recorded.get("halvings", [])
        self.workers: Workers | None = None
        self.sections = Sections()
        self.team = team_at_work()
        self.gradients: GradientSum | None = None

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, which: Which, step: int, share: float) -> tuple[int, float]:
        """Learn from a batch; return its number of known labels and its loss, zeros where it was skipped.

        ``step`` counts from the beginning of the run, ``share`` is how much of the planned training is done
        with this step.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates(share)
        num_labels, loss = self._num_labels(which), 0.0
        if num_labels:
            loss = self._gradients(which, num_labels, step)
            self.sections.enter("optimizer")
            if not self.scaling.update(self.network, self.optimizer):
                self._note_skipped(step, loss)
                return 0, 0.0
        return num_labels, loss

    def compute_with(self, num_threads: int) -> None:
        """Let so many threads compute a step on a CPU, each a share of it."""
        self.close()
        if self.config.device != "cpu":
            return
        if num_threads:
            torch.set_num_threads(1)
        if num_threads > 1:
            self.workers = Workers(num_threads)

    def join_team(self) -> None:
        """Sum gradients with the other processes from here on; all start with the first one's weights."""
        if self.team.size > 1:
            self.gradients = GradientSum(self.team, self.network)

    def close(self) -> None:
        """End the threads of :meth:`compute_with`."""
        if self.workers is not None:
            self.workers.close()
        self.workers = None

    def try_out(self, which: Which, num_threads: int) -> None:
        """Compute a batch with so many threads and forget its gradient."""
        if num_threads != self._num_threads:
            self.compute_with(num_threads)
        self._gradients(which, 1, 0)
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

    @property
    def _num_threads(self) -> int:
        return self.workers.num_threads if self.workers is not None else 1

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
            torch.manual_seed(_mix(self.config.seed, step) + self.team.rank)
            self.network.train()
            self.optimizer.zero_grad(set_to_none=True)
            num_parts = self._num_parts(step) * self._num_threads * self.team.size
            parts = self.team.share(list(enumerate(_split(which, num_parts))))
            if self.gradients is None:
                return self._backward_of(parts, num_labels, step)
            return self.gradients.together(lambda: self._backward_of(parts, num_labels, step), step)

        with arithmetic(self.config):
            return self.until_it_fits(attempt, which, step)

    def _backward_of(self, parts: Sequence[tuple[int, Which]], num_labels: int, step: int) -> float:
        """Add up the gradients of parts and return their share of the loss."""
        if self.workers is not None:
            return self._backward_by_workers(self.workers, parts, num_labels, step)
        return sum(self._backward(part, num_labels, step) for part in parts)

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

    def _backward(self, part: tuple[int, Which], num_labels: int, step: int) -> float:
        """Add one part's gradient and return its share of the loss."""
        value = self._loss_of(part, num_labels, step)
        self.sections.enter("backward")
        self.scaling.scaled(value).backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    def _backward_by_workers(
        self, workers: Workers, parts: Sequence[tuple[int, Which]], num_labels: int, step: int
    ) -> float:
        """Compute parts at the same time; add their gradients in order, so that rounding is the same."""
        learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]

        def compute(part: tuple[int, Which]) -> tuple[float, tuple[Tensor | None, ...]]:
            value = self._loss_of(part, num_labels, step)
            self.sections.enter("backward")
            found = torch.autograd.grad(self.scaling.scaled(value), learning, allow_unused=True)
            self.sections.enter(WAITING)
            return float(value.detach()), found

        total = 0.0
        self.sections.enter(WAITING)
        for value, gradients in workers.map(compute, parts):
            total += value
            for parameter, gradient in zip(learning, gradients, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return total

    def _loss_of(self, part: tuple[int, Which], num_labels: int, step: int) -> Tensor:
        """Return the loss of one part, whose draws follow from the seed, the step and its number."""
        number, which = part
        batch = gather(which, self.data, self.config, self.sections)
        assert batch.target is not None
        self.sections.enter("forward")
        draws = torch.Generator().manual_seed(_mix(_mix(self.config.seed, step), number))
        with autocast(self.config), drawing_from(draws):
            inputs = augment(batch.inputs, self.config)
            prediction = self.network(inputs, batch.symbol, batch.num_predictions)
        value = self.loss(prediction, batch.target, num_labels)
        if not self.scaling.enabled and not torch.isfinite(value):  # what overflows in fp16 skips its step
            raise DivergedError(float(value.detach()), step)
        return value

    def _note_skipped(self, step: int, loss: float) -> None:
        scale = self.scaling.scale
        if scale < LOWEST_SCALE:
            raise DivergedError(loss if not np.isfinite(loss) else float("inf"), step)
        self.progress.note(
            f"step {step} overflowed in fp16 and is skipped: losses are scaled by {scale:g} now"
        )


def gather(which: Which, data: TrainingData, config: TrainConfig, sections: Sections) -> Batch:
    """Gather what a batch, or a part of it, reads; before that its shard and its rows come to the device."""
    sections.enter("transfer")
    resident, which = data.place(which)
    rows = rows_on_device(which, resident.inputs.device)
    sections.enter("gather")
    if isinstance(which, Stretches):
        return gather_stretches(resident, rows, config.look_back_window, config.stretch_length)
    return gather_windows(resident, rows, config.look_back_window)


def warm_up_then_cosine(config: TrainConfig) -> Rates:
    """Return the learning rate by share: linear to its highest, then half a cosine to a thousandth of it."""
    warmup = config.warmup

    def rate(share: float) -> float:
        share = min(share, 1.0)  # a refit may take a few steps more
        factor = (
            share / warmup if share < warmup else 0.5 * (1 + np.cos(np.pi * (share - warmup) / (1 - warmup)))
        )
        return config.lr * max(float(factor), 1e-3)

    return rate


def _split(which: Which, parts: int) -> Iterator[Which]:
    for chunk in np.array_split(np.arange(len(which)), min(parts, len(which))):
        yield which.take(chunk) if isinstance(which, Stretches) else which[chunk]


def _mix(seed: int, step: int) -> int:
    """Return one 63-bit seed a step (splitmix64), so that neighbouring steps share nothing."""
    value = (seed * 0x9E3779B97F4A7C15 + step + 1) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (value ^ (value >> 31)) >> 1
