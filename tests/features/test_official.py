"""adv11_official against the published feature files of Adv-ALSTM."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from barcast.core.bars import Bars
from barcast.core.calendar import OBSERVED, build_calendar
from barcast.features import compute_features, feature_set
from tests.conftest import make_bars

FEATURES = ["c_open", "c_high", "c_low", "n_close", "n_adj_close", "d5", "d10", "d15", "d20", "d25", "d30"]
MISSING = -123321


def adjusted_bars(frame):
    """Bars of a table with raw prices and an adjusted close; the close as traded stays beside it."""
    frame = frame.drop_nulls().sort("symbol", "date")
    calendar = build_calendar(OBSERVED, "1d", frame["date"].unique().sort().to_numpy())
    counts = frame.group_by("symbol", maintain_order=True).len()
    columns = {name: frame[name].cast(pl.Float64).to_numpy() for name in ("open", "high", "low", "close")}
    adjusted = frame["adj_close"].cast(pl.Float64).to_numpy()
    factor = adjusted / columns["close"]
    return Bars(
        symbols=tuple(counts["symbol"]),
        offsets=np.concatenate([[0], np.cumsum(counts["len"].to_numpy())]).astype(np.int64),
        session=calendar.index(frame["date"].to_numpy()),
        open=columns["open"] * factor, high=columns["high"] * factor, low=columns["low"] * factor,
        close=adjusted, volume=frame["volume"].cast(pl.Float64).to_numpy(),
        amount=np.full(len(frame), np.nan), close_traded=columns["close"],
        calendar=calendar, market="us", delisted=np.full(len(counts), -1, np.int32),
    )  # fmt: skip


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "rows"), (("acl18", 55_966), ("kdd17", 124_450)))
def test_equals_the_published_files(real_data, name, rows):
    bars = adjusted_bars(pl.read_parquet(real_data / f"{name}.parquet"))
    ours = pl.DataFrame(compute_features(bars, feature_set("adv11_official")), schema=FEATURES).with_columns(
        symbol=pl.Series(bars.symbols).gather(bars.symbol_of_row), date=pl.Series(bars.times)
    )
    theirs = pl.read_parquet(real_data / f"{name}_ourpped.parquet").filter(pl.col("price") != MISSING)
    both = theirs.join(ours, on=["symbol", "date"], suffix="_ours")
    assert len(both) == len(theirs) == rows
    for feature in FEATURES:
        expected, found = (
            both[column].cast(pl.Float64).to_numpy() for column in (feature, f"{feature}_ours")
        )
        known = expected != MISSING
        # in percent; stored prices are float32: 6e-8 of a price, twice, times 100
        np.testing.assert_allclose(found[known], expected[known], rtol=1e-6, atol=1.3e-5, err_msg=feature)


def test_recomputed_by_hand():
    """A two-for-one split three bars before the end, as traded and adjusted; means by hand."""
    bars = make_bars((35,), seed=1)
    traded = np.full(35, 50.0)
    traded[-6:] = [50.0, 52.0, 51.0, 25.0, 26.0, 24.96]
    adjusted = traded.copy()
    adjusted[:-3] /= 2
    factor = adjusted / traded
    split = replace(
        bars, open=np.full(35, 49.0) * factor, high=traded * 1.02 * factor, low=traded * 0.99 * factor,
        close=adjusted, close_traded=traded,
    )  # fmt: skip
    row = dict(zip(FEATURES, compute_features(split, feature_set("adv11_official"))[-3], strict=True))
    assert row["n_close"] == pytest.approx(100 * (25 / 51 - 1), rel=1e-6)  # the split shows
    assert row["n_adj_close"] == pytest.approx(100 * (25 / 25.5 - 1), rel=1e-6)
    assert row["c_high"] == pytest.approx(2.0, rel=1e-5) and row["c_low"] == pytest.approx(-1.0, rel=1e-5)
    assert row["c_open"] == pytest.approx(100 * (49 / 25 - 1), rel=1e-6)
    assert row["d5"] == pytest.approx(100 * ((25 + 25 + 26 + 25.5 + 25) / 5 / 25 - 1), rel=1e-5)
    assert row["d30"] == pytest.approx(100 * ((27 * 25 + 26 + 25.5 + 25) / 30 / 25 - 1), rel=1e-4)
    ours = dict(zip(FEATURES, compute_features(split, feature_set("adv11"))[-3], strict=True))
    assert ours["n_close"] == ours["n_adj_close"] == pytest.approx(25 / 25.5 - 1, rel=1e-6)
    for feature in ("c_open", "c_high", "c_low", "d5", "d30"):
        assert 100 * ours[feature] == pytest.approx(row[feature], rel=1e-5)
