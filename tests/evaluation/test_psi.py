"""Population stability of inputs."""

import json
import math

import numpy as np
import pytest

from barcast.core.errors import UsageError
from barcast.evaluation.psi import InputReference, input_psi, psi

NUM_SYMBOLS, NUM_REFERENCE, NUM_SINCE, MEMORY = 20, 600, 120, 20
FEATURES = tuple("abcdef")


def panel(seed, *, persistence=0.8, shift=0.0):
    """Six features of which symbols share half, before and after; ``shift`` moves the third afterwards."""
    rng = np.random.default_rng(seed)
    num_sessions, num_features = NUM_REFERENCE + NUM_SINCE, len(FEATURES)

    def wander(shape):
        series = rng.normal(size=shape)
        for t in range(1, shape[0]):
            series[t] = persistence * series[t - 1] + math.sqrt(1 - persistence**2) * series[t]
        return series

    values = wander((num_sessions, 1, num_features)) + wander((num_sessions, NUM_SYMBOLS, num_features))
    values[NUM_REFERENCE:, :, 2] += shift
    session = np.repeat(np.arange(num_sessions, dtype=np.int32), NUM_SYMBOLS)
    inputs = values.reshape(-1, num_features).astype(np.float32)
    old = session < NUM_REFERENCE
    return (inputs[old], session[old]), (inputs[~old], session[~old])


def compared(seed, **options):
    before, since = panel(seed, **options)
    reference = InputReference.of(FEATURES, *before)
    return input_psi(reference, *since, memory=MEMORY)


def test_psi_is_the_sum_over_the_bins():
    rng = np.random.default_rng(0)
    old, new = rng.integers(0, 6, (2, 7, 12)).astype(float)
    for a, b, found in zip(old, new, psi(old, new), strict=True):
        expected = 0.0
        for x, z in zip(a, b, strict=True):
            if x or z:
                q, p = max(x, 0.5) / a.sum(), max(z, 0.5) / b.sum()
                expected += (p - q) * math.log(p / q)
        assert found == pytest.approx(expected)
    assert psi(old, 3 * old) == pytest.approx(np.zeros(7))


def test_deciles_hold_a_tenth_of_the_rows_each():
    (inputs, session), _ = panel(0)
    reference = InputReference.of(FEATURES, inputs, session)
    shares = reference.counts.sum(axis=0) / len(inputs)
    filled = shares[:, [2 * k for k in range(10)]]
    np.testing.assert_allclose(filled, 0.1, atol=1e-3)
    np.testing.assert_allclose(filled.sum(axis=1), 1)
    for feature, borders in enumerate(reference.edges):
        np.testing.assert_allclose(borders, np.quantile(inputs[:, feature], np.arange(1, 10) / 10))


@pytest.mark.parametrize("constant", [0.0, -3.0])
def test_a_feature_constant_in_training_is_seen_to_move_either_way(constant):
    rng = np.random.default_rng(1)
    session = np.repeat(np.arange(300, dtype=np.int32), 5)
    old = np.full((1500, 1), constant, np.float32)
    reference = InputReference.of(["c"], old, session)
    (same,) = input_psi(reference, old, session, memory=10)
    assert same.psi == 0 and not same.shifted
    for move in (-1e-3, 1e-3):
        moved = np.where(rng.random((1500, 1)) < 0.5, constant + move, constant).astype(np.float32)
        (shift,) = input_psi(reference, moved, session, memory=10)
        assert shift.shifted and shift.psi > 1


def test_going_missing_is_a_shift_whether_nan_or_marked_invalid():
    (inputs, session), (since, session_since) = panel(2)
    reference = InputReference.of(FEATURES, inputs, session, np.ones(inputs.shape, bool))
    gone = np.random.default_rng(0).random(len(since)) < 0.6
    holes = since.copy()
    holes[gone, 1] = math.nan
    filled, valid = np.where(np.isfinite(holes), holes, 0.0).astype(np.float32), np.isfinite(holes)
    by_nan = input_psi(reference, holes, session_since, memory=MEMORY)
    by_mark = input_psi(reference, filled, session_since, valid, memory=MEMORY)
    assert by_nan == by_mark
    assert [shift.shifted for shift in by_nan] == [False, True, False, False, False, False]
    assert by_nan[1].missing_since == pytest.approx(gone.mean())
    assert "missing in" in by_nan[1].sentence
    assert by_nan[0].missing_before == 0
    json.dumps([shift.plain() for shift in by_nan], allow_nan=False)


def test_a_feature_without_any_value_is_no_trouble():
    session = np.repeat(np.arange(300, dtype=np.int32), 5)
    nothing = np.full((1500, 1), math.nan, np.float32)
    reference = InputReference.of(["n"], nothing, session)
    (same,) = input_psi(reference, nothing, session, memory=10)
    assert (same.psi, same.shifted, same.missing_before) == (0.0, False, 1.0)
    (back,) = input_psi(reference, np.ones((1500, 1), np.float32), session, memory=10)
    assert back.shifted


def test_too_short_a_reference_calls_nothing_shifted():
    (inputs, session), (since, session_since) = panel(3, shift=5.0)
    young = session < 80
    reference = InputReference.of(FEATURES, inputs[young], session[young])
    shifts = input_psi(reference, since, session_since, memory=MEMORY)
    assert shifts[2].psi > 1
    assert not any(shift.shifted for shift in shifts)
    assert shifts[2].plain()["threshold"] is None


def test_what_cannot_be_compared_is_refused():
    (inputs, session), (since, session_since) = panel(3)
    reference = InputReference.of(FEATURES, inputs, session)
    with pytest.raises(UsageError, match="6 features"):
        input_psi(reference, since[:, :4], session_since, memory=MEMORY)
    with pytest.raises(UsageError):
        input_psi(reference, since[:0], session_since[:0], memory=MEMORY)
    with pytest.raises(UsageError, match="`memory` is 0"):
        input_psi(reference, since, session_since, memory=0)
    with pytest.raises(UsageError):
        InputReference.of(FEATURES, inputs, session, num_bins=1)


def _rates(detector, num_markets):
    """Return how often it speaks on unchanged inputs, and how often of a planted shift."""
    quiet = np.mean([bool(detector(compared(seed))) for seed in range(num_markets)])
    found = np.mean(
        [2 in detector(compared(seed, shift=2.0)) for seed in range(num_markets, num_markets + 15)]
    )
    return quiet, found


def _is_sound(rates):
    quiet, found = rates
    return quiet <= 0.10 and found >= 0.9


def test_unchanged_inputs_are_quiet_and_a_planted_shift_is_found():
    assert _is_sound(_rates(lambda shifts: [i for i, shift in enumerate(shifts) if shift.shifted], 40))
    assert not _is_sound(_rates(lambda shifts: [], 2))
    assert not _is_sound(_rates(lambda shifts: list(range(len(shifts))), 2))
    # the mark that custom would alarm at, without a look at the noise, cries wolf
    assert not _is_sound(_rates(lambda shifts: [i for i, shift in enumerate(shifts) if shift.psi > 0.1], 8))


@pytest.mark.soak
@pytest.mark.parametrize("persistence", [0.0, 0.5, 0.85])
def test_quiet_over_many_markets(persistence, soak_table):
    quiet = np.mean([any(s.shifted for s in compared(seed, persistence=persistence)) for seed in range(500)])
    soak_table.add("evaluation", f"decay: unchanged inputs of persistence {persistence} quiet", quiet <= 0.06)
    assert quiet <= 0.06, quiet
