import numpy as np
import polars as pl
import pytest

from barcast.core.errors import DataError, UsageError
from barcast.evaluation.align import align
from tests.evaluation.panels import market, table, usual


def test_models_meet_on_the_rows_that_all_of_them_cover():
    signal, y = market(4, 3)
    partial = signal.copy()
    partial[0, 1] = partial[3, 2] = np.nan
    y[2, 0] = np.nan  # not yet known
    rows = align(pl.concat([table("whole", signal, y), table("partial", partial, y)]), segment="test")
    assert rows.num_labelled == 11
    assert rows.coverage == {"whole": 1.0, "partial": pytest.approx(9 / 11)}
    expected = [(t, n) for t in range(4) for n in range(3) if (t, n) not in {(0, 1), (3, 2), (2, 0)}]
    assert list(zip(rows.session.tolist(), rows.symbol.tolist(), strict=True)) == expected
    assert rows.symbols == ("S000", "S001", "S002")
    for position, (t, n) in enumerate(expected):
        assert rows.y[position] == y[t, n]
        assert {f.outputs.score[position] for f in rows.forecasts} == {signal[t, n]}


def test_order_of_rows_does_not_matter():
    predictions = usual(20, 6)
    one = align(predictions, segment="test")
    other = align(predictions.sample(fraction=1, shuffle=True, seed=1), segment="test")
    assert [(f.name, f.seed) for f in one.forecasts] == [(f.name, f.seed) for f in other.forecasts]
    np.testing.assert_array_equal(one.y, other.y)
    np.testing.assert_array_equal(one.session, other.session)
    for mine, theirs in zip(one.forecasts, other.forecasts, strict=True):
        np.testing.assert_array_equal(mine.outputs.score, theirs.outputs.score)
        np.testing.assert_array_equal(mine.outputs.y_hat, theirs.outputs.y_hat)


def test_a_model_covers_a_row_only_with_each_seed_and_with_its_expected_return():
    signal, y = market(3, 4)
    y_hat = signal.copy()
    y_hat[0, 0] = np.nan
    other = signal.copy()
    other[1, 1] = np.inf
    rows = align(
        pl.concat([table("m", signal, y, y_hat=y_hat), table("m", other, y, y_hat=y_hat, seed=1)]),
        segment="test",
    )
    assert rows.coverage == {"m": pytest.approx(10 / 12)}
    assert len(rows) == 10


def test_a_model_without_expected_returns_is_compared_by_its_score():
    signal, y = market(3, 4)
    rows = align(table("m", signal, y, y_hat=np.nan), segment="test")
    assert rows.forecasts[0].outputs.y_hat is None
    assert len(rows) == 12


def test_a_model_that_covers_nothing_does_not_empty_the_table():
    signal, y = market(3, 4)
    rows = align(pl.concat([table("m", signal, y), table("dead", np.nan * y, y)]), segment="test")
    assert rows.coverage == {"dead": 0.0, "m": 1.0}
    assert rows.names == ("m",)
    with pytest.raises(DataError, match="no score is a number"):
        align(table("dead", np.nan * y, y), segment="test")


def test_other_segments_and_labels_stay_out():
    signal, y = market(3, 4)
    both = pl.concat([table("m", signal, y, horizon=1), table("m", 2 * signal, y, horizon=5)])
    later = table("m", signal, y, segment="route")
    with pytest.raises(UsageError, match="horizon 1, 5"):
        align(both, segment="test")
    rows = align(pl.concat([both, later]), segment="test", horizon=5)
    assert rows.horizon == 5
    np.testing.assert_array_equal(rows.forecasts[0].outputs.score, 2 * signal.ravel())
    with pytest.raises(UsageError, match="no predictions with horizon 20"):
        align(both, segment="test", horizon=20)
    with pytest.raises(DataError, match="no predictions in segment `stop`"):
        align(both, segment="stop")


def test_a_forecast_given_twice_is_named():
    signal, y = market(3, 4)
    one = table("m", signal, y)
    with pytest.raises(DataError, match=r"1 forecasts twice: S002 2024-01-02"):
        align(pl.concat([one, one[6:7]]), segment="test")


def test_outcomes_that_disagree_are_named():
    signal, y = market(3, 4)
    other = y.copy()
    other[2, 3] += 0.01
    with pytest.raises(DataError, match=r"1 rows differ .* S003 2024-01-03"):
        align(pl.concat([table("a", signal, y), table("b", signal, other, run="r2")]), segment="test")
    rounded = y.astype(np.float32).astype(float)
    align(pl.concat([table("a", signal, y), table("b", signal, rounded, run="r2")]), segment="test")


def test_an_outcome_known_to_one_run_serves_all():
    signal, y = market(3, 4)
    early = y.copy()
    early[2] = np.nan
    rows = align(pl.concat([table("old", signal, early), table("new", signal, y, run="r2")]), segment="test")
    assert len(rows) == 12
    np.testing.assert_array_equal(rows.y, y.ravel())


def test_no_known_outcome_and_no_common_row_say_what_to_do():
    signal, y = market(4, 3)
    with pytest.raises(DataError, match="open the test segment"):
        align(table("m", signal, np.nan * y), segment="test")
    first, last = signal.copy(), signal.copy()
    first[2:], last[:2] = np.nan, np.nan
    with pytest.raises(DataError, match=r"a 50.0%, b 50.0%"):
        align(pl.concat([table("a", first, y), table("b", last, y)]), segment="test")


def test_runs_that_repeat_a_model_count_once_and_runs_that_differ_are_told_apart():
    signal, y = market(3, 4)
    parts = [
        table("zero", 0 * y, y, run="r1"),
        table("zero", 0 * y, y, run="r2"),
        table("lstm", signal, y, run="r1"),
        table("lstm", -signal, y, run="r2"),
    ]
    rows = align(pl.concat(parts), segment="test")
    assert rows.names == ("lstm [r1]", "lstm [r2]", "zero")
    assert {f.family for f in rows.forecasts} == {"lstm", "zero"}
    assert len(rows.of("zero")) == 1
    with pytest.raises(UsageError, match="no model `gru`"):
        rows.of("gru")


def test_taking_rows_drops_empty_sessions():
    rows = align(usual(10, 5), segment="test")
    kept = rows.take(rows.session % 2 == 1)
    assert kept.num_sessions == 5
    np.testing.assert_array_equal(kept.times, rows.times[1::2])
    np.testing.assert_array_equal(np.unique(kept.session), np.arange(5))
    assert all(len(f.outputs.score) == len(kept) == 25 for f in kept.forecasts)


def test_probabilities_and_quantiles_count_only_where_complete():
    signal, y = market(3, 4)
    p_up = np.full(y.shape, 0.5)
    p_up[0, 0] = np.nan
    parts = [
        table("whole", signal, y, p_up=0.5, quantiles=(-0.1, 0.0, 0.1)),
        table("partial", signal, y, p_up=p_up),
    ]
    whole, partial = sorted(
        align(pl.concat(parts), segment="test").forecasts, key=lambda f: f.name != "whole"
    )
    assert whole.outputs.quantiles.shape == (12, 3)
    assert set(whole.outputs.p_up) == {0.5}
    assert partial.outputs.p_up is None
    assert partial.outputs.quantiles is None


def test_rows_count_as_tradable_unless_a_run_says_no():
    signal, y = market(2, 3)
    cannot = np.ones(y.shape, bool)
    cannot[1, 2] = False
    silent = table("b", signal, y).with_columns(tradable=pl.lit(None, pl.Boolean))
    rows = align(pl.concat([table("a", signal, y, tradable=cannot), silent]), segment="test")
    assert rows.tradable.tolist() == [True] * 5 + [False]


def test_intraday_times_are_sessions_of_their_own():
    signal, y = market(30, 2)
    hourly = table("m", signal, y).with_columns(
        time=pl.datetime_range(
            pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 2, 5), "1h", time_unit="us", eager=True
        )
        .repeat_by(2)
        .explode()
    )
    assert align(hourly, segment="test").num_sessions == 30


def test_a_table_without_its_columns_is_refused():
    with pytest.raises(DataError, match="no column score, y_hat"):
        align(usual(3, 2).drop("score", "y_hat"), segment="test")
