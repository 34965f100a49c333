"""Stored rows and pipelines for the audit's tests."""

from __future__ import annotations

import numpy as np
import polars as pl

from barcast.audit.workings import adjusted, standard_workings
from barcast.audit.world import World
from barcast.core.bars import STORE_COLUMNS
from barcast.core.calendar import build_calendar, exchange_days
from barcast.features import feature_set
from barcast.labels import LabelSpec, forward_labels, trailing_volatility
from barcast.pipeline.market import VOLATILITY_BARS, Market, is_small, make_plan
from barcast.pipeline.settings import DataConfig
from barcast.quality import QualityPolicy, check_bars

CALENDARS = {"cn": "XSHG", "us": "XNYS"}


def make_world(num_symbols=36, num_sessions=280, *, market="us", basis="raw", seed=0) -> World:
    """Random walks with splits, dividends, late listings, early ends and holes."""
    rng = np.random.default_rng(seed)
    name = CALENDARS[market]
    days = exchange_days(name, np.datetime64("2019-01-02").item(), np.datetime64("2023-12-29").item())
    calendar = build_calendar(name, "1d", days[:num_sessions])
    frames = []
    for position in range(num_symbols):
        first = int(rng.integers(1, num_sessions // 2)) if position % 6 == 5 else 0
        last = num_sessions - int(rng.integers(30, 60)) if position % 9 == 8 else num_sessions
        own = np.arange(first, last)
        if position % 5 == 2:
            start = int(rng.integers(first + 20, last - 40))
            own = own[(own < start) | (own > start + int(rng.integers(2, 30)))]
        frames.append(_symbol_frame(f"{600000 + position}.SH" if market == "cn" else f"S{position:03d}",
                                    calendar.times[own], basis, rng))  # fmt: skip
    frame = pl.concat(frames).select(STORE_COLUMNS)
    return World(frame, calendar, market, status=None, conflicts=None)


def _symbol_frame(symbol, times, basis, rng):
    rows = len(times)
    step = np.clip(rng.normal(0, 0.03, rows), -0.095, 0.095)
    step[rng.random(rows) < 0.02] = 0.0953102  # ln 1.1: a close at the upper limit of the main board
    close = np.round(20 * np.exp(np.cumsum(step)), 2)
    open_ = np.round(close * np.exp(rng.normal(0, 0.008, rows)), 2)
    high = np.maximum(open_, close) + np.round(np.abs(rng.normal(0, 0.05, rows)), 2)
    high = np.where(step > 0.095, np.maximum(open_, close), high)
    low = np.minimum(open_, close) - np.round(np.abs(rng.normal(0, 0.02, rows)), 2)
    split, total = np.ones(rows), np.ones(rows)
    if basis == "raw" and rows > 100:
        at, ex = rng.integers(50, rows, 2)
        split[at:], total[at:] = 2.0, 2.0
        total[ex:] *= 1.01
    volume = np.exp(rng.normal(13, 0.7, rows)).round()
    volume[rng.random(rows) < 0.01] = 0.0
    prices = {"open": open_, "high": high, "low": low, "close": close}
    prices = {key: np.maximum(value / split, 0.05) for key, value in prices.items()}
    return pl.DataFrame(
        {
            "symbol": [symbol] * rows, "time": pl.Series(times).cast(pl.Date), **prices,
            "volume": volume * split, "amount": volume * close, "split_factor": split, "total_factor": total,
            "close_raw": pl.Series([None] * rows, dtype=pl.Float64), "basis": [basis] * rows,
        }
    )  # fmt: skip


def make_market(world, **config) -> Market:
    """Label and cut a world as the pipeline does."""
    data = DataConfig(**config)
    policy = QualityPolicy()
    bars = adjusted(world, policy)
    labels = forward_labels(bars, LabelSpec(horizons=data.horizons, delay=data.delay))
    plan = make_plan(bars, data, labels.spec)
    return Market(
        config=data, store_version=0, bars=bars, labels=labels, plan=plan,
        segment=plan.assign(bars.session, labels.last_known_at),
        volatility=trailing_volatility(bars, VOLATILITY_BARS),
        quality=check_bars(world.frame, world.calendar, world.market), policy=policy,
        basis=tuple(world.frame["basis"].unique().to_list()), data_digest="", small_universe=is_small(bars, plan),
    )  # fmt: skip


def make_workings(world, features="core12", *, acts_at="close", score=None, **config):
    return standard_workings(
        make_market(world, **config), feature_set(features), acts_at=acts_at, score=score
    )
