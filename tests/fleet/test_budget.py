"""Plans: what fits, who comes first, how many workers, and what people type."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.core.errors import ResourceError, UsageError
from barcast.fleet.budget import UNIVERSAL, Candidates, assign, make_plan, only_measured
from barcast.fleet.calibrate import CostModel, Line, Measured
from barcast.fleet.limits import Limits, num_workers, parse_size, size_text
from barcast.fleet.queue import Queue

MB = 1 << 20


@pytest.mark.parametrize(
    ("text", "size"), [("8G", 8 << 30), ("800M", 800 << 20), ("1.5g", 3 << 29), ("2GB", 2 << 30), ("4MiB", 4 << 20), ("64k", 65536)]
)  # fmt: skip
def test_sizes(text, size):
    assert parse_size(text, "--max-memory") == size
    assert parse_size(size_text(size), "--max-memory") == size


@pytest.mark.parametrize("text", ["", "8", "G", "0G", "-1G", "8X", "1.2.3G"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match=r"--max-memory .* is no size"):
        parse_size(text, "--max-memory")


@st.composite
def problems(draw):
    num_rungs, num = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    steps = np.array([[draw(st.floats(0.1, 3)) for _ in range(num)] for _ in range(num_rungs)])
    top = np.array([draw(st.integers(UNIVERSAL, num_rungs - 1)) for _ in range(num)])
    order = np.array(draw(st.permutations(range(num))))
    return np.cumsum(steps, axis=0), top, order, draw(st.floats(0, 40))


@settings(max_examples=300, deadline=None)
@given(problems())
def test_an_assignment_keeps_its_promises(problem):
    cost, top, order, capacity = problem
    rung = assign(cost, top, order, capacity)
    total = sum(cost[rung[i], i] for i in range(len(top)) if rung[i] >= 0)
    assert total <= capacity + 1e-9
    assert np.all(rung <= top)
    able = [i for i in order if top[i] >= 0]
    if sum(cost[0, i] for i in able) > capacity:  # not even the lightest fits all: most valuable first
        left = capacity
        for i in able:
            assert rung[i] == (0 if cost[0, i] <= left else UNIVERSAL)
            left -= cost[0, i] if rung[i] == 0 else 0
        return
    bases = [b for b in range(len(cost)) if sum(cost[min(top[i], b), i] for i in able) <= capacity]
    assert all(rung[i] >= min(top[i], bases[-1]) for i in able)


def test_upgrades_go_to_the_most_valuable_and_leave_a_reserve():
    cost = np.array([[1.0] * 6, [3.0] * 6, [5.0] * 6])
    rung = assign(cost, np.full(6, 2), np.array([3, 1, 0, 2, 4, 5]), 15.5)
    assert rung.tolist() == [0, 1, 0, 2, 0, 0]
    assert assign(cost, np.full(6, 2), np.arange(6), 30.0).tolist() == [2] * 6


def costs(seconds=(0.1, 1.0, 5.0), held=(200, 300, 900), per_row=0.001):
    return {
        name: CostModel(name, Line(0, each / 1000), Line(size * MB, per_row * MB), Line(10_000, 5), 0.15, 5)
        for name, each, size in zip(("extreme", "fast", "high"), seconds, held, strict=True)
    }


def market(num=100, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.integers(500, 1500, num)
    return Candidates(
        tuple(f"S{i:03d}" for i in range(num)), np.arange(num), rows, rng.permutation(num).astype(float)
    )


LADDER = ("extreme", "fast", "high")


def test_a_plan_serves_value_first_and_says_why_not():
    who = market()
    plan = make_plan(who, LADDER, costs(), Limits(workers=2, budget=100.0))
    by_value = [plan.presets[s] for s in sorted(who.symbols, key=lambda s: -who.value[who.symbols.index(s)])]
    assert plan.seconds <= 100
    assert set(by_value) == {"fast", "high"}
    assert by_value.index("fast") >= by_value.count("high") - 3  # a longer one may be passed over
    short = make_plan(who, LADDER, costs(), Limits(workers=2, budget=2.0))
    assert set(short.presets.values()) == {"extreme"}
    assert len(short.universal) + len(short.presets) == 100
    assert set(short.universal.values()) == {"no time left in the budget, not even for `extreme`"}
    text = "\n".join(short.render())
    assert "universal" in text
    assert "no time left" in text


def test_plans_are_deterministic_and_ties_go_by_name():
    who = market()
    again = np.random.default_rng(9).permutation(100)
    limits = Limits(workers=2, budget=60.0)
    first = make_plan(who, LADDER, costs(), limits)
    assert first.plain() == make_plan(who, LADDER, costs(), limits).plain()
    assert make_plan(who.only(again), LADDER, costs(), limits).presets == first.presets
    flat = Candidates(who.symbols, who.positions, who.rows, np.array([np.nan, *np.zeros(99)]))
    assert flat.order.tolist() == [*range(1, 100), 0]


def test_time_per_symbol_binds_each_symbol_alone():
    who = market()
    plan = make_plan(who, LADDER, costs(), Limits(workers=2, time_per_symbol=1.0))
    for index, symbol in enumerate(who.symbols):
        mean = who.rows[index] / 1000 * np.exp(0.15**2 / 2)
        assert plan.presets[symbol] == ("fast" if mean <= 1 else "extreme")
    none = make_plan(who, LADDER, costs(), Limits(workers=2, time_per_symbol=0.1))
    assert none.universal
    assert all("--time-per-symbol 0.1s" in reason for reason in none.universal.values())


def test_memory_decides_about_workers_and_says_the_least_that_does():
    who = market()
    small = [200 * 1.15 + 2, 300 * 1.15 + 2, 900 * 1.15 + 2]
    plan = make_plan(who, LADDER, costs(), Limits(8, max_memory=1500 * MB), base_bytes=300 * MB)
    assert set(plan.presets.values()) == {"high"}
    assert plan.num_workers == 1
    assert plan.memory_bytes <= 1500 * MB
    light = make_plan(who, LADDER, costs(), Limits(8, max_memory=1000 * MB), base_bytes=300 * MB)
    assert set(light.presets.values()) == {"fast"}
    assert light.num_workers == int(700 // small[1])
    # short of time, more workers with a lighter preset serve more symbols
    hasty = make_plan(who, LADDER, costs(), Limits(8, budget=2.5, max_memory=1500 * MB), base_bytes=300 * MB)
    assert hasty.num_workers == 5
    with pytest.raises(ResourceError, match="--max-memory 400M is too little") as refused:
        make_plan(who, LADDER, costs(), Limits(8, max_memory=400 * MB), base_bytes=300 * MB)
    least = parse_size(refused.value.todo.split()[1], "--max-memory")
    short = make_plan(who, ("extreme",), costs(), Limits(8, max_memory=least), base_bytes=300 * MB)
    assert short.num_workers == 1
    assert num_workers(Limits(3), 10**12, 10**12) == 3
    with pytest.raises(UsageError):
        Limits(workers=0)


def test_one_long_symbol_that_needs_too_much_memory_stops_nobody():
    who = market()
    rows = who.rows.copy()
    rows[7] = 2_000_000
    huge = Candidates(who.symbols, who.positions, rows, who.value)
    plan = make_plan(huge, LADDER, costs(), Limits(2, max_memory=1500 * MB), base_bytes=100 * MB)
    assert list(plan.universal) == ["S007"]
    assert "more memory than --max-memory" in plan.universal["S007"]
    assert len(plan.presets) == 99


def test_the_queue_goes_by_value_but_starts_a_long_one_before_others_idle():
    seconds = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 6.0, 1.0])
    queue = Queue(np.arange(8), 8)
    queue.set(np.zeros(8, np.int64), seconds)
    went = [queue.next(2) for _ in range(8)]
    assert went[0] == 0
    assert went.index(6) <= 2
    assert [i for i in went if i != 6] == [0, 1, 2, 3, 4, 5, 7]
    assert queue.next(2) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.1, 20), min_size=1, max_size=30), st.integers(1, 5))
def test_no_queue_idles_long_at_the_end(seconds, workers):
    times = np.array(seconds)
    queue = Queue(np.arange(len(times)), len(times))
    queue.set(np.zeros(len(times), np.int64), times)
    free = np.zeros(workers)
    seen = []
    while (index := queue.next(workers)) is not None:
        seen.append(index)
        free[np.argmin(free)] += times[index]
    assert sorted(seen) == list(range(len(times)))
    bound = max(times.sum() / workers, times.max())
    assert free.max() <= 2 * bound + 1e-9  # any order without idling (Graham, 1966)


def test_put_back_symbols_wait_for_the_next_plan():
    queue = Queue(np.array([2, 0, 1]), 3)
    queue.set(np.zeros(3, np.int64), np.ones(3))
    assert queue.next(1) == 2
    queue.put_back(2)
    assert [queue.next(1), queue.next(1), queue.next(1)] == [0, 1, None]
    assert queue.waiting.tolist() == [2]
    queue.set(np.zeros(3, np.int64), np.ones(3))
    assert queue.next(1) == 2


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        ({}, ["short", "long"]),
        ({"time_per_symbol": 1.0}, ["short"]),  # the other is longer than whoever had it within the time
        ({"time_per_symbol": 0.7}, []),  # only a shorter one had it within the time
        ({"max_memory": 1000 * MB}, ["short", "long"]),
        ({"max_memory": 720 * MB}, ["short"]),
        ({"max_memory": 400 * MB}, []),
        ({"budget": 60.0}, []),
    ],
)
def test_only_what_the_limits_allow_is_fitted_again_with_the_preset_asked_for(limits, found):
    known = [
        Measured("short", "fast", 1000, 0.2, 210 * MB, 100),
        Measured("long", "fast", 2500, 0.4, 230 * MB, 100),
        *(Measured(f"S{n}", "high", n, 75e-5 * n, 300 * MB + n * MB // 10, 100) for n in (800, 1200, 2400)),
    ]
    again = only_measured(("fast", "high"), known, Limits(**limits), base_bytes=100 * MB)
    assert [each.symbol for each in again] == found
    assert not only_measured(("fast", "high"), known[:2], Limits(**limits), base_bytes=0)  # nobody had it
