"""What the benchmarks share: where the data is, who ran, and the committed log of trials."""

import json
import os
import platform
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from barcast.core.errors import UsageError
from barcast.evaluation.results import without_nan

RESULTS = Path(__file__).parent / "results"
OUT = Path(os.environ.get("BARCAST_BENCH_OUT", Path(__file__).parent / "out"))

#: Sessions from entry to exit, and from decision to entry, of the contests.
HORIZON, DELAY = 5, 1

#: Borders of fit, stop, weigh, route, test for each market.
SEGMENTS = {
    "cn_a_share": ("2022-12", "2023-04", "2023-08", "2023-12", "2025-08-22"),
    "us_long": ("2018-12", "2019-12", "2020-12", "2021-12", "2024-03-08"),
    "us_market": ("2016-05", "2016-07", "2016-09", "2016-11", "2017-03-31"),
}
#: What each file is, as `barcast data import` wants it declared.
DECLARED = {
    "cn_a_share": {"market": "cn", "basis": "adjusted", "volume_unit": "share"},
    "us_long": {"market": "us", "basis": "split"},
    "us_market": {"market": "us", "basis": "raw"},
    "crypto_1h": {"market": "crypto", "frequency": "1h", "tz": "UTC", "stamp": "start"},
}


def data_folder() -> Path:
    """The folder of real market data."""
    folder = Path(os.environ.get("BARCAST_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        raise UsageError(
            f"no market data at {folder}", "set BARCAST_TEST_DATA to a folder with the Parquet files"
        )
    return folder


def machine() -> str:
    """The machine in one line."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def workspace_for(name: str) -> Path:
    """A workspace with the named file imported, made on first use."""
    from barcast.core.progress import Progress
    from barcast.pipeline.data import import_data
    from barcast.sources.options import ImportOptions

    place = OUT / name
    if not (place / "market" / "store.json").is_file():
        started = time.perf_counter()
        options = ImportOptions(**DECLARED[name])
        result = import_data(place, [data_folder() / f"{name}.parquet"], options, progress=Progress(True))
        print(f"{name}: {result.num_rows} rows imported in {time.perf_counter() - started:.1f} s")
    return place


def random_walks(place: Path, num_symbols: int, num_sessions: int) -> Path:
    """A workspace of random walks, made on first use: nothing in it can be forecast."""
    import polars as pl

    from barcast.core.calendar import exchange_days
    from barcast.core.workspace import Workspace
    from barcast.pipeline.data import import_data
    from barcast.sources.options import ImportOptions

    if (place / "market" / "store.json").is_file():
        return place
    rng = np.random.default_rng(num_symbols)
    first, last = (np.datetime64(day).item() for day in ("2000-01-03", "2024-12-31"))
    days = np.array(exchange_days("XNYS", first, last)[-num_sessions:], dtype="datetime64[D]")
    moves = rng.normal(0, 0.015, (num_symbols, num_sessions))
    close = 30 * np.exp(np.cumsum(moves, axis=1)).ravel()
    opened = close * np.exp(rng.normal(0, 0.004, close.size))
    frame = pl.DataFrame({
        "symbol": np.repeat([f"SYM{number:04d}" for number in range(num_symbols)], num_sessions),
        "time": np.tile(days, num_symbols), "open": opened, "high": np.maximum(opened, close) * 1.004,
        "low": np.minimum(opened, close) * 0.996, "close": close,
        "volume": rng.integers(10_000, 900_000, close.size).astype(float),
    })  # fmt: skip
    import_data(Workspace.find(place), frame, ImportOptions(market="us", basis="raw"))
    return place


@dataclass(frozen=True)
class Watched:
    """A program that ended well: what it printed, its wall clock, and looks at what its process tree held."""

    printed: str
    seconds: float
    looks: tuple[tuple[float, int], ...]  # `time.monotonic()`, which all processes share, and bytes of PSS

    def peak(self, began: float = 0.0, ended: float = float("inf")) -> int:
        """The most bytes that a look between two moments found."""
        return max((size for moment, size in self.looks if began <= moment <= ended), default=0)


def watched(*words: str, every: float = 0.1) -> Watched:
    """Run a program to its end and look so often, in seconds, at the memory of it and its children."""
    from barcast.core.memory import tree_pss_bytes

    looks, started = [], time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
        child = subprocess.Popen(words, stdout=printed)
        try:
            while child.poll() is None:
                looks.append((time.monotonic(), tree_pss_bytes(child.pid)))
                try:
                    child.wait(every)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            child.kill()  # where the bench is interrupted; one that has ended takes no notice
        seconds = time.monotonic() - started
        if child.returncode:
            raise SystemExit(f"{' '.join(words)} ended with {child.returncode}")
        printed.seek(0)
        return Watched(printed.read(), seconds, tuple(looks))


def log_trial(**values: object) -> None:
    """Append one line to the committed log of what was tried."""
    RESULTS.mkdir(exist_ok=True)
    line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), **values}
    with (RESULTS / "trials.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(without_nan(line), ensure_ascii=False) + "\n")


def write_result(name: str, text: str) -> None:
    """Write a result as Markdown beside the others."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def estimated(series: np.ndarray) -> tuple[float, float, float]:
    """Mean of a value by session, and its 95 % interval by blocks of sessions."""
    from barcast.evaluation.intervals import Bootstrap, interval, plan_blocks, resample

    known = np.isfinite(series)
    blocks = plan_blocks(len(series), HORIZON, DELAY, Bootstrap())
    draws = resample(np.column_stack([np.where(known, series, 0.0), known.astype(np.float64)]), blocks)
    mean = float(series[known].mean())
    return (mean, *interval(mean, draws[:, 0] / draws[:, 1], blocks))


def shown(series: np.ndarray, digits: int = 4) -> str:
    """Write an estimate for people."""
    mean, low, high = estimated(series)
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
