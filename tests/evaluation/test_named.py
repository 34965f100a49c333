"""Tests of every symbol, and the rate of false discoveries."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from barcast.evaluation.named import fall_p_values, name_symbols, q_values


def test_q_values_are_those_of_benjamini_and_hochberg():
    rng = np.random.default_rng(0)
    for size in (1, 2, 50, 400):
        p_value = rng.random(size) ** 2
        np.testing.assert_allclose(q_values(p_value), stats.false_discovery_control(p_value))
        holes = np.concatenate([[math.nan], p_value, [math.nan]])
        np.testing.assert_allclose(q_values(holes)[1:-1], q_values(p_value))
        assert np.isnan(q_values(holes)[[0, -1]]).all()
    assert not len(q_values(np.empty(0)))


def test_p_values_are_those_of_welch():
    rng = np.random.default_rng(1)
    before, after = rng.normal(size=(30, 25)), 2 * rng.normal(size=(30, 8)) - 0.5
    before[rng.random(before.shape) < 0.2] = math.nan
    expected = [
        stats.ttest_ind(a[np.isfinite(a)], b, equal_var=False, alternative="greater").pvalue
        for a, b in zip(before, after, strict=True)
    ]
    np.testing.assert_allclose(fall_p_values(before, after), expected)
    careful = fall_p_values(before, after, 0.2)
    assert (np.abs(careful - 0.5) <= np.abs(np.array(expected) - 0.5)).all()


def test_too_little_is_not_judged():
    rng = np.random.default_rng(2)
    before, after = rng.normal(size=(4, 20)), rng.normal(size=(4, 8))
    before[0, 4:] = math.nan
    after[1, 4:] = math.nan
    before[2], after[2] = 1.0, 0.0
    p_value = fall_p_values(before, after)
    assert np.isnan(p_value[:3]).all()
    assert 0 < p_value[3] < 1


def test_the_fallen_is_named_with_its_numbers_and_a_sentence():
    rng = np.random.default_rng(3)
    reference, since = rng.normal(0.2, 1, (20, 300)), rng.normal(0.2, 1, (20, 200))
    since[7] -= 1.2
    reference[3] = math.nan
    symbols = [f"S{i:02d}" for i in range(20)]
    naming = name_symbols(symbols, reference, since, label_sessions=2)
    assert [named.symbol for named in naming.named] == ["S07"]
    (named,) = naming.named
    assert named.before - named.since == pytest.approx(1.2, abs=0.4)
    assert named.q_value >= named.p_value
    assert named.sentence.startswith("S07: its gain over a zero forecast fell from")
    plain = json.loads(json.dumps(naming.plain(), allow_nan=False))
    assert (plain["num_judged"], plain["num_not_judged"]) == (19, 1)
    assert plain["named"][0]["symbol"] == "S07"


def test_without_sessions_nobody_is_judged():
    naming = name_symbols(["a", "b"], np.zeros((2, 50)), np.empty((2, 0)), label_sessions=6)
    assert naming.num_judged == 0
    assert naming.named == ()
