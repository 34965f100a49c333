import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.ensemble.densities import fit_widths, log_densities, mixture_log_score

FAMILIES = {"normal": scipy.stats.norm(), "student": scipy.stats.t(5)}


@pytest.mark.parametrize("family", FAMILIES)
def test_log_densities_are_those_of_the_family(family):
    rng = np.random.default_rng(0)
    y, y_hat, scale = rng.normal(size=9), rng.normal(size=(9, 3)), rng.uniform(0.1, 2, 9)
    slow = FAMILIES[family].logpdf((y[:, None] - y_hat) / scale[:, None]) - np.log(scale)[:, None]
    np.testing.assert_allclose(log_densities(y, y_hat, scale, family), slow, atol=1e-12)


def test_what_is_not_finite_has_no_density():
    y_hat = np.array([[0.0, np.nan], [np.inf, 0.0], [0.0, 0.0], [0.0, 0.0]])
    found = log_densities(np.array([0.1, 0.1, np.nan, 0.1]), y_hat, np.array([1.0, 1.0, 1.0, 0.0]))
    np.testing.assert_array_equal(
        np.isfinite(found), [[True, False], [False, True], [False] * 2, [False] * 2]
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_widths_are_the_likeliest_where_rows_are_many(family):
    rng = np.random.default_rng(1)
    lengths, true = (4000, 5000), (0.5, 2.0)
    sigma = rng.uniform(0.01, 0.03, sum(lengths))
    draws = FAMILIES[family].rvs(sum(lengths), random_state=2)
    y = draws * sigma * np.repeat(true, lengths)
    found = fit_widths(y, sigma, np.array([0, 4000, 9000]), family)
    grid = np.linspace(0.4, 2.2, 361)
    for s, rows in enumerate((slice(0, 4000), slice(4000, 9000))):
        ratio = (y / sigma)[rows]
        likelihood = [(FAMILIES[family].logpdf(ratio / w) - np.log(w)).sum() for w in grid]
        assert found[s] == pytest.approx(grid[np.argmax(likelihood)], rel=0.035)


def test_short_symbols_lean_on_the_market_and_nothing_gives_one():
    rng = np.random.default_rng(3)
    y = np.concatenate([rng.normal(size=2000), [5.0, np.nan], np.zeros(0)])
    offsets = np.array([0, 2000, 2002, 2002])
    found = fit_widths(y, np.ones(2002), offsets, "normal")
    assert 1 < found[1] < 2 and found[2] == pytest.approx(found[0], rel=0.02)
    np.testing.assert_array_equal(fit_widths(np.zeros(3), np.ones(3), np.array([0, 3])), [1.0])
    np.testing.assert_array_equal(fit_widths(np.ones(3), np.zeros(3), np.array([0, 2, 3])), [1.0, 1.0])


def test_a_member_missing_on_a_row_leaves_its_weight_to_the_others():
    score = mixture_log_score(
        np.array([[-1.0, np.nan], [np.nan, np.nan], [-1.0, -2.0]]), np.full((3, 2), 0.5)
    )
    assert score[0] == -1 and np.isnan(score[1])
    assert score[2] == pytest.approx(np.log(0.5 * np.exp(-1) + 0.5 * np.exp(-2)))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 800))
def test_the_mixture_is_no_worse_than_the_weighted_mean_of_its_members(seed, wild):
    """Jensen; and so no worse than the worst of them, nor better than the best."""
    rng = np.random.default_rng(seed)
    density, weights = wild * rng.normal(size=(20, 4)), rng.dirichlet(np.ones(4), 20)
    score = mixture_log_score(density, weights)
    assert (score >= (weights * density).sum(axis=1) - 1e-9).all()
    assert (score >= density.min(axis=1) - 1e-9).all() and (score <= density.max(axis=1) + 1e-9).all()
