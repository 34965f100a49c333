"""The training loop: the only one, for every neural model.

AdamW or another optimizer, gradient clipping, linear warm-up then cosine, early stopping on `stop`,
accumulation, one seed a step, atomic checkpoints. Everything random is a function of (seed, epoch, step)
alone, so a run that was killed and resumed ends with bit-equal weights on the same machine type and versions.

Letters: B batch, K predictions of a stretch, H horizons, R rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from barcast.core.arrays import F32, I64
from barcast.core.errors import DataError
from barcast.core.interruption import end_if_asked, is_asked_to_end, signals_held
from barcast.core.memory import tree_pss_bytes
from barcast.core.progress import Progress, clock, count
from barcast.core.runs import RunFolder
from barcast.training.batches import epoch_batches
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
from barcast.training.distributed import team_at_work
from barcast.training.memory import memory_explained
from barcast.training.networks import TrainingData
from barcast.training.predict import predict_stop
from barcast.training.sections import Sections
from barcast.training.step import Loss, Stepper
from barcast.training.telemetry import Telemetry
from barcast.training.threads import choose_threads
from barcast.windows.index import Stretches

#: Judges outputs on `stop`: rows (n,) and outputs (n, H) in, a score out (higher is better).
StopScore = Callable[[I64, F32], float]


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
    norm_sum: float = 0.0
    num_norms: int = 0
    num_clipped: int = 0
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
    sections: Sections | None = None,
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
    Interrupted
        At a signal, where a command takes them: after the step at work, with everything saved.
    """
    threads_before = torch.get_num_threads()
    too_little = (
        f"not enough memory for steps of {config.batch_size} labels",
        "not even in the smallest parts: close something, or a smaller network or --look-back-window",
    )
    with memory_explained(*too_little):  # copies of the weights
        loop = _Loop(network, data, config, loss, stop_score, run, progress, steps)
        loop.resume()
    try:
        with memory_explained(*too_little):
            loop.settle_threads()
            loop.listen(sections)
            with signals_held():
                while not loop.state.finished:
                    loop.run_epoch()
                loop.save()
            loop.stepper.sections.stop()
    finally:
        loop.stepper.close()
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
        self.team = team_at_work()
        self.stepper = Stepper(network, data, config, loss, run, progress)
        self.best = copy_state(network)
        self.telemetry = Telemetry(config.device)
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
            share = (self.state.epoch + (position + 1) / len(batches)) / self.config.epochs
            self._learn(batches[position], share)
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
        return epoch_batches(self.data, self.config, self.state.epoch)

    def _learn(self, which: I64 | Stretches, share: float) -> None:
        num_labels, loss = self.stepper.step(which, self.state.step, share)
        self.stepper.sections.end_step(num_labels)
        self.state.step += 1
        self.state.labels_seen += num_labels
        self.state.loss_sum += loss * num_labels
        self.state.loss_labels += num_labels

    def settle_threads(self) -> None:
        """Take the number that was asked for, or the run's own (rounding depends on it), or measure.

        The run knows it before the first step, so that every later attempt takes the same.
        """
        recorded = self.run.recorded
        known = self._num_threads(recorded) if self.config.device == "cpu" else 0
        self.state.threads = known = int(self.team.first(known))
        self.stepper.compute_with(known)
        self.stepper.join_team()
        if recorded:
            self.run.update(threads=known, num_processes=self.team.size)
        self.mark = time.perf_counter()

    def _num_threads(self, recorded: dict[str, Any]) -> int:
        known = self.config.threads
        if not known and recorded.get("num_processes", 1) == self.team.size:
            known = self.state.threads or recorded.get("threads", 0)
        if known:
            return known
        if self.team.size > 1:
            return self.team.num_threads  # measuring on each process would give each another number
        first = self._epoch_batches()[0]
        return choose_threads(lambda threads: self.stepper.try_out(first, threads))

    def listen(self, sections: Sections | None) -> None:
        """Tell ``sections``, where given, from here on what the time goes to."""
        if sections is not None:
            self.stepper.sections = sections
        self.stepper.sections.enter("other")

    def _tick(self) -> None:
        """Count the wall time since the last mark: cutting, gathering, stepping, logging and saving."""
        now = time.perf_counter()
        self.state.seconds += now - self.mark
        self.mark = now

    # --- judging ---------------------------------------------------------------------------------------

    def _evaluate(self) -> None:
        if self.fixed_steps is not None:  # a refit has learned from every row: nothing is left to judge it
            self._write_line(float("nan"))
            return
        self.stepper.sections.enter("evaluation")
        rows, outputs = predict_stop(self.network, self.data, self.config, self.state.threads)
        score = self.team.of_first(lambda: self.stop_score(rows, outputs))  # one decision on all processes
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
        self.stepper.sections.enter("saving")
        self._add_norms()
        self.run.append_metrics(
            {
                "step": state.step,
                "epoch": round(state.epoch + state.step_in_epoch / self.num_batches, 3),
                "train_loss": state.loss_sum / max(state.loss_labels, 1),
                "stop_score": score if np.isfinite(score) else None,
                "lr": self.stepper.rate,
                "labels_per_second": state.labels_seen / max(state.seconds, 1e-9),
                "seconds": round(state.seconds, 3),
                "gradient_norm": state.norm_sum / max(state.num_norms, 1),
                "clipped": state.num_clipped / max(state.num_norms, 1),
                "memory_bytes": tree_pss_bytes(),
                **self.telemetry.read(),
                **self.stepper.scaling.facts(),
            }
        )
        state.loss_sum, state.loss_labels = 0.0, 0
        state.norm_sum, state.num_norms, state.num_clipped = 0.0, 0, 0
        self.stepper.sections.enter("other")

    def _add_norms(self) -> None:
        """Count the gradient norms of the last steps; an overflow, whose step was skipped, has none."""
        for norm in torch.stack(self.stepper.scaling.norms).tolist() if self.stepper.scaling.norms else ():
            if np.isfinite(norm):
                self.state.norm_sum += norm
                self.state.num_norms += 1
                self.state.num_clipped += norm > self.config.clip
        self.stepper.scaling.norms.clear()

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
            f"{tree_pss_bytes() / 2**30:.2f} GiB  {self.telemetry.line()}at most {clock(left)} left"
        )

    # --- survival --------------------------------------------------------------------------------------

    def _save_if_due(self) -> None:
        if is_asked_to_end() or time.monotonic() - self.last_saved >= self.config.checkpoint_seconds:
            self.save()
        end_if_asked()

    def save(self) -> None:
        """Write everything a resumed run needs, in one atomic file."""
        if not self.team.is_first:
            return
        self.stepper.sections.enter("saving")
        self._add_norms()
        tensors = {
            **pack("now", self.network.state_dict()),
            **pack("best", self.best),
            **pack("optimizer", optimizer_tensors(self.stepper.optimizer)),
        }
        header = {"state": _finite(asdict(self.state)), "scaling": self.stepper.scaling.state()}
        save_tensors(self.run.checkpoint, tensors, header)
        self.last_saved = time.monotonic()
        self.stepper.sections.enter("other")

    def resume(self) -> None:
        """Continue from the run's checkpoint, if it has one."""
        if not self.run.checkpoint.is_file():
            if self.team.is_first:
                self.run.metrics.unlink(missing_ok=True)
            return
        tensors, header = load_tensors(self.run.checkpoint)
        self.network.load_state_dict(unpack("now", tensors))
        self.best = unpack("best", tensors)
        restore_optimizer(self.stepper.optimizer, unpack("optimizer", tensors))
        found = header["state"]
        if found["best_score"] is None:
            found["best_score"] = -float("inf")
        self.state = LoopState(**found)
        self.stepper.scaling.restore(header.get("scaling", {}))
        self.run.keep_metrics(self.state.step)
        self.progress.note(f"resuming at step {self.state.step} of epoch {self.state.epoch + 1}")

    def finish(self) -> FitResult:
        """Leave the chosen weights in the network and in the run."""
        state = self.state
        if self.fixed_steps is None and state.best_step:
            self.network.load_state_dict(self.best)
        elif self.fixed_steps is None:
            state.best_step = state.step
        if self.team.is_first:
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


def _evaluation_marks(num_batches: int, evaluations: int) -> set[int]:
    wanted = min(evaluations, num_batches)
    return {round(num_batches * (i + 1) / wanted) for i in range(wanted)}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}
