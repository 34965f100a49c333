from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.core.errors import UsageError
from barcast.sources.times import add_clock, bar_starts, read_moments, session_dates

FORMATS = [
    "{:%Y-%m-%d}", "{:%Y/%m/%d}", "{:%Y.%m.%d}", "{:%Y%m%d}", "{:%Y年%m月%d日}", "{0.year}/{0.month}/{0.day}",
    "{:%Y-%m-%d} 00:00:00", "{:%Y-%m-%dT%H:%M:%S}", "{:%d-%b-%Y}", "{:%b %d, %Y}", " {:%Y-%m-%d} ",
    "{:%Y%m%d}000000",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=10, deadline=None)
@given(dates=st.lists(st.dates(date(1950, 1, 1), date(2099, 12, 31)), min_size=1, max_size=20))
def test_every_form_gives_its_day(form, dates):
    text = pl.Series([form.format(datetime(d.year, d.month, d.day)) for d in dates])
    assert session_dates(read_moments(text), None).to_list() == dates


@settings(max_examples=25, deadline=None)
@given(st.lists(st.dates(date(1990, 1, 1), date(2090, 12, 31)), min_size=1, max_size=20))
def test_numbers_as_days_or_epochs(dates):
    whole = pl.Series([d.year * 10000 + d.month * 100 + d.day for d in dates])
    assert session_dates(read_moments(whole), None).to_list() == dates
    seconds = [int(datetime(d.year, d.month, d.day, tzinfo=UTC).timestamp()) for d in dates]
    for unit in (1, 10**3, 10**6, 10**9):
        epochs = pl.Series([s * unit for s in seconds])
        assert session_dates(read_moments(epochs), None).to_list() == dates
        assert session_dates(read_moments(epochs.cast(pl.String)), None).to_list() == dates
    floats = pl.Series([float(s) for s in seconds])
    assert session_dates(read_moments(floats), None).to_list() == dates


def test_impossible_days_and_words_are_null():
    found = read_moments(pl.Series(["2024-02-30", "2024-13-01", "hello", "", None, "20241301", "12"]))
    assert found["moment"].null_count() == 7


def test_midnights_of_an_exchange_need_its_zone():
    new_york = ZoneInfo("America/New_York")
    stamps = [int(datetime(2024, m, 3, tzinfo=new_york).timestamp()) for m in (1, 7)]  # winter and summer
    moments = read_moments(pl.Series(stamps))
    with pytest.raises(UsageError, match="--tz"):
        session_dates(moments, None)
    assert session_dates(moments, "America/New_York").to_list() == [date(2024, 1, 3), date(2024, 7, 3)]
    shanghai = pl.Series([datetime(2024, 1, 3, tzinfo=ZoneInfo("Asia/Shanghai"))])  # 16:00 UTC the day before
    assert session_dates(read_moments(shanghai), "Asia/Shanghai").to_list() == [date(2024, 1, 3)]


def test_midnight_utc_is_a_date_whatever_the_zone():
    midnight = pl.Series([int(datetime(2024, 1, 3, tzinfo=UTC).timestamp())])
    assert session_dates(read_moments(midnight), "America/New_York").to_list() == [date(2024, 1, 3)]


def test_times_within_the_day_are_not_daily():
    moments = read_moments(pl.Series([f"2024-01-02 {h:02d}:00" for h in range(9, 13)]))
    with pytest.raises(UsageError, match="--frequency"):
        session_dates(moments, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(["13/02/2024", "05/02/2024"], date(2024, 2, 5)), (["02/13/2024", "05/02/2024"], date(2024, 5, 2))],
)
def test_a_telling_date_decides_the_order(text, expected):
    assert session_dates(read_moments(pl.Series(text)), None)[1] == expected


def test_ambiguous_dates_are_not_guessed():
    dates = pl.Series(["03/04/2020", "05/06/2020"])
    with pytest.raises(UsageError, match=r"03/04/2020.*two ways"):
        read_moments(dates)
    assert session_dates(read_moments(dates, "mdy"), None)[0] == date(2020, 3, 4)
    assert session_dates(read_moments(dates, "dmy"), None)[0] == date(2020, 4, 3)


@pytest.mark.parametrize("clock", ["09:35", "0935", "935", "09:35:00", "93500", "093500"])
def test_clock_columns(clock):
    moments = add_clock(read_moments(pl.Series(["2024-01-02"])), pl.Series([clock]))
    assert moments["moment"].to_list() == [datetime(2024, 1, 2, 9, 35)]


def test_full_width_digits_and_signs():
    moments = read_moments(pl.Series(["２０２４-０１-０２", "2024／01／03 09：35"]))["moment"]
    assert moments.to_list() == [datetime(2024, 1, 2), datetime(2024, 1, 3, 9, 35)]
    timed = add_clock(read_moments(pl.Series(["2024-01-02"])), pl.Series(["０９：３５"]))
    assert timed["moment"].to_list() == [datetime(2024, 1, 2, 9, 35)]


def test_clock_numbers_and_full_stamps():
    dates = read_moments(pl.Series([20240102, 20240102]))
    assert add_clock(dates, pl.Series([935, 1500]))["moment"].to_list() == [
        datetime(2024, 1, 2, 9, 35), datetime(2024, 1, 2, 15)
    ]  # fmt: skip
    full = add_clock(dates, pl.Series(["20240102093500000", "20240102150000000"]))
    assert full["moment"][0] == datetime(2024, 1, 2, 9, 35)


def test_bar_starts_by_zone_and_stamp():
    winter, summer = "2024-01-02 09:35", "2024-07-02 16:00"
    moments = read_moments(pl.Series([winter, summer]))
    assert bar_starts(moments, "America/New_York", "end", 300).to_list() == [
        datetime(2024, 1, 2, 14, 30), datetime(2024, 7, 2, 19, 55)
    ]  # fmt: skip
    assert bar_starts(moments, "Asia/Shanghai", "start", 300)[0] == datetime(2024, 1, 2, 1, 35)


def test_own_offset_beats_the_declared_zone():
    moments = read_moments(
        pl.Series(["2024-01-02T09:30:00+08:00", "2024-01-02 09:30:00Z", "2024-01-02 09:30:00-0500"])
    )
    starts = bar_starts(moments, "America/New_York", "start", 300).to_list()
    assert starts == [datetime(2024, 1, 2, 1, 30), datetime(2024, 1, 2, 9, 30), datetime(2024, 1, 2, 14, 30)]


def test_local_times_that_clocks_skip_or_repeat_are_unknown():
    moments = read_moments(pl.Series(["2024-03-10 02:30", "2024-11-03 01:30", "2024-11-03 03:30"]))
    starts = bar_starts(moments, "America/New_York", "start", 3600)
    assert starts.is_null().to_list() == [True, True, False]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1)), min_size=1, max_size=10))
def test_end_stamps_lie_one_bar_after_their_start(stamps):
    moments = read_moments(pl.Series([s.replace(microsecond=0) for s in stamps]))
    start = bar_starts(moments, "UTC", "start", 900)
    end = bar_starts(moments, "UTC", "end", 900)
    assert ((start - end) == timedelta(minutes=15)).all()


def test_two_digit_years_are_of_this_era(tmp_path):
    from barcast.pipeline.data import import_data
    from barcast.sources.options import ImportOptions
    from barcast.store import MarketStore

    (tmp_path / "AAPL.csv").write_text(
        "Date,Open,High,Low,Close,Volume\n31-Jan-24,1,1,1,1,5\n01-Feb-24,1,1,1,1,5\n", encoding="utf-8"
    )
    import_data(tmp_path / "ws", [tmp_path / "AAPL.csv"], ImportOptions(market="us", basis="raw"))
    assert str(MarketStore.open(tmp_path / "ws" / "market").frame()["time"][0]) == "2024-01-31"
