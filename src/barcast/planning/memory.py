"""Memory of a training by component and by phase, on the host and on a GPU.

What a network's steps and forecasts take is measured by the probe. What grows with the rows is counted, with
a few constants that were measured on this project's own runs (`benchmarks/plan_bench.py`): bytes a bar of
what is read and labelled, and what libraries occupy once they are used. On a CPU the allocator keeps freed
blocks, in one pool for all threads, until they are given back: before the panel is mapped, and before the
comparison. Between the two, what steps have freed is too scattered for forecasts to be counted inside of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from barcast.planning.machine import ALLOCATOR_WASTE, CONTEXT_BYTES, HEADROOM
from barcast.planning.probe import Measured, fixed_bytes
from barcast.planning.workload import Workload

FLOAT, INDEX = 4, 8
#: Bars, labels, segments and volatility of one row, as they stay in memory; and what reading them takes more.
BYTES_A_BAR, READING_BYTES_A_BAR = 100, 250
#: Libraries that only a whole command uses (store, frames, compiled kernels), beyond those of the probe.
COMMAND_BYTES = 90 << 20
#: The comparison trains ridge on chunks of so many rows, each several times in float64.
RIDGE_ROWS, RIDGE_COPIES, SCORED_COPIES = 200_000, 2.5, 2

#: Parts of the panel that are on the device where it does not fit as a whole.
SHARDS = "panel in shards"


@dataclass(frozen=True)
class MemoryPlan:
    """Memory in one place, bytes.

    Attributes
    ----------
    components : dict of str to int
        What training holds while it steps; they add up to the phase ``train``.
    phases : dict of str to int
        Everything that is occupied at the peak of each phase.
    available : int or None
    limited_by : str
        What sets ``available``.
    """

    components: dict[str, int]
    phases: dict[str, int]
    available: int | None
    limited_by: str

    @property
    def peak(self) -> int:
        """The most that is occupied at any time."""
        return max(self.phases.values())

    @property
    def peak_phase(self) -> str:
        """The phase that takes the most."""
        return max(self.phases, key=lambda phase: self.phases[phase])

    @property
    def fits(self) -> bool | None:
        """Whether the peak leaves the headroom free; None where nothing is known about what is there."""
        return None if self.available is None else self.peak <= self.available * (1 - HEADROOM)

    def plain(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "components": self.components,
            "phases": self.phases,
            "peak_bytes": self.peak,
            "peak_phase": self.peak_phase,
            "available_bytes": self.available,
            "limited_by": self.limited_by,
            "headroom_bytes": None if self.available is None else self.available - self.peak,
            "fits": self.fits,
        }


def gib(size: float) -> str:
    """Write a size for people."""
    return f"{size / 2**30:.2f} GiB"


def gather_bytes(work: Workload) -> int:
    """Return what gathering one part of a batch takes: rows, their masked copy, and indices."""
    bars = work.part_pieces * work.piece_bars
    return bars * (2 * FLOAT * work.sizes.num_inputs + 2 * INDEX)


def network_components(
    work: Workload, num_parameters: int, activations: int, measured: Measured | None
) -> dict[str, int]:
    """Return what network and steps hold, on whatever device trains.

    ``kernel workspace`` is what the measured steps took beyond the counted parts: buffers inside fused
    kernels, gradients of other threads, and blocks that the allocator could not use again. Without a
    measurement it is absent.
    """
    weights = FLOAT * num_parameters
    found = {
        "weights": weights,
        "gradients": weights,
        "optimizer state": fixed_bytes(num_parameters, work.train.optimizer) - weights,
        "best weights": weights,
        "activations": activations,
        "gather": gather_bytes(work),
    }
    if work.train.num_seeds > 1:
        found["weights of finished seeds"] = weights * (work.train.num_seeds - 1)
    if measured is not None and measured.step_bytes is not None:
        counted = sum(found[name] for name in ("gradients", "optimizer state", "activations", "gather"))
        # where less was measured than counted, blocks are free again before others are made
        surplus = measured.step_bytes - counted
        found["activations"] += min(surplus, 0)
        found["kernel workspace"] = max(surplus, 0)
    return found


def resident_components(work: Workload) -> dict[str, int]:
    """Return what rests on the device that trains so that batches can be gathered."""
    codes = 1 + len(work.sizes.attributes)
    return {
        "panel": FLOAT * work.num_rows * work.sizes.num_inputs,
        "targets": FLOAT * work.num_rows * work.num_targets,
        "row index": INDEX * work.num_rows * (1 + codes),
    }


def shard_bytes(work: Workload, device_memory: int | None) -> int:
    """Return what the slots of shards occupy where the panel does not rest on the device as a whole, else 0.

    The limit is `panel_memory_gib`; left at 0, half of a GPU, whose size ``device_memory`` is, and none on a
    CPU (None).
    """
    limit = int(work.train.panel_memory_gib * 2**30) or (device_memory or 0) // 2
    return limit if 0 < limit < sum(resident_components(work).values()) else 0


def host_plan(
    work: Workload, network: dict[str, int], measured: Measured, available: int | None, limited_by: str,
    *, trains_here: bool = True, shards: int = 0,
) -> MemoryPlan:  # fmt: skip
    """Return the host's memory; ``trains_here`` is False where a GPU trains.

    Slots of shards lie beside the whole panel: those that are used, or pinned ones on their way to a GPU.
    """
    rows, inputs = work.num_rows, work.sizes.num_inputs
    base = {
        "interpreter and libraries": measured.runtime_bytes + COMMAND_BYTES,
        "bars and labels": BYTES_A_BAR * rows,
        # on a CPU the tensors are these arrays; the label targets stay beside the masked ones
        **resident_components(work),
        "label targets": FLOAT * rows * work.num_targets,
    }
    components = {**base, **({SHARDS: shards} if shards else {}), **(network if trains_here else {})}
    ready = base["interpreter and libraries"] + base["bars and labels"]
    reading = ready + READING_BYTES_A_BAR * rows
    # normalising lets go of the mapped features as it goes: never are both there as a whole
    preparing = sum(base.values())
    training = sum(components.values())
    forecasts = (measured.predict_bytes or 0) if trains_here else 0
    forecasting = training + forecasts
    chunk = FLOAT * 2 * (inputs + 1) * (min(work.num_teaching_rows, RIDGE_ROWS) * RIDGE_COPIES)
    scored = FLOAT * 2 * (inputs + 1) * SCORED_COPIES * work.num_scored_rows
    comparing = preparing + int(chunk + scored)
    phases = {
        "read": reading, "features": preparing, "train": training, "forecast": forecasting,
        "compare": comparing,
    }  # fmt: skip
    return MemoryPlan(components, phases, available, limited_by)


def device_plan(
    work: Workload, network: dict[str, int], available: int | None, limited_by: str, *, shards: int = 0
) -> MemoryPlan:
    """Return a GPU's memory by formula: the context and the allocator's waste are assumptions.

    ``shards`` is what their slots take in place of the whole panel.
    """
    components = {**({SHARDS: shards} if shards else resident_components(work)), **network}
    components["allocator (assumed)"] = int(ALLOCATOR_WASTE * sum(components.values()))
    components["CUDA context (assumed)"] = CONTEXT_BYTES
    return MemoryPlan(components, {"train": sum(components.values())}, available, limited_by)


def largest_batch(work: Workload, plan: MemoryPlan) -> int | None:
    """Return the most labels of one batch that fit where training steps, 0 where not even the rest does.

    None where nothing is known about the memory that is there.
    """
    if plan.available is None:
        return None
    growing = ("activations", "gather", "kernel workspace", "allocator (assumed)")
    of_batch = sum(plan.components.get(name, 0) for name in growing)
    left = plan.available * (1 - HEADROOM) - (plan.peak - of_batch)
    pieces = int(left / max(of_batch / work.batch_pieces, 1))
    return max(pieces, 0) * work.train.stretch_length
