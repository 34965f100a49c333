"""Each kind, planted in clean random bars, is found where it was planted, and clean bars give no alarm."""

from datetime import date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from barcast.core.bars import STORE_COLUMNS
from barcast.core.calendar import Calendar, build_calendar, exchange_days
from barcast.quality import KINDS, check_bars

from .frames import calendar_of, clean_frame, drop, edit, scale

ROW = 150  # a row in the middle of the first symbol


def check(frame, exchange="XNYS", market="us", **more):
    return check_bars(frame, calendar_of(clean_frame(exchange=exchange), exchange), market, **more)


def alarms(report):
    """Counts of what the test planted: the clean frame has one symbol that ends early."""
    return {kind: count for kind, count in report.counts.items() if kind != "ended_symbol"}


def place(report, kind):
    """Where a kind was found: (symbol, time) pairs."""
    return set(report.of(kind).select("symbol", "time").iter_rows())


def at(frame, row):
    return {frame.select("symbol", "time").row(row)}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("exchange", "market"), [("XNYS", "us"), ("XSHG", "cn")])
def test_clean_bars_give_no_alarm(seed, exchange, market):
    frame = clean_frame(seed=seed, exchange=exchange)
    assert alarms(check(frame, exchange, market)) == {}


ROW_PLANTS = [
    ("non_finite", {"close": np.nan}),
    ("non_finite", {"high": np.inf}),
    ("non_finite", {"total_factor": 0.0}),
    ("non_finite", {"volume": np.inf}),
    ("non_positive_price", {"low": 0.0}),
    ("non_positive_price", {"open": 0.0, "high": 0.0, "low": 0.0, "close": 0.0}),
    ("impossible_bar", {"high": 10.0, "low": 10.5}),
    ("negative_volume", {"volume": -5.0}),
    ("zero_volume", {"volume": 0.0}),
]


@pytest.mark.parametrize(("kind", "values"), ROW_PLANTS)
def test_row_kinds(kind, values):
    frame = edit(clean_frame(), ROW, **values)
    report = check(frame)
    assert place(report, kind) == at(frame, ROW)
    assert set(alarms(report)) == {kind}


def test_a_price_outside_its_bar():
    base = clean_frame()
    high, low = base["high"][ROW], base["low"][ROW]
    above = edit(base, ROW, close=high * 1.01)
    assert place(check(above), "close_outside_bar") == at(base, ROW)
    assert place(check(edit(base, ROW, close=low * 0.99)), "close_outside_bar") == at(base, ROW)
    assert place(check(edit(base, ROW, open=high * 1.01)), "open_outside_bar") == at(base, ROW)
    assert alarms(check(edit(base, ROW, close=high * (1 + 1e-8)))) == {}, "last bits of a product"


def test_a_close_alone_is_not_a_missing_value():
    frame = clean_frame().with_columns(
        pl.when(pl.int_range(pl.len()) == ROW).then(None).otherwise(pl.col(name)).alias(name)
        for name in ("open", "high", "low")
    )
    assert alarms(check(frame)) == {"close_only": 1}


def test_null_prices_are_missing():
    gone = pl.int_range(pl.len()) == ROW
    frame = clean_frame().with_columns(
        pl.when(gone).then(None).otherwise(pl.col(name)).alias(name)
        for name in ("open", "high", "low", "close", "volume")
    )
    assert alarms(check(frame)) == {"non_finite": 1}


def test_repeated_bar():
    base = clean_frame()
    same = {name: base[name][ROW - 1] for name in ("open", "high", "low", "close", "volume")}
    assert place(check(edit(base, ROW, **same)), "repeated_bar") == at(base, ROW)
    assert alarms(check(edit(base, ROW, **(same | {"volume": 7.0})))) == {}
    flat = base["close"][ROW]
    quote = {"open": flat, "high": flat, "low": flat, "close": flat, "volume": 100.0}
    assert alarms(check(edit(base, slice(ROW, ROW + 2), **quote))) == {}, "thin trading at one price"


def test_off_calendar_and_future():
    base = clean_frame(num_symbols=2)
    saturday = edit(base, ROW, time=np.datetime64("2020-08-08"))
    assert place(check(saturday), "off_calendar") == {("S000", date(2020, 8, 8))}
    now = datetime(2020, 6, 1, 12)
    future = place(check(base, now=now), "future_date")
    assert future == set(base.filter(pl.col("time") > date(2020, 6, 2)).select("symbol", "time").iter_rows())


def test_duplicate_conflict_names_files_and_both_versions():
    base = clean_frame()
    rows = base[[ROW, ROW]].with_columns(close=pl.Series([10.0, 11.0]), file=pl.Series(["a.csv", "b.csv"]))
    found = check(base, conflicts=rows).of("duplicate_conflict")
    assert found.height == 1
    assert found["value"][0] == pytest.approx(0.1)
    assert found["detail"][0] == "close 10.0 / close 11.0"
    assert found["file"][0] == "a.csv, b.csv"
    same_prices = rows.with_columns(close=pl.lit(10.0), volume=pl.Series([1.0, 2.0]))
    assert alarms(check(base, conflicts=same_prices)) == {}
    elsewhere = rows.with_columns(symbol=pl.lit("OTHER"))
    assert alarms(check(base, conflicts=elsewhere)) == {}, "a part of the store is checked without the rest"


@pytest.mark.parametrize("size", [1.6, 1 / 1.6])
def test_extreme_return_is_measured_on_adjusted_prices(size):
    base = clean_frame()
    frame = scale(base, slice(ROW, 300), size)
    found = check(frame).of("extreme_return")
    assert set(found.select("symbol", "time").iter_rows()) == at(base, ROW)
    own = np.log(base["close"][ROW] / base["close"][ROW - 1])
    step = np.log(base["total_factor"][ROW] / base["total_factor"][ROW - 1])
    assert found["value"][0] == pytest.approx(np.log(size) + own + step)
    factors = base["total_factor"].to_numpy().copy()
    factors[ROW:300] /= size
    healed = frame.with_columns(total_factor=factors)
    assert "extreme_return" not in check(healed).counts


@pytest.mark.parametrize("ratio", [1 / 2, 1 / 3, 1 / 7, 1 / 50, 2, 10])
def test_a_split_without_a_factor(ratio):
    base = clean_frame(price=200.0)
    frame = scale(base, slice(ROW, 300), ratio)
    volume = base["volume"].to_numpy().copy()
    volume[ROW:300] /= ratio
    frame = frame.with_columns(volume=volume)
    report = check(frame)
    assert place(report, "split_like_jump") == at(base, ROW)
    assert place(report, "missed_factor") == at(base, ROW)
    factors = base["total_factor"].to_numpy().copy()
    factors[ROW:300] /= ratio
    healed = frame.with_columns(total_factor=factors, split_factor=factors)
    assert alarms(check(healed)) == {}, "with its factor the same jump is a split"


def test_a_spin_off_at_an_odd_ratio_is_a_missed_factor():
    frame = scale(clean_frame(), slice(ROW, 300), 0.61)
    report = check(frame)
    assert place(report, "missed_factor") == at(frame, ROW)
    assert "split_like_jump" not in report.counts


def test_a_crash_in_trading_is_not_a_missed_factor():
    base = scale(clean_frame(), slice(ROW, 300), 0.5)
    during = edit(base, ROW, open=base["open"][ROW] * 2, high=base["high"][ROW] * 2)
    assert "missed_factor" not in check(during).counts, "the move was made after the open"
    news = edit(base, ROW, volume=base["volume"][ROW] * 40)
    report = check(news)
    assert "missed_factor" not in report.counts, "the turnover speaks for news"
    assert place(report, "split_like_jump") == at(base, ROW)


def test_habit_and_turnover_are_those_before_the_step():
    frame = scale(clean_frame(price=100.0), slice(ROW, 300), 0.5)
    volume = frame["volume"].to_numpy().copy()
    volume[ROW : ROW + 30] *= 4
    for row in range(ROW + 1, ROW + 30):
        frame = scale(frame, slice(row, row + 1), 1.2 if row % 2 else 0.95)
    assert at(frame, ROW) <= place(check(frame.with_columns(volume=volume)), "missed_factor")
    wild = clean_frame(price=100.0)
    for row in range(ROW - 30, ROW):
        wild = scale(wild, slice(row, row + 1), 1.25 if row % 2 else 1.0)
    assert place(check(scale(wild, slice(ROW, 300), 0.5)), "missed_factor") == set()


def test_a_factor_taken_up_at_the_open_is_matched():
    base = clean_frame(price=100.0)
    factors = base["total_factor"].to_numpy().copy()
    factors[ROW:300] *= 1.25
    flat = base.with_columns(total_factor=factors)
    assert place(check(flat), "unmatched_factor") == at(base, ROW)
    before = base["close"][ROW - 1]
    rebound = edit(flat, ROW, open=before / 1.25, low=before / 1.25)
    assert "unmatched_factor" not in check(rebound).counts


def test_a_factor_on_the_wrong_day():
    base = scale(clean_frame(price=100.0), slice(ROW, 300), 0.5)
    factors = base["total_factor"].to_numpy().copy()
    factors[ROW - 1 : 300] *= 2
    report = check(base.with_columns(total_factor=factors, split_factor=1.0))
    assert place(report, "unmatched_factor") == at(base, ROW - 1)
    assert place(report, "missed_factor") == at(base, ROW)


def test_large_distribution_but_not_a_split():
    base = scale(clean_frame(price=100.0), slice(ROW, 300), 1 / 1.9)
    factors = base["total_factor"].to_numpy().copy()
    factors[ROW:300] *= 1.9
    assert set(alarms(check(base.with_columns(total_factor=factors)))) == {"large_distribution"}


def test_spike_and_two_securities():
    base = clean_frame()
    once = scale(base, slice(ROW, ROW + 2), 0.1)
    found = check(once).of("spike")
    assert found.select("time", "until").row(0) == (base["time"][ROW], base["time"][ROW + 1])
    assert "two_securities" not in check(once).counts
    often = scale(scale(once, slice(ROW + 20, ROW + 50), 0.1), slice(ROW + 60, ROW + 61), 0.1)
    report = check(often)
    assert report.of("two_securities").select("symbol", "time", "value").row(0) == (
        "S000",
        base["time"][ROW],
        6,
    )
    assert "spike" not in report.counts


def copied(frame, source, target, first, last):
    """Give sessions first .. last of one symbol the bars of another's."""
    own = [name for name in frame.columns if name != "symbol"]
    days = frame["time"].unique().sort()[first : last + 1].implode()
    here = frame.filter((pl.col("symbol") == source) & pl.col("time").is_in(days)).select(own)
    rest = frame.filter((pl.col("symbol") != target) | ~pl.col("time").is_in(days))
    twin = here.with_columns(symbol=pl.lit(target)).select(frame.columns)
    return pl.concat([rest, twin]).sort("symbol", "time")


def test_the_same_bars_under_several_symbols():
    base = clean_frame()
    days = base["time"].unique().sort()
    twins = copied(copied(base, "S001", "S002", 30, 79), "S001", "S003", 40, 59)
    found = check(twins).of("identical_symbols").select("symbol", "time", "until", "value", "detail").rows()
    assert found == [
        ("S002", days[30], days[79], 50, "the same bars as S001 on 50 sessions"),
        ("S003", days[40], days[59], 20, "the same bars as S001 on 20 sessions"),
    ]
    assert "identical_symbols" not in check(copied(base, "S001", "S002", 30, 48)).counts, "19 sessions"
    quiet = twins.with_columns(pl.col("open", "high", "low", "close").last().over("symbol") * 0 + 5)
    assert "identical_symbols" not in check(quiet).counts, "prices that do not move are equal by themselves"
    shifted = twins.with_columns(volume=pl.col("volume") + (pl.col("symbol") != "S001").cast(pl.Float64))
    assert check(shifted).of("identical_symbols")["detail"].to_list() == [
        "the same bars as S002 on 20 sessions"
    ]


def test_holes_are_counted_on_the_calendar():
    base = clean_frame()
    short, long = drop(base, ROW, ROW + 19), drop(base, ROW, ROW + 20)
    found = check(short).of("hole")
    assert found.select("time", "value").row(0) == (base["time"][ROW + 20], 20)
    assert found["detail"][0] == f"no bars {base['time'][ROW]} .. {base['time'][ROW + 19]}"
    assert check(long).of("long_hole").select("time", "value").row(0) == (base["time"][ROW + 21], 21)
    assert "hole" not in check(long).counts


def test_the_missing_session_of_a_whole_file_is_a_hole_of_every_symbol():
    base = clean_frame(num_symbols=12)
    day = base["time"][ROW]
    report = check(base.filter(pl.col("time") != day))
    assert report.counts["hole"] == 12
    assert report.of("thin_session").select("symbol", "time", "value").row(0) == ("", day, 0.0)
    fifth, sixth = base["time"][4], base["time"][5]
    assert "thin_session" not in check(base.filter(pl.col("time") != fifth)).counts, (
        "four sessions are no habit"
    )
    assert "thin_session" in check(base.filter(pl.col("time") != sixth)).counts


def test_stale_symbol():
    base = clean_frame()
    close = base["close"].to_numpy().copy()
    for row in range(1, 300):
        if row % 3:
            close[row] = close[row - 1]
    frame = base.with_columns(close=close, open=close, high=close, low=close)
    found = check(frame).of("stale_symbol")
    assert found.select("symbol", "time", "until").row(0) == ("S000", base["time"][0], base["time"][299])
    assert 0.6 < found["value"][0] < 0.7


def adjusted(num_sessions=300):
    """Forward-adjusted cn bars at two decimals beside the prices as traded."""
    frame = clean_frame(exchange="XSHG", num_sessions=num_sessions)
    total = (
        frame["total_factor"]
        / frame.group_by("symbol", maintain_order=True)
        .agg(pl.col("total_factor").last().repeat_by(pl.len()))["total_factor"]
        .explode()
    )
    prices = [(pl.col(name) * total).round(2).alias(name) for name in ("open", "high", "low", "close")]
    return frame.with_columns(
        *prices, close_raw=pl.col("close").round(2), total_factor=1.0, basis=pl.lit("adjusted")
    )


def test_stitched_anchor():
    base = adjusted()
    assert alarms(check(base, "XSHG", "cn")) == {}
    moved = scale(base, slice(ROW, 300), 0.985)
    moved = moved.with_columns(pl.col("open", "high", "low", "close").round(2))
    report = check(moved, "XSHG", "cn")
    assert place(report, "stitched_anchor") == at(base, ROW)
    assert report.of("stitched_anchor")["value"][0] == pytest.approx(-0.015, abs=0.001)
    later = scale(base, slice(0, ROW), 0.985)
    assert "stitched_anchor" not in check(later, "XSHG", "cn").counts, "a rise is what dividends look like"


def test_adjusted_above_raw_unless_all_are_anchored_at_the_start():
    base = adjusted()
    above = scale(base, slice(ROW, ROW + 3), 1.02)
    assert check(above, "XSHG", "cn").of("adjusted_above_raw").height == 3
    last = pl.col("time") == base["time"].max()
    late = base.with_columns(
        pl.when(last).then(pl.col(name) * 1.02).otherwise(pl.col(name)) for name in ("high", "close")
    )
    assert check(late, "XSHG", "cn").of("adjusted_above_raw").height == 5, "later bars cannot excuse it"
    backward = base.with_columns(pl.col("open", "high", "low", "close") * 3)
    assert "adjusted_above_raw" not in check(backward, "XSHG", "cn").counts


def test_rounding_noise_at_low_prices_is_not_a_stitched_anchor():
    base = adjusted()
    cheap = base.with_columns((pl.col("open", "high", "low", "close") / 30).round(2))
    report = check(cheap, "XSHG", "cn")
    assert report.counts["factor_noise"] > 10
    assert "stitched_anchor" not in report.counts


@pytest.mark.parametrize(
    ("code", "day", "move", "alarm"),
    [
        ("600519.SH", "2021-03-01", 0.115, True),
        ("600519.SH", "2021-03-01", 0.100, False),
        ("300750.SZ", "2020-08-21", 0.115, True),
        ("300750.SZ", "2020-08-24", 0.195, False),
        ("300750.SZ", "2021-03-01", -0.215, True),
        ("688981.SH", "2021-03-01", 0.195, False),
        ("830799.BJ", "2021-03-01", 0.295, False),
        ("830799.BJ", "2021-03-01", 0.315, True),
    ],
)
def test_price_limits_by_board_and_date(code, day, move, alarm):
    base = clean_frame(num_symbols=2, exchange="XSHG", price=100.0).filter(pl.col("symbol") == "600000.SH")
    row = base["time"].to_list().index(date.fromisoformat(day))
    factor = (1 + move) * base["close"][row - 1] * base["total_factor"][row - 1]
    factor /= base["close"][row] * base["total_factor"][row]
    frame = scale(base, slice(row, None), factor).with_columns(symbol=pl.lit(code))
    report = check_bars(frame, calendar_of(base, "XSHG"), "cn")
    assert place(report, "beyond_limit") == ({(code, date.fromisoformat(day))} if alarm else set())
    assert "beyond_limit" not in check_bars(frame, calendar_of(base, "XSHG"), "us").counts


def test_no_limit_in_a_first_week_or_after_a_long_hole():
    base = clean_frame(num_symbols=2, exchange="XSHG")
    assert "beyond_limit" not in check(scale(base, slice(3, 300), 1.4), "XSHG", "cn").counts
    assert "beyond_limit" in check(scale(base, slice(6, 300), 1.4), "XSHG", "cn").counts
    relisted = drop(scale(base, slice(ROW, 300), 1.4), ROW - 30, ROW - 1)
    assert "beyond_limit" not in check(relisted, "XSHG", "cn").counts


def test_ended_symbol():
    frame = clean_frame()
    found = check(frame).of("ended_symbol")
    assert found.select("symbol", "time", "value").rows() == [("S005", frame["time"][200], 99)]


def test_survivors_only():
    frame = clean_frame(num_sessions=300)
    alive = frame.filter(pl.col("symbol") != "S005")
    assert check(frame).survivors_only is False
    assert alarms(check(alive)) == {"no_delisted_symbol": 1}
    assert check(alive).survivors_only
    early = alive.filter(pl.col("time") < date(2020, 10, 1))
    assert not check(early).survivors_only, "less than a year says nothing"


def test_prices_as_traded_without_any_factor():
    frame = clean_frame().with_columns(total_factor=1.0)
    assert alarms(check(frame)) == {"no_factors": 1}
    assert alarms(check(frame.with_columns(basis=pl.lit("adjusted")))) == {}


def test_hourly_bars_on_a_round_the_clock_grid():
    hours = np.arange(np.datetime64("2024-01-01T00"), np.datetime64("2024-02-01T00")).astype("datetime64[us]")
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.003, len(hours))))
    close[300:] *= 1.2
    frame = pl.DataFrame(
        {
            "symbol": "BTCUSDT", "time": hours, "open": close, "high": close, "low": close, "close": close,
            "volume": 5.0, "amount": None, "split_factor": 1.0, "total_factor": 1.0, "close_raw": None,
            "basis": "raw",
        }
    ).select(STORE_COLUMNS)  # fmt: skip
    frame = drop(frame, 100, 102)
    frame = edit(frame, 5, time=np.datetime64("2024-01-01T05:30", "us"))
    calendar = build_calendar("24x7", "1h", np.sort(frame["time"].to_numpy())[[0, -1]])
    report = check_bars(frame, calendar, "crypto")
    assert report.counts == {"off_calendar": 1, "extreme_return": 1, "hole": 2}
    assert report.of("extreme_return")["time"][0] == hours[300].item()
    assert report.of("off_calendar")["time"][0] == datetime(2024, 1, 1, 5, 30)


def test_nothing_and_next_to_nothing():
    frame = clean_frame()
    assert alarms(check(frame[:0])) == {}
    assert alarms(check(frame[:1])) == {}
    calendar = Calendar("XNYS", "1d", exchange_days("XNYS", date(2020, 1, 2), date(2020, 2, 3)))
    worthless = frame[:10].with_columns(close=pl.lit(0.0), open=pl.lit(None, pl.Float64))
    assert alarms(check_bars(worthless, calendar, "us")) == {"non_finite": 10, "non_positive_price": 10}


def test_every_kind_is_planted_here():
    """A kind without a test of its own would be a promise."""
    source = Path(__file__).read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f'"{kind}"' not in source] == []
