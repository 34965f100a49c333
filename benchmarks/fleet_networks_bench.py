"""Dedicated LSTMs: thousands from the store to the ledger, and a sample beside networks trained one by one.

    python benchmarks/fleet_networks_bench.py                # what is not done yet, then the tables
    python benchmarks/fleet_networks_bench.py --symbols 500  # fewer of the thousands: printed, not written
    python benchmarks/fleet_networks_bench.py --trial        # small, on random walks: printed, not written

The thousands are random walks of 1,300 training rows, trained by the verb for all 30 epochs: patience never ends one.
The sample is of cn_a_share, at even distances by the length of its histories, with inputs and targets of the whole
market. Each preset trains it in batches as a fleet does, early stopping included; beside it stand the same networks
one after another (fleet_networks_alone.py) with one thread or all, whichever is faster, once on the same stretches and
once on plain windows, which is what one would write: a few symbols for a minute, the seconds of a symbol extrapolated
to the labels that the fleet learned. Sides are processes of their own, looked at ten times a second; those that are done
are not run again.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from barcast.core.predictions import SEGMENTS as NAMES
from common import (
    OUT,
    SEGMENTS,
    log_trial,
    machine,
    random_walks,
    shown,
    watched,
    workspace_for,
    write_result,
)

WORKERS, PRESETS = 2, ("64", "128x2", "256x3")
#: What was promised of the thousands: minutes, and bytes of their ledger.
MINUTES, LEDGER_BYTES = 20, 1e9
#: Sides of the thousands, and the ways to train one by one.
OF_WALKS = ("market", "thousands")
ALONE = {"stretches": "one by one, the same stretches", "windows": "one by one, plain windows"}


@dataclass(frozen=True)
class Size:
    """How much is trained; ``market`` is empty where the sample is of the random walks too."""

    symbols: int = 5000
    rows: int = 1300
    epochs: int = 30
    sample: int = 128
    alone: int = 8
    seconds: float = 60.0
    market: str = "cn_a_share"

    @property
    def sessions(self) -> tuple[int, ...]:
        """Of each segment: 19 rows at the beginning and 6 at the end of `fit` teach nothing."""
        return (self.rows + 25, 60, 60, 60, 60)

    @property
    def shares(self) -> tuple[float, ...]:
        """The segments as shares of all sessions."""
        return tuple(each / sum(self.sessions) for each in self.sessions)

    @property
    def folder(self) -> Path:
        """Where finished sides rest."""
        return OUT / "fleet-networks" / (self.market or "trial")


TRIAL = Size(symbols=40, rows=300, epochs=2, sample=12, alone=2, seconds=2.0, market="")


def walks(size: Size) -> Path:
    """The workspace of the thousands."""
    return random_walks(
        OUT / "fleet-networks" / f"{size.symbols}x{size.rows}", size.symbols, sum(size.sessions)
    )


def thousands(size: Size) -> dict:
    """Train them all by the verb, from the store on."""
    import barcast
    from barcast.core.memory import keep_freed_memory
    from barcast.core.workspace import Workspace

    keep_freed_memory()  # as the command does
    place = walks(size)
    shutil.rmtree(Workspace.find(place).cache / "panels", ignore_errors=True)
    started = time.perf_counter()
    run = barcast.train_fleet(
        kind="lstm", workspace=place, preset="64", epochs=size.epochs, patience=size.epochs, shares=size.shares,
        workers=WORKERS, fresh=True, report=False, progress=True,
    ).run  # fmt: skip
    seconds, info = time.perf_counter() - started, run.info
    done = barcast.fleet_status(run.name, workspace=place, only="done").rows
    return {
        "command_seconds": seconds, "prepare": info["prepare_seconds"],
        "seconds": info["prepare_seconds"] + info["seconds"], "symbols": len(done), "failed": info["num_failed"],
        "left_out": info["num_left_out"], "rows": statistics.median(row.num_rows for row in done),
        "epochs": min(row.metrics["epochs"] for row in done), "labels": labels_of(done),
        "bytes": info["ledger_bytes"],
    }  # fmt: skip


def labels_of(rows) -> int:
    """Labels that finished networks learned, each as often as it was passed over."""
    return sum(row.num_rows * row.metrics["epochs"] for row in rows)


def sample_of(config, whole, num: int) -> np.ndarray:
    """Positions of symbols that get a network, at even distances by the rows that teach them."""
    from barcast.pipeline.fleet_networks import NETWORKS
    from barcast.pipeline.fleet_rows import teaching_counts

    short = NETWORKS[config.model].too_short(whole.data, config.options, {}, refits=False)
    able = np.array([place for place, name in enumerate(whole.data.symbols) if name not in short])
    by_length = able[np.argsort(teaching_counts(whole.data)[able], kind="stable")]
    return np.sort(by_length[np.linspace(0, len(able) - 1, min(num, len(able))).round().astype(int)])


def batched(preset: str, size: Size) -> dict:
    """Train the sample as a fleet; keep its rows for the other sides, and its skill on `route` by session."""
    from barcast.core.memory import keep_freed_memory
    from barcast.core.progress import Progress
    from barcast.core.runs import RunFolder
    from barcast.core.workspace import Workspace
    from barcast.evaluation.metrics import rank_ic
    from barcast.fleet.ledger import LEDGER, Ledger
    from barcast.fleet.limits import Limits
    from barcast.pipeline.dataset import build_dataset, resolve_features
    from barcast.pipeline.fleet import FleetHow, fit_lessons
    from barcast.pipeline.fleet_lessons import lessons_of
    from barcast.pipeline.market import load_market
    from barcast.pipeline.settings import resolve

    keep_freed_memory()
    place = Workspace.find(workspace_for(size.market) if size.market else walks(size))
    cut = (
        {"segments": SEGMENTS[size.market], "asof": "2025-08-22"} if size.market else {"shares": size.shares}
    )
    config = resolve(place, "fleet-lstm", {"preset": preset, "epochs": size.epochs, **cut})
    market = load_market(place, config.data)
    whole = lessons_of(
        build_dataset(market, place, resolve_features(place, config.data.features), tabular=True)
    )
    positions = sample_of(config, whole, size.sample)
    lessons, y = whole.of_symbols(positions), market.labels.y[whole.rows_of(positions), 0]
    lessons.data.save(size.folder / "rows")
    run = RunFolder(size.folder / preset)
    shutil.rmtree(run.path, ignore_errors=True)
    run.path.mkdir(parents=True)
    fitted = fit_lessons(config, lessons, run, Progress(True), FleetHow(limits=Limits(workers=WORKERS)))
    rows = np.flatnonzero(lessons.data.segment == NAMES.index("route"))
    session = lessons.data.session[rows].astype(np.int64)
    session -= session.min()
    scores = fitted.served.scores(lessons.data, rows)[:, 0]
    np.save(size.folder / f"{preset}.npy", rank_ic(y[rows], scores, session, int(session.max()) + 1))
    with Ledger.open(run.fleet / LEDGER) as ledger:
        done = ledger.rows(status=["done"])
    return {
        "seconds": fitted.facts["seconds"], "computing": fitted.facts["fit_seconds"], "symbols": len(done),
        "labels": labels_of(done), "epochs": statistics.fmean(row.metrics["epochs"] for row in done),
        "bytes": fitted.facts["ledger_bytes"],
    }  # fmt: skip


def alone(preset: str, how: str, size: Size) -> dict:
    """Train some symbols of the sample one after another."""
    from barcast.core.memory import keep_freed_memory
    from barcast.fleet.data import FleetData
    from barcast.fleet.networks.lessons import lessons_of
    from barcast.fleet.networks.presets import resolve
    from fleet_networks_alone import one_by_one

    keep_freed_memory()
    data = FleetData.map(size.folder / "rows")
    options = resolve("lstm", f"lstm-{preset}", {"epochs": size.epochs})
    if how == "windows":
        options = replace(options, stretch_length=1)
    chosen = np.linspace(0, len(data.symbols) - 1, min(size.alone, len(data.symbols))).round().astype(int)
    return one_by_one([lessons_of(data.one(int(place)), options, 0) for place in chosen], size.seconds)


def answer(side: str, size: Size) -> dict:
    """Do what a side is for."""
    kind, _, preset = side.partition(" ")
    if kind == "market":
        walks(size)
        return {}
    if kind == "thousands":
        return thousands(size)
    return batched(preset, size) if kind == "batched" else alone(preset, kind, size)


def found_by(sides: list[str], size: Size, flags: list[str]) -> dict[str, dict]:
    """Run the sides that are not done, each in a process of its own, and return what all of them said."""
    size.folder.mkdir(parents=True, exist_ok=True)
    kept = size.folder / "results.json"
    results = json.loads(kept.read_text()) if kept.is_file() else {}
    names = {side: f"{side} {size.symbols}" if side in OF_WALKS else side for side in sides}
    for side, name in names.items():
        if name in results:
            continue
        seen = watched(sys.executable, __file__, "--side", side, *flags)
        results[name] = {**json.loads(seen.printed.splitlines()[-1]), "peak": seen.peak()}
        kept.write_text(json.dumps(results, indent=1))
    return {side: results[name] for side, name in names.items()}


def thousands_lines(one: dict) -> list[str]:
    """Tabulate the thousands."""
    return [
        f"{one['symbols']:,} random walks, {one['rows']:,.0f} training rows and {one['epochs']} epochs each, "
        f"`barcast fleet lstm`, width 64, {WORKERS} workers, {machine()}; {one['failed']} failed, "
        f"{one['left_out']} left out.", "",
        "| what | measured | promised |", "| --- | ---: | ---: |",
        f"| from the store to the ledger | {one['seconds'] / 60:.1f} min | {MINUTES} min |",
        f"| of it before the first fit | {one['prepare']:.1f} s | |",
        f"| the whole command, forecasts and comparison included | {one['command_seconds'] / 60:.1f} min | |",
        f"| a symbol, from the store to the ledger | {one['seconds'] / one['symbols']:.3f} s | |",
        f"| labels learned a second, from the store to the ledger | {one['labels'] / one['seconds']:,.0f} | |",
        f"| peak memory of all processes, whole command | {one['peak'] / 2**30:.2f} GiB | |",
        f"| ledger | {one['bytes'] / 1e6:,.0f} MB | {LEDGER_BYTES / 1e6:,.0f} MB |",
        "",
    ]  # fmt: skip


def preset_lines(preset: str, found: dict[str, dict], folder: Path) -> list[str]:
    """Tabulate a preset: its batches, then those trained one by one."""
    ours = found[f"batched {preset}"]
    rate, each = WORKERS * ours["labels"] / ours["computing"], ours["labels"] / ours["symbols"]
    lines = [
        f"| {preset} | batched, {WORKERS} workers | {rate:,.0f} | 1.0 x | {ours['seconds'] / ours['symbols']:.2f} s "
        f"| {shown(np.load(folder / f'{preset}.npy'))} | {ours['bytes'] / ours['symbols'] / 1e3:,.0f} kB |"
    ]
    for how, name in ALONE.items():
        theirs = found[f"{how} {preset}"]
        own = theirs["labels"] / theirs["seconds"]
        lines.append(
            f"| {preset} | {name}, {theirs['threads']} thread{'s' * (theirs['threads'] > 1)} | {own:,.0f} | {rate / own:.1f} x | about {each / own:.2f} s | | |"
        )
    return lines


def sample_lines(found: dict[str, dict], size: Size) -> list[str]:
    """Tabulate the sample."""
    ours, theirs = found[f"batched {PRESETS[0]}"], found[f"windows {PRESETS[0]}"]
    epochs = ", ".join(f"{found[f'batched {preset}']['epochs']:.1f}" for preset in PRESETS)
    return [
        f"{ours['symbols']} symbols of {size.market or 'random walks'} by length, {machine()}. Labels a second are those "
        "of computing, without the start of workers or reading; a symbol's seconds are of the wall clock with both. One by "
        f"one: {theirs['symbols']} of the symbols, {size.seconds:.0f} s, its seconds a symbol "
        f"extrapolated to the fleet's labels (mean epochs {epochs}, stopped early); one such loop a core would be at most {WORKERS} times as fast. RankIC on `route`, by blocks of "
        "sessions.", "",
        "| preset | trained | labels a second | batched is faster by | a symbol | RankIC | disk a symbol |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        *(line for preset in PRESETS for line in preset_lines(preset, found, size.folder)),
    ]  # fmt: skip


def main() -> None:
    """Run what is missing and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--symbols", type=int, help=f"of the thousands; {Size.symbols:,}")
    parser.add_argument("--trial", action="store_true", help="little of everything, to see that it runs")
    parser.add_argument("--only", choices=("thousands", "sample"), help="one of the two tables")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    size = TRIAL if given.trial else Size()
    size = replace(size, symbols=given.symbols or size.symbols)
    if given.side:
        print(json.dumps(answer(given.side, size)))
        return
    of_sample = [f"{how} {preset}" for preset in PRESETS for how in ("batched", *ALONE)]
    sides = {"thousands": list(OF_WALKS), "sample": of_sample}
    wanted = [given.only] if given.only else list(sides)
    flags = [*(["--trial"] if given.trial else []), "--symbols", str(size.symbols)]
    asked = [side for table in wanted for side in sides[table]]
    found = found_by(asked, size, flags)
    lines = [] if given.only == "sample" else thousands_lines(found["thousands"])
    lines += [] if given.only == "thousands" else sample_lines(found, size)
    if size == Size() and not given.only:
        for side, one in found.items():
            if side != "market":
                log_trial(benchmark="fleet_networks", side=side, **one)
        write_result("fleet_networks", "\n".join(lines) + "\n")
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
