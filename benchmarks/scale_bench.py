"""Memory and time of prepare, train and predict on synthetic markets of growing width.

    python benchmarks/scale_bench.py              # 500 and 5,000 symbols x 2,500 sessions, tech48
    python benchmarks/scale_bench.py --symbols 500,1000

Every step is a command in a process of its own; memory is PSS summed over its process tree, sampled ten times a
second, mapped pages included. Prices are random walks with a small planted reversal: nothing here is about skill.
"""

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl

from barcast.core.calendar import exchange_days
from barcast.core.memory import tree_pss_bytes
from common import OUT, log_trial, machine, write_result

NUM_SESSIONS = 2500
#: Symbols of one Parquet file.
PART = 250


def make_market(folder: Path, num_symbols: int) -> None:
    """Write bars as Parquet, a file for each ``PART`` symbols."""
    folder.mkdir(parents=True, exist_ok=True)
    first, last = np.datetime64("2012-01-03").item(), np.datetime64("2023-12-29").item()
    days = exchange_days("XNYS", first, last)[:NUM_SESSIONS]
    market = np.random.default_rng(0).normal(0, 0.008, NUM_SESSIONS)
    for start in range(0, num_symbols, PART):
        rng = np.random.default_rng(start + 1)
        count = min(PART, num_symbols - start)
        noise = rng.normal(0, 0.015, (count, NUM_SESSIONS))
        noise[:, 3:] -= 0.2 * noise[:, :-3]
        close = 30 * np.exp(np.cumsum(noise + market, axis=1))
        open_ = close * np.exp(rng.normal(0, 0.004, close.shape))
        names = [f"S{start + i:05d}" for i in range(count)]
        pl.DataFrame(
            {
                "symbol": np.repeat(names, NUM_SESSIONS),
                "date": np.tile(days, count),
                "open": open_.ravel(),
                "high": (np.maximum(open_, close) * 1.004).ravel(),
                "low": (np.minimum(open_, close) * 0.996).ravel(),
                "close": close.ravel(),
                "volume": rng.integers(10_000, 900_000, close.size).astype(np.float64),
            }
        ).write_parquet(folder / f"{start:05d}.parquet")


def measured(*words: str) -> dict:
    """Run a command of barcast and return its seconds and its peak memory."""
    command = [sys.executable, "-m", "barcast", *words]
    peak, began = [0], time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:

        def watch() -> None:
            while child.poll() is None:
                peak[0] = max(peak[0], tree_pss_bytes(child.pid))
                time.sleep(0.1)

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = child.wait()
        watcher.join()
    assert code == 0, command
    return {"seconds": time.perf_counter() - began, "bytes": peak[0]}


def journey(num_symbols: int) -> dict[str, dict]:
    """Import, train one epoch with everything after it, and forecast the next session."""
    place = OUT / f"synthetic-{num_symbols}"
    bars, found = OUT / f"synthetic-{num_symbols}-bars", {}
    if not bars.is_dir():
        make_market(bars, num_symbols)
    here = ("-w", str(place), "--quiet")
    if not (place / "market" / "store.json").is_file():
        found["import"] = measured("data", "import", str(bars), "--market", "us", "--basis", "raw", *here)
    found["train"] = measured("train", "lstm", "--epochs", "1", "--fresh", "--no-report", *here)
    found["predict"] = measured("predict", "--allow-old", *here)
    return found


def main() -> None:
    """Measure each width and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", default="500,5000")
    arguments = parser.parse_args()
    widths = [int(word) for word in arguments.symbols.split(",")]
    lines = [
        f"{NUM_SESSIONS:,} sessions, tech48, lstm 64 x 2 for one epoch, with calibration, predictions and "
        f"comparison, {machine()}", "",
        "| symbols | step | seconds | milliseconds a symbol | peak memory |", "| ---: | --- | ---: | ---: | ---: |",
    ]  # fmt: skip
    for width in widths:
        for step, values in journey(width).items():
            log_trial(benchmark="scale", symbols=width, step=step, **values)
            lines.append(
                f"| {width:,} | {step} | {values['seconds']:.1f} | {1000 * values['seconds'] / width:.1f} "
                f"| {values['bytes'] / 2**30:.2f} GiB |"
            )
    write_result("scale", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
