"""A machine of the mind: workers whose clock, fit times and memory are simulated, and a ledger in memory."""

import heapq
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from barcast.core.progress import Progress
from barcast.fleet.budget import Candidates
from barcast.fleet.driver import Driver
from barcast.fleet.executors.base import Finished
from barcast.fleet.floor import Job
from barcast.fleet.limits import Limits
from barcast.fleet.work import Begun, SymbolResult

MB = 1 << 20
LADDER = ("extreme", "fast", "standard", "high")
#: Seconds of a fit: base, a row.
TRUE = {"extreme": (0.02, 4e-5), "fast": (0.05, 1.5e-4), "standard": (0.1, 6e-4), "high": (0.3, 2e-3)}
#: Bytes of a worker: base, a row.
HELD = {"extreme": (200, 0.01), "fast": (220, 0.02), "standard": (260, 0.05), "high": (400, 0.2)}


def lognormal(seed, sigma=0.3):
    """Noise with mean 1 of each symbol and preset, the same whenever asked."""

    def noise(symbol, preset):
        rng = np.random.default_rng([seed, *map(ord, symbol + preset)])
        return float(np.exp(sigma * rng.standard_normal() - sigma**2 / 2))

    return noise


@dataclass
class Machine:
    """Clock and memory; ``slow(now)`` is by how much fits take longer that begin then."""

    noise: object = field(default_factory=lambda: lognormal(0))
    slow: object = lambda now: 1.0
    base: int = 300 * MB
    now: float = 0.0
    peak: int = 0
    fits: list = field(default_factory=list)
    kills: dict = field(default_factory=dict)  # symbol -> how many of its fits kill their worker
    bad: frozenset = frozenset()
    executors: list = field(default_factory=list)

    def clock(self):
        return self.now

    def memory(self):
        taken = self.base + sum(each.held() for each in self.executors if not each.closed)
        self.peak = max(self.peak, taken)
        return taken

    def workers(self, num_workers, worker_bytes):
        self.executors.append(Workers(self, num_workers))
        return self.executors[-1]

    def seconds(self, unit, rows):
        base, each = TRUE[unit.preset]
        return [(base + each * rows[name]) * self.noise(name, unit.preset) for name in unit.symbols]


class Workers:
    """An executor of the simulated machine; at most one unit a worker."""

    def __init__(self, machine, num_workers):
        self.machine, self.capacity, self.closed = machine, num_workers, False
        self.heap, self.ends, self.rows = [], 0, ROWS
        self.workers = [200 * MB] * num_workers
        self.idle = list(range(num_workers))
        self.begun = {}

    def held(self):
        return sum(self.workers)

    def submit(self, unit):
        machine = self.machine
        seconds = machine.seconds(unit, self.rows)
        worker = self.idle.pop()
        base, each = HELD[unit.preset]
        held = int((base + each * max(self.rows[name] for name in unit.symbols)) * MB)
        self.workers[worker] = max(self.workers[worker], held)
        machine.memory()
        machine.fits.append((machine.now, unit))
        took = sum(seconds) * machine.slow(machine.now)
        results = tuple(
            SymbolResult(name, unit.preset, "failed", own, held, reason="bad data")
            if name in machine.bad
            else SymbolResult(name, unit.preset, "done", own * machine.slow(machine.now), held, self.rows[name], model=b"m" * 100)
            for name, own in zip(unit.symbols, seconds, strict=True)
        )  # fmt: skip
        deadly = [name for name in unit.symbols if machine.kills.get(name, 0) > 0]
        for name in deadly:
            machine.kills[name] -= 1
        self.ends += 1
        finished = Finished(
            unit, () if deadly else results, "killed by SIGKILL" if deadly else "", memory_bytes=held
        )
        heapq.heappush(self.heap, (machine.now + took, self.ends, worker, finished))

    def results(self, timeout):
        machine, found = self.machine, []
        if not self.heap:
            return []
        until = min(self.heap[0][0], machine.now + timeout)
        machine.now = max(machine.now, until)
        while self.heap and self.heap[0][0] <= machine.now:
            _, _, worker, finished = heapq.heappop(self.heap)
            self.idle.append(worker)
            found.append(finished)
        return found

    def close(self):
        self.closed = True


class MemoryLedger:
    """What was committed, and in which order; a start after the fit, or two fates of a symbol, would show."""

    def __init__(self):
        self.log, self.results, self.left, self.started = [], {}, {}, {}

    @contextmanager
    def together(self):
        yield

    def start(self, units):
        for unit in units:
            self.log.append(("start", unit))
            for symbol in unit.symbols:
                assert symbol not in self.results, f"{symbol} is fitted twice"
                self.started[symbol] = unit.preset

    def begun(self):
        last = {symbol: unit for what, unit in self.log if what == "start" for symbol in unit.symbols}
        units = {unit.symbols: unit.preset for symbol, unit in last.items() if symbol not in self.results}
        return [
            Begun(preset, symbols)
            for symbols, preset in units.items()
            if len(symbols) > 1 and all(last[each].symbols == symbols for each in symbols)
        ]

    def finish(self, results):
        for each in results:
            assert self.started[each.symbol] == each.preset
            assert each.symbol not in self.results
            self.log.append(("finish", each))
            self.results[each.symbol] = each

    def leave_out(self, reasons):
        self.left.update(reasons)


ROWS = {}


def candidates(num, seed=0, same=False):
    """Symbols whose value knows nothing of their rows."""
    rng = np.random.default_rng(seed)
    symbols = tuple(f"S{number:05d}" for number in range(num))
    rows = np.full(num, 1000) if same else rng.integers(200, 3000, num)
    ROWS.update(zip(symbols, rows.tolist(), strict=True))
    return Candidates(symbols, np.arange(num), rows.astype(np.int64), rng.lognormal(0, 2, num))


def driven(machine, who, ledger=None, *, ladder=LADDER, **options):
    """Calibrate, plan and run; return driver's plan and summary."""
    limits = Limits(**{key: options.pop(key) for key in list(options) if key in Limits.__dataclass_fields__})
    job = Job(who, ladder, limits, **options)
    ledger = ledger or MemoryLedger()
    with Driver(
        ledger, machine.workers, job, progress=Progress(False), clock=machine.clock, memory=machine.memory
    ) as driver:
        driver.calibrate()
        plan = driver.plan()
        return plan, driver.run(plan), ledger
