"""Forward labels against a naive reading of the rules, under truncation, and on real cases."""

import math
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from barcast.core.calendar import Calendar
from barcast.core.errors import UsageError
from barcast.labels import REASONS, LabelSpec, forward_labels
from tests.conftest import make_bars
from tests.labels.builders import bars_from_presence, change_future, one_row, ragged_bars

SPECS = st.builds(
    LabelSpec,
    horizons=st.sampled_from([(1,), (5,), (1, 3, 8), (12, 2)]),
    delay=st.integers(0, 3),
    max_wait=st.sampled_from([0, 2, 5, 20]),
)


def naive_label(closes: dict[int, float], delisted: int, last: int, t: int, h: int, spec: LabelSpec):
    """One label by the rules as a person reads them: (y, known_at, reason, late, terminal)."""
    entry, due = t + spec.delay, t + spec.delay + h
    if entry > last:
        return math.nan, -1, "beyond_data", False, False
    if entry not in closes:
        return math.nan, -1, "no_entry_bar", False, False
    if due > last:
        return math.nan, -1, "beyond_data", False, False
    after = [session for session in sorted(closes) if session >= due]
    seen = max(due, delisted)  # when the record and the missing exit are both seen
    if t <= delisted <= last and not [session for session in after if session <= seen]:
        final = max(session for session in closes if session < due)
        return math.log(closes[final] / closes[entry]), seen, "ok", False, True
    if after and after[0] - due <= spec.max_wait:
        return math.log(closes[after[0]] / closes[entry]), after[0], "ok", after[0] > due, False
    if after:
        return math.nan, -1, "no_exit_bar", False, False
    final = max(closes)
    y = math.log(closes[final] / closes[entry])
    if last - final > spec.max_wait:
        return y, last, "ok", False, True
    return math.nan, -1, "waiting", False, False


@settings(max_examples=80, deadline=None)
@given(ragged_bars(), SPECS)
def test_labels_follow_the_rules_row_by_row(bars, spec):
    labels = forward_labels(bars, spec)
    for symbol in range(bars.num_symbols):
        own = range(bars.offsets[symbol], bars.offsets[symbol + 1])
        closes = {int(bars.session[row]): float(bars.close[row]) for row in own}
        for row in own:
            for column, h in enumerate(spec.horizons):
                y, known_at, reason, late, terminal = naive_label(
                    closes,
                    int(bars.delisted[symbol]),
                    len(bars.calendar) - 1,
                    int(bars.session[row]),
                    h,
                    spec,
                )
                np.testing.assert_allclose(labels.y[row, column], y, rtol=0, atol=1e-14)
                assert labels.known_at[row, column] == known_at
                assert REASONS[labels.reason[row, column]] == reason
                assert labels.late[row, column] == late
                assert labels.terminal[row, column] == terminal


@settings(max_examples=60, deadline=None)
@given(ragged_bars(), SPECS, st.integers(0, 999))
def test_labels_known_by_a_cutoff_are_the_same_from_history_cut_there(bars, spec, seed):
    full = forward_labels(bars, spec)
    for cutoff in range(len(bars.calendar)):
        before = bars.session <= cutoff
        cut = forward_labels(bars.until(cutoff), spec)
        known = full.known[before] & (full.known_at[before] <= cutoff)
        for field in ("y", "known_at", "reason", "late", "terminal"):
            np.testing.assert_array_equal(getattr(cut, field)[known], getattr(full, field)[before][known])
        # the other way round: what the cut history calls known stays, unless it took a pause for an end
        on_record = bars.until(cutoff).delisted[bars.symbol_of_row[before]] >= bars.session[before]
        settled = cut.known & (~cut.terminal | on_record[:, None])
        np.testing.assert_array_equal(cut.y[settled], full.y[before][settled])
        np.testing.assert_array_equal(cut.known_at[settled], full.known_at[before][settled])
        entry_known = bars.session[before] + spec.delay <= cutoff
        np.testing.assert_array_equal(cut.tradable[entry_known], full.tradable[before][entry_known])


@settings(max_examples=40, deadline=None)
@given(ragged_bars(), SPECS, st.integers(0, 999), st.data())
def test_no_label_known_by_a_cutoff_changes_with_the_future(bars, spec, seed, data):
    cutoff = data.draw(st.integers(0, len(bars.calendar) - 2))
    full = forward_labels(bars, spec)
    other = change_future(bars, cutoff, seed)
    changed = forward_labels(other, spec)
    before, now = bars.session <= cutoff, other.session <= cutoff
    known = full.known[before] & (full.known_at[before] <= cutoff)
    for field in ("y", "known_at", "reason", "late", "terminal"):
        np.testing.assert_array_equal(
            getattr(changed, field)[now][known], getattr(full, field)[before][known]
        )


def test_an_unrecorded_end_is_known_with_the_last_session_and_a_recorded_one_earlier():
    present = np.zeros((2, 80), bool)
    present[:, :30] = True
    bars = bars_from_presence(present, delisted=[-1, 33])
    labels = forward_labels(bars, LabelSpec(horizons=(5,)))
    unrecorded, recorded = labels.known_at[:30, 0], labels.known_at[30:, 0]
    assert labels.terminal[:, 0].sum() == 2 * 5
    assert (unrecorded[24:29] == 79).all()
    assert recorded[24:29].tolist() == [33, 33, 33, 33, 34]  # exits at 30 .. 34
    assert unrecorded[29] == recorded[29] == -1  # no bar at the entry
    np.testing.assert_allclose(labels.y[24:29, 0], np.log(bars.close[29] / bars.close[25:30]))


@pytest.mark.parametrize(
    ("pause", "reason", "late"),
    [(0, "ok", False), (1, "ok", True), (20, "ok", True), (21, "no_exit_bar", False)],
)
def test_an_exit_waits_twenty_sessions_and_no_longer(pause, reason, late):
    present = np.ones((1, 60), bool)
    present[0, 16 : 16 + pause] = False  # row 10 enters at 11 and is due at 16
    labels = forward_labels(bars_from_presence(present), LabelSpec(horizons=(5,)))
    assert REASONS[labels.reason[10, 0]] == reason
    assert labels.late[10, 0] == late
    assert labels.known_at[10, 0] == (16 + pause if reason == "ok" else -1)


@pytest.mark.parametrize(("silence", "ended"), [(20, False), (21, True)])
def test_a_symbol_counts_as_ended_after_more_than_twenty_silent_sessions(silence, ended):
    present = np.ones((1, 60), bool)
    present[0, 60 - silence :] = False
    labels = forward_labels(bars_from_presence(present))
    final = 60 - silence - 1
    assert labels.terminal[final - 1, 0] == ended
    assert REASONS[labels.reason[final - 1, 0]] == ("ok" if ended else "waiting")


def test_a_delisting_recorded_beyond_the_calendar_is_not_known_yet():
    present = np.ones((1, 60), bool)
    present[0, 50:] = False
    bars = bars_from_presence(present, delisted=[75])
    assert not forward_labels(bars).terminal.any()


def test_intraday_exits_wait_twenty_days_not_twenty_bars():
    hours = np.datetime64("2024-01-01T00:00:00") + np.arange(24 * 40) * np.timedelta64(3600, "s")
    present = np.ones((1, len(hours)), bool)
    present[0, 100:400] = False  # 12.5 days of outage
    bars = replace(bars_from_presence(present), calendar=Calendar("24x7", "1h", hours))
    labels = forward_labels(bars, LabelSpec(horizons=(5,)))
    assert labels.known_at[98, 0] == 400
    assert labels.late[98, 0]


def test_tradable_is_the_entry_sessions_not_the_decisions():
    bars = make_bars((40,), zero_volume=(20,))
    labels = forward_labels(bars)
    assert not labels.tradable[19]
    assert labels.tradable[20]
    assert not labels.tradable[39]  # its entry lies beyond the data
    same_close = forward_labels(bars, LabelSpec(delay=0))
    assert not same_close.tradable[20]


def test_the_last_known_horizon_of_a_row_and_the_counts():
    bars = make_bars((30, 12), holes=((0, 15, 16),))
    labels = forward_labels(bars, LabelSpec(horizons=(1, 5)))
    assert labels.last_known_at[0] == 6
    assert labels.last_known_at[bars.offsets[1] - 3] == 29  # only the horizon of 1 is known
    assert labels.last_known_at[bars.offsets[1] - 1] == -1
    counts = labels.counts()
    assert set(counts) == {1, 5}
    for row in counts.values():
        assert sum(row[reason] for reason in REASONS) == len(bars)
    assert counts[5]["late"] == 2  # exits due at sessions 15 and 16


def test_symbols_without_rows_and_empty_bars_give_empty_labels(bars):
    nothing = bars.take(np.zeros(len(bars), bool))
    labels = forward_labels(nothing, LabelSpec(horizons=(1, 5)))
    assert labels.y.shape == (0, 2)
    assert labels.counts()[5]["ok"] == 0
    alone = bars.take(bars.symbol_of_row == 2)
    kept = forward_labels(alone)
    np.testing.assert_array_equal(kept.y, forward_labels(bars).y[bars.symbol_of_row == 2])


@pytest.mark.parametrize(
    "wrong", [{"horizons": ()}, {"horizons": (0,)}, {"horizons": (5, 5)}, {"delay": -1}, {"max_wait": -1}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError, match="must"):
        LabelSpec(**wrong)


@pytest.mark.realdata
def test_cn_a_share_counts_and_a_suspension_of_590_sessions(cn_bars):
    labels = forward_labels(cn_bars)
    assert labels.counts()[5] == {
        "ok": 4_788_547, "no_entry_bar": 1_569, "no_exit_bar": 79, "waiting": 26, "beyond_data": 20_502,
        "late": 4_350, "terminal": 0,
    }  # fmt: skip
    last_day = one_row(cn_bars, "000670.SZ", "2020-03-19")
    assert str(cn_bars.times[last_day + 1]) == "2022-08-22"
    assert cn_bars.session[last_day + 1] - cn_bars.session[last_day] == 590
    reasons = [REASONS[code] for code in labels.reason[last_day - 6 : last_day + 2, 0]]
    assert reasons == ["ok", *["no_exit_bar"] * 5, "no_entry_bar", "ok"]
    # 13.24 after 2.25: the jump of the day of return is in no label of the rows around it
    assert np.nanmax(np.abs(labels.y[last_day - 10 : last_day + 2, 0])) < 0.3


@pytest.mark.realdata
def test_us_market_counts_and_ends_that_no_record_dates(us_bars):
    labels = forward_labels(us_bars)
    assert labels.counts()[5] == {
        "ok": 3_060_096, "no_entry_bar": 3_290, "no_exit_bar": 104, "waiting": 185, "beyond_data": 35_884,
        "late": 2_703, "terminal": 5_194,
    }  # fmt: skip
    final = one_row(us_bars, "EMC", "2016-09-06")  # bought by Dell for 24.05 in cash and a tracking stock
    rows = slice(final - 5, final)
    assert labels.terminal[rows, 0].all()
    assert (labels.known_at[rows, 0] == len(us_bars.calendar) - 1).all()
    np.testing.assert_allclose(
        labels.y[rows, 0], np.log(us_bars.close[final] / us_bars.close[final - 4 : final + 1])
    )


@pytest.mark.realdata
def test_real_labels_do_not_change_when_history_is_cut(cn_bars):
    some = cn_bars.take(cn_bars.symbol_of_row % 40 == 7)
    full = forward_labels(some, LabelSpec(horizons=(1, 5, 20)))
    for cutoff in (300, 800, 1200):
        before = some.session <= cutoff
        cut = forward_labels(some.until(cutoff), LabelSpec(horizons=(1, 5, 20)))
        known = full.known[before] & (full.known_at[before] <= cutoff)
        np.testing.assert_array_equal(cut.y[known], full.y[before][known])
        np.testing.assert_array_equal(cut.known_at[known], full.known_at[before][known])
        entry_known = some.session[before] < cutoff
        np.testing.assert_array_equal(cut.tradable[entry_known], full.tradable[before][entry_known])
