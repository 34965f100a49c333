"""Batches of networks: each symbol as if alone, whatever its seat, its neighbours and its start."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

from barcast.core.errors import RunError
from barcast.fleet.networks.lessons import lessons_of, symbol_seed
from barcast.fleet.networks.packing import unpack
from barcast.fleet.networks.presets import NetworkPreset
from barcast.fleet.networks.trainer import BatchTrainer
from barcast.training.config import TrainConfig
from barcast.training.step import warm_up_then_cosine
from tests.fleet.networks.builders import SMALL, as_module, market, trained, trainer_of

SHAPES = pytest.mark.parametrize(
    "options", [{}, {"hidden_size": 33}, {"kind": "gru", "num_layers": 2}], ids=["stacked", "fused", "gru"]
)


def _weights(result) -> np.ndarray:
    assert result.status == "done", result.reason
    return unpack(result.model).weights


@SHAPES
def test_a_symbol_alone_among_others_in_another_seat_and_late(options):
    data = market()
    alone = trained(data, [2], **options)[2]
    among = trained(data, [0, 1, 2, 3, 4], **options)[2]
    late = trained(data, [4, 3, 1, 0, 2], seats=2, own={4: {"epochs": 2}}, **options)[2]
    for other in (among, late):
        np.testing.assert_allclose(_weights(other), _weights(alone), rtol=1e-4, atol=1e-5)
        assert other.metrics["best_epoch"] == alone.metrics["best_epoch"]
    assert not np.allclose(_weights(trained(data, [1], **options)[1]), _weights(alone), atol=1e-2)


def _windows_by_hand(data, lessons, stretches, preset):
    """Inputs (T, B, F) and targets (K, B, 1) of stretches, bar by bar."""
    look_back, length = preset.look_back_window, preset.stretch_length
    inputs = torch.zeros(look_back - 1 + length, len(stretches), data.inputs.shape[1])
    targets = torch.full((length, len(stretches), 1), math.nan)
    for b, (first, start, stop) in enumerate(
        zip(stretches.first, stretches.life_start, stretches.life_stop, strict=True)
    ):
        for t in range(look_back - 1 + length):
            row = first - look_back + 1 + t
            if start <= row < stop:
                inputs[t, b] = torch.from_numpy(lessons.inputs[row])
                if t >= look_back - 1:
                    targets[t - look_back + 1, b] = torch.from_numpy(lessons.taught[row])
    return inputs, targets


@pytest.mark.parametrize(("kind", "width"), [("lstm", 8), ("lstm", 33), ("gru", 8)])
def test_training_is_that_of_torchs_layers_and_optimizer(kind, width):
    """Two epochs by hand: torch's layer, its AdamW on groups, its clipping, the universal schedule."""
    data, options = (
        market(),
        {
            "kind": kind,
            "dropout": 0.0,
            "epochs": 3,
            "patience": 9,
            "clip": 0.5,
            "weight_decay": 3.0,
            "hidden_size": width,
        },
    )
    batch = trainer_of(data, [1], **options)
    batch.run(0.0)
    preset = batch.members[0].preset
    lessons = lessons_of(data.one(1), preset, 7)
    shape = batch.shape
    own = {n: v[0].clone().requires_grad_() for n, v in shape.views(batch.weights).items()}
    layer = (torch.nn.LSTM if kind == "lstm" else torch.nn.GRU)(shape.num_inputs, shape.hidden_size)
    matrices = [w for w in own.values() if w.dim() > 1]
    others = [w for w in own.values() if w.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 3.0}, {"params": others, "weight_decay": 0.0}]
    )
    rates = warm_up_then_cosine(TrainConfig(lr=preset.lr))
    for epoch in range(2):
        steps = lessons.batches(epoch)
        for i, stretches in enumerate(steps):
            inputs, targets = _windows_by_hand(data, lessons, stretches, preset)
            named = {n: w for n, w in own.items() if "head" not in n}
            named.setdefault("bias_hh_l0", torch.zeros_like(named["bias_ih_l0"]))
            states = torch.func.functional_call(layer, named, (inputs,))[0][preset.look_back_window - 1 :]
            states = torch.nn.functional.layer_norm(states, (shape.hidden_size,))
            outputs = torch.nn.functional.linear(states, own["head.weight"], own["head.bias"])
            loss = (outputs - targets)[torch.isfinite(targets)].square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(own.values()), preset.clip)
            for group in optimizer.param_groups:
                group["lr"] = rates((epoch + (i + 1) / len(steps)) / 3)
            optimizer.step()
            batch._step()
            for name, view in shape.views(batch.weights).items():
                torch.testing.assert_close(view[0], own[name].detach(), rtol=1e-3, atol=1e-4)


@SHAPES
def test_the_planted_signal_is_learned(options):
    data = market((600, 600), seed=3)
    found = trained(data, [0, 1], **{**options, "epochs": 25, "look_back_window": 8})
    for result in found.values():
        assert result.metrics["stop_score"] > 0.3
        assert result.num_rows > 300 and result.seconds > 0
        curve = result.metrics["curve"]
        assert [entry["epoch"] for entry in curve] == list(range(1, len(curve) + 1))
        assert result.metrics["stop_score"] == max(entry["stop_score"] for entry in curve)


def test_a_network_stops_by_its_own_patience_and_keeps_its_best_weights():
    data = market((300, 300))
    noise = data.target.copy()
    noise[:300] = np.random.default_rng(5).normal(size=(300, 1))
    data = dataclasses.replace(data, target=noise.astype(np.float32))
    found = trained(data, [0, 1], epochs=40, patience=2, hidden_size=16)
    first, second = (found[p].metrics for p in (0, 1))
    assert first["epochs"] == first["best_epoch"] + 2 < 40
    assert second["epochs"] > first["epochs"]
    alone = trainer_of(data, [0], epochs=40, patience=2, hidden_size=16)
    alone.run(0.0)
    after: list[torch.Tensor] = []
    while not alone.finished:
        weights, standing = alone.weights, alone.seats[0].standing
        alone._step()
        if standing.epoch > len(after):
            after.append(weights[0].clone())
    best = after[first["best_epoch"] - 1]
    np.testing.assert_array_equal(_weights(alone.in_order()[0]), best.numpy())
    np.testing.assert_allclose(_weights(found[0]), best, rtol=1e-4, atol=1e-5)


@SHAPES
def test_a_refit_of_as_many_epochs_has_the_best_weights_of_the_evaluation_and_needs_no_stop(options):
    data = market((300, 300, 220))
    options = {**options, "epochs": 12, "patience": 3}
    found = trained(data, [0, 1, 2], **options)
    without = dataclasses.replace(data, segment=np.where(data.segment == 1, 3, data.segment).astype(np.int8))
    fixed = {p: {"fixed_epochs": result.metrics["best_epoch"]} for p, result in found.items()}
    again = trained(without, [0, 1, 2], own=fixed, **options)
    for p, result in again.items():
        assert result.status == "done" and result.num_rows == found[p].num_rows
        assert result.metrics["epochs"] == result.metrics["best_epoch"] == fixed[p]["fixed_epochs"]
        assert result.metrics["stop_score"] is None
        np.testing.assert_allclose(_weights(result), _weights(found[p]), rtol=1e-4, atol=1e-5)
    mixed = trained(data, [0, 1, 2], own={1: fixed[1]}, **options)
    for p, result in mixed.items():
        np.testing.assert_allclose(_weights(result), _weights(found[p]), rtol=1e-4, atol=1e-5)


def test_a_refit_whose_last_step_goes_astray_fails():
    data, wild = market((150,)), {"lr": 1e39, "stretch_length": 30, "batch_size": 600}  # one step an epoch
    (result,) = trained(data, [0], fixed_epochs=1, **wild).values()
    assert result.status == "failed" and "no numbers" in result.reason


@SHAPES
def test_what_fails_fails_alone(options):
    data = market()
    data = dataclasses.replace(data, inputs=data.inputs.copy(), target=data.target.copy())
    data.inputs[data.rows_of(0)] = 1.0  # constant
    data.target[data.rows_of(1)] = 0.0  # nothing to learn
    good = trained(data, [2], seats=1, **options)[2]
    found = trained(
        data, [0, 3, 1, 4, 2], seats=2,
        own={3: {"lr": 1e30, "clip": 1e30}, 4: {"min_rows": 500}},
        **options,
    )  # fmt: skip
    reasons = {p: (r.status, r.reason, r.todo) for p, r in found.items() if p != 2}
    assert all(status == "failed" and reason and todo for status, reason, todo in reasons.values())
    assert "no input changes" in reasons[0][1] and "is 0" in reasons[1][1]
    assert "loss became" in reasons[3][1] or "no epoch" in reasons[3][1]
    assert "needs 500" in reasons[4][1]
    np.testing.assert_allclose(_weights(found[2]), _weights(good), rtol=1e-4, atol=1e-5)


def test_inputs_that_are_no_numbers_are_named():
    data = market()
    data = dataclasses.replace(data, inputs=data.inputs.copy())
    data.inputs[data.offsets[1] + 5, 2] = np.nan
    assert "row 5" in trained(data, [1])[1].reason


@SHAPES
def test_a_batch_that_was_killed_goes_on_as_if_it_was_not(options):
    data, order = market(), [0, 1, 2, 3, 4]
    whole = trained(data, order, seats=2, **options)
    batch = trainer_of(data, order, seats=2, **options)
    killed = 0
    batch.run(0.0)
    while not batch.finished:
        for _ in range(7):
            if not batch.finished:
                batch._step()
        state = batch.state_bytes()
        batch = BatchTrainer.from_state(state, data, batch.members, "small", 7)
        killed += 1
    assert killed > 3
    for position, result in zip(order, batch.in_order(), strict=True):
        assert result.model == whole[position].model
        assert result.metrics == whole[position].metrics


def test_a_state_of_another_batch_or_a_damaged_one_is_refused():
    data = market()
    batch = trainer_of(data, [0, 1])
    batch.run(0.0)
    state = batch.state_bytes()
    other = trainer_of(data, [0, 1], epochs=9)
    changed = dataclasses.replace(data, target=data.target * 2)
    for rows, members in ((data, other.members), (changed, batch.members)):
        with pytest.raises(RunError, match="other symbols, options or rows"):
            BatchTrainer.from_state(state, rows, members, "small", 7)
    with pytest.raises(RunError, match="cannot be read"):
        BatchTrainer.from_state(state[:-100], data, batch.members, "small", 7)


def test_nothing_after_stop_reaches_a_network_and_nothing_after_fit_its_scales():
    data = market()
    before = trained(data, [0, 2])
    later = copy.deepcopy(data)
    after_stop = data.segment >= 2
    later.inputs[after_stop] += 100
    later.target[after_stop] *= -5
    for position, result in trained(later, [0, 2]).items():
        assert result.model == before[position].model
    judged = copy.deepcopy(data)
    judged.inputs[data.segment == 1] += 100
    preset = NetworkPreset(**SMALL)
    ours, theirs = (lessons_of(each.one(2), preset, 0).scaler for each in (data, judged))
    assert np.array_equal(ours.mean, theirs.mean) and np.array_equal(ours.scale, theirs.scale)


def test_inputs_are_scaled_by_fit_or_left_and_unread_ones_reach_nothing():
    data = market().one(0)
    fit = data.labelled("fit")
    scaled = lessons_of(data, NetworkPreset(**SMALL), 0)
    np.testing.assert_allclose(scaled.inputs[fit, :3].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.inputs[fit, :3].std(axis=0), 1, atol=0.02)
    assert (scaled.inputs[:, 3] == 1).all(), "a validity channel stays what it is"
    assert (lessons_of(data, NetworkPreset(**SMALL, normalise="none"), 0).inputs == data.inputs).all()
    some = lessons_of(data, NetworkPreset(**SMALL, features=(0, 3)), 0)
    assert not some.inputs[:, 1:3].any() and some.inputs[:, 0].any()
    np.testing.assert_allclose(np.sqrt(np.nanmean(scaled.taught**2)), 1, rtol=1e-5)
    assert (
        np.isfinite(scaled.judged).any()
        and not (np.isfinite(scaled.judged) & np.isfinite(scaled.taught)).any()
    )


def test_every_symbol_has_draws_of_its_own():
    data = market((200, 200))
    same = dataclasses.replace(  # two symbols with the same rows under two names
        data, inputs=np.tile(data.inputs[:200], (2, 1)), target=np.tile(data.target[:200], (2, 1))
    )
    first, second = trained(same, [0, 1], epochs=1).values()
    assert not np.allclose(_weights(first), _weights(second), atol=1e-2)
    assert len({symbol_seed(seed, name) for seed in (0, 1) for name in ("A", "B")}) == 4
    assert symbol_seed(7, "600519.SH") == 1470296273696241800


def test_every_label_teaches_once_an_epoch():
    data = market().one(1)
    preset = NetworkPreset(**SMALL)
    lessons = lessons_of(data, preset, symbol_seed(7, "S1"))
    for epoch in (0, 1):
        seen = np.zeros(len(data.inputs), int)
        batches = lessons.batches(epoch)
        for batch in batches:
            assert len(batch) <= preset.num_stretches
            for first, start, stop in zip(batch.first, batch.life_start, batch.life_stop, strict=True):
                seen[max(first, start) : min(first + preset.stretch_length, stop)] += 1
        taught = np.isfinite(lessons.taught[:, 0])
        assert (seen[taught] == 1).all()
    assert [list(b.first) for b in lessons.batches(0)] != [list(b.first) for b in lessons.batches(1)]


def test_a_packed_network_scores_on_stop_near_what_training_said():
    """Plain windows through torch's layers; stretches see more than a window, so only nearly the same."""
    data = market((600,), seed=3)
    result = trained(data, [0], epochs=25, look_back_window=8)[0]
    module, own = as_module(unpack(result.model)), data.one(0)
    rows = own.labelled("stop")
    windows = torch.from_numpy(np.stack([own.inputs[row - 7 : row + 1] for row in rows]))
    with torch.no_grad():
        outputs = module(windows)[:, 0].numpy()
    y = own.y(rows)
    assert abs(1 - ((y - outputs) ** 2).sum() / (y**2).sum() - result.metrics["stop_score"]) < 0.05


def test_plain_windows_and_several_horizons_train_too():
    data = market()
    other = np.where(np.arange(len(data.target)) % 3 == 0, np.nan, -2 * data.target[:, 0])
    data = dataclasses.replace(data, target=np.column_stack([data.target[:, 0], other]).astype(np.float32))
    for options in ({"stretch_length": 1, "batch_size": 40}, {"hidden_size": 33}):
        result = trained(data, [0], epochs=8, **options)[0]
        assert result.status == "done" and unpack(result.model).shape.num_horizons == 2
        assert result.metrics["stop_score"] > 0.1
