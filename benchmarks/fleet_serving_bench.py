"""Serving a fleet of ensembles from cold: one row for each of 3,800 symbols in a process that does nothing else.

    python benchmarks/fleet_serving_bench.py                 # 3,800 symbols of the preset `published`
    python benchmarks/fleet_serving_bench.py --symbols 400   # a small part, to see that it runs

The fleet is made up (random rows, 1,200 of `fit` and 250 of `stop` a symbol, 13 inputs) but of the preset's real
size: a few dozen ensembles are fitted, and each stands in the file as often as it takes. Cold is wall clock from the
start of a new interpreter to the scores, kernels compiled before and pages in the cache; the first ever compiles them.
XGBoost's and LightGBM's own predictions of the same rows stand beside ours; the forest is a kernel of our own.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from common import OUT, log_trial, machine, write_result

NUM_SYMBOLS, NUM_FITTED, NUM_INPUTS = 3800, 24, 13
REPEATS, CALLS = 11, 21
#: What was promised, in seconds.
COLD, WARM = 0.5, 0.05
SERVE = """
import sys, time
started = float(sys.argv[3])
import numpy as np
from pathlib import Path
from barcast.fleet.trees.packed_fleet import map_fleet
fleet, rows = map_fleet(Path(sys.argv[1])), np.load(sys.argv[2])
scores = fleet.scores(rows)
cold, own = time.monotonic() - started, []
cpu = time.process_time()
for _ in range(int(sys.argv[4])):
    began = time.perf_counter()
    fleet.scores(rows)
    own.append(time.perf_counter() - began)
heavy = [name for name in ("scipy", "lightgbm", "xgboost", "torch", "polars") if name in sys.modules]
import json
print(json.dumps({"cold": cold, "cpu": cpu, "warm": sorted(own)[len(own) // 2] if own else None, "heavy": heavy}))
"""


def fitted(position: int) -> tuple[bytes, bytes]:
    """Fit one made-up symbol and return its packed ensemble and the libraries' own files."""
    from barcast.fleet.data import SymbolData
    from barcast.fleet.trees.fit import fit_symbol
    from barcast.fleet.trees.presets import configured

    rng = np.random.default_rng(position)
    inputs = rng.normal(size=(1450, NUM_INPUTS)).astype(np.float32).clip(-5, 5)
    target = (0.1 * inputs[:, 0] * (inputs[:, 1] > 0) + rng.normal(size=1450)).astype(np.float32)[:, None]
    data = SymbolData(
        f"S{position}", inputs, target, np.arange(1450, dtype=np.int32),
        np.repeat([0, 1], [1200, 250]).astype(np.int8), np.zeros(1450, np.int64),
    )  # fmt: skip
    found = fit_symbol(data, configured("published"), 0)
    return found["model"], found["native"]


def made(folder: Path, num_symbols: int) -> list[bytes]:
    """Write the file of packed models and the rows; return the libraries' own files of those fitted."""
    from barcast.fleet.trees.packed_fleet import FleetEntry, write_fleet

    folder.mkdir(parents=True, exist_ok=True)
    ensembles = [fitted(position) for position in range(min(NUM_FITTED, num_symbols))]
    weights, constant = np.full((1, 3), 1 / 3), np.zeros(1)
    entries = (
        FleetEntry(f"S{place:05d}", ensembles[place % len(ensembles)][0], weights, constant)
        for place in range(num_symbols)
    )
    write_fleet(folder / "models.bin", f"made up, {num_symbols}", entries)
    rows = np.random.default_rng(7).normal(size=(num_symbols, NUM_INPUTS)).astype(np.float32).clip(-5, 5)
    np.save(folder / "rows.npy", rows)
    return [native for _, native in ensembles]


def serve(folder: Path, calls: int, **environment: str) -> dict:
    """Serve in a new process."""
    command = [sys.executable, "-c", SERVE, folder / "models.bin", folder / "rows.npy"]
    started = time.monotonic()
    done = subprocess.run(
        [*map(str, command), repr(started), str(calls)], check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    return json.loads(done.stdout)


def differences(folder: Path, natives: list[bytes]) -> dict[str, float]:
    """Return the largest difference of each booster from its library's own prediction, over its standard deviation."""
    import lightgbm
    import xgboost

    from barcast.fleet.trees.native import unzipped
    from barcast.fleet.trees.packed_fleet import map_fleet
    from barcast.fleet.trees.presets import MEMBERS

    rows = np.load(folder / "rows.npy")
    members = map_fleet(folder / "models.bin").members(rows)[:, 0]
    worst = dict.fromkeys(("xgboost", "lightgbm"), 0.0)
    for place, native in enumerate(natives):
        own, files = np.arange(place, len(rows), len(natives)), unzipped(native)
        booster = xgboost.Booster(model_file=bytearray(files["xgboost_0.ubj"]))
        told = {
            "xgboost": booster.predict(xgboost.DMatrix(rows[own], nthread=1)),
            "lightgbm": lightgbm.Booster(model_str=files["lightgbm_0.txt"].decode()).predict(rows[own]),
        }
        for name, values in told.items():
            ours = members[own, MEMBERS.index(name)]
            worst[name] = max(
                worst[name], float(np.abs(ours - values).max() / members[:, MEMBERS.index(name)].std())
            )
    return worst


def main() -> None:
    """Make the fleet, serve it in fresh processes and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=NUM_SYMBOLS)
    num_symbols = parser.parse_args().symbols
    folder = OUT / "fleet-serving"
    natives = made(folder, num_symbols)
    kernels = tempfile.mkdtemp(prefix="barcast-kernels-")
    try:
        first = serve(folder, 0, NUMBA_CACHE_DIR=kernels)
        runs = [serve(folder, CALLS, NUMBA_CACHE_DIR=kernels) for _ in range(REPEATS)]
    finally:
        shutil.rmtree(kernels, ignore_errors=True)
    cold, warm, cpu = (statistics.median(run[name] for run in runs) for name in ("cold", "warm", "cpu"))
    slowest, size = max(run["cold"] for run in runs), (folder / "models.bin").stat().st_size
    worst = differences(folder, natives)
    log_trial(
        benchmark="fleet_serving", symbols=num_symbols, cold=cold, cold_slowest=slowest, cold_cpu=cpu, warm=warm,
        first_ever=first["cold"], bytes=size, differences=worst,
    )  # fmt: skip
    lines = [
        f"{num_symbols:,} made-up symbols of the preset `published`, one row each, {size / num_symbols / 1000:.0f} kB a "
        f"symbol, {machine()}, load {os.getloadavg()[0]:.1f}. Imported beside numpy and numba: "
        f"{', '.join(runs[0]['heavy']) or 'no library that trained, no SciPy'}.", "",
        "| what | measured | promised |", "| --- | ---: | ---: |",
        f"| cold, interpreter and imports included (median of {REPEATS}) | {cold:.2f} s | {COLD} s |",
        f"| cold, the slowest | {slowest:.2f} s | |",
        f"| cold, seconds of CPU | {cpu:.2f} s | |",
        f"| warm (median of {CALLS}) | {1000 * warm:.0f} ms | {1000 * WARM:.0f} ms |",
        f"| the first call ever, which compiles the kernels | {first['cold']:.1f} s | |",
        *(f"| largest difference from {name}, in standard deviations of its forecasts | {each:.1e} | 1e-5 |"
          for name, each in worst.items()),
    ]  # fmt: skip
    write_result("fleet_serving", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
