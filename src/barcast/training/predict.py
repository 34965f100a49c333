"""Outputs of a network in eval mode and float32: on the grid that judges training, and for the tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from barcast.core.arrays import F32, I64
from barcast.core.memory import FRAGMENTS
from barcast.core.progress import Progress, clock, count
from barcast.training.config import TrainConfig
from barcast.training.distributed import team_at_work
from barcast.training.memory import memory_explained
from barcast.training.networks import TrainingData
from barcast.training.precision import plain_float32
from barcast.training.threads import one_thread_each
from barcast.windows.gather import Batch, Resident, gather_stretches, gather_windows, rows_on_device
from barcast.windows.index import Stretches, cut_stretches
from barcast.windows.shards import Shards, Which

#: Input values of one chunk of windows, for a network of this width: 8,192 of 60 bars and 49 inputs keep a
#: GPU busy; 512 (6 MB) stay in a core's cache, which makes an LSTM 1.2 times as fast as 4,096. A wider one
#: takes fewer at once, as what it computes with grows by its width.
_CHUNK_VALUES, _CHUNK_WIDTH = {"cuda": 8192 * 60 * 49, "cpu": 512 * 60 * 49}, 64
#: The grid of `stop` is predicted in parts so much smaller than a batch, so that no thread waits for long.
GRID_PARTS = 2


def predict_stop(
    network: nn.Module, data: TrainingData, config: TrainConfig, num_threads: int = 0
) -> tuple[I64, F32]:
    """Return rows (n,) and outputs (n, H) on the fixed grid of `stop`, in float32 and eval mode.

    Processes that train together compute a share each and all return the whole.
    """
    length, window = config.stretch_length, config.look_back_window
    if length == 1:
        rows = np.flatnonzero(data.stop)
        return rows, predict_windows(network, data.panel, rows, window, num_threads=num_threads)
    grid = cut_stretches(data.lives, data.stop, length)
    rows = grid.first[:, None] + np.arange(length)
    inside = (rows >= grid.life_start[:, None]) & (rows < grid.life_stop[:, None])
    wanted = inside & data.stop[np.clip(rows, 0, len(data.stop) - 1)]
    if not len(grid):
        return rows[wanted], np.zeros((0, data.resident.target.shape[1]), np.float32)

    def gather(resident: Resident, part: Which) -> Batch:
        return gather_stretches(resident, rows_on_device(part, resident.inputs.device), window, length)

    size = max(config.batch_size // length // GRID_PARTS, 1)
    return rows[wanted], _outputs(network, data.panel, grid, size, gather, num_threads)[wanted]


def predict_windows(
    network: nn.Module,
    panel: Resident | Shards,
    rows: I64,
    look_back: int,
    *,
    num_threads: int = 0,
    progress: Progress | None = None,
) -> F32:
    """Return outputs (n, H) of plain windows, float32, eval mode: what the predictions table holds.

    On a CPU each core takes whole batches with one thread, so that no core ever waits for another.
    """
    started = time.perf_counter()
    host = panel.host if isinstance(panel, Shards) else panel
    if not len(rows):
        return np.zeros((0, host.target.shape[1]), np.float32)

    def gather(resident: Resident, part: Which) -> Batch:
        return gather_windows(resident, rows_on_device(part, resident.inputs.device), look_back)

    def show(done: int) -> None:
        if progress is not None and progress.due():
            rate = done / (time.perf_counter() - started)
            left = clock((len(rows) - done) / rate)
            progress.step(f"predicted {count(done)}/{count(len(rows))}  {count(rate)} rows/s  {left} left")

    size = windows_a_chunk(network, look_back, host.inputs.shape[1])
    with memory_explained(
        f"not enough memory to predict windows of {look_back} bars", "a smaller --look-back-window"
    ):
        return _outputs(network, panel, rows, size, gather, num_threads, show)[:, 0]


def windows_a_chunk(network: nn.Module, look_back: int, num_inputs: int) -> int:
    """Return how many windows a network computes at once, on the device where it is."""
    width = max(min(weight.shape) for weight in network.parameters() if weight.ndim == 2)
    values = _CHUNK_VALUES[next(network.parameters()).device.type] * _CHUNK_WIDTH // max(width, _CHUNK_WIDTH)
    return max(values // (look_back * num_inputs), 1)


@plain_float32()
def _outputs(
    network: nn.Module,
    panel: Resident | Shards,
    which: Which,
    size: int,
    gather: Callable[[Resident, Which], Batch],
    num_threads: int,
    show: Callable[[int], None] = lambda done: None,
) -> F32:
    """Return outputs (n, K, H) in parts of at most ``size``, of which each process computes its share."""
    network.eval()
    team, found, done = team_at_work(), np.zeros((0, 0, 0), np.float32), 0
    groups: Iterable[tuple[I64, Resident, Which]] = [(np.arange(len(which)), panel, which)] \
        if isinstance(panel, Resident) else panel.in_order(which)  # fmt: skip
    for positions, resident, own in groups:

        def compute(chunk: I64, resident: Resident = resident, own: Which = own) -> F32:
            part = own.take(chunk) if isinstance(own, Stretches) else own[chunk]
            with torch.no_grad():
                batch = gather(resident, part)
                output: F32 = network(batch.inputs, batch.symbol, batch.num_predictions).float().cpu().numpy()
            return output

        chunks = [np.arange(i, min(i + size, len(positions))) for i in range(0, len(positions), size)]
        mine = chunks[team.rank :: team.size]
        for chunk, output in zip(
            mine, one_thread_each(compute, mine, num_threads, serial=resident.inputs.is_cuda), strict=True
        ):
            if not len(found):
                found = np.zeros((len(which), *output.shape[1:]), np.float32)
            found[positions[chunk]] = output
            done += len(chunk)
            FRAGMENTS.give_back()
            show(done)
    if not len(found):  # more processes than parts: nothing to add to what the others found
        found = np.zeros((len(which), *compute(chunks[0]).shape[1:]), np.float32)
    return team.sum(found)
