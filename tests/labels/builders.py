"""Ragged bars, drawn by hypothesis or read from the real files."""

from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import polars as pl

from barcast.core.bars import Bars
from barcast.core.calendar import Calendar, build_calendar


def bars_from_presence(presence, *, seed=0, delisted=None, closes=None) -> Bars:
    """Bars where ``presence[s]`` is true; closes are a random walk with some repeated prices (ties)."""
    present = np.array(presence, bool)
    symbols, total = present.shape
    rng = np.random.default_rng(seed)
    walk = np.exp(np.round(np.cumsum(rng.normal(0, 0.03, present.shape), axis=1), 2))
    close = (walk if closes is None else np.array(closes, float))[present]
    rows = len(close)
    days = np.datetime64("2020-01-01") + np.arange(total)
    return Bars(
        symbols=tuple(f"S{i:03d}" for i in range(symbols)),
        offsets=np.r_[0, present.sum(axis=1).cumsum()].astype(np.int64),
        session=np.nonzero(present)[1].astype(np.int32),
        open=close, high=close * 1.01, low=close * 0.99, close=close,
        volume=np.ones(rows), amount=np.full(rows, np.nan), close_traded=np.full(rows, np.nan),
        calendar=Calendar("24x7", "1d", days), market="other",
        delisted=np.full(symbols, -1, np.int32) if delisted is None else np.array(delisted, np.int32),
    )  # fmt: skip


@st.composite
def ragged_bars(draw, min_sessions=12, max_sessions=60, max_symbols=4) -> Bars:
    """Symbols that start late, pause, come back, end for good, with and without a recorded delisting."""
    total = draw(st.integers(min_sessions, max_sessions))
    presence, delisted = [], []
    for _ in range(draw(st.integers(1, max_symbols))):
        gap = st.one_of(st.integers(0, 4), st.integers(0, 28))
        runs = draw(st.lists(st.tuples(gap, st.integers(1, 20)), min_size=1, max_size=8))
        own = np.concatenate([np.r_[np.zeros(gap, bool), np.ones(length, bool)] for gap, length in runs])
        presence.append(np.r_[own, np.zeros(total, bool)][:total])
        delisted.append(draw(st.integers(-1, total - 1)))
    return bars_from_presence(presence, seed=draw(st.integers(0, 2**16)), delisted=delisted)


def change_future(bars: Bars, cutoff: int, seed: int = 0) -> Bars:
    """The same history up to ``cutoff``; afterwards other prices, and a third of the bars gone."""
    rng = np.random.default_rng(seed)
    later = bars.session > cutoff
    close = np.where(later, bars.close * np.exp(rng.normal(0, 0.5, len(bars))), bars.close)
    delisted = np.where(bars.delisted > cutoff, -1, bars.delisted).astype(np.int32)
    changed = replace(bars, close=close, high=close * 1.01, low=close * 0.99, open=close, delisted=delisted)
    return changed.take(~later | (rng.random(len(bars)) > 1 / 3))


def real_bars(folder: Path, name: str) -> Bars:
    """Bars of cn_a_share (adjusted, with traded closes where known) or us_market (raw with factors)."""
    frame = pl.read_parquet(folder / f"{name}.parquet").sort("symbol", "date")
    if name == "cn_a_share":
        exchange = pl.when(pl.col("symbol").str.starts_with("6")).then(pl.lit(".SH")).otherwise(pl.lit(".SZ"))
        frame = frame.with_columns(symbol=pl.col("symbol") + exchange, ratio=1.0, traded=pl.col("close_raw"))
        market, exchange_name = "cn", "XSHG"
    else:
        frame = frame.filter(pl.min_horizontal("open", "high", "low", "close") > 0)
        frame = frame.with_columns(ratio=pl.col("adj_close") / pl.col("close"), traded=pl.col("close"))
        market, exchange_name = "us", "XNYS"
    sizes = frame.group_by("symbol", maintain_order=True).len()
    calendar = build_calendar(exchange_name, "1d", frame["date"].unique().sort().to_numpy())

    def floats(column):
        return frame.select(pl.col(column).cast(pl.Float64).fill_null(np.nan)).to_series().to_numpy()

    prices = {field: floats(field) * floats("ratio") for field in ("open", "high", "low", "close")}
    return Bars(
        symbols=tuple(sizes["symbol"].to_list()),
        offsets=np.r_[0, sizes["len"].cast(pl.Int64).cum_sum().to_numpy()].astype(np.int64),
        session=calendar.index(frame["date"].to_numpy()),
        **prices,
        volume=floats("volume"), amount=np.full(len(frame), np.nan), close_traded=floats("traded"),
        calendar=calendar, market=market, delisted=np.full(len(sizes), -1, np.int32),
    )  # fmt: skip


def one_row(bars: Bars, symbol: str, day: str) -> int:
    """The row of a symbol on a day."""
    position = bars.symbols.index(symbol)
    start, stop = bars.offsets[position], bars.offsets[position + 1]
    (row,) = np.flatnonzero(bars.times[start:stop] == np.datetime64(day))
    return int(start + row)


__all__ = ["bars_from_presence", "change_future", "one_row", "ragged_bars", "real_bars"]
