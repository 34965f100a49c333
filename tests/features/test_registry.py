"""Finding, joining and refusing feature sets."""

from dataclasses import replace

import numpy as np
import pytest

from barcast.core.errors import UsageError
from barcast.features import Feature, FeatureSet, compute_features, feature_set, feature_sets
from barcast.features.registry import register
from tests.conftest import make_bars


def small(name, *features, **more):
    return FeatureSet(name, features, "for tests", **more)


MINE = Feature("mine", "C", 0, "test", lambda close: close / 2)


def test_built_in_sets_and_their_sizes():
    assert {made.name: len(made.features) for made in feature_sets()} == {
        "tech48": 48, "tech_close": 27, "core12": 12, "adv11": 11, "adv11_official": 11, "ohlcv5": 5,
    }  # fmt: skip
    for made in feature_sets():
        for feature in made.features:
            assert feature.formula and feature.source and feature.warmup >= 0


def test_needs_are_read_from_the_code():
    assert feature_set("tech_close").needs == ("close",)
    assert feature_set("tech48").needs == ("open", "high", "low", "close", "volume")
    assert feature_set("adv11_official").needs == ("open", "high", "low", "close", "close_traded")
    tech48 = feature_set("tech48")
    by_name = {feature.name: feature for feature in tech48.features}
    assert tech48.needs_of(by_name["stoch_d"]) == ("high", "low", "close")
    assert tech48.needs_of(by_name["corr_rv_20"]) == ("close", "volume")


def test_a_taken_name_is_refused():
    with pytest.raises(UsageError, match="already a feature set called `tech48`"):
        register(small("tech48", MINE))
    with pytest.raises(UsageError, match="`mine` is taken"):
        small("twice", MINE, MINE)
    for name in ("close", "log_return"):
        with pytest.raises(UsageError, match=f"`{name}` is taken"):
            small("shadow", replace(MINE, name=name))


def test_joined_sets_hold_both():
    bars = make_bars((120,))
    joined = feature_set("adv11 + core12")
    values = compute_features(bars, joined)
    assert joined.name == "adv11+core12" and values.shape == (120, 23)
    assert np.array_equal(values[:, :11], compute_features(bars, feature_set("adv11")), equal_nan=True)
    assert np.array_equal(values[:, 11:], compute_features(bars, feature_set("core12")), equal_nan=True)
    with pytest.raises(UsageError, match="`ret_1` is taken"):
        feature_set("tech48+core12")
    with pytest.raises(UsageError, match="`ohlcv5` cannot be joined"):
        feature_set("core12+ohlcv5")


def test_a_join_never_swaps_the_inputs_of_a_feature():
    """core12's vol_ratio is made of a vol_5 that it does not show: a set with another vol_5 cannot join."""
    other = small("other", replace(MINE, name="vol_5"))
    with pytest.raises(UsageError, match="`core12` uses a column `vol_5`"):
        feature_set("core12+other", [other])
    unused = small("other", replace(MINE, name="sma_5"))
    assert feature_set("core12+other", [unused]).names[-1] == "sma_5"


def test_unknown_names():
    with pytest.raises(UsageError, match="did you mean `core12`"):
        feature_set("cor12")
    with pytest.raises(UsageError, match=r"no column is called `clsoe`[^`]*`close`"):
        _ = small("typo", Feature("typo", "", 0, "", lambda clsoe: clsoe)).needs
    circle = small("circle", Feature("a", "", 0, "", lambda b: b), Feature("b", "", 0, "", lambda a: a))
    with pytest.raises(UsageError, match="a -> b -> a is a circle"):
        compute_features(make_bars((10,)), circle)


@pytest.mark.parametrize(
    ("compute", "words"),
    (
        (lambda close: 1.0, "returned `1.0`"),
        (lambda close: close[1:], "float64 of shape"),
        (lambda close: close > 3, "bool of shape"),
        (lambda close: close.missing, "failed: AttributeError"),
    ),
)
def test_a_feature_that_fails_is_named(compute, words):
    with pytest.raises(UsageError, match=f"feature `bad` in .*test_registry.py.*{words}"):
        compute_features(make_bars((10,)), small("bad", Feature("bad", "", 0, "", compute)))


def test_what_a_feature_makes_infinite_is_missing():
    made = small("logs", Feature("log", "ln V", 0, "", lambda volume: np.log(volume)))
    values = compute_features(make_bars((10,), zero_volume=(3,)), made)
    assert np.flatnonzero(np.isnan(values[:, 0])).tolist() == [3]
