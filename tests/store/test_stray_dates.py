"""Dates that no market has, before and after its own, stretch no calendar."""

from datetime import date

import numpy as np
import polars as pl
import pytest

from barcast.core.calendar import exchange_days
from barcast.quality import check_bars
from barcast.store.sessions import calendar_of
from tests.store.builders import DAYS, make_store, rows

STRAY = [date(1995, 3, 1), date(1998, 7, 6), date(1998, 7, 7)]


def counts_of(times, num=40):
    return pl.DataFrame({"time": times, "num": [num] * len(times)})


def with_rows(frame, times, symbol="S00"):
    one = frame.filter(pl.col("symbol") == symbol).head(1).drop("time")
    more = one.join(pl.DataFrame({"time": times}), how="cross").select(frame.columns)
    return pl.concat([frame, more]).sort("symbol", "time")


@pytest.mark.parametrize("num_symbols", [2, 40])
@pytest.mark.parametrize(("calendar", "market"), [("XNYS", "us"), ("24x7", "crypto")])
def test_early_strays_are_left_out(tmp_path, num_symbols, calendar, market):
    frame = rows(symbols=[f"S{i:02d}" for i in range(num_symbols)], count=200, factors=False)
    store = make_store(tmp_path / "clean", frame, market=market, calendar=calendar)
    stray = make_store(tmp_path / "stray", with_rows(frame, STRAY), market=market, calendar=calendar)
    assert (stray.calendar().times == store.calendar().times).all()
    assert len(stray.bars()) == len(frame)


def test_a_late_stray_is_left_out_and_named(tmp_path):
    frame = rows(symbols=[f"S{i:02d}" for i in range(40)], count=200, factors=False)
    late = [DAYS[220].item()]
    store = make_store(tmp_path / "market", with_rows(frame, [*STRAY, *late]))
    assert store.calendar().times[-1] == DAYS[199]
    report = check_bars(store.frame(), store.calendar(), "us")
    words = report.of("off_calendar")["detail"].to_list()
    assert words == [
        *["stray date before the first session, 2022-12-01"] * 3,
        "stray date after the last session, 2023-09-19",
    ]


def test_the_end_is_judged_by_earlier_days_only():
    times = DAYS[:120]
    num = np.full(120, 100)
    num[[60, 90, 91, 119]] = 1
    counts = pl.DataFrame({"time": times, "num": num})
    for cut in (30, 61, 62, 91, 92, 93, 119, 120):
        found = calendar_of(counts.head(cut), "XNYS", "1d").times
        last = max(i for i in range(cut) if num[i] == 100)
        assert found.tolist() == times[: last + 1].tolist()


def test_a_market_that_shrinks_for_good_goes_on():
    num = np.r_[np.full(60, 100), np.full(40, 2)]
    counts = pl.DataFrame({"time": DAYS[:100], "num": num})
    assert len(calendar_of(counts.head(79), "XNYS", "1d")) == 60
    assert len(calendar_of(counts.head(80), "XNYS", "1d")) == 80


def test_short_stretches_are_strays_and_long_ones_are_history():
    hole = 21
    for length, first in ((19, 19 + hole), (20, 0)):
        seen = np.r_[DAYS[:length], DAYS[length + hole : 150]]
        assert calendar_of(counts_of(seen), "XNYS", "1d").times[0] == DAYS[first]
    near = np.r_[DAYS[:1], DAYS[21:150]]  # 20 sessions of hole break nothing
    assert calendar_of(counts_of(near), "XNYS", "1d").times[0] == DAYS[0]


def test_where_no_stretch_is_long_nothing_is_left_out():
    sparse = DAYS[::25]
    assert calendar_of(counts_of(sparse), "XNYS", "1d").times[0] == sparse[0]
    assert len(calendar_of(counts_of(DAYS[:0]), "XNYS", "1d")) == 0


def test_a_grid_round_the_clock_starts_with_the_market():
    hours = np.arange(np.datetime64("2024-01-01T00"), np.datetime64("2024-03-01T00"), 1).astype(
        "datetime64[us]"
    )
    seen = np.r_[np.array(["1995-01-01T00"], "datetime64[us]"), hours]
    calendar = calendar_of(counts_of(seen), "24x7", "1h")
    assert calendar.times[0] == np.datetime64("2024-01-01T00") and len(calendar) == len(hours)


def test_rows_that_are_left_out_stretch_no_calendar(tmp_path):
    frame = rows(symbols=("A", "B"), count=60, factors=False)
    store = make_store(tmp_path / "market", frame)
    defects = frame.filter(pl.col("time") >= DAYS[58]).select("symbol", "time")
    assert store.calendar().times[-1] == DAYS[59]
    assert store.calendar(exclude=defects).times[-1] == DAYS[57]
    assert store.calendar(exclude=defects.filter(pl.col("symbol") == "A")).times[-1] == DAYS[59]


def test_real_exchanges_keep_every_session():
    days = exchange_days("XSHG", date(2010, 1, 4), date(2012, 12, 31))
    assert (calendar_of(counts_of(days, num=8), "XSHG", "1d").times == days).all()
