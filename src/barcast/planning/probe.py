"""A few real training steps and forecasts on rows of the right shape, in a process of their own.

The process is fresh and sets its allocator as ``barcast train`` does, so what it measures is what a training
will take, and a probe that does not fit into memory ends itself and not the plan. Steps are the training's
own (`Stepper`): gather, forward, backward and optimizer. Only their number is small.

Where a whole batch would take too long, two smaller ones are measured and a line is drawn through them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from barcast.core.config import from_plain, to_plain
from barcast.core.errors import OutOfMemoryError, ResourceError
from barcast.planning.workload import Workload
from barcast.training.memory import is_out_of_memory

if TYPE_CHECKING:
    from torch import nn

    from barcast.models.network import Sizes
    from barcast.training.config import TrainConfig
    from barcast.training.networks import TrainingData
    from barcast.training.step import Stepper, Which

#: Rows of the panel that the probe gathers from: far more than caches hold.
MOST_ROWS = 300_000
#: Seconds that the measured steps, and the measured forecasts, may take.
BUDGET_SECONDS, PREDICT_SECONDS = 4.0, 1.0
#: Steps that are measured, and the share of a batch that is tried first.
LEAST_STEPS, MOST_STEPS, FIRST_SHARE = 2, 16, 8
#: Windows that are forecast at least: with fewer, memory drowns in what the system rounds away.
LEAST_WINDOWS = 256
#: Steps that choosing the number of threads takes at most: three numbers, one step and four rounds each.
TRIALS = 15
#: How the process ends that has too little memory: by itself, or by the system's SIGKILL.
SHORT_OF_MEMORY, KILLED = 6, -9
#: What a training imports beside torch, so that it counts as overhead here too.
ALSO_IMPORTED = ("numba", "polars", "deltalake", "pyarrow.parquet", "torch._dynamo")


@dataclass(frozen=True)
class Measured:
    """What the probe found.

    Attributes
    ----------
    threads : int
        Processor threads of a step, chosen as training chooses them.
    step_seconds : float
        One step with a whole batch.
    step_bytes : int or None
        Memory that training steps add to network and data: gradients, optimizer state, activations,
        workspace. None where the system cannot tell.
    judge_seconds : float
        Judging one stretch (or window) of `stop`.
    batch_share : float
        Share of a batch that was really computed; below 1 the rest is a line through two measurements.
    predict_seconds : float
        Forecasting one row from its window, with all cores at work.
    predict_bytes : int or None
        Memory of the forecasts that are computed at the same time.
    line_seconds : float
        Writing a line of the log, once a look: what the process occupies is most of it.
    runtime_bytes : int
        Interpreter and libraries, before any data.
    peak_flops : float
        Operations a second of a large matrix product in the precision of a training step.
    seconds : float
        What the probe took.
    """

    threads: int
    step_seconds: float
    step_bytes: int | None
    batch_share: float
    judge_seconds: float
    predict_seconds: float
    predict_bytes: int | None
    line_seconds: float
    runtime_bytes: int
    peak_flops: float
    seconds: float


def run_probe(work: Workload) -> Measured:
    """Measure a workload in a fresh process.

    Raises
    ------
    OutOfMemoryError
        When not even the smallest steps fit into memory.
    ResourceError
        When the process ended without an answer for any other reason.
    """
    plain = {**to_plain(work), "life_lengths": _sample(work.life_lengths)}
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "barcast.planning.probe"],
        input=json.dumps(plain), capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    if done.returncode:
        short = done.returncode in (SHORT_OF_MEMORY, KILLED)
        raise (OutOfMemoryError if short else ResourceError)(
            f"a few steps of `{work.model}` could not be measured here: {_why(done)}",
            "a smaller --size, --batch-size or --look-back-window; barcast doctor",
        )
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _why(done: subprocess.CompletedProcess[str]) -> str:
    """Say why the process has no answer."""
    if done.returncode < 0:
        told = ", as systems do when memory runs out" if done.returncode == KILLED else ""
        return f"the process was ended by signal {-done.returncode}{told}"
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"the process ended with {done.returncode}"


def _sample(lengths: tuple[int, ...]) -> list[int]:
    """Take lives evenly until they have enough rows; one that is longer than that is cut."""
    order = np.random.default_rng(0).permutation(len(lengths))
    rows = np.cumsum(np.asarray(lengths, np.int64)[order])
    enough = int(np.searchsorted(rows, MOST_ROWS)) + 1
    return [min(int(lengths[life]), MOST_ROWS) for life in order[:enough]]


def measure(work: Workload) -> Measured:
    """Measure a workload in this process, which should be a fresh one."""
    import torch

    from barcast.core.memory import tree_pss_bytes
    from barcast.training.limits import measure_peaks, timed
    from barcast.training.networks import build_network

    started, sizes, device = time.perf_counter(), work.sizes, work.train.device
    runtime = _runtime_bytes(work)
    all_threads = torch.get_num_threads()
    network = build_network(
        work.entry, work.options, sizes.num_inputs, sizes.num_symbols, sizes.num_horizons, device,
        sizes.attributes,
    )  # fmt: skip
    data = _synthetic(work)
    steps = _measure_steps(work, network, data)
    torch.set_num_threads(all_threads)
    peak = measure_peaks(work.train, steps["threads"]).flops
    predict_seconds, predict_bytes = _measure_forecasts(work, network, data)
    return Measured(
        **steps, predict_seconds=predict_seconds, predict_bytes=predict_bytes,
        line_seconds=timed(tree_pss_bytes, "cpu"), runtime_bytes=runtime, peak_flops=peak,
        seconds=time.perf_counter() - started,
    )  # fmt: skip


def _runtime_bytes(work: Workload) -> int:
    """Import what a training imports, take a first tiny step, and say what is occupied then."""
    from importlib import import_module

    from barcast.core.memory import give_back, pss_bytes
    from barcast.training.networks import build_network

    for name in ALSO_IMPORTED:
        import_module(name)
    tiny = replace(work, life_lengths=(work.piece_bars,), train=replace(work.train, batch_size=1))
    sizes = tiny.sizes
    network = build_network(
        tiny.entry, tiny.entry.config(), sizes.num_inputs, 1, sizes.num_horizons, tiny.train.device
    )
    bare = replace(tiny, sizes=replace(sizes, num_symbols=1, attributes=()))
    data = _synthetic(bare)
    _stepper(bare, network, data).step(_pieces(bare.train, data, 1), 0, 0.5)
    give_back()
    return pss_bytes()


def _synthetic(work: Workload) -> TrainingData:
    """Return random rows in lives of the given lengths; every row teaches."""
    from barcast.training.networks import TrainingData, make_resident

    lives = np.concatenate([[0], np.cumsum(np.asarray(work.life_lengths, np.int64))])
    rows, sizes = int(lives[-1]), work.sizes
    rng = np.random.default_rng(0)
    life = np.repeat(np.arange(len(lives) - 1), np.diff(lives))
    symbol = life % (sizes.num_symbols + 1)
    if sizes.attributes:
        codes = [life % (number + 1) for number in sizes.attributes]
        symbol = np.stack([symbol, *codes], axis=1)
    inputs = rng.standard_normal((rows, sizes.num_inputs), np.float32)
    target = rng.standard_normal((rows, work.num_targets), np.float32)
    resident = make_resident(inputs, symbol, lives[life], target, work.train.device, anchored=work.anchored)
    every = np.ones(rows, bool)
    return TrainingData(resident, lives, every, every)


def _stepper(work: Workload, network: nn.Module, data: TrainingData) -> Stepper:
    from barcast.core.progress import Progress
    from barcast.core.runs import RunFolder
    from barcast.training.step import Stepper

    nowhere = RunFolder(Path(tempfile.gettempdir()) / "barcast-probe-that-is-no-run")
    loss = work.head.loss or work.entry.loss
    assert loss is not None
    return Stepper(network, data, work.train, loss, nowhere, Progress(enabled=False))


def _pieces(train: TrainConfig, data: TrainingData, number: int, seed: int = 0) -> Which:
    """Return so many stretches (or windows) from anywhere, some more than once where there are few."""
    from barcast.windows.index import cut_stretches

    rng = np.random.default_rng(seed)
    if train.stretch_length == 1:
        rows: np.ndarray = rng.integers(0, int(data.lives[-1]), number)
        return rows
    stretches = cut_stretches(data.lives, data.fit, train.stretch_length)
    return stretches.take(rng.integers(0, len(stretches), number))


def _measure_steps(work: Workload, network: nn.Module, data: TrainingData) -> dict[str, Any]:
    """Choose the number of threads, then time steps, and measure the memory of both together.

    Trying out numbers of threads is part of the memory: they take from one pool, whose freed blocks stay.
    """
    import torch

    from barcast.planning.meter import measured_peak

    device, whole, whole_part = work.train.device, work.batch_pieces, work.part_pieces
    first = max(whole // FIRST_SHARE, 1)
    all_threads = torch.get_num_threads()
    guess = _time_steps(_ready(work, network, data, int(device == "cpu")), first, LEAST_STEPS) * whole / first
    torch.set_num_threads(all_threads)
    most = int(np.clip(whole * BUDGET_SECONDS / (guess * (LEAST_STEPS + 1)), 1, whole))
    count = int(np.clip(BUDGET_SECONDS / max(guess, 1e-9), LEAST_STEPS, MOST_STEPS))
    if most < whole:
        work, most = _in_part(work, most)
    network.zero_grad(set_to_none=True)
    with measured_peak(device) as peak:
        threads = _threads(work, network, data, guess)
        stepper = _ready(work, network, data, threads)
        seconds = _time_steps(stepper, most, count)
        judging = _time_judging(work, network, data, threads, most)
    stepper.close()
    size = peak.size
    if most < whole:
        less, parts = max(most // 2, 1), work.train.gradient_accumulation_steps
        network.zero_grad(set_to_none=True)
        with measured_peak(device) as peak:
            stepper = _ready(work, network, data, threads)
            seconds = _on_line(less, _time_steps(stepper, less, LEAST_STEPS), most, seconds, whole)
        stepper.close()
        if size is not None and peak.size is not None:
            size = int(_on_line(less, peak.size, most, size, max(whole_part * parts, most)))
    return {
        "threads": threads, "step_seconds": seconds, "step_bytes": size, "batch_share": most / whole,
        "judge_seconds": judging,
    }  # fmt: skip


def _in_part(work: Workload, most: int) -> tuple[Workload, int]:
    """Return a workload whose batches of at most ``most`` pieces come in parts of the whole one's size.

    What is occupied goes by the part that is computed at once, so it is measured there, or as near as may be.
    """
    parts = max(round(work.train.gradient_accumulation_steps * most / work.batch_pieces), 1)
    train = replace(work.train, gradient_accumulation_steps=parts)
    return replace(work, train=train), min(most, parts * work.part_pieces)


def _time_judging(work: Workload, network: nn.Module, data: TrainingData, threads: int, pieces: int) -> float:
    """Look at `stop` as the loop does, beside the threads of the step; return seconds a piece."""
    from barcast.training.limits import timed
    from barcast.training.predict import predict_stop
    from barcast.windows.index import cut_stretches

    length = work.train.stretch_length
    stop = np.arange(len(data.fit)) < pieces * length
    looked = replace(data, stop=stop)
    number = int(stop.sum()) if length == 1 else len(cut_stretches(data.lives, stop, length))
    return timed(lambda: predict_stop(network, looked, work.train, threads), work.train.device) / number


def _ready(work: Workload, network: nn.Module, data: TrainingData, threads: int) -> Stepper:
    stepper = _stepper(work, network, data)
    stepper.compute_with(threads)
    return stepper


def _time_steps(stepper: Stepper, pieces: int, count: int) -> float:
    """Return the mean seconds of ``count`` steps after a first one, which makes buffers."""
    first, *batches = [_pieces(stepper.config, stepper.data, pieces, seed) for seed in range(count + 1)]
    stepper.step(first, 0, 0.5)
    started = time.perf_counter()
    for number, which in enumerate(batches):
        stepper.step(which, number, 0.5)
    if stepper.config.device != "cpu":
        import torch

        torch.cuda.synchronize(stepper.config.device)
    return (time.perf_counter() - started) / count


def _threads(work: Workload, network: nn.Module, data: TrainingData, guess: float) -> int:
    """Return how many threads compute a step, found out as training does; a slow batch is tried in part."""
    import torch

    from barcast.training.threads import choose_threads

    if work.train.device != "cpu":
        return 0
    if work.train.threads:
        return work.train.threads
    whole, all_threads = work.batch_pieces, torch.get_num_threads()
    affordable = int(whole * BUDGET_SECONDS / (guess * TRIALS))
    tried = _pieces(work.train, data, int(np.clip(affordable, min(all_threads, whole), whole)))
    stepper = _stepper(work, network, data)
    try:
        return choose_threads(lambda number: stepper.try_out(tried, number))
    finally:
        stepper.close()


def _on_line(less: int, cost_of_less: float, more: int, cost_of_more: float, wanted: int) -> float:
    """Extrapolate time or memory by a line; neither ever grows faster than the batch, or shrinks."""
    if more == less:
        return cost_of_more * wanted / more
    slope = max((cost_of_more - cost_of_less) / (more - less), 0.0)
    return min(cost_of_more + slope * (wanted - more), cost_of_more * wanted / more)


def fixed_bytes(num_parameters: int, optimizer: str) -> int:
    """Return the size of gradients and optimizer state: one moment for sgd, two otherwise."""
    return 4 * num_parameters * (2 if optimizer == "sgd" else 3)


def _measure_forecasts(work: Workload, network: nn.Module, data: TrainingData) -> tuple[float, int | None]:
    """Return seconds a row and memory of forecasting with every core, as after training."""
    import torch

    from barcast.planning.meter import measured_peak
    from barcast.training.limits import timed
    from barcast.training.predict import predict_windows, windows_a_chunk

    look_back, device = work.train.look_back_window, work.train.device
    chunk = windows_a_chunk(network, look_back, work.sizes.num_inputs)
    workers = torch.get_num_threads() if device == "cpu" else 1
    rng = np.random.default_rng(2)

    def forecast(number: int) -> float:
        rows = rng.integers(0, int(data.lives[-1]), number)
        return timed(lambda: predict_windows(network, data.resident, rows, look_back), device)

    few = min(chunk, LEAST_WINDOWS)
    forecast(min(few, 8))
    needed = min(workers * chunk, max(work.num_scored_rows, 1))
    rows = int(np.clip(few * PREDICT_SECONDS / forecast(few), few, needed))
    with measured_peak(device) as peak:
        seconds = forecast(rows)
    size = None if peak.size is None else int(peak.size * needed / rows)
    return seconds / rows, size


def read_workload(plain: dict[str, Any]) -> Workload:
    """Build a workload again from plain values."""
    from barcast.models.network import Sizes
    from barcast.models.registry import model_entry
    from barcast.training.config import TrainConfig

    sizes: Sizes = from_plain(Sizes, plain["sizes"], "sizes")
    parts = {
        "options": from_plain(model_entry(plain["model"]).config, plain["options"], plain["model"]),
        "train": from_plain(TrainConfig, plain["train"], "train"),
        "sizes": sizes,
        "life_lengths": tuple(plain["life_lengths"]),
    }
    return Workload(**{**plain, **parts})


def _end_short(why: str) -> NoReturn:
    """End this process for want of memory."""
    sys.stderr.write(f"{why}\n")
    sys.exit(SHORT_OF_MEMORY)


def main() -> None:
    """Read a workload from stdin, write what was measured to stdout."""
    from barcast.core.memory import keep_freed_memory

    keep_freed_memory()
    try:
        found = measure(read_workload(json.loads(sys.stdin.read())))
    except OutOfMemoryError as error:
        _end_short(error.found)
    except ResourceError as error:
        sys.exit(error.found)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _end_short("not enough memory for the smallest of them")
    print(json.dumps(asdict(found)))  # noqa: T201


if __name__ == "__main__":
    main()
