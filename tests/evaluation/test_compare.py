import dataclasses
import json
import math

import numpy as np
import polars as pl
import pytest
import scipy.stats

from barcast.evaluation import metrics
from barcast.evaluation.align import align
from barcast.evaluation.intervals import Bootstrap
from barcast.evaluation.results import (
    ABSENT,
    BETTER,
    CONSTANT,
    FEW_SESSIONS,
    ONE_CLASS,
    SAME,
    UNKNOWN,
    WORSE,
    Cost,
)
from barcast.evaluation.sealed import Openings
from tests.evaluation.panels import compare, market, table, usual

QUICK = Bootstrap(num_draws=400)


def compared(predictions, **options):
    options = {"segment": "test", "cross_sectional": True, "bootstrap": QUICK} | options
    return compare(predictions, **options)


def row_of(comparison, model, table="all"):
    return next(row for row in comparison.tables[table].rows if row.model == model)


@pytest.fixture(scope="module")
def comparison():
    return compared(usual())


def test_rows_stand_naive_first_then_ridge_then_the_others(comparison):
    assert [row.model for row in comparison.all_rows.rows] == [
        "zero", "always_up", "reversal", "ridge", "lightgbm", "lstm",
    ]  # fmt: skip
    assert [row.kind for row in comparison.all_rows.rows] == ["naive"] * 3 + ["reference"] + ["model"] * 2


def test_every_score_equals_the_metric_on_the_same_rows(comparison):
    rows = align(usual(), segment="test")
    (ridge,) = rows.of("ridge")
    y, y_hat, score = rows.y, ridge.outputs.y_hat, ridge.outputs.score
    rank_ic = metrics.rank_ic(y, score, rows.session, rows.num_sessions)
    ic = metrics.ic(y, score, rows.session, rows.num_sessions)
    expected = {
        "mae": metrics.mae(y, y_hat),
        "rmse": metrics.rmse(y, y_hat),
        "r2": metrics.r2(y, y_hat),
        "direction": metrics.direction_accuracy(y, y_hat),
        "mcc": metrics.mcc(y, y_hat),
        "up_share": float(metrics.confusion(y, y_hat).up_share),
        "auc": metrics.auc(y, score),
        "session_auc": np.nanmean(metrics.session_auc(y, score, rows.session, rows.num_sessions)),
        "ic": ic.mean(),
        "rank_ic": rank_ic.mean(),
        "icir": metrics.icir(ic),
        "rank_icir": metrics.icir(rank_ic),
    }
    found = row_of(comparison, "ridge")
    assert {name: score.value for name, score in found.scores.items()} == pytest.approx(expected)
    assert all(score.low < score.value < score.high for score in found.scores.values())
    assert found.rank_ic_t == pytest.approx(metrics.newey_west_t(rank_ic))
    assert found.num_ic_sessions == 120


def test_differences_are_paired_and_of_the_shown_scores(comparison):
    ridge, zero = row_of(comparison, "ridge"), row_of(comparison, "zero")
    for row in comparison.all_rows.rows:
        for metric, difference in row.vs_reference.items():
            expected = row.scores[metric].value - ridge.scores[metric].value
            if math.isfinite(expected):
                assert difference.value == pytest.approx(expected, abs=1e-12)
    better = row_of(comparison, "lightgbm")
    alone = better.scores["mae"].high - better.scores["mae"].low
    together = better.vs_reference["mae"].high - better.vs_reference["mae"].low
    assert together < 0.5 * alone  # what two models share cancels
    assert zero.vs_reference["rank_ic"].value == pytest.approx(-ridge.scores["rank_ic"].value)


def test_identical_models_differ_by_exactly_nothing():
    signal, y = market()
    comparison = compared(pl.concat([table("ridge", signal, y), table("twin", signal, y)]))
    for difference in row_of(comparison, "twin").vs_reference.values():
        assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
    assert comparison.all_rows.verdict.against[0].outcome == SAME


def test_order_of_rows_and_models_changes_no_bit(comparison):
    shuffled = usual().sample(fraction=1, shuffle=True, seed=3)
    assert compared(shuffled).to_json() == comparison.to_json()


def test_models_are_scored_on_common_rows_only():
    signal, y = market()
    easy = signal.copy()
    easy[np.abs(y) < 0.02] = np.nan  # answers only where the outcome is large
    comparison = compared(pl.concat([table("ridge", signal, y), table("picky", easy, y)]))
    assert row_of(comparison, "ridge").scores == row_of(comparison, "picky").scores
    assert row_of(comparison, "picky").coverage == pytest.approx((np.abs(y) >= 0.02).mean())
    assert row_of(comparison, "ridge").coverage == 1.0
    assert [note.kind for note in comparison.notes if note.kind == "coverage"]
    assert comparison.num_common == (np.abs(y) >= 0.02).sum() < comparison.num_labelled == y.size


def test_untradable_rows_are_left_out_of_the_second_table_only():
    _, y = market()
    tradable = np.ones(y.shape, bool)
    tradable[:, ::4] = False
    score = np.where(tradable, 0.0, y)  # skill only where nobody can trade
    score += 1e-4 * np.random.default_rng(99).normal(size=y.shape)
    predictions = pl.concat(
        [table("lstm", score, y, tradable=tradable), table("zero", 0 * y, y, route="naive")]
    )
    comparison = compared(predictions)
    assert row_of(comparison, "lstm").scores["rank_ic"].value > 0.3
    assert abs(row_of(comparison, "lstm", "tradable").scores["rank_ic"].value) < 0.05
    assert comparison.tradable_rows.num_rows == tradable.sum()
    assert "the answer changes" in comparison.verdict.en
    assert compared(predictions.with_columns(tradable=True)).tradable_rows is None


def test_several_seeds_are_one_row_with_mean_and_deviation(comparison):
    lstm = row_of(comparison, "lstm")
    singles = [
        row_of(compared(usual().filter((pl.col("model") != "lstm") | (pl.col("seed") == seed))), "lstm")
        for seed in (0, 1)
    ]
    assert lstm.num_seeds == 2
    for metric, score in lstm.scores.items():
        values = [single.scores[metric].value for single in singles]
        assert score.value == pytest.approx(np.mean(values))
        assert score.seed_sd == pytest.approx(np.std(values, ddof=1))
    assert math.isnan(singles[0].scores["mae"].seed_sd)


def test_a_seed_that_collapsed_counts_as_no_skill():
    signal, y = market()
    comparison = compared(pl.concat([table("m", signal, y), table("m", 0 * y, y, seed=1)]))
    alone = compared(table("m", signal, y))
    assert row_of(comparison, "m").scores["rank_ic"].value == pytest.approx(
        row_of(alone, "m").scores["rank_ic"].value / 2
    )


def test_the_zero_row_has_no_rank_ic_and_says_why(comparison):
    zero = row_of(comparison, "zero").scores
    assert math.isnan(zero["rank_ic"].value)
    assert zero["rank_ic"].flag == CONSTANT
    assert (zero["mcc"].value, zero["mcc"].flag) == (0.0, CONSTANT)
    assert zero["r2"].value == 0.0
    assert zero["auc"].value == 0.5
    up = row_of(comparison, "always_up").scores
    assert up["up_share"].value == 1.0
    assert up["direction"].value == pytest.approx(1 - zero["direction"].value)


def test_differences_skip_sessions_in_which_either_is_undefined():
    signal, y = market(60, 10)
    gaps = signal.copy()
    gaps[:30] = 7.0  # constant in half of the sessions
    comparison = compared(pl.concat([table("ridge", signal, y), table("gaps", gaps, y)]))
    difference = row_of(comparison, "gaps").vs_reference["rank_ic"]
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
    assert row_of(comparison, "gaps").num_ic_sessions == 30
    whole = [scipy.stats.spearmanr(signal[t], y[t]).statistic for t in range(60)]
    assert row_of(comparison, "ridge").scores["rank_ic"].value == pytest.approx(np.mean(whole))


def test_verdict_says_better_where_a_model_is_better():
    signal, y = market(200)
    rng = np.random.default_rng(1)
    weak = 0.003 * (signal + 6 * rng.normal(size=y.shape))
    parts = [
        table("lstm", 0.003 * signal, y),
        table("ridge", weak, y),
        table("zero", 0 * y, y, route="naive"),
    ]
    verdict = compared(pl.concat(parts)).all_rows.verdict
    assert (verdict.best, verdict.num_candidates) == ("lstm", 1)
    assert {item.opponent: item.outcome for item in verdict.against} == {"ridge": BETTER, "zero": BETTER}
    assert "Against ridge: +0." in verdict.text.en
    assert "更好，超出区间" in verdict.text.zh
    turned = pl.concat([table("lstm", weak, y), table("ridge", 0.003 * signal, y), parts[2]])
    worse = compared(turned).all_rows.verdict
    assert worse.against[0].outcome == WORSE
    assert "worse, beyond the interval" in worse.text.en


def test_the_best_of_many_useless_models_is_not_called_better():
    """Each of 12 models alone would be called better now and then; the best of them must not be."""
    called, naive_calls = 0, 0
    for repetition in range(40):
        rng = np.random.default_rng(repetition)
        y = rng.normal(size=(60, 10))
        parts = [table(f"m{i:02d}", rng.normal(size=y.shape), y) for i in range(12)]
        comparison = compared(pl.concat([*parts, table("zero", 0 * y, y, route="naive")]))
        verdict = comparison.all_rows.verdict
        called += verdict.against[0].outcome == BETTER
        naive_calls += row_of(comparison, verdict.best).scores["rank_ic"].low > 0
    assert called <= 4
    assert naive_calls > 3 * max(called, 1)


def test_the_best_naive_row_is_the_best_on_the_same_rows_or_none_at_all():
    signal, y = market()
    naive = [table("reversal", 0.1 * signal, y, route="naive"), table("zero", 0 * y, y, route="naive")]
    lstm = table("lstm", signal, y)
    assert compared(pl.concat([*naive, lstm])).all_rows.best_naive == "reversal"
    turned = [table("reversal", -0.1 * signal, y, route="naive"), naive[1]]
    assert compared(pl.concat([*turned, lstm])).all_rows.best_naive == "zero"  # worse than nothing
    alone = compared(lstm)
    assert alone.all_rows.best_naive == alone.all_rows.reference == ""
    assert "no naive row" in alone.verdict.en
    named = compared(pl.concat([table("mine", 0 * y, y, route="naive"), lstm]))
    assert row_of(named, "mine").kind == "naive"


def test_two_runs_of_ridge_leave_one_reference():
    signal, y = market()
    parts = [
        table("ridge", -signal, y, run="a"),
        table("ridge", signal, y, run="b"),
        table("lstm", signal, y),
    ]
    comparison = compared(pl.concat(parts))
    assert comparison.all_rows.reference == "ridge [b]"
    assert [row.kind for row in comparison.all_rows.rows] == ["reference", "reference", "model"]


def test_a_small_universe_has_time_series_scores_and_says_so():
    comparison = compared(usual(200, 5), cross_sectional=False)
    assert set(row_of(comparison, "lstm").scores) == {
        "mae", "rmse", "r2", "direction", "mcc", "up_share", "auc",
    }  # fmt: skip
    assert comparison.primary == comparison.all_rows.verdict.metric == "r2"
    assert "small_universe" in {note.kind for note in comparison.notes}
    assert "AUC" in comparison.verdict.en
    assert "thin_sessions" in {note.kind for note in compared(usual(50, 6)).notes}


def test_a_forecast_too_good_for_daily_returns_raises_the_leak_warning():
    signal, y = market()
    leaky = pl.concat([table("ridge", 0.001 * signal, y), table("leaky", 0.2 * y, y)])
    (note,) = [note for note in compared(leaky).notes if note.kind == "leak"]
    assert note.text.en.startswith("leaky: R² against zero of 36.00%")
    for options in ({"daily": False}, {"segment": "fit"}):
        frame = leaky.with_columns(segment=pl.lit(options.get("segment", "test")))
        assert not [note for note in compared(frame, **options).notes if note.kind == "leak"]


def test_degenerate_inputs_give_flags_not_crashes():
    signal, y = market(1, 10)
    one_session = compared(table("m", signal, y))
    score = row_of(one_session, "m").scores["rank_ic"]
    assert math.isfinite(score.value)
    assert (math.isnan(score.low), score.flag) == (True, FEW_SESSIONS)
    assert "few_sessions" in {note.kind for note in one_session.notes}
    both = compared(pl.concat([table("m", signal, y), table("ridge", -signal, y)]))
    assert both.all_rows.verdict.against[0].outcome == UNKNOWN
    rising = compared(table("m", signal, np.abs(y)))
    assert row_of(rising, "m").scores["auc"].flag == ONE_CLASS
    still = compared(table("m", np.ones((20, 8)), np.zeros((20, 8))))
    assert math.isnan(row_of(still, "m").scores["direction"].value)
    assert math.isnan(row_of(still, "m").scores["r2"].value)
    assert "No verdict" in still.verdict.en


def test_a_dead_model_is_a_row_of_nothing(comparison):
    predictions = usual()
    _, y = market()
    dead = table("dead", np.nan * y, y)
    with_dead = compared(pl.concat([predictions, dead]))
    assert with_dead.all_rows.rows[-1].model == "dead"
    assert with_dead.all_rows.verdict == comparison.all_rows.verdict
    row = row_of(with_dead, "dead")
    assert row.coverage == 0
    assert {score.flag for score in row.scores.values()} == {ABSENT}
    assert row_of(with_dead, "lstm").scores["mae"] == row_of(comparison, "lstm").scores["mae"]
    assert "no_forecast" in {note.kind for note in with_dead.notes}


def test_probabilities_and_quantiles_are_scored_where_they_exist():
    signal, y = market()
    parts = [
        table("sure", signal, y, p_up=0.5, quantiles=(-0.02, 0.0, 0.02)),
        table("ridge", signal, y, y_hat=np.nan),
    ]
    comparison = compared(pl.concat(parts), quantile_levels=(0.1, 0.5, 0.9))
    sure, ridge = row_of(comparison, "sure").scores, row_of(comparison, "ridge").scores
    assert sure["log_loss"].value == pytest.approx(math.log(2))
    assert sure["brier"].value == pytest.approx(0.25)
    assert sure["quantile_coverage"].value == pytest.approx((np.abs(y) <= 0.02).mean())
    assert sure["pinball"].low < sure["pinball"].value < sure["pinball"].high
    assert "log_loss" not in ridge
    assert ridge["mae"].flag == ABSENT
    assert math.isfinite(ridge["direction"].value)
    assert "pinball" not in row_of(compared(pl.concat(parts)), "sure").scores


def test_one_run_of_ridge_is_the_reference_and_another_is_a_row_like_any():
    """A ridge that was kept from some symbols must not be the row to beat, however well it does."""
    signal, y = market()
    parts = [table("ridge", signal, y, run="kept-from-some"), table("ridge", -signal, y, run="full")]
    comparison = compared(pl.concat([*parts, table("lstm", signal, y, run="l")]), reference="full")
    assert {row.model: row.kind for row in comparison.all_rows.rows} == {
        "ridge [full]": "reference", "ridge [kept-from-some]": "model", "lstm": "model",
    }  # fmt: skip
    assert comparison.all_rows.reference == "ridge [full]"


def test_costs_openings_and_stamps_are_carried():
    cost = Cost(train_seconds=12.0, size_bytes=3_000, predict_seconds=0.5)
    comparison = compared(usual(), costs={"lstm": cost}, openings=Openings(3, 2), survivors_only=True)
    assert row_of(comparison, "lstm").cost == cost
    assert row_of(comparison, "ridge").cost == Cost()
    assert (comparison.openings, comparison.openings_elsewhere) == (3, 2)
    texts = {note.kind: note.text for note in comparison.notes}
    assert "opened 3 times (2 of them on other versions, selections or horizons over" in texts["sealed"].en
    assert "已开启 3 次，其中 2 次" in texts["sealed"].zh
    once = {note.kind: note.text for note in compared(usual(), openings=Openings(1, 0)).notes}["sealed"]
    assert "was opened once; each look" in once.en and "其中" not in once.zh
    assert "survivors_only" in texts
    frame = usual().with_columns(segment=pl.lit("route"))
    assert not {"sealed", "in_sample"} & {note.kind for note in compared(frame, segment="route").notes}


def test_scores_on_rows_that_the_size_was_fitted_on_say_so():
    frame = usual().with_columns(segment=pl.lit("weigh"))
    (note,) = [note.text for note in compared(frame, segment="weigh").notes if note.kind == "in_sample"]
    assert "Brier and log loss are partly in-sample" in note.en and "样本内" in note.zh


def test_costs_by_run_tell_two_trainings_apart():
    signal, y = market()
    parts = [table("lstm", signal, y, run="a"), table("lstm", -signal, y, run="b")]
    comparison = compared(pl.concat(parts), costs={"a": Cost(1.0), "b": Cost(2.0), "lstm": Cost(9.0)})
    assert {row.model: row.cost.train_seconds for row in comparison.all_rows.rows} == {
        "lstm [a]": 1.0, "lstm [b]": 2.0,
    }  # fmt: skip


def test_design_effect_shows_sessions_that_move_together(comparison):
    assert row_of(comparison, "always_up").design_effect > 5
    assert row_of(comparison, "lightgbm").design_effect < 5


def test_a_comparison_is_frozen_and_saved_as_plain_data(comparison):
    with pytest.raises(dataclasses.FrozenInstanceError):
        comparison.segment = "stop"
    plain = json.loads(comparison.to_json())
    assert plain == comparison.to_plain()
    assert plain["all_rows"]["rows"][0]["scores"]["rank_ic"] == {
        "value": None, "low": None, "high": None, "seed_sd": None, "flag": "constant",
    }  # fmt: skip
    frame = comparison.to_frame()
    one = frame.filter(pl.col("model") == "lstm", pl.col("metric") == "rank_ic").row(0, named=True)
    assert one["value"] == row_of(comparison, "lstm").scores["rank_ic"].value
    assert one["vs_reference_low"] == row_of(comparison, "lstm").vs_reference["rank_ic"].low
    assert frame["value"].is_nan().sum() == 0
    assert frame.filter(pl.col("model") == "zero", pl.col("metric") == "rank_ic")["value"].null_count() == 1


def test_longer_labels_take_longer_blocks():
    short, long = (compared(usual(horizon=h)).all_rows for h in (1, 5))
    assert (short.block_length, long.block_length) == (5, 12)
