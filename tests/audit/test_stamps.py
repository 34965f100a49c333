"""Intraday bars stamped at their end and read as their start (and the other way round)."""

import numpy as np
import pytest

from barcast.audit.stamps import check_against, check_session_hours
from barcast.core.bars import Bars
from barcast.core.calendar import FREQUENCIES, build_calendar, exchange_days

#: Local minutes at which bars of a regular day start, by calendar and frequency.
SCHEDULES = {
    ("XNYS", "1h"): [570 + 60 * i for i in range(7)],
    ("XNYS", "5m"): list(range(570, 960, 5)),
    ("XSHG", "5m"): [*range(570, 690, 5), *range(780, 900, 5)],
    ("XSHG", "1h"): [570, 630, 780, 840],
}
OFFSETS = {"XNYS": 5, "XSHG": -8}  # hours to UTC; winter days only


def winter_times(name, frequency, shift_minutes=0, num_days=30):
    days = exchange_days(name, np.datetime64("2023-11-13").item(), np.datetime64("2024-02-01").item())[
        :num_days
    ]
    minutes = np.array(SCHEDULES[name, frequency]) + shift_minutes + 60 * OFFSETS[name]
    times = days[:, None].astype("datetime64[s]") + (minutes * 60).astype("timedelta64[s]")
    return times.ravel()


@pytest.mark.parametrize(("name", "frequency"), SCHEDULES)
def test_bars_stamped_at_their_start_are_fine(name, frequency):
    calendar = build_calendar(name, frequency, winter_times(name, frequency))
    assert check_session_hours(calendar) == ([], "")


@pytest.mark.parametrize(("name", "frequency"), SCHEDULES)
def test_end_stamps_read_as_starts(name, frequency):
    """The last bar of a session ends with it, also where it is shorter than the others."""
    step = FREQUENCIES[frequency] // 60
    times = winter_times(name, frequency, step)
    close = {"XNYS": 16 * 60, "XSHG": 15 * 60}[name] + 60 * OFFSETS[name]
    last = times.astype("datetime64[D]").astype("datetime64[s]") + np.timedelta64(close * 60, "s")
    calendar = build_calendar(name, frequency, np.unique(np.minimum(times, last)))
    (finding,), note = check_session_hours(calendar)
    assert (finding.stage, finding.column, note) == ("stamps", "time", "")
    assert "--stamp end" in finding.detail and name in finding.detail


@pytest.mark.parametrize(("name", "frequency"), [("XNYS", "5m"), ("XSHG", "5m")])
def test_start_stamps_read_as_ends(name, frequency):
    calendar = build_calendar(name, frequency, winter_times(name, frequency, -(FREQUENCIES[frequency] // 60)))
    (finding,), _ = check_session_hours(calendar)
    assert "--stamp start" in finding.detail


def test_bars_before_the_open_are_no_sign():
    """Extended hours have bars before the open and after the close."""
    extended = np.unique(np.concatenate([winter_times("XNYS", "1h", m) for m in (-240, 0, 240)]))
    assert check_session_hours(build_calendar("XNYS", "1h", extended)) == ([], "")


def test_round_the_clock_cannot_be_checked_alone():
    calendar = build_calendar("24x7", "1h", np.arange(50).astype("datetime64[h]"))
    findings, note = check_session_hours(calendar)
    assert findings == [] and "--against" in note


def test_daily_sessions_have_no_stamps():
    assert check_session_hours(build_calendar("XNYS", "1d", np.array(["2024-01-02"], "datetime64[D]"))) == (
        [],
        "",
    )


def walk(num_minutes, num_symbols=2, seed=0):
    rng = np.random.default_rng(seed)
    return 100 * np.exp(np.cumsum(rng.normal(0, 0.001, (num_symbols, num_minutes)), axis=1))


def coins(prices, frequency, shift_bars=0, scale=1.0):
    """Bars of symbols whose price each minute is known; ``shift_bars`` misplaces their stamps."""
    step = FREQUENCIES[frequency] // 60
    count = prices.shape[1] // step
    ends = np.arange(1, count + 1) * step - 1
    start = np.datetime64("2024-01-01T00:00:00") + np.arange(count) * np.timedelta64(step, "m").astype(
        "m8[s]"
    )
    start = (start + shift_bars * np.timedelta64(step * 60, "s")).astype("datetime64[s]")
    calendar = build_calendar("24x7", frequency, start)
    close = prices[:, ends].ravel() * scale
    num = len(prices)
    return Bars(
        symbols=tuple(f"COIN{i}USDT" for i in range(num)), offsets=np.arange(num + 1) * count,
        session=np.tile(np.arange(count, dtype=np.int32), num), open=close, high=close, low=close, close=close,
        volume=np.ones_like(close), amount=close, close_traded=close, calendar=calendar, market="crypto",
        delisted=np.full(num, -1, np.int32),
    )  # fmt: skip


@pytest.mark.parametrize("other", ["15m", "1h", "4h", "1d"])
def test_a_second_source_finds_the_misplaced_bar(other):
    prices = walk(60 * 24 * 70)
    right, second = coins(prices, "1h"), coins(prices, other, scale=1.001)
    findings, compared, note = check_against(right, second)
    assert findings == [] and note == "" and compared >= 100
    for shift in (1, -1):
        (finding,), _, _ = check_against(coins(prices, "1h", shift), second)
        assert finding.stage == "stamps"
        assert f"moved by {-3600 * shift:+d} seconds" in finding.detail


def test_a_second_source_with_misplaced_bars_of_its_own_is_found_too():
    prices = walk(60 * 24 * 30)
    (finding,), _, _ = check_against(coins(prices, "1h"), coins(prices, "15m", 1))
    assert "one of the two" in finding.detail and "+900 seconds" in finding.detail


def test_unrelated_sources_are_not_compared():
    prices = walk(60 * 24 * 3)
    findings, _, note = check_against(coins(prices, "1h"), coins(prices[:1], "1d"))
    assert findings == [] and "too few" in note
