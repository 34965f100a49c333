"""Row kinds against a plain loop, and causal kinds against history cut short, on random messy bars."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.quality import KINDS, check_bars

from .frames import calendar_of, clean_frame, drop, edit, real_frame, scale


def messy(seed):
    """Clean bars with a few dozen random accidents of every sort."""
    rng = np.random.default_rng(seed)
    frame = clean_frame(num_symbols=5, num_sessions=120, seed=seed)
    rows = len(frame)
    for _ in range(25):
        row, name = int(rng.integers(rows)), str(rng.choice(["open", "high", "low", "close", "volume"]))
        value = rng.choice([np.nan, 0.0, -1.0, 1e6, np.inf, 0.01])
        frame = edit(frame, row, **{name: value})
    for _ in range(4):
        first = int(rng.integers(rows - 40))
        last = first + int(rng.choice([1, 2, 30]))
        frame = scale(frame, slice(first, last), float(rng.choice([0.1, 0.5, 0.4, 3.0, 10.0])))
    first = int(rng.integers(rows - 40))
    return drop(frame, first, first + int(rng.choice([0, 5, 25])))


def slow(frame, calendar):
    """The rules in words, one row after the other."""
    index = {day: i for i, day in enumerate(calendar.times.tolist())}
    found = {kind: set() for kind in (
        "non_positive_price", "impossible_bar", "close_outside_bar", "zero_volume", "negative_volume",
        "extreme_return", "hole", "long_hole",
    )}  # fmt: skip
    last_usable, last_session = None, None
    symbol = None
    for row in frame.iter_rows(named=True):
        here = (row["symbol"], row["time"])
        if row["symbol"] != symbol:
            symbol, last_usable, last_session = row["symbol"], None, None
        prices = [row[name] for name in ("open", "high", "low", "close")]
        if any(p <= 0 for p in prices):
            found["non_positive_price"].add(here)
        if row["high"] < row["low"]:
            found["impossible_bar"].add(here)
        outside = row["close"] > row["high"] * (1 + 1e-6) or row["close"] < row["low"] * (1 - 1e-6)
        if all(p > 0 and math.isfinite(p) for p in prices) and row["high"] >= row["low"] and outside:
            found["close_outside_bar"].add(here)
        if row["volume"] == 0:
            found["zero_volume"].add(here)
        if row["volume"] < 0:
            found["negative_volume"].add(here)
        session = index[row["time"]]
        if last_session is not None and session > last_session + 1:
            found["hole" if session - last_session - 1 <= 20 else "long_hole"].add(here)
        last_session = session
        if math.isfinite(row["close"]) and row["close"] > 0:
            level = math.log(row["close"]) + math.log(row["total_factor"])
            if last_usable is not None and abs(level - last_usable) > 0.4:
                found["extreme_return"].add(here)
            last_usable = level
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_row_kinds_equal_a_plain_loop(seed):
    frame = messy(seed)
    calendar = calendar_of(clean_frame(num_symbols=2, num_sessions=120))
    report = check_bars(frame, calendar, "us")
    for kind, wanted in slow(frame, calendar).items():
        assert set(report.of(kind).select("symbol", "time").iter_rows()) == wanted, kind


def until(frame, calendar, cut):
    """Everything that was known after the session ``cut``."""
    return frame.filter(pl.col("time") <= cut), replace(calendar, times=calendar.times[calendar.times <= cut])


def causal(report):
    return report.findings.filter(pl.col("kind").is_in([name for name, kind in KINDS.items() if kind.causal]))


def assert_causal(frame, calendar, market, cuts):
    full = causal(check_bars(frame, calendar, market))
    for cut in cuts:
        part, days = until(frame, calendar, cut)
        known = causal(check_bars(part, days, market))
        assert known.equals(full.filter(pl.col("time") <= cut), null_equal=True), f"seen from {cut}"
        assert full.filter((pl.col("time") <= cut) & (pl.col("until") > cut)).is_empty(), "ends in its future"


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6))
def test_causal_kinds_do_not_look_ahead(seed):
    frame = messy(seed)
    calendar = calendar_of(clean_frame(num_symbols=2, num_sessions=120))
    assert_causal(frame, calendar, "us", calendar.times[[20, 55, 90, 118]])


@pytest.mark.realdata
def test_causal_kinds_do_not_look_ahead_on_real_markets(real_data):
    names = pl.scan_parquet(real_data / "us_market.parquet").select(pl.col("symbol").unique()).collect()
    some = [*names["symbol"].sort().gather_every(40), "CUI", "PMV", "NEE", "CF", "SSE", "FRO", "LN"]
    frame = real_frame(real_data, "us_market", some)
    calendar = calendar_of(frame)
    assert_causal(frame, calendar, "us", calendar.times[[100, 300, 420]])
    frame = real_frame(real_data, "cn_a_share", ["000998", "002271", "600734", "300708", "000670", "600519"])
    calendar = calendar_of(frame, "XSHG")
    assert_causal(frame, calendar, "cn", calendar.times[[200, 900, 1610]])


def test_kinds_marked_as_hindsight_do_need_later_bars():
    """Were they causal, forbidding their mask would be for nothing."""
    base = clean_frame()
    frame = scale(base, slice(150, 152), 0.1)
    calendar = calendar_of(base)
    part, days = until(frame, calendar, base["time"][150])
    own = base.filter(pl.col("symbol") == "S000")
    twins = pl.concat([base, own.with_columns(symbol=pl.lit("TWIN"))])
    early, known = until(twins, calendar, base["time"][18])
    assert "identical_symbols" in check_bars(twins, calendar, "us").counts
    assert "identical_symbols" not in check_bars(early, known, "us").counts
    assert "spike" in check_bars(frame, calendar, "us").counts
    assert "spike" not in check_bars(part, days, "us").counts
