import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.core.errors import UsageError
from barcast.ensemble.hierarchy import (
    Cells,
    balanced_blocks,
    between_variance,
    deviations,
    distinct,
    shared_luck,
    strength,
    symbol_of_row,
)
from barcast.evaluation.intervals import default_block_length


def test_cells_sum_what_is_in_them():
    cells = Cells(np.array([0, 0, 2, 2]), np.array([1, 1, 0, 1]), 3, 2)
    np.testing.assert_array_equal(cells.sums(np.array([1.0, 2, 3, 4])), [[0, 3], [0, 0], [3, 4]])
    both = cells.sums(np.array([[1.0, 10], [2, 20], [3, 30], [4, 40]]))
    np.testing.assert_array_equal(both[..., 1], 10 * both[..., 0])


def test_offsets_that_do_not_cover_the_rows_are_refused():
    np.testing.assert_array_equal(symbol_of_row(np.array([0, 2, 2, 3]), 3), [0, 0, 2])
    for offsets in ([0, 2], [1, 3], [0, 2, 1, 3], [0]):
        with pytest.raises(UsageError, match="offsets"):
            symbol_of_row(np.array(offsets), 3)


@given(st.lists(st.integers(0, 50), max_size=30))
def test_distinct_is_unique(values):
    counts = np.array(values, np.int64)
    for got, expected in zip(distinct(counts), np.unique(counts, return_inverse=True), strict=True):
        np.testing.assert_array_equal(got, expected)


@given(st.integers(1, 400), st.integers(1, 10), st.integers(0, 2))
def test_blocks_are_runs_of_sessions_of_nearly_one_length(num_sessions, horizon, delay):
    block, num = balanced_blocks(np.arange(num_sessions) * 3 + 7, horizon, delay)
    sizes = np.bincount(block, minlength=num)
    assert (np.diff(block) >= 0).all() and np.ptp(sizes) <= 1
    assert num == 1 or sizes.min() >= default_block_length(num_sessions, horizon, delay)


def grid(seed, symbols=200, blocks=12, apart=0.0, lean=0.0, sizes=None):
    """Sums and sizes of cells whose means are shared + own + noise."""
    rng = np.random.default_rng(seed)
    size = np.full((symbols, blocks), 5.0) if sizes is None else sizes
    mean = rng.normal(size=blocks) + apart * rng.normal(size=(symbols, 1))
    luck = lean * rng.normal(size=(symbols, 1)) * rng.normal(size=blocks)
    noise = rng.normal(size=(symbols, blocks)) / np.sqrt(np.maximum(size, 1))
    return ((mean + luck + noise) * size)[..., None], size


def departures(sums, size):
    return deviations(sums, size, sums.sum(axis=0) / size.sum(axis=0)[:, None])


def test_what_a_block_gives_all_alike_departs_nowhere():
    size = np.ones((20, 8))
    found = departures(np.broadcast_to(np.random.default_rng(0).normal(size=(8, 1)), (20, 8, 1)), size)
    np.testing.assert_allclose(found.mean, 0, atol=1e-12)
    np.testing.assert_allclose(found.variance, 0, atol=1e-12)


def test_errors_of_departures_are_right_where_nothing_departs():
    """The mean of departure^2 / variance is 1 with few blocks too, where a plug-in variance gives 3 or more."""
    for blocks in (6, 20):
        ratios = []
        for seed in range(30):
            found = departures(*grid(seed, blocks=blocks))
            ratios.append((np.square(found.mean[:, 0]) / found.variance).mean())
        assert np.mean(ratios) == pytest.approx(1, abs=0.12)


def test_symbols_with_few_blocks_have_no_error_to_judge_by():
    size = np.full((3, 10), 5.0)
    size[0, 4:] = 0
    size[1] = 0
    found = departures(*grid(0, symbols=3, blocks=10, sizes=size))
    np.testing.assert_array_equal(found.num_blocks, [4, 0, 10])
    np.testing.assert_array_equal(np.isfinite(found.variance), [False, False, True])
    assert found.mean[1, 0] == 0


def test_shared_luck_is_seen_where_symbols_share_it_and_not_elsewhere():
    plain, leaning = departures(*grid(1)), departures(*grid(1, lean=2.0))
    assert 1 <= shared_luck(plain, plain.variance) < 1.3
    assert shared_luck(leaning, leaning.variance) > 2
    real = departures(*grid(1, apart=3.0))
    assert shared_luck(real, real.variance) < 1.3  # true departures are no luck


def test_between_variance_is_what_was_planted():
    rng = np.random.default_rng(0)
    variance = rng.uniform(0.5, 2, 4000)
    for planted in (0.0, 0.5, 4.0):
        square = np.square(rng.normal(size=4000) * np.sqrt(planted + variance))
        assert between_variance(square, variance) == pytest.approx(planted, rel=0.1, abs=0.06)


def test_between_variance_without_symbols_to_compare_is_zero():
    assert between_variance(np.array([4.0]), np.array([1.0])) == 0
    assert between_variance(np.array([4.0, 9.0]), np.array([0.0, np.inf])) == 0
    assert between_variance(np.zeros(0), np.zeros(0)) == 0


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_between_variance_has_the_unit_of_its_squares(seed, unit):
    rng = np.random.default_rng(seed)
    square, variance = rng.exponential(3, 30), rng.uniform(0.1, 1, 30)
    once, scaled = between_variance(square, variance), between_variance(square * unit, variance * unit)
    assert scaled == pytest.approx(once * unit, rel=1e-6)
    assert between_variance(square * 2, variance) >= once


def test_strength_runs_from_none_to_all():
    np.testing.assert_array_equal(strength(1.0, np.array([0.0, 1.0, np.inf])), [1.0, 0.5, 0.0])
    np.testing.assert_array_equal(strength(0.0, np.array([0.0, 1.0])), [0.0, 0.0])
