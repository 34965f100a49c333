"""Store frames for the tests of this room: random and clean, or real."""

from pathlib import Path

import numpy as np
import polars as pl

from barcast.core.bars import STORE_COLUMNS
from barcast.core.calendar import Calendar, build_calendar, exchange_days


def clean_frame(num_symbols=6, num_sessions=300, *, seed=0, exchange="XNYS", basis="raw", price=20.0):
    """Random-walk bars without any defect, dividends included, on every session of the exchange."""
    rng = np.random.default_rng(seed)
    shape = (num_symbols, num_sessions)
    days = exchange_days(exchange, np.datetime64("2020-01-02").item(), np.datetime64("2024-12-31").item())
    close = price * np.exp(np.cumsum(np.clip(rng.normal(0, 0.015, shape), -0.05, 0.05), axis=1))
    open_ = close * np.exp(rng.normal(0, 0.004, shape))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, 0.004, shape)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, 0.004, shape)))
    dividends = np.where(rng.random(shape) < 0.01, 1.005, 1.0)
    dividends[:, 0] = 1.0
    codes = [f"{600000 + i}.SH" if exchange == "XSHG" else f"S{i:03d}" for i in range(num_symbols)]
    values = {
        "symbol": np.repeat(codes, num_sessions),
        "time": np.tile(days[:num_sessions], num_symbols),
        "open": open_.ravel(), "high": high.ravel(), "low": low.ravel(), "close": close.ravel(),
        "volume": np.exp(rng.normal(13, 0.3, num_symbols * num_sessions)).round(),
        "amount": None,
        "split_factor": 1.0,
        "total_factor": np.cumprod(dividends, axis=1).ravel() if basis == "raw" else 1.0,
        "close_raw": None,
        "basis": basis,
    }  # fmt: skip
    frame = pl.DataFrame(values, schema_overrides={"amount": pl.Float64, "close_raw": pl.Float64})
    # One symbol ends early: a panel in which nothing ever ends is itself a finding.
    last = frame["time"].unique().sort()[num_sessions * 2 // 3]
    return frame.filter((pl.col("symbol") != codes[-1]) | (pl.col("time") <= last)).select(STORE_COLUMNS)


def calendar_of(frame, exchange="XNYS") -> Calendar:
    return build_calendar(exchange, "1d", frame["time"].unique().sort().to_numpy())


def edit(frame, row, **values):
    """Set columns of one row (by number) or a slice of rows."""
    columns = {name: frame[name].to_numpy().copy() for name in values}
    for name, value in values.items():
        columns[name][row] = value
    return frame.with_columns(pl.Series(name, column) for name, column in columns.items())


def scale(frame, rows, factor):
    """Multiply the four prices of some rows."""
    columns = {name: frame[name].to_numpy().copy() for name in ("open", "high", "low", "close")}
    for column in columns.values():
        column[rows] *= factor
    return frame.with_columns(pl.Series(name, column) for name, column in columns.items())


def drop(frame, first, last):
    """Leave out rows first .. last, both included."""
    return frame.with_row_index("i").filter(~pl.col("i").is_between(first, last)).drop("i")


def real_frame(folder: Path, name: str, symbols=None, factors=True) -> pl.DataFrame:
    """A packed file of real data as the store would hold it."""
    scan = pl.scan_parquet(folder / f"{name}.parquet").rename({"date": "time"})
    if symbols:
        scan = scan.filter(pl.col("symbol").is_in(list(symbols)))
    frame = scan.collect().with_columns(pl.col("open", "high", "low", "close", "volume").cast(pl.Float64))
    factor = pl.lit(1.0)
    if factors and "adj_close" in frame.columns:
        ratio = pl.col("adj_close").cast(pl.Float64) / pl.when(pl.col("close") > 0).then(pl.col("close"))
        ratio = ratio.forward_fill().over("symbol")
        factor = ratio / ratio.drop_nulls().first().over("symbol")
    raw = pl.col("close_raw").cast(pl.Float64) if "close_raw" in frame.columns else pl.lit(None, pl.Float64)
    basis = {"cn_a_share": "adjusted", "us_long": "split"}.get(name, "raw")
    return frame.with_columns(
        amount=pl.lit(None, pl.Float64), split_factor=pl.lit(1.0), total_factor=factor, close_raw=raw,
        basis=pl.lit(basis),
    ).select(STORE_COLUMNS)  # fmt: skip
