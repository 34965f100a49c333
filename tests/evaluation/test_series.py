import math

import numpy as np
import polars as pl
import pytest
import scipy.stats

from barcast.evaluation import metrics
from barcast.evaluation.align import align
from barcast.evaluation.intervals import Bootstrap, plan_blocks
from barcast.evaluation.series import (
    by_month,
    by_symbol,
    calibration_curve,
    deciles,
    model_series,
)
from tests.evaluation.panels import market, table, usual


def aligned(*parts):
    rows = align(pl.concat(parts), segment="test")
    return rows, plan_blocks(rows.num_sessions, rows.horizon, rows.delay, Bootstrap(num_draws=300))


@pytest.fixture(scope="module")
def lstm():
    signal, y = market(120, 30)
    return signal, y, *aligned(table("lstm", 0.003 * signal, y))


def test_months_average_rank_ic_and_share_the_width_of_the_whole(lstm):
    signal, y, rows, blocks = lstm
    months = by_month(rows, "lstm", blocks, cross_sectional=True)
    assert [m.month for m in months] == ["2024-01", "2024-02", "2024-03", "2024-04"]
    assert [m.num_sessions for m in months] == [31, 29, 31, 29]
    assert [m.num_rows for m in months] == [930, 870, 930, 870]
    daily = [scipy.stats.spearmanr(signal[t], y[t]).statistic for t in range(120)]
    for month, part in zip(months, np.split(daily, [31, 60, 91]), strict=True):
        assert month.scores["rank_ic"].value == pytest.approx(part.mean())
    widths = [m.scores["rank_ic"].high - m.scores["rank_ic"].low for m in months]
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(31 / 29))


def test_months_of_a_small_universe_have_time_series_scores(lstm):
    signal, y, rows, blocks = lstm
    january = by_month(rows, "lstm", blocks, cross_sectional=False)[0].scores
    outcome, score = y[:31].ravel(), 0.003 * signal[:31].ravel()
    assert january["r2"].value == pytest.approx(metrics.r2(outcome, score))
    assert january["auc"].value == pytest.approx(metrics.auc(outcome, score))
    assert january["direction"].value == pytest.approx(metrics.direction_accuracy(outcome, score))
    assert january["auc"].low < january["auc"].value < january["auc"].high


def test_intervals_of_months_cover_the_truth():
    hits = num_months = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=(120, 1)) + rng.normal(size=(120, 10))
        rows, blocks = aligned(table("m", rng.normal(size=y.shape), y))
        for month in by_month(rows, "m", blocks, cross_sectional=True):
            hits += month.scores["rank_ic"].low <= 0 <= month.scores["rank_ic"].high
            num_months += 1
    assert 0.9 <= hits / num_months <= 0.99


def test_deciles_climb_and_the_spread_is_top_minus_bottom(lstm):
    _, _, rows, blocks = lstm
    found = deciles(rows, "lstm", blocks)
    values = [score.value for score in found.returns]
    assert len(values) == 10
    assert found.num_sessions == 120
    assert scipy.stats.spearmanr(values, range(10)).statistic > 0.7
    assert found.spread.value == pytest.approx(values[-1] - values[0])
    assert 0 < found.spread.low < found.spread.value < found.spread.high
    expected = metrics.decile_returns(rows.y, rows.of("lstm")[0].outputs.score, rows.session, 120)
    np.testing.assert_allclose(values, expected.mean(axis=0))


def test_deciles_and_calibration_of_a_constant_are_undefined_not_a_crash():
    _, y = market(30, 12)
    rows, blocks = aligned(table("zero", 0 * y, y), table("shy", 0 * y + 1, y, y_hat=np.nan))
    found = deciles(rows, "zero", blocks)
    assert found.num_sessions == 0
    assert all(math.isnan(score.value) for score in found.returns)
    curve = calibration_curve(rows, "zero", blocks)
    assert math.isnan(curve.slope.value)
    assert [score.value for score in curve.y] == [pytest.approx(y.mean())]
    assert calibration_curve(rows, "shy", blocks) is None


def test_calibration_slope_holds_the_truth(lstm):
    signal, y, rows, blocks = lstm  # y follows 0.003 * signal with slope 1
    curve = calibration_curve(rows, "lstm", blocks)
    assert curve.slope.low < 1 < curve.slope.high
    assert curve.slope.value == pytest.approx(np.polyfit(0.003 * signal.ravel(), y.ravel(), 1)[0])
    assert sum(curve.count) == y.size
    table_ = metrics.calibration(rows.y, rows.of("lstm")[0].outputs.y_hat)
    np.testing.assert_allclose([score.value for score in curve.y], table_.y)
    np.testing.assert_allclose(curve.y_hat, table_.y_hat)
    half, _ = aligned(table("bold", 0.006 * signal, y))
    assert calibration_curve(half, "bold", blocks).slope.high < 1


def test_symbols_have_their_own_scores_and_nothing_where_too_short():
    signal, y = market(40, 3)
    known = np.where(np.arange(40)[:, None] < [40, 19, 40], y, np.nan)
    signal[:, 2] = 0.5
    rows, _ = aligned(table("m", 0.01 * signal, known))
    frame = by_symbol(rows, "m")
    assert frame["symbol"].to_list() == ["S000", "S001", "S002"]
    assert frame["num_rows"].to_list() == [40, 19, 40]
    first = frame.row(0, named=True)
    assert first["rank_ic_over_time"] == pytest.approx(scipy.stats.spearmanr(signal[:, 0], y[:, 0]).statistic)
    assert first["mae"] == pytest.approx(metrics.mae(y[:, 0], 0.01 * signal[:, 0]))
    assert first["r2"] == pytest.approx(metrics.r2(y[:, 0], 0.01 * signal[:, 0]))
    assert first["direction"] == pytest.approx(metrics.direction_accuracy(y[:, 0], signal[:, 0]))
    assert frame["rank_ic_over_time"].to_list()[1:] == [None, None]  # 19 rows; a constant score
    silent, _ = aligned(table("m", signal * [1, 0, 1], known))  # zero calls no direction
    assert [value is None for value in by_symbol(silent, "m")["direction"]] == [False, True, False]


def test_seeds_are_averaged():
    signal, y = market(40, 12)
    other = np.random.default_rng(9).normal(size=y.shape)
    rows, blocks = aligned(table("m", signal, y), table("m", other, y, seed=1))
    singles = [aligned(table("m", score, y))[0] for score in (signal, other)]
    one, two = (by_symbol(single, "m")["mae"] for single in singles)
    np.testing.assert_allclose(by_symbol(rows, "m")["mae"], (one + two) / 2)
    assert sum(calibration_curve(rows, "m", blocks).count) == 2 * y.size


def test_a_small_universe_has_no_deciles_and_undefined_months_are_nan():
    rows = align(usual(60, 12), segment="test")
    assert len(model_series(rows, "lstm", cross_sectional=True).symbols) == 12
    small = model_series(rows, "lstm", cross_sectional=False)
    assert small.deciles is None
    assert set(small.months[0].scores) == {"r2", "auc", "direction"}
    zero = model_series(rows, "zero", cross_sectional=True)
    assert math.isnan(zero.months[0].scores["rank_ic"].value)
