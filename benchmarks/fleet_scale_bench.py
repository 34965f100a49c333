"""Fleets at their limits: 10,000 symbols in 4 GB, asking how they stand, and budgets of time and memory swept.

    python benchmarks/fleet_scale_bench.py                     # what is not done yet, then the tables
    python benchmarks/fleet_scale_bench.py --only budgets --budgets 30,60,120 # others: printed, not written
    python benchmarks/fleet_scale_bench.py --trial             # small, on random walks: printed, not written

Every fleet is a fresh run of the verb in a process of its own. Memory is PSS of the process tree, which this process
looks at ten times a second: during the fits, which `--max-memory` is about, and over the whole command, its reading,
forecasts and comparison. Seconds used are from the moment at which the budget begins until the last fit has ended or
is given up; workers are gone a little later, which is told too. The budgets are swept over cn_a_share with three
horizons, three ensembles a symbol, because one alone is done before most of them end; the seed is their own, so that
no run of another benchmark is begun anew. Sides that are done are not run again.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from common import OUT, SEGMENTS, log_trial, machine, random_walks, watched, workspace_for, write_result

WORKERS, SESSIONS, SHARES = 2, 700, (0.80, 0.05, 0.05, 0.05, 0.05)
HORIZONS, SEED = (1, 5, 20), 77
#: Times that a question is asked.
REPEATS = 7
#: What was promised: seconds of a listing, and the share by which a budget may be overshot.
LISTING, OVERSHOOT = 0.5, 0.05


@dataclass(frozen=True)
class Size:
    """How much is fitted; ``market`` is empty where the budgets are swept over the random walks too."""

    symbols: int = 10_000
    seconds: float = 300.0
    budgets: tuple[float, ...] = (20.0, 40.0, 80.0, 160.0, 320.0)
    memory: str = "4G"
    swept_memory: str = "3G"
    market: str = "cn_a_share"

    @property
    def folder(self) -> Path:
        """Where finished sides rest."""
        return OUT / "fleet-scale" / (self.market or "trial")


TRIAL = Size(symbols=60, seconds=20.0, budgets=(8.0, 16.0), market="")


def walks(size: Size) -> Path:
    """The workspace of the thousands."""
    return random_walks(OUT / "fleet-scale" / f"{size.symbols}x{SESSIONS}", size.symbols, SESSIONS)


def noted() -> dict[str, float]:
    """Let the driver of the next fleet note when its budget begins, its fits end, and its workers are gone."""
    from barcast.fleet.driver import Driver

    moments: dict[str, float] = {}
    make, run, close = Driver.__init__, Driver.run, Driver.close

    def made(driver, *given, **named) -> None:
        moments.setdefault("began", time.monotonic())
        make(driver, *given, **named)

    def ran(driver, plan):
        summary = run(driver, plan)
        moments.setdefault("fitted", time.monotonic())
        return summary

    def closed(driver) -> None:
        close(driver)
        moments.setdefault("ended", time.monotonic())

    Driver.__init__, Driver.run, Driver.close = made, ran, closed
    return moments


def fitted(place: Path, **options) -> dict:
    """Fit a fresh fleet of trees by the verb and say what became of its symbols."""
    import barcast

    moments = noted()
    run = barcast.train_fleet(
        workspace=place, workers=WORKERS, fresh=True, report=False, progress=True, **options
    ).run
    status = barcast.fleet_status(run.name, workspace=place)
    without = [row for row in status.rows if row.status in ("failed", "left_out")]
    return {
        "run": run.name, **moments, "counts": status.counts, "presets": status.presets,
        "reasons": Counter(f"{row.status}: {row.reason.partition(':')[0]}" for row in without),
        "bytes": status.ledger_bytes,
    }  # fmt: skip


def thousands(size: Size) -> dict:
    """Fit the random walks."""
    return fitted(walks(size), preset="standard", shares=SHARES, budget=size.seconds, max_memory=size.memory)


def swept(budget: float, size: Size) -> dict:
    """Fit a market with a budget, heavier than most of them allow."""
    place = workspace_for(size.market) if size.market else walks(size)
    cut = {"segments": SEGMENTS[size.market], "asof": "2025-08-22"} if size.market else {"shares": SHARES}
    return fitted(
        place, preset="high", horizons=HORIZONS, seed=SEED, budget=budget, max_memory=size.swept_memory, **cut
    )


def asked_by_command(place: Path, run: str, *flags: str) -> float:
    """Seconds of `barcast fleet status` as a whole command, the median."""
    command = [sys.executable, "-m", "barcast", "fleet", "status", "--run", run, "-w", str(place), *flags]
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def status(size: Size, run: str) -> dict:
    """Ask how the thousands stand: by the command, and by the verb in a process that did so before."""
    import barcast

    place, seconds = walks(size), []
    num_rows = len(barcast.fleet_status(run, workspace=place).rows)
    for _ in range(REPEATS):
        started = time.perf_counter()
        barcast.fleet_status(run, workspace=place)
        seconds.append(time.perf_counter() - started)
    return {
        "rows": num_rows, "verb": statistics.median(seconds), "text": asked_by_command(place, run),
        "json": asked_by_command(place, run, "--json"),
    }  # fmt: skip


def answer(side: str, size: Size) -> dict:
    """Do what a side is for."""
    kind, _, told = side.partition(" ")
    if kind == "market":
        walks(size)
        return {}
    if kind == "thousands":
        return thousands(size)
    return status(size, told) if kind == "status" else swept(float(told), size)


def found_by(side: str, size: Size, flags: list[str]) -> dict:
    """Return what a side said, run in a process of its own where it is not done."""
    size.folder.mkdir(parents=True, exist_ok=True)
    kept = size.folder / "results.json"
    results = json.loads(kept.read_text()) if kept.is_file() else {}
    if side not in results:
        seen = watched(sys.executable, __file__, "--side", side, *flags)
        found = json.loads(seen.printed.splitlines()[-1])
        peaks = {"peak": seen.peak(), "seconds": seen.seconds}
        if "began" in found:
            began, done, gone = (found.pop(name) for name in ("began", "fitted", "ended"))
            peaks |= {"fits_peak": seen.peak(began, gone), "used": done - began, "gone": gone - began}
        results[side] = {**found, **peaks}
        kept.write_text(json.dumps(results, indent=1))
    return results[side]


def became(one: dict) -> str:
    """Write what became of the symbols of a fleet: presets, heaviest first, and who has none."""
    order = ("published", "high", "standard", "fast", "extreme")
    return ", ".join(f"{one['presets'][name]:,} {name}" for name in order if name in one["presets"]) or "none"


def thousands_lines(one: dict, asked: dict, size: Size) -> list[str]:
    """Tabulate the thousands, and asking how they stand."""
    counts, reasons = one["counts"], one["reasons"]
    told = (
        "; ".join(f"{num:,} {reason.replace('_', ' ')}" for reason, num in reasons.items())
        or "nobody without"
    )
    return [
        f"{sum(counts.values()):,} random walks of {SESSIONS} sessions, `barcast fleet trees`, budget "
        f"{size.seconds:.0f} s, {WORKERS} workers, {machine()}. {counts['done']:,} done ({became(one)}), "
        f"{counts['failed']:,} failed, {counts['left_out']:,} left out ({told}).", "",
        "| what | measured | promised |", "| --- | ---: | ---: |",
        f"| fits, until workers are gone | {one['gone']:.0f} s | {size.seconds * (1 + OVERSHOOT):.0f} s |",
        f"| the whole command | {one['seconds']:.0f} s | |",
        f"| peak memory during the fits | {one['fits_peak'] / 2**30:.2f} GiB | {size.memory} |",
        f"| peak memory of the whole command | {one['peak'] / 2**30:.2f} GiB | {size.memory} |",
        f"| ledger | {one['bytes'] / max(counts['done'], 1) / 1e3:.0f} kB a model | |",
        f"| `fleet status` of {asked['rows']:,}, the command (median of {REPEATS}) | {asked['text']:.2f} s | {LISTING} s |",
        f"| `fleet status --json`, the command | {asked['json']:.2f} s | |",
        f"| `fleet_status`, in a process that did so before | {asked['verb']:.2f} s | {LISTING} s |",
        "",
    ]  # fmt: skip


def budget_line(budget: float, one: dict) -> str:
    """Write one budget as a row."""
    universal = one["counts"]["left_out"]
    short = one["reasons"].get("left_out: too short", 0)
    over = max(one["used"] / budget - 1, 0.0)
    return (
        f"| {budget:.0f} s | {one['used']:.1f} s | {over:.1%} | {one['gone']:.1f} s | {one['fits_peak'] / 2**30:.2f} GiB "
        f"| {one['peak'] / 2**30:.2f} GiB | {became(one)} | {universal - short:,} | {one['counts']['failed']:,} |"
    )


def budget_lines(found: dict[float, dict], size: Size) -> list[str]:
    """Tabulate the budgets."""
    one = next(iter(found.values()))
    worst = max(max(each["used"] / budget - 1, 0.0) for budget, each in found.items())
    return [
        f"`barcast fleet trees --preset high --max-memory {size.swept_memory}` on {size.market or 'random walks'}, "
        f"horizons {', '.join(map(str, HORIZONS))}, {WORKERS} workers, {machine()}; "
        f"{one['reasons'].get('left_out: too short', 0):,} symbols are too short for any model. Overshoot at most "
        f"{worst:.1%}, promised {OVERSHOOT:.0%}.", "",
        "| budget | used | overshoot | workers gone | peak memory, fits | whole command | presets | left universal | failed |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
        *(budget_line(budget, each) for budget, each in found.items()),
    ]  # fmt: skip


def main() -> None:
    """Run what is missing and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trial", action="store_true", help="little of everything, to see that it runs")
    parser.add_argument("--only", choices=("thousands", "budgets"), help="one of the two tables")
    parser.add_argument("--budgets", help="seconds, separated by commas")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    size = TRIAL if given.trial else Size()
    if given.budgets:
        size = replace(size, budgets=tuple(map(float, given.budgets.split(","))))
    if given.side:
        print(json.dumps(answer(given.side, size)))
        return
    flags, found, lines = ["--trial"] if given.trial else [], {}, []
    if given.only != "budgets":
        found_by("market", size, flags)
        found["thousands"] = found_by("thousands", size, flags)
        found["status"] = found_by(f"status {found['thousands']['run']}", size, flags)
        lines += thousands_lines(found["thousands"], found["status"], size)
    if given.only != "thousands":
        each = {budget: found_by(f"budget {budget:g}", size, flags) for budget in size.budgets}
        found |= {f"budget {budget:g}": one for budget, one in each.items()}
        lines += budget_lines(each, size)
    if given.trial or given.only:
        print("\n".join(lines))
        return
    for side, one in found.items():
        log_trial(benchmark="fleet_scale", side=side, **one)
    write_result("fleet_scale", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
