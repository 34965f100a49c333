"""What a fleet may take: time, memory, workers, as people type them and as memory allows them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from barcast.core.errors import ResourceError, UsageError

_SIZE = re.compile(r"([\d.]+)([KMGT])(?:i?B)?", re.IGNORECASE)


def parse_size(text: str, option: str) -> int:
    """Read ``8G`` or ``800M`` as bytes; a G is 1024 M, ``GB`` and ``GiB`` say the same.

    Raises
    ------
    UsageError
        On anything else, a number without unit included.
    """
    found = _SIZE.fullmatch(text.strip())
    try:
        size = 0 if found is None else int(float(found[1]) * 1024 ** ("KMGT".index(found[2].upper()) + 1))
    except ValueError:
        size = 0
    if size <= 0:
        raise UsageError(f"{option} `{text}` is no size", f"{option} 8G or 800M")
    return size


def size_text(size: float) -> str:
    """Write a size as it is typed: 1.4G, 800M."""
    for unit, scale in (("G", 2**30), ("M", 2**20)):
        if size >= scale:
            return f"{size / scale:.3g}{unit}"
    return f"{math.ceil(size / 1024)}K"


@dataclass(frozen=True)
class Limits:
    """What a fleet may take.

    Attributes
    ----------
    workers : int
        Asked for; memory may allow fewer.
    budget : float or None
        Seconds of wall clock.
    time_per_symbol : float or None
        Seconds of computing that one symbol may take.
    max_memory : int or None
        Bytes of the whole process tree, PSS.
    """

    workers: int = 1
    budget: float | None = None
    time_per_symbol: float | None = None
    max_memory: int | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"{self.workers} workers fit nothing", "--workers 1")


def room_bytes(limits: Limits, base_bytes: int) -> float:
    """Return what memory leaves to workers, bytes; infinite without a limit."""
    return math.inf if limits.max_memory is None else float(limits.max_memory - base_bytes)


def num_workers(limits: Limits, base_bytes: int, worker_bytes: float) -> int:
    """Return how many workers of a size memory allows, at most as many as were asked for.

    Raises
    ------
    ResourceError
        When not even one fits.
    """
    if not (fitting := workers_that_fit(limits, base_bytes, worker_bytes)):
        least = base_bytes + worker_bytes
        raise ResourceError(
            f"--max-memory {size_text(limits.max_memory or 0)} is too little: {size_text(base_bytes)} are "
            f"taken before any fit, and one worker takes {size_text(worker_bytes)}",
            f"--max-memory {math.ceil(least / 2**20) + 1}M is the least that does",
        )
    return fitting


def workers_that_fit(limits: Limits, base_bytes: int, worker_bytes: float) -> int:
    """Return how many workers of a size memory allows: 0 to as many as were asked for."""
    room = room_bytes(limits, base_bytes)
    if worker_bytes <= 0 or math.isinf(room):
        return limits.workers
    return min(limits.workers, max(int(room // worker_bytes), 0))
