"""A panel larger than the device: whole lives travel to it in shards, the next one while this one is used.

A shard holds whole lives (unbroken rows of one symbol), so that no window is cut. Training draws them anew
each epoch, from (seed, epoch) alone, and shuffles batches inside of a shard; judging and predicting take
lives in their order. Two slots of memory, made once, hold the shard in use and the one that comes: a thread
copies lives into pinned memory, and from there to a GPU on a stream of their own; on a CPU that is all.

Letters: R rows, F inputs, H horizons.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from barcast.core.arrays import I64
from barcast.core.errors import ResourceError
from barcast.windows.gather import Resident
from barcast.windows.index import Stretches

#: What a batch is made of: rows whose windows are gathered, or stretches.
Which = I64 | Stretches
#: The shard in use and the one that comes.
NUM_SLOTS = 2
#: Tensors of a panel, one row each.
FIELDS = ("inputs", "symbol", "life_start", "target")


def bytes_per_row(panel: Resident) -> int:
    """Return what one row of a panel occupies on a device."""
    tensors = [getattr(panel, name) for name in FIELDS]
    return sum(tensor[:1].numel() * tensor.element_size() for tensor in tensors)


def check_longest(host: Resident, lives: I64, max_rows: int) -> None:
    """Refuse shards of ``max_rows`` rows that the longest of the lives does not fit into.

    Raises
    ------
    ResourceError
        With the least memory that would do.
    """
    longest = int(np.diff(lives).max())
    if longest > max_rows:
        need = 1.001 * NUM_SLOTS * longest * bytes_per_row(host) / 2**30
        step = 10.0 ** (math.floor(math.log10(need)) - 1)  # two digits, and never less than is needed
        raise ResourceError(
            f"the longest history has {longest} bars, but only {max_rows} fit into a shard",
            f"--panel-memory-gib {math.ceil(need / step) * step:.3g} or more, or fewer features",
        )


@dataclass(frozen=True)
class Cut:
    """One way to cut the lives into shards.

    Attributes
    ----------
    name : tuple
        Tells the cuts of one panel apart.
    members : tuple of I64
        Lives of each shard, in their order there.
    shard_of_life, shift : I64, shape (num_lives,)
        Each life's shard, and what is added to its rows to have them in the shard.
    """

    name: tuple[object, ...]
    members: tuple[I64, ...]
    shard_of_life: I64
    shift: I64


def cut_lives(lives: I64, order: I64, max_rows: int, name: tuple[object, ...]) -> Cut:
    """Fill one shard after the other with the lives in this order, none with more than ``max_rows`` rows."""
    lengths = np.diff(lives)
    shard_of_life, shift = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    shard, used, firsts = 0, 0, [0]
    for position, life in enumerate(order):
        if used + lengths[life] > max_rows:
            shard, used = shard + 1, 0
            firsts.append(position)
        shard_of_life[life], shift[life] = shard, used - lives[life]
        used += lengths[life]
    return Cut(name, tuple(np.split(order, firsts[1:])), shard_of_life, shift)


class Shards:
    """A panel in host memory that is used on a device shard by shard.

    Parameters
    ----------
    host : Resident
        The whole panel, on the CPU.
    lives : I64, shape (num_lives + 1,)
        Borders of unbroken rows.
    max_rows : int
        Most rows of a shard; the device holds twice as many.
    device : str
    seed : int
        Of the shards that training draws.

    Raises
    ------
    ResourceError
        When one life does not fit into a shard.
    """

    def __init__(self, host: Resident, lives: I64, max_rows: int, device: str, seed: int) -> None:
        check_longest(host, lives, max_rows)
        self.host, self.lives, self.max_rows, self.seed = host, lives, max_rows, seed
        self.ordered = cut_lives(lives, np.arange(len(lives) - 1), max_rows, ("ordered",))
        self.drawn = self._draw(0)
        self._slots = [_Slot(host, max_rows, torch.device(device)) for _ in range(NUM_SLOTS)]
        self._thread, self._lock = ThreadPoolExecutor(1), threading.Lock()

    @property
    def device_bytes(self) -> int:
        """What the panel occupies on the device, whatever is done with it."""
        return NUM_SLOTS * self.max_rows * bytes_per_row(self.host)

    def for_seed(self, seed: int) -> Shards:
        """Return the same panel in the same memory, with shards that another seed draws.

        Both may be used in turns; a shard is brought anew where the other one has overwritten it.
        """
        other = copy(self)  # shares the slots, and the thread that fills them
        other.seed = seed
        other.drawn = other._draw(0)
        return other

    def begin(self, epoch: int) -> Cut:
        """Draw the shards of an epoch; :meth:`place` takes from them until the next one begins."""
        self.drawn = self._draw(epoch)
        return self.drawn

    def _draw(self, epoch: int) -> Cut:
        order = np.random.default_rng([self.seed, epoch, 3]).permutation(len(self.lives) - 1)
        return cut_lives(self.lives, order, self.max_rows, ("drawn", self.seed, epoch))

    def shard_of(self, which: Which, cut: Cut) -> I64:
        """Return the shard of each row or stretch, shape (n,)."""
        return cut.shard_of_life[self._life_of(which)]

    def place(self, which: Which, cut: Cut | None = None) -> tuple[Resident, Which]:
        """Bring the shard of a batch to the device; return it, and the batch in the shard's rows.

        All of the batch must lie in one shard. What an earlier call returned is overwritten by the one after
        the next that names another shard.
        """
        cut, life = cut or self.drawn, self._life_of(which)
        with self._lock:  # threads that compute parts of one batch ask at the same time
            resident = self._loaded(cut, int(cut.shard_of_life[life[0]])).resident()
        shift = cut.shift[life]
        if isinstance(which, Stretches):
            moved = Stretches(which.first + shift, which.life_start + shift, which.life_stop + shift)
            return resident, moved
        return resident, which + shift

    def in_order(self, which: Which) -> Iterator[tuple[I64, Resident, Which]]:
        """Yield, shard by shard, positions in ``which``, the shard, and what is there in the shard's rows."""
        shard = self.shard_of(which, self.ordered)
        for index in np.unique(shard):
            positions = np.flatnonzero(shard == index)
            own = which.take(positions) if isinstance(which, Stretches) else which[positions]
            yield positions, *self.place(own, self.ordered)

    def _life_of(self, which: Which) -> I64:
        rows = which.life_start if isinstance(which, Stretches) else which
        found: I64 = np.searchsorted(self.lives, rows, side="right") - 1
        return found

    def _loaded(self, cut: Cut, index: int) -> _Slot:
        """Return the slot that holds a shard, and have the next shard copied into the other one."""
        holding = next((slot for slot in self._slots if slot.key == (*cut.name, index)), None)
        if holding is self._slots[0] and holding is not None:
            return holding
        slot = holding or self._slots[-1]
        if holding is None:
            self._fill(slot, cut, index)
        self._slots.remove(slot)
        self._slots.insert(0, slot)  # the one in use stands first; the other one is free
        if index + 1 < len(cut.members):
            self._fill(self._slots[-1], cut, index + 1)
        elif cut.name[0] == "drawn":
            self._fill(self._slots[-1], self._draw(int(str(cut.name[2])) + 1), 0)
        return slot

    def _fill(self, slot: _Slot, cut: Cut, index: int) -> None:
        if slot.key != (*cut.name, index):
            slot.start(self._thread, (*cut.name, index), self.host, self.lives, cut.members[index])


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


class _Slot:
    """Memory for one shard on the device, and pinned memory beside it where the device is a GPU."""

    def __init__(self, host: Resident, max_rows: int, device: torch.device) -> None:
        def empty(**where: Any) -> dict[str, Tensor]:
            whole = {name: getattr(host, name) for name in FIELDS}
            return {
                n: torch.empty((max_rows, *t.shape[1:]), dtype=t.dtype, **where) for n, t in whole.items()
            }

        self.key: tuple[object, ...] = ()
        self.anchored, self.num_rows = host.anchored, 0
        self.tensors = empty(device=device)
        self.stream = _stream(device)
        self.staging = empty(pin_memory=True) if self.stream else self.tensors
        self.filled: Future[None] | None = None
        self.copied: torch.cuda.Event | None = None

    def start(
        self, thread: ThreadPoolExecutor, key: tuple[object, ...], host: Resident, lives: I64, members: I64
    ) -> None:
        """Begin to copy a shard in; what computes with the one before is waited for on the device."""
        if self.filled is not None:
            self.filled.result()
        self.key, self.num_rows = key, int(np.diff(lives)[members].sum())
        used = torch.cuda.current_stream(self.stream.device).record_event() if self.stream else None
        self.filled = thread.submit(self._copy, host, lives, members, used)

    def _copy(self, host: Resident, lives: I64, members: I64, used: torch.cuda.Event | None) -> None:
        if self.copied is not None:
            self.copied.synchronize()  # the pinned memory is still on its way
        position = 0
        for life in members:
            rows = slice(int(lives[life]), int(lives[life + 1]))
            there = slice(position, position + rows.stop - rows.start)
            for name in FIELDS:
                self.staging[name][there].copy_(getattr(host, name)[rows])
            self.staging["life_start"][there] = position
            position = there.stop
        if self.stream is None:
            return
        with torch.cuda.stream(self.stream):
            if used is not None:
                self.stream.wait_event(used)
            for name in FIELDS:
                self.tensors[name][:position].copy_(self.staging[name][:position], non_blocking=True)
            self.copied = self.stream.record_event()

    def resident(self) -> Resident:
        """Return the shard; what the device is told next waits for its copy."""
        assert self.filled is not None
        self.filled.result()
        if self.stream is not None and self.copied is not None:
            torch.cuda.current_stream(self.stream.device).wait_event(self.copied)
        return Resident(**{n: t[: self.num_rows] for n, t in self.tensors.items()}, anchored=self.anchored)
