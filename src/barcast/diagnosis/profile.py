"""The profile of a training: sections, limits of the device and other settings, in ``profile.json``."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.diagnosis.speed import speed_numbers, speed_verdict
from barcast.diagnosis.trials import NO_RUN, Setting, private_copy, settings_to_try, try_settings
from barcast.training.batches import epoch_batches
from barcast.training.config import TrainConfig
from barcast.training.limits import ByteCounter, count_flops, measure_peaks
from barcast.training.networks import TrainingData
from barcast.training.precision import training_dtype
from barcast.training.sections import Timer, plain_sections
from barcast.training.step import Loss, Stepper, gather

FILE_NAME = "profile.json"


def write_profile(
    run: RunFolder, network: nn.Module, data: TrainingData, config: TrainConfig, loss: Loss, timer: Timer,
    threads: int, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Measure what the timer could not, on a copy of the trained network, and write profile.json.

    Parameters
    ----------
    timer : Timer
        As the training left it.
    threads : int
        Threads of the training's steps, 0 on a device.

    Returns
    -------
    dict
        The file's content.
    """
    started = time.perf_counter()
    settings = settings_to_try(config, threads, torch.get_num_threads())
    progress.note(f"profile: {len(settings)} settings for a few steps each")
    trials = [trial.plain() for trial in try_settings(network, data, loss, settings)]
    sections, work = plain_sections(timer), _work(network, data, loss, settings[0])
    wall = sum(line["seconds"] for line in sections)
    found = {
        "device": config.device if config.device == "cpu" else torch.cuda.get_device_name(config.device),
        "threads": threads,
        "precision": str(training_dtype(config) or torch.float32).removeprefix("torch."),
        "batch_size": config.batch_size,
        "num_steps": timer.num_steps,
        "num_profiled_steps": len(timer.profiled),
        "wall_seconds": wall,
        "labels_per_second": timer.num_labels / max(wall, 1e-9),
        "sections": sections,
        "work": work,
        "numbers": speed_numbers(sections, trials, work),
        "trials": trials,
    }
    found["profile_seconds"] = time.perf_counter() - started  # of the experiments, no part of the training
    found["verdict"] = speed_verdict(found).plain()
    run.write(FILE_NAME, found)
    return found


def _work(network: nn.Module, data: TrainingData, loss: Loss, now: Setting) -> dict[str, float]:
    """Return what one step of the present setting computes and moves, and what the device could."""
    copied = private_copy(network)
    stepper = Stepper(copied, data, now.config, loss, NO_RUN, Progress(enabled=False))
    which = epoch_batches(data, now.config, 0)[0]
    peaks = measure_peaks(now.config, now.threads)
    with ByteCounter() as moved:
        stepper.step(which, 0, 1.0)
    return {
        "flops": count_flops(copied, gather(which, data, now.config, stepper.sections)),
        "bytes": float(moved.total),
        "peak_flops": peaks.flops,
        "peak_bytes": peaks.bytes,
    }
