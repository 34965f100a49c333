"""How many threads a training step should use: measured, because the best number depends on who else works.

A recurrent network makes thousands of small parallel regions a step. On an idle machine more threads are
faster; on a busy one threads that wait for each other can make a step tens of times slower than one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

#: A candidate is given up when its first step is this many times slower than the best so far.
HOPELESS = 1.5


def choose_threads(step: Callable[[], None]) -> int:
    """Time ``step`` with one thread, with half of torch's threads and with all, and set the fastest.

    Parameters
    ----------
    step : callable
        A whole forward and backward pass that leaves no trace.

    Returns
    -------
    int
        The number that is now set.
    """
    all_threads = torch.get_num_threads()
    candidates = sorted({1, max(all_threads // 2, 1), all_threads})
    if len(candidates) == 1:
        return all_threads
    best, best_seconds = candidates[0], float("inf")
    for threads in candidates:
        torch.set_num_threads(threads)
        step()  # the first one makes buffers
        seconds = _seconds(step)
        if seconds < HOPELESS * best_seconds:
            seconds = min(seconds, _seconds(step), _seconds(step))
        if seconds < best_seconds:
            best, best_seconds = threads, seconds
    torch.set_num_threads(best)
    return best


def one_thread_each(function: Callable[[T], R], items: Sequence[T], *, serial: bool = False) -> Iterator[R]:
    """Apply ``function`` to each item, in order, with one single-threaded worker for each of torch's threads.

    For work without gradients and random numbers. ``serial`` (or a single item or thread) runs it plainly.
    """
    workers = torch.get_num_threads()
    if serial or workers == 1 or len(items) == 1:
        yield from map(function, items)
        return
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(function, items)
    finally:
        torch.set_num_threads(workers)


def _seconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started
