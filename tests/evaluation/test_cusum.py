"""CUSUM charts: the path, the threshold, and what does not change afterwards."""

import json
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from barcast.core.errors import UsageError
from barcast.evaluation.cusum import Cusum, block_correlation, cusum_threshold
from barcast.evaluation.skill import overlap_correlation

CHARTS = Cusum(label_sessions=6)


def slow_path(reference, watched, length, allowance):
    before = [np.mean(reference[i : i + length]) for i in range(0, len(reference) - length + 1, length)]
    after = [np.mean(watched[i : i + length]) for i in range(0, len(watched) - length + 1, length)]
    mean = math.fsum(before) / len(before)
    spread = math.sqrt(math.fsum((b - mean) ** 2 for b in before) / (len(before) - 1))
    level, path = 0.0, []
    for value in after:
        level = max(0.0, level + (mean - value) / spread - allowance)
        path.append(level)
    return path


def fallen(seed, fall, num_watched=250):
    rng = np.random.default_rng(seed)
    return rng.normal(0.05, 0.1, 300), rng.normal(0.05 - fall, 0.1, num_watched)


def test_the_path_is_that_of_page():
    reference, watched = fallen(0, 0.05)
    chart = CHARTS.chart("all", "rank_ic", reference, watched, 300)
    np.testing.assert_allclose(chart.path, slow_path(reference, watched, 12, 0.5))
    assert (chart.block_length, chart.num_reference, chart.num_watched) == (12, 25, 20)
    crossed = next(i for i, level in enumerate(chart.path) if level > chart.threshold)
    assert chart.alarm == 300 + 12 * (crossed + 1) - 1
    assert chart.known_at == chart.alarm + 6
    assert 300 <= chart.onset <= chart.alarm
    assert "fell from about session" in chart.sentence
    assert json.loads(json.dumps(chart.plain(), allow_nan=False))["alarm"] == chart.alarm


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.05, 0.1]), st.integers(0, 250))
def test_later_sessions_change_no_alarm(seed, fall, cut):
    reference, watched = fallen(seed, fall)
    whole = CHARTS.chart("all", "rank_ic", reference, watched, 300)
    then = CHARTS.chart("all", "rank_ic", reference, watched[:cut], 300)
    assert then.path == whole.path[: len(then.path)]
    if whole.alarm is not None and whole.alarm < 300 + cut:
        assert (then.alarm, then.known_at, then.onset) == (whole.alarm, whole.known_at, whole.onset)
    else:
        assert then.alarm is None


def test_thresholds_hold_their_rate_on_series_made_apart():
    rng = np.random.default_rng(5)
    for correlation, rate in [(0.0, 0.05), (0.3, 0.05), (0.1, 0.2)]:
        threshold = cusum_threshold(20, 15, correlation, 0.5, rate)
        alarms = 0
        for _ in range(1500):
            series = rng.normal(size=36)
            for t in range(1, 36):
                series[t] = correlation * series[t - 1] + math.sqrt(1 - correlation**2) * series[t]
            alarms += max(slow_path(series[1:21], series[21:], 1, 0.5)) > threshold
        assert alarms / 1500 == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / 1500))


def test_rarer_alarms_and_shared_rates_need_more():
    assert cusum_threshold(20, 15, 0.1, 0.5, 0.01) > cusum_threshold(20, 15, 0.1, 0.5, 0.05)
    assert cusum_threshold(20, 30, 0.1, 0.5, 0.05) > cusum_threshold(20, 15, 0.1, 0.5, 0.05)
    assert cusum_threshold(20, 15, 0.4, 0.5, 0.05) > cusum_threshold(20, 15, 0.1, 0.5, 0.05)
    assert CHARTS.shared_by(4).rate == CHARTS.rate / 4


def test_correlation_is_the_own_one_or_that_of_the_overlap():
    least = overlap_correlation(6, 12)
    assert block_correlation(np.tile([1.0, -1.0], 15), least) == pytest.approx(0.1)
    assert block_correlation(np.repeat([1.0, -1.0], 15), least) == pytest.approx(0.8)
    rng = np.random.default_rng(0)
    found = [block_correlation(rng.normal(size=25), 0.0) for _ in range(300)]
    assert min(found) == 0
    assert np.mean(np.array(found) > 0.05) == pytest.approx(0.4, abs=0.12)


def test_missing_sessions_do_not_count_and_missing_blocks_do_not_move():
    reference, watched = fallen(1, 0.08)
    holes = watched.copy()
    holes[24:36] = math.nan
    chart = CHARTS.chart("all", "rank_ic", reference, holes, 300)
    assert chart.num_watched == 19
    assert chart.path[2] == chart.path[1]


@pytest.mark.parametrize(
    ("reference", "watched", "reason"),
    [
        (np.zeros(20), np.ones(40), "the reference has 3 blocks of 6 sessions, at least 5 are needed"),
        (np.full(300, math.nan), np.ones(40), "the reference has 0 blocks of 12 sessions"),
        (np.full(300, 0.1), np.ones(40), "skill does not vary"),
        (np.random.default_rng(0).normal(size=300), np.ones(11), "no block of 12 sessions is complete"),
        (np.random.default_rng(0).normal(size=300), np.empty(0), "no block of 12 sessions is complete"),
    ],
)
def test_a_chart_that_cannot_be_kept_says_why(reference, watched, reason):
    chart = CHARTS.chart("bank", "gain", reference, watched, 300)
    assert reason in chart.reason
    assert chart.sentence.startswith("bank: not watched")
    assert chart.alarm is None
    assert chart.plain()["threshold"] is None


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"span": 0}, {"allowance": -1}, {"label_sessions": -1}])
def test_charts_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        Cusum(**({"label_sessions": 6} | wrong))
