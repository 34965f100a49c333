"""The training loop: the only one, for every neural model.

AdamW or another optimizer, gradient clipping, linear warm-up then cosine, early stopping on `stop`,
accumulation, one seed a step, atomic checkpoints. Everything random is a function of (seed, epoch, step)
alone, so a run that was killed and resumed ends with bit-equal weights on the same machine type and versions.

Letters: B batch, K predictions of a stretch, H horizons, R rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from barcast.core.arrays import F32, I64
from barcast.core.errors import DataError, RunError
from barcast.core.memory import tree_pss_bytes
from barcast.core.progress import Progress, clock, count
from barcast.core.runs import RunFolder
from barcast.training.checkpoint import (
    copy_state,
    load_tensors,
    optimizer_tensors,
    pack,
    restore_optimizer,
    save_tensors,
    unpack,
)
from barcast.training.config import TrainConfig
from barcast.training.memory import is_out_of_memory, memory_explained
from barcast.training.networks import TrainingData, make_optimizer
from barcast.training.precision import autocast
from barcast.training.predict import predict_stop
from barcast.training.threads import choose_threads
from barcast.windows.gather import Batch, gather_stretches, gather_windows
from barcast.windows.index import Stretches, cut_stretches, random_phases, shuffled

T = TypeVar("T")

#: Judges outputs on `stop`: rows (n,) and outputs (n, H) in, a score out (higher is better).
StopScore = Callable[[I64, F32], float]
#: Loss of a batch: prediction, target, labels of the global batch.
Loss = Callable[[Tensor, Tensor, int], Tensor]


@dataclass
class LoopState:
    """Counters that a checkpoint carries; everything else follows from them and the seed."""

    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    best_score: float = -float("inf")
    best_step: int = 0
    evaluations_since_best: int = 0
    labels_seen: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_labels: int = 0
    threads: int = 0
    finished: bool = False


@dataclass(frozen=True)
class FitResult:
    """How training went."""

    best_score: float
    best_step: int
    steps: int
    seconds: float
    labels_per_second: float
    threads: int
    curve: list[dict[str, Any]] = field(default_factory=list)


def fit_network(
    network: nn.Module,
    data: TrainingData,
    config: TrainConfig,
    loss: Loss,
    stop_score: StopScore,
    run: RunFolder,
    progress: Progress,
    *,
    steps: int | None = None,
) -> FitResult:
    """Train until the epochs end, patience ends, or exactly ``steps`` steps (a refit) are done.

    The network ends with its best weights on `stop` (with its last ones when ``steps`` is given), which are
    also written to the run. Resumes from the run's checkpoint where there is one. The checkpoint stays: the
    caller removes it when all that follows training is done too, so that a kill there costs no training.

    Raises
    ------
    DataError
        When no label may teach.
    RunError
        When the loss is no number any more, or the checkpoint is damaged.
    ResourceError
        When a step does not fit into memory.
    """
    threads_before = torch.get_num_threads()
    loop = _Loop(network, data, config, loss, stop_score, run, progress, steps)
    loop.resume()
    try:
        with memory_explained(
            f"not enough memory for steps of {config.batch_size} labels",
            "not even in the smallest parts: close something, or a smaller network or --look-back-window",
        ):
            loop.settle_threads()
            while not loop.state.finished:
                loop.run_epoch()
            loop.save()
    finally:
        torch.set_num_threads(threads_before)
    return loop.finish()


class _Loop:
    """State of one training; :func:`fit_network` is its only user."""

    def __init__(
        self,
        network: nn.Module,
        data: TrainingData,
        config: TrainConfig,
        loss: Loss,
        stop_score: StopScore,
        run: RunFolder,
        progress: Progress,
        steps: int | None,
    ) -> None:
        self.network = network
        self.data = data
        self.config = config
        self.loss = loss
        self.stop_score = stop_score
        self.run = run
        self.progress = progress
        self.fixed_steps = steps
        self.state = LoopState()
        self.optimizer = make_optimizer(network, config)
        self.best = copy_state(network)
        self.last_saved = time.monotonic()
        self.mark = time.perf_counter()
        self.num_batches = 1
        labels = torch.isfinite(data.resident.target).sum(dim=1).cpu().numpy()
        self.labels_before = np.concatenate([[0], np.cumsum(labels)])
        self.halvings: list[dict[str, int]] = self._recorded().get("halvings", [])
        if not data.fit.any():
            raise DataError("no label to learn from in `fit`", "use more history or a shorter horizon")

    # --- one epoch -------------------------------------------------------------------------------------

    def run_epoch(self) -> None:
        """Visit each known label once, evaluate a few times, stop when it is time."""
        batches = self._epoch_batches()
        self.num_batches = len(batches)
        marks = _evaluation_marks(len(batches), self.config.evaluations_per_epoch)
        for position in range(self.state.step_in_epoch, len(batches)):
            progress_share = (self.state.epoch + (position + 1) / len(batches)) / self.config.epochs
            self._step(batches[position], progress_share)
            self.state.step_in_epoch = position + 1
            self._tick()
            self._show(position + 1, len(batches))
            if self.fixed_steps is not None and self.state.step >= self.fixed_steps:
                self.state.finished = True
            elif position + 1 in marks:
                self._evaluate()
            if self.state.finished:
                return
            self._save_if_due()
        self.state.epoch += 1
        self.state.step_in_epoch = 0
        if self.state.epoch >= self.config.epochs and self.fixed_steps is None:
            self.state.finished = True
        self.save()

    def _epoch_batches(self) -> list[I64 | Stretches]:
        seed, epoch = self.config.seed, self.state.epoch
        if self.config.stretch_length == 1:
            rows = np.flatnonzero(self.data.fit)
            rows = rows[shuffled(len(rows), seed=seed, epoch=epoch)]
            size = self.config.batch_size
            return [rows[i : i + size] for i in range(0, len(rows), size)]
        length = self.config.stretch_length
        phases = random_phases(len(self.data.lives) - 1, length, seed=seed, epoch=epoch)
        stretches = cut_stretches(self.data.lives, self.data.fit, length, phases)
        order = shuffled(len(stretches), seed=seed, epoch=epoch)
        size = max(self.config.batch_size // length, 1)
        return [stretches.take(order[i : i + size]) for i in range(0, len(order), size)]

    # --- one step --------------------------------------------------------------------------------------

    def _step(self, which: I64 | Stretches, progress_share: float) -> None:
        self._set_rate(progress_share)
        num_labels, total = self._num_labels(which), 0.0
        if num_labels:
            total = self._gradients(which, num_labels)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
            self.optimizer.step()
        self.state.step += 1
        self.state.labels_seen += num_labels
        self.state.loss_sum += total * num_labels
        self.state.loss_labels += num_labels

    def _num_labels(self, which: I64 | Stretches) -> int:
        """Count the known labels of a batch before any of it is gathered."""
        if isinstance(which, Stretches):
            low = np.maximum(which.first, which.life_start)
            high = np.minimum(which.first + self.config.stretch_length, which.life_stop)
        else:
            low, high = which, which + 1
        return int((self.labels_before[high] - self.labels_before[low]).sum())

    def _gradients(self, which: I64 | Stretches, num_labels: int) -> float:
        """Sum the gradients of a batch's parts and return the loss."""

        def attempt() -> float:
            torch.manual_seed(_mix(self.config.seed, self.state.step))
            self.network.train()
            self.optimizer.zero_grad(set_to_none=True)
            parts = _split(which, self._num_parts())
            return sum(self._backward(self._gather(part), num_labels) for part in parts)

        return self._until_it_fits(attempt, len(which))

    def _until_it_fits(self, attempt: Callable[[], T], most_parts: int) -> T:
        """Return what ``attempt`` gives; where memory runs out it starts again in twice as many parts."""
        while True:
            try:
                return attempt()
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self._num_parts() >= most_parts:
                    raise
            self._halve()  # outside of the handler, which keeps the failed attempt's tensors alive

    def _num_parts(self) -> int:
        """Return in how many parts this step is computed; a run that resumes repeats its halvings."""
        past = [each["parts"] for each in self.halvings if each["step"] <= self.state.step]
        return max([self.config.gradient_accumulation_steps, *past])

    def _halve(self) -> None:
        parts = 2 * self._num_parts()
        self.halvings = [*self.halvings, {"step": self.state.step, "parts": parts}]
        if self._recorded():
            self.run.update(halvings=self.halvings)
        self.progress.note(
            f"step {self.state.step} did not fit into memory: batches of {self.config.batch_size} labels are "
            f"computed in {parts} parts from here on: the same gradient but for rounding and dropout's draws"
        )

    def _recorded(self) -> dict[str, Any]:
        """Return what the run's folder says about it, empty for a bare folder."""
        return self.run.info if (self.run.path / "run.json").is_file() else {}

    def settle_threads(self) -> None:
        """Take the number that was asked for, or the run's own (rounding depends on it), or measure.

        The run knows it before the first step, so that every later attempt takes the same.
        """
        recorded = self._recorded()
        known = self.config.threads or self.state.threads or recorded.get("threads", 0)
        if known:
            self.state.threads = known
            torch.set_num_threads(known)
        elif self.config.device == "cpu":
            self.state.threads = self._measure_threads()
        if recorded:
            self.run.update(threads=self.state.threads)
        self.mark = time.perf_counter()

    def _measure_threads(self) -> int:
        first = self._epoch_batches()[0]

        def step() -> None:
            self._backward(self._gather(next(_split(first, self._num_parts()))), 1)
            self.optimizer.zero_grad(set_to_none=True)

        return self._until_it_fits(lambda: choose_threads(step), len(first))

    def _tick(self) -> None:
        """Count the wall time since the last mark: cutting, gathering, stepping, logging and saving."""
        now = time.perf_counter()
        self.state.seconds += now - self.mark
        self.mark = now

    def _backward(self, batch: Batch, num_labels: int) -> float:
        assert batch.target is not None
        with autocast(self.config):
            prediction = self.network(batch.inputs, batch.symbol, batch.num_predictions)
        value = self.loss(prediction, batch.target, num_labels)
        if not torch.isfinite(value):
            raise RunError(
                f"the loss became {float(value.detach())} at step {self.state.step}",
                "lower --lr, or look for extreme inputs with `barcast data check`",
            )
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    def _gather(self, which: I64 | Stretches) -> Batch:
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

    # --- judging ---------------------------------------------------------------------------------------

    def _evaluate(self) -> None:
        if self.fixed_steps is not None:  # a refit has learned from every row: nothing is left to judge it
            self._write_line(float("nan"))
            return
        rows, outputs = predict_stop(self.network, self.data, self.config)
        score = self.stop_score(rows, outputs)
        self.mark = time.perf_counter()  # judging is not training time; writing it down is
        better = score > self.state.best_score
        if better:
            self.state.best_score, self.state.best_step = score, self.state.step
            self.state.evaluations_since_best = 0
            self.best = copy_state(self.network)
        else:
            self.state.evaluations_since_best += 1
        self._write_line(score)
        if self.state.evaluations_since_best >= self.config.patience:
            self.state.finished = True

    def _write_line(self, score: float) -> None:
        state = self.state
        self.run.append_metrics(
            {
                "step": state.step,
                "epoch": round(state.epoch + state.step_in_epoch / self.num_batches, 3),
                "train_loss": state.loss_sum / max(state.loss_labels, 1),
                "stop_score": score if np.isfinite(score) else None,
                "lr": self.optimizer.param_groups[0]["lr"],
                "labels_per_second": state.labels_seen / max(state.seconds, 1e-9),
                "seconds": round(state.seconds, 3),
                "memory_bytes": tree_pss_bytes(),
            }
        )
        state.loss_sum, state.loss_labels = 0.0, 0

    def _show(self, position: int, num_batches: int) -> None:
        if not self.progress.due():
            return
        state, config = self.state, self.config
        rate = state.labels_seen / max(state.seconds, 1e-9)
        total = self.fixed_steps or num_batches * config.epochs
        left = (total - state.step) * state.seconds / max(state.step, 1)
        loss = state.loss_sum / max(state.loss_labels, 1)
        best = f"{state.best_score:.4f} (step {state.best_step})" if state.best_step else "-"
        self.progress.step(
            f"epoch {state.epoch + 1}/{config.epochs}  step {position}/{num_batches}  loss {loss:.4f}  "
            f"best stop {best}  {count(rate)} labels/s  {state.step / max(state.seconds, 1e-9):.1f} steps/s  "
            f"{tree_pss_bytes() / 2**30:.2f} GiB  at most {clock(left)} left"
        )

    # --- survival --------------------------------------------------------------------------------------

    def _save_if_due(self) -> None:
        if time.monotonic() - self.last_saved >= self.config.checkpoint_seconds:
            self.save()

    def save(self) -> None:
        """Write everything a resumed run needs, in one atomic file."""
        tensors = {
            **pack("now", self.network.state_dict()),
            **pack("best", self.best),
            **pack("optimizer", optimizer_tensors(self.optimizer)),
        }
        save_tensors(self.run.checkpoint, tensors, {"state": _finite(asdict(self.state))})
        self.last_saved = time.monotonic()

    def resume(self) -> None:
        """Continue from the run's checkpoint, if it has one."""
        if not self.run.checkpoint.is_file():
            self.run.metrics.unlink(missing_ok=True)
            return
        tensors, header = load_tensors(self.run.checkpoint)
        self.network.load_state_dict(unpack("now", tensors))
        self.best = unpack("best", tensors)
        restore_optimizer(self.optimizer, unpack("optimizer", tensors))
        found = header["state"]
        if found["best_score"] is None:
            found["best_score"] = -float("inf")
        self.state = LoopState(**found)
        self.run.keep_metrics(self.state.step)
        self.progress.note(f"resuming at step {self.state.step} of epoch {self.state.epoch + 1}")

    def finish(self) -> FitResult:
        """Leave the chosen weights in the network and in the run, and drop the checkpoint."""
        state = self.state
        if self.fixed_steps is None and state.best_step:
            self.network.load_state_dict(self.best)
        elif self.fixed_steps is None:
            state.best_step = state.step
        save_tensors(self.run.weights, self.network.state_dict(), {"step": state.best_step})
        return FitResult(
            best_score=state.best_score,
            best_step=state.best_step if self.fixed_steps is None else state.step,
            steps=state.step,
            seconds=state.seconds,
            labels_per_second=state.labels_seen / max(state.seconds, 1e-9),
            threads=state.threads,
            curve=self.run.read_metrics(),
        )


def _split(which: I64 | Stretches, parts: int) -> Iterator[I64 | Stretches]:
    for chunk in np.array_split(np.arange(len(which)), min(parts, len(which))):
        yield which.take(chunk) if isinstance(which, Stretches) else which[chunk]


def _evaluation_marks(num_batches: int, evaluations: int) -> set[int]:
    wanted = min(evaluations, num_batches)
    return {round(num_batches * (i + 1) / wanted) for i in range(wanted)}


def _mix(seed: int, step: int) -> int:
    """Return one 63-bit seed a step (splitmix64), so that neighbouring steps share nothing."""
    value = (seed * 0x9E3779B97F4A7C15 + step + 1) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (value ^ (value >> 31)) >> 1


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}
