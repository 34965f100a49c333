import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.core.errors import UsageError
from barcast.ensemble.bma import Averaging, average
from barcast.ensemble.densities import log_densities, mixture_log_score
from tests.ensemble.markets import pseudo_bma

NAMES = ("zero", "mean", "forest", "boosted", "leaves")
FEW = Averaging(num_draws=200)
NO_PRIOR = Averaging(num_draws=200, min_sessions=0)


def names(num):
    return NAMES[:num]


def scores(seed=0, symbols=6, sessions=60, members=4, spread=0.1):
    """Log scores of symbols with all sessions, flat."""
    rng = np.random.default_rng(seed)
    values = rng.normal(-1, spread, (symbols * sessions, members))
    return values, np.arange(symbols + 1) * sessions, np.tile(np.arange(sessions), symbols)


def ragged(seed, lengths, members=3):
    rng = np.random.default_rng(seed)
    session = np.concatenate([np.sort(rng.choice(90, n, replace=False)) for n in lengths])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return rng.normal(-1, 0.2, (len(session), members)), offsets, session


@pytest.mark.parametrize("horizon", [1, 5])
def test_own_weights_equal_the_slow_reference(horizon):
    values, offsets, session = ragged(0, (60, 7, 25, 0, 1))
    found = average(values, offsets, session, horizon, members=names(3), options=NO_PRIOR)
    for s in (0, 1, 2, 4):
        rows = slice(offsets[s], offsets[s + 1])
        slow = pseudo_bma(values[rows], session[rows], horizon, 200, 0)
        np.testing.assert_allclose(found.own[s], slow, atol=1e-12)
    np.testing.assert_array_equal(found.num_rows, [60, 7, 25, 0, 1])
    assert found.num_blocks[0] == len(set(session[:60] // horizon))


def test_a_single_symbol_has_its_own_weights():
    values, offsets, session = scores(symbols=1, spread=0.4)
    found = average(values, offsets, session, 1, members=names(4), options=FEW)
    np.testing.assert_allclose(found.weights, found.own, atol=1e-12)
    assert np.ptp(found.weights) > 0.01


def test_one_member_gets_everything():
    values, offsets, session = scores(members=1)
    found = average(values, offsets, session, 1, members=("zero",), options=FEW)
    np.testing.assert_allclose(found.weights, 1.0, atol=1e-12)


def test_identical_members_weigh_the_same():
    values, offsets, session = scores(members=1)
    found = average(np.repeat(values, 3, axis=1), offsets, session, 1, members=names(3), options=FEW)
    np.testing.assert_allclose(found.weights, 1 / 3, atol=1e-12)
    np.testing.assert_allclose(found.gain, 0, atol=1e-12)


@pytest.mark.parametrize("broken", [np.nan, -np.inf, np.inf])
def test_a_member_without_a_finite_score_weighs_nothing_in_that_symbol(broken):
    values, offsets, session = scores()
    values[70, 2] = broken
    found = average(values, offsets, session, 1, members=names(4), options=FEW)
    np.testing.assert_array_equal(np.argwhere(found.excluded), [[1, 2]])
    assert found.weights[1, 2] == found.own[1, 2] == 0
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-12)
    assert found.evidence(1).excluded == ("forest",)
    assert np.isnan(found.log_score[1, 2])
    assert (found.weights[0] > 0).all()


def test_a_member_that_fails_in_most_symbols_weighs_nowhere():
    values, offsets, session = scores()
    values[offsets[:4], 1] = np.nan
    found = average(values, offsets, session, 1, members=names(4), options=FEW)
    assert found.excluded[:, 1].all() and found.excluded.sum() == 6
    assert found.pooled[1] == 0 and (found.weights[:, 1] == 0).all()


def without(values, offsets, symbols, member):
    """Say which of 4 members symbols lack, and their scores, NaN where that is so."""
    absent = np.zeros((len(offsets) - 1, 4), bool)
    absent[symbols, member] = True
    return np.where(np.repeat(absent, np.diff(offsets), axis=0), np.nan, values), absent


def test_members_that_most_symbols_lack_weigh_in_those_that_have_them():
    values, offsets, session = scores()
    values[:, 1] += 0.3
    values, absent = without(values, offsets, [0, 1, 2, 3], 1)
    found = average(values, offsets, session, 1, members=names(4), absent=absent, options=FEW)
    np.testing.assert_array_equal(found.excluded, absent)
    assert (found.weights[:4, 1] == 0).all() and (found.weights[4:, 1] > 0.9).all()
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-12)
    assert found.evidence(0).excluded == ("mean",)


def test_a_symbol_without_rows_has_the_markets_weights_of_its_members():
    values, offsets, session = ragged(3, (60, 60, 0, 60), members=4)
    values, absent = without(values, offsets, [2], 0)
    found = average(values, offsets, session, 1, members=names(4), absent=absent, options=FEW)
    np.testing.assert_allclose(found.weights[2], [0, *found.pooled[1:] / found.pooled[1:].sum()], atol=1e-12)


def test_a_member_that_nobody_has_weighs_nowhere_with_few_sessions_too():
    values, offsets, session = ragged(4, (20, 20, 0), members=4)
    values, absent = without(values, offsets, [0, 1, 2], 3)
    found = average(values, offsets, session, 1, members=names(4), absent=absent, options=FEW)
    assert (found.weights[:, 3] == 0).all() and found.pooled[3] == 0
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-12)


def test_who_has_a_member_is_not_what_it_is_worth():
    values, offsets, session = scores(spread=0.2)
    values[:, 2] = values[:, 1]
    values[offsets[3] :] -= 2  # whose outcomes are hard to foresee, for all members
    values, absent = without(values, offsets, [0, 1, 2], 2)
    whole = without(values, offsets, [], 2)[0]
    whole[:, 2] = whole[:, 1]
    mixed, known = (
        average(given, offsets, session, 1, members=names(4), absent=gone, options=FEW)
        for given, gone in ((values, absent), (whole, None))
    )
    assert mixed.pooled[2] == pytest.approx(known.pooled[2], abs=0.05)
    assert mixed.pooled[1] == pytest.approx(known.pooled[1], abs=0.05)


def test_strengths_are_found_among_symbols_with_the_same_members():
    values, offsets, session = scores(symbols=12, spread=0.3)
    values[offsets[6] :, 0] += np.repeat(np.linspace(-0.5, 0.5, 6), 60)  # these differ, those before do not
    values, absent = without(values, offsets, range(6), 1)
    mixed = average(values, offsets, session, 1, members=names(4), absent=absent, options=FEW)
    rest = slice(offsets[6], None)
    own = average(values[rest], offsets[6:] - offsets[6], session[rest], 1, members=names(4), options=FEW)
    np.testing.assert_allclose(mixed.strength[6:], own.strength)
    assert mixed.strength[6:].min() > 0.3 > mixed.strength[:6].max()


def test_nothing_known_leaves_the_priors():
    values, offsets, session = scores(members=3)
    prior = np.array([2.0, 1.0, 1.0])
    nothing = average(np.full_like(values, np.nan), offsets, session, 1, members=names(3), prior=prior)
    empty = average(values[:0], np.zeros(4, int), session[:0], 1, members=names(3), prior=prior)
    for found in (nothing, empty):
        np.testing.assert_allclose(found.weights, [[0.5, 0.25, 0.25]] * len(found.weights), atol=1e-12)
        np.testing.assert_allclose(found.own, found.weights)
        assert np.isnan(found.gain).all() and (found.num_rows == 0).all()


def test_a_symbol_whose_members_all_fail_has_the_weights_of_the_market():
    values, offsets, session = scores()
    values[np.arange(60, 64), np.arange(4)] = np.nan
    found = average(values, offsets, session, 1, members=names(4), options=FEW)
    np.testing.assert_allclose(found.weights[1], found.pooled)
    assert found.num_rows[1] == 0 and not found.excluded[0].any()


def test_rows_without_an_outcome_do_not_count():
    values, offsets, session = scores()
    unknown = values.copy()
    unknown[3::7] = np.nan
    keep = np.isfinite(unknown[:, 0])
    kept = np.concatenate([[0], np.cumsum(keep)])[offsets]
    one = average(unknown, offsets, session, 5, members=names(4), options=FEW)
    two = average(values[keep], kept, session[keep], 5, members=names(4), options=FEW)
    np.testing.assert_allclose(one.weights, two.weights, atol=1e-12)
    assert not one.excluded.any()


def test_few_sessions_move_the_weights_to_the_prior_by_the_stated_share():
    values, offsets, session = scores(symbols=1, sessions=30, spread=0.5)
    free = average(values, offsets, session, 1, members=names(4), options=NO_PRIOR).weights
    short = average(values, offsets, session, 1, members=names(4), options=FEW).weights
    np.testing.assert_allclose(short, free + 50 / 80 * (0.25 - free), atol=1e-12)
    values, offsets, session = scores(symbols=1, sessions=50)
    enough = [
        average(values, offsets, session, 1, members=names(4), options=o).weights for o in (FEW, NO_PRIOR)
    ]
    np.testing.assert_array_equal(*enough)


def test_overlapping_labels_count_once():
    """Five copies of each day's score are one day's evidence."""
    values, offsets, session = scores(symbols=1, sessions=40)
    repeated = np.repeat(values, 5, axis=0)
    daily = average(values, offsets, session, 1, members=names(4), options=NO_PRIOR)
    weekly = average(repeated, offsets * 5, np.arange(200), 5, members=names(4), options=NO_PRIOR)
    np.testing.assert_allclose(weekly.own, daily.own, atol=1e-12)


def test_a_member_that_copies_the_outcome_takes_all():
    rng = np.random.default_rng(0)
    y = rng.normal(size=80 * 20)
    y_hat = np.stack([np.zeros_like(y), y, rng.normal(size=len(y))], axis=1)
    density = log_densities(y, y_hat, np.ones_like(y))
    found = average(density, np.arange(21) * 80, np.tile(np.arange(80), 20), 1, members=names(3))
    assert (found.weights[:, 1] > 0.999).all()
    assert (found.gain > 0.2).all()


def test_alike_symbols_have_the_pooled_weights():
    rng = np.random.default_rng(3)
    values, offsets, session = scores(1, symbols=300, sessions=80, spread=0.2)
    values += np.array([0, 0, -0.02, -0.04]) + 0.05 * rng.normal(size=(80, 4))[session]
    found = average(values, offsets, session, 1, members=names(4), options=FEW)
    assert found.strength.mean() < 0.1
    assert np.abs(found.weights - found.pooled).max() < 0.1 < np.abs(found.own - found.pooled).max()
    assert found.pooled[0] > found.pooled[2] > found.pooled[3]


def test_symbols_that_differ_and_are_long_keep_their_own_weights():
    values, offsets, session = scores(2, symbols=60, sessions=250, spread=0.3)
    values[np.arange(len(values)), np.repeat(np.arange(60) % 4, 250)] += 0.2
    found = average(values, offsets, session, 1, members=names(4), options=FEW)
    assert found.strength.min() > 0.9
    np.testing.assert_allclose(found.weights, found.own, atol=0.02)
    assert (found.weights.argmax(axis=1) == np.arange(60) % 4).all()


def test_strength_grows_with_what_sets_symbols_apart_and_with_their_length():
    strengths = []
    for apart, sessions in ((0.0, 60), (0.03, 60), (0.1, 60), (0.1, 240)):
        values, offsets, session = scores(4, symbols=100, sessions=sessions, spread=0.3)
        values += np.repeat(np.random.default_rng(5).normal(0, apart, (100, 4)), sessions, axis=0)
        found = average(values, offsets, session, 1, members=names(4), options=FEW)
        strengths.append(found.strength.mean())
    assert strengths == sorted(strengths) and strengths[0] < 0.15 and strengths[-1] > 0.9


def test_pooling_forecasts_the_next_months_better_than_own_weights():
    rng = np.random.default_rng(6)
    symbols, rows = 150, 80 + 200
    y = rng.normal(size=(symbols, rows))
    y_hat = np.zeros((symbols, rows, 4))
    y_hat[..., 1:] = 0.15 * rng.normal(size=(symbols, rows, 3))
    density = log_densities(y.ravel(), y_hat.reshape(-1, 4), np.ones(y.size), "normal").reshape(*y.shape, 4)
    past, later = density[:, :80].reshape(-1, 4), density[:, 80:]
    found = average(past, np.arange(symbols + 1) * 80, np.tile(np.arange(80), symbols), 1, members=names(4))
    score = {
        name: mixture_log_score(later.reshape(-1, 4), np.repeat(w, 200, axis=0)).mean()
        for name, w in {"own": found.own, "used": found.weights, "equal": np.full((symbols, 4), 0.25)}.items()
    }
    assert score["used"] > score["own"] + 1e-4 and score["used"] > score["equal"] + 1e-4


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 6))
def test_weights_are_on_the_simplex_and_do_not_move_with_a_constant(seed, lengths, horizon):
    values, offsets, session = ragged(seed, lengths)
    found = average(values, offsets, session, horizon, members=names(3), options=FEW)
    for weights in (found.weights, found.own, found.pooled[None]):
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    assert ((found.strength >= 0) & (found.strength <= 1)).all()
    moved = average(values - 700.0, offsets, session, horizon, members=names(3), options=FEW)
    np.testing.assert_allclose(moved.weights, found.weights, atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(5)), st.permutations(range(3)))
def test_orders_of_symbols_and_members_do_not_matter(seed, symbols, members):
    lengths = (40, 12, 33, 20, 5)
    values, offsets, session = ragged(seed, lengths)
    found = average(values, offsets, session, 2, members=names(3), options=FEW)
    rows = np.concatenate([np.arange(offsets[s], offsets[s + 1]) for s in symbols])
    ends = np.concatenate([[0], np.cumsum([lengths[s] for s in symbols])])
    moved = average(values[rows][:, members], ends, session[rows], 2, members=names(3), options=FEW)
    np.testing.assert_allclose(moved.weights, found.weights[symbols][:, members], atol=1e-9)
    np.testing.assert_allclose(moved.own, found.own[symbols][:, members], atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.2), st.floats(0.001, 0.3))
def test_a_member_that_loses_more_weighs_less(seed, gap, more):
    values, offsets, session = scores(seed, symbols=1, sessions=55, members=3)
    weights = []
    for loss in (gap, gap + more):
        worse = values - np.array([0, 0, loss])
        weights.append(average(worse, offsets, session, 1, members=names(3), options=FEW).own[0, 2])
    assert weights[1] < weights[0]


def test_a_symbols_own_weights_do_not_depend_on_its_company_or_on_parts(monkeypatch):
    values, offsets, session = ragged(9, (40, 30, 20))
    together = average(values, offsets, session, 1, members=names(3), options=FEW)
    alone = average(values[40:70], np.array([0, 30]), session[40:70], 1, members=names(3), options=FEW)
    np.testing.assert_allclose(alone.own[0], together.own[1], atol=1e-12)
    monkeypatch.setattr("barcast.ensemble.bma._HELD", 200)
    parts = average(values, offsets, session, 1, members=names(3), options=FEW)
    np.testing.assert_allclose(parts.weights, together.weights, atol=1e-12)


def test_evidence_adds_up():
    values, offsets, session = scores(members=3)
    found = average(values, offsets, session, 1, members=names(3), options=FEW)
    evidence = found.evidence(2)
    rows = slice(120, 180)
    np.testing.assert_allclose(evidence.log_score, values[rows].sum(axis=0))
    mixed = np.log(np.exp(values[rows]) @ np.array(evidence.weights))
    equal = np.log(np.exp(values[rows]).mean(axis=1))
    assert evidence.gain == pytest.approx((mixed - equal).mean(), abs=1e-12)
    assert evidence.num_rows == evidence.num_blocks == 60 and evidence.excluded == ()
    assert all(isinstance(value, float) for value in evidence.weights)
    assert dataclasses.asdict(evidence)["members"] == names(3)


def test_what_does_not_fit_is_refused():
    values, offsets, session = scores(members=3)
    with pytest.raises(UsageError, match="one column a member"):
        average(values, offsets, session, 1, members=names(2))
    with pytest.raises(UsageError, match="offsets"):
        average(values, offsets[:-1], session, 1, members=names(3))
    with pytest.raises(UsageError, match="horizon"):
        average(values, offsets, session, 0, members=names(3))
    with pytest.raises(UsageError, match="prior"):
        average(values, offsets, session, 1, members=names(3), prior=np.array([1.0, 0.0, 1.0]))
    with pytest.raises(UsageError, match="num_draws"):
        Averaging(num_draws=0)
