"""Defects counted by hand in real markets."""

from datetime import date

import numpy as np
import polars as pl
import pytest

from barcast.quality import check_bars

from .frames import calendar_of, real_frame

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def us(real_data):
    frame = real_frame(real_data, "us_market", ["CUI", "PMV", "CF", "NEE", "NFLX", "FRO", "LN", "AAPL"])
    return check_bars(frame, calendar_of(frame), "us")


@pytest.fixture(scope="module")
def cn(real_data):
    frame = real_frame(
        real_data, "cn_a_share", ["002271", "000998", "600734", "000670", "301211", "600519", "000009"]
    )
    return check_bars(frame, calendar_of(frame, "XSHG"), "cn")


def days(report, kind, symbol):
    return report.of(kind).filter(pl.col("symbol") == symbol)["time"].to_list()


def test_zero_prices(us):
    found = days(us, "non_positive_price", "CUI")
    assert len(found) == 10
    assert (found[0], found[-1]) == (date(2015, 3, 30), date(2015, 4, 14))
    assert us.of("non_positive_price")["symbol"].unique().to_list() == ["CUI"]


def test_close_outside_the_bar(us):
    assert us.of("close_outside_bar").select("symbol", "time").rows() == [("PMV", date(2015, 11, 20))]


def test_a_missing_split_and_one_that_is_there(us):
    day = date(2015, 6, 18)
    assert day in days(us, "split_like_jump", "CF")
    assert day in days(us, "missed_factor", "CF")
    assert us.findings.filter(pl.col("symbol").is_in(["NFLX", "AAPL"])).is_empty()


def test_two_securities_under_one_symbol(us):
    found = us.of("two_securities").filter(pl.col("symbol") == "NEE")
    assert found.select("time", "until").row(0) == (date(2016, 6, 9), date(2017, 1, 30))
    assert "PMV" in us.of("two_securities")["symbol"].to_list()


def test_one_day_in_another_unit(us):
    assert days(us, "spike", "LN") == [date(2016, 11, 10)]


def test_a_factor_one_day_early(us):
    assert days(us, "unmatched_factor", "FRO") == [date(2016, 2, 2)]
    assert (
        days(us, "missed_factor", "FRO") == [date(2016, 2, 3)] or days(us, "large_distribution", "FRO") == []
    )


def test_stitched_anchors(cn):
    found = cn.of("stitched_anchor").filter(pl.col("time") == date(2025, 8, 25))
    assert found["symbol"].to_list() == ["000009", "002271"]
    assert found["value"][1] == pytest.approx(-0.072, abs=0.001)
    assert days(cn, "beyond_limit", "301211") == [date(2025, 8, 25)]


def test_adjusted_above_raw(cn):
    found = cn.of("adjusted_above_raw").filter(pl.col("symbol") == "000998")
    assert (found["time"].min(), found["time"].max()) == (date(2019, 1, 2), date(2023, 5, 31))
    assert found["value"].max() == pytest.approx(0.018, abs=0.001)
    assert len(days(cn, "factor_noise", "600734")) > 40


def test_a_suspension_of_590_sessions(cn):
    found = cn.of("long_hole").filter(pl.col("symbol") == "000670")
    assert found.filter(pl.col("time") == date(2022, 8, 22))["value"].to_list() == [589], (
        "590 sessions from bar to bar"
    )
    assert days(cn, "beyond_limit", "000670") == []


def test_the_eleven_split_days_of_kdd17(real_data):
    frame = real_frame(real_data, "kdd17", factors=False)
    calendar = calendar_of(frame)
    report = check_bars(frame, calendar, "us")
    wanted = {
        ("AAPL", date(2014, 6, 9)), ("BRK-B", date(2010, 1, 21)), ("CMCSA", date(2007, 2, 22)),
        ("D", date(2007, 11, 20)), ("DUK", date(2012, 7, 3)), ("GOOGL", date(2014, 4, 3)),
        ("KO", date(2012, 8, 13)), ("MA", date(2014, 1, 22)), ("MO", date(2008, 3, 31)),
        ("RIO", date(2010, 4, 30)), ("VALE", date(2007, 9, 13)),
    }  # fmt: skip
    assert set(report.of("missed_factor").select("symbol", "time").iter_rows()) == wanted
    assert report.counts["no_factors"] == 1
    assert report.survivors_only
    with_factors = check_bars(real_frame(real_data, "kdd17"), calendar, "us").counts
    assert set(with_factors) == {"zero_volume", "large_distribution", "no_delisted_symbol"}


def test_a_whole_market_in_seconds(real_data):
    import time

    frame = real_frame(real_data, "cn_a_share")
    calendar = calendar_of(frame, "XSHG")
    assert np.array_equal(calendar.times, frame["time"].unique().sort().to_numpy())
    start = time.perf_counter()
    report = check_bars(frame, calendar, "cn")
    assert time.perf_counter() - start < 20, "about two seconds on two idle cores"
    assert report.counts["hole"] + report.counts["long_hole"] == 1562
    assert report.counts["long_hole"] == 16
    assert report.counts["adjusted_above_raw"] == 2265
    assert report.survivors_only
