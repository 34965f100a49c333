"""The plan: what a training needs and how long it takes, put together from counts and measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from barcast.core.config import to_plain
from barcast.planning.machine import (
    ARITHMETIC_SHARE,
    BANDWIDTH_SHARE,
    LAUNCH_SECONDS,
    THIS,
    Device,
    HostMemory,
    device_of,
    host_memory,
)
from barcast.planning.memory import (
    FLOAT,
    MemoryPlan,
    device_plan,
    gather_bytes,
    host_plan,
    largest_batch,
    network_components,
    shard_bytes,
)
from barcast.planning.network import (
    activation_bytes,
    beside_embeddings,
    flops_of_piece,
    parameters_by_component,
)
from barcast.planning.probe import Measured, run_probe
from barcast.planning.room import check_room
from barcast.planning.rules import Scheme, suiting_scheme
from barcast.planning.workload import Workload

#: A forward pass is about a third of a step's arithmetic.
FORWARD_SHARE = 1 / 3
UNVERIFIED = "unverified: no such device has confirmed this formula"


@dataclass(frozen=True)
class Compute:
    """Arithmetic, traffic and time.

    Attributes
    ----------
    basis : str
        ``measured`` on this device, or ``roofline``: the slowest of arithmetic, traffic and launches.
    flops_per_step, bytes_per_step : float
        Matrix arithmetic, counted; memory traffic, at least.
    steps_per_epoch : int
    seconds_per_step, seconds_per_epoch : float
        Training alone, as the loop counts labels a second.
    judging_seconds_per_epoch, forecast_seconds : float
        Looks at `stop`; forecasting `weigh`, `route` and `test` after training.
    labels_per_second : float
    peak_flops : float
        Of a large matrix product, measured; published, for a target.
    threads : int
        Processor threads that compute a step; 0 on a GPU.
    """

    basis: str
    flops_per_step: float
    bytes_per_step: float
    steps_per_epoch: int
    seconds_per_step: float
    seconds_per_epoch: float
    judging_seconds_per_epoch: float
    forecast_seconds: float
    labels_per_second: float
    peak_flops: float
    threads: int

    @property
    def share_of_peak(self) -> float:
        """Share of the peak arithmetic rate that a step reaches."""
        return self.flops_per_step / self.seconds_per_step / self.peak_flops

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON, epochs beside steps."""
        epochs = {
            "flops_per_epoch": self.flops_per_step * self.steps_per_epoch,
            "bytes_per_epoch": self.bytes_per_step * self.steps_per_epoch,
            "share_of_peak": self.share_of_peak,
        }
        return {**to_plain(self), **epochs}


@dataclass(frozen=True)
class Plan:
    """What ``barcast plan train`` says.

    Attributes
    ----------
    work : Workload
    target : str
        ``this`` or a named GPU.
    parameters : dict of str to int
        By top-level module.
    shared_parameters : int
        Those beside embeddings.
    host : MemoryPlan
    device : MemoryPlan or None
        Of the GPU that trains, if one does.
    compute : Compute
    largest_batch : int or None
        Labels.
    scheme : Scheme
    measured : Measured
        What the probe found on this machine.
    notes : tuple of str
        What is assumed, extrapolated or unverified.
    """

    work: Workload
    target: str
    parameters: dict[str, int]
    shared_parameters: int
    host: MemoryPlan
    device: MemoryPlan | None
    compute: Compute
    largest_batch: int | None
    scheme: Scheme
    measured: Measured
    notes: tuple[str, ...]

    @property
    def num_parameters(self) -> int:
        """All parameters."""
        return sum(self.parameters.values())

    @property
    def fits(self) -> bool:
        """Whether nothing is known to be too small."""
        return self.host.fits is not False and (self.device is None or self.device.fits is not False)

    @property
    def run_seconds(self) -> float:
        """Time of all epochs with their looks at `stop`, and of the forecasts after them, of every seed."""
        compute = self.compute
        epoch = compute.seconds_per_epoch + compute.judging_seconds_per_epoch
        return self.work.train.num_seeds * (self.work.train.epochs * epoch + compute.forecast_seconds)

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        work = self.work
        return {
            "model": work.model,
            "options": to_plain(work.options),
            "train": to_plain(work.train),
            "target": self.target,
            "data": {
                "symbols": work.num_symbols, "bars": work.num_rows, "sessions": work.num_sessions,
                "inputs": work.sizes.num_inputs, "labels": work.num_labels,
                "teaching_rows": work.num_teaching_rows, "pieces_per_epoch": work.num_pieces,
                "forecast_rows": work.num_scored_rows,
            },
            "parameters": {
                "components": self.parameters, "total": self.num_parameters,
                "beside_embeddings": self.shared_parameters,
            },
            "memory": {
                "host": self.host.plain(),
                "device": None if self.device is None else {**self.device.plain(), "verified": False},
            },
            "compute": {**self.compute.plain(), "verified": self.compute.basis == "measured"},
            "run_seconds": self.run_seconds,
            "largest_batch": self.largest_batch,
            "fits": self.fits,
            "scheme": to_plain(self.scheme),
            "measured": to_plain(self.measured),
            "notes": list(self.notes),
        }  # fmt: skip


def make_plan(work: Workload, target: str = THIS) -> Plan:
    """Plan a workload for this machine or a named GPU; a few steps are measured here either way.

    Raises
    ------
    UsageError
        On a target that is not in the table.
    ResourceError
        When the network alone does not fit into memory, or not even a small step could be measured.
    """
    named = device_of(target)
    check_room(work.entry, work.options, work.sizes, work.train)
    parameters = parameters_by_component(work.entry, work.options, work.sizes)
    total = sum(parameters.values())
    measured, activations = run_probe(work), _activations(work)
    flops = flops_of_piece(work) * work.batch_pieces
    traffic = _traffic(work, total, activations)
    on_gpu = named is not None or work.train.device != "cpu"
    network = network_components(work, total, activations, None if named else measured)
    memory = host_memory()
    size = named.memory_bytes if named else _device_memory(work.train.device) if on_gpu else None
    shards = shard_bytes(work, size)
    host = host_plan(
        work, network, measured, memory.available, memory.limited_by, trains_here=not on_gpu, shards=shards
    )
    device = None
    if on_gpu:
        title = named.title if named else work.train.device
        device = device_plan(work, network, size, title, shards=shards)
    a_symbol = work.num_teaching_rows / max(work.num_symbols, 1)
    scheme = suiting_scheme(work.num_symbols, a_symbol, work.num_sessions)
    compute = (
        _on_target(work, named, flops, traffic, measured) if named else _here(work, flops, traffic, measured)
    )
    return Plan(
        work, target, parameters, beside_embeddings(work.entry, work.options, work.sizes), host, device,
        compute, largest_batch(work, device or host), scheme, measured,
        _notes(work, named, on_gpu, measured, memory, shards),
    )  # fmt: skip


def _activations(work: Workload) -> int:
    """Return what the backward pass keeps of one part of a batch, a line through two small ones."""
    # smaller ones than these are padded to whole vectors by fused kernels
    less, more = activation_bytes(work, 4), activation_bytes(work, 8)
    slope = (more - less) / 4
    return int(less + slope * (work.part_pieces - 4))


def _traffic(work: Workload, num_parameters: int, activations: int) -> float:
    """Return the least bytes a step moves: gather, activations out and in, weights, optimizer."""
    parts = work.batch_pieces / work.part_pieces
    moments = 1 if work.train.optimizer == "sgd" else 2
    passes = 2 + 1 + (1 + 2 + 2 * moments)  # forward and backward read, gradient written, optimizer's own
    return parts * (gather_bytes(work) + 2 * activations) + FLOAT * num_parameters * passes


def _here(work: Workload, flops: float, traffic: float, measured: Measured) -> Compute:
    return _compute(
        work, "measured", flops, traffic, measured.step_seconds, measured.peak_flops, measured.threads,
        measured.predict_seconds * work.num_scored_rows, measured.judge_seconds, measured.line_seconds,
    )  # fmt: skip


def _on_target(work: Workload, device: Device, flops: float, traffic: float, measured: Measured) -> Compute:
    """Return the roofline: the slowest of arithmetic, traffic and launches, each at its assumed share."""
    peak = device.fp32_flops if work.train.amp == "off" else device.bf16_flops
    seconds = max(
        flops / (peak * ARITHMETIC_SHARE),
        traffic / (device.bandwidth * BANDWIDTH_SHARE),
        _launches(work) * LAUNCH_SECONDS,
    )
    windows = work.num_scored_rows * work.train.look_back_window
    of_bar = flops * FORWARD_SHARE / (work.batch_pieces * work.piece_bars)
    forecasts = windows * of_bar / (device.fp32_flops * ARITHMETIC_SHARE)
    judging = seconds / work.batch_pieces * FORWARD_SHARE
    return _compute(
        work, "roofline", flops, traffic, seconds, peak, 0, forecasts, judging, measured.line_seconds
    )


def _launches(work: Workload) -> int:
    """Return about how many kernels a step launches: recurrent layers some a bar, others some a module."""
    from torch import nn

    from barcast.planning.network import modules_of

    modules = modules_of(work.entry, work.options, work.sizes)
    layers = sum(module.num_layers for module in modules if isinstance(module, nn.RNNBase))
    leaves = sum(not list(module.children()) for module in modules)
    return 3 * layers * work.piece_bars + 20 * leaves + 100


def _compute(
    work: Workload, basis: str, flops: float, traffic: float, step: float, peak: float, threads: int,
    forecasts: float, judging: float, line: float,
) -> Compute:  # fmt: skip
    of_piece = step / work.batch_pieces
    epoch = of_piece * work.num_pieces + line * work.looks
    return Compute(
        basis=basis, flops_per_step=flops, bytes_per_step=traffic, steps_per_epoch=work.num_steps,
        seconds_per_step=step, seconds_per_epoch=epoch,
        judging_seconds_per_epoch=judging * work.num_stop_pieces * work.looks,
        forecast_seconds=forecasts, labels_per_second=work.num_labels / max(epoch, 1e-9), peak_flops=peak,
        threads=threads,
    )  # fmt: skip


def _device_memory(device: str) -> int:
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory)


def _notes(
    work: Workload, named: Device | None, on_gpu: bool, measured: Measured, memory: HostMemory, shards: int
) -> tuple[str, ...]:
    notes = []
    if (seeds := work.train.num_seeds) > 1:
        notes.append(f"{seeds} seeds, one after the other: parameters and an epoch are those of one network")
    if shards:
        notes.append(
            f"the panel comes in shards, which take {shards / 2**30:.2f} GiB; no second is planned for that"
        )
    if measured.batch_share < 1:
        notes.append(
            f"a whole batch takes long on this machine: {measured.batch_share:.0%} of one was measured here, "
            "and a line drawn"
        )
    if measured.step_bytes is None:
        notes.append(
            "this system does not tell a process's peak: kernel workspace is not in the memory figures"
        )
    if memory.available is None:
        notes.append("this system does not tell how much memory is available")
    if named:
        notes.append(
            f"seconds on {named.title}: {UNVERIFIED}; the slowest of arithmetic at {ARITHMETIC_SHARE:.0%} "
            f"of its peak, traffic at {BANDWIDTH_SHARE:.0%} of its bandwidth, and "
            f"{LAUNCH_SECONDS * 1e6:.0f} µs a kernel"
        )
    if on_gpu:
        notes.append(f"memory of the GPU: {UNVERIFIED}; CUDA context and allocator are assumptions")
    return tuple(notes)
