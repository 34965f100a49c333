"""Sizes, up-shares and design effects of two public test sets, with the row every table must hold."""

from datetime import date

import polars as pl
import pytest

from barcast.core.predictions import conform
from tests.evaluation.panels import compare

SETS = {
    "acl18": (date(2015, 10, 1), date(2015, 12, 31), 3720, 0.5129, 0.047, 28),
    "kdd17": (date(2016, 1, 4), date(2016, 12, 30), 7398, 0.5285, 0.023, 13),
}


@pytest.mark.realdata
@pytest.mark.parametrize("name", SETS)
def test_always_up_on_public_test_sets(real_data, name):
    first, last, num_rows, up_share, standard_error, design_effect = SETS[name]
    frame = pl.read_parquet(real_data / f"{name}_ourpped.parquet").sort("symbol", "date")
    valid = pl.col("label") > -100
    whole_window = [valid.shift(k).over("symbol").fill_null(False) for k in range(1, 6)]
    rows = frame.with_columns(whole=pl.all_horizontal(whole_window)).filter(
        "whole", pl.col("date").is_between(first, last), valid, pl.col("label") != 0
    )
    always_up = rows.select(
        "symbol",
        pl.col("date").cast(pl.Datetime("us")).alias("time"),
        (pl.col("label") * 0.01).alias("y"),
        run=pl.lit("r"),
        model=pl.lit("always_up"),
        seed=0,
        segment=pl.lit("test"),
        horizon=1,
        delay=0,
        target=pl.lit("return"),
        score=1.0,
        y_hat=0.001,
    )
    comparison = compare(conform(always_up), segment="test", cross_sectional=True)
    (row,) = comparison.all_rows.rows
    accuracy = row.scores["direction"]
    assert comparison.all_rows.num_rows == num_rows
    assert accuracy.value == pytest.approx(up_share, abs=1e-4)
    assert (accuracy.high - accuracy.low) / 2 / 1.96 == pytest.approx(standard_error, rel=0.1)
    assert row.design_effect == pytest.approx(design_effect, rel=0.25)
    assert row.scores["mcc"].flag == "constant"
