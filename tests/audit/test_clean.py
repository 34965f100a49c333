"""No alarm on the pipeline as it is: every registered feature set, every kind of price, real markets."""

import numpy as np
import polars as pl
import pytest

from barcast.audit.compare import Difference, compare
from barcast.audit.laboratory import choose_cuts, examine
from barcast.audit.workings import Block, settled, snapshot, standard_workings
from barcast.audit.world import World
from barcast.core.bars import STORE_COLUMNS
from barcast.core.calendar import build_calendar
from barcast.features import feature_set, feature_sets, load_user_features
from tests.audit.builders import make_market, make_workings, make_world


def sentences(workings, world, num_cuts=2, seed=0):
    cuts = choose_cuts(workings.market, num_cuts, warmup=100, seed=seed)
    return [finding.sentence for finding in examine(workings, world, cuts, seed=seed).findings.values()]


@pytest.mark.parametrize("name", [made.name for made in feature_sets()])
def test_every_registered_set(world, name):
    assert sentences(make_workings(world, name), world) == []


@pytest.mark.parametrize("basis", ["raw", "split", "adjusted"])
def test_every_basis_in_a_market_with_limits(basis):
    world = make_world(basis=basis, market="cn", seed=11)
    assert sentences(make_workings(world, "tech48"), world, seed=1) == []


@pytest.mark.parametrize("name", ["core12", "ohlcv5"])
def test_small_universe(small_world, name):
    workings = make_workings(small_world, name)
    assert workings.market.small_universe
    assert sentences(workings, small_world) == []


@pytest.mark.parametrize("config", [{"delay": 0}, {"delay": 3, "horizons": (10,)}, {"target": "return"}])
def test_other_questions(world, config):
    assert sentences(make_workings(world, **config), world, num_cuts=1) == []


def test_a_users_file(world, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from barcast.features import feature\n"
        "from barcast.features.primitives import highest\n\n"
        "@feature\ndef below_high_40(close):\n    return close / highest(close, 40) - 1\n"
    )
    (mine,) = load_user_features([file])
    assert sentences(standard_workings(make_market(world), mine), world) == []


def test_cuts_lie_where_leaks_show(world):
    market = make_workings(world).market
    cuts = choose_cuts(market, 8, warmup=60)
    spans = market.plan.spans
    assert {settled(market, "weigh"), settled(market, "fit"), spans["fit"][1], spans["weigh"][1], 30} <= set(
        cuts
    )
    assert cuts == tuple(sorted(set(cuts))) and cuts[0] >= 1 and cuts[-1] <= len(world.calendar) - 2
    assert len(choose_cuts(market, 1, warmup=60)) == 1
    assert choose_cuts(market, 20, warmup=60, seed=1) != choose_cuts(market, 20, warmup=60, seed=2)


def test_rounding_is_no_difference_and_anything_more_is(world):
    taken = snapshot(make_workings(world), world, 100)
    words = Difference("test", "changed", {})

    def changed(by):
        blocks = []
        for block in taken.blocks:
            values = block.values.copy()
            if block.stage == "features":
                row = int(np.flatnonzero(np.isfinite(values[:, 3]) & (np.abs(values[:, 3]) > 1e-3))[5])
                values[row, 3] *= 1 + by
            blocks.append(Block(block.stage, block.names, values, block.known_at))
        return compare(
            taken, type(taken)(taken.market, tuple(blocks)), len(world.calendar) - 1, words
        ).findings

    assert changed(0.0) == () and changed(1e-7) == ()
    (finding,) = changed(1e-3)
    assert (finding.stage, finding.num_values) == ("features", 1)
    assert finding.found == pytest.approx(finding.expected, rel=2e-3)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("file", "market", "name", "frequency", "basis"),
    [("cn_a_share", "cn", "XSHG", "1d", "adjusted"), ("crypto_1h", "crypto", "24x7", "1h", "raw")],
)
def test_real_bars(real_data, file, market, name, frequency, basis):
    frame = pl.read_parquet(real_data / f"{file}.parquet")
    symbols = frame["symbol"].unique().sort().gather_every(120 if market == "cn" else 1)
    frame = frame.filter(pl.col("symbol").is_in(symbols.implode()))
    frame = frame.rename({"timestamp" if market == "crypto" else "date": "time"})
    kind = pl.Date if frequency == "1d" else pl.Datetime("us")
    time = pl.col("time").dt.replace_time_zone(None) if frequency != "1d" else pl.col("time")
    frame = frame.with_columns(
        time.cast(kind), pl.col("open", "high", "low", "close", "volume").cast(pl.Float64),
        *(pl.lit(1.0).alias(column) for column in ("split_factor", "total_factor")),
        pl.lit(basis).alias("basis"), pl.lit(None, pl.Float64).alias("amount"),
        (pl.col("close_raw") if "close_raw" in frame.columns else pl.lit(None)).cast(pl.Float64).alias("close_raw"),
    ).select(STORE_COLUMNS)  # fmt: skip
    if market == "crypto":
        frame = frame.filter(pl.col("time").dt.year() == 2024).filter(pl.col("time").dt.month() <= 8)
    frame = frame.sort("symbol", "time")
    calendar = build_calendar(name, frequency, frame["time"].unique().sort().to_numpy())
    world = World(frame, calendar, market)
    workings = standard_workings(make_market(world), feature_set("tech48"))
    assert sentences(workings, world, num_cuts=1) == []
