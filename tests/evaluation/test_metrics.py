import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from barcast.evaluation import metrics
from barcast.evaluation.grouped import Groups, Sorted, auc_placements
from tests.evaluation import references

checked = settings(max_examples=60, deadline=None)


@st.composite
def panels(draw):
    """Outcomes, scores and unsorted sessions with many ties and zeros; some sessions empty."""
    rows = draw(st.integers(1, 60))
    coarse = st.integers(-3, 3).map(lambda value: value / 7)
    y = draw(hnp.arrays(float, rows, elements=coarse))
    score = draw(hnp.arrays(float, rows, elements=coarse))
    session = draw(hnp.arrays(np.int32, rows, elements=st.integers(0, 3)))
    return y, score, session


@checked
@given(panels())
def test_session_scores_equal_the_slow_reference(panel):
    y, score, session = panel
    for ranked, fast in ((False, metrics.ic), (True, metrics.rank_ic)):
        slow = references.ic(y, score, session, 5, ranked=ranked)
        np.testing.assert_allclose(fast(y, score, session, 5), slow, atol=1e-12)
    slow = references.session_auc(y, score, session, 5)
    np.testing.assert_allclose(metrics.session_auc(y, score, session, 5), slow, atol=1e-12)


@checked
@given(panels())
def test_pooled_scores_equal_the_slow_reference(panel):
    y, score, _ = panel
    np.testing.assert_allclose(metrics.auc(y, score), references.auc(y, score), atol=1e-12)
    np.testing.assert_allclose(metrics.mcc(y, score), references.mcc(y, score), atol=1e-12)
    cells = references.confusion(y, score)
    assert vars(metrics.confusion(y, score)) == cells


@checked
@given(panels(), st.integers(2, 6))
def test_decile_returns_equal_the_slow_reference(panel, num_bins):
    y, score, session = panel
    slow = references.decile_returns(y, score, session, 5, num_bins)
    np.testing.assert_allclose(metrics.decile_returns(y, score, session, 5, num_bins), slow, atol=1e-12)


@checked
@given(panels(), st.randoms())
def test_order_of_rows_does_not_matter(panel, random):
    y, score, session = panel
    order = list(range(len(y)))
    random.shuffle(order)
    for metric in (metrics.rank_ic, metrics.ic, metrics.session_auc):
        np.testing.assert_allclose(
            metric(y[order], score[order], session[order], 4), metric(y, score, session, 4), atol=1e-12
        )


@checked
@given(panels())
def test_rank_scores_ignore_a_rising_map_and_turn_with_the_sign(panel):
    y, score, session = panel
    rank_ic = metrics.rank_ic(y, score, session, 4)
    np.testing.assert_allclose(metrics.rank_ic(y, np.exp(3 * score), session, 4), rank_ic, atol=1e-12)
    np.testing.assert_allclose(metrics.rank_ic(y, -score, session, 4), -rank_ic, atol=1e-12)
    np.testing.assert_allclose(metrics.auc(y, -score), 1 - metrics.auc(y, score), atol=1e-12)


@checked
@given(panels())
def test_placements_average_to_the_area_in_both_classes(panel):
    y, score, _ = panel
    up, down = y > 0, y < 0
    if up.any() and down.any():
        placements = auc_placements(up, down, score)
        area = references.auc(y, score)
        assert placements[up].mean() == pytest.approx(area)
        assert placements[down].mean() == pytest.approx(area)
        assert not placements[~up & ~down].any()


def test_ranks_match_scipy_on_unsorted_groups():
    rng = np.random.default_rng(0)
    values, group = rng.integers(0, 9, 500) / 3, rng.integers(0, 70_000, 500).astype(np.int32)
    group[:300] = 5
    ranks = Sorted.by(values, Groups(group, 70_000)).ranks
    for g in np.unique(group):
        np.testing.assert_array_equal(ranks[group == g], scipy.stats.rankdata(values[group == g]))


def test_group_sums_are_the_same_sorted_and_unsorted():
    group = np.array([0, 0, 1, 3, 3], np.int32)
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    np.testing.assert_array_equal(Groups(group, 5).sums(values), [3, 4, 0, 24, 0])
    np.testing.assert_array_equal(Groups(group[::-1].copy(), 5).sums(values[::-1]), [3, 4, 0, 24, 0])
    np.testing.assert_array_equal(Groups(np.array([0, 1, 1], np.int32), 2).sums(values[:3]), [1, 6])


def test_errors_and_r2_in_closed_form():
    y, y_hat = np.array([0.01, -0.02, 0.03]), np.array([0.02, -0.02, 0.0])
    assert metrics.mae(y, y_hat) == pytest.approx(0.04 / 3)
    assert metrics.rmse(y, y_hat) == pytest.approx(math.sqrt(0.001 / 3))
    assert metrics.r2(y, y_hat) == pytest.approx(1 - 0.001 / 0.0014)
    assert metrics.r2(y, 0 * y) == 0
    assert metrics.r2(y, y) == 1
    assert metrics.r2(y, y_hat, benchmark=y_hat) == 0
    assert metrics.r2(y, y_hat, benchmark=0.01) == pytest.approx(1 - 0.001 / 0.0013)
    assert math.isnan(metrics.r2(y, y_hat, benchmark=y))


def test_rows_that_are_not_finite_are_left_out_and_none_at_all_is_nan():
    y, y_hat = np.array([0.01, np.nan, 0.03, 0.02]), np.array([0.02, 0.5, np.inf, 0.02])
    assert metrics.mae(y, y_hat) == pytest.approx(0.005)
    empty = np.full(4, np.nan)
    for metric in (
        metrics.mae,
        metrics.rmse,
        metrics.r2,
        metrics.direction_accuracy,
        metrics.mcc,
        metrics.auc,
    ):
        assert math.isnan(metric(y, empty)), metric.__name__
    session = np.zeros(4, np.int32)
    assert np.isnan(metrics.rank_ic(y, empty, session, 1)).all()
    assert np.isnan(metrics.decile_returns(y, empty, session, 1)).all()
    assert math.isnan(metrics.calibration(y, empty).slope)
    assert math.isnan(metrics.brier(y, empty))
    assert math.isnan(metrics.quantile_coverage(y, np.full((4, 2), np.nan)))


def test_a_forecast_of_zero_is_a_call_of_down_and_a_return_of_zero_does_not_count():
    y, y_hat = np.array([0.1, -0.1, 0.0, -0.2]), np.zeros(4)
    assert metrics.direction_accuracy(y, y_hat) == pytest.approx(2 / 3)
    assert metrics.confusion(y, y_hat).num_rows == 3
    assert metrics.auc(np.array([0.0, 0.1, -0.1]), np.array([9.0, 1.0, 0.0])) == 1.0


def test_always_up_scores_the_base_rate_and_no_mcc():
    y = np.where(np.arange(1008) < 579, 0.01, -0.01)
    always = metrics.confusion(y, np.full(1008, 0.001))
    assert always.accuracy == always.base_rate == pytest.approx(0.5744, abs=1e-4)
    assert always.mcc == 0
    assert always.up_share == 1
    assert metrics.auc(y, np.full(1008, 0.001)) == 0.5


def test_mcc_follows_from_accuracy_rates_and_shares():
    rng = np.random.default_rng(1)
    y, y_hat = rng.normal(0.2, 1, 5000), rng.normal(0.6, 1, 5000)
    found = metrics.confusion(y, y_hat)
    true_rate, false_rate = found.tp / (found.tp + found.fn), found.fp / (found.fp + found.tn)
    pi, q = found.base_rate, found.up_share
    assert found.mcc == pytest.approx((true_rate - false_rate) * math.sqrt(pi * (1 - pi) / (q * (1 - q))))


def test_mcc_of_large_counts_keeps_its_digits():
    counts = [np.asarray(float(n)) for n in (4e9, 3e9, 2e9, 1e9)]
    expected = (4 * 3 - 2 * 1) / math.sqrt(6 * 4 * 5 * 5)
    assert metrics.Confusion(*counts).mcc == pytest.approx(expected, rel=1e-12)


def test_ic_needs_five_symbols_and_two_values_on_each_side():
    y = np.array([1, 2, 3, 4, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5], float)
    session = np.array([0] * 4 + [1] * 5 + [2] * 5, np.int32)
    score = y.copy()
    score[4:9] = 0.1  # the mean of five 0.1 need not be 0.1: constancy must be exact
    np.testing.assert_array_equal(metrics.rank_ic(y, score, session, 4), [np.nan, np.nan, 1, np.nan])
    assert np.isnan(metrics.ic(y, score, session, 4)[1])
    assert metrics.ic(y, score, session, 4)[2] == pytest.approx(1)


def test_icir_and_newey_west():
    series = np.array([0.1, 0.3, np.nan, -0.1, 0.2])
    kept = series[np.isfinite(series)]
    assert metrics.icir(series) == pytest.approx(kept.mean() / kept.std(ddof=1))
    assert math.isnan(metrics.icir(np.full(5, 0.1)))
    assert math.isnan(metrics.icir(np.array([0.1])))
    plain = kept.mean() / (kept.std(ddof=0) / math.sqrt(4))
    assert metrics.newey_west_t(series, lag=0) == pytest.approx(plain)
    assert math.isnan(metrics.newey_west_t(np.full(9, 0.2)))


def test_newey_west_equals_a_double_loop_and_shrinks_under_overlap():
    rng = np.random.default_rng(2)
    series = np.convolve(rng.normal(0.1, 1, 400), np.ones(5), "valid") / 5
    apart, lag = series - series.mean(), 4
    variance = sum(
        (1 - abs(i - j) / (lag + 1)) * apart[i] * apart[j]
        for i in range(len(series))
        for j in range(max(0, i - lag), min(len(series), i + lag + 1))
    )
    assert metrics.newey_west_t(series, lag) == pytest.approx(
        series.mean() * len(series) / math.sqrt(variance)
    )
    assert abs(metrics.newey_west_t(series, 4)) < 0.6 * abs(metrics.newey_west_t(series, 0))


def test_calibration_recovers_slope_and_bin_means():
    rng = np.random.default_rng(3)
    y_hat = rng.normal(0, 0.01, 20_000)
    y = 0.001 + 0.5 * y_hat + rng.normal(0, 0.02, 20_000)
    table = metrics.calibration(y, y_hat, 10)
    assert table.slope == pytest.approx(0.5, abs=0.05)
    assert table.intercept == pytest.approx(0.001, abs=0.0005)
    assert set(table.count) == {2000}
    order = np.argsort(y_hat)
    np.testing.assert_allclose(table.y, y[order].reshape(10, 2000).mean(axis=1))
    np.testing.assert_allclose(table.y_hat, y_hat[order].reshape(10, 2000).mean(axis=1))


def test_calibration_of_a_constant_is_one_point():
    table = metrics.calibration(np.array([0.1, 0.3]), np.array([0.2, 0.2]))
    assert table.y.tolist() == [0.2]
    assert table.count.tolist() == [2]
    assert math.isnan(table.slope)


def test_probabilities_and_quantiles_in_closed_form():
    y, p_up = np.array([0.1, -0.1, 0.0]), np.array([0.8, 0.4, 0.5])
    assert metrics.log_loss(y, p_up) == pytest.approx(-(math.log(0.8) + math.log(0.6) + math.log(0.5)) / 3)
    assert metrics.brier(y, p_up) == pytest.approx((0.04 + 0.16 + 0.25) / 3)
    assert math.isfinite(metrics.log_loss(y, np.array([0.0, 1.0, 0.5])))
    levels, quantiles = np.array([0.1, 0.9]), np.array([[-1.0, 1.0], [-1.0, 1.0]])
    y = np.array([0.0, 3.0])
    first = (0.1 * 1 + 0.1 * 1) / 2
    second = (0.1 * 4 + 0.9 * 2) / 2
    assert metrics.pinball(y, quantiles, levels) == pytest.approx((first + second) / 2)
    assert metrics.quantile_coverage(y, quantiles) == 0.5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_the_right_quantile_has_the_lowest_pinball_loss(seed):
    y = np.random.default_rng(seed).normal(size=200)
    right = metrics.pinball(y, np.full((200, 1), np.quantile(y, 0.3)), np.array([0.3]))
    for wrong in (-0.5, 0.5):
        assert metrics.pinball(y, np.full((200, 1), np.quantile(y, 0.3) + wrong), np.array([0.3])) > right


def test_a_million_rows_take_well_under_a_second_a_model():
    import time

    rng = np.random.default_rng(4)
    session = np.repeat(np.arange(400), 2500).astype(np.int32)
    y, score = rng.normal(size=1_000_000), rng.normal(size=1_000_000)
    start = time.perf_counter()
    assert np.isfinite(metrics.rank_ic(y, score, session, 400)).all()
    assert (
        time.perf_counter() - start < 3
    )  # 0.15 s on a free core; a loop over sessions with scipy takes more
