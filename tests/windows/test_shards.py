"""A panel in shards: the same windows as from the whole panel, in memory that is bounded, lives never cut."""

import numpy as np
import pytest
import torch

from barcast.core.errors import ResourceError
from barcast.windows.gather import Resident, gather_stretches, gather_windows, rows_on_device
from barcast.windows.index import cut_stretches
from barcast.windows.shards import NUM_SLOTS, Shards, bytes_per_row, check_longest, cut_lives
from tests.conftest import make_bars

LENGTHS = (90, 40, 130, 70, 20, 110, 60, 30)
MAX_ROWS = 160


def panel():
    bars = make_bars(LENGTHS)
    rng = np.random.default_rng(1)
    host = Resident(
        torch.from_numpy(rng.normal(size=(len(bars), 5)).astype(np.float32)),
        torch.from_numpy(bars.symbol_of_row.astype(np.int64) + 1),
        torch.from_numpy(bars.life_start),
        torch.from_numpy(rng.normal(size=(len(bars), 2)).astype(np.float32)),
    )
    return host, bars.lives


def test_every_life_is_in_one_shard_whole_and_no_shard_is_too_large():
    _, lives = panel()
    for epoch in range(5):
        order = np.random.default_rng(epoch).permutation(len(LENGTHS))
        cut = cut_lives(lives, order, MAX_ROWS, ("test",))
        assert sorted(np.concatenate(cut.members)) == list(range(len(LENGTHS)))
        for index, members in enumerate(cut.members):
            assert len(members)
            assert (cut.shard_of_life[members] == index).all()
            rows = [np.arange(lives[i], lives[i + 1]) + cut.shift[i] for i in members]
            assert list(np.concatenate(rows)) == list(range(sum(map(len, rows))))
            assert sum(map(len, rows)) <= MAX_ROWS


def test_windows_and_stretches_of_a_shard_are_those_of_the_whole_panel():
    host, lives = panel()
    shards = Shards(host, lives, MAX_ROWS, "cpu", seed=3)
    rng = np.random.default_rng(2)
    everything = cut_stretches(lives, np.ones(lives[-1], bool), 25)
    for epoch in (0, 1, 0):
        cut = shards.begin(epoch)
        for index in rng.permutation(len(cut.members)):  # also in an order that nothing prepared
            chosen = rng.permutation(np.flatnonzero(shards.shard_of(np.arange(lives[-1]), cut) == index))
            got = gather_windows(*_tensors(shards.place(chosen)), 15)
            want = gather_windows(host, torch.from_numpy(chosen), 15)
            assert torch.equal(got.inputs, want.inputs) and torch.equal(got.symbol, want.symbol)
            assert torch.equal(got.target, want.target)
            mine = everything.take(np.flatnonzero(shards.shard_of(everything, cut) == index))
            got = gather_stretches(*_tensors(shards.place(mine)), 15, 25)
            want = gather_stretches(host, rows_on_device(mine, "cpu"), 15, 25)
            assert torch.equal(got.inputs, want.inputs) and torch.equal(got.symbol, want.symbol)
            assert torch.equal(got.target.nan_to_num(9), want.target.nan_to_num(9))


def test_what_is_read_in_order_is_everything_once_also_between_two_training_batches():
    host, lives = panel()
    shards = Shards(host, lives, MAX_ROWS, "cpu", seed=3)
    cut = shards.begin(0)
    first = np.arange(lives[cut.members[0][0]], lives[cut.members[0][0] + 1])
    before = gather_windows(*_tensors(shards.place(first)), 10).inputs.clone()
    wanted = np.random.default_rng(0).permutation(lives[-1])[:300]
    found = np.full((300, 2), np.nan, np.float32)
    for positions, resident, local in shards.in_order(wanted):
        found[positions] = resident.target[local].numpy()
    np.testing.assert_array_equal(found, host.target[wanted].numpy())
    assert torch.equal(gather_windows(*_tensors(shards.place(first)), 10).inputs, before)


def _tensors(placed):
    return placed[0], rows_on_device(placed[1], "cpu")


def test_shards_are_drawn_anew_each_epoch_and_follow_from_seed_and_epoch():
    host, lives = panel()
    one, other = (Shards(host, lives, MAX_ROWS, "cpu", seed=seed) for seed in (3, 4))
    again = Shards(host, lives, MAX_ROWS, "cpu", seed=3)
    drawn = [one.begin(epoch).shard_of_life.tolist() for epoch in range(4)]
    assert len({tuple(each) for each in drawn}) > 1
    assert again.begin(2).shard_of_life.tolist() == drawn[2]
    assert any(other.begin(epoch).shard_of_life.tolist() != drawn[epoch] for epoch in range(4))


def test_memory_is_two_shards_whatever_is_read():
    host, lives = panel()
    shards = Shards(host, lives, MAX_ROWS, "cpu", seed=3)
    held = sum(
        tensor.untyped_storage().nbytes() for slot in shards._slots for tensor in slot.tensors.values()
    )
    assert held == shards.device_bytes == 2 * MAX_ROWS * bytes_per_row(host)
    assert bytes_per_row(host) == 4 * 5 + 4 * 2 + 8 + 8
    for _, resident, _ in shards.in_order(np.arange(lives[-1])):
        assert len(resident.inputs) <= MAX_ROWS


def test_two_seeds_read_in_turns_from_one_memory():
    host, lives = panel()
    one = Shards(host, lives, MAX_ROWS, "cpu", seed=3)
    other, alone = one.for_seed(4), Shards(host, lives, MAX_ROWS, "cpu", seed=4)
    places = {tensor.data_ptr() for slot in one._slots for tensor in slot.tensors.values()}
    for epoch in range(3):
        cuts = [shards.begin(epoch) for shards in (one, other)]
        assert cuts[1].shard_of_life.tolist() == alone.begin(epoch).shard_of_life.tolist()
        assert cuts[0].shard_of_life.tolist() != cuts[1].shard_of_life.tolist()
        for index in range(min(len(cut.members) for cut in cuts)):
            for shards, cut in zip((one, other), cuts, strict=True):
                rows = np.flatnonzero(shards.shard_of(np.arange(lives[-1]), cut) == index)
                resident, local = shards.place(rows)
                assert torch.equal(resident.inputs[local], host.inputs[rows])
                assert resident.inputs.data_ptr() in places


def test_the_least_memory_that_is_told_is_enough():
    for longest in range(101, 2000, 37):
        host = Resident(*(torch.zeros(longest, 3) for _ in range(4)))
        with pytest.raises(ResourceError) as refused:
            check_longest(host, np.array([0, longest]), 100)
        told = float(refused.value.todo.split()[1])
        assert int(told * 2**30 / (NUM_SLOTS * bytes_per_row(host))) >= longest


def test_a_life_that_no_shard_can_hold_is_refused_with_what_would_do():
    host, lives = panel()
    with pytest.raises(ResourceError, match="130 bars, but only 100 fit") as refused:
        Shards(host, lives, 100, "cpu", seed=0)
    gib = float(refused.value.todo.split()[1])
    Shards(host, lives, int(gib * 2**30 / 2 / bytes_per_row(host)), "cpu", seed=0)
