"""How long bars take from files to the store and back.

    python benchmarks/import_bench.py --data DATA_FOLDER

Uses ``cn_a_share.parquet`` (4.8 million daily rows, 3,425 symbols): as one Parquet file, as 3,000 CSV files
of one symbol each, then an appended, a corrected and a re-read session, and whole reads. Prints a table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from barcast.pipeline.data import export_data, import_data, update_data
from barcast.sources import ImportOptions
from barcast.store import MarketStore
from common import machine, write_result

DECLARED = ImportOptions(market="cn", basis="adjusted", volume_unit="share")
#: What was promised for each line, in seconds.
TARGETS = {
    "import one Parquet file": 10.0,
    "import 3,000 CSV files": 90.0,
    "correct one session": 1.0,
    "append one session": 1.0,
    "read all, polars": 1.0,
    "read all, adjusted bars": 2.0,
}


def timed(rows: list[tuple[str, float, str]], name: str, work: Callable[[], Any], detail: str = "") -> Any:
    began = time.perf_counter()
    value = work()
    rows.append((name, time.perf_counter() - began, detail))
    return value


def write_csv_files(frame: pl.DataFrame, folder: Path, num_files: int) -> int:
    folder.mkdir(parents=True)
    parts = frame.partition_by("symbol", as_dict=True, maintain_order=True)
    for (symbol,), part in list(parts.items())[:num_files]:
        part.drop("symbol").write_csv(folder / f"{symbol}.csv", float_precision=2)
    return sum(file.stat().st_size for file in folder.iterdir())


def measure(data: Path, scratch: Path) -> list[tuple[str, float, str]]:
    rows: list[tuple[str, float, str]] = []
    source = data / "cn_a_share.parquet"
    place = scratch / "one"
    done = timed(rows, "import one Parquet file", lambda: import_data(place, source, DECLARED))
    rows[-1] = (*rows[-1][:2], f"{done.num_rows:,} rows, {done.num_symbols:,} symbols")
    store = MarketStore.open(place / "market")
    frame = timed(rows, "read all, polars", store.frame)
    bars = timed(rows, "read all, adjusted bars", store.bars)
    rows[-1] = (*rows[-1][:2], f"{len(bars):,} rows")
    timed(rows, "read 50 symbols", lambda: store.bars(bars.symbols[::70]))
    timed(rows, "store info", store.info)
    last = frame["time"].max()
    session = frame.filter(pl.col("time") == last)
    corrected = session.with_columns(pl.col("close", "high") * 1.01)
    result = timed(rows, "correct one session", lambda: update_data(place, corrected))
    rows[-1] = (*rows[-1][:2], f"{result.changes['corrected']:,} rows corrected")
    following = session.with_columns(time=pl.col("time") + pl.duration(days=1))
    result = timed(rows, "append one session", lambda: update_data(place, following, same_anchor=True))
    rows[-1] = (*rows[-1][:2], f"{result.changes['appended']:,} rows appended")
    timed(rows, "same session again", lambda: update_data(place, following))
    recent = frame.filter(pl.col("time") >= pl.lit(last) - pl.duration(days=30))
    timed(rows, "update, 30 days unchanged", lambda: update_data(place, recent))
    timed(rows, "update, whole history again", lambda: update_data(place, source))
    timed(rows, "export one Parquet file", lambda: export_data(place, scratch / "all.parquet"))
    size = write_csv_files(pl.read_parquet(source), scratch / "csv", 3000)
    many = scratch / "many"
    result = timed(rows, "import 3,000 CSV files", lambda: import_data(many, scratch / "csv", DECLARED))
    rows[-1] = (*rows[-1][:2], f"{result.num_rows:,} rows, {size / 1e6:.0f} MB")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("BARCAST_TEST_DATA"), required=False)
    data = parser.parse_args().data
    if data is None or not (Path(data) / "cn_a_share.parquet").is_file():
        raise SystemExit("--data must name a folder with cn_a_share.parquet")
    scratch = Path(tempfile.mkdtemp(prefix="barcast-import-"))
    try:
        rows = measure(Path(data), scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    lines = [f"cn_a_share, {machine()}, polars {pl.__version__}, load {os.getloadavg()[0]:.1f}", "",
             "| what | seconds | promised | |", "| --- | ---: | ---: | --- |"]  # fmt: skip
    for name, seconds, detail in rows:
        promised = f"{TARGETS[name]:.0f}" if name in TARGETS else ""
        lines.append(f"| {name} | {seconds:.2f} | {promised} | {detail} |")
    write_result("import", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
