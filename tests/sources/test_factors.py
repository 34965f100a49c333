from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.core.calendar import build_calendar
from barcast.sources.frames import FrameSource
from barcast.sources.sample import SAMPLE_OPTIONS, sample_source
from barcast.store.adjust import to_bars
from tests.sources.builders import US, days, read


def frame_of(close, volume=None, **extra):
    close = np.asarray(close, float)
    return pl.DataFrame(
        {"date": days(len(close)), "open": close, "high": close, "low": close, "close": close,
         "volume": np.full(len(close), 1000.0) if volume is None else volume, **extra}
    )  # fmt: skip


def adjusted(history):
    times = history.rows["time"].unique().sort().to_numpy()
    return to_bars(history.rows, build_calendar("observed", "1d", times), "us")


def test_split_two_to_one_with_a_dividend_by_hand():
    """100 pays 1 (factor 100/99), 99 -> split 2:1 -> 49.5 with twice the shares -> 50."""
    close = [100.0, 99.0, 49.5, 50.0]
    dividend, split = 100 / 99, 2.0
    level = np.array([1.0, dividend, dividend * split, dividend * split])
    frame = frame_of(close, volume=[10.0, 10, 20, 20], adj_close=np.array(close) * level / level[-1])
    history = read(FrameSource.of({"A": frame}))
    assert history.rows["total_factor"].to_list() == pytest.approx(level)
    assert history.rows["split_factor"].to_list() == pytest.approx([1, 1, 2, 2])
    bars = adjusted(history)
    assert bars.close == pytest.approx([100, 100, 100, 100 * 50 / 49.5])
    assert bars.volume == pytest.approx([10, 10, 10, 10])
    assert bars.close_traded == pytest.approx(close)


def test_reverse_split_and_threshold():
    levels = np.cumprod([1.0, 0.1, 1.24, 1.26, 0.81, 0.79])
    rows = read(FrameSource.of({"A": frame_of([10.0] * 6, factor=levels)})).rows
    assert rows["total_factor"].to_list() == pytest.approx(levels)
    assert rows["split_factor"].to_list() == pytest.approx(np.cumprod([1, 0.1, 1, 1.26, 1, 0.79]))


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.sampled_from([1.0, 1.0, 1.01, 2.0, 0.1, 1.5, 0.97]), min_size=2, max_size=30),
    anchor=st.floats(0.01, 100),
)
def test_anchor_of_the_source_does_not_matter(steps, anchor):
    level = np.cumprod(steps)
    close = np.linspace(10, 20, len(steps)) / level
    one = read(FrameSource.of({"A": frame_of(close, factor=level)})).rows
    other = read(FrameSource.of({"A": frame_of(close, adj_close=close * level * anchor)})).rows
    for name in ("total_factor", "split_factor"):
        np.testing.assert_allclose(one[name].to_numpy(), other[name].to_numpy(), rtol=1e-9)


@pytest.mark.parametrize("name", ["factor", "复权因子", "adj_factor"])
def test_factor_columns(name):
    rows = read(FrameSource.of({"A": frame_of([10, 5, 5], **{name: [3.0, 6.0, 6.0]})})).rows
    assert rows["total_factor"].to_list() == [1, 2, 2]


def test_split_adjusted_prices_have_no_split_factor():
    frame = frame_of([10.0, 10, 10], adj_close=[5.0, 10, 10])
    rows = read(FrameSource.of({"A": frame}), replace(US, basis="split")).rows
    assert rows["total_factor"].to_list() == [1, 2, 2]
    assert rows["split_factor"].to_list() == [1, 1, 1]
    assert (
        adjusted(read(FrameSource.of({"A": frame}), replace(US, basis="split"))).volume.tolist()
        == [1000.0] * 3
    )


def test_adjusted_volume_of_raw_prices_is_left_alone():
    frame = frame_of([10.0, 5, 5], adj_close=[5.0, 5, 5])
    bars = adjusted(read(FrameSource.of({"A": frame}), replace(US, volume_adjusted=True)))
    assert bars.volume.tolist() == [1000.0] * 3
    assert bars.close == pytest.approx([10, 10, 10])


def test_adjusted_basis_keeps_factors_of_one():
    frame = frame_of([10.0, 11], adj_close=[1.0, 2.0], factor=[1.0, 3.0], close_raw=[20.0, 22])
    rows = read(FrameSource.of({"A": frame}), replace(US, basis="adjusted")).rows
    assert rows["total_factor"].to_list() == rows["split_factor"].to_list() == [1, 1]
    assert rows["close_raw"].to_list() == [20, 22]


def test_missing_levels_keep_the_one_before_and_are_counted():
    frame = frame_of([10.0, 10, 5, 5, 5], adj_close=[None, 5.0, None, 5.0, 0.0])
    history = read(FrameSource.of({"A": frame}))
    assert history.rows["total_factor"].to_list() == [1, 1, 1, 2, 2]
    assert any("3 bars without a factor" in note for note in history.notes)


def test_symbols_do_not_mix():
    history = read(FrameSource.of({"A": frame_of([10.0, 5], factor=[1.0, 2]), "B": frame_of([7.0, 7])}))
    assert history.linked == ("A",)
    assert history.rows["total_factor"].to_list() == [1, 2, 1, 1]
    assert history.rows["split_factor"].to_list() == [1, 2, 1, 1]


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.sampled_from([1.0, 1.01, 2.0, 0.2]), min_size=3, max_size=20), cut=st.integers(1, 20)
)
def test_factors_see_no_future(steps, cut):
    level = np.cumprod(steps)
    close = 10 / level
    cut = min(cut, len(steps))
    frame = frame_of(close, adj_close=close * level / level[-1])
    whole = read(FrameSource.of({"A": frame})).rows.head(cut)
    # the same days as downloaded on the last of them: another anchor
    then = frame_of(close[:cut], adj_close=(close * level / level[cut - 1])[:cut])
    cut_off = read(FrameSource.of({"A": then})).rows
    for name in ("total_factor", "split_factor"):
        np.testing.assert_allclose(whole[name].to_numpy(), cut_off[name].to_numpy(), rtol=1e-9)


def test_sample_of_five_stocks():
    history = read(sample_source(), SAMPLE_OPTIONS)
    found = history.rows.group_by("symbol").agg(
        pl.len(), pl.col("time").min(), pl.col("total_factor").last(), pl.col("split_factor").last()
    )
    table = {row["symbol"]: row for row in found.to_dicts()}
    assert {name: row["len"] for name, row in table.items()} == {
        "AAPL": 3270, "FB": 196, "GOOG": 2148, "IBM": 3270, "MSFT": 3270
    }  # fmt: skip
    assert table["AAPL"]["split_factor"] == pytest.approx(4, rel=2e-3)  # 2:1 in 2000 and in 2005
    assert table["MSFT"]["split_factor"] == pytest.approx(2, rel=2e-3)  # 2:1 in 2003
    assert table["IBM"]["split_factor"] == table["FB"]["total_factor"] == 1
    assert table["MSFT"]["total_factor"] > 2.5  # and its dividends
    known = history.rows.filter((pl.col("symbol") == "AAPL") & (pl.col("time") == date(2000, 9, 29)))
    assert known["volume"][0] == pytest.approx(132.5e6, rel=1e-3)  # as traded that day
