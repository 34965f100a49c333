"""Plans against trainings: predicted peak memory and seconds an epoch beside what really happened.

    python benchmarks/plan_bench.py                 # all configurations; those that are done are not run again
    python benchmarks/plan_bench.py --only 6        # six of them, spread over the list
    python benchmarks/plan_bench.py --fresh         # forget what is done

Each configuration is planned and then trained, one right after the other, each in a fresh process on a
synthetic market. Training is bounded to a few seconds of steps of its first epoch, with all looks at `stop`;
forecasts, ridge and the comparison follow as always. Time is what the loop counts; memory is PSS over the process
tree, twenty times a second, in a training of its own, because whoever looks at a process's memory holds it up.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import OUT, log_trial, machine, random_walks, write_result

#: How near is near enough, and the share of configurations that must be.
TOLERANCE, ENOUGH = 0.20, 0.90
#: Seconds of bounded training.
TRAIN_SECONDS = 4.0
#: Steps of the training whose memory is watched.
WATCHED_STEPS = 8
#: Little to forecast, so that a configuration takes seconds.
SHARES = "shares = [0.88, 0.03, 0.03, 0.03, 0.03]"


@dataclass(frozen=True)
class Case:
    """One configuration."""

    model: str
    symbols: int
    sessions: int
    hidden: int
    batch: int
    stretch: int = 120
    look_back: int = 60
    layers: int = 2
    features: str = "tech48"
    horizons: str = "5"

    @property
    def name(self) -> str:
        """Everything that makes it, in one word."""
        return "-".join(str(value) for value in vars(self).values())


CASES = [
    Case("lstm", 60, 1000, 16, 3840),
    Case("lstm", 60, 1000, 64, 15360),
    Case("lstm", 200, 1200, 32, 7680),
    Case("lstm", 200, 1200, 128, 15360),
    Case("lstm", 300, 2000, 64, 15360, horizons="1,5,20"),
    Case("lstm", 300, 2000, 64, 30720),
    Case("lstm", 300, 2000, 176, 7680),
    Case("lstm", 60, 1000, 64, 1024, stretch=1),
    Case("lstm", 200, 1200, 32, 4096, stretch=1, features="core12"),
    Case("lstm", 100, 2000, 64, 7680, stretch=60, look_back=30, layers=1),
    Case("gru", 60, 1000, 32, 3840),
    Case("gru", 60, 1000, 96, 15360),
    Case("gru", 200, 1200, 64, 7680),
    Case("gru", 300, 2000, 64, 15360),
    Case("gru", 300, 2000, 128, 7680),
    Case("gru", 100, 2000, 32, 2048, stretch=1, look_back=30),
    Case("gru", 200, 1200, 48, 15360, features="core12", look_back=120),
    Case("transformer", 60, 1000, 32, 3840),
    Case("transformer", 60, 1000, 64, 15360, look_back=30),
    Case("transformer", 200, 1200, 64, 7680),
    Case("transformer", 300, 2000, 32, 15360, layers=1),
    Case("transformer", 300, 2000, 64, 3840, look_back=30),
    Case("transformer", 100, 2000, 32, 1024, stretch=1, look_back=20),
    Case("transformer", 200, 1200, 96, 3840, features="core12", look_back=40),
    Case("mlp", 60, 1000, 128, 3840),
    Case("mlp", 60, 1000, 512, 30720),
    Case("mlp", 200, 1200, 256, 15360),
    Case("mlp", 300, 2000, 128, 7680),
    Case("mlp", 300, 2000, 592, 15360),
    Case("mlp", 300, 2000, 256, 4096, stretch=1, look_back=20),
    Case("mlp", 200, 1200, 128, 60000, features="core12", horizons="1,5"),
    Case("mlp", 100, 2000, 1024, 7680, look_back=20),
]


def arguments_of(case: Case, place: Path) -> list[str]:
    """What `train` and `plan train` are both given."""
    settings = place / f"{case.name}.toml"
    settings.write_text(f"[data]\n{SHARES}\n[train]\nstretch_length = {case.stretch}\n", encoding="utf-8")
    words = {
        "--config": settings, "--hidden-size": case.hidden, "--num-layers": case.layers, "--batch-size": case.batch,
        "--look-back-window": case.look_back, "--features": case.features, "--horizon": case.horizons,
        "--epochs": 1, "-w": place,
    }  # fmt: skip
    return [case.model, *(str(word) for pair in words.items() for word in pair)]


def plan(case: Case, place: Path) -> dict:
    """What the plan says."""
    command = [
        sys.executable,
        "-m",
        "barcast",
        "plan",
        "train",
        *arguments_of(case, place),
        "--json",
        "--quiet",
    ]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def trained(case: Case, place: Path, steps: int) -> dict:
    """Train for so many steps in a fresh process, then for fewer in a watched one; return its peak and what was written."""
    run = written(case, place, steps, None)
    peak: list[int] = []
    written(case, place, min(steps, WATCHED_STEPS), peak)
    return {"peak": max(peak), "labels_per_second": run["labels_per_second"], "threads": run["threads"]}


def written(case: Case, place: Path, steps: int, seen: list[int] | None) -> dict:
    """Train for so many steps in a fresh process; return its run.json, and put what it occupied into ``seen``."""
    from barcast.core.memory import tree_pss_bytes

    shutil.rmtree(place / "runs", ignore_errors=True)
    shutil.rmtree(place / "cache", ignore_errors=True)
    command = [sys.executable, __file__, "--train", str(steps), *arguments_of(case, place), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while seen is not None and process.poll() is None:
        seen.append(tree_pss_bytes(process.pid))
        time.sleep(0.05)
    if process.wait():
        raise SystemExit(f"{case.name} ended with {process.returncode}")
    (run,) = (json.loads(path.read_text()) for path in (place / "runs").glob(f"{case.model}-*/run.json"))
    return run


def train_bounded(steps: int, arguments: list[str]) -> None:
    """Be `barcast train`, with an epoch of so many steps; it is judged as often as a whole one."""
    from barcast.cli.app import main
    from barcast.training.loop import _Loop

    whole = _Loop._epoch_batches
    _Loop._epoch_batches = lambda loop: whole(loop)[:steps]
    sys.argv = ["barcast", "train", *arguments]
    main()


def result_of(case: Case) -> dict:
    """Plan and train one configuration, back to back."""
    place = random_walks(OUT / "plan" / f"{case.symbols}x{case.sessions}", case.symbols, case.sessions)
    started = time.perf_counter()
    found = plan(case, place)
    planned = time.perf_counter() - started
    compute, memory = found["compute"], found["memory"]["host"]
    steps = int(np.clip(TRAIN_SECONDS / compute["seconds_per_step"], 3, compute["steps_per_epoch"]))
    real = trained(case, place, steps)
    return {
        "rows": found["data"]["bars"], "parameters": found["parameters"]["total"], "plan_seconds": planned,
        "memory_planned": memory["peak_bytes"], "memory_real": real["peak"], "phase": memory["peak_phase"],
        "phases": memory["phases"], "threads": [compute["threads"], real["threads"]],
        "epoch_planned": compute["seconds_per_epoch"],
        "epoch_real": found["data"]["labels"] / real["labels_per_second"], "steps": steps,
        "batch_share": found["measured"]["batch_share"],
    }  # fmt: skip


def table(results: dict[str, dict]) -> list[str]:
    """One line a configuration, and how many are near enough."""

    def off(one: dict, name: str) -> float:
        return one[f"{name}_planned"] / one[f"{name}_real"] - 1

    lines = [
        f"`barcast plan train` beside `barcast train`, {machine()}; synthetic market, planned and trained back to back.",
        "", "| configuration | rows | parameters | memory planned | real | off | epoch planned | real | off |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for name, one in results.items():
        lines.append(
            f"| {name} | {one['rows']:,} | {one['parameters']:,} | {one['memory_planned'] / 2**20:,.0f} MiB | "
            f"{one['memory_real'] / 2**20:,.0f} MiB | {off(one, 'memory'):+.0%} | {one['epoch_planned']:.2f} s | "
            f"{one['epoch_real']:.2f} s | {off(one, 'epoch'):+.0%} |"
        )
    shares = {
        name: np.mean([abs(off(one, name)) <= TOLERANCE for one in results.values()])
        for name in ("memory", "epoch")
    }
    lines += ["", f"Of {len(results)} configurations within {TOLERANCE:.0%}: memory {shares['memory']:.0%}, "
              f"time {shares['epoch']:.0%}; the aim is {ENOUGH:.0%} of each."]  # fmt: skip
    return lines


def main() -> None:
    """Run what is not done yet and write the table."""
    if sys.argv[1:2] == ["--train"]:
        train_bounded(int(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, help="so many configurations, spread over the list")
    parser.add_argument("--fresh", action="store_true", help="forget what is done")
    arguments = parser.parse_args()
    kept = OUT / "plan" / "results.json"
    results = json.loads(kept.read_text()) if kept.is_file() and not arguments.fresh else {}
    step = max(len(CASES) // arguments.only, 1) if arguments.only else 1
    for case in CASES[::step][: arguments.only]:
        if case.name in results:
            continue
        started = time.perf_counter()
        results[case.name] = result_of(case)
        kept.write_text(json.dumps(results, indent=1))
        print(f"{case.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    text = "\n".join(table(results)) + "\n"
    if len(results) == len(CASES):
        write_result("plan", text)
        log_trial(benchmark="plan", results=results)
    else:
        print(text)


if __name__ == "__main__":
    main()
