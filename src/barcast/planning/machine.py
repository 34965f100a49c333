"""What a machine has: memory of this one, and published figures of GPUs that a plan may be made for.

Utilisation is an assumption, stated with every estimate; nothing here was measured on those GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from barcast.core.errors import UsageError

GIB = 1 << 30
#: Share of memory that a plan leaves free: other programs, and what the formulas miss.
HEADROOM = 0.10
#: Share of a GPU's published arithmetic and bandwidth that small training steps are assumed to reach.
ARITHMETIC_SHARE, BANDWIDTH_SHARE = 0.30, 0.60
#: Seconds between two kernels of a training step that the host launches one by one.
LAUNCH_SECONDS = 6e-6
#: Memory of a CUDA context with cuBLAS and cuDNN loaded, and share that the caching allocator wastes.
CONTEXT_BYTES, ALLOCATOR_WASTE = 600 << 20, 0.10


@dataclass(frozen=True)
class Device:
    """Published figures of a GPU.

    Attributes
    ----------
    name : str
        What ``--target`` takes.
    title : str
    memory_bytes : int
    bandwidth : float
        Bytes a second.
    bf16_flops, fp32_flops : float
        Dense operations a second, without sparsity.
    """

    name: str
    title: str
    memory_bytes: int
    bandwidth: float
    bf16_flops: float
    fp32_flops: float


DEVICES = {
    device.name: device
    for device in (
        # https://www.nvidia.com/en-us/data-center/products/a10-gpu/ : 24 GB, 600 GB/s, 125 and 31.2 TFLOPS
        Device("a10", "NVIDIA A10", 24 * GIB, 600e9, 125e12, 31.2e12),
        # GA102 whitepaper, table 2 (nvidia.com, "NVIDIA Ampere GA102 GPU Architecture"): 10 GB, 760 GB/s;
        # bf16 tensor with fp32 accumulation 59.5 and fp32 29.8 TFLOPS
        Device("rtx3080", "NVIDIA GeForce RTX 3080 10 GB", 10 * GIB, 760e9, 59.5e12, 29.8e12),
        # https://www.nvidia.com/en-us/data-center/h100/ (SXM): 80 GB, 3.35 TB/s; 989 (dense) and 67 TFLOPS
        Device("h100", "NVIDIA H100 SXM", 80 * GIB, 3.35e12, 989e12, 67e12),
        # the H100 SXM with its links between GPUs slowed; memory and arithmetic of one GPU are the same
        Device("h800", "NVIDIA H800 SXM", 80 * GIB, 3.35e12, 989e12, 67e12),
    )
}
#: The machine that plans.
THIS = "this"
#: What a plan may be made for.
TARGETS = (THIS, *DEVICES)


def is_target(word: str | None) -> bool:
    """Return whether a word names what a plan may be made for."""
    return word in TARGETS


def device_of(target: str) -> Device | None:
    """Return the figures of a target, None for this machine.

    Raises
    ------
    UsageError
        With the targets there are.
    """
    if target == THIS:
        return None
    if target not in DEVICES:
        raise UsageError(f"no target `{target}` to plan for", f"--on {', '.join(TARGETS)}")
    return DEVICES[target]


@dataclass(frozen=True)
class HostMemory:
    """Memory of this machine, bytes.

    Attributes
    ----------
    available : int or None
        What a new process may take; None where the system does not say.
    total : int or None
    limited_by : str
        ``MemAvailable``, or ``cgroup`` where a limit of the container is lower.
    """

    available: int | None
    total: int | None
    limited_by: str


def host_memory(root: Path = Path("/")) -> HostMemory:
    """Read what is available: /proc/meminfo, and the cgroup's limit where it leaves less.

    A cgroup counts cached files as used, though the system gives them up before it refuses anybody memory.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return HostMemory(None, None, "unknown")
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
    available, total, by = sizes.get("MemAvailable"), sizes.get("MemTotal"), "MemAvailable"
    for folder, limit, used, cached in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        group = root / "sys/fs/cgroup" / folder
        most, taken = _number(group / limit), _number(group / used)
        if most is None or total is None or most >= total:
            continue
        held = max((taken or 0) - _counted(group / "memory.stat", cached), 0)
        left = max(most - held, 0)
        if available is None or left < available:
            available, total, by = left, most, "cgroup"
    return HostMemory(available, total, by)


def _counted(path: Path, name: str) -> int:
    """Return one count of a cgroup's statistics, bytes; 0 where there is none."""
    try:
        counts = dict(line.split() for line in path.read_text().splitlines())
        return int(counts.get(name, 0))
    except (OSError, ValueError):
        return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, or the word "max"
        return None
