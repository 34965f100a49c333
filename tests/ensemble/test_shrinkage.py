import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.core.errors import UsageError
from barcast.ensemble.shrinkage import shrink


def fleet(seed, *, market=0.4, industries=0.0, symbols=0.0, lean=0.0, num=300, sessions=80, groups=12):
    """Rows of a residual fleet with planted slopes; errors are heavy-tailed and move together."""
    rng = np.random.default_rng(seed)
    code = np.arange(num) % groups
    slope = market + industries * rng.normal(size=groups)[code] + symbols * rng.normal(size=num)
    x = 0.1 * (rng.normal(size=(num, sessions)) + lean * rng.normal(size=(num, 1)))
    y = slope[:, None] * x + rng.standard_t(4, (num, sessions)) / 1.5 + 0.3 * rng.normal(size=sessions)
    rows = x.ravel(), y.ravel(), np.arange(num + 1) * sessions, np.tile(np.arange(sessions), num)
    return rows, code, slope


def fit(rows, code):
    return shrink(*rows, code, horizon=1, delay=1)


def test_one_slope_for_all_is_found_and_believed():
    for seed in range(3):
        rows, code, _ = fleet(seed)
        found = fit(rows, code)
        assert found.market.shrunken[0] == pytest.approx(0.4, abs=3 * found.market.standard_error[0])
        assert np.abs(found.factor - found.market.shrunken[0]).max() < 0.25
        assert found.symbols.strength.mean() < 0.1 and found.industries.strength.mean() < 0.2


def test_noise_is_multiplied_by_about_nothing():
    factors = [fit(*fleet(seed, market=0.0, lean=1.0)[:2]).factor.mean() for seed in range(8)]
    assert np.mean(factors) < 0.04


def test_a_forecast_that_is_wrong_way_round_is_left_out():
    assert fit(*fleet(0, market=-1.0)[:2]).factor.max() == 0


@pytest.mark.parametrize(
    "planted", [{"industries": 0.5}, {"symbols": 1.0}, {"market": 0.5, "industries": 0.3, "symbols": 0.8}]
)
def test_planted_slopes_are_nearer_than_by_own_or_by_market_alone(planted):
    errors, spreads = [], []
    for seed in range(4):
        rows, code, slope = fleet(seed, **planted)
        found = fit(rows, code)
        tried = (found.factor, found.symbols.slope, found.market.slope)
        errors.append([np.square(np.clip(each, 0, 1) - np.clip(slope, 0, 1)).mean() for each in tried])
        spreads.append((found.industries.spread, found.symbols.spread))
    shrunken, own, market = np.mean(errors, axis=0)
    assert shrunken < 0.85 * min(own, market)
    expected = planted.get("industries", 0), planted.get("symbols", 0)
    np.testing.assert_allclose(np.mean(spreads, axis=0), expected, atol=0.25)


def test_strength_grows_with_what_was_planted():
    strengths = [fit(*fleet(2, symbols=s)[:2]).symbols.strength.mean() for s in (0.0, 0.5, 1.0, 3.0)]
    assert strengths == sorted(strengths) and strengths[0] < 0.1 and strengths[-1] > 0.8


def test_a_symbol_without_rows_has_its_industrys_factor_and_an_unknown_industry_the_markets():
    rows, code, _ = fleet(3, industries=0.6, num=60)
    x, y, offsets, session = rows
    x = x.copy()
    x[offsets[5] : offsets[6]] = np.nan
    x[offsets[7] : offsets[8]] = np.nan
    code = code.copy()
    code[7] = -1
    found = shrink(x, y, offsets, session, code, horizon=1, delay=1)
    assert found.factor[5] == pytest.approx(np.clip(found.industries.shrunken[code[5]], 0, 1))
    assert found.factor[7] == pytest.approx(np.clip(found.market.shrunken[0], 0, 1))
    assert np.isnan(found.symbols.slope[[5, 7]]).all() and np.isfinite(found.factor).all()


def test_an_industry_of_one_symbol_and_no_industry_at_all_work():
    rows, _, _ = fleet(4, symbols=1.0, num=40)
    alone = fit(rows, np.arange(40))
    unknown = fit(rows, np.full(40, -1))
    # a symbol that is its industry does not depart from it
    np.testing.assert_allclose(alone.symbols.shrunken, alone.industries.shrunken)
    assert len(unknown.industries.slope) == 0
    np.testing.assert_allclose(alone.factor, unknown.factor, atol=1e-9)


def test_too_few_sessions_or_rows_give_zero():
    rows, code, _ = fleet(5, sessions=4, num=10)
    np.testing.assert_array_equal(fit(rows, code).factor, 0)
    nothing = shrink(np.full(40, np.nan), rows[1], rows[2], rows[3], code, horizon=1, delay=1)
    np.testing.assert_array_equal(nothing.factor, 0)


def test_the_markets_slope_and_error_equal_the_slow_reference():
    (x, y, offsets, session), code, _ = fleet(6, num=20, sessions=40)
    found = shrink(x, y, offsets, session, code, horizon=5, delay=1).market
    num = 40 // 6  # blocks: too short for five of twice the reach
    block = session * num // 40
    slope = (x * y).sum() / (x * x).sum()
    scores = [(x * (y - slope * x))[block == b].sum() for b in range(num)]
    error = np.sqrt(np.square(scores).sum() * num / (num - 1)) / (x * x).sum()
    assert found.slope[0] == pytest.approx(slope) and found.standard_error[0] == pytest.approx(error)
    believed = max(0, 1 - (error / slope) ** 2)
    assert found.strength[0] == pytest.approx(believed)
    assert found.shrunken[0] == pytest.approx(believed * slope)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(12)), st.floats(0.01, 100))
def test_neither_order_nor_unit_matters(seed, order, unit):
    (x, y, offsets, session), code, _ = fleet(seed, symbols=1.0, num=12, groups=3)
    found = shrink(x, y, offsets, session, code, horizon=1, delay=1)
    assert ((found.factor >= 0) & (found.factor <= 1)).all()
    rows = np.concatenate([np.arange(offsets[s], offsets[s + 1]) for s in order])
    moved = shrink(
        x[rows] * unit, y[rows] * unit, offsets, session[rows], code[list(order)], horizon=1, delay=1
    )
    np.testing.assert_allclose(moved.factor, found.factor[list(order)], atol=1e-8)


def test_shapes_that_do_not_fit_are_refused():
    (x, y, offsets, session), code, _ = fleet(0, num=4)
    with pytest.raises(UsageError, match="industry"):
        shrink(x, y, offsets, session, code[:-1], horizon=1, delay=1)
    with pytest.raises(UsageError, match="outcomes"):
        shrink(x, y[:-1], offsets, session, code, horizon=1, delay=1)
