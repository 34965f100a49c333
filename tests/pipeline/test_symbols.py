"""Symbols are read as users spell them, and from one version of the store."""

import numpy as np
import polars as pl
import pytest

from barcast.core.errors import SymbolError
from barcast.core.workspace import Workspace
from barcast.pipeline.check import check_store
from barcast.pipeline.market import chosen_symbols, load_bars, load_market
from barcast.pipeline.predict import predict
from barcast.pipeline.settings import DataConfig, resolve
from barcast.pipeline.train import train
from tests.store.builders import DAYS, make_store, publish, rows


@pytest.mark.parametrize(
    ("market", "stored", "spelled"),
    [
        ("cn", ("000001.SZ", "600519.SH"), ["sh.600519", "600519", "1", "600519.SH", "SH600519"]),
        ("us", ("AAPL", "BRK-B"), ["brk.b", "aapl", "BRK-B"]),
        ("crypto", ("BTCUSDT",), ["BTC/USDT", "btc-usdt"]),
    ],
)
def test_any_spelling_is_read_once(tmp_path, market, stored, spelled):
    store = make_store(tmp_path / "market", rows(symbols=stored, count=30), market=market)
    found = store.resolve(spelled)
    assert sorted(found) == list(stored)
    assert found[0] == store.symbols()[-1]  # in the order given
    assert store.resolve(()) == ()
    report, _ = check_store(Workspace(tmp_path), spelled[:1])
    assert report.num_symbols == 1


def test_a_stored_name_is_taken_as_it_is(tmp_path):
    store = make_store(tmp_path / "market", rows(symbols=("brk.b", "BRK-B"), count=30))
    assert store.resolve(["brk.b", "Brk.B"]) == ("brk.b", "BRK-B")


def test_those_not_in_the_store_are_named_with_the_nearest(tmp_path):
    store = make_store(tmp_path / "market", rows(symbols=("600519.SH", "000001.SH"), count=30), market="cn")
    with pytest.raises(SymbolError) as caught:
        store.resolve(["600519", "600518", "000001", "AAPL"])
    text = str(caught.value)
    assert "600518 (read as 600518.SH), did you mean 600519.SH" in text
    assert "000001 (read as 000001.SZ), did you mean 000001.SH" in text
    assert "`AAPL` is not an A-share symbol" in text
    assert "600519," not in text


def test_one_version_throughout(tmp_path):
    store = make_store(tmp_path / "market", rows(symbols=("B", "C"), count=300))
    publish(store, rows(symbols=("A", "B", "C"), count=300))
    assert chosen_symbols(store, DataConfig(limit=1), 0) == ("B",)
    assert chosen_symbols(store, DataConfig(limit=1), 1) == ("A",)
    assert chosen_symbols(store, DataConfig(limit=1, symbols=("C", "B")), 1) == ("C",)
    assert chosen_symbols(store, DataConfig(), 1) is None
    with pytest.raises(SymbolError, match="not in the store: A"):
        store.resolve(["A"], 0)
    assert load_bars(Workspace(tmp_path), DataConfig(limit=1), 0).bars.symbols == ("B",)


def test_a_check_reads_the_version_it_began_with(tmp_path, monkeypatch):
    store = make_store(tmp_path / "market", rows(symbols=("B",), count=60))
    seen = []

    def published_meanwhile(self, **wanted):
        frame = original(self, **wanted)
        publish(store, rows(symbols=("A", "B"), count=90))
        return frame

    def calendar(self, *given, **wanted):
        found = original_calendar(self, *given, **wanted)
        seen.append(len(found))
        return found

    original, original_calendar = type(store).frame, type(store).calendar
    monkeypatch.setattr(type(store), "frame", published_meanwhile)
    monkeypatch.setattr(type(store), "calendar", calendar)
    check_store(Workspace(tmp_path))
    assert seen == [60]


def test_the_config_of_a_market_has_one_spelling(tmp_path):
    make_store(tmp_path / "market", rows(symbols=("600519.SH", "000001.SZ"), count=300), market="cn")
    place = Workspace(tmp_path)
    typed, canonical = (
        load_market(place, DataConfig(symbols=s, quality={"beyond_limit": "accept"})).config
        for s in (("600519", "1"), ("600519.SH", "000001.SZ"))
    )
    assert typed == canonical


def test_stray_and_masked_rows_stretch_no_calendar_and_are_counted(tmp_path):
    frame = rows(symbols=[f"S{i}" for i in range(5)], count=300)
    stray = frame.head(1).with_columns(time=pl.date(1995, 3, 1))
    last = frame["time"].max()
    broken = frame.with_columns(
        close=pl.when(pl.col("time") == last).then(None).otherwise(pl.col("close")).cast(pl.Float64)
    )
    store = make_store(tmp_path / "market", pl.concat([stray, broken]).sort("symbol", "time"))
    assert store.calendar().times[-1] == np.datetime64(last)
    market = load_market(Workspace(tmp_path), DataConfig())
    assert market.bars.calendar.times[[0, -1]].tolist() == [DAYS[0].item(), DAYS[298].item()]
    assert market.left_out["off_calendar"] == 1
    assert sum(market.left_out.values()) >= 6


def test_training_and_predicting_read_any_spelling(tmp_path):
    frame = rows(symbols=("AAPL", "IBM", "MSFT", "GONE"), count=300)
    gone = frame.filter(pl.col("symbol") == "GONE").head(3).with_columns(close=pl.lit(None, pl.Float64))
    frame = pl.concat([frame.filter(pl.col("symbol") != "GONE"), gone]).sort("symbol", "time")
    make_store(tmp_path / "market", frame)
    place = Workspace(tmp_path)
    first, second = (
        train(place, resolve(place, "ridge", {"symbols": symbols})).run
        for symbols in (("AAPL", "IBM", "MSFT"), ("aapl", "ibm", "Msft", "AAPL"))
    )
    assert first.name == second.name
    assert first.read("config.json")["data"]["symbols"] == ["AAPL", "IBM", "MSFT"]
    found = predict(place, first, symbols=("ibm", "GONE"), allow_old=True)
    assert found.table["symbol"].unique().to_list() == ["IBM"]
    assert found.reasons["symbol"].to_list() == ["GONE"]
    with pytest.raises(SymbolError, match="did you mean IBM"):
        predict(place, first, symbols=("IBMM",), allow_old=True)
