"""Purged cross-validation over time."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from barcast.core.calendar import Calendar
from barcast.core.errors import LeakError, UsageError
from barcast.labels import LabelSpec, forward_labels
from barcast.splits import SegmentPlan, check_disjoint
from barcast.splits.cross_validation import Fold, fold_segments, purged_folds
from tests.labels.builders import ragged_bars

SCHEMES = st.sampled_from(["expanding", "rolling"])


@given(st.integers(60, 3000), st.integers(1, 8), SCHEMES, st.integers(0, 6), st.integers(0, 5), st.data())
def test_every_session_after_the_first_training_is_validated_once(n, num_folds, scheme, label, embargo, data):
    first = data.draw(st.integers(0, n // 4))
    last = data.draw(st.integers(3 * n // 4, n - 1))
    assume((last - first + 1) // (num_folds + 2) > label + embargo + 1)
    folds = purged_folds(
        n, num_folds, label_sessions=label, scheme=scheme, embargo=embargo, span=(first, last)
    )
    judged = np.concatenate([np.arange(a, b + 1) for a, b in (fold.validation for fold in folds)])
    np.testing.assert_array_equal(judged, np.arange(folds[0].validation[0], last + 1))
    assert folds[0].train[0] == first
    lengths = [b - a + 1 for a, b in (fold.train for fold in folds)]
    assert all(fold.validation[0] - fold.train[1] == embargo + 1 for fold in folds)
    if scheme == "rolling":
        assert len(set(lengths)) == 1
    else:
        assert {fold.train[0] for fold in folds} == {first}
        assert lengths == sorted(lengths)


@settings(max_examples=100, deadline=None)
@given(
    ragged_bars(min_sessions=40), st.integers(1, 4), st.integers(0, 2), st.integers(1, 3), SCHEMES, st.integers(0, 3)
)  # fmt: skip
def test_no_training_label_reaches_validation_or_the_embargo(
    bars, horizon, delay, num_folds, scheme, embargo
):
    labels = forward_labels(bars, LabelSpec(horizons=(horizon,), delay=delay, max_wait=5))
    session, known_at = bars.session, labels.known_at[:, 0]
    n = len(bars.calendar)
    assume(n // (num_folds + 1) - embargo - 1 > horizon + delay)
    folds = purged_folds(n, num_folds, label_sessions=horizon + delay, scheme=scheme, embargo=embargo)
    for fold in folds:
        train, validation = fold.rows(session, known_at)
        begin, end = fold.validation
        for row in train:
            interval = set(range(session[row], known_at[row] + 1 + embargo))
            assert not interval & set(range(begin, end + 1))
        assert ((session[validation] >= begin) & (session[validation] <= end)).all()
        role = np.full(len(session), -1, np.int8)
        role[train], role[validation] = 0, 1
        if len(train) and len(validation):
            check_disjoint(session, known_at, role)
    # every row that can be judged is, once
    judged = np.sort(np.concatenate([fold.rows(session, known_at)[1] for fold in folds]))
    expected = np.flatnonzero((session >= folds[0].validation[0]) & (known_at >= 0) & (known_at < n))
    np.testing.assert_array_equal(judged, expected)


@settings(max_examples=60, deadline=None)
@given(ragged_bars(min_sessions=40), st.integers(1, 3), SCHEMES, st.data())
def test_rows_do_not_depend_on_what_comes_later(bars, num_folds, scheme, data):
    labels = forward_labels(bars, LabelSpec(horizons=(2,), delay=1, max_wait=5))
    session, known_at = bars.session, labels.known_at[:, 0]
    folds = purged_folds(len(bars.calendar), num_folds, label_sessions=3, scheme=scheme)
    cut = data.draw(st.integers(0, len(bars.calendar) - 1))
    known_then = np.where(known_at <= cut, known_at, -1)
    for fold in folds:
        train, validation = fold.rows(session, known_at)
        train_then, validation_then = fold.rows(session, known_then)
        np.testing.assert_array_equal(train_then, train[known_at[train] <= cut])
        np.testing.assert_array_equal(validation_then, validation[known_at[validation] <= cut])


def test_without_the_purge_the_check_would_speak():
    session = np.arange(100, dtype=np.int32)
    known_at = session + 5
    (fold,) = purged_folds(100, 1, label_sessions=5)
    role = np.where(session < fold.validation[0], 0, 1).astype(np.int8)
    with pytest.raises(LeakError):
        check_disjoint(session, known_at, role)
    role[:] = -1
    for code, rows in enumerate(fold.rows(session, known_at)):
        role[rows] = code
    check_disjoint(session, known_at, role)


def test_labels_known_only_after_the_stretch_judge_nothing():
    plan = SegmentPlan.by_share(1000, label_sessions=6)
    folds = purged_folds(1000, 4, label_sessions=6, span=plan.spans["fit"])
    session = np.arange(1000, dtype=np.int32)
    judged = folds[-1].rows(session, session + 6)[1]
    assert judged[-1] == plan.last[0] - 6
    assert folds[-1].validation[1] == plan.last[0]


def test_intraday_folds_are_cut_at_ends_of_days():
    times = np.datetime64("2024-01-01T03:00:00") + np.arange(24 * 60) * np.timedelta64(3600, "s")
    calendar = Calendar("24x7", "1h", times)
    days = calendar.days
    for fold in purged_folds(calendar, 3, label_sessions=10, scheme="rolling"):
        begin = fold.validation[0]
        assert days[begin] != days[begin - 1]
        assert fold.train[0] == 0 or days[fold.train[0]] != days[fold.train[0] - 1]


@settings(max_examples=60, deadline=None)
@given(ragged_bars(min_sessions=55), st.integers(1, 2), st.integers(1, 2), SCHEMES, st.integers(0, 2))
def test_parts_of_a_fold_share_no_label(bars, horizon, num_folds, scheme, embargo):
    labels = forward_labels(bars, LabelSpec(horizons=(horizon,), delay=1, max_wait=5))
    session, known_at = bars.session, labels.known_at[:, 0]
    n = len(bars.calendar)
    cut = {"label_sessions": horizon + 1, "scheme": scheme, "embargo": embargo, "train_share": 0.6}
    for fold in purged_folds(n, num_folds, **cut):
        try:
            with pytest.MonkeyPatch.context() as patch:  # of so few sessions the usual shares leave nothing
                patch.setattr("barcast.splits.cross_validation.TRAIN_SHARES", (0.6, 0.2, 0.2))
                segment = fold_segments(n, fold, session, known_at)
        except UsageError:
            assume(False)
        check_disjoint(session, known_at, segment)
        train, judged = fold.rows(session, known_at)
        np.testing.assert_array_equal(np.flatnonzero(segment == 3), judged)
        assert set(np.flatnonzero((segment >= 0) & (segment < 3))) <= set(train)
        for code in (0, 1):  # the parts follow one another
            assert session[segment == code].max() < session[segment == code + 1].min()


def test_a_fold_is_cut_by_shares_and_purged_inside():
    session = np.arange(300, dtype=np.int32)
    (fold,) = purged_folds(300, 1, label_sessions=5, train_share=2 / 3)
    segment = fold_segments(300, fold, session, session + 5)
    spans = [np.flatnonzero(segment == code)[[0, -1]].tolist() for code in range(4)]
    assert spans == [[0, 154], [160, 174], [180, 194], [200, 294]]
    (short,) = purged_folds(60, 1, label_sessions=5, train_share=0.5)
    with pytest.raises(UsageError, match=r"part without a label .*stop 0"):
        fold_segments(60, short, session[:60], session[:60] + 5)


def test_a_fold_says_what_it_is():
    fold = purged_folds(400, 3, label_sessions=5, embargo=2)[0]
    assert fold == Fold((0, 97), (100, 199), 399)
    assert fold.plain() == {"train": (0, 97), "validation": (100, 199), "known_by": 399}
    half = purged_folds(400, 2, label_sessions=5, train_share=0.5, scheme="rolling")
    assert [f.train for f in half] == [(0, 199), (100, 299)]
    assert [f.validation for f in half] == [(200, 299), (300, 399)]


@pytest.mark.parametrize(
    "wrong",
    [{"num_folds": 0}, {"num_folds": 40}, {"embargo": -1}, {"embargo": 60}, {"train_share": 1.0},
     {"label_sessions": 60}, {"span": (50, 300)}, {"span": (60, 50)}, {"num_folds": -1}, {"scheme": "sliding"}],
)  # fmt: skip
def test_folds_that_make_no_sense_are_refused(wrong):
    call = {"num_folds": 3, "label_sessions": 5} | wrong
    with pytest.raises(UsageError):
        purged_folds(200, call.pop("num_folds"), **call)
