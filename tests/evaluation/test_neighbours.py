"""Neighbours, purity and axes against slow references and planted groups."""

import numpy as np
import pytest

from barcast.core.errors import UsageError
from barcast.evaluation.neighbours import directions, movement, nearest, principal_axes, purity

RNG = np.random.default_rng(0)


def grouped(strength, per_group=20, groups=12, width=6, seed=1):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, width)) * strength
    code = np.repeat(np.arange(groups), per_group)
    vectors = (centres[code] + rng.normal(size=(len(code), width))).astype(np.float32)
    return vectors, [f"G{one}" for one in code]


def test_nearest_equals_a_loop_over_pairs():
    vectors = (RNG.normal(size=(40, 5)) + 3).astype(np.float32)  # a shared part that must not count
    found, similar = nearest(directions(vectors), 4)
    apart = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    for row in range(40):
        cosine = [
            apart[row] @ other / (np.linalg.norm(apart[row]) * np.linalg.norm(other)) for other in apart
        ]
        order = [one for one in np.argsort(-np.array(cosine), kind="stable") if one != row][:4]
        assert found[row].tolist() == order
        np.testing.assert_allclose(similar[row], np.array(cosine)[order], atol=1e-5)
    some, _ = nearest(directions(vectors), 4, np.array([7, 3]))
    np.testing.assert_array_equal(some, found[[7, 3]])


def test_chunks_change_nothing(monkeypatch):
    units = directions(RNG.normal(size=(50, 5)).astype(np.float32))
    whole = nearest(units, 3)
    monkeypatch.setattr("barcast.evaluation.neighbours._CHUNK", 7)
    np.testing.assert_array_equal(nearest(units, 3)[0], whole[0])


@pytest.mark.parametrize("k", [0, 40])
def test_too_many_neighbours_are_refused(k):
    with pytest.raises(UsageError, match="neighbours"):
        nearest(directions(np.eye(40, dtype=np.float32)), k)


def test_planted_groups_are_found_and_noise_is_chance():
    planted = purity(*grouped(1.5), "industry", 5)
    assert planted.p_value == pytest.approx(1 / 1001) and planted.is_clear
    assert planted.low > 3 * planted.chance
    noise = [purity(*grouped(0.0, seed=seed), "industry", 5) for seed in range(8)]
    assert sum(one.is_more_than_chance for one in noise) <= 2
    for one in (planted, *noise):  # without replacement, so slightly less than a twelfth
        assert one.chance == pytest.approx(19 / 239, rel=0.1)
        assert one.chance_low < one.chance < one.chance_high
    assert np.mean([one.value for one in noise]) == pytest.approx(19 / 239, rel=0.1)


def test_p_values_of_noise_are_uniform_enough():
    found = [purity(*grouped(0.0, seed=seed, per_group=6), "g", 3).p_value for seed in range(40)]
    assert 0.35 < np.mean(found) < 0.65
    assert np.mean(np.array(found) <= 0.2) < 0.4


def test_symbols_without_a_label_are_left_out():
    vectors, labels = grouped(1.5)
    hidden = [label if place % 2 else "" for place, label in enumerate(labels)]
    found = purity(vectors, hidden, "industry", 3)
    assert found.num_symbols == 120 and found.is_clear
    with pytest.raises(UsageError, match="`industry` is known of 4 of 240"):
        purity(vectors, [*labels[:4], *[""] * 236], "industry", 3)
    with pytest.raises(UsageError, match="shuffles"):
        purity(vectors, labels, "industry", 3, num_shuffles=10)


def test_a_few_labels_have_no_interval_of_their_own():
    found = purity(*grouped(0.0, per_group=60, groups=3), "board", 5)
    assert np.isnan(found.low) and not found.is_clear


def test_movement_tells_fresh_from_trained():
    fresh = RNG.normal(0, 0.01, size=(500, 8)).astype(np.float32)
    assert not movement(fresh, 0.01).has_moved
    assert movement(fresh, 0.01).ratio == pytest.approx(1, abs=0.05)
    trained = fresh + RNG.normal(0, 0.01, size=fresh.shape).astype(np.float32)
    assert movement(trained, 0.01).has_moved


def test_axes_are_those_of_the_covariance():
    vectors = (RNG.normal(size=(300, 4)) * [5, 2, 1, 0.5] + 10).astype(np.float32)
    places, shares = principal_axes(vectors)
    variances = np.sort(np.linalg.eigvalsh(np.cov(vectors.T)))[::-1]
    np.testing.assert_allclose(places.var(axis=0, ddof=1), variances[:2], rtol=1e-4)
    np.testing.assert_allclose(shares, variances[:2] / variances.sum(), rtol=1e-4)
    assert abs(np.corrcoef(places.T)[0, 1]) < 1e-6
    np.testing.assert_array_equal(principal_axes(vectors[:, ::1])[0], places)
    one, share = principal_axes(vectors[:, :1])
    assert share.tolist() == [1.0, 0.0] and (one[:, 1] == 0).all()
