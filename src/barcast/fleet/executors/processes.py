"""Workers on this machine, each a process of its own.

Not the standard library's pools: those cannot say which unit a worker died of, replace one that has grown, or
go on after one is killed.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from barcast.fleet.executors.base import ONE_THREAD, Finished
from barcast.fleet.executors.pool import Pool, Seat
from barcast.fleet.work import FitSource, Unit

#: A message to a worker that is busy must fit into the socket: it does not read, and if it waited to be read
#: itself both would wait for ever.
_MOST_BYTES_WAITING = 16 << 10
#: What an idle worker may take to end by itself.
_END_SECONDS = 2.0


@dataclass(kw_only=True)
class ProcessSeat(Seat):
    """A worker process: its socket, and how many units it has begun and we have heard of."""

    process: subprocess.Popen[bytes]
    connection: Connection
    begun: mmap.mmap
    num_heard: int = 0


class ProcessExecutor(Pool[ProcessSeat]):
    """Fits in processes that outlive neither a kill nor their own growth: another takes the place.

    Parameters
    ----------
    num_workers : int
    source : FitSource
        Everything in it must be importable, and its arguments plain, for a new interpreter.
    worker_bytes : int, optional
        What one worker may occupy; one that has grown above it is replaced after its current unit.
    batch_size : int, optional
        Units of one worker at a time; by default as their measured seconds ask for.
    """

    def __init__(
        self,
        num_workers: int,
        source: FitSource,
        *,
        worker_bytes: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        self._source = source
        self._worker_bytes = worker_bytes
        super().__init__(num_workers, batch_size)

    def close(self) -> None:
        """See :class:`Executor`; workers that have nothing to do end by themselves."""
        for seat in self._seats:
            if seat.units or not seat.is_ready:
                seat.process.kill()
            seat.connection.close()
        for seat in self._seats:
            try:
                seat.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                seat.process.kill()
                seat.process.wait()
        self._seats = []
        self._queue.clear()

    def _start(self, name: str) -> ProcessSeat:
        ours, theirs = Pipe()
        with tempfile.TemporaryFile() as shared, theirs:
            shared.truncate(8)
            descriptors = (theirs.fileno(), shared.fileno())
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "barcast.fleet.executors.worker",
                    *map(str, (os.getpid(), *descriptors)),
                ],
                pass_fds=descriptors,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": _paths()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # ours may be read by a program
                process_group=0,  # a terminal's Ctrl-C goes to groups, and a worker could not ignore it yet
            )
            begun = mmap.mmap(shared.fileno(), 8)
        seat = ProcessSeat(name=name, process=process, connection=ours, begun=begun)
        with suppress(ConnectionError):  # it has died already; its end is heard of later
            ours.send((self._source, self._worker_bytes))
        return seat

    def _end(self, seat: ProcessSeat) -> str:
        seat.connection.close()
        if seat.process.poll() is None:
            seat.process.kill()
        code = seat.process.wait()
        if code >= 0:
            return f"its worker ended by itself with code {code}"
        memory = ", as happens when memory runs out" if code == -signal.SIGKILL else ""
        return f"its worker was killed by {signal.Signals(-code).name}{memory}"

    def _send(self, seat: ProcessSeat, units: list[Unit]) -> bool:
        message = pickle.dumps(units)
        if seat.units and len(message) > _MOST_BYTES_WAITING:
            return False
        try:
            seat.connection.send_bytes(message)
        except ConnectionError:
            return False  # it has died; its end is heard of next
        return True

    def _hear(self, timeout: float) -> list[Finished]:
        finished: list[Finished] = []
        ready = wait([seat.connection for seat in self._seats], timeout)
        for seat in [each for each in self._seats if each.connection in ready]:
            try:
                message = seat.connection.recv()
            except (EOFError, OSError):
                finished += self._lose(seat, self._guilty(seat))
                continue
            finished += self._take_in(seat, message)
            seat.num_heard += len(message.outcomes)
        return finished

    def _guilty(self, seat: ProcessSeat) -> int | None:
        """Return which of the units not back yet a dead worker was at; those before it ended unheard."""
        at = int.from_bytes(seat.begun[:], "little") - seat.num_heard - 1
        return at if at >= 0 else None


def _paths() -> str:
    """Return where this process finds modules, for another one."""
    return os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
