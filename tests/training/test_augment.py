"""Augmentation: right in size, blind to the future, silent where nothing is, absent from judging, repeatable."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from barcast.core.errors import UsageError
from barcast.core.workspace import Workspace
from barcast.models.draws import drawing_from
from barcast.pipeline.settings import resolve
from barcast.training.augment import augment, feature_dropout, jitter, time_warp
from barcast.training.config import AUGMENTATIONS, TrainConfig
from barcast.training.predict import predict_stop
from tests.training.test_loop import CONFIG, fit, network_for, planted

ALL = {"jitter": 0.3, "time_warp": 5, "feature_dropout": 0.2}


def samples(batch=200, length=40, features=6, seed=0):
    """Inputs with missing values, validity, padding before and after."""
    draws = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, length, features, generator=draws)
    values *= torch.rand(values.shape, generator=draws) > 0.1
    before = torch.randint(0, 15, (batch, 1), generator=draws)
    after = torch.randint(30, length + 1, (batch, 1), generator=draws)
    steps = torch.arange(length)
    inside = (steps >= before) & (steps < after)
    values *= inside[..., None]
    validity = (values != 0).float().mean(-1, keepdim=True)
    return torch.cat([values, validity], dim=-1), inside


def drawn(function, inputs, option, seed=1):
    with drawing_from(torch.Generator().manual_seed(seed)):
        return function(inputs, option)


def test_off_it_touches_and_draws_nothing():
    inputs, _ = samples()
    before, generator = torch.get_rng_state(), torch.Generator().manual_seed(1)
    own = generator.get_state()
    with drawing_from(generator):
        assert augment(inputs, TrainConfig()) is inputs
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(generator.get_state(), own)


@pytest.mark.parametrize(("name", "value"), ALL.items())
def test_each_keeps_padding_repeats_with_its_seed_and_leaves_what_it_is_given(name, value):
    inputs, inside = samples()
    given, config = inputs.clone(), TrainConfig(**{name: value})
    found = [drawn(augment, inputs, config, seed) for seed in (1, 1, 2)]
    assert torch.equal(inputs, given)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[0], inputs)
    assert not found[0][~inside].any()


def test_noise_has_its_size_and_stays_away_from_what_is_missing():
    inputs, _ = samples()
    noise = drawn(jitter, inputs, 0.3) - inputs
    there = inputs != 0
    there[..., -1] = False
    assert not noise[~there].any()
    assert float(noise[there].std()) == pytest.approx(0.3, rel=0.02)
    assert abs(float(noise[there].mean())) < 0.01


def test_a_dropped_feature_is_missing_in_its_whole_sample():
    inputs, _ = samples(batch=2000, length=30)
    found = drawn(feature_dropout, inputs, 0.2)
    had, has = (inputs != 0)[..., :-1], (found != 0)[..., :-1]
    gone = had.any(1) & ~has.any(1)
    assert float(gone.float().mean()) == pytest.approx(0.2, abs=0.01)
    kept = ~gone[:, None, :].expand_as(had)
    assert torch.equal(found[..., :-1][kept], inputs[..., :-1][kept])
    # validity is what it would have been, had these features been missing from the start
    torch.testing.assert_close(found[..., -1], has.float().mean(-1), atol=1e-6, rtol=0)


def test_a_warp_reads_whole_bars_of_the_past_in_their_order():
    inputs, inside = samples()
    found = drawn(time_warp, inputs, 7)
    lags = set()
    for sample, own, there in zip(found[:50], inputs[:50], inside[:50], strict=True):
        present = torch.flatten(torch.nonzero(there & (own[:, -1] > 0))).tolist()
        last = -1
        for step in present:
            same = [
                s for s in range(max(step - 7, present[0]), step + 1) if torch.equal(sample[step], own[s])
            ]
            assert same, f"step {step} shows no bar of its past"
            later = [s for s in same if s >= last]
            assert later, f"step {step} reads an earlier bar than the step before it"
            last = later[0]
            lags.add(step - last)
    assert lags == set(range(8))


def test_a_warp_sees_nothing_that_comes_later():
    inputs, _ = samples()
    whole = drawn(time_warp, inputs, 10)
    for known in (1, 9, 10, 11, 25, 39):
        other = inputs.clone()
        other[:, known:] = torch.randn_like(other[:, known:])
        other[:, known:, -1] = other[:, known:, -1].abs()
        assert torch.equal(drawn(time_warp, other, 10)[:, :known], whole[:, :known])


def test_judging_is_not_augmented():
    data, _ = planted()
    network = network_for()
    plain = predict_stop(network, data, CONFIG)
    changed = predict_stop(network, data, replace(CONFIG, jitter=9.0, time_warp=10, feature_dropout=0.9))
    for a, b in zip(plain, changed, strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_is_augmented_and_resumes_to_the_bit(tmp_path):
    data, score = planted(lengths=(150,) * 5)
    config = replace(CONFIG, **ALL, epochs=2, checkpoint_seconds=0.0)
    plain, _ = fit(tmp_path / "plain", data, score, replace(CONFIG, epochs=2))
    straight, _ = fit(tmp_path / "straight", data, score, config)
    calls = iter(range(100))

    def cut_off(*arguments):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return score(*arguments)

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", data, cut_off, config)
    resumed, _ = fit(tmp_path / "cut", data, score, config)
    for name, weight in straight.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    assert not torch.equal(straight.head.weight, plain.head.weight)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("jitter", -0.1, "0 or more"),
        ("time_warp", -1, "in 0 .. 10"),
        ("time_warp", 11, "in 0 .. 10"),
        ("feature_dropout", 1.0, "in [0, 1)"),
    ],
)
def test_options_beyond_their_range_are_refused(name, value, allowed):
    with pytest.raises(UsageError) as refused:
        TrainConfig(**{name: value})
    assert f"`{name}` must be {allowed}, got {value}" in str(refused.value)


def test_off_a_run_keeps_the_name_it_had_before_there_was_augmentation(tmp_path):
    place = Workspace(tmp_path)
    assert not set(AUGMENTATIONS) & set(resolve(place, "lstm").identity()["train"])
    assert resolve(place, "lstm", {"jitter": 0.1}).identity()["train"]["jitter"] == 0.1
