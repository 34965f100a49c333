"""The next session for every symbol of cn_a_share, from the store to the table: cold and warm.

    python benchmarks/predict_bench.py              # trains a run of one epoch first if none can serve

Cold is the first call of a fresh process, imports included; warm is the calls after it.
"""

import argparse
import json
import subprocess
import sys
import time

from common import SEGMENTS, log_trial, machine, workspace_for, write_result

ASOF = "2025-08-22"
CALLS = 5


def trained(model: str) -> str:
    """Return the name of a run that can serve, trained for one epoch where there is none yet."""
    from barcast.core.memory import keep_freed_memory
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.settings import resolve
    from barcast.pipeline.train import train

    keep_freed_memory()
    place = Workspace.find(workspace_for("cn_a_share"))
    short = {} if model == "ridge" else {"epochs": 1}
    flags = {"segments": SEGMENTS["cn_a_share"], "asof": ASOF, **short}
    return train(place, resolve(place, model, flags), progress=Progress(True)).run.name


def serve(name: str) -> dict:
    """Forecast the same session several times in this process."""
    began = time.perf_counter()
    from barcast.core.memory import keep_freed_memory
    from barcast.core.runs import open_run
    from barcast.core.workspace import Workspace
    from barcast.pipeline.predict import predict

    keep_freed_memory()
    place, seconds = Workspace.find(workspace_for("cn_a_share")), []
    run = open_run(place, name)
    for _ in range(CALLS):
        found = predict(place, run, asof=ASOF, allow_old=True, save=False)
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    warm = sorted(seconds[1:])
    return {"cold": seconds[0], "warm": warm[len(warm) // 2], "symbols": len(found.table)}


def alone(*words: str) -> str:
    """Run this file in a process of its own and return its last line."""
    command = [sys.executable, __file__, *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]


def main() -> None:
    """Measure each model in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train")
    parser.add_argument("--serve")
    parser.add_argument("--models", default="lstm,transformer,ridge")
    arguments = parser.parse_args()
    if arguments.train or arguments.serve:
        print(trained(arguments.train) if arguments.train else json.dumps(serve(arguments.serve)))
        return
    lines = [
        f"cn_a_share, as of {ASOF}, store to table with every quality check, {machine()}", "",
        "| model | symbols | cold, with imports | warm |", "| --- | ---: | ---: | ---: |",
    ]  # fmt: skip
    for model in arguments.models.split(","):
        found = json.loads(alone("--serve", alone("--train", model)))
        log_trial(benchmark="predict", model=model, **found)
        lines.append(f"| {model} | {found['symbols']:,} | {found['cold']:.1f} s | {found['warm']:.1f} s |")
    write_result("predict", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
