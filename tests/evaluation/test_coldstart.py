"""What passes the cold-start test, and that a constant never does."""

import numpy as np
import pytest

from barcast.evaluation.coldstart import difference, pooled, retains, session_scores, skill

HOW = {"horizon": 1, "delay": 1}


def rows(sessions=100, symbols=20, seed=0):
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(sessions, dtype=np.int32), symbols)
    signal = rng.normal(size=len(session))
    return signal + rng.normal(size=len(session)) * 2, signal, session


def test_scores_equal_their_formulas():
    y, signal, session = rows(sessions=30)
    y[::17] = np.nan
    found = skill(session_scores(y, signal, 0.5 * signal, session, 30), **HOW)
    known = np.isfinite(y)
    ranked = [
        np.corrcoef(*(x[known & (session == t)].argsort().argsort() for x in (y, signal)))[0, 1]
        for t in range(30)
    ]
    assert found.rank_ic.value == pytest.approx(np.mean(ranked))
    r2 = 1 - np.square(y - 0.5 * signal)[known].sum() / np.square(y[known]).sum()
    assert found.r2.value == pytest.approx(r2)
    assert found.r2.low < r2 < found.r2.high


def test_an_equal_model_retains_and_a_much_worse_one_does_not():
    y, signal, session = rows()
    good = session_scores(y, signal, signal, session, 100)
    noise = np.random.default_rng(1).normal(size=len(y))
    worse = session_scores(y, signal + noise, 0.5 * (signal + noise), session, 100)
    assert retains(good, good, **HOW) and difference(good, good, **HOW).rank_ic.value == 0
    assert skill(worse, **HOW).rank_ic.is_above_zero  # it has skill, and less of it
    assert not retains(worse, good, **HOW) and difference(worse, good, **HOW).r2.is_below_zero


@pytest.mark.parametrize("value", [0.0, 0.3, -1.0])
def test_a_constant_fails(value):
    y, _, session = rows()
    y = y + 0.1  # even where a mean is worth something
    constant = session_scores(y, np.full_like(y, value), np.full_like(y, value), session, 100)
    hopeless = session_scores(y, np.zeros_like(y), np.zeros_like(y), session, 100)
    assert not retains(constant, hopeless, **HOW)
    assert np.isnan(skill(constant, **HOW).rank_ic.value)


def test_folds_are_averaged_session_by_session():
    y, signal, session = rows(sessions=10)
    one = session_scores(y, signal, signal, session, 10)
    two = session_scores(y[:100], signal[:100], signal[:100], session[:100], 10)
    both = pooled([one, two])
    np.testing.assert_allclose(both.rank_ic[:5], (one.rank_ic + two.rank_ic)[:5] / 2)
    np.testing.assert_allclose(both.rank_ic[5:], one.rank_ic[5:])
    np.testing.assert_allclose(both.error, one.error + two.error)
