import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.core.errors import UsageError
from barcast.evaluation.grouped import Groups, Sorted
from barcast.evaluation.intervals import (
    Blocks,
    Bootstrap,
    default_block_length,
    interval,
    plan_blocks,
    resample,
    simultaneous,
    wilson,
)
from barcast.evaluation.sums import METRICS, Outputs, score_of, session_sums
from tests.evaluation import references

QUICK = Bootstrap(num_draws=500)


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 60), st.integers(1, 12), st.integers(0, 100))
def test_draws_equal_the_slow_reference(num_sessions, length, seed):
    length = min(length, num_sessions // 5)
    blocks = plan_blocks(num_sessions, 1, 0, Bootstrap(num_draws=100, block_length=length, seed=seed))
    statistics = np.random.default_rng(seed).normal(size=(num_sessions, 3))
    slow = references.resample(statistics, blocks.starts[:7], length)
    np.testing.assert_allclose(resample(statistics, blocks)[:7], slow, atol=1e-9)


def test_every_draw_has_as_many_sessions_as_the_sample():
    blocks = plan_blocks(103, 5, 1, QUICK)
    np.testing.assert_allclose(resample(np.ones((103, 1)), blocks), 103)


def test_gathering_in_parts_changes_nothing(monkeypatch):
    statistics = np.random.default_rng(0).normal(size=(100, 4))
    blocks = plan_blocks(100, 1, 1, QUICK)
    whole = resample(statistics, blocks)
    monkeypatch.setattr("barcast.evaluation.intervals._GATHER", 1000)
    np.testing.assert_array_equal(resample(statistics, blocks), whole)


@pytest.mark.parametrize(
    ("num_sessions", "horizon", "delay", "expected"),
    [
        (400, 5, 1, 12),
        (400, 1, 1, 8),
        (1000, 1, 0, 10),
        (83, 5, 1, 12),
        (40, 5, 1, 6),
        (12, 5, 1, 6),
        (1, 1, 1, 2),
    ],
)
def test_block_length_covers_a_label_twice_where_five_blocks_fit(num_sessions, horizon, delay, expected):
    assert default_block_length(num_sessions, horizon, delay) == expected


def test_a_block_shorter_than_a_label_is_refused():
    with pytest.raises(UsageError, match="reaches 6 sessions"):
        plan_blocks(400, 5, 1, Bootstrap(block_length=5))
    assert plan_blocks(400, 5, 1, Bootstrap(block_length=6)).length == 6
    with pytest.raises(UsageError, match="level"):
        Bootstrap(level=95)
    with pytest.raises(UsageError, match="draws"):
        Bootstrap(num_draws=10)


def test_too_few_sessions_give_no_interval_instead_of_a_narrow_one():
    for num_sessions in (0, 1, 2, 9):
        blocks = plan_blocks(num_sessions, 1, 1, QUICK)
        draws = resample(np.ones((num_sessions, 2)), blocks)
        assert draws.shape == (0, 2)
        assert np.isnan(interval(0.5, draws[:, 0], blocks)).all()
        assert np.isnan(simultaneous([0.1, 0.2], [draws[:, 0]] * 2, blocks)).all()


def test_seeds_decide_the_draws():
    one, same, other = (plan_blocks(100, 1, 1, Bootstrap(num_draws=100, seed=s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.starts, same.starts)
    assert not np.array_equal(one.starts, other.starts)


def test_an_interval_skips_the_odd_undefined_draw_and_refuses_many():
    blocks = plan_blocks(100, 1, 1, QUICK)
    draws = np.random.default_rng(0).normal(size=500)
    draws[:20] = np.nan
    low, high = interval(0.0, draws, blocks)
    assert low < 0 < high
    draws[:100] = np.nan
    assert np.isnan(interval(0.0, draws, blocks)).all()
    assert np.isnan(interval(math.nan, np.zeros(500), blocks)).all()


def test_widening_is_the_student_factor_of_the_blocks():
    blocks = Blocks(np.zeros((100, 10), np.int64), 4, 40, 0.95)
    expected = scipy.stats.t.ppf(0.975, 9) / scipy.stats.norm.ppf(0.975) * math.sqrt(10 / 9)
    assert blocks.widening == pytest.approx(expected)


def test_wilson_matches_scipy():
    ours = wilson(540, 1000)
    theirs = scipy.stats.binomtest(540, 1000).proportion_ci(method="wilson")
    assert ours == pytest.approx((theirs.low, theirs.high))
    assert np.isnan(wilson(0, 0)).all()


def _mean_coverage(series_of, num_sessions, horizon, repetitions=1000):
    rng = np.random.default_rng(5)
    hits = 0
    for repetition in range(repetitions):
        blocks = plan_blocks(num_sessions, horizon, 1, Bootstrap(num_draws=400, seed=repetition))
        series = series_of(rng)
        draws = resample(series[:, None], blocks)[:, 0] / num_sessions
        low, high = interval(float(series.mean()), draws, blocks)
        hits += low <= 0 <= high
    return hits / repetitions


def test_intervals_of_a_mean_cover_what_they_say_under_overlapping_labels():
    def overlapping(rng):
        return np.convolve(rng.normal(size=404), np.ones(5), "valid")

    assert 0.90 <= _mean_coverage(overlapping, 400, 5) <= 0.97

    def few(rng):
        return np.convolve(rng.normal(size=87), np.ones(5), "valid")

    assert 0.92 <= _mean_coverage(few, 83, 5) <= 0.97


def test_intervals_of_a_mean_cover_what_they_say_with_few_sessions():
    assert 0.93 <= _mean_coverage(lambda rng: rng.normal(size=64), 64, 1) <= 0.97


def _null_panel(rng, num_sessions, num_symbols, common):
    """Forecasts that know nothing, on returns of which the symbols of a session share a part."""
    session = np.repeat(np.arange(num_sessions), num_symbols).astype(np.int32)
    market = rng.normal(size=num_sessions)[session]
    y = 0.02 * (common * market + rng.normal(size=len(session)))
    tilt = rng.normal(size=num_sessions)[session]
    return Sorted.by(y, Groups(session, num_sessions)), 0.001 * (tilt + rng.normal(size=len(session)))


def test_intervals_of_every_score_cover_no_skill_under_the_null():
    rng = np.random.default_rng(6)
    truth = {"rank_ic": 0, "ic": 0, "session_auc": 0.5, "auc": 0.5, "mcc": 0, "rank_icir": 0}
    hits = dict.fromkeys(truth, 0)
    repetitions = 600
    for repetition in range(repetitions):
        by_y, score = _null_panel(rng, 80, 12, common=1.0)
        sums = session_sums(by_y, Outputs(score, score), cross_sectional=True)
        blocks = plan_blocks(80, 1, 1, Bootstrap(num_draws=300, seed=repetition))
        drawn = dict(zip(sums, resample(np.column_stack(list(sums.values())), blocks).T, strict=True))
        for name, value in truth.items():
            low, high = interval(score_of(METRICS[name], sums), METRICS[name].value(drawn), blocks)
            hits[name] += low <= value <= high
    shares = {name: count / repetitions for name, count in hits.items()}
    assert all(0.925 <= share <= 0.98 for share in shares.values()), shares


def test_symbols_that_move_together_widen_the_interval_far_beyond_the_iid_one():
    rng = np.random.default_rng(7)
    widths = {}
    for common in (0.0, 2.0):
        by_y, score = _null_panel(rng, 200, 50, common)
        sums = session_sums(by_y, Outputs(score, score), cross_sectional=False)
        blocks = plan_blocks(200, 1, 1, Bootstrap())
        drawn = dict(zip(sums, resample(np.column_stack(list(sums.values())), blocks).T, strict=True))
        accuracy = score_of(METRICS["direction"], sums)
        low, high = interval(accuracy, METRICS["direction"].value(drawn), blocks)
        iid_low, iid_high = wilson(accuracy * 10_000, 10_000)
        widths[common] = ((high - low) / (iid_high - iid_low)) ** 2
    assert 0.5 < widths[0.0] < 2  # independent symbols: about the same
    assert widths[2.0] > 5  # design effect


def test_the_linear_interval_of_the_area_matches_redrawing_the_rows():
    rng = np.random.default_rng(8)
    by_y, score = _null_panel(rng, 60, 8, common=1.0)
    y = by_y.values
    score = score + 0.02 * y
    blocks = plan_blocks(60, 1, 1, Bootstrap(num_draws=300))
    sums = session_sums(by_y, Outputs(score), cross_sectional=False)
    drawn = dict(zip(sums, resample(np.column_stack(list(sums.values())), blocks).T, strict=True))
    quick = METRICS["auc"].value(drawn)
    rows = np.arange(480).reshape(60, 8)
    slow = []
    for starts in blocks.starts:
        sessions = np.concatenate([(start + np.arange(blocks.length)) % 60 for start in starts])[:60]
        chosen = rows[sessions].ravel()
        up = y[chosen] > 0
        slow.append(
            scipy.stats.mannwhitneyu(score[chosen][up], score[chosen][~up]).statistic / up.sum() / (~up).sum()
        )
    assert np.corrcoef(quick, slow)[0, 1] > 0.99
    assert quick.std() == pytest.approx(np.std(slow), rel=0.05)


def test_simultaneous_intervals_are_wider_and_hold_together():
    rng = np.random.default_rng(9)
    num_models, hits, repetitions = 6, 0, 300
    for repetition in range(repetitions):
        series = rng.normal(size=(100, num_models))
        blocks = plan_blocks(100, 1, 0, Bootstrap(num_draws=400, seed=repetition))
        draws, values = list(resample(series, blocks).T / 100), series.mean(axis=0).tolist()
        ranges = simultaneous(values, draws, blocks)
        hits += all(low <= 0 <= high for low, high in ranges)
    assert 0.92 <= hits / repetitions <= 0.985
    alone = interval(values[0], draws[0], blocks)
    assert ranges[0][1] - ranges[0][0] > 1.2 * (alone[1] - alone[0])
    assert simultaneous(values[:1], draws[:1], blocks) == [alone]


def test_simultaneous_intervals_survive_models_that_are_equal_or_undefined():
    blocks = plan_blocks(100, 1, 1, QUICK)
    moving = np.random.default_rng(0).normal(size=500)
    ranges = simultaneous([0.0, 0.1, math.nan], [np.zeros(500), moving + 0.1, np.full(500, np.nan)], blocks)
    assert ranges[0] == (0.0, 0.0)
    assert ranges[1][0] < 0.1 < ranges[1][1]
    assert np.isnan(ranges[2]).all()
    nothing = simultaneous([math.nan] * 2, [np.full(500, np.nan)] * 2, blocks)
    assert np.isnan(nothing).all()
