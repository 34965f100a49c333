"""Worlds agree with the real one up to the cut, differ after it, and stay valid stored rows."""

import numpy as np
import polars as pl
import pytest

from barcast.audit.world import alter, cut, reanchor, roughen
from barcast.store.adjust import to_bars
from tests.audit.builders import make_world

CUT = 150


def up_to(world, session):
    return world.frame.filter(pl.col("time") <= pl.lit(world.calendar.times[session]))


def test_cut_keeps_the_past_and_nothing_else(world):
    past = cut(world, CUT)
    assert past.frame.equals(up_to(world, CUT))
    assert len(past.calendar) == CUT + 1 and past.calendar.times[-1] == world.calendar.times[CUT]


def test_cut_forgets_what_became_known_later(world):
    days = world.calendar.times
    status = pl.DataFrame({"symbol": ["S001", "S002"], "kind": ["delisted"] * 2,
                           "known_at": pl.Series(days[[CUT, CUT + 1]]).cast(pl.Date)})  # fmt: skip
    from dataclasses import replace

    assert cut(replace(world, status=status), CUT).status["symbol"].to_list() == ["S001"]


@pytest.mark.parametrize("basis", ["raw", "adjusted"])
def test_altered_future_changes_every_later_bar_and_no_earlier_one(basis):
    world = make_world(basis=basis, market="cn")
    other = alter(world, CUT, seed=1)
    assert up_to(other, CUT).equals(up_to(world, CUT))
    key = ["symbol", "time"]
    both = other.frame.join(world.frame, on=key, how="inner")
    later = both.filter(pl.col("time") > pl.lit(world.calendar.times[CUT]))
    assert len(later) > 1000
    for name in ("close", "high", "low"):
        assert later.select((pl.col(name) != pl.col(f"{name}_right")).all()).item()
    assert later.select((pl.col("volume") != pl.col("volume_right")).mean()).item() > 0.98
    new = set(other.symbols) - set(world.symbols)
    assert new and other.frame.filter(pl.col("symbol").is_in(list(new)))["time"].min() > later[
        "time"
    ].min() - (later["time"].max() - later["time"].min())
    ends = other.frame.group_by("symbol").agg(pl.col("time").max())
    assert (ends["time"] == world.calendar.times[CUT].item()).sum() >= 2
    assert other.status["known_at"].min() > world.calendar.times[CUT].item()


@pytest.mark.parametrize("basis", ["raw", "split", "adjusted"])
def test_altered_rows_are_valid_stored_rows(basis):
    world = make_world(basis=basis, market="cn")
    frame = alter(world, CUT, seed=2).frame
    assert frame.schema == world.frame.schema
    assert frame.select("symbol", "time").equals(frame.select("symbol", "time").sort("symbol", "time"))
    assert frame.select("symbol", "time").is_unique().all()
    ordered = frame.filter(pl.col("time") > pl.lit(world.calendar.times[CUT]))
    assert (ordered["low"] <= ordered["close"]).all() and (ordered["close"] <= ordered["high"]).all()
    assert (ordered["low"] <= ordered["open"]).all() and (ordered["open"] <= ordered["high"]).all()
    assert (ordered["close"] > 0).all() and (ordered["volume"] >= 0).all()
    steps = frame.group_by("symbol").agg(pl.col("total_factor").first())
    assert (steps["total_factor"] == 1).all()
    assert (frame["total_factor"].max() > 1) == (basis == "raw")


def test_altered_future_holds_limit_closes_that_the_rules_recognise(cn_world):
    from barcast.labels import limit_closes

    bars = to_bars(alter(cn_world, CUT, seed=0).frame, cn_world.calendar, "cn")
    soon = (bars.session > CUT) & (bars.session <= CUT + 2)
    assert (limit_closes(bars)[soon] == 1).sum() >= 3


def test_within_the_session_only_the_open_stays(world):
    other = alter(world, CUT, seed=0, within=True)
    day = pl.col("time") == pl.lit(world.calendar.times[CUT])
    now, before = other.frame.filter(day), world.frame.filter(day)
    assert now["symbol"].equals(before["symbol"])
    assert now["open"].equals(before["open"])
    assert now["total_factor"].equals(before["total_factor"])
    assert (now["close"] != before["close"]).all()
    assert up_to(other, CUT - 1).equals(up_to(world, CUT - 1))


def test_roughened_world_says_what_was_done(world):
    rough = roughen(world, CUT, turn=0)
    assert 0.4 < len(rough.changes) / len(world.symbols) < 0.6
    gone = world.frame.join(rough.frame, on=["symbol", "time"], how="anti")
    assert set(gone["symbol"]) <= set(rough.changes)
    assert len(gone) > 0
    first = rough.frame.group_by("symbol").agg(pl.col("total_factor", "split_factor").first())
    assert (first["total_factor"] == 1).all() and (first["split_factor"] == 1).all()
    lost = rough.frame.filter(pl.col("volume").is_null())
    assert len(lost) > 0 and set(lost["symbol"]) <= set(rough.changes)


def test_every_symbol_gets_its_turn(world):
    touched = set()
    for turn in range(8):
        touched |= set(roughen(world, CUT, turn).changes)
    assert touched == set(world.symbols)


def test_moved_anchor_scales_adjusted_prices_only():
    traded, scale = reanchor(make_world(basis="raw"))
    assert np.all(scale == 1) and traded.frame.equals(make_world(basis="raw").frame)
    before = make_world(basis="adjusted")
    moved, scale = reanchor(before)
    assert set(scale) == {0.5, 2.0}
    assert np.allclose(moved.frame["close"] / before.frame["close"], scale[before.owner])
    assert moved.frame["volume"].equals(before.frame["volume"])
