"""How much memory a stretch of code takes at its peak, measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from barcast.core.memory import give_back


@dataclass
class Peak:
    """What :func:`measured_peak` found; ``size`` is None where the system cannot tell."""

    size: int | None = None


@contextmanager
def measured_peak(device: str) -> Iterator[Peak]:
    """Measure how far memory rises above where it stood: of the device, or of this process on a CPU.

    Freed blocks are given back first, so that what is taken from them counts too.
    """
    found = Peak()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        found.size = torch.cuda.max_memory_allocated(device) - before
        return
    give_back()
    if not _forget_peak():
        yield found
        return
    before = _status("VmRSS")
    yield found
    found.size = max(_status("VmHWM") - before, 0)


def _forget_peak() -> bool:
    """Start the system's record of this process's peak anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0
