"""Outputs of a network in eval mode and float32: on the grid that judges training, and for the tables."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

from barcast.core.arrays import F32, I64
from barcast.core.progress import Progress, clock, count
from barcast.training.config import TrainConfig
from barcast.training.memory import memory_explained
from barcast.training.networks import TrainingData
from barcast.training.threads import one_thread_each
from barcast.windows.gather import Resident, gather_stretches, gather_windows
from barcast.windows.index import cut_stretches

#: Input values of one chunk of windows: 4,096 windows of 60 bars and 49 inputs, 48 MB.
CHUNK_VALUES = 4096 * 60 * 49


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
    progress: Progress | None = None,
) -> F32:
    """Return outputs (n, H) of plain windows, float32, eval mode: what the predictions table holds.

    On a CPU each core takes whole batches with one thread, so that no core ever waits for another.
    """
    network.eval()
    started = time.perf_counter()
    batch_size = max(CHUNK_VALUES // (look_back * resident.inputs.shape[1]), 1)
    chunks = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    if not chunks:
        return np.zeros((0, resident.target.shape[1]), np.float32)

    def outputs_of(chunk: I64) -> F32:
        with torch.no_grad():
            batch = gather_windows(resident, torch.from_numpy(chunk).to(resident.inputs.device), look_back)
            found: F32 = network(batch.inputs, batch.symbol, 1)[:, 0].float().cpu().numpy()
        return found

    outputs, done = [], 0
    with memory_explained(
        f"not enough memory to predict windows of {look_back} bars", "a smaller --look-back-window"
    ):
        for output in one_thread_each(outputs_of, chunks, serial=resident.inputs.is_cuda):
            outputs.append(output)
            done += len(output)
            if progress is not None and progress.due():
                rate = done / (time.perf_counter() - started)
                left = clock((len(rows) - done) / rate)
                said = f"predicted {count(done)}/{count(len(rows))}  {count(rate)} rows/s  {left} left"
                progress.step(said)
    return np.concatenate(outputs)
