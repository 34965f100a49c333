"""A training that was made slow on purpose gets the verdict on what slows it; the numbers behind it by hand."""

import time
from dataclasses import replace

import pytest

from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.diagnosis import profile as room
from barcast.diagnosis.speed import speed_numbers
from barcast.training import step
from barcast.training.loop import fit_network
from barcast.training.networks import put_on_device
from barcast.training.precision import LossScaling
from barcast.training.sections import Timer
from barcast.windows.shards import Shards
from tests.training.test_loop import CONFIG, loss, network_for, planted

#: Seconds that a planted delay takes: many times what a step of the small network computes.
NAP = 0.05
STRETCHES = CONFIG.batch_size // CONFIG.stretch_length


def delayed(function):
    def late(*arguments, **named):
        time.sleep(NAP)
        return function(*arguments, **named)

    return late


def loss_of_a_slow_device(prediction, target, num_labels):
    """Twice the batch takes twice as long: neither the data nor what a step costs whatever its size."""
    time.sleep(NAP * len(prediction) / STRETCHES)
    return loss(prediction, target, num_labels)


@pytest.fixture
def profiled(tmp_path, monkeypatch):
    """Trains a little and returns the profile, with no settings tried but the present one and half the batch."""
    real = room.settings_to_try
    monkeypatch.setattr(room, "settings_to_try", lambda *asked: real(*asked)[:2])

    def made(slow_loss=loss, shard_rows=0):
        data, score = planted()
        config = replace(CONFIG, threads=1, epochs=1, evaluations_per_epoch=1)
        data = put_on_device(data, config, shard_rows)
        timer, network, run = Timer(), network_for(), RunFolder(tmp_path)
        fit_network(network, data, config, slow_loss, score, run, Progress(False), sections=timer)
        room.write_profile(run, network, data, config, slow_loss, timer, 1, Progress(False))
        return run.read("profile.json")

    return made


def a_step(found):
    """Mean seconds of each section of a step."""
    return {line["name"]: line["step_mean"] for line in found["sections"] if "step_mean" in line}


def test_batches_that_are_slow_to_cut_out_bind_by_data(profiled, monkeypatch):
    monkeypatch.setattr(step, "gather_stretches", delayed(step.gather_stretches))
    found = profiled()
    spent = a_step(found)
    assert spent["gather"] >= NAP > spent["transfer"]
    assert found["verdict"]["kind"] == "bound by data"
    assert found["numbers"]["data_share"] > 0.5


def test_shards_that_are_slow_to_come_are_transfer_and_bind_by_data(profiled, monkeypatch):
    monkeypatch.setattr(Shards, "place", delayed(Shards.place))
    found = profiled(shard_rows=600)
    spent = a_step(found)
    assert spent["transfer"] >= NAP > spent["gather"]
    assert found["verdict"]["kind"] == "bound by data"


def test_what_each_step_costs_whatever_its_size_binds_by_launches(profiled, monkeypatch):
    monkeypatch.setattr(LossScaling, "update", delayed(LossScaling.update))
    found = profiled()
    assert a_step(found)["optimizer"] >= NAP
    assert found["verdict"]["kind"] == "bound by launches"
    assert found["numbers"]["fixed_share"] > 0.5 > found["numbers"]["data_share"]


def test_what_grows_with_the_batch_binds_by_the_device(profiled):
    found = profiled(loss_of_a_slow_device)
    assert found["verdict"]["kind"] in ("bound by arithmetic", "bound by memory")
    assert found["numbers"]["fixed_share"] < 0.5


def sections(**seconds):
    return [{"name": name, "step_mean": spent} for name, spent in seconds.items()]


def test_numbers_by_hand():
    parts = sections(gather=0.002, transfer=0.001, forward=0.003, backward=0.003, optimizer=0.001)
    parts.append({"name": "evaluation", "seconds": 9.0})  # beside the steps: no part of one
    work = {"flops": 4e6, "bytes": 3e6, "peak_flops": 1e9, "peak_bytes": 2e9}
    now, half = {"name": "now", "step_seconds": 0.01}, {"name": "half the batch", "step_seconds": 0.008}
    # 8 of 10 ms for half the labels: 6 ms whatever the batch, 4 ms by its labels
    assert speed_numbers(parts, [now, half], work) == pytest.approx(
        {"data_share": 0.3, "fixed_share": 0.6, "arithmetic_share": 0.4, "bandwidth_share": 0.15}
    )
    other = {"name": "twice the batch", "step_seconds": 0.02}
    assert speed_numbers(parts, [now, other], work)["fixed_share"] is None


@pytest.mark.parametrize(("half", "fixed"), [(0.01, 1.0), (0.013, 1.0), (0.005, 0.0), (0.004, 0.0)])
def test_the_fixed_part_of_a_step_is_a_share_whatever_the_noise(half, fixed):
    trials = [{"name": "now", "step_seconds": 0.01}, {"name": "half the batch", "step_seconds": half}]
    work = dict.fromkeys(("flops", "bytes", "peak_flops", "peak_bytes"), 1.0)
    found = speed_numbers(sections(gather=0.0, transfer=0.0, forward=1.0), trials, work)
    assert found["fixed_share"] == fixed and found["data_share"] == 0.0
