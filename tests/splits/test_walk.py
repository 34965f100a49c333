"""Walk-forward cuts and purged blocks."""

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from barcast.core.calendar import Calendar
from barcast.core.errors import UsageError
from barcast.labels import LabelSpec, forward_labels
from barcast.splits import PurgedBlocks, SegmentPlan, check_disjoint, walk_forward
from tests.labels.builders import ragged_bars


@given(st.integers(200, 4000), st.integers(1, 6), st.booleans())
def test_the_tests_of_all_folds_follow_one_another_to_the_end(num_sessions, num_folds, expanding):
    plans = walk_forward(num_sessions, num_folds, expanding=expanding)
    tests = [plan.spans["test"] for plan in plans]
    assert tests[-1][1] == num_sessions - 1
    for earlier, later in pairwise(tests):
        assert earlier[1] + 1 == later[0]
    sizes = [tuple(plan.num_sessions.values()) for plan in plans]
    assert len({size[1:] for size in sizes}) == 1
    fits = [size[0] for size in sizes]
    assert fits == sorted(fits)
    if not expanding:
        assert len(set(fits)) == 1
    else:
        assert {plan.first for plan in plans} == {0}


def test_one_fold_is_the_plain_cut():
    assert walk_forward(1621, 1) == (SegmentPlan.by_share(1621),)


def test_intraday_folds_are_cut_at_ends_of_days():
    times = np.datetime64("2024-01-01T03:00:00") + np.arange(24 * 200) * np.timedelta64(3600, "s")
    calendar = Calendar("24x7", "1h", times)
    days = calendar.days
    for plan in walk_forward(calendar, 3, expanding=False, label_sessions=30):
        assert all(days[border] != days[border + 1] for border in plan.last if border + 1 < len(days))
        assert plan.first == 0 or days[plan.first] != days[plan.first - 1]


@pytest.mark.parametrize(("num_sessions", "num_folds"), [(0, 2), (30, 3), (300, 0), (90, 20)])
def test_too_little_for_the_folds_asked_for_is_refused(num_sessions, num_folds):
    with pytest.raises(UsageError):
        walk_forward(num_sessions, num_folds, label_sessions=6)


@settings(max_examples=60, deadline=None)
@given(
    ragged_bars(min_sessions=40), st.integers(1, 3), st.integers(0, 1), st.integers(1, 2), st.integers(0, 3)
)
def test_walk_forward_folds_keep_their_segments_apart(bars, horizon, delay, num_folds, embargo):
    labels = forward_labels(bars, LabelSpec(horizons=(horizon,), delay=delay, max_wait=3))
    shares = (0.4, 0.15, 0.15, 0.15, 0.15)
    for plan in walk_forward(len(bars.calendar), num_folds, shares, embargo=embargo % 2):
        check_disjoint(bars.session, labels.known_at[:, 0], plan.assign(bars.session, labels.known_at[:, 0]))


@settings(max_examples=120, deadline=None)
@given(
    ragged_bars(min_sessions=40), st.integers(1, 5), st.integers(0, 2), st.integers(2, 4), st.integers(0, 10)
)
def test_no_training_interval_meets_a_test_interval(bars, horizon, delay, num_blocks, input_sessions):
    labels = forward_labels(bars, LabelSpec(horizons=(horizon,), delay=delay, max_wait=9))
    session, known_at = bars.session, labels.known_at[:, 0]
    blocks = PurgedBlocks(
        num_sessions=len(bars.calendar), num_blocks=num_blocks, label_sessions=horizon + delay,
        input_sessions=input_sessions,
    )  # fmt: skip
    tested = np.zeros(len(bars), int)
    for (first, last), (train, test) in zip(blocks.blocks, blocks.split(session, known_at), strict=True):
        tested += test
        assert not (train & test).any()
        assert (known_at[train | test] >= 0).all()
        for row in np.flatnonzero(train):
            meets = (session[test] <= known_at[row]) & (session[row] <= known_at[test])
            assert not meets.any()
            assert known_at[row] < first or session[row] > last + blocks.embargo + input_sessions
    punctual = (known_at >= 0) & (known_at == session + horizon + delay)
    assert (tested[punctual] == 1).all()
    assert tested.max(initial=0) <= 1


def test_the_embargo_is_the_longer_of_label_and_one_percent():
    assert PurgedBlocks(num_sessions=1621, num_blocks=5, label_sessions=6).embargo == 17
    assert PurgedBlocks(num_sessions=300, num_blocks=5, label_sessions=6).embargo == 6


def test_blocks_cover_every_session_once():
    blocks = PurgedBlocks(num_sessions=103, num_blocks=4, label_sessions=2).blocks
    covered = np.concatenate([np.arange(first, last + 1) for first, last in blocks])
    np.testing.assert_array_equal(covered, np.arange(103))


@pytest.mark.parametrize(
    "wrong", [{"num_blocks": 1}, {"label_sessions": 0}, {"num_blocks": 20}, {"input_sessions": -1}]
)
def test_blocks_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        PurgedBlocks(**({"num_sessions": 100, "num_blocks": 4, "label_sessions": 6} | wrong))
