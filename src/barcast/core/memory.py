"""What this process and its children occupy, and how the allocator is told to keep it."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

#: Set to 1 to leave the allocator as the system has it.
MALLOC_SWITCH = "BARCAST_KEEP_MALLOC"


def pss_bytes(pid: int | str = "self") -> int:
    """Return the proportional set size of one process: mapped pages are shared out among their users.

    Of this process it falls back to the peak resident size where the system has no such figure (outside
    Linux); another process that is gone has none.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        if str(pid) not in ("self", str(os.getpid())):
            return 0
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(peak if sys.platform == "darwin" else peak * 1024)
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def tree_pss_bytes(root: int | None = None) -> int:
    """Return the PSS of a process, by default this one, and all its descendants."""
    total, pending = 0, [root or os.getpid()]
    while pending:
        pid = pending.pop()
        total += pss_bytes(pid)
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            children = []
        pending.extend(int(child) for child in children)
    return total


def release_mapped(array: np.ndarray[Any, Any]) -> None:
    """Let go of the memory behind a contiguous array that is mapped from a file, which can be read again.

    Does nothing to an array that rests in memory alone, or where the system cannot.
    """
    owner: Any = array
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    if not isinstance(owner, mmap.mmap) or not hasattr(owner, "madvise") or not array.nbytes:
        return
    first = (
        array.__array_interface__["data"][0] - np.frombuffer(owner, np.uint8).__array_interface__["data"][0]
    )
    start, stop = (
        -(-first // mmap.PAGESIZE) * mmap.PAGESIZE,
        (first + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE,
    )
    if stop > start:
        owner.madvise(mmap.MADV_DONTNEED, start, stop - start)


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks instead of returning them: training frees the same ones every step.

    Measured on an LSTM of width 64: twice the windows a second. For command-line training processes only;
    ``BARCAST_KEEP_MALLOC=1`` switches it off.

    Returns
    -------
    bool
        Whether it took effect.
    """
    if os.environ.get(MALLOC_SWITCH) == "1" or not sys.platform.startswith("linux"):
        return False
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # M_... of malloc.h
    # One pool for all threads: what one frees another takes, and no block is too large for it (older versions
    # of the library refuse more than 32 MiB).
    wanted = (
        (mmap_threshold, 32 << 20),
        (mmap_threshold, 1 << 30),
        (trim_threshold, 2**31 - 1),
        (arena_max, 1),
    )
    try:
        library = ctypes.CDLL("libc.so.6")
        refused = [name for name, value in wanted if not library.mallopt(name, value)]
        return refused in ([], [mmap_threshold])
    except (OSError, AttributeError):
        return False


def give_back() -> None:
    """Return what nothing uses to the system, where the C library can: between stages of other sizes."""
    gc.collect()  # networks and their data refer to each other
    _trim()


def _trim() -> None:
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
            "keepcost",
        )
    ]  # fmt: skip


class Fragments:
    """Gives freed memory back where it grows although as much is freed as taken.

    glibc before 2.38 often cannot reuse a freed block of aligned memory for one of the same size, as long as
    something small lies beside it; then the pool of a long series of equal computations grows without end.

    Parameters
    ----------
    allowance : int
        Bytes by which what is freed may grow before it is given back.
    """

    def __init__(self, allowance: int = 128 << 20) -> None:
        self._allowance = self._limit = allowance

    def give_back(self) -> None:
        """Return freed memory to the system if there is more than allowed."""
        if self._freed() > self._limit:
            _trim()
            # the pool counts what it gave back as freed: it is where it was, without pages behind it
            self._limit = self._freed() + self._allowance

    @staticmethod
    def _freed() -> int:
        try:
            told = ctypes.CDLL("libc.so.6").mallinfo2
        except (OSError, AttributeError):
            return 0
        told.restype = _Mallinfo
        return int(told().fordblks)


#: Of the pool of this process; whoever repeats large computations calls it between two.
FRAGMENTS = Fragments()
