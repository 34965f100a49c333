"""How fast features are computed on a real market: barcast, polars ``over``, qlib's expression engine.

    barcast data import cn_a_share.parquet --market cn --basis adjusted --volume-unit share --workspace WS
    python benchmarks/features_bench.py --workspace WS [--qlib-python /path/to/python-with-pyqlib]

Every contender gets one core, is warm (imported, compiled, data in memory), computes whole columns of the
same unbroken stretches of bars, and is timed three times (qlib once); the best counts. The common subset is
what polars and qlib can express of tech48; the values are compared before the times are believed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

REPEATS = 3
#: name -> qlib's expression; barcast has them by name, polars below
COMMON = {
    **{f"ret_{n}": f"Log($close/Ref($close,{n}))" for n in (1, 2, 3, 5, 10, 20, 60)},
    "mom_60_5": "Log(Ref($close,5)/Ref($close,60))",
    "gap": "Log($open/Ref($close,1))",
    "intraday": "Log($close/$open)",
    "hl_range": "Log($high/$low)",
    **{f"sma_{n}": f"$close/Mean($close,{n})-1" for n in (5, 10, 20, 60)},
    "boll_w": "4*Std($close,20)/Mean($close,20)",
    **{f"vol_{n}": f"Std(Log($close/Ref($close,1)),{n})" for n in (5, 20, 60)},
    "dd_60": "$close/Max($close,60)-1",
    "up_60": "$close/Min($close,60)-1",
    "dvol_1": "Log(($volume+1)/(Ref($volume,1)+1))",
    "relvol_20": "Log(($volume+1)/(Mean($volume,20)+1))",
    "corr_rv_20": "Corr(Log($close/Ref($close,1)),Log(($volume+1)/(Ref($volume,1)+1)),20)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--qlib-python", type=Path, help="an interpreter that has pyqlib")
    parser.add_argument("--qlib-series", type=int, default=500, help="stretches that qlib gets")
    parser.add_argument("--polars-worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.polars_worker:
        print(json.dumps(polars_worker(given.polars_worker)))
        return
    core = {max(os.sched_getaffinity(0))} if hasattr(os, "sched_getaffinity") else None
    if core:
        os.sched_setaffinity(0, core)  # the children inherit it

    from barcast.features import compute_features, feature_set
    from barcast.store import MarketStore

    bars = MarketStore.open(given.workspace / "market").bars()
    print(f"{len(bars):,} bars, {bars.num_symbols:,} symbols, {len(bars.lives) - 1:,} stretches, one core\n")
    rows = []
    for name in ("tech48", "tech_close", "core12", "adv11", "ohlcv5"):
        made = feature_set(name)
        out = compute_features(bars, made, num_threads=1)
        best = timed(lambda made=made, out=out: compute_features(bars, made, out=out, num_threads=1))
        rows.append((f"barcast, {name} ({len(made.features)})", out.size, *best))
        if name == "tech48":
            ours = out
    subset = feature_set("tech48").subset("common", COMMON, "what all three can express")
    out = compute_features(bars, subset, num_threads=1)
    best = timed(lambda: compute_features(bars, subset, out=out, num_threads=1))
    rows.append((f"barcast, common subset ({len(COMMON)})", out.size, *best))
    positions = [feature_set("tech48").names.index(name) for name in COMMON]
    assert np.array_equal(out, ours[:, positions], equal_nan=True)
    with tempfile.TemporaryDirectory() as folder:
        rows.append(run_polars(Path(folder), bars, out))
        if given.qlib_python:
            rows.append(run_qlib(Path(folder), bars, out, given.qlib_python, given.qlib_series))
    print(f"{'':44}{'row-features':>14}{'wall s':>9}{'cpu s':>9}{'million/s':>11}")
    for label, size, wall, cpu in rows:
        print(f"{label:44}{size:14,}{wall:9.2f}{cpu:9.2f}{size / wall / 1e6:11.0f}")


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Best wall and CPU seconds of a few runs, after one that is not counted."""
    work()
    walls, cpus = [], []
    for _ in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return min(walls), min(cpus)


def run_polars(folder: Path, bars, expected) -> tuple:
    import polars as pl

    life = np.repeat(np.arange(len(bars.lives) - 1, dtype=np.int32), np.diff(bars.lives))
    frame = pl.DataFrame(
        {"life": life, **{n: getattr(bars, n) for n in ("open", "high", "low", "close", "volume")}}
    )
    frame.write_ipc(folder / "bars.arrow")
    answer = child([sys.executable, __file__, "--workspace", ".", "--polars-worker", folder / "bars.arrow"],
                   POLARS_MAX_THREADS="1")  # fmt: skip
    compare("polars", np.load(folder / "bars.npy"), expected, 1e-4)
    return f"polars {pl.__version__} over, common subset", expected.size, answer["seconds"], answer["cpu"]


def polars_worker(path: Path) -> dict:
    import polars as pl

    frame = pl.read_ipc(path).rechunk()
    c, v = pl.col("close"), (pl.col("volume") + 1).log()
    r = c.log().diff()
    expressions = {
        **{f"ret_{n}": c.log().diff(n) for n in (1, 2, 3, 5, 10, 20, 60)},
        "mom_60_5": c.shift(5).log() - c.shift(60).log(),
        "gap": pl.col("open").log() - c.shift(1).log(),
        "intraday": c.log() - pl.col("open").log(),
        "hl_range": pl.col("high").log() - pl.col("low").log(),
        **{f"sma_{n}": c / c.rolling_mean(n) - 1 for n in (5, 10, 20, 60)},
        "boll_w": 4 * c.rolling_std(20) / c.rolling_mean(20),
        **{f"vol_{n}": r.rolling_std(n) for n in (5, 20, 60)},
        "dd_60": c / c.rolling_max(60) - 1,
        "up_60": c / c.rolling_min(60) - 1,
        "dvol_1": v.diff(),
        "relvol_20": v - (pl.col("volume").rolling_mean(20) + 1).log(),
        "corr_rv_20": pl.rolling_corr(r, v.diff(), window_size=20),
    }
    columns = [e.over("life").cast(pl.Float32).alias(name) for name, e in expressions.items()]
    wall, cpu = timed(lambda: frame.lazy().select(columns).collect(engine="in-memory"))
    values = frame.lazy().select(columns).collect(engine="in-memory")
    np.save(path.with_suffix(".npy"), values.select(list(COMMON)).to_numpy())
    return {"seconds": wall, "cpu": cpu}


def run_qlib(folder: Path, bars, expected, python: Path, num_series: int) -> tuple:
    from qlib_folder import FIELDS, write_qlib_folder

    borders = bars.lives[: num_series + 1]
    longest = int(np.diff(borders).max())
    days = np.datetime64("2000-01-01") + np.arange(longest)  # stretches have no holes: any calendar will do
    names = [f"L{s:05d}" for s in range(len(borders) - 1)]
    write_qlib_folder(
        folder / "qlib",
        days,
        names,
        np.zeros(len(names), int),
        {n: getattr(bars, n) for n in FIELDS},
        borders,
    )
    (folder / "fields.json").write_text(json.dumps(list(COMMON.values())))
    worker = Path(__file__).with_name("qlib_worker.py")
    answer = child(
        [python, worker, "features", folder / "qlib", folder / "fields.json", "--save", folder / "q.npy"]
    )
    values = np.load(folder / "q.npy")
    compare("qlib", values, expected[: len(values)], 2e-3)  # its files are float32, and so are its logarithms
    label = f"qlib {answer['version']} expressions, {len(names)} stretches"
    return label, answer["rows"] * answer["columns"], answer["seconds"], answer["cpu"]


def child(command: list, **environment: str) -> dict:
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(who: str, found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Refuse times of different things: nearly all values must agree (flat windows have other rules)."""
    both = ~(np.isnan(found) | np.isnan(expected))
    agree = np.isclose(found[both], expected[both], rtol=tolerance, atol=tolerance).mean()
    print(f"{who}: {both.mean():.1%} of values in both, {agree:.3%} of them agree within {tolerance}")
    assert agree > 0.995


if __name__ == "__main__":
    main()
