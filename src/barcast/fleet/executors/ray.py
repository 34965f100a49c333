"""Workers on a Ray cluster, or on a Ray of this machine that is started and ended with the executor.

A worker is an actor that Ray never restarts: what it had comes back here, and the driver decides. Ray's own
messages between its processes are pickled; nothing is read back from files. A source whose arguments hold
arrays travels through the object store, once for each node.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

from barcast.core.errors import ResourceError, UsageError
from barcast.fleet.executors.base import Finished, Outcome, Worker, use_one_thread
from barcast.fleet.executors.pool import Broken, Pool, Report, Seat
from barcast.fleet.work import FitSource, Unit

#: Read by Ray as it starts: nothing is reported to anybody, and accelerators are left to us.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
#: Off, its servers listen on 127.0.0.1 instead of the machine's address, unless Ray was imported before.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
#: Hosts that Ray takes as the machine's own address.
_LOCAL = ("localhost", "127.0.0.1", "::1")
#: Seconds in which the first node of a cluster answers; Ray itself would try for a quarter of an hour.
_ANSWER_SECONDS = 10.0
#: Chunks that a worker has at a time: while it fits one, the next is on its way.
_NUM_CHUNKS = 2


class RayWorker:
    """The work of one actor."""

    def __init__(self, source: FitSource, limit_bytes: int | None, paths: list[str]) -> None:
        self._arguments = (source, limit_bytes)
        self._paths = paths

    def begin(self) -> Report | Broken:
        """Make the fit; an error becomes words, because an actor that raises as it is made says little."""
        use_one_thread()
        sys.path.extend(path for path in self._paths if path not in sys.path)
        try:
            self._worker = Worker(*self._arguments)
        except Exception as error:
            return Broken.of(error)
        return Report()

    def run(self, units: list[Unit]) -> Report:
        """Fit units; once it has grown too much it takes no more."""
        outcomes: list[Outcome] = []
        for unit in units:
            if self._worker.is_outgrown:
                break
            outcomes.append(self._worker.run(unit))
        return Report(tuple(outcomes), leaves=self._worker.is_outgrown)


@dataclass(kw_only=True)
class RaySeat(Seat):
    """An actor, and for each answer that it owes the number of units in question."""

    actor: Any
    answers: deque[tuple[Any, int]] = field(default_factory=deque)


class RayExecutor(Pool[RaySeat]):
    """Fits in actors of one CPU each.

    A chunk of several units whose actor dies is given out again unit by unit; only a unit that was alone with
    a worker that died is lost.

    Parameters
    ----------
    num_workers : int
    source : FitSource
        Its module must be importable on every node. Data comes by a path that all nodes share, or as arrays
        in the arguments.
    worker_bytes, batch_size : int, optional
        As for processes.
    address : str, optional
        Of a running cluster (``auto``, ``HOST:PORT``, ``ray://HOST:PORT``).
    """

    def __init__(
        self,
        num_workers: int,
        source: FitSource,
        *,
        worker_bytes: int | None = None,
        batch_size: int | None = None,
        address: str | None = None,
    ) -> None:
        self._ray, self._is_ours = _connect(num_workers, address)
        self._alone: set[int] = set()
        self._worker_bytes = worker_bytes
        # Here only: modules of a remote machine lie elsewhere.
        self._paths = list(sys.path) if address is None else []
        self._source = self._ray.put(source)
        self._actor_class = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(RayWorker)
        super().__init__(num_workers, batch_size)

    def close(self) -> None:
        """See :class:`Executor`; a cluster that was there before stays."""
        for seat in self._seats:
            self._end(seat)
        self._seats = []
        self._queue.clear()
        if self._is_ours:
            self._ray.shutdown()
            self._is_ours = False

    def _start(self, name: str) -> RaySeat:
        actor = self._actor_class.remote(self._source, self._worker_bytes, self._paths)
        seat = RaySeat(name=name, actor=actor)
        seat.answers.append((actor.begin.remote(), 0))
        return seat

    def _end(self, seat: RaySeat) -> str:
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(seat.actor)
        return "its worker or node died"

    def _send(self, seat: RaySeat, units: list[Unit]) -> bool:
        if len(seat.answers) >= _NUM_CHUNKS:
            return False
        for chunk in self._chunks(units):
            seat.answers.append((seat.actor.run.remote(chunk), len(chunk)))
        return True

    def _chunks(self, units: list[Unit]) -> Iterator[list[Unit]]:
        """Yield units together in their order, but those alone that were in a chunk whose worker died."""
        size = math.ceil(self._pace.allowance / _NUM_CHUNKS)
        for is_alone, some in groupby(units, lambda unit: id(unit) in self._alone):
            chunk = list(some)
            step = 1 if is_alone else size
            yield from (chunk[first : first + step] for first in range(0, len(chunk), step))

    def _hear(self, timeout: float) -> list[Finished]:
        owed = {seat.answers[0][0]: seat for seat in self._seats if seat.answers}
        ready, _ = self._ray.wait(list(owed), num_returns=1, timeout=timeout)
        finished: list[Finished] = []
        for answer in ready:
            seat = owed[answer]
            try:
                message = self._ray.get(answer)
            except self._ray.exceptions.RayError:
                finished += self._lose(seat, self._guilty(seat))
                continue
            seat.answers.popleft()
            finished += self._take_in(seat, message)
        self._alone.difference_update(id(each.unit) for each in finished)
        return finished

    def _guilty(self, seat: RaySeat) -> int | None:
        """Return which unit a dead worker was at, where that is certain; else let each be tried alone."""
        _, size = seat.answers[0]
        if size == 1:
            return 0
        self._alone.update(id(unit) for unit in islice(seat.units, size))
        return None


def _connect(num_workers: int, address: str | None) -> tuple[Any, bool]:
    """Return Ray, connected, and whether the connection is ours to end."""
    os.environ.update(_QUIET if address else _QUIET | _LOOPBACK)
    try:
        import ray
    except ImportError as error:
        found = "the executor ray needs Ray, which is not installed"
        raise UsageError(found, "pip install 'barcast[ray]'") from error
    if ray.is_initialized():
        return ray, False
    own = {"num_cpus": num_workers, "include_dashboard": False}
    try:
        if address is not None:
            _reach(ray, address)
        with _sigterm_kept():
            ray.init(
                address or "local", log_to_driver=False, logging_level="error", **({} if address else own)
            )
    except (OSError, RuntimeError, ValueError) as error:  # the last for an address of no form that it knows
        found = str(error).strip().partition("\n")[0]
        raise ResourceError(
            f"no Ray cluster at {address or 'this machine'}: {found}",
            "start one with `ray start --head` and name its address, or use --executor processes",
        ) from error
    return ray, True


def _reach(ray: Any, address: str) -> None:
    """Raise `OSError` where nobody listens at ``HOST:PORT``; other forms Ray judges soon enough itself."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not port.isdecimal() or "/" in host:
        return
    at = (ray.util.get_node_ip_address() if host in _LOCAL else host, int(port))
    socket.create_connection(at, _ANSWER_SECONDS).close()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Give SIGTERM back the meaning it had: Ray takes it without asking."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
