"""Imports or updates in a process of its own, and dies by SIGKILL at a chosen touch of the disk.

    python -m tests.store.killed import|update WORKSPACE INPUT TOUCH

A touch is a rename, a flush to disk, or the commit of a version (once before it and once after). TOUCH 0
never dies and prints how many there were and where the commit was; "random" dies at a random moment instead.
"""

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import deltalake

from barcast.pipeline import ingest
from barcast.pipeline.data import import_data, update_data
from barcast.sources import ImportOptions

touches = 0
committed = 0


def touch():
    global touches
    touches += 1
    if touches == last:
        os.kill(os.getpid(), signal.SIGKILL)


def before(function):
    def wrapped(*args, **kwargs):
        touch()
        return function(*args, **kwargs)

    return wrapped


def around(function):
    def wrapped(*args, **kwargs):
        global committed
        touch()
        committed = touches
        function(*args, **kwargs)
        touch()

    return wrapped


def die_soon():
    time.sleep(random.random() * float(os.environ["SECONDS"]))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    verb, workspace, given, when = sys.argv[1:]
    last = 0 if when == "random" else int(when)
    ingest._PART_FILES = 3
    Path.replace = before(Path.replace)
    os.fsync = before(os.fsync)
    deltalake.write_deltalake = around(deltalake.write_deltalake)
    if when == "random":
        threading.Thread(target=die_soon, daemon=True).start()
    options = ImportOptions(market="us", basis="raw")
    result = (import_data if verb == "import" else update_data)(Path(workspace), Path(given), options)
    sys.stdout.write(f"{touches} {committed} {result.num_resumed_files}")
