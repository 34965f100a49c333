import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.core.errors import UsageError
from barcast.ensemble.routing import route
from barcast.evaluation.intervals import Bootstrap, interval, plan_blocks, resample
from tests.ensemble.markets import dialled, flat, without_signal

#: Most symbols that may leave where there is nothing to gain.
MAX_LEAVE = 0.05
#: From "all symbols are the same" to "no two are alike".
DIAL = (0.0, 0.1, 0.3, 0.45, 0.6)

QUIET = {
    "plain": {},
    "independent": {"shared": 0.0},
    "heavy tails": {"freedom": 2.2},
    "leaning": {"lean": 0.15},
    "nothing but lean": {"lean": 0.15, "own": 0.02, "shared": 0.02},
    "next session": {"horizon": 1},
    "few symbols": {"symbols": 15},
    "long": {"sessions": 240, "symbols": 60},
}


def decide(gain, horizon=5, **options):
    return route(*flat(gain), horizon=horizon, delay=1, **options)


def share_leaving(decision, gain):
    return decision(gain).mean()


def by_evidence(horizon=5):
    return lambda gain: decide(gain, horizon).dedicated


def everybody(gain):
    return np.ones(gain.shape[1], bool)


def nobody(gain):
    return np.zeros(gain.shape[1], bool)


def loses(decision, market):
    """Whether the routed loss on test rows is above the better model's, beyond its interval."""
    dedicated = decision(market.route_universal - market.route_dedicated)
    losses = np.where(dedicated, market.test_dedicated, market.test_universal)
    sessions = len(losses)
    blocks = plan_blocks(sessions, 5, 1, Bootstrap(num_draws=500))
    better = min((market.test_universal, market.test_dedicated), key=np.mean)
    worse_by = (losses - better).mean(axis=1)
    draws = resample(worse_by[:, None], blocks)[:, 0] / sessions
    low, _ = interval(float(worse_by.mean()), draws, blocks)
    return low > 0


@pytest.mark.parametrize("kind", QUIET)
def test_without_signal_hardly_anybody_leaves(kind):
    decision = by_evidence(QUIET[kind].get("horizon", 5))
    shares = np.array([share_leaving(decision, without_signal(seed, **QUIET[kind])) for seed in range(12)])
    assert shares.mean() <= MAX_LEAVE, shares
    assert np.count_nonzero(shares > MAX_LEAVE) <= 1, shares


def test_these_markets_are_correlated_as_real_ones():
    """The variance of the market's mean gain is many times that of independent rows."""
    effects = []
    for seed in range(10):
        gain = without_signal(seed, shared=0.03)
        rows = np.isfinite(gain)
        effects.append(decide(gain).common.standard_error ** 2 * rows.sum())
    assert 10 < np.median(effects) < 40


@pytest.mark.parametrize("dial", DIAL)
def test_the_routed_loss_is_never_above_the_better_models(dial):
    for seed in range(5):
        assert not loses(by_evidence(), dialled(seed, dial))


def test_with_symbols_that_differ_routing_beats_both():
    for seed in range(5):
        gain, has = planted(seed, sessions=160)
        gain = gain - 0.3 * ~has  # some gain, most lose
        chosen = decide(gain[:80], 1).dedicated
        kept = (gain[80:] * chosen).mean()
        assert kept > max(0, gain[80:].mean()) and chosen.mean() == pytest.approx(0.3, abs=0.05)


def test_constant_routers_fail_these_criteria():
    assert share_leaving(everybody, without_signal(0)) > MAX_LEAVE
    lost = {
        constant: [dial for dial in DIAL if any(loses(constant, dialled(seed, dial)) for seed in range(5))]
        for constant in (everybody, nobody)
    }
    assert 0.0 in lost[everybody], "where symbols are the same, all dedicated must lose"
    assert 0.6 in lost[nobody], "where no two are alike, all universal must lose"


@pytest.mark.soak
@pytest.mark.parametrize("kind", QUIET)
def test_sweep_of_noise_markets(kind, soak_table):
    options = QUIET[kind]
    decision = by_evidence(options.get("horizon", 5))
    shares = np.array([share_leaving(decision, without_signal(s, **options)) for s in range(1000, 1200)])
    # all leave where the market's own luck passes for a gain: a rare market, not a share of each
    rare = float((shares > MAX_LEAVE).mean())
    quiet = max(shares.mean(), rare) <= MAX_LEAVE
    found = f"{shares.mean():.1%} leave, more than {MAX_LEAVE:.0%} in {rare:.1%} of markets"
    soak_table.add("routing", f"200 markets without signal, {kind}: hardly anybody leaves", quiet, found)
    assert quiet, found


@pytest.mark.soak
@pytest.mark.parametrize("dial", np.linspace(0, 0.8, 17).round(2).tolist())
def test_sweep_of_the_dial(dial, soak_table):
    """About 0.2 all gain by two or three standard errors of the route segment: nobody can be sure there."""
    lost = sum(loses(by_evidence(), dialled(seed, dial)) for seed in range(100, 140))
    most = 16 if 0.15 <= dial <= 0.25 else 3
    what = f"dial {dial}: above the better model's loss, beyond its interval, in at most {most} of 40 markets"
    soak_table.add("routing", what, lost <= most, f"{lost} of 40")
    assert lost <= most


def planted(seed=0, gain=0.5, share=0.3, symbols=80, sessions=80):
    rng = np.random.default_rng(seed)
    has = np.arange(symbols) < share * symbols
    return rng.normal(size=(sessions, symbols)) + gain * has, has


def test_planted_gains_are_found():
    gain, has = planted()
    found = decide(gain, horizon=1)
    assert found.dedicated[has].all()
    assert found.departures.shares[0] < 0.9 and found.departures.spread == pytest.approx(0.23, abs=0.1)
    gain[:, ~has] -= 0.3
    np.testing.assert_array_equal(decide(gain, horizon=1).dedicated, has)


def test_a_common_gain_beyond_luck_moves_everybody_who_can_be_judged():
    gain, _ = planted(share=0.0)
    gain[10:, 3] = np.nan
    found = decide(gain + 0.3, horizon=1)
    assert found.common.probability > 0.99 and found.common.gain == pytest.approx(0.3, abs=0.05)
    assert found.dedicated.sum() == 79 and not found.dedicated[3]
    assert not decide(gain - 0.3, horizon=1).dedicated.any()


def test_posterior_gains_are_shrunken_and_probabilities_promise_no_more_than_comes():
    rng = np.random.default_rng(1)
    true = 0.3 * rng.normal(size=1500)
    gain = true + 2 * rng.normal(size=(80, 1500))
    found = decide(gain, horizon=1)
    assert np.square(found.posterior_mean - true).mean() < 0.75 * np.square(found.gain - true).mean()
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        chosen = (found.probability > low) & (found.probability <= high)
        assert (true[chosen] > 0).mean() > found.probability[chosen].mean() - 0.05
    assert (true[found.probability < 0.2] > 0).mean() < 0.2


def test_errors_count_overlapping_labels():
    """The standard error is that of means over repeated markets, although neighbouring labels overlap."""
    means, errors = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        shocks = rng.normal(size=(244, 60))
        found = decide(sum(shocks[i : i + 240] for i in range(5)))
        means.append(found.gain)
        errors.append(found.standard_error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.2)


def test_gain_and_common_error_equal_the_slow_reference():
    gain, _ = planted(symbols=8)
    gain[5:20, 2] = np.nan
    found = decide(gain, horizon=1)
    np.testing.assert_allclose(found.gain, np.nanmean(gain, axis=0))
    num = 80 // 5
    block = np.arange(80) * num // 80
    gain = gain / np.nanstd(gain, axis=0, ddof=1)
    mean = np.nanmean(gain)
    parts = [np.nansum(gain[block == b] - mean) for b in range(num)]
    error = np.sqrt(np.square(parts).sum() * num / (num - 1)) / np.isfinite(gain).sum()
    assert found.common.gain == pytest.approx(mean)
    assert found.common.standard_error == pytest.approx(error)
    np.testing.assert_array_equal(found.num_rows, np.isfinite(gain).sum(axis=0))
    np.testing.assert_array_equal(found.num_blocks, [num, num, num - 3] + [num] * 5)


def test_policies():
    gain, _ = planted()
    gain[:, 0] = np.nan
    able = np.arange(80) != 40
    everyone = decide(gain, 1, policy="prefer-dedicated", has_dedicated=able)
    np.testing.assert_array_equal(everyone.dedicated, able)
    assert not decide(gain, 1, policy="universal").dedicated.any()
    assert not decide(gain, 1, policy="prefer-dedicated").dedicated[0]
    assert "asked for" in everyone.evidence(1).reason
    assert everyone.evidence(40).reason == "There is no dedicated model."
    assert everyone.evidence(40).decision == "universal" and everyone.evidence(41).decision == "dedicated"
    np.testing.assert_array_equal(
        everyone.probability[1:40], decide(gain, 1, has_dedicated=able).probability[1:40]
    )


def test_every_symbol_has_a_reason():
    gain, _ = planted(gain=0.6)
    gain[15:, 5] = np.nan
    gain[:, 79] -= 1
    found = decide(gain, 1)
    assert "better with probability" in found.evidence(0).reason
    assert found.evidence(5).reason.startswith("Too little to judge by: 15 rows in 3 blocks")
    assert found.evidence(5).decision == "universal" and np.isnan(found.evidence(5).probability)
    assert "no better" in found.evidence(79).reason
    unsure = np.flatnonzero((found.posterior_mean > 0) & ~found.dedicated)
    sure = decide(gain, 1, min_probability=0.999999)
    doubtful = next(s for s in range(80) if sure.posterior_mean[s] > 0 and not sure.dedicated[s])
    assert "may be luck" in sure.evidence(doubtful).reason and len(unsure) <= 80
    assert dataclasses.asdict(found.evidence(0))["num_rows"] == 80


@pytest.mark.parametrize("shape", [(0, 3), (3, 3), (80, 1), (80, 2)])
def test_too_little_data_and_tiny_fleets_stay(shape):
    gain = np.random.default_rng(0).normal(size=shape)
    found = decide(gain)
    assert not found.dedicated.any()
    assert [found.evidence(s).decision for s in range(shape[1])] == ["universal"] * shape[1]


def test_equal_models_stay_and_a_gain_without_noise_leaves():
    assert not decide(np.zeros((80, 10))).dedicated.any()
    assert decide(np.full((80, 10), 0.1)).dedicated.all()
    assert not decide(np.full((80, 10), np.nan)).dedicated.any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(10)), st.floats(1e-3, 1e3))
def test_neither_order_nor_unit_matters(seed, order, unit):
    gain, _ = planted(seed, symbols=10, gain=1.0)
    found, moved = decide(gain, 1), decide(gain[:, order] * unit, 1)
    np.testing.assert_allclose(moved.probability, found.probability[order], atol=1e-6)
    np.testing.assert_allclose(moved.posterior_mean, unit * found.posterior_mean[order], atol=1e-6 * unit)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_within_a_market_more_gain_is_never_less_likely_real(seed, low, more):
    """Symbols with one error: the order of gains is the order of probabilities."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(80, 1)) * np.where(np.arange(40) % 2, 1, -1)
    gain = base + low + more * rng.normal(size=40)
    found = decide(gain, 1)
    np.testing.assert_array_less(-1e-9, np.diff(found.probability[np.argsort(found.gain)]))


def test_what_does_not_fit_is_refused():
    rows, offsets, session = flat(np.zeros((10, 2)))
    for change, match in (
        ({"policy": "majority"}, "policy"),
        ({"min_probability": 0.2}, "min_probability"),
        ({"has_dedicated": np.ones(3, bool)}, "has_dedicated"),
    ):
        with pytest.raises(UsageError, match=match):
            route(rows, offsets, session, horizon=1, delay=1, **change)
    with pytest.raises(UsageError, match="session"):
        route(rows, offsets, session[:-1], horizon=1, delay=1)
    with pytest.raises(UsageError, match="offsets"):
        route(rows, offsets + 1, session, horizon=1, delay=1)
