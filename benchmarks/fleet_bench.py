"""Thousands of ensembles: `barcast fleet trees --preset published` beside the same three libraries in a plain pool.

    python benchmarks/fleet_bench.py                 # cn_a_share, every symbol with 500 training rows
    python benchmarks/fleet_bench.py --limit 400     # a part of them, on both sides: printed, not written

Ours goes from the store to the ledger: bars, their checks, features (`core12`, nothing cached), fits, weights, packed
file; a second row leaves out the reading and checking of bars, which the rival is spared. The rival gets features, targets and segments as arrays, in a process pool with one thread each; for each symbol it fits
scikit-learn's RandomForestRegressor, XGBRegressor and LGBMRegressor with the same hyper-parameters, all other options
as the libraries have them, and saves the three. Skill is RankIC on `weigh` and `route` of the plain mean of the three
members, standardised within each, on both sides; the difference is paired by session. Each side is a process of its
own, looked at ten times a second: its memory is the most that the whole tree of processes held in the seconds that count.
"""

import argparse
import json
import os
import pickle
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from barcast.core.predictions import SEGMENTS as NAMES
from barcast.evaluation.metrics import rank_ic
from common import OUT, SEGMENTS, log_trial, machine, shown, watched, workspace_for, write_result

WORKERS, MIN_ROWS = 2, 500
JUDGED = [NAMES.index("weigh"), NAMES.index("route")]


def config_of(limit: int):
    """The workspace and what is fitted in it."""
    from barcast.core.workspace import Workspace
    from barcast.pipeline.settings import resolve

    place = Workspace.find(workspace_for("cn_a_share"))
    flags = {"preset": "published", "segments": SEGMENTS["cn_a_share"], "asof": "2025-08-22", "limit": limit}
    return place, resolve(place, "fleet-trees", flags)


def ours(limit: int) -> dict:
    """Fit a fresh fleet; keep the rows and what its members say for the other side and the comparison."""
    from barcast.core.memory import keep_freed_memory
    from barcast.core.progress import Progress
    from barcast.core.runs import RunFolder
    from barcast.fleet.ledger import LEDGER, Ledger
    from barcast.fleet.limits import Limits
    from barcast.pipeline.dataset import build_dataset, resolve_features
    from barcast.pipeline.fleet import FleetHow, fit_fleet
    from barcast.pipeline.fleet_rows import fleet_data
    from barcast.pipeline.market import load_market

    keep_freed_memory()
    place, config = config_of(limit)
    shutil.rmtree(place.cache / "panels", ignore_errors=True)
    began = time.monotonic()
    market = load_market(place, config.data)
    read = time.monotonic() - began
    dataset = build_dataset(market, place, resolve_features(place, config.data.features), tabular=True)
    prepared = time.monotonic() - began
    folder = OUT / "fleet"
    shutil.rmtree(folder, ignore_errors=True)
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    fitted = fit_fleet(config, dataset, run, Progress(True), FleetHow(limits=Limits(workers=WORKERS)))
    ended = time.monotonic()
    packed = fitted.served.packed
    data = fleet_data(dataset)
    data.save(folder / "rows")
    rows = np.flatnonzero(np.isin(data.segment, JUDGED))
    owner = np.repeat(np.arange(len(data.symbols)), np.diff(data.offsets))[rows]
    place_of = {symbol: position for position, symbol in enumerate(packed.symbols)}
    which = np.array([place_of.get(data.symbols[s], -1) for s in owner])
    served = which >= 0
    members = packed.members(data.inputs[rows[served]], which[served])[:, 0]
    np.savez(folder / "ours.npz", rows=rows[served], members=members, y=market.labels.y[rows[served], 0])
    with Ledger.open(run.fleet / LEDGER) as ledger:
        symbols = [row.symbol for row in ledger.rows(status=["done"])]
        size = ledger.size_bytes() + run.weights.stat().st_size
    (folder / "symbols.json").write_text(json.dumps(symbols))
    return {
        "began": began, "ended": ended, "read": read, "prepare": prepared, "symbols": len(symbols), "bytes": size,
        "fit_seconds": fitted.facts["fit_seconds"],
    }  # fmt: skip


def fit_rival(task: tuple[str, str, int]) -> np.ndarray:
    """Fit and save the three models of a symbol; return what they say of the judged rows (n, 3)."""
    from lightgbm import LGBMRegressor
    from sklearn.ensemble import RandomForestRegressor
    from xgboost import XGBRegressor

    from barcast.fleet.data import FleetData

    folder, out, position = task
    data = FleetData.map(Path(folder)).one(position)
    fit, stop = data.labelled("fit"), data.labelled("stop")
    judged = np.flatnonzero(np.isin(data.segment, JUDGED))
    x, y, x_stop, y_stop = data.inputs[fit], data.y(fit), data.inputs[stop], data.y(stop)
    forest = RandomForestRegressor(
        100, max_depth=10, max_features=0.8, min_samples_leaf=10, max_samples=0.8, n_jobs=1, random_state=0
    ).fit(x, y)
    xgboost = XGBRegressor(
        n_estimators=70, max_depth=4, learning_rate=0.2, subsample=0.8, colsample_bytree=0.8, reg_alpha=0.1,
        reg_lambda=1, tree_method="hist", early_stopping_rounds=15, n_jobs=1, random_state=0,
    ).fit(x, y, eval_set=[(x_stop, y_stop)], verbose=False)  # fmt: skip
    lightgbm = LGBMRegressor(
        n_estimators=80, max_depth=5, num_leaves=31, learning_rate=0.2, colsample_bytree=0.8, subsample=0.8,
        subsample_freq=1, min_child_samples=50, force_row_wise=True, n_jobs=1, random_state=0, verbose=-1,
    ).fit(x, y)  # fmt: skip
    with (Path(out) / f"{position}.pkl").open("wb") as file:
        pickle.dump((forest, xgboost, lightgbm), file)
    return np.stack([model.predict(data.inputs[judged]) for model in (forest, xgboost, lightgbm)], axis=1)


def rival() -> dict:
    """Fit the same symbols in a plain pool."""
    from barcast.fleet.data import FleetData

    folder = OUT / "fleet" / "rows"
    data = FleetData.map(folder)
    wanted = set(json.loads((OUT / "fleet" / "symbols.json").read_text()))
    positions = [position for position, symbol in enumerate(data.symbols) if symbol in wanted]
    with tempfile.TemporaryDirectory(dir=OUT) as out:
        began = time.monotonic()
        with ProcessPoolExecutor(WORKERS) as pool:
            found = list(pool.map(fit_rival, [(str(folder), out, position) for position in positions]))
        ended = time.monotonic()
        size = sum(path.stat().st_size for path in Path(out).iterdir())
    np.save(OUT / "fleet" / "rival.npy", np.concatenate(found))
    return {"began": began, "ended": ended, "symbols": len(positions), "bytes": size}


def found_by(side: str, limit: int) -> dict:
    """Run a side in a process of its own, watched from outside, and return what it said, its seconds and its peak."""
    seen = watched(sys.executable, __file__, "--side", side, "--limit", str(limit))
    found = json.loads(seen.printed.splitlines()[-1])
    began, ended = found.pop("began"), found.pop("ended")
    return {"seconds": ended - began, "peak": seen.peak(began, ended), **found}


def skill() -> tuple[str, str, str]:
    """RankIC by session of both, and the paired difference, each with its interval."""
    from barcast.fleet.data import FleetData

    data = FleetData.map(OUT / "fleet" / "rows")
    with np.load(OUT / "fleet" / "ours.npz") as kept:
        rows, members, y = kept["rows"], kept["members"], kept["y"]
    session = data.session[rows].astype(np.int64)
    session -= session.min()
    series = [
        rank_ic(y, (each / each.std(axis=0)).mean(axis=1), session, int(session.max()) + 1)
        for each in (members, np.load(OUT / "fleet" / "rival.npy"))
    ]
    return tuple(map(shown, (*series, series[0] - series[1])))


def main() -> None:
    """Run both sides and write the table; of a part of the symbols it is printed only."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=0, help="only the first so many symbols")
    parser.add_argument("--side", choices=("ours", "rival"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(ours(given.limit) if given.side == "ours" else rival()))
        return
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    found = {side: found_by(side, given.limit) for side in ("ours", "rival")}
    if given.limit:
        print("\n".join(lines_of(found)))
        return
    for side, one in found.items():
        log_trial(benchmark="fleet", data="cn_a_share", side=side, **one)
    write_result("fleet", "\n".join(lines_of(found)) + "\n")


def lines_of(found: dict) -> list[str]:
    """Tabulate both sides."""
    mine, theirs = found["ours"], found["rival"]
    own, other, paired = skill()
    shorter = mine["seconds"] - mine["read"]
    return [
        f"`published` on cn_a_share, {mine['symbols']:,} symbols with {MIN_ROWS} training rows, {WORKERS} workers, "
        f"{machine()}. Ours from the store to the ledger (of it {mine['prepare']:.1f} s before the first fit); the "
        "rival from arrays to saved models. RankIC on `weigh` and `route`.", "",
        "| side | seconds | a symbol | ours is faster by | peak memory | disk a symbol | RankIC of the members' plain mean |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| barcast, from the store | {mine['seconds']:.0f} | {1e3 * mine['seconds'] / mine['symbols']:.1f} ms "
        f"| {theirs['seconds'] / mine['seconds']:.2f} x | {mine['peak'] / 2**30:.2f} GiB | {mine['bytes'] / mine['symbols'] / 1e3:.0f} kB | {own} |",
        f"| barcast, from features on | {shorter:.0f} | {1e3 * shorter / mine['symbols']:.1f} ms | {theirs['seconds'] / shorter:.2f} x | | | |",
        f"| process pool | {theirs['seconds']:.0f} | {1e3 * theirs['seconds'] / theirs['symbols']:.1f} ms "
        f"| | {theirs['peak'] / 2**30:.2f} GiB | {theirs['bytes'] / theirs['symbols'] / 1e3:.0f} kB | {other} |",
        "", f"Ours less the rival, paired by session: {paired}.",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
