"""A worker process: units come in over a socket, results go out; it ends with its driver, whatever ends that.

Run as ``python -m barcast.fleet.executors.worker``: a fresh interpreter that imports nothing of the program
which started it, so that users' scripts need no guard and no thread or lock is inherited.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
import time
from collections import deque
from multiprocessing.connection import Connection

from barcast.fleet.executors.base import Outcome, Worker
from barcast.fleet.executors.pool import Broken, Report
from barcast.fleet.work import Unit

#: Results of short units wait this long for each other, half of what is ahead; longer ones are sent at once.
FLUSH_SECONDS = 0.05
#: How often it looks whether its driver lives.
_LOOK_SECONDS = 0.5


def serve(connection: Connection, begun: mmap.mmap) -> None:
    """Make the fit, then fit what comes until nothing comes any more.

    Parameters
    ----------
    connection : Connection
        First brings the :class:`FitSource` and the share of memory, then lists of units.
    begun : mmap
        Eight bytes shared with the driver: how many units were begun. They outlive this process, and thus
        tell which unit it died of.
    """
    source, limit_bytes = connection.recv()
    try:
        worker = Worker(source, limit_bytes)
    except Exception as error:
        connection.send(Broken.of(error))
        return
    connection.send(Report())
    _fit_all(connection, begun, worker)


def _fit_all(connection: Connection, begun: mmap.mmap, worker: Worker) -> None:
    waiting: deque[Unit] = deque()
    outcomes: list[Outcome] = []
    num_begun, sent_at = 0, time.monotonic()
    while True:
        if outcomes and (time.monotonic() - sent_at > FLUSH_SECONDS or not (waiting or connection.poll())):
            connection.send(Report(tuple(outcomes), leaves=worker.is_outgrown))
            if worker.is_outgrown:
                return
            outcomes, sent_at = [], time.monotonic()
        if not waiting:
            waiting.extend(connection.recv())
        num_begun += 1
        begun[:] = num_begun.to_bytes(8, "little")
        outcomes.append(worker.run(waiting.popleft()))


def _end_with(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def main() -> None:
    """Serve the driver that started this process; its process id and two descriptors are the arguments."""
    driver, socket, shared = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's matter
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    try:
        serve(Connection(socket), mmap.mmap(shared, 8))
    except (EOFError, ConnectionError):
        return  # the driver has closed


if __name__ == "__main__":
    main()
