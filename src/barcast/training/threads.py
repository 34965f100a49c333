"""How many threads compute a training step: measured, because the best number depends on who else works.

Threads do not share one operation, which makes them wait for each other thousands of times a step; each
computes a share of the batch on its own (:class:`Workers`). On 2 cores an LSTM of 64 x 2 learns 1.4 times as
fast so as with one thread, and with two threads inside of every operation 0.4 times as fast.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

#: Rounds over the candidates, and the seconds after which no further round begins.
NUM_ROUNDS, ENOUGH_SECONDS = 4, 10.0
#: More threads are taken unless fewer are this much faster: a busy moment passes, and a run keeps its choice.
CLEARLY = 1.1


def choose_threads(step: Callable[[int], None], clock: Callable[[], float] = time.perf_counter) -> int:
    """Time ``step`` with one thread, half of torch's threads and all; return the number to compute with.

    Candidates take turns, so that a moment at which the machine is busy strikes them alike; each is judged by
    its fastest step.

    Parameters
    ----------
    step : callable
        A whole forward and backward pass of a batch by so many threads, which leaves no trace.
    clock : callable
        What tells the seconds.
    """
    all_threads = torch.get_num_threads()
    candidates = sorted({1, max(all_threads // 2, 1), all_threads}, reverse=True)
    if len(candidates) == 1:
        return 1
    fastest = dict.fromkeys(candidates, float("inf"))
    for threads in candidates:
        step(threads)  # the first one makes buffers
    began = clock()
    for _ in range(NUM_ROUNDS):
        for threads in candidates:
            started = clock()
            step(threads)
            fastest[threads] = min(fastest[threads], clock() - started)
        if clock() - began > ENOUGH_SECONDS:
            break
    best = candidates[0]
    for threads in candidates[1:]:
        if fastest[best] > CLEARLY * fastest[threads]:
            best = threads
    return best


class Workers:
    """Threads that each compute whole operations on their own."""

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        self._pool = ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,))

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield results in order; when one fails, nothing runs any more once its error is raised."""
        futures = [self._pool.submit(function, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
            wait(futures)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()
        torch.set_num_threads(torch.get_num_threads())  # libraries below keep one number for all threads


def one_thread_each(
    function: Callable[[T], R], items: Sequence[T], num_threads: int = 0, *, serial: bool = False
) -> Iterator[R]:
    """Apply ``function`` to each item, in order, on ``num_threads`` threads (0: as many as torch has).

    For work without gradients and random numbers. ``serial`` (or a single item or thread) runs it plainly.
    """
    num_threads = num_threads or torch.get_num_threads()
    if serial or num_threads == 1 or len(items) == 1:
        yield from map(function, items)
        return
    workers = Workers(num_threads)
    try:
        yield from workers.map(function, items)
    finally:
        workers.close()
