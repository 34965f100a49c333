from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.core.calendar import build_calendar
from barcast.store import to_bars
from barcast.store.status import STATUS_SCHEMA
from tests.store.builders import DAYS, rows

CALENDAR = build_calendar("XNYS", "1d", DAYS)


def naive(frame, calendar):
    """Row by row, as the rule says it."""
    times = calendar.times.tolist()
    for row in frame.iter_rows(named=True):
        if row["time"] not in times:
            continue
        traded = row["close"] if row["basis"] == "raw" else row["close_raw"]
        volume = np.nan if row["volume"] is None else row["volume"] / row["split_factor"]
        names = ("open", "high", "low", "close")
        prices = [np.nan if row[n] is None else row[n] * row["total_factor"] for n in names]
        yield row["symbol"], times.index(row["time"]), *prices, volume, np.nan if traded is None else traded


@pytest.mark.parametrize("basis", ["raw", "split", "adjusted"])
def test_against_row_by_row(basis):
    frame = rows(basis=basis).with_columns(
        close_raw=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.col("close") * 3),
        volume=pl.when(pl.int_range(pl.len()) % 7 != 0).then("volume"),
        open=pl.when(pl.int_range(pl.len()) % 11 != 0).then("open"),
    )
    bars = to_bars(frame, CALENDAR, "us")
    symbol = [bars.symbols[i] for i in bars.symbol_of_row]
    values = (bars.open, bars.high, bars.low, bars.close, bars.volume, bars.close_traded)
    got = zip(symbol, bars.session, *values, strict=True)
    for ours, theirs in zip(got, naive(frame, CALENDAR), strict=True):
        assert ours[:2] == theirs[:2]
        np.testing.assert_allclose(ours[2:], theirs[2:], rtol=1e-12)
    assert np.isnan(bars.amount).all()


def test_off_calendar_rows_are_left_out_and_symbols_stay():
    frame = rows(count=20)
    holiday = frame.filter(pl.col("symbol") == "B").with_columns(time=pl.col("time").dt.offset_by("5y"))
    mixed = pl.concat([frame.filter(pl.col("symbol") != "B"), holiday]).sort("symbol", "time")
    bars = to_bars(mixed, CALENDAR, "us")
    assert bars.symbols == ("A", "B", "C")
    assert np.diff(bars.offsets).tolist() == [20, 0, 14]
    assert bars.offsets[-1] == len(bars.close) == len(bars.session)


def test_listing_days_and_special_rows_come_from_the_status_table():
    frame = rows(count=30)  # A, B and C begin on sessions 0, 3 and 6
    day = [d.item() for d in DAYS]
    told = [
        ("A", "listed", day[0], None, day[0]),
        ("B", "listed", day[1], None, day[9]),  # became known after the first bar: no rule may read it
        ("C", "st", day[8], day[9], day[8]),
    ]
    status = pl.DataFrame(told, schema=STATUS_SCHEMA, orient="row")
    bars = to_bars(frame, CALENDAR, "us", status)
    assert bars.listed.tolist() == [day[0], None, None]
    assert bars.session[bars.special].tolist() == [8, 9]
    assert set(bars.symbol_of_row[bars.special]) == {2}
    early = bars.until(8)
    assert early.session[early.special].tolist() == [8]
    assert bars.content_digest() != to_bars(frame, CALENDAR, "us").content_digest()
    silent = to_bars(frame, CALENDAR, "us", status.filter(pl.col("symbol") == "B"))
    assert silent.listed is None
    assert silent.special is None
    assert silent.content_digest() == to_bars(frame, CALENDAR, "us").content_digest()


def test_no_rows():
    bars = to_bars(rows().head(0), CALENDAR, "us")
    assert (bars.symbols, len(bars), bars.offsets.tolist()) == ((), 0, [0])


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(1, 300), seed=st.integers(0, 100))
def test_history_cut_anywhere_gives_the_first_rows_of_the_whole(cut, seed):
    frame = rows(seed=seed)
    last = DAYS[cut - 1]
    known = frame.filter(pl.col("time") <= last)
    early = to_bars(known, build_calendar("XNYS", "1d", DAYS[:cut]), "us")
    whole = to_bars(frame, build_calendar("XNYS", "1d", DAYS[:300]), "us").until(cut - 1)
    listed = np.diff(whole.offsets) > 0
    assert early.symbols == tuple(np.array(whole.symbols)[listed])
    for name in ("session", "open", "high", "low", "close", "volume", "close_traded"):
        np.testing.assert_array_equal(getattr(early, name), getattr(whole, name))


def status(*facts):
    return pl.DataFrame(list(facts), schema=STATUS_SCHEMA, orient="row")


def test_delisting_counts_from_the_day_it_is_known():
    saturday = date(2023, 1, 7)
    facts = status(
        ("A", "delisted", saturday, None, saturday),
        ("B", "delisted", date(2030, 1, 1), None, date(2030, 1, 1)),
        ("C", "suspended", date(2023, 1, 3), None, date(2023, 1, 3)),
        ("Z", "delisted", saturday, None, saturday),
    )
    bars = to_bars(rows(), CALENDAR, "us", facts)
    assert CALENDAR.times[bars.delisted[0]].item() == date(2023, 1, 9)  # the Monday
    assert bars.delisted.tolist()[1:] == [-1, -1]
    assert bars.delisted.dtype == np.int32


def test_a_delisting_announced_ahead_counts_from_its_day():
    ahead = status(("A", "delisted", date(2023, 1, 10), None, date(2023, 1, 7)))
    bars = to_bars(rows(), CALENDAR, "us", ahead)
    assert CALENDAR.times[bars.delisted[0]].item() == date(2023, 1, 10)


def test_intraday_times():
    hours = [datetime(2024, 1, 2) + timedelta(hours=h) for h in range(6)]
    frame = rows(symbols=("X",), count=6).with_columns(time=pl.Series(hours, dtype=pl.Datetime("us")))
    calendar = build_calendar("24x7", "1h", np.array(hours, "datetime64[s]"))
    facts = status(("X", "delisted", date(2024, 1, 2), None, date(2024, 1, 2)))
    bars = to_bars(frame, calendar, "crypto", facts)
    assert bars.session.tolist() == list(range(6))
    assert bars.delisted.tolist() == [0]
