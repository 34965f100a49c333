"""The primitives against a window at a time in plain numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.core.errors import UsageError
from barcast.features import primitives as p


def by_window(x, n, value):
    out = np.full(len(x), np.nan)
    for t in range(n - 1, len(x)):
        part = x[t - n + 1 : t + 1]
        out[t] = np.nan if np.isnan(part).any() else value(part)
    return out


def exponential(part):
    n = len(part) // 4
    weights = (1 - 2 / (n + 1)) ** np.arange(4 * n)[::-1]
    return np.sum(part * weights) / np.sum(weights)


def skew(part):
    n, centred = len(part), part - part.mean()
    spread = np.mean(centred**2)
    return 0 if np.ptp(part) == 0 else np.sqrt(n * (n - 1)) / (n - 2) * np.mean(centred**3) / spread**1.5


def slope(part):
    return np.polyfit(np.arange(len(part)), part, 1)[0]


def deviation(part):
    return np.mean(np.abs(part - part.mean()))


def rank(part):
    return ((part < part[-1]).sum() + ((part == part[-1]).sum() + 1) / 2) / len(part)


def zscore(part):
    return 0 if np.ptp(part) == 0 else (part[-1] - part.mean()) / np.std(part, ddof=1)


def r2(part):
    return 0 if np.ptp(part) == 0 else np.corrcoef(part, np.arange(len(part)))[0, 1] ** 2


STATISTICS = {
    "total": (p.total, np.sum, 1),
    "mean": (p.mean, np.mean, 1),
    "std": (p.std, lambda part: np.std(part, ddof=1), 2),
    "zscore": (p.zscore, zscore, 2),
    "skew": (p.skew, skew, 3),
    "slope": (lambda x, n: p.linear_fit(x, n)[0], slope, 2),
    "r2": (lambda x, n: p.linear_fit(x, n)[1], r2, 2),
    "highest": (p.highest, np.max, 1),
    "lowest": (p.lowest, np.min, 1),
    "rows_since_highest": (p.rows_since_highest, lambda part: np.argmax(part[::-1]), 1),
    "rows_since_lowest": (p.rows_since_lowest, lambda part: np.argmin(part[::-1]), 1),
    "rank": (p.rank, rank, 1),
    "mean_deviation": (p.mean_deviation, deviation, 1),
}


@pytest.mark.parametrize("name", STATISTICS)
@given(st.integers(0, 60), st.integers(1, 70), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 100.0]))
@settings(max_examples=25, deadline=None)
def test_equals_a_window_at_a_time(name, extra, n, seed, offset):
    primitive, value, least = STATISTICS[name]
    n = max(n, least)
    rng = np.random.default_rng(seed)
    x = offset + rng.normal(size=n + extra)
    x[rng.random(len(x)) < 0.02] = np.nan
    x[rng.random(len(x)) < 0.2] = offset + 1.0  # ties
    with np.errstate(all="ignore"):
        expected = by_window(x, n, value)
    np.testing.assert_allclose(primitive(x, n), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", (1, 2, 9, 12, 26))
def test_exponential_mean(n):
    x = np.random.default_rng(n).normal(50, 5, 200)
    np.testing.assert_allclose(p.exponential_mean(x, n), by_window(x, 4 * n, exponential), rtol=1e-12)


@pytest.mark.parametrize("n", (2, 3, 20, 37))
def test_correlation(n):
    x, y = np.random.default_rng(n).normal(3, 1, (2, 150))
    windows = [slice(t - n + 1, t + 1) for t in range(n - 1, 150)]
    expected = [np.corrcoef(x[part], y[part])[0, 1] for part in windows]
    np.testing.assert_allclose(p.correlation(x, y, n)[n - 1 :], expected, rtol=1e-9, atol=1e-9)
    assert (p.correlation(x, np.full(150, 0.3), n)[n - 1 :] == 0).all()


def test_lag_and_change():
    x = np.arange(6.0) ** 2
    np.testing.assert_array_equal(p.lag(x, 2), [np.nan, np.nan, 0, 1, 4, 9])
    np.testing.assert_array_equal(p.lag(x, 0), x)
    np.testing.assert_array_equal(p.lag(x, 9), [np.nan] * 6)
    np.testing.assert_array_equal(p.change(x), [np.nan, 1, 3, 5, 7, 9])


def test_ratios_are_never_infinite_and_hide_nothing():
    above = np.array([1.0, 0.0, np.nan, np.nan, -3.0])
    below = np.array([0.0, 0.0, 0.0, 2.0, 2.0])
    np.testing.assert_array_equal(p.ratio(above, below), [0, 0, np.nan, np.nan, -1.5])
    np.testing.assert_array_equal(
        p.log_ratio(np.array([0.0, 2.0, 2.0, np.nan]), np.array([1.0, 0.0, 2.0, 0.0])), [0, 0, 0, np.nan]
    )


def test_constant_windows_have_no_spread_at_all():
    for constant in (0.1, 1 / 3, 1e-9, 123456.789, 1e15):
        x = np.full(300, constant)
        for n in (2, 5, 7, 20, 60, 63):
            assert (p.std(x, n)[n - 1 :] == 0).all()
            assert (p.mean(x, n)[n - 1 :] == constant).all()
            assert (p.mean_deviation(x, n)[n - 1 :] == 0).all()
            assert (p.linear_fit(x, n)[1][n - 1 :] == 0).all()
            if n > 2:
                assert (p.skew(x, n)[n - 1 :] == 0).all()


def test_a_spread_that_is_only_rounding_counts_as_none():
    steady = np.log(3 * 1.01 ** np.arange(200))  # one percent a bar
    growth = p.change(steady)
    assert (p.std(growth, 20)[20:] == 0).all()
    assert (p.std(growth + np.random.default_rng(0).normal(0, 1e-9, 200), 20)[20:] > 0).all()


def test_what_left_the_window_leaves_no_trace():
    """A running sum would keep the rounding of the spike for ever; here not one bit stays."""
    quiet = np.random.default_rng(0).normal(1e-6, 1e-7, 300)
    loud = quiet.copy()
    loud[100] = 1e12
    loud[101] = np.nan
    for primitive in (
        p.total,
        p.mean,
        p.std,
        p.skew,
        p.highest,
        p.rank,
        p.mean_deviation,
        p.exponential_mean,
    ):
        n = 25
        memory = 4 * n if primitive is p.exponential_mean else n
        assert np.array_equal(primitive(loud, n)[101 + memory :], primitive(quiet, n)[101 + memory :])


def test_windows_do_not_reach_across_lives():
    x = np.random.default_rng(1).normal(size=30)
    with p.lives(np.array([0, 12, 15, 30])):
        together = {name: primitive(x, 4) for name, (primitive, _, _) in STATISTICS.items()}
        lagged = p.lag(x, 2)
    for name, (primitive, _, _) in STATISTICS.items():
        apart = np.concatenate([primitive(x[a:b], 4) for a, b in ((0, 12), (12, 15), (15, 30))])
        assert np.array_equal(together[name], apart, equal_nan=True), name
    assert np.isnan(lagged[[0, 1, 12, 13, 15, 16]]).all()
    assert p.lag(x, 2)[12] == x[10]  # outside, an array is one life again


@pytest.mark.parametrize(
    ("call", "words"),
    (
        (lambda x: p.mean(x, 0), "at least 1"),
        (lambda x: p.std(x, 1), "at least 2"),
        (lambda x: p.skew(x, 2), "at least 3"),
        (lambda x: p.mean(x, 2.5), "`2.5`"),
        (lambda x: p.mean(x, True), "`True`"),
        (lambda x: p.lag(x, -1), "`-1`"),
        (lambda x: p.mean(x.astype(np.float32), 2), "float32"),
        (lambda x: p.mean(list(x), 2), "float64 column"),
        (lambda x: p.mean(x[1:], 2), "10 rows where the others have 11"),
    ),
)
def test_wrong_use_is_refused(call, words):
    with p.lives(np.array([0, 11])), pytest.raises(UsageError, match=words):
        call(np.arange(11.0))
