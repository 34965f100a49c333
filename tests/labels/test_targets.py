"""Every registered target under truncation, and each against a slow reading of its rule."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from barcast.core.errors import UsageError
from barcast.labels import (
    TARGETS,
    LabelSpec,
    TargetSpec,
    build_target,
    forward_labels,
    trailing_volatility,
)
from barcast.labels.targets import register_target
from tests.conftest import make_bars
from tests.labels.builders import bars_from_presence, ragged_bars

#: Small enough for drawn bars: three symbols make a session, ten bars a volatility.
SMALL = {"min_symbols": 3, "volatility_bars": 12}
SETTINGS = {
    "return": [{}],
    "rank": [{}],
    "volatility_scaled": [{}],
    "direction": [
        {},
        {"flat": "keep", "up": 0.02, "down": 0.01},
        {"flat": "drop", "up": 0.5, "down": 0.5, "unit": "volatility"},
        {"flat": "as_down", "up": 0.0055, "down": 0.005, "unit": "simple_return"},
    ],
}
CASES = [TargetSpec(name=name, **SMALL, **options) for name in TARGETS for options in SETTINGS[name]]
LABELS = LabelSpec(horizons=(1, 4), max_wait=3)


def target_id(spec):
    return f"{spec.name}-{spec.flat}-{spec.unit}"


def test_every_registered_target_has_its_settings_here():
    assert set(SETTINGS) == set(TARGETS)


@pytest.mark.parametrize("spec", CASES, ids=target_id)
@settings(max_examples=30, deadline=None)
@given(bars=ragged_bars(max_symbols=8), seed=st.integers(0, 99))
def test_a_target_known_by_a_cutoff_is_the_same_from_history_cut_there(spec, bars, seed):
    rng = np.random.default_rng(seed)
    train, members = rng.random(len(bars)) < 0.7, rng.random(len(bars)) < 0.8
    full = build_target(spec, bars, forward_labels(bars, LABELS), train=train, members=members)
    for cutoff in range(len(bars.calendar)):
        before = bars.session <= cutoff
        history = bars.until(cutoff)
        cut = build_target(
            spec, history, forward_labels(history, LABELS), train=train[before], members=members[before]
        )
        known = full.mask[before] & (full.known_at[before] <= cutoff)
        np.testing.assert_array_equal(cut.value[known], full.value[before][known])
        np.testing.assert_array_equal(cut.known_at[known], full.known_at[before][known])


@pytest.mark.parametrize("spec", CASES, ids=target_id)
def test_a_target_has_a_date_exactly_where_it_has_a_value(spec):
    bars = make_bars((120, 100, 80, 40, 15), holes=((0, 50, 80), (1, 60, 61)))
    target = build_target(spec, bars, forward_labels(bars, LABELS))
    np.testing.assert_array_equal(target.mask, np.isfinite(target.value))
    assert target.value.shape == (len(bars), 2)
    assert target.mask.any(axis=0).all()
    if spec.name == "direction":
        classes = np.unique(target.value[target.mask])
        assert set(classes) <= set(range(3 if spec.flat == "keep" else 2))


def naive_ranks(session, y, member, min_symbols):
    """Average ranks among the members of a session, by counting; then mean 0 and variance 1 over members."""
    ranks = np.full(len(y), np.nan)
    for day in np.unique(session[np.isfinite(y)]):
        rows = np.flatnonzero((session == day) & np.isfinite(y))
        others = y[rows[member[rows]]]
        if len(others) < min_symbols:
            continue
        place = np.array([(others < y[row]).sum() + ((others == y[row]).sum() + 1) / 2 for row in rows])
        of_members = place[member[rows]]
        if of_members.std() > 0:
            ranks[rows] = (place - of_members.mean()) / of_members.std()
    return ranks


@settings(max_examples=60, deadline=None)
@given(ragged_bars(max_symbols=9), st.integers(0, 99))
def test_ranks_agree_with_counting(bars, seed):
    labels = forward_labels(bars, LABELS)
    members = np.random.default_rng(seed).random(len(bars)) < 0.8
    target = build_target(TargetSpec(name="rank", **SMALL), bars, labels, members=members)
    for column in range(2):
        punctual = members & ~labels.late[:, column] & ~labels.terminal[:, column]
        expected = naive_ranks(bars.session, labels.y[:, column], punctual, 3)
        np.testing.assert_allclose(target.value[:, column], expected, atol=1e-12)


def test_ranks_have_variance_one_share_ties_and_need_thirty_symbols():
    closes = np.ones((31, 8))
    closes[:, 4:] = np.r_[np.arange(1, 30), 29, 29][:, None]  # three symbols tie at the top
    bars = bars_from_presence(np.ones((31, 8), bool), closes=closes)
    labels = forward_labels(bars, LabelSpec(horizons=(3,)))
    value = build_target(TargetSpec(), bars, labels).value[bars.session == 1, 0]  # enters at 2, leaves at 5
    assert value.mean() == pytest.approx(0, abs=1e-12)
    assert value.std() == pytest.approx(1)
    assert value[28] == value[29] == value[30] == value.max()
    all_equal = build_target(TargetSpec(), bars, labels).value[bars.session == 4, 0]
    assert np.isnan(all_equal).all()
    fewer = bars.take(bars.symbol_of_row < 29)
    assert np.isnan(build_target(TargetSpec(), fewer, forward_labels(fewer)).value).all()


def test_a_late_label_is_ranked_but_moves_nobody():
    rng = np.random.default_rng(1)
    closes = np.exp(rng.normal(0, 0.1, (40, 30)))
    present = np.ones((40, 30), bool)
    present[7, 12] = False  # row of session 6 is due at 12
    bars = bars_from_presence(present, closes=closes)
    alone = bars.take(bars.symbol_of_row != 7)
    full = build_target(TargetSpec(), bars, forward_labels(bars))
    rest = build_target(TargetSpec(), alone, forward_labels(alone))
    row = 7 * 30 + 6
    assert full.known_at[row, 0] == 13
    assert np.isfinite(full.value[row, 0])
    same_session = (bars.session == 6) & (bars.symbol_of_row != 7)
    np.testing.assert_array_equal(full.value[same_session], rest.value[alone.session == 6])


def naive_volatility(bars, window):
    out = np.full(len(bars), np.nan)
    for row in range(len(bars)):
        first = max(bars.life_start[row], row - window)
        returns = np.diff(np.log(bars.close[first : row + 1]))
        if len(returns) >= 10:
            out[row] = np.sqrt(np.mean(returns**2))
    return out


def test_trailing_volatility_agrees_with_a_slice_per_row_and_restarts_after_a_long_hole():
    bars = make_bars((150, 90, 21, 9), holes=((0, 40, 80), (1, 100, 104)))
    for window in (12, 20):
        found = trailing_volatility(bars, window)
        np.testing.assert_allclose(found, naive_volatility(bars, window), rtol=1e-12)
    assert np.isnan(found[bars.session == 85][0])


def test_volatility_scaling_divides_by_the_expected_move_and_clips():
    bars = make_bars((200,))
    labels = forward_labels(bars, LabelSpec(horizons=(1, 9)))
    value = build_target(TargetSpec(name="volatility_scaled"), bars, labels).value
    expected = labels.y / (trailing_volatility(bars)[:, None] * [1.0, 3.0])
    np.testing.assert_allclose(value, np.clip(expected, -10, 10))
    still = bars_from_presence(np.ones((1, 60), bool), closes=[[5.0] * 50 + [9.0] * 10])
    flat = build_target(TargetSpec(name="volatility_scaled"), still, forward_labels(still)).value
    assert np.isnan(flat[:45]).all()  # nothing moved: no scale
    crash = bars_from_presence(np.ones((1, 60), bool), closes=[[5.0, 5.01] * 25 + [0.01] * 10])
    assert (
        np.nanmin(build_target(TargetSpec(name="volatility_scaled"), crash, forward_labels(crash)).value)
        == -10
    )


def directions(returns, **options):
    """Classes of the given simple returns, one symbol each."""
    closes = np.ones((len(returns), 4))
    closes[:, 2:] = 1 + np.array(returns)[:, None]
    bars = bars_from_presence(np.ones(closes.shape, bool), closes=closes)
    train = options.pop("train", None)
    labels = forward_labels(bars, LabelSpec(horizons=(1,)))
    target = build_target(
        TargetSpec(name="direction", **options),
        bars,
        labels,
        train=None if train is None else np.repeat(train, 4),
    )
    return target.value[bars.session == 0, 0].tolist()


def test_direction_classes_by_flat_policy():
    moves = [-0.02, -0.005, -0.001, 0.0, 0.003, 0.02]
    assert directions(moves) == [0, 0, 0, 0, 1, 1]  # zero is down
    assert directions(moves, flat="keep", up=0.01, down=0.004) == [0, 0, 1, 1, 1, 2]
    assert directions(moves, flat="as_down", up=0.01, down=0.004) == [0, 0, 0, 0, 0, 1]


def test_dropping_flat_moves_drops_training_rows_only():
    moves = [-0.02, -0.001, 0.0, 0.003, 0.02] * 2
    train = np.array([True] * 5 + [False] * 5)
    classes = directions(moves, flat="drop", up=0.01, down=0.01, train=train)
    np.testing.assert_array_equal(classes[:5], [0, np.nan, np.nan, np.nan, 1])
    assert classes[5:] == [0, 0, 0, 1, 1]


def test_the_thresholds_of_the_acl18_set_count_simple_returns():
    moves = [-0.00499, -0.00501, 0.00549, 0.00551]
    options = {"flat": "keep", "up": 0.0055, "down": 0.005}
    assert directions(moves, unit="simple_return", **options) == [1, 0, 1, 2]
    assert directions(moves, **options) == [0, 0, 1, 1]  # log returns lie a little lower


@pytest.mark.parametrize(
    "wrong", [{"name": "tomorrow"}, {"name": "direction", "up": -0.1}, {"volatility_bars": 5}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        TargetSpec(**wrong)


def test_a_target_name_is_taken_once():
    with pytest.raises(ValueError, match="twice"):
        register_target("rank")(lambda inputs: inputs.labels.y)
