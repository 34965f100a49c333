"""Windows and stretches against a naive slice."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.models.network import Sizes
from barcast.models.registry import model_entries
from barcast.windows.gather import Resident, anchor, gather_stretches, gather_windows, rows_on_device
from barcast.windows.index import cut_stretches, own_bars, random_phases, shuffled
from tests.conftest import make_bars

CAUSAL = [entry for entry in model_entries() if entry.supports_stretches]


def resident_of(bars, num_features=4, num_horizons=1, seed=0):
    rng = np.random.default_rng(seed)
    rows = len(bars)
    return Resident(
        inputs=torch.from_numpy(rng.normal(size=(rows, num_features)).astype(np.float32)),
        symbol=torch.from_numpy(bars.symbol_of_row.astype(np.int64) + 1),
        life_start=torch.from_numpy(bars.life_start),
        target=torch.from_numpy(rng.normal(size=(rows, num_horizons)).astype(np.float32)),
    )


def naive_window(data, row, look_back):
    """The slice a person would write: own bars, zeros on the left."""
    start = max(int(data.life_start[row]), row - look_back + 1)
    own = data.inputs[start : row + 1].numpy()
    padded = np.zeros((look_back, own.shape[1]), np.float32)
    padded[look_back - len(own) :] = own
    return padded


@pytest.mark.parametrize("look_back", [1, 20, 60])
def test_windows_equal_the_naive_slice(look_back):
    bars = make_bars((5, 30, 60, 120, 197), holes=[(4, 100, 130)])
    data = resident_of(bars)
    rows = torch.arange(len(bars))
    got = gather_windows(data, rows, look_back)
    for row in range(len(bars)):
        np.testing.assert_array_equal(got.inputs[row].numpy(), naive_window(data, row, look_back))
    assert torch.equal(got.symbol, data.symbol)


def test_a_long_hole_restarts_the_window_and_a_short_one_does_not():
    long = make_bars((200,), holes=[(0, 100, 121)])
    short = make_bars((200,), holes=[(0, 100, 110)])
    assert own_bars(long.life_start)[100] == 1
    assert own_bars(short.life_start)[100] == 101
    window = gather_windows(resident_of(long), torch.tensor([100]), 60).inputs[0]
    assert (window[:-1] == 0).all()


@pytest.mark.parametrize("length", [5, 30, 60, 120, 197])
@pytest.mark.parametrize("phase", [0, 7, 49])
@pytest.mark.parametrize("entry", CAUSAL, ids=[entry.name for entry in CAUSAL])
def test_the_first_prediction_of_a_stretch_equals_the_window(length, phase, entry):
    bars = make_bars((length, 61))
    data = resident_of(bars)
    torch.manual_seed(0)
    network = entry.build(entry.config(hidden_size=8), Sizes(4, 2, 1)).eval()
    stretches = cut_stretches(bars.lives, np.ones(len(bars), bool), 50, np.full(2, phase))
    batch = gather_stretches(data, rows_on_device(stretches, "cpu"), 20, 50)
    with torch.no_grad():
        from_stretch = network(batch.inputs, batch.symbol, 50)[:, 0]
    real = stretches.first >= stretches.life_start
    rows = torch.from_numpy(stretches.first[real])
    with torch.no_grad():
        windows = gather_windows(data, rows, 20)
        from_window = network(windows.inputs, windows.symbol, 1)[:, 0]
    assert real.any()
    torch.testing.assert_close(from_stretch[torch.from_numpy(real)], from_window, atol=1e-6, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=5),
    stretch=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_an_epoch_visits_each_label_once(lengths, stretch, seed):
    bars = make_bars(tuple(lengths), num_sessions=100)
    wanted = np.random.default_rng(seed).random(len(bars)) < 0.6
    phases = random_phases(len(bars.lives) - 1, stretch, seed=seed, epoch=3)
    stretches = cut_stretches(bars.lives, wanted, stretch, phases)
    rows = stretches.first[:, None] + np.arange(stretch)
    inside = (rows >= stretches.life_start[:, None]) & (rows < stretches.life_stop[:, None])
    visited = rows[inside]
    assert len(visited) == len(np.unique(visited))
    assert set(np.flatnonzero(wanted)) <= set(visited)


def test_stretch_targets_are_those_of_their_rows_and_padding_has_none():
    bars = make_bars((70, 33))
    data = resident_of(bars)
    stretches = cut_stretches(bars.lives, np.ones(len(bars), bool), 25, np.array([3, 10]))
    batch = gather_stretches(data, rows_on_device(stretches, "cpu"), 10, 25)
    for position in range(len(stretches)):
        for k in range(25):
            row = stretches.first[position] + k
            got = batch.target[position, k, 0]
            if stretches.life_start[position] <= row < stretches.life_stop[position]:
                assert got == data.target[row, 0]
            else:
                assert torch.isnan(got)


def test_shuffling_depends_on_seed_and_epoch_only():
    assert (shuffled(50, seed=1, epoch=2) == shuffled(50, seed=1, epoch=2)).all()
    assert (shuffled(50, seed=1, epoch=2) != shuffled(50, seed=1, epoch=3)).any()
    assert (random_phases(50, 9, seed=1, epoch=2) != random_phases(50, 9, seed=2, epoch=2)).any()


def test_the_last_bars_of_a_window_do_not_change_with_later_rows():
    bars = make_bars((120,))
    data = resident_of(bars)
    before = gather_windows(data, torch.tensor([60]), 30).inputs.clone()
    data.inputs[61:] = 99.0
    torch.testing.assert_close(gather_windows(data, torch.tensor([60]), 30).inputs, before)


def test_anchored_windows_are_free_of_scale():
    rng = np.random.default_rng(0)
    inside = torch.ones(3, 10, dtype=torch.bool)
    inside[0, :4] = False
    logs = torch.from_numpy(rng.normal(size=(3, 10, 6)).astype(np.float32)) * inside[..., None]
    moved = (logs + torch.tensor([2.0, 2, 2, 2, 5, 0])) * inside[..., None]
    torch.testing.assert_close(anchor(logs, inside), anchor(moved, inside), atol=1e-4, rtol=1e-4)
    assert (anchor(logs, inside)[0, :4, :5] == 0).all()
    assert (anchor(logs, inside)[:, -1, 3] == 0).all()
