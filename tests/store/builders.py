"""Rows as a store holds them."""

from datetime import date

import numpy as np
import polars as pl

from barcast.core.bars import STORE_COLUMNS
from barcast.core.calendar import exchange_days
from barcast.core.lock import writer_lock
from barcast.store import MarketStore, StoreMeta

DAYS = exchange_days("XNYS", date(2022, 12, 1), date(2024, 5, 31))


def rows(symbols=("A", "B", "C"), count=300, seed=0, basis="raw", first=0, factors=True):
    """Random walks on New York sessions; each symbol begins three sessions after the one before."""
    rng = np.random.default_rng(seed)
    parts = []
    for number, symbol in enumerate(symbols):
        times = DAYS[first + 3 * number : first + count]
        close = 20 * np.exp(np.cumsum(rng.normal(0, 0.02, len(times))))
        event = rng.random(len(times)) if factors else np.ones(len(times))
        event[0] = 1
        split = np.cumprod(np.where(event < 0.02, 2.0, 1.0))  # splits and dividends fall on different days
        dividend = np.cumprod(np.where((event > 0.02) & (event < 0.06), 1.01, 1.0))
        parts.append(
            pl.DataFrame(
                {
                    "symbol": symbol, "time": times, "basis": basis, "amount": None, "close_raw": None,
                    "open": close / split * 1.001, "high": close / split * 1.02, "low": close / split * 0.98,
                    "close": close / split, "volume": 1000.0 * split, "split_factor": split,
                    "total_factor": split * dividend,
                },
                schema_overrides={"amount": pl.Float64, "close_raw": pl.Float64},
            )
        )  # fmt: skip
    frame = pl.concat(parts).with_columns(pl.col("time").cast(pl.Date))
    if not factors:
        frame = frame.with_columns(split_factor=pl.lit(1.0), total_factor=pl.lit(1.0))
    return frame.select(STORE_COLUMNS)


def make_store(path, frame=None, *, market="us", frequency="1d", calendar="XNYS", **beside) -> MarketStore:
    store = MarketStore.create(path, StoreMeta(market=market, frequency=frequency, calendar=calendar))
    if frame is not None:
        publish(store, frame, **beside)
    return store


def publish(store, frame, periods=None, **beside):
    with writer_lock(store.path):
        return store.publish(frame, {"verb": "test"}, periods=periods, beside=beside)
