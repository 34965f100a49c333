"""Segments: borders, purging, and the promise that no label serves two of them."""

import re
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from barcast.core.calendar import Calendar, build_calendar, exchange_days
from barcast.core.errors import LeakError, UsageError
from barcast.core.predictions import SEGMENTS
from barcast.labels import LabelSpec, forward_labels
from barcast.splits import SegmentPlan, check_disjoint
from tests.labels.builders import change_future, ragged_bars

FIT, STOP, WEIGH, ROUTE, TEST = range(5)


def daily(name, first, last):
    days = exchange_days(name, np.datetime64(first).item(), np.datetime64(last).item())
    return build_calendar(name, "1d", days)


@st.composite
def plans(draw, num_sessions):
    borders = draw(
        st.lists(st.integers(1, num_sessions - 1), min_size=5, max_size=5, unique=True).map(sorted)
    )
    return SegmentPlan(
        tuple(borders), first=draw(st.integers(0, borders[0])), embargo=draw(st.integers(0, 4))
    )


@settings(max_examples=150, deadline=None)
@given(ragged_bars(), st.integers(1, 6), st.integers(0, 3), st.data())
def test_no_label_interval_reaches_a_later_segment(bars, horizon, delay, data):
    plan = data.draw(plans(len(bars.calendar)))
    labels = forward_labels(bars, LabelSpec(horizons=(horizon,), delay=delay, max_wait=4))
    known_at = labels.known_at[:, 0]
    segment = plan.assign(bars.session, known_at)
    check_disjoint(bars.session, known_at, segment)
    for row in np.flatnonzero(segment >= 0):
        first, last = list(plan.spans.values())[segment[row]]
        assert first <= bars.session[row] <= last
        assert bars.session[row] + delay + horizon <= known_at[row] <= last
        if segment[row] < TEST:
            next_first = list(plan.spans.values())[segment[row] + 1][0]
            assert known_at[row] + plan.embargo < next_first
    # nothing is purged that did not have to be
    for row in np.flatnonzero((segment < 0) & (known_at >= 0)):
        inside = plan.first <= bars.session[row] <= plan.last[-1]
        code = np.searchsorted(plan.last, bars.session[row])
        assert not inside or known_at[row] > plan.last[code] - (plan.embargo if code < TEST else 0)


@settings(max_examples=100, deadline=None)
@given(ragged_bars(), st.integers(1, 6), st.integers(0, 2), st.integers(0, 99), st.data())
def test_training_rows_do_not_change_with_what_comes_after_their_segment(bars, horizon, delay, seed, data):
    plan = data.draw(plans(len(bars.calendar)))
    spec = LabelSpec(horizons=(horizon,), delay=delay, max_wait=4)
    for code, border in enumerate(plan.last[:-1]):
        rows = []
        for world in (bars, change_future(bars, border, seed)):
            labels = forward_labels(world, spec)
            used = plan.assign(world.session, labels.known_at[:, 0]) == code
            names = np.array(world.symbols)[world.symbol_of_row[used]]
            rows.append((names.tolist(), world.session[used].tolist(), labels.y[used, 0].tolist()))
        assert rows[0] == rows[1]


def test_purging_keeps_only_labels_known_inside_the_segment():
    plan = SegmentPlan((9, 19, 29, 39, 49))
    session = np.arange(52, dtype=np.int32)
    segment = plan.assign(session, session + 6)
    assert segment[:4].tolist() == [FIT] * 4
    assert segment[4:10].tolist() == [-1] * 6  # known at 10 .. 15
    assert segment[10:14].tolist() == [STOP] * 4
    assert segment[40:44].tolist() == [TEST] * 4
    assert (segment[44:] == -1).all()
    assert (plan.assign(session, np.full(52, -1, np.int32)) == -1).all()
    assert plan.segment_of(session)[[0, 9, 10, 49, 50]].tolist() == [FIT, FIT, STOP, TEST, -1]


def test_horizons_of_one_row_can_be_judged_one_by_one():
    plan = SegmentPlan((9, 19, 29, 39, 49))
    session = np.array([7, 8], np.int32)
    segment = plan.assign(session, session[:, None] + np.array([1, 2], np.int32))
    assert segment.tolist() == [[FIT, FIT], [FIT, -1]]


def test_an_embargo_widens_every_border_but_the_last():
    plan = SegmentPlan((9, 19, 29, 39, 49), embargo=3)
    session = np.arange(50, dtype=np.int32)
    kept = plan.assign(session, session + 1)
    assert (kept == FIT).sum() == 6
    assert (kept == TEST).sum() == 9


def test_default_shares_cut_cn_a_share_sized_data():
    plan = SegmentPlan.by_share(1621, label_sessions=6)
    assert list(plan.num_sessions) == list(SEGMENTS)
    assert list(plan.num_sessions.values()) == [973, 129, 130, 130, 259]
    assert plan.last[-1] == 1620


@given(st.integers(60, 5000), st.integers(0, 30))
def test_shares_cover_every_session_or_say_how_many_would_do(num_sessions, label_sessions):
    try:
        plan = SegmentPlan.by_share(num_sessions, label_sessions=label_sessions)
    except UsageError as error:
        assert f"{num_sessions} sessions" in error.found
        enough = int(error.todo.split("at least ")[1].split(" sessions")[0])
        assert enough > num_sessions
        SegmentPlan.by_share(enough, label_sessions=label_sessions)
        if shorter := re.search(r"shorter by (\d+) sessions", error.todo):
            SegmentPlan.by_share(num_sessions, label_sessions=label_sessions - int(shorter[1]))
        if shares := re.search(r"shares = \[(.+?)\]", error.todo):
            given = tuple(map(float, shares[1].split(", ")))
            SegmentPlan.by_share(num_sessions, given, label_sessions=label_sessions)
        return
    assert sum(plan.num_sessions.values()) == num_sessions
    session = np.arange(num_sessions, dtype=np.int32)
    used = plan.assign(session, np.minimum(session + label_sessions, 2**30))
    assert set(range(5)) <= set(used.tolist())


def test_short_history_is_told_what_would_do():
    with pytest.raises(UsageError) as caught:
        SegmentPlan.by_share(80, label_sessions=6)
    assert caught.value.todo == (
        "give at least 100 sessions of history, or a horizon shorter by 2 sessions, or "
        "shares = [0.53, 0.10, 0.10, 0.10, 0.17] under [data]"
    )


def test_a_horizon_beyond_the_history_is_told_which_one_fits():
    with pytest.raises(UsageError) as caught:
        SegmentPlan.by_share(1621, label_sessions=100_001, horizon=100_000)
    assert caught.value.found.startswith("1621 sessions, cut 60/8/8/8/16")
    assert caught.value.todo == "a horizon of at most 126, or at least 1250038 sessions of history"
    SegmentPlan.by_share(1621, label_sessions=127, horizon=126)


@pytest.mark.parametrize("num_sessions", [0, 1, 4, 12, 60])
def test_tiny_data_is_refused_with_what_to_change(num_sessions):
    with pytest.raises(UsageError, match=r"give at least .* sessions of history"):
        SegmentPlan.by_share(num_sessions, label_sessions=6)


def test_intraday_data_is_cut_at_ends_of_days():
    times = (
        np.datetime64("2024-01-01T00:00:00") + np.arange(5, 24 * 50 + 3) * np.timedelta64(3600, "s")
    ).astype("datetime64[s]")
    calendar = Calendar("24x7", "1h", times)
    plan = SegmentPlan.by_share(calendar, label_sessions=25)
    for border in plan.last[:-1]:
        assert times[border].astype("datetime64[D]") != times[border + 1].astype("datetime64[D]")
    assert plan.last[-1] == len(calendar) - 1
    with pytest.raises(UsageError):
        SegmentPlan.by_share(calendar, label_sessions=24 * 4)


@pytest.mark.parametrize(
    "shares", [(0.5, 0.5), (0.6, 0.1, 0.1, 0.1, 0.2), (0.7, 0.0, 0.1, 0.1, 0.1), (1.2, -0.2, 0, 0, 0)]
)
def test_shares_that_are_no_cut_are_refused(shares):
    with pytest.raises(UsageError, match="sum 1"):
        SegmentPlan.by_share(1000, shares)


def test_months_mean_their_last_session():
    calendar = daily("XSHG", "2019-01-02", "2025-09-04")
    plan = SegmentPlan.by_dates(
        calendar, fit="2022-12", stop="2023-04", weigh="2023-08", route="2023-12", test="2025-08-22",
        label_sessions=6,
    )  # fmt: skip
    ends = [str(calendar.times[border]) for border in plan.last]
    assert ends == ["2022-12-30", "2023-04-28", "2023-08-31", "2023-12-29", "2025-08-22"]
    assert plan.first == 0
    open_ended = SegmentPlan.by_dates(
        calendar, start="2020-01", fit="2022", stop="2023-04-29", weigh="2023-08", route="2023"
    )
    assert str(calendar.times[open_ended.first]) == "2020-01-02"
    assert open_ended.last == (*plan.last[:-1], len(calendar) - 1)


BORDERS = {"fit": "2022-12", "stop": "2023-04", "weigh": "2023-08", "route": "2023-12"}


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"fit": "soon"}, "no date"),
        ({"fit": ""}, "no date"),
        ({"test": "2031-01-01"}, "outside the calendar"),
        ({"fit": "2018"}, "outside the calendar"),
        ({"stop": "2022-11"}, "`stop` would be empty"),
        ({"start": "2024-01"}, "`fit` would be empty"),
        ({"stop": "2023-01-04"}, "`stop` has 2 sessions"),
    ],
)
def test_borders_that_cannot_be_are_named(changed, word):
    calendar = daily("XSHG", "2019-01-02", "2025-09-04")
    with pytest.raises(UsageError, match=word):
        SegmentPlan.by_dates(calendar, **(BORDERS | changed), label_sessions=6)


def test_an_empty_calendar_has_no_segments():
    nothing = Calendar("observed", "1d", np.zeros(0, "datetime64[D]"))
    with pytest.raises(UsageError, match="no session"):
        SegmentPlan.by_dates(nothing, **BORDERS)
    with pytest.raises(UsageError, match="0 sessions"):
        SegmentPlan.by_share(nothing)


@pytest.mark.parametrize(
    "wrong", [{"last": (1, 2, 3)}, {"last": (5, 4, 6, 7, 8)}, {"embargo": -1}, {"first": 9}]
)
def test_plans_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        SegmentPlan(**({"last": (5, 6, 7, 8, 9)} | wrong))


def test_segments_without_rows_are_named():
    plan = SegmentPlan((9, 19, 29, 39, 49))
    segment = np.array([FIT, FIT, STOP, ROUTE, TEST, -1], np.int8)
    with pytest.raises(UsageError, match=r"`weigh` .*fit 2"):
        plan.require_rows(segment)
    plan.require_rows(np.arange(5, dtype=np.int8))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_row_that_is_not_purged_is_found(data):
    plan = SegmentPlan((9, 19, 29, 39, 49))
    session = np.arange(50, dtype=np.int32)
    known_at = (session + 6).astype(np.int32)
    segment = plan.assign(session, known_at)
    leak = data.draw(st.integers(4, 43))
    assume(segment[leak] == -1 and leak < 40)
    segment[leak] = plan.segment_of(session)[leak]
    with pytest.raises(LeakError, match=f"row {leak} of segment"):
        check_disjoint(session, known_at, segment)


def test_a_single_segment_or_none_is_disjoint():
    session = np.arange(5, dtype=np.int32)
    check_disjoint(session, session + 1, np.full(5, -1, np.int8))
    check_disjoint(session, session + 1, np.zeros(5, np.int8))


def test_a_plan_survives_being_saved():
    from barcast.core.config import from_plain, to_plain

    plan = replace(SegmentPlan.by_share(800), embargo=2)
    assert from_plain(SegmentPlan, to_plain(plan)) == plan
