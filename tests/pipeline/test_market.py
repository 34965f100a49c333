"""From the store to labelled rows: what the status table says, what the policy takes away, what is counted."""

from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest

from barcast.core.bars import STORE_COLUMNS
from barcast.core.calendar import exchange_days
from barcast.core.predictions import SEGMENTS
from barcast.core.workspace import Workspace
from barcast.pipeline.dataset import build_dataset, resolve_features
from barcast.pipeline.market import load_bars, load_market, segment_counts
from barcast.pipeline.record import EXAMPLES, failures
from barcast.pipeline.settings import DataConfig, resolve
from barcast.pipeline.train import train
from barcast.pipeline.workflow import describe
from barcast.store.status import STATUS_SCHEMA
from tests.store.builders import DAYS as DAYS_US
from tests.store.builders import make_store, rows

DAYS = exchange_days("XSHG", date(2022, 1, 4), date(2023, 6, 30))
ST_DAY = 100


def chinese_rows(count=300):
    """Two main-board shares that close 5 % up on session 100 and move by 1 % else."""
    frames = []
    for symbol in ("600001.SH", "600002.SH"):
        step = np.where(np.arange(count) % 2, 1.01, 1 / 1.01)
        step[ST_DAY] = 1.05
        close = np.round(10 * np.cumprod(step), 2)
        close[ST_DAY] = np.floor(close[ST_DAY - 1] * 105 + 0.5) / 100
        frames.append(
            pl.DataFrame(
                {
                    "symbol": symbol, "time": DAYS[:count], "open": close, "high": close, "low": close * 0.99,
                    "close": close, "volume": 1000.0, "split_factor": 1.0, "total_factor": 1.0,
                    "basis": "raw",
                }
            ).with_columns(pl.lit(None, pl.Float64).alias("amount"), pl.lit(None, pl.Float64).alias("close_raw"))
        )  # fmt: skip
    return pl.concat(frames).with_columns(pl.col("time").cast(pl.Date)).select(STORE_COLUMNS)


@pytest.mark.parametrize(("known", "tradable"), [(ST_DAY - 5, False), (ST_DAY, False), (ST_DAY + 1, True)])
def test_a_close_five_percent_up_is_a_limit_where_special_treatment_was_known(tmp_path, known, tradable):
    told = [("600001.SH", "st", DAYS[50].item(), None, DAYS[known].item())]
    status = pl.DataFrame(told, schema=STATUS_SCHEMA, orient="row")
    make_store(tmp_path / "market", chinese_rows(), market="cn", calendar="XSHG", status=status)
    market = load_market(Workspace(tmp_path), DataConfig())
    entries = market.bars.session == ST_DAY - market.config.delay  # rows that would buy at that close
    assert market.labels.tradable[entries].tolist() == [tradable, True]


def us_rows():
    """Forty symbols; S00 has no usable price, S01 two unusable ones and then an end without a record."""
    frame = rows(symbols=[f"S{i:02d}" for i in range(40)], count=300)
    symbol, number = pl.col("symbol"), pl.int_range(pl.len()).over("symbol")
    bad = (symbol == "S00") | (symbol == "S01") & (number < 2)
    return frame.with_columns(close=pl.when(bad).then(0.0).otherwise("close")).filter(
        (symbol != "S01") | (number < 100), (symbol != "S00") | (number < 5)
    )


def test_symbols_that_lost_every_bar_have_a_reason(tmp_path):
    make_store(tmp_path / "market", us_rows())
    place = Workspace(tmp_path)
    market = load_market(place, DataConfig())
    assert "S00" not in market.bars.symbols
    assert list(market.without_bars) == ["S00"]
    assert market.without_bars["S00"] == "every bar is left out by the quality policy: non_positive_price"
    dataset = build_dataset(market, place, resolve_features(place, "core12"), tabular=True)
    assert {row["symbol"]: row["reason"] for row in failures(dataset)} == market.without_bars
    late = replace(DataConfig(), symbols=("S02", "S39"), asof=str(DAYS_US[60]))
    assert load_bars(place, late).without_bars == {"S39": f"no bar up to {DAYS_US[60]}"}


def test_rows_of_each_segment_are_counted_by_what_became_of_their_labels(tmp_path):
    make_store(tmp_path / "market", us_rows())
    market = load_market(Workspace(tmp_path), DataConfig())
    counts = segment_counts(market)
    decided = market.plan.segment_of(market.bars.session)
    for code, name in enumerate(SEGMENTS):
        found = counts[name]
        assert found["labelled"] + found["purged"] + found["unknown"] == (decided == code).sum()
        assert found["labelled"] == market.rows_of(name).sum()
    assert counts["fit"]["terminal"] == 0
    assert counts["fit"]["purged_terminal"] == market.labels.terminal.sum() == 5
    assert counts["fit"]["purged"] > counts["fit"]["purged_terminal"]
    assert counts["test"]["unknown"] > 0
    found = describe(Workspace(tmp_path), resolve(Workspace(tmp_path), "ridge", {}))
    assert all(found["segments"][name].items() >= counts[name].items() for name in SEGMENTS)
    assert found["without_bars"] == dict(market.without_bars)


def test_a_saved_check_is_small_whatever_was_found(tmp_path):
    frame = us_rows().with_columns(volume=pl.lit(0.0))
    make_store(tmp_path / "market", frame)
    place = Workspace(tmp_path)
    run = train(place, resolve(place, "ridge", {})).run
    saved = run.read("quality.json")
    assert saved["counts"]["zero_volume"] == len(frame)
    assert saved["findings"]["kind"].count("zero_volume") == EXAMPLES
    assert run.info["segments"]["fit"]["purged_terminal"] == 5
