"""Seconds by section add up to the wall time, whoever computes the steps, and cost nothing when nobody asks."""

import threading
from dataclasses import replace

import pytest
import torch

from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.diagnosis.profile import write_profile
from barcast.diagnosis.speed import best_change, binding, speed_verdict
from barcast.diagnosis.trials import ROUNDING, Setting, _Bench, _trial, settings_to_try, try_settings
from barcast.models.lstm import LSTMConfig, UniversalLSTM
from barcast.models.network import Sizes
from barcast.training.limits import count_flops
from barcast.training.loop import fit_network
from barcast.training.sections import (
    PROFILED,
    SECTIONS,
    STEP_SECTIONS,
    WAITING,
    WARM_UP,
    Timer,
    plain_sections,
)
from barcast.windows.gather import Batch
from tests.training.test_loop import CONFIG, loss, network_for, planted


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def step(timer, clock, **parts):
    for name, seconds in parts.items():
        timer.enter(name)
        clock.now += seconds
    timer.end_step(100)


def test_sections_add_up_to_the_wall_time():
    clock = Clock()
    timer = Timer(clock=clock)
    timer.enter("other")
    clock.now += 1
    for _ in range(100):
        step(timer, clock, gather=1, transfer=2, forward=3, backward=4, optimizer=5)
        clock.now += 0.5
    timer.enter("evaluation")
    clock.now += 7
    timer.enter("saving")
    clock.now += 3
    timer.stop()
    totals = timer.totals()
    assert list(totals) == list(SECTIONS)
    assert totals == {"gather": 100, "transfer": 200, "forward": 300, "backward": 400, "optimizer": 500,
                      "evaluation": 7, "saving": 3, "other": 51}  # fmt: skip
    assert sum(totals.values()) == clock.now
    lines = {line["name"]: line for line in plain_sections(timer)}
    assert lines["backward"]["step_mean"] == lines["backward"]["step_median"] == 4
    assert len(timer.profiled) == PROFILED and timer.num_labels == 10_000


def test_a_device_is_waited_for_in_the_profiled_steps_only_and_the_rest_is_shared_out():
    clock, waits = Clock(), []
    timer = Timer(wait=lambda: waits.append(timer.num_steps), clock=clock)
    timer.enter("other")
    for _ in range(1000):
        step(timer, clock, gather=1, forward=3)
    timer.stop()
    assert max(waits) == WARM_UP + PROFILED - 1
    assert timer.totals()["gather"] == pytest.approx(1000)
    assert timer.totals()["forward"] == pytest.approx(3000)


def test_parts_computed_by_other_threads_share_the_steps_wall_time():
    clock = Clock()
    timer = Timer(clock=clock)
    timer.enter("other")
    timer.enter(WAITING)

    def work():
        timer.enter("gather")
        clock.now += 1
        timer.enter("backward")
        clock.now += 4
        timer.enter(WAITING)
        clock.now += 5  # somebody else is still at it

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    timer.enter("optimizer")
    clock.now += 2
    timer.end_step(1)
    timer.stop()
    totals = timer.totals()
    assert totals["gather"] == pytest.approx(2) and totals["backward"] == pytest.approx(8)
    assert totals["optimizer"] == 2 and sum(totals.values()) == clock.now


@pytest.mark.parametrize("threads", [1, 2])
def test_a_profiled_training_is_the_same_training_and_its_sections_fill_its_time(tmp_path, threads):
    data, score = planted()
    config, found = replace(CONFIG, threads=threads, epochs=3), {}
    for name in ("plain", "profiled"):
        (tmp_path / name).mkdir()
        timer = Timer() if name == "profiled" else None
        network, run = network_for(), RunFolder(tmp_path / name)
        result = fit_network(network, data, config, loss, score, run, Progress(False), sections=timer)
        found[name] = (network, result)
    plain, profiled = found["plain"][0], found["profiled"][0]
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, profiled.state_dict()[name]), name
    totals = timer.totals()
    assert timer.num_steps == found["profiled"][1].steps
    assert min(totals[name] for name in (*STEP_SECTIONS, "evaluation")) > 0
    training = sum(totals.values()) - totals["evaluation"]
    assert training == pytest.approx(found["profiled"][1].seconds, rel=0.3)  # other clocks at other places
    if threads > 1:
        return
    write_profile(run, profiled, data, config, loss, timer, threads, Progress(False))
    profile = run.read("profile.json")
    assert sum(line["share"] for line in profile["sections"]) == pytest.approx(1)
    assert speed_verdict(profile).plain()["found"] == profile["verdict"]["found"]
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, profiled.state_dict()[name]), f"trials changed {name}"


def test_norms_before_clipping_and_the_share_of_clipped_steps_are_recorded(tmp_path):
    data, score = planted()
    run = RunFolder(tmp_path)
    fit_network(network_for(), data, replace(CONFIG, clip=1e-4, epochs=1), loss, score, run, Progress(False))
    assert all(line["gradient_norm"] > 1e-4 and line["clipped"] == 1.0 for line in run.read_metrics())
    run.metrics.unlink()
    run.checkpoint.unlink()
    fit_network(network_for(), data, replace(CONFIG, clip=1e4, epochs=1), loss, score, run, Progress(False))
    assert all(line["clipped"] == 0.0 for line in run.read_metrics())


def test_flops_of_a_recurrent_network_are_those_of_its_weights():
    network = UniversalLSTM(LSTMConfig(hidden_size=16, num_layers=2, stock_embedding_dim=0), Sizes(4, 3, 1))
    batch = Batch(torch.ones(5, 30, 4), torch.zeros(5, dtype=torch.long), 10)
    recurrent = 6 * (4 * 16 * (4 + 16) + 4 * 16 * (16 + 16)) * 5 * 30
    head = 6 * 16 * 5 * 10
    assert count_flops(network, batch) == recurrent + head


def test_settings_are_measured_and_a_batch_that_does_not_help_is_not_recommended():
    data, _ = planted()
    settings = settings_to_try(replace(CONFIG, threads=1), 1, 2)
    names = [setting.name for setting in settings]
    assert names[:3] == ["now", "half the batch", "twice the batch"] and "2 threads" in names
    assert {s.name for s in settings if s.same_result} >= {"now", "2 threads"}
    trials = try_settings(network_for(), data, loss, settings[:3])
    assert [trial.setting.name for trial in trials] == names[:3]
    assert trials[0].gains == (1.0,) * len(trials[0].gains)
    assert all(trial.num_steps >= 6 and trial.labels_per_second > 0 for trial in trials)
    for each in trials:  # which is faster is the machine's affair; a gain compares within one round
        assert len(each.gains) == len(trials[0].gains) > 1 and min(each.gains) > 0


def test_a_gain_is_that_of_a_round_so_that_a_machine_that_slows_down_slows_all():
    now, half = (Setting(name, "", CONFIG, 1, ROUNDING, True) for name in ("now", "half the batch"))
    base = _Bench(
        now, None, iter(()), rates=[100.0, 50.0, 10.0, 40.0], seconds=[9.0, 1.0, 2.0, 3.0], num_steps=13
    )
    other = _Bench(
        half, None, iter(()), rates=[80.0, 40.0, 9.0, 20.0], seconds=[9.0, 0.5, 1.0, 2.0], num_steps=13
    )
    trial = _trial(other, base)
    assert trial.gains == (0.8, 0.8, 0.9, 0.5) and trial.gain == pytest.approx(0.8)
    assert (trial.labels_per_second, trial.step_seconds, trial.num_steps) == (30.0, 0.5, 12)
    assert best_change([each.plain() for each in (_trial(base, base), trial)]) is None
    assert best_change([each.plain() for each in (_trial(other, other), _trial(base, other))])["gain"] == 1.25


def trial(name="x", low=1.0, gain=1.0):
    return {"name": name, "gain_low": low, "gain": gain, "option": name}


def test_the_best_change_gained_in_every_round():
    lucky, steady = trial("lucky", 0.9, 3.0), trial("steady", 1.2, 1.3)
    assert best_change([trial("now"), lucky, steady])["name"] == "steady"
    assert best_change([trial("now"), lucky]) is None


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        ({"data_share": 0.5, "fixed_share": 0.9, "arithmetic_share": 0.1, "bandwidth_share": 0.1}, "data"),
        (
            {"data_share": 0.1, "fixed_share": 0.9, "arithmetic_share": 0.1, "bandwidth_share": 0.1},
            "launches",
        ),
        (
            {"data_share": 0.1, "fixed_share": 0.1, "arithmetic_share": 0.7, "bandwidth_share": 0.2},
            "arithmetic",
        ),
        ({"data_share": 0.1, "fixed_share": None, "arithmetic_share": 0.2, "bandwidth_share": 0.6}, "memory"),
    ],
)
def test_what_binds_a_step(numbers, kind):
    assert binding(numbers) == kind
