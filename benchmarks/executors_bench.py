"""What executors cost: thousands of tiny tasks, each 2 ms of computing, with workers that are already there.

    python benchmarks/executors_bench.py
    python benchmarks/executors_bench.py --units 400 --rounds 1     # a look; nothing is written

Two overheads are told. By the clock: wall time over that of the tasks shared out evenly, which says something
on a machine that does nothing else. By computing: processor time of the driver, its workers and (Ray) servers
over that of the tasks, which holds on a busy machine too; on cores that are all at work the two are the same.
"""

import argparse
import os
import statistics
import time
from contextlib import closing, suppress
from pathlib import Path

from barcast.fleet.executors import executor
from barcast.fleet.work import FitSource, SymbolResult, Unit
from common import machine, write_result

TASK_SECONDS = 0.002


def computing():
    """A fit that takes 2 ms of its own processor, however busy the machine is, and brings a small result."""

    def fit(unit):
        end = time.process_time() + TASK_SECONDS
        while time.process_time() < end:
            pass
        return [SymbolResult(unit.symbols[0], unit.preset, "done", metrics={"ic": 0.01}, model=bytes(200))]

    return fit


def tree():
    """Process ids of this process and all that descend from it."""
    pending, found = [os.getpid()], []
    while pending:
        pid = pending.pop()
        found.append(pid)
        for children in Path(f"/proc/{pid}/task").glob("*/children"):  # of each thread
            with suppress(OSError):
                pending += map(int, children.read_text().split())
    return found


def processor_seconds():
    """Processor time of the tree, of all threads."""
    ticks = 0
    for pid in tree():
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def drive(pool, num_units):
    """Fit so many units the way a driver does."""
    waiting, under_way = num_units, 0
    while waiting or under_way:
        while waiting and under_way < pool.capacity:
            waiting -= 1
            under_way += 1
            pool.submit(Unit((f"S{waiting:05d}",), (waiting,), "fast"))
        under_way -= len(pool.results(10.0))


def measure(name, num_workers, num_units, num_rounds):
    """Overheads of the rounds in percent, by the clock and by computing, and the seconds of the start."""
    began = time.perf_counter()
    source = FitSource("executors_bench", "computing")
    with closing(executor(name, num_workers, source)) as pool:
        drive(pool, num_workers)
        start = time.perf_counter() - began
        drive(pool, 20 * num_workers)
        wall, computed = [], []
        for _ in range(num_rounds):
            began, before = time.perf_counter(), processor_seconds()
            drive(pool, num_units)
            spent, ideal = time.perf_counter() - began, num_units * TASK_SECONDS
            computed.append(100 * ((processor_seconds() - before) / ideal - 1))
            wall.append(100 * (spent / (ideal / num_workers) - 1))
    return wall, computed, start


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--units", type=int, default=3800)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    lines = [
        "# Executors",
        "",
        f"{options.units:,} tasks of {1000 * TASK_SECONDS:.0f} ms on {options.workers} workers that are there "
        f"already; overhead over the tasks alone, median (and least) of {options.rounds} rounds. {machine()}, "
        f"load {os.getloadavg()[0]:.1f} as it began.",
        "",
        "| executor | workers | by the clock, % | by computing, % | start, s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in ("serial", "processes", "ray"):
        num_workers = 1 if name == "serial" else options.workers
        wall, computed, start = measure(name, num_workers, options.units, options.rounds)
        told = (f"{statistics.median(each):.1f} ({min(each):.1f})" for each in (wall, computed))
        lines.append(f"| {name} | {num_workers} | {' | '.join(told)} | {start:.1f} |")
    text = "\n".join(lines) + "\n"
    if options.units == parser.get_default("units"):
        write_result("executors", text)
    else:
        print(text)


if __name__ == "__main__":
    main()
