"""Price limits of the mainland exchanges, against decimal arithmetic on real days."""

from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest

from barcast.core.calendar import Calendar, exchange_days
from barcast.labels import limit_closes, tradable_closes
from tests.labels.builders import bars_from_presence, one_row


def chinese_bars(symbol, closes, *, start="2022-03-01", skip=3, traded=True, high=None, low=None, open_=None):
    """One symbol whose first bar comes ``skip`` sessions after the calendar's first."""
    closes = np.array(closes, float)
    present = np.r_[np.zeros(skip, bool), np.ones(len(closes), bool)]
    days = exchange_days("XSHG", np.datetime64(start).item(), np.datetime64("2025-12-30").item())
    bars = bars_from_presence([present], closes=[np.r_[np.zeros(skip), closes]])
    return replace(
        bars,
        symbols=(symbol,), market="cn", calendar=Calendar("XSHG", "1d", days[: len(present)]),
        high=closes if high is None else np.array(high, float),
        low=closes if low is None else np.array(low, float),
        open=closes if open_ is None else np.array(open_, float),
        close_traded=closes if traded else np.full(len(closes), np.nan),
    )  # fmt: skip


def after_quiet_days(*closes):
    """Six quiet sessions, so that no rule for new listings applies, then ``closes``."""
    return [10.0] * 6 + list(closes)


@pytest.mark.parametrize("traded", [True, False])
@pytest.mark.parametrize(
    ("symbol", "start", "closes", "expected"),
    [
        ("600001.SH", "2022-03-01", (11.00, 9.90, 10.80), (1, -1, 0)),
        ("000001.SZ", "2022-03-01", (11.00, 12.10, 13.20), (1, 1, 0)),  # 13.31 would be the limit
        ("300001.SZ", "2022-03-01", (11.00, 13.20, 10.56), (0, 1, -1)),
        ("300001.SZ", "2020-06-01", (11.00, 9.90, 11.88), (1, -1, 0)),  # 10 % before 2020-08-24
        ("688001.SH", "2022-03-01", (12.00, 9.60, 10.56), (1, -1, 0)),
        ("832000.BJ", "2022-03-01", (13.00, 9.10, 10.01), (1, -1, 0)),
        ("510300.SH", "2022-03-01", (11.00, 9.90, 10.89), (0, 0, 0)),  # a fund: no rule known
        ("000001.SH", "2022-03-01", (11.00, 9.90, 10.89), (0, 0, 0)),  # an index
    ],
)
def test_limit_closes_by_board(symbol, start, closes, expected, traded):
    bars = chinese_bars(symbol, after_quiet_days(*closes), start=start, traded=traded)
    assert limit_closes(bars).tolist() == [0] * 6 + list(expected)
    assert tradable_closes(bars).tolist() == [True] * 6 + [not hit for hit in expected]


def test_limit_prices_round_half_up_to_the_cent():
    # 9.15 * 1.1 = 10.065 -> 10.07 and 9.35 * 0.9 = 8.415 -> 8.42: half up, in decimal, not in binary
    up = chinese_bars("600001.SH", [9.15] * 6 + [10.07, 9.35, 8.42])
    assert limit_closes(up)[[6, 8]].tolist() == [1, -1]
    short = chinese_bars("600001.SH", [9.15] * 6 + [10.06])
    assert limit_closes(short)[6] == 0


def test_a_close_at_the_limit_price_below_the_days_high_is_no_limit_close():
    closes = after_quiet_days(11.00)
    bars = chinese_bars("600001.SH", closes, high=[*closes[:-1], 11.4])  # beyond: no limit was in force
    assert limit_closes(bars)[-1] == 0
    assert limit_closes(chinese_bars("600001.SH", after_quiet_days(13.24)))[-1] == 0


@pytest.mark.parametrize(
    ("symbol", "start", "free"),
    [
        ("688001.SH", "2020-03-02", True),
        ("300001.SZ", "2020-03-02", False),
        ("300001.SZ", "2020-09-01", True),
        ("600001.SH", "2022-03-01", False),
        ("001001.SZ", "2023-05-04", True),
    ],
)
def test_new_listings_have_no_limit_for_five_sessions_where_the_rules_say_so(symbol, start, free):
    factor = 1.2 if symbol.startswith("68") or (symbol.startswith("30") and free) else 1.1
    closes = np.round(10 * factor ** np.arange(8), 6)
    bars = chinese_bars(symbol, closes, start=start, traded=False)
    assert limit_closes(bars).tolist() == [0, *[0 if free else 1] * 4, 1, 1, 1]
    from_the_start = chinese_bars(symbol, closes, start=start, traded=False, skip=0)
    assert limit_closes(from_the_start).tolist() == [0, *[1] * 7]  # not a listing: the data begins here


def test_a_first_day_under_the_old_rules_closes_at_most_44_percent_above_the_issue_price():
    closes = [14.40, 15.84]  # issued at 10.00, opened at 12.00
    bars = chinese_bars("600001.SH", closes, open_=[12.00, 15.84])
    assert limit_closes(bars).tolist() == [1, 1]
    reformed = chinese_bars("600001.SH", closes, open_=[12.00, 15.84], start="2023-05-04")
    assert limit_closes(reformed).tolist() == [0, 0]
    ordinary = chinese_bars("600001.SH", [13.00, 13.10], open_=[12.00, 13.0])
    assert limit_closes(ordinary).tolist() == [0, 0]


def test_special_treatment_halves_the_main_boards_limit_where_it_is_known():
    bars = chinese_bars("600001.SH", after_quiet_days(10.50, 11.55))
    special = np.ones(len(bars), bool)
    special[-1] = False
    assert limit_closes(replace(bars, special=special)).tolist()[-2:] == [1, 1]
    assert limit_closes(bars).tolist()[-2:] == [0, 1]


@pytest.mark.parametrize(
    ("skip", "listed", "free"),
    [
        (0, "2020-03-02", True),  # on record: a listing on the calendar's first day
        (3, "2019-08-01", False),  # on record: listed long ago, the data begins later
        (3, "2021-01-01", True),  # no listing before its first bar: the calendar is asked
        (0, "NaT", False),
        (3, "NaT", True),
    ],
)
def test_a_listing_on_record_is_believed_rather_than_guessed(skip, listed, free):
    closes = np.round(10 * 1.2 ** np.arange(8), 6)
    bars = chinese_bars("688001.SH", closes, start="2020-03-02", traded=False, skip=skip)
    bars = replace(bars, listed=np.array([listed], "datetime64[D]"))
    assert limit_closes(bars).tolist() == [0, *[0 if free else 1] * 4, 1, 1, 1]


def test_on_an_ex_date_the_reference_is_yesterdays_close_in_todays_terms():
    # 10 new shares for 10: 20.00 becomes 10.00, and 11.00 is the upper limit
    traded = [20.0] * 6 + [11.00]
    bars = chinese_bars("600001.SH", traded)
    bars = replace(bars, close=np.array([10.0] * 6 + [11.0]), high=np.array([10.0] * 6 + [11.0]))
    assert limit_closes(replace(bars, low=bars.close))[-1] == 1
    assert limit_closes(replace(bars, low=bars.close, close_traded=bars.close))[-1] == 1


def test_intraday_bars_compare_with_the_last_close_of_the_day_before():
    times = np.array(
        [f"2022-03-{day:02d}T{hour:02d}:00:00" for day in range(1, 9) for hour in (2, 6)], "datetime64[s]"
    )
    closes = [10.0] * 12 + [10.4, 11.00, 11.5, 11.6]
    bars = chinese_bars("600001.SH", closes, skip=0)
    bars = replace(bars, calendar=Calendar("XSHG", "1h", times))
    assert limit_closes(bars).tolist() == [0] * 13 + [1, 0, 0]


def test_zero_volume_is_not_tradable_anywhere_and_unknown_volume_is():
    bars = bars_from_presence(np.ones((1, 4), bool))
    volume = np.array([1.0, 0.0, np.nan, 5.0])
    assert tradable_closes(replace(bars, volume=volume)).tolist() == [True, False, True, True]
    assert not limit_closes(chinese_bars_elsewhere()).any()


def chinese_bars_elsewhere():
    return replace(chinese_bars("600001.SH", after_quiet_days(11.0)), market="other")


def decimal_limit(previous: float, percent: str) -> Decimal:
    cents = Decimal(str(round(previous, 2))) * Decimal(percent)
    return cents.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("day", "sign", "percent", "count"),
    [("2020-02-03", -1, "0.9", 1599), ("2024-09-30", 1, "1.1", 549)],
)
def test_real_limit_days_on_the_main_board_agree_with_decimal_arithmetic(cn_bars, day, sign, percent, count):
    hits = limit_closes(cn_bars)
    rows = np.flatnonzero(cn_bars.times == np.datetime64(day))
    compared = found = 0
    for row in rows:
        ordinary = abs(cn_bars.close_traded[row] / cn_bars.close[row] * cn_bars.close[row - 1]
                       / cn_bars.close_traded[row - 1] - 1) < 6e-3  # fmt: skip
        main = cn_bars.symbols[cn_bars.symbol_of_row[row]][:2] in ("60", "00")
        if not (main and ordinary):  # NaN compares false: traded closes unknown
            continue
        expected = Decimal(str(round(cn_bars.close_traded[row], 2))) == decimal_limit(
            cn_bars.close_traded[row - 1], percent
        )
        assert (hits[row] == sign) == expected, cn_bars.symbols[cn_bars.symbol_of_row[row]]
        compared, found = compared + 1, found + expected
    assert compared > 1900
    assert found == count


@pytest.mark.realdata
def test_limits_found_without_traded_closes_agree_with_those_found_from_them(cn_bars):
    exact = limit_closes(cn_bars)
    guessed = limit_closes(replace(cn_bars, close_traded=np.full(len(cn_bars), np.nan)))
    both_known = np.isfinite(cn_bars.close_traded)
    hit = both_known & (exact != 0)
    assert (guessed[hit] == exact[hit]).mean() > 0.999
    assert (guessed[both_known & (exact == 0)] != 0).sum() < 0.01 * hit.sum()


@pytest.mark.realdata
def test_chinext_moves_to_twenty_percent_on_2020_08_24(cn_bars):
    hits = limit_closes(cn_bars)
    chinext = np.char.startswith(np.array(cn_bars.symbols), "30")[cn_bars.symbol_of_row]
    move = np.zeros(len(cn_bars))
    move[1:] = np.abs(cn_bars.close[1:] / cn_bars.close[:-1] - 1)
    seasoned = np.arange(len(cn_bars)) - cn_bars.offsets[cn_bars.symbol_of_row] > 5
    for first, last, size in (("2020-01-01", "2020-08-23", 0.1), ("2020-08-24", "2021-06-30", 0.2)):
        rows = (
            chinext
            & seasoned
            & (cn_bars.times >= np.datetime64(first))
            & (cn_bars.times <= np.datetime64(last))
        )
        at_limit = move[rows & (hits != 0)]
        assert len(at_limit) > 100
        np.testing.assert_allclose(at_limit, size, atol=0.004)
        assert (move[rows] > size + 0.005).sum() == 0


@pytest.mark.realdata
def test_the_return_from_590_sessions_of_suspension_had_no_limit(cn_bars):
    row = one_row(cn_bars, "000670.SZ", "2022-08-22")
    assert cn_bars.close_traded[row] / cn_bars.close_traded[row - 1] > 5
    assert limit_closes(cn_bars)[row] == 0
