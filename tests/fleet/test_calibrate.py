"""Cost models from few fits: planted lines, an outlier, chosen lengths, and the pace of a machine that changes."""

import numpy as np
import pytest

from barcast.fleet.calibrate import (
    Measured,
    Overhead,
    Pace,
    calibration_symbols,
    fit_cost,
    models_of,
    repeated_medians,
)

ROWS = np.array([300, 700, 1200, 1900, 2600])


def measured(seconds, preset="fast", rows=ROWS):
    return [
        Measured(f"S{row}", preset, int(row), float(each), int(2e8 + 1e4 * row), int(50_000 + 10 * row))
        for row, each in zip(rows, seconds, strict=True)
    ]


def test_a_planted_cost_is_found_exactly():
    cost = fit_cost("fast", measured(0.2 + 0.001 * ROWS))
    assert cost.seconds.at(np.array([1000])) == pytest.approx(1.2)
    assert cost.memory.at(np.array([3000])) == pytest.approx(2e8 + 3e7)
    assert cost.disk.at(np.array([3000])) == pytest.approx(80_000)
    assert cost.num_points == 5
    assert cost.expected(np.array([1000]))[0] == pytest.approx(1.2 * np.exp(cost.spread**2 / 2))


@pytest.mark.parametrize("slow", range(5))
def test_one_slow_outlier_moves_nothing_much_where_least_squares_would(slow):
    seconds = 0.2 + 0.001 * ROWS
    seconds[slow] *= 10
    found = fit_cost("fast", measured(seconds)).seconds.at(ROWS)
    assert np.all(np.abs(found / (0.2 + 0.001 * ROWS) - 1) < 0.15)
    squares = np.polyval(np.polyfit(ROWS, seconds, 1), ROWS)
    assert np.max(np.abs(squares / (0.2 + 0.001 * ROWS) - 1)) > 0.5


def test_memory_lies_above_every_worker_and_nothing_is_negative():
    rng = np.random.default_rng(1)
    for _ in range(50):
        rows, values = rng.integers(100, 3000, 6), rng.lognormal(0, 1, 6) * 1e8
        own = [
            Measured(str(i), "a", int(r), 1.0, int(v), 1)
            for i, (r, v) in enumerate(zip(rows, values, strict=True))
        ]
        assert np.all(fit_cost("a", own).memory.at(rows) >= values * (1 - 1e-9) - 1)
        line = repeated_medians(rows, values)
        assert line.base >= 0
        assert line.per_row >= 0


def test_rows_that_are_all_alike_go_through_zero_and_falling_costs_are_flat():
    alike = repeated_medians(np.array([500, 500, 500]), np.array([1.0, 2.0, 9.0]))
    assert (alike.base, alike.per_row) == (0.0, pytest.approx(2 / 500))
    assert repeated_medians(ROWS, 10 - 0.001 * ROWS).per_row == 0.0


def test_memory_of_one_length_rests_on_what_the_lightest_holds():
    one = [Measured("A", "high", 1000, 1.0, 500, 1), Measured("B", "extreme", 500, 1.0, 300, 1)]
    assert fit_cost("high", one).memory.at(np.array([1000, 3000])).tolist() == pytest.approx([500, 900])
    assert fit_cost("extreme", one[1:]).memory.at(np.array([5000]))[0] == pytest.approx(300)


def test_what_spreads_more_is_known_less_well():
    rng = np.random.default_rng(2)
    quiet = fit_cost("fast", measured((0.2 + 0.001 * ROWS) * np.exp(0.01 * rng.standard_normal(5))))
    loud = fit_cost("fast", measured((0.2 + 0.001 * ROWS) * np.array([0.4, 1.0, 2.2, 0.6, 1.7])))
    assert quiet.spread < 0.2 < loud.spread
    assert quiet.level_error < loud.level_error
    with pytest.raises(ValueError, match="no measured symbol of preset high"):
        fit_cost("high", measured(ROWS))
    assert set(models_of(("fast", "high"), measured(ROWS))) == {"fast"}


def test_calibration_symbols_spread_over_lengths_and_leave_taken_ones_alone():
    rows = np.random.default_rng(3).permutation(np.arange(100, 1100, 10))
    rank = np.argsort(np.argsort(-(rows % 70)))
    free = np.ones(100, bool)
    free[rows > 900] = False
    chosen = calibration_symbols(rows, rank, free, 5)
    assert len(set(chosen)) == 5
    assert free[chosen].all()
    assert sorted(rows[chosen]) == rows[chosen].tolist()
    groups = np.array_split(np.sort(rows[free]), 5)
    for position, group in zip(chosen, groups, strict=True):
        assert rows[position] in group
        assert rank[position] == min(rank[rows == row][0] for row in group)
    least = calibration_symbols(rows, rank, free, 5, valuable=False)
    assert not set(least) & set(chosen)
    assert calibration_symbols(rows, rank, np.zeros(100, bool)) == []


def test_the_pace_follows_a_machine_that_slows_down_in_presets_unseen_too():
    pace, rng = Pace(("extreme", "high")), np.random.default_rng(4)
    assert pace.factor("high") == 1.0
    for factor, low, high in ((1.0, 0.75, 1.3), (3.0, 2.2, 3.8), (1.0, 0.75, 1.4)):
        for _ in range(150):
            expected = rng.uniform(0.5, 2)
            pace.observe(
                "extreme", expected, factor * expected * np.exp(0.2 * rng.standard_normal() - 0.02), 0.2
            )
        assert low < pace.factor("extreme") < high
        assert low < pace.factor("high") < high
    for _ in range(30):
        pace.observe("high", 100.0, 200.0, 0.2)
    assert pace.factor("high") == pytest.approx(2.0, rel=0.15)


def test_a_loud_machine_widens_the_spread():
    pace, rng = Pace(("a",)), np.random.default_rng(5)
    for _ in range(100):
        pace.observe("a", 1.0, np.exp(0.8 * rng.standard_normal() - 0.32), 0.2)
    assert 0.45 < pace.spread(0.2) < 1.2


def test_overhead_is_weighed_by_time():
    overhead = Overhead(20.0)
    overhead.observe(0.002, 2.0)  # a worker begins
    assert overhead.factor < 1.15
    for _ in range(100_000):
        overhead.observe(0.002, 0.003)
    assert overhead.factor == pytest.approx(1.5, rel=0.02)
    quick = Overhead(20.0)
    quick.observe(5.0, 1.0)  # clocks differ
    assert quick.factor >= 1
