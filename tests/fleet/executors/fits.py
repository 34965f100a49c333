"""Fits that workers import by name: quick, deadly, greedy, broken."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from barcast.core.errors import DataError
from barcast.fleet.work import SymbolResult, Unit


def units(count):
    return [Unit((f"S{i:04d}",), (i,), "fast") for i in range(count)]


def _result(unit, **metrics):
    return [
        SymbolResult(symbol, unit.preset, "done", metrics=metrics, model=symbol.encode())
        for symbol in unit.symbols
    ]


def busy(seconds=0.002, log=None):
    """Compute for a while; write down which process fitted what, as it begins."""

    def fit(unit):
        end = time.perf_counter() + seconds
        if log is not None:
            with Path(log).open("a") as file:
                file.write(f"{unit.symbols[0]} {os.getpid()}\n")
        while time.perf_counter() < end:
            pass
        return _result(unit, pid=os.getpid())

    return fit


def deadly(symbols, log=None, seconds=0.002):
    """Kill the worker in the middle of some symbols."""
    quick = busy(seconds, log)

    def fit(unit):
        results = quick(unit)
        if unit.symbols[0] in symbols:
            os.kill(os.getpid(), signal.SIGKILL)
        return results

    return fit


def faulty():
    def fit(unit):
        if unit.positions[0] % 2:
            raise ZeroDivisionError("division by zero")
        sys.stdout.write("a library that talks")
        return _result(unit)

    return fit


def picky(bad):
    """Raise an error for a whole unit wherever one of some symbols is in it."""

    def fit(unit):
        if found := set(bad) & set(unit.symbols):
            raise ZeroDivisionError(f"by {min(found)}")
        return _result(unit)

    return fit


def greedy(mib):
    """Keep more memory with every unit."""
    kept = []

    def fit(unit):
        kept.append(np.ones(mib << 17))
        time.sleep(0.01)
        return _result(unit, pid=os.getpid(), kept=len(kept))

    return fit


def environment(names):
    def fit(unit):
        return _result(unit, **{name: os.environ.get(name) for name in names}, modules=sorted(sys.modules))

    return fit


def holding(array):
    """Sum what came with the source, without changing it."""
    return lambda unit: _result(unit, sum=float(array[unit.positions[0]].sum()))


def unable():
    raise DataError("the folder is gone", "prepare it again")


def stillborn():
    os._exit(3)


def large(num_bytes):
    """Results and options that no pipe holds at once."""
    return lambda unit: [SymbolResult(s, unit.preset, "done", model=bytes(num_bytes)) for s in unit.symbols]
