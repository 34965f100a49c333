"""The training loop: the only one, for every neural model.

AdamW, gradient clipping, linear warm-up then cosine, early stopping on `stop`, accumulation, one seed a step,
atomic checkpoints. Everything random is a function of (seed, epoch, step) alone, so a run that was killed and
resumed ends with bit-equal weights on the same machine type and versions.

Letters: B batch, K predictions of a stretch, H horizons, R rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from barcast.core.arrays import F32, I64, Bools
from barcast.core.errors import DataError, RunError, UsageError
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
from barcast.training.threads import choose_threads, one_thread_each
from barcast.windows.gather import Batch, Resident, gather_stretches, gather_windows
from barcast.windows.index import Stretches, cut_stretches, random_phases, shuffled

#: Judges outputs on `stop`: rows (n,) and outputs (n, H) in, a score out (higher is better).
StopScore = Callable[[I64, F32], float]
#: Loss of a batch: prediction, target, labels of the global batch.
Loss = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of the loop."""

    epochs: int = 4
    """Most epochs; early stopping usually ends sooner."""
    batch_size: int = 15360
    """Labels a step, whether they come as windows or as stretches."""
    lr: float = 1e-3
    """Highest learning rate, after warm-up."""
    weight_decay: float = 1e-2
    warmup: float = 0.05
    """Share of all steps."""
    clip: float = 1.0
    """Largest gradient norm."""
    gradient_accumulation_steps: int = 1
    """Parts a batch is computed in; the result does not depend on it but for rounding."""
    look_back_window: int = 60
    """L, own bars a prediction reads."""
    stretch_length: int = 120
    """K, predictions of one pass; 1 trains on plain windows."""
    evaluations_per_epoch: int = 4
    patience: int = 6
    """Evaluations without a better `stop` score before training ends."""
    amp: Literal["auto", "bf16", "off"] = "auto"
    """bf16 where the processor has it; evaluation is always float32."""
    seed: int = 0
    device: str = "cpu"
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        whole = (
            "epochs", "batch_size", "gradient_accumulation_steps", "look_back_window", "stretch_length",
            "evaluations_per_epoch", "patience",
        )  # fmt: skip
        for name in whole:
            if getattr(self, name) < 1:
                raise UsageError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.lr <= 0 or self.clip <= 0 or not 0 <= self.warmup < 1:
            raise UsageError("`lr` and `clip` must be positive and `warmup` in [0, 1)")


@dataclass(frozen=True)
class TrainingData:
    """What the loop trains on.

    Attributes
    ----------
    resident : Resident
        Inputs and targets on the device; targets are NaN on every row that is not in `fit`.
    lives : I64, shape (num_lives + 1,)
        Borders of unbroken rows.
    fit, stop : Bools, shape (R,)
        Rows whose labels teach, and rows that decide when to stop.
    """

    resident: Resident
    lives: I64
    fit: Bools
    stop: Bools


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
    """
    threads_before = torch.get_num_threads()
    loop = _Loop(network, data, config, loss, stop_score, run, progress, steps)
    loop.resume()
    loop.settle_threads()
    while not loop.state.finished:
        loop.run_epoch()
    loop.save()
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
        self.optimizer = torch.optim.AdamW(_decay_groups(network, config), lr=config.lr)
        self.best = copy_state(network)
        self.last_saved = time.monotonic()
        self.mark = time.perf_counter()
        self.num_batches = 1
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
                self.mark = time.perf_counter()  # judging is not training time
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
        torch.manual_seed(_mix(self.config.seed, self.state.step))
        self.network.train()
        parts = _split(which, self.config.gradient_accumulation_steps)
        batches = [self._gather(part) for part in parts]
        num_labels = sum(
            int(torch.isfinite(batch.target).sum()) for batch in batches if batch.target is not None
        )
        self.optimizer.zero_grad(set_to_none=True)
        total = sum(self._backward(batch, num_labels) for batch in batches) if num_labels else 0.0
        if num_labels:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
            self.optimizer.step()
        self.state.step += 1
        self.state.labels_seen += num_labels
        self.state.loss_sum += total * num_labels
        self.state.loss_labels += num_labels

    def settle_threads(self) -> None:
        """Take the checkpoint's number of threads (rounding depends on it), or measure which is fastest."""
        if self.state.threads:
            torch.set_num_threads(self.state.threads)
        elif self.config.device == "cpu":
            batch = self._gather(self._epoch_batches()[0])

            def step() -> None:
                self._backward(batch, 1)
                self.optimizer.zero_grad(set_to_none=True)

            self.state.threads = choose_threads(step)
        self.mark = time.perf_counter()

    def _tick(self) -> None:
        """Count the wall time since the last mark: cutting, gathering, stepping, logging and saving."""
        now = time.perf_counter()
        self.state.seconds += now - self.mark
        self.mark = now

    def _backward(self, batch: Batch, num_labels: int) -> float:
        assert batch.target is not None
        with _autocast(self.config):
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


def predict_stop(network: nn.Module, data: TrainingData, config: TrainConfig) -> tuple[I64, F32]:
    """Return rows (n,) and outputs (n, H) on the fixed grid of `stop`, in float32 and eval mode."""
    length = config.stretch_length
    if length == 1:
        rows = np.flatnonzero(data.stop)
        return rows, predict_windows(network, data.resident, rows, config.look_back_window)
    grid = cut_stretches(data.lives, data.stop, length)
    size = max(config.batch_size // length, 1)
    rows_found, outputs_found = [], []
    network.eval()
    with torch.no_grad():
        for start in range(0, len(grid), size):
            part = grid.take(np.arange(start, min(start + size, len(grid))))
            batch = gather_stretches(data.resident, part, config.look_back_window, length)
            outputs = network(batch.inputs, batch.symbol, length).float().cpu().numpy()
            rows = part.first[:, None] + np.arange(length)
            inside = (rows >= part.life_start[:, None]) & (rows < part.life_stop[:, None])
            wanted = inside & data.stop[np.clip(rows, 0, len(data.stop) - 1)]
            rows_found.append(rows[wanted])
            outputs_found.append(outputs[wanted])
    if not rows_found:
        return np.zeros(0, np.int64), np.zeros((0, data.resident.target.shape[1]), np.float32)
    return np.concatenate(rows_found), np.concatenate(outputs_found)


def predict_windows(
    network: nn.Module,
    resident: Resident,
    rows: I64,
    look_back: int,
    *,
    batch_size: int = 4096,
    progress: Progress | None = None,
) -> F32:
    """Return outputs (n, H) of plain windows, float32, eval mode: what the predictions table holds.

    On a CPU each core takes whole batches with one thread, so that no core ever waits for another.
    """
    network.eval()
    started = time.perf_counter()
    chunks = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    if not chunks:
        return np.zeros((0, resident.target.shape[1]), np.float32)

    def outputs_of(chunk: I64) -> F32:
        with torch.no_grad():
            batch = gather_windows(resident, torch.from_numpy(chunk).to(resident.inputs.device), look_back)
            found: F32 = network(batch.inputs, batch.symbol, 1)[:, 0].float().cpu().numpy()
        return found

    outputs, done = [], 0
    for output in one_thread_each(outputs_of, chunks, serial=resident.inputs.is_cuda):
        outputs.append(output)
        done += len(output)
        if progress is not None and progress.due():
            rate = done / (time.perf_counter() - started)
            left = clock((len(rows) - done) / rate)
            progress.step(f"predicted {count(done)}/{count(len(rows))}  {count(rate)} rows/s  {left} left")
    return np.concatenate(outputs)


def _decay_groups(network: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Weight decay shrinks matrices only; biases, norms and embeddings are left alone."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in network.named_parameters():
        is_matrix = parameter.ndim >= 2 and "embedding" not in name
        (matrices if is_matrix else others).append(parameter)
    return [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _split(which: I64 | Stretches, parts: int) -> Iterator[I64 | Stretches]:
    for chunk in np.array_split(np.arange(len(which)), min(parts, len(which))):
        yield which.take(chunk) if isinstance(which, Stretches) else which[chunk]


def _evaluation_marks(num_batches: int, evaluations: int) -> set[int]:
    wanted = min(evaluations, num_batches)
    return {round(num_batches * (i + 1) / wanted) for i in range(wanted)}


def _autocast(config: TrainConfig) -> AbstractContextManager[Any]:
    kind = config.device.split(":")[0]
    if config.amp == "off" or (config.amp == "auto" and not _has_bf16(kind)):
        return nullcontext()
    return torch.autocast(kind, dtype=torch.bfloat16)


def _has_bf16(kind: str) -> bool:
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _mix(seed: int, step: int) -> int:
    """Return one 63-bit seed a step (splitmix64), so that neighbouring steps share nothing."""
    value = (seed * 0x9E3779B97F4A7C15 + step + 1) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (value ^ (value >> 31)) >> 1


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}
