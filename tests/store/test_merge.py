"""Updates: what a store must look like afterwards, worked out by plain means."""

from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.core.errors import StoreError, UsageError
from barcast.pipeline.data import export_data, import_data, update_data
from barcast.sources import ImportOptions
from barcast.store import MarketStore, merge
from tests.store.builders import DAYS, rows

RAW = ImportOptions(market="us", basis="raw")
ADJUSTED = ImportOptions(market="us", basis="adjusted")
FACTORS = ["total_factor", "split_factor"]


def as_given(frame, anchor=1.0, *, factors=True):
    """Store rows as a source would give them: raw prices and an adjusted close to some anchor."""
    plain = frame.select(
        "symbol", date="time", open="open", high="high", low="low", close="close", volume="volume"
    )
    if not factors:
        return plain
    return plain.with_columns(adj_close=frame["close"] * frame["total_factor"] * anchor)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "w"


def market(place):
    return MarketStore.open(place / "market")


def assert_same(found, expected):
    assert found.drop(FACTORS).equals(expected.drop(FACTORS))
    for name in FACTORS:
        np.testing.assert_allclose(found[name].to_numpy(), expected[name].to_numpy(), rtol=1e-9)


@settings(max_examples=8, deadline=None)
@given(
    cut=st.integers(30, 280), overlap=st.integers(3, 25), anchor=st.floats(0.05, 20), seed=st.integers(0, 50)
)
def test_parts_joined_equal_the_whole(tmp_path_factory, cut, overlap, anchor, seed):
    """The anchor of each download differs, the returns do not: nothing may show where they were joined."""
    place = tmp_path_factory.mktemp("parts")
    frame = rows(seed=seed)
    import_data(place, as_given(frame.filter(pl.col("time") < DAYS[cut])), RAW)
    later = frame.filter(pl.col("time") >= DAYS[cut - overlap])
    result = update_data(place, as_given(later, anchor))
    assert_same(market(place).frame(), frame)
    assert result.changes["corrected"] == 0
    assert result.changes["appended"] == frame.filter(pl.col("time") >= DAYS[cut]).height
    again = update_data(place, as_given(later, anchor * 3))
    assert not again.published
    assert market(place).version == result.version


def test_sessions_without_factors_take_the_last_one(place):
    frame = rows()
    import_data(place, as_given(frame.filter(pl.col("time") < DAYS[200])), RAW)
    update_data(place, as_given(frame.filter(pl.col("time") >= DAYS[200]), factors=False))
    stored = market(place).frame()
    for symbol in "ABC":
        mine = stored.filter(pl.col("symbol") == symbol)
        before = mine.filter(pl.col("time") < DAYS[200])["total_factor"][-1]
        assert set(mine.filter(pl.col("time") >= DAYS[200])["total_factor"]) == {before}


def test_factors_without_a_common_session_are_refused(place):
    frame = rows()
    import_data(place, as_given(frame.filter(pl.col("time") < DAYS[200])), RAW)
    result = update_data(place, as_given(frame.filter(pl.col("time") >= DAYS[200])))
    assert result.changes["refused_symbols"] == 3
    assert all("factors cannot be linked" in row["reason"] for row in result.failures)
    assert not result.published


def test_corrections_replace_stored_values_only_where_they_differ(place):
    frame = rows()
    import_data(place, as_given(frame), RAW)
    late = frame.filter(pl.col("time") >= DAYS[290])
    wrong = (pl.col("symbol") == "B") & (pl.col("time") == DAYS[295])
    corrected = late.with_columns(
        high=pl.when(wrong).then(pl.col("high") * 1.01).otherwise("high"),
        volume=pl.when(wrong).then(5.0).otherwise("volume"),
    )
    result = update_data(place, as_given(corrected))
    assert (result.changes["corrected"], result.changes["unchanged"]) == (1, 29)
    assert "corrected B 2024-02-06" in result.examples[0]
    assert "volume" in result.examples[0]
    stored = market(place).frame()
    assert_same(stored.filter(pl.col("time") >= DAYS[290]), corrected)
    assert_same(stored.filter(pl.col("time") < DAYS[290]), frame.filter(pl.col("time") < DAYS[290]))
    assert_same(market(place).frame(version=0), frame)


def test_missing_volume_in_an_update_erases_nothing(place):
    frame = rows(factors=False)
    import_data(place, as_given(frame, factors=False), RAW)
    result = update_data(place, as_given(frame, factors=False).drop("volume"))
    assert not result.published
    assert market(place).frame()["volume"].null_count() == 0


def adjusted(frame, anchor):
    prices = pl.col("open", "high", "low", "close")
    return as_given(frame.with_columns((prices * anchor).round(2)), factors=False)


def test_a_moved_anchor_replaces_the_whole_history(place):
    frame = rows(basis="adjusted", factors=False)
    import_data(place, adjusted(frame.filter(pl.col("time") < DAYS[250]), 1.0), ADJUSTED)
    moved = pl.when(pl.col("symbol") == "B").then(0.97).otherwise(1.0)
    result = update_data(place, adjusted(frame, moved))
    assert result.changes["replaced_symbols"] == 1
    assert "replaced B: its anchor moved" in result.examples[0]
    assert "-3.0" in result.examples[0]
    stored = market(place).frame()
    closes = stored.filter(pl.col("symbol") == "B")["close"]
    assert closes.to_list() == adjusted(frame, moved).filter(pl.col("symbol") == "B")["close"].to_list()
    returns = np.diff(np.log(stored.filter(pl.col("symbol") == "B")["close"].to_numpy()))
    true = np.diff(np.log(frame.filter(pl.col("symbol") == "B")["close"].to_numpy()))
    assert np.abs(returns - true).max() < 2e-3  # no seam, only rounding


def test_a_moved_anchor_without_the_whole_history_is_refused(place):
    frame = rows(basis="adjusted", factors=False)
    import_data(place, adjusted(frame.filter(pl.col("time") < DAYS[250]), 1.0), ADJUSTED)
    tail = frame.filter(pl.col("time") >= DAYS[240])
    moved = pl.when(pl.col("symbol") == "B").then(0.97).otherwise(1.0)
    result = update_data(place, adjusted(tail, moved))
    (row,) = result.failures
    assert row["symbol"] == "B"
    assert "give its whole history, from 2022-12-06 on" in row["reason"]
    stored = market(place).frame()
    assert stored.filter(pl.col("symbol") == "B")["time"].max() == DAYS[249].item()
    assert stored.filter(pl.col("symbol") == "A")["time"].max() == DAYS[299].item()
    assert market(place).failures().height == 1


@pytest.mark.parametrize("basis", ["adjusted", "split"])
def test_adjusted_prices_without_a_common_session_are_refused_symbol_by_symbol(place, basis):
    """A moves its anchor between two downloads that do not overlap: nobody could see it at the seam."""
    frame = rows(basis=basis, factors=False)
    options = ImportOptions(market="us", basis=basis)
    import_data(place, as_given(frame.filter(pl.col("time") < DAYS[250]), factors=False), options)
    tail = frame.filter(
        pl.col("time") >= pl.when(pl.col("symbol") == "B").then(DAYS[249]).otherwise(DAYS[250])
    )
    given = pl.concat([tail, rows(("D",), basis=basis, factors=False, seed=3)])
    result = update_data(place, as_given(given, factors=False))
    assert (result.changes["refused_symbols"], result.changes["new_symbols"]) == (2, 1)
    assert [row["symbol"] for row in result.failures] == ["A", "C"]
    assert "no session in common" in result.failures[0]["reason"]
    assert "e.g. the last 5 up to 2023-11-29" in result.failures[0]["reason"]
    ends = dict(market(place).frame().group_by("symbol").agg(pl.col("time").max()).iter_rows())
    assert [ends[s] == DAYS[299].item() for s in "ABCD"] == [False, True, False, True]
    assert "same_anchor" not in result.declared
    joined = update_data(place, as_given(given, factors=False), same_anchor=True)
    assert (joined.changes["appended"], joined.declared["same_anchor"]) == (100, True)
    assert market(place).declared()["same_anchor"] is True
    later = as_given(
        rows(basis=basis, factors=False, count=310).filter(pl.col("time") >= DAYS[305]), factors=False
    )
    assert update_data(place, later).changes["refused_symbols"] == 3  # never taken over by the next update


@pytest.mark.parametrize("overlap", [1, 2])
def test_a_small_constant_in_one_or_two_sessions_is_no_correction(place, overlap):
    """A dividend of 0.3 % re-scales B: taken for a correction it would leave a false return at the seam."""
    frame = rows(basis="adjusted", factors=False)
    import_data(place, adjusted(frame.filter(pl.col("time") < DAYS[250]), 1.0), ADJUSTED)
    new = rows(("D",), basis="adjusted", factors=False, first=249, count=301 - overlap)
    moved = pl.when(pl.col("symbol") == "B").then(0.997).otherwise(1.0)
    given = adjusted(pl.concat([frame.filter(pl.col("time") >= DAYS[250 - overlap]), new]), moved)
    result = update_data(place, given)
    (row,) = result.failures
    assert row["symbol"] == "B"
    assert "all prices differ by -0.3" in row["reason"] and "the last 5 up to 2023-11-29" in row["reason"]
    assert (result.changes["corrected"], result.changes["appended"]) == (0, 100 + new.height)
    stored = market(place).frame(["B"])
    assert stored["time"].max() == DAYS[249].item()
    joined = update_data(place, given, same_anchor=True)
    assert (joined.changes["corrected"], joined.changes["appended"]) == (overlap, 50)


def test_a_small_constant_leaves_no_seam_where_every_stored_bar_is_given_or_prices_are_raw(place):
    young = rows(("A",), basis="adjusted", factors=False)
    import_data(place, adjusted(young.head(2), 1.0), ADJUSTED)
    assert update_data(place, adjusted(young.head(9), 0.997)).changes["corrected"] == 2
    raw = rows(("A",), factors=False)
    import_data(place, adjusted(raw.head(20), 1.0), RAW, replace_all=True)
    assert update_data(place, adjusted(raw[19:30], 0.997)).changes["corrected"] == 1


def test_refusals_of_an_update_without_a_version_are_listed_until_the_next(place):
    frame = rows(basis="adjusted", factors=False)
    first = as_given(frame.filter(pl.col("time") < DAYS[250]), factors=False).cast({"close": pl.String})
    first[0, "close"] = "ten"
    import_data(place, first, ADJUSTED)
    tail = as_given(frame.filter(pl.col("time") >= DAYS[250]), factors=False)
    assert not update_data(place, tail).published
    store = market(place)
    assert (store.version, store.failures().height, store.info().num_failures) == (0, 3, 3)
    assert store.failures(0)["value"].to_list() == ["ten"]
    update_data(place, as_given(frame.filter(pl.col("time") >= DAYS[245]), factors=False))
    assert (store.version, store.failures().height) == (1, 0)


def test_split_adjusted_prices_move_their_anchor_too(place):
    frame = rows(basis="split", factors=False)
    options = ImportOptions(market="us", basis="split")
    import_data(place, as_given(frame.filter(pl.col("time") < DAYS[250])), options)
    halved = frame.with_columns(pl.col("open", "high", "low", "close") / 2, pl.col("volume") * 2)
    result = update_data(place, as_given(halved))
    assert result.changes["replaced_symbols"] == 3
    assert market(place).frame().filter(pl.col("symbol") == "A")["volume"][0] == 2000


def test_raw_prices_never_move(place):
    frame = rows(factors=False)
    import_data(place, as_given(frame, factors=False), RAW)
    doubled = as_given(frame.with_columns(pl.col("open", "high", "low", "close") * 2), factors=False)
    result = update_data(place, doubled)
    assert result.changes["refused_symbols"] == 3
    assert "are these raw prices?" in result.failures[0]["reason"]


def test_another_series_is_not_taken_for_corrections(place):
    import_data(place, as_given(rows(seed=1, factors=False), factors=False), RAW)
    result = update_data(place, as_given(rows(seed=2, factors=False), factors=False))
    assert result.changes["refused_symbols"] == 3
    assert "another series" in result.failures[0]["reason"]


def test_a_moved_anchor_beside_a_correction_asks_for_the_whole_history_of_that_symbol(place):
    frame = rows(basis="adjusted", factors=False)
    import_data(place, adjusted(frame.filter(pl.col("time") < DAYS[250]), 1.0), ADJUSTED)
    wrong = (pl.col("symbol") == "B") & (pl.col("time") == DAYS[247])
    moved = frame.with_columns(close=pl.when(wrong).then(pl.col("close") * 1.01).otherwise("close"))
    moved = adjusted(moved, pl.when(pl.col("symbol") == "B").then(0.98).otherwise(1.0))
    (row,) = update_data(place, moved.filter(pl.col("date") >= DAYS[245])).failures
    assert (row["symbol"], "--replace" in row["reason"]) == ("B", False)
    assert f"give its whole history, from {DAYS[3]} on" in row["reason"]
    done = update_data(place, moved.filter(pl.col("symbol") == "B"))
    assert (done.changes["replaced_symbols"], done.num_failures) == (1, 0)


@pytest.mark.parametrize(
    ("scale", "told", "unit"), [(100.0, " 100 those", "share"), (0.01, " 1/100 those", "lot")]
)
def test_volumes_in_another_unit_are_no_corrections(place, scale, told, unit):
    volume = pl.int_range(pl.len()) * 1234.0 + 150_070
    frame = rows(factors=False).with_columns(volume=volume)
    import_data(place, adjusted(frame.filter(pl.col("time") < DAYS[250]), 1.0), RAW)
    other = pl.when(pl.col("symbol") == "C").then("volume").otherwise((pl.col("volume") * scale).floor())
    given = adjusted(frame.filter(pl.col("time") >= DAYS[247]), 1.0).with_columns(volume=other)
    result = update_data(place, given)
    assert [row["symbol"] for row in result.failures] == ["A", "B"]
    assert (
        told in result.failures[0]["reason"] and f"say --volume-unit {unit}" in result.failures[0]["reason"]
    )
    assert (result.changes["corrected"], result.changes["appended"]) == (0, 50)
    once = adjusted(frame.filter(pl.col("time") == DAYS[249]), 1.0).with_columns(volume=other)
    assert update_data(place, once).changes["corrected"] == 2  # one session may be a correction
    small = frame.filter(pl.col("symbol") == "C")[-9:].with_columns(volume=pl.lit(40.0))
    assert update_data(place, adjusted(small, 1.0)).changes["corrected"] == 9


def test_a_provisional_last_bar_is_corrected(place):
    frame = rows(basis="adjusted", factors=False)
    import_data(place, as_given(frame, factors=False), ADJUSTED)
    last = frame.filter(pl.col("time") == DAYS[299])
    final = last.with_columns(pl.col("close") * 1.003, pl.col("high") * 1.001, pl.col("volume") * 3)
    result = update_data(place, as_given(final, factors=False))
    assert (result.changes["corrected"], result.changes["replaced_symbols"]) == (3, 0)


def test_corrected_factors_replace_those_that_follow(place):
    """The store missed a split of B at session 250; the next download has it."""
    frame = rows(factors=False)
    import_data(place, as_given(frame), RAW)
    doubled = pl.when((pl.col("symbol") == "B") & (pl.col("time") >= DAYS[250])).then(2.0).otherwise(1.0)
    mended = frame.with_columns(total_factor=doubled, split_factor=doubled)
    result = update_data(place, as_given(mended.filter(pl.col("time") >= DAYS[240]), 7.0))
    assert result.changes["corrected"] == 50
    assert_same(market(place).frame(), mended)
    early = mended.filter(pl.col("time").is_between(DAYS[100], DAYS[110]) & (pl.col("symbol") == "B"))
    wrong = early.with_columns(total_factor=pl.when(pl.col("time") > DAYS[105]).then(3.0).otherwise(1.0))
    refused = update_data(place, as_given(wrong))
    assert "give its history up to" in refused.failures[0]["reason"]


def test_earlier_bars_anchor_the_factors_anew(place):
    frame = rows()
    import_data(place, as_given(frame.filter(pl.col("time") >= DAYS[150])), RAW)
    result = update_data(place, as_given(frame.filter(pl.col("time") < DAYS[160]), 0.3))
    assert result.changes["earlier"] == 150 + 147 + 144
    assert_same(market(place).frame(), frame)


def test_holes_are_filled(place):
    frame = rows()
    hole = pl.col("time").is_between(DAYS[100], DAYS[120])
    import_data(place, as_given(frame.filter(~hole)), RAW)
    result = update_data(place, as_given(frame.filter(pl.col("time").is_between(DAYS[95], DAYS[125])), 5.0))
    assert (result.changes["filled"], result.changes["appended"]) == (63, 0)
    stored = market(place).frame()
    assert stored.drop(FACTORS).equals(frame.drop(FACTORS))
    np.testing.assert_allclose(stored["total_factor"], frame["total_factor"], rtol=1e-9)
    # across the hole, C's dividend and its split had looked like one split
    np.testing.assert_allclose(stored["split_factor"], frame["split_factor"], rtol=0.011)


def test_filled_holes_without_factors_take_the_factor_before(place):
    frame = rows()
    hole = pl.col("time") == DAYS[100]
    import_data(place, as_given(frame.filter(~hole)), RAW)
    update_data(place, as_given(frame.filter(hole), factors=False))
    stored = market(place).frame(["A"])
    assert stored["total_factor"][100] == stored["total_factor"][99]
    assert stored.height == 300


def test_new_symbols_join(place):
    import_data(place, as_given(rows()), RAW)
    result = update_data(place, as_given(rows(("D",), seed=9)))
    assert (result.changes["new_symbols"], result.changes["appended"]) == (1, 300)
    assert market(place).symbols() == ("A", "B", "C", "D")


def test_another_basis_is_refused_symbol_by_symbol(place):
    import_data(place, as_given(rows(("A",))), RAW)
    result = update_data(place, as_given(rows(("A", "B"), seed=4)), ImportOptions(basis="split"))
    assert result.failures[0]["reason"] == "stored with basis raw, given with basis split"
    assert market(place).info().bases == {"raw": 1, "split": 1}


def test_conflicts_live_until_their_rows_are_given_anew(place):
    frame = as_given(rows(), factors=False)
    twice = pl.concat([frame, frame.head(1).with_columns(pl.col("close") * 1.5)])
    import_data(place, twice, RAW)
    assert market(place).conflicts()["kept"].to_list() == [False, True]
    update_data(place, as_given(rows(count=310).filter(pl.col("time") >= DAYS[295]), factors=False))
    assert market(place).conflicts().height == 2
    update_data(place, frame.head(3))
    assert market(place).conflicts().is_empty()
    assert market(place).frame()["close"][0] == frame["close"][0]


def test_the_stored_version_given_again_settles_a_conflict_and_a_refused_one_does_not(place):
    frame = as_given(rows(basis="adjusted", factors=False), factors=False)
    twice = pl.concat([frame, *(frame[n : n + 1].with_columns(pl.col("close") * 1.01) for n in (0, 350))])
    import_data(place, twice, ADJUSTED)
    kept = pl.concat([twice[[-2]], frame[1:8]])
    moved = frame[340:380].with_columns(pl.col("open", "high", "low", "close") * 2)
    result = update_data(place, pl.concat([kept, moved]))
    assert (result.changes["corrected"], result.changes["refused_symbols"]) == (0, 1)
    assert market(place).conflicts()["symbol"].to_list() == ["B", "B"]
    assert not update_data(place, pl.concat([kept, moved])).published


def test_many_small_appends_stay_few_files(place, monkeypatch):
    monkeypatch.setattr(merge, "MOST_FILES", 4)
    frame = rows(("A", "B"), factors=False)
    import_data(place, as_given(frame.filter(pl.col("time") < DAYS[200]), factors=False), RAW)
    for day in DAYS[200:210]:
        update_data(place, as_given(frame.filter(pl.col("time") == day), factors=False))
    store = market(place)
    assert_same(store.frame(), frame.filter(pl.col("time") <= DAYS[209]))
    assert len(store.table.files()) <= 6


def test_update_needs_a_store(place):
    with pytest.raises(StoreError, match=r"barcast data import PATH -w .*w --market"):
        update_data(place, as_given(rows()), RAW)
    with pytest.raises(StoreError, match="barcast data import 'new bars' more -w"):
        update_data(place, ["new bars", "more"])


@pytest.mark.parametrize(
    ("form", "per_symbol"), [("parquet", False), ("parquet", True), ("csv", False), ("csv", True)]
)
def test_an_export_imported_again_is_the_same_store(place, tmp_path, form, per_symbol):
    frame = pl.concat([rows(("A", "B")), rows(("C",), basis="adjusted", factors=False)])
    import_data(place, frame, ImportOptions(market="us"))
    target = tmp_path / f"out{'' if per_symbol else '.' + form}"
    done = export_data(place, target, form=form, per_symbol=per_symbol)
    assert (done.num_rows, done.num_files) == (frame.height, 3 if per_symbol else 1)
    import_data(tmp_path / "other", target, ImportOptions(market="us"))
    assert_same(market(tmp_path / "other").frame(), frame)
    with pytest.raises(UsageError, match="parquet or csv"):
        export_data(place, target, form="xlsx")


def test_the_ending_says_what_an_export_is_and_nothing_is_overwritten(place, tmp_path):
    import_data(place, as_given(rows()), RAW)
    for name in ("a.csv", "a.parquet"):
        export_data(place, tmp_path / name)
    assert pl.read_csv(tmp_path / "a.csv").height == pl.read_parquet(tmp_path / "a.parquet").height
    before = (tmp_path / "a.csv").read_bytes()
    with pytest.raises(UsageError, match=r"a\.csv exists\n.*--force"):
        export_data(place, tmp_path / "a.csv", symbols=["B"])
    assert (tmp_path / "a.csv").read_bytes() == before
    export_data(place, tmp_path / "a.csv", symbols=["B"], force=True)
    assert set(pl.read_csv(tmp_path / "a.csv")["symbol"]) == {"B"}
    for name in ("b.txt", "b"):
        with pytest.raises(UsageError, match=r"neither \.csv nor \.parquet"):
            export_data(place, tmp_path / name)
    with pytest.raises(UsageError, match="--format parquet"):
        export_data(place, tmp_path / "b.csv", form="parquet")
    assert not list(tmp_path.glob("b*"))


def test_export_of_a_part(place, tmp_path):
    import_data(place, as_given(rows()), RAW)
    export_data(place, tmp_path / "a.parquet", symbols=["B"], start=date(2023, 1, 1), end=date(2023, 1, 31))
    part = pl.read_parquet(tmp_path / "a.parquet")
    assert (part["symbol"].unique().to_list(), part.height) == (["B"], 20)
