"""What every registered feature must keep, run from the registry: registering a set is testing it."""

from dataclasses import replace

import numpy as np
import pytest

from barcast.features import check_causal, compute_features, feature_sets
from tests.conftest import make_bars
from tests.features.conftest import SERIES

SETS = {made.name: made for made in feature_sets()}


@pytest.fixture(params=SETS)
def made(request):
    return SETS[request.param]


def same(found, expected, names, *, tolerance=0.0):
    for j, name in enumerate(names):
        np.testing.assert_allclose(found[:, j], expected[:, j], rtol=tolerance, atol=tolerance, err_msg=name)


def test_later_bars_change_nothing(made):
    bars = make_bars((320, 200, 90), seed=21, holes=((0, 120, 150),))
    full = compute_features(bars, made)
    for cut in (40, 149, 260, 318):
        found = compute_features(bars.until(cut), made)
        same(found, full[bars.session <= cut], made.names)


def test_altered_future_changes_nothing(made):
    bars = make_bars((260, 140), seed=22)
    cut, rng = 180, np.random.default_rng(0)
    later = bars.session > cut
    altered = {
        name: np.where(later, getattr(bars, name) * rng.uniform(0.5, 2, len(bars)), getattr(bars, name))
        for name in ("open", "high", "low", "close", "volume", "close_traded")
    }
    found = compute_features(replace(bars, **altered), made)
    expected = compute_features(bars, made)
    same(found[~later], expected[~later], made.names)
    assert (found[later] != expected[later]).any(axis=0).all()  # the change was seen where it may be


def test_bars_older_than_the_warmup_change_no_bit(made):
    bars = make_bars((320, 200), seed=23)
    full = compute_features(bars, made)
    for first in (1, 37, 150):
        kept = bars.session >= first
        later = bars.take(kept)
        age = np.arange(len(later)) - later.life_start
        found = compute_features(later, made)
        for j, feature in enumerate(made.features):
            warm = age >= feature.warmup
            assert np.array_equal(found[warm, j], full[kept][warm, j]), feature.name


def test_warmup_is_exactly_the_leading_rows_without_a_value(made):
    bars = make_bars((320, 139, 138, 62, 5), seed=24, holes=((0, 150, 175),))
    values = compute_features(bars, made)
    age = np.arange(len(bars)) - bars.life_start
    for j, feature in enumerate(made.features):
        assert np.array_equal(np.isnan(values[:, j]), age < feature.warmup), feature.name


def test_a_long_hole_restarts_and_a_short_one_does_not(made):
    whole = make_bars((300,), seed=25)
    for first, last, lives in ((150, 170, 2), (150, 169, 1)):  # 21 missing sessions, 20 missing sessions
        holed = whole.take((whole.session < first) | (whole.session > last))
        assert len(holed.lives) - 1 == lives
        values = compute_features(holed, made)
        after = holed.take(holed.session > last)
        if lives == 2:
            same(values[150:], compute_features(after, made), made.names)
        else:
            assert not np.isnan(values[made.max_warmup :]).any()


def test_symbols_and_threads_do_not_touch_each_other(made):
    bars = make_bars((300, 5, 170, 1, 60), seed=26)
    together = compute_features(bars, made, num_threads=1)
    for s in range(bars.num_symbols):
        own = bars.symbol_of_row == s
        same(compute_features(bars.take(own), made), together[own], made.names)
    many = make_bars((900,) * 40, seed=27)
    assert np.array_equal(
        compute_features(many, made, num_threads=1),
        compute_features(many, made, num_threads=3),
        equal_nan=True,
    )


def test_scale_of_prices_and_volumes(made):
    bars = make_bars((300,), seed=28)
    values = compute_features(bars, made)
    names = ("open", "high", "low", "close", "close_traded")
    scaled = replace(bars, volume=bars.volume * 10, **{name: getattr(bars, name) * 3.7 for name in names})
    found = compute_features(scaled, made)
    if made.scale_free:
        same(found, values, made.names, tolerance=1e-5)  # volumes >= 1e4: the +1 in the logs is felt in 3e-6
    elif made.window_normalised:  # what is left after each window is shifted by its own last row
        same(found - found[-1], values - values[-1], made.names, tolerance=1e-5)


@pytest.mark.parametrize("kind", SERIES)
def test_never_infinite_and_missing_only_for_a_reason(made, kind):
    bars = SERIES[kind]()
    values = compute_features(bars, made)
    assert values.dtype == np.float32
    assert not np.isinf(values).any()
    age = np.arange(len(bars)) - bars.life_start
    for j, feature in enumerate(made.features):
        missing = np.isnan(values[:, j]) & (age >= feature.warmup)
        if "volume" not in made.needs_of(feature):
            assert not missing.any(), feature.name


def test_missing_volume_leaves_price_features_and_heals(made):
    bars = make_bars((300,), seed=29)
    volume = bars.volume.copy()
    volume[200] = np.nan
    values = compute_features(replace(bars, volume=volume), made)
    expected = compute_features(bars, made)
    for j, feature in enumerate(made.features):
        same_rows = np.ones(300, bool)
        if "volume" in made.needs_of(feature):
            assert np.isnan(values[200, j]), feature.name
            same_rows[200 : 200 + feature.warmup + 1] = False
        assert np.array_equal(values[same_rows, j], expected[same_rows, j], equal_nan=True), feature.name


def test_passes_the_check_that_users_run(made):
    check_causal(made, make_bars((300, 250, 40), seed=30, holes=((0, 150, 175),)))


def test_known_values_of_a_line_of_equal_steps():
    """Closes 100, 101, ... with bars one wide: values that can be worked out by hand."""
    bars = make_bars((160,), seed=31)
    close = 100.0 + np.arange(160)
    line = replace(
        bars, open=close - 0.5, high=close + 0.25, low=close - 0.75, close=close, volume=np.full(160, 1e6)
    )
    row = dict(zip(SETS["tech48"].names, compute_features(line, SETS["tech48"])[-1], strict=True))
    last = 259.0
    expected = {
        "ret_1": np.log(last / (last - 1)), "sma_5": last / (last - 2) - 1, "body": 0.5, "clv": 0.5,
        "upper_shadow": 0.25, "rsi_14": 0.5, "adx_14": 1.0, "stoch_k": 13.75 / 14.0 - 0.5, "aroon_25": 1.0,
        "cci_20": 9.5 / (0.015 * 5.0) / 100, "boll_z": 9.5 / np.std(np.arange(20), ddof=1),
        "boll_w": 4 * np.std(np.arange(20), ddof=1) / (last - 9.5), "atr_14": 1.25 / last, "dd_60": 0.0,
        "up_60": last / (last - 59) - 1, "rank_20": 0.5, "dvol_1": 0.0, "relvol_20": 0.0, "vol_z20": 0.0,
        "cmf_20": 0.5, "corr_rv_20": 0.0,
    }  # fmt: skip
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_a_price_that_stands_still_gives_zeros():
    bars = make_bars((200,), seed=32)
    still = np.full(200, 7.31)
    flat = replace(bars, open=still, high=still, low=still, close=still, volume=np.zeros(200))
    row = dict(zip(SETS["tech48"].names, compute_features(flat, SETS["tech48"])[-1], strict=True))
    not_zero = {"rsi_14": -0.5, "stoch_k": -0.5, "stoch_d": -0.5, "rank_20": 0.025}  # a ratio of 0, less 0.5
    for name, value in row.items():
        assert value == pytest.approx(not_zero.get(name, 0.0), abs=1e-9), name


def test_longest_warmup():
    assert {name: made.max_warmup for name, made in SETS.items()} == {
        "tech48": 138, "tech_close": 138, "core12": 60, "adv11": 29, "adv11_official": 29, "ohlcv5": 0,
    }  # fmt: skip


def test_no_rows_and_no_symbols():
    bars = make_bars((50, 20), seed=33)
    empty = bars.take(np.zeros(70, bool))
    assert compute_features(empty, SETS["tech48"]).shape == (0, 48)
