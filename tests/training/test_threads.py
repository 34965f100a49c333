"""Choosing the number of threads, with a clock and a machine that are made up."""

import itertools

import pytest
import torch

from barcast.training.threads import NUM_ROUNDS, choose_threads


class Machine:
    """A step takes what it takes with so many threads, times what a busy moment adds."""

    def __init__(self, seconds, busy=()):
        self.seconds, self.busy, self.now, self.steps = seconds, iter(busy), 0.0, []

    def step(self, threads):
        self.steps.append(threads)
        self.now += self.seconds[threads] * next(self.busy, 1.0)

    def chosen(self):
        return choose_threads(self.step, clock=lambda: self.now)


@pytest.fixture
def four_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        pytest.param({1: 1.0, 2: 0.6, 4: 0.4}, 4, id="all help"),
        pytest.param({1: 1.0, 2: 0.5, 4: 0.9}, 2, id="half of them"),
        pytest.param({1: 0.3, 2: 0.6, 4: 1.2}, 1, id="they only wait for each other"),
        pytest.param({1: 1.0, 2: 0.98, 4: 0.99}, 4, id="no clear difference"),
    ],
)
def test_the_fastest_number_is_chosen(four_threads, seconds, wanted):
    assert Machine(seconds).chosen() == wanted


@pytest.mark.parametrize("struck", range(3, 3 + 3 * NUM_ROUNDS))
def test_one_busy_moment_changes_nothing(four_threads, struck):
    busy = [1.0] * struck + [8.0]
    assert Machine({1: 1.0, 2: 0.6, 4: 0.4}, busy).chosen() == 4


def test_a_machine_that_is_busy_for_a_while_strikes_all_alike(four_threads):
    busy = itertools.chain([1.0] * 3, [6.0] * 6)
    assert Machine({1: 1.0, 2: 0.6, 4: 0.4}, busy).chosen() == 4


def test_slow_steps_are_not_repeated(four_threads):
    machine = Machine({1: 90.0, 2: 50.0, 4: 30.0})
    assert machine.chosen() == 4
    assert machine.steps == [4, 2, 1] * 2


def test_a_single_core_has_nothing_to_choose(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    machine = Machine({1: 1.0})
    assert machine.chosen() == 1
    assert not machine.steps
