import json
import os
import subprocess
import sys
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.core.errors import (
    DataError,
    ResourceError,
    StoreBusyError,
    StoreError,
    StoreVersionError,
    SymbolError,
)
from barcast.core.lock import writer_lock
from barcast.store import MarketStore, StoreMeta
from barcast.store.sessions import has_quorum
from barcast.store.status import STATUS_SCHEMA, conform_status, join_status, read_status, special_rows
from barcast.store.table import in_order
from tests.store.builders import DAYS, make_store, publish, rows


def test_what_goes_in_comes_out_in_order(tmp_path):
    frame = rows()
    store = make_store(tmp_path / "market", frame)
    assert store.frame().equals(frame)
    assert (store.version, store.symbols()) == (0, ("A", "B", "C"))
    reopened = MarketStore.open(tmp_path / "market")
    assert reopened.meta == store.meta
    assert reopened.frame().equals(frame)


def test_filters(tmp_path):
    frame = rows()
    store = make_store(tmp_path / "market", frame)
    start, end = date(2022, 12, 30), date(2023, 1, 5)
    expected = frame.filter(pl.col("time").is_between(start, end) & (pl.col("symbol") != "B"))
    assert store.frame(["A", "C"], start, end).equals(expected)
    assert store.frame(start=datetime(2022, 12, 30, 5), end=datetime(2023, 1, 5)).height == 3 * 4
    assert store.frame(["nobody"]).is_empty()
    assert store.frame(start=date(2031, 1, 1)).schema == frame.schema


def test_older_versions_stay_as_they_were(tmp_path):
    frame = rows()
    early, late = (
        frame.filter(pl.col("time") < date(2023, 6, 1)),
        frame.filter(pl.col("time") >= date(2023, 6, 1)),
    )
    store = make_store(tmp_path / "market", early)
    assert publish(store, late, periods=[]) == 1
    assert store.frame().equals(frame)
    assert store.frame(version=0).equals(early)
    assert store.calendar(version=0).times[-1] == np.datetime64("2023-05-31")
    with pytest.raises(DataError, match="versions are 0 to 1"):
        store.frame(version=7)


def test_periods_are_replaced_and_the_rest_stays(tmp_path):
    frame = rows()
    store = make_store(tmp_path / "market", frame)
    changed = frame.filter(pl.col("time").dt.year() == 2023).with_columns(pl.col("close") + 1)
    publish(store, changed, periods=[2023])
    assert store.frame(start=date(2023, 1, 1), end=date(2023, 12, 31)).equals(changed)
    assert store.frame(end=date(2022, 12, 31)).equals(frame.filter(pl.col("time").dt.year() == 2022))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_fast_ordering_equals_sorting(data):
    count = data.draw(st.integers(0, 40))
    pairs = data.draw(
        st.lists(
            st.tuples(st.sampled_from("ABC"), st.integers(0, 30)), min_size=count, max_size=count, unique=True
        )
    )
    if data.draw(st.booleans()):  # as files give them: sorted lots
        cut = data.draw(st.integers(0, len(pairs)))
        pairs = sorted(pairs[:cut]) + sorted(pairs[cut:])
    frame = pl.DataFrame(pairs, schema={"symbol": pl.String, "time": pl.Int64}, orient="row").with_row_index(
        "row"
    )
    assert in_order(frame).equals(frame.sort("symbol", "time"))


def test_bars_of_a_cut_store_equal_the_cut_bars(tmp_path):
    frame = rows()
    store = make_store(tmp_path / "whole", frame)
    until = date(2023, 8, 15)
    past = make_store(tmp_path / "past", frame.filter(pl.col("time") <= until))
    assert store.bars(until=until).content_digest() == past.bars().content_digest()
    assert store.bars(until=date(2022, 12, 2)).symbols == ("A",)  # the others were not listed yet


def test_bars_of_some_symbols_share_the_calendar(tmp_path):
    store = make_store(tmp_path / "market", rows())
    some = store.bars(["C"])
    assert some.symbols == ("C",)
    assert len(some.calendar) == 300
    with pytest.raises(SymbolError, match="not in the store: ZZZ"):
        store.bars(["C", "ZZZ"])


def test_excluded_rows_leave_a_hole(tmp_path):
    store = make_store(tmp_path / "market", rows())
    masked = pl.DataFrame({"symbol": ["A", "B"], "time": [DAYS[5].item(), DAYS[9].item()]})
    bars, whole = store.bars(exclude=masked), store.bars()
    assert len(bars) == len(whole) - 2
    assert len(bars.calendar) == len(whole.calendar)
    assert 5 not in bars.session[bars.symbol_of_row == 0]


def test_intraday_partitions_and_whole_end_days(tmp_path):
    minutes = [datetime(2024, 1, 31, 23, 58) + timedelta(minutes=i) for i in range(5)]
    frame = rows(symbols=("X",), count=5).with_columns(time=pl.Series(minutes, dtype=pl.Datetime("us")))
    store = make_store(tmp_path / "market", frame, market="crypto", frequency="1m", calendar="24x7")
    assert store.frame().equals(frame)
    assert sorted(store.table.files()["period"]) == [202401, 202402]
    assert store.frame(end=date(2024, 1, 31)).height == 2
    assert store.frame(start=date(2024, 2, 1)).height == 3
    assert len(store.bars().calendar) == 5


def test_an_empty_store_says_what_to_do(tmp_path):
    store = make_store(tmp_path / "market")
    assert store.is_empty
    for look in (store.frame, store.symbols, store.info, lambda: store.version):
        with pytest.raises(DataError, match="barcast data import"):
            look()
    with pytest.raises(StoreError, match="no market store"):
        MarketStore.open(tmp_path / "elsewhere")


def test_a_store_is_not_created_over_another(tmp_path):
    make_store(tmp_path / "market", rows())
    with pytest.raises(DataError, match="holds a store already"):
        MarketStore.create(tmp_path / "market", StoreMeta(market="us", frequency="1d", calendar="XNYS"))


def test_newer_and_damaged_descriptions(tmp_path):
    store = make_store(tmp_path / "market", rows())
    path = store.path / "store.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"format": 99}))
    with pytest.raises(StoreVersionError, match="format 99"):
        MarketStore.open(store.path)
    path.write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        MarketStore.open(store.path)


@pytest.mark.parametrize("name", ["with space", "中文 路径", "x#y?z", "{a}(b)"])
def test_unusual_folder_names(tmp_path, name):
    store = make_store(tmp_path / name / "market", rows())
    assert store.frame().height == rows().height


@pytest.mark.parametrize("name", ["a[b]", "a%20b", "a|b"])
def test_a_folder_the_table_format_cannot_write_to_is_refused(tmp_path, name):
    with pytest.raises(StoreError, match="choose a --workspace"):
        make_store(tmp_path / name / "market")


def test_what_stands_beside_belongs_to_its_version(tmp_path):
    frame = rows()
    one, two = pl.DataFrame({"symbol": ["A"]}), pl.DataFrame({"symbol": ["A", "B"]})
    store = make_store(tmp_path / "market", frame, conflicts=one, failures=one)
    publish(store, frame, failures=two)
    assert (len(store.failures()), len(store.failures(0)), len(store.conflicts())) == (2, 1, 1)
    # left by a writer that was killed before its version came
    two.write_parquet(store.path / "conflicts" / "00000002.parquet")
    assert len(store.conflicts()) == 1
    store.compact(keep_hours=0)  # gives the next numbers to versions of its own
    assert store.version >= 2
    assert len(store.conflicts()) == 1


def test_cited_versions_survive_compaction(tmp_path):
    frame = rows()
    store = make_store(tmp_path / "market", frame.filter(pl.col("time") < DAYS[100]))
    for start in range(100, 300, 20):
        days = DAYS[start : start + 20]
        publish(store, frame.filter(pl.col("time").is_between(days[0], days[-1])), periods=[])
    cited = store.frame(version=4)
    store.cite(4, "lstm-1234")
    with pytest.raises(DataError):
        store.cite(99, "lstm-5678")
    files = len(store.table.files())
    on_disk = len(list((store.path / "bars").rglob("*.parquet")))
    assert store.compact(keep_hours=0).num_files > 0
    assert store.frame().equals(frame)
    assert len(store.table.files()) < files
    assert len(list((store.path / "bars").rglob("*.parquet"))) < on_disk + len(store.table.files())
    assert store.frame(version=4).equals(cited)
    with pytest.raises(DataError, match="version 9 of the store was dropped"):
        store.frame(version=9)
    assert store.cited() == {"lstm-1234": 4}


def on_disk(store, name):
    return sorted(int(file.stem) for file in (store.path / name).glob("*.parquet"))


def test_tables_beside_are_written_when_they_change_and_go_with_their_versions(tmp_path, monkeypatch):
    frame = rows(("A",), count=60)
    status = conform_status(pl.DataFrame({"symbol": ["A"], "kind": ["st"], "start": ["2022-12-05"]}), "us")
    store = make_store(tmp_path / "market", frame[:10], status=status, conflicts=status.clear())
    for start in range(10, 60, 10):
        ended = status.with_columns(end=pl.lit(DAYS[start].item())) if start >= 30 else status
        publish(store, frame[start : start + 10], periods=[], status=ended, conflicts=status.clear())
    assert on_disk(store, "status") == [0, 3, 4, 5]  # versions 1 and 2 changed nothing
    assert on_disk(store, "conflicts") == []
    before = {version: store.status(version) for version in range(6)}
    assert before[2].equals(status)
    store.cite(2, "lstm-1")
    lately = store.compact()  # all versions are hours old at most: whoever reads them still can
    assert (lately.dropped, on_disk(store, "status")) == ((), [0, 3, 4, 5])
    with monkeypatch.context() as patch, pytest.raises(ResourceError):  # killed before any file has gone
        patch.setattr(
            "deltalake.DeltaTable.vacuum",
            lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")),
        )
        store.compact(keep_hours=0)
    assert store.frame().equals(frame)
    done = store.compact(keep_hours=0)
    assert 2 in done.kept
    assert (done.version, done.size_bytes < done.size_before) == (store.version, True)
    assert on_disk(store, "status") == [0, 5]
    assert store.status(2).equals(before[2])
    assert store.status().equals(before[5])
    assert store.frame().equals(frame)
    assert store.frame(version=2).equals(frame[:30])
    for read in (store.frame, store.status, store.failures, store.calendar):
        with pytest.raises(DataError, match="version 4 of the store was dropped"):
            read(version=4)


def test_info(tmp_path):
    store = make_store(tmp_path / "market", rows())
    info = store.info()
    assert (info.version, info.num_symbols, info.num_rows, info.num_sessions) == (0, 3, 300 + 297 + 294, 300)
    assert (info.first, info.last) == (DAYS[0].item(), DAYS[299].item())
    assert info.bases == {"raw": 3}
    assert info.history[0].note == {"verb": "test"}


def test_one_writer_at_a_time(tmp_path):
    store = make_store(tmp_path / "market", rows())
    with writer_lock(store.path):
        with pytest.raises(StoreBusyError, match=f"process {os.getpid()}"):
            store.compact()
        assert store.frame().height  # reading does not wait
    store.compact()


def test_the_lock_of_a_dead_process_is_free(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from barcast.core.lock import writer_lock\n"
        "with writer_lock(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -9
    assert "pid" in json.loads((tmp_path / "writer.lock").read_text())
    with writer_lock(tmp_path):
        assert json.loads((tmp_path / "writer.lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("kind", ["disk", "permission"])
def test_the_systems_refusals_are_explained(tmp_path, monkeypatch, kind):
    import deltalake
    from deltalake.exceptions import DeltaError

    store = make_store(tmp_path / "market", rows())
    before = store.frame()
    words = {"disk": "No space left on device (os error 28)", "permission": "Permission denied (os error 13)"}

    def refuse(*_, **__):
        raise DeltaError(f"Generic LocalFileSystem error: {words[kind]}")

    monkeypatch.setattr(deltalake, "write_deltalake", refuse)
    with pytest.raises(ResourceError, match={"disk": "no space left", "permission": "no permission"}[kind]):
        publish(store, rows(seed=1))
    monkeypatch.undo()
    assert store.frame().equals(before)
    publish(store, rows(seed=1))
    assert store.frame().equals(rows(seed=1))


def naive_quorum(counts):
    """Day by day with whole lists."""
    session, kept = [], []
    for count in counts:
        usual = np.median(kept[-20:]) if kept else 0
        session.append(count >= max(1, 0.05 * usual))
        if session[-1]:
            kept.append(count)
    return session


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 200), max_size=60), st.integers(0, 60))
def test_quorum_is_causal_and_as_said(counts, cut):
    found = has_quorum(np.array(counts, np.int64))
    assert found.tolist() == naive_quorum(counts)
    assert has_quorum(np.array(counts[:cut], np.int64)).tolist() == found[:cut].tolist()


def test_stray_rows_make_no_session_on_an_observed_calendar(tmp_path):
    frame = rows(symbols=[f"S{i:02d}" for i in range(40)], count=200, factors=False)
    stray = frame.filter(pl.col("symbol") == "S00").tail(1).with_columns(time=pl.lit(date(2023, 10, 1)))
    store = make_store(
        tmp_path / "market", pl.concat([frame, stray]).sort("symbol", "time"), calendar="observed"
    )
    assert np.datetime64("2023-10-01") not in store.calendar().times
    assert len(store.bars()) == len(frame)


def test_status_tables():
    frame = pl.DataFrame(
        {"symbol": ["sh600519", "1"], "kind": ["ST", "delisted"], "start": ["2024-01-02", "2024-02-01"]}
    )
    table = conform_status(frame, "cn")
    assert table["symbol"].to_list() == ["000001.SZ", "600519.SH"]
    assert table["known_at"].to_list() == table["start"].to_list()
    ended = conform_status(frame.head(1).with_columns(end=pl.lit("2024-06-01")), "cn")
    joined = join_status(table, ended)
    assert joined.height == 2
    assert joined.filter(pl.col("kind") == "st")["end"].to_list() == [date(2024, 6, 1)]
    with pytest.raises(DataError, match="halted"):
        conform_status(frame.with_columns(kind=pl.lit("halted")), "cn")
    with pytest.raises(DataError, match="no column start"):
        conform_status(frame.drop("start"), "cn")
    unread = frame.with_columns(end=pl.Series(["2024-13-01", "2024-01-05"]), known_at=pl.lit(None))
    with pytest.raises(DataError) as caught:  # what cannot be read is never taken for an open end
        conform_status(unread, "cn")
    assert "2 rows of the status table" in caught.value.found
    assert "row 1: sh600519 has the end `2024-13-01`, which is no date" in caught.value.found
    assert "row 2: 1 ends on 2024-01-05, before it starts on 2024-02-01" in caught.value.found
    with pytest.raises(DataError, match="row 1: sh600519 has the known_at `soon`"):
        conform_status(frame.with_columns(known_at=pl.lit("soon")), "cn")
    assert conform_status(frame.with_columns(start=pl.lit(20240102)), "cn")["start"][0] == date(2024, 1, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("symbol,kind,start\n600519,st,2024-03-01,x\n1,st\n", ["row 1 `600519,st", "row 2 `1,st`"]),
        ("", ["has no column symbol, kind, start"]),
        ("symbol,kind,start\n600519,st,03/04/2024\n", ["can be read two ways"]),
        ("symbol,symbol,kind,start\n1,2,st,2024-01-01\n", ["is no table"]),
    ],
)
def test_status_files_that_cannot_be_read_are_named_with_their_rows(tmp_path, text, words):
    path = tmp_path / "status.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_status(path, "cn")
    assert all(word in str(caught.value) for word in ("status.csv", "it needs symbol, kind", *words))


def test_status_files(tmp_path):
    path = tmp_path / "status.csv"
    path.write_bytes("symbol,Kind,start,备注\n600519,ST,2024/3/1,某\n\n".encode("gb18030"))
    assert read_status(path, "cn").rows() == [("600519.SH", "st", date(2024, 3, 1), None, date(2024, 3, 1))]
    assert read_status(str(path), "cn").height == 1
    read_status(path, "cn").write_parquet(tmp_path / "status.parquet")
    assert read_status(tmp_path / "status.parquet", "cn").equals(read_status(path, "cn"))


SPELLS = [  # symbol, start, end, known_at
    ("A", 10, 20, 10),
    ("A", 15, 30, 15),  # overlaps the one before
    ("B", 5, None, 5),  # lasts
    ("C", 10, 30, 25),  # became known late
    ("C", 40, 45, 38),  # announced before
    ("D", 1, None, 1),  # no bar
]


def test_special_treatment_as_it_was_known_that_day(tmp_path):
    day = [d.item() for d in DAYS]
    told = pl.DataFrame(
        [(s, "st", day[a], None if b is None else day[b], day[k]) for s, a, b, k in SPELLS]
        + [("A", "suspended", day[50], None, day[50])],
        schema=STATUS_SCHEMA,
        orient="row",
    )
    bars = make_store(tmp_path / "market", rows(count=60), status=conform_status(told, "us")).bars()
    days = bars.calendar.days[bars.session]
    found = special_rows(told, bars.symbols, bars.symbol_of_row, days)
    slow = [
        any(s == bars.symbols[c] and max(a, k) <= t <= (99 if b is None else b) for s, a, b, k in SPELLS)
        for c, t in zip(bars.symbol_of_row, bars.session, strict=True)
    ]
    assert found.tolist() == slow
    assert found.sum() == 21 + 55 + 6 + 6
    for t in (12, 26, 41):  # cut at any day: neither the later spells nor the ends to come change anything
        known = told.filter(pl.col("known_at") <= day[t])
        early = special_rows(known, bars.symbols, bars.symbol_of_row, days)
        assert (early == found)[bars.session <= t].all()
    assert not special_rows(None, bars.symbols, bars.symbol_of_row, days).any()
    assert not special_rows(told.clear(), bars.symbols, bars.symbol_of_row, days).any()
