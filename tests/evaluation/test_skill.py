"""Skill per session of groups, and means over blocks."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from barcast.evaluation.skill import (
    ForecastRows,
    block_means,
    gains,
    mean_by_group,
    overlap_correlation,
    rank_ic_by_group,
    ranked_groups,
)
from tests.evaluation import references

GROUP = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, -1, -1], np.int32)


def some_rows(seed=0, num_sessions=12):
    rng = np.random.default_rng(seed)
    session, symbol = (a.ravel().astype(np.int32) for a in np.indices((num_sessions, len(GROUP))))
    keep = rng.random(len(session)) < 0.9
    y, y_hat = rng.normal(size=(2, len(session)))
    return ForecastRows(symbol, session + 7, y_hat, y, session + 9).take(keep)


def test_rank_ic_of_groups_is_that_of_each_group_alone():
    rows = some_rows()
    found = rank_ic_by_group(rows, GROUP, 2)
    assert found.shape == (2, 12)
    for group in range(2):
        own = rows.take(GROUP[rows.symbol] == group)
        slow = references.ic(list(own.y), list(own.y_hat), list(own.session - 7), 12, ranked=True)
        np.testing.assert_allclose(found[group], slow, atol=1e-12)
    assert np.isnan(found).any() and np.isfinite(found).any()


def test_means_of_groups_leave_out_what_is_not_finite():
    rows = some_rows()
    values = rows.y.copy()
    values[::3] = math.nan
    found = mean_by_group(rows, values, GROUP, 2)
    for group in range(2):
        for session in range(12):
            own = [
                value
                for value, s, t in zip(values, rows.symbol, rows.session - 7, strict=True)
                if t == session and GROUP[s] == group and math.isfinite(value)
            ]
            assert found[group, session] == pytest.approx(np.mean(own) if own else math.nan, nan_ok=True)


def test_gain_is_a_bounded_loss_difference_and_forgives_the_market():
    rows = some_rows()
    gain = gains(rows, relative=False)
    np.testing.assert_allclose(gain, np.abs(rows.y) - np.abs(rows.y - rows.y_hat))
    assert (np.abs(gain) <= np.abs(rows.y_hat) + 1e-12).all()
    shock = np.random.default_rng(1).normal(size=20)[rows.session - 7]
    moved = ForecastRows(rows.symbol, rows.session, rows.y_hat + 2 * shock, rows.y + 5 * shock, rows.known_at)
    np.testing.assert_allclose(gains(moved, relative=True), gains(rows, relative=True), atol=1e-12)
    assert np.abs(gains(moved, relative=False) - gain).max() > 0.5


def test_only_rows_known_when_due_count():
    rows = some_rows()
    late = rows.known_at.copy()
    late[3], late[5] = late[3] + 1, -1
    y = rows.y.copy()
    y[8] = math.nan
    punctual = ForecastRows(rows.symbol, rows.session, rows.y_hat, y, late).punctual(2)
    assert len(punctual.y) == len(rows.y) - 3
    assert len(rows.known_by(12).y) == (rows.session <= 10).sum()


def test_groups_are_ranked_where_the_median_session_holds_ten():
    session, symbol = (a.ravel().astype(np.int32) for a in np.indices((6, 25)))
    rows = ForecastRows(symbol, session, symbol * 1.0, symbol * 1.0, session)
    group = np.repeat([0, 1, -1], [10, 9, 6]).astype(np.int32)
    assert ranked_groups(rows, group, 3).tolist() == [True, False, False]


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 1000))
def test_block_means_are_plain_means(num_sessions, length, seed):
    rng = np.random.default_rng(seed)
    series = rng.normal(size=(3, num_sessions))
    series[rng.random(series.shape) < 0.4] = math.nan
    found = block_means(series, length)
    assert found.shape == (3, num_sessions // length)
    for row, means in zip(series, found, strict=True):
        for block, mean in enumerate(means):
            values = [v for v in row[block * length : (block + 1) * length] if math.isfinite(v)]
            expected = np.mean(values) if 2 * len(values) >= length else math.nan
            assert mean == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("label", "length"), [(1, 4), (6, 6), (6, 12), (21, 42), (0, 3)])
def test_overlap_correlation_is_that_of_summed_labels(label, length):
    lag = np.abs(np.subtract.outer(np.arange(2 * length), np.arange(2 * length)))
    covariance = np.maximum(1 - lag / max(label, 1), 0)
    between, within = covariance[:length, length:].sum(), covariance[:length, :length].sum()
    assert overlap_correlation(label, length) == pytest.approx(between / within)
