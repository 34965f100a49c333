import json
import os
import random
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from barcast.core.errors import (
    OverlapError,
    ResourceError,
    RunError,
    StoreError,
    StoreVersionError,
    UsageError,
)
from barcast.fleet import ledger_file
from barcast.fleet.ledger import Ledger
from barcast.fleet.ledger_rows import (
    ASKED_AGAIN,
    DATA_CHANGED,
    FAILED_BEFORE,
    INTERRUPTED,
    LEFT_OUT_BEFORE,
    NEW,
    SETTINGS_CHANGED,
    StoredMetrics,
    Wanted,
)
from barcast.fleet.work import SymbolResult, Unit
from tests.fleet.ledger_writer import result_of, wanted, write


def unit(symbol, preset="fast"):
    return Unit((symbol,), (0,), preset)


def done(symbol, model=b"model", **values):
    return SymbolResult(symbol, "fast", "done", model=model, **values)


def failed(symbol):
    return SymbolResult(symbol, "fast", "failed", reason="23 rows", todo="import more")


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(tmp_path / "fleet.sqlite") as ledger:
        ledger.plan([Wanted(name, i, "s1", "d1") for i, name in enumerate("ABCDEF")])
        yield ledger


def test_each_fate_is_planned_for_its_reason(ledger):
    ledger.start([unit(name) for name in "ABCD"])
    ledger.finish([done("A"), failed("B"), done("D")])
    ledger.leave_out({"E": "the budget"})
    again = ledger.plan([Wanted(name, i, "s1", "d1") for i, name in enumerate("ABCDEFG")])
    assert {each.symbol: (each.why, each.attempts) for each in again.todo} == {
        "C": (INTERRUPTED, 1),
        "E": (LEFT_OUT_BEFORE, 0),
        "F": (NEW, 0),
        "G": (NEW, 0),
    }
    assert (again.done, again.failed) == (2, ("B",))
    # A second kill before any fit changes nothing of the reasons.
    assert ledger.plan([Wanted(name, i, "s1", "d1") for i, name in enumerate("ABCDEFG")]) == again
    assert again.reasons() == {INTERRUPTED: 1, LEFT_OUT_BEFORE: 1, NEW: 2}


def test_only_what_changed_is_planned_and_loses_its_model(ledger):
    ledger.finish([done(name) for name in "ABC"])
    ledger.set_pooled("weights", {"A": [1], "B": [2], "C": [3]})
    plan = ledger.plan([Wanted("A", 0, "s2", "d2"), Wanted("B", 1, "s1", "d2"), Wanted("C", 7, "s1", "d1")])
    assert [(each.symbol, each.why) for each in plan.todo] == [("A", SETTINGS_CHANGED), ("B", DATA_CHANGED)]
    assert plan.done == 1
    assert [symbol for symbol, _ in ledger.models()] == ["C"] == list(ledger.pooled("weights"))
    assert ledger.row("C").position == 7
    with pytest.raises(UsageError, match="A has no model of its own, it is pending"):
        ledger.model("A")


def test_attempts_are_counted_before_the_fit_until_something_changes(ledger):
    for attempt in (1, 2):
        ledger.start([unit("A", "high")])
        assert (ledger.row("A").status, ledger.row("A").preset) == ("running", "high")
        assert ledger.plan([Wanted("A", 0, "s1", "d1")]).todo[0].attempts == attempt
    assert ledger.plan([Wanted("A", 0, "s1", "d2")]).todo[0].attempts == 0


def test_failures_are_tried_again_when_asked(ledger):
    ledger.finish([failed("A"), failed("B"), done("C")])
    assert ledger.row("A").reason == "23 rows"
    with pytest.raises(UsageError, match=r"it is failed: 23 rows\n  -> import more"):
        ledger.model("A")
    assert ledger.retry_failed() == ("A", "B")
    assert [each.why for each in ledger.plan([Wanted("A", 0, "s1", "d1")]).todo] == [FAILED_BEFORE]
    assert ledger.row("A").reason == ""
    ledger.reset(["C"])
    assert ledger.row("C").why == ASKED_AGAIN
    assert not list(ledger.models())


def test_units_of_several_are_known_until_they_end_or_their_symbols_begin_anew(ledger):
    def several(symbols, preset="fast"):
        return Unit(tuple(symbols), tuple(range(len(symbols))), preset)

    ledger.start([several("BA"), several("DC", "high"), unit("E")])
    assert ledger.begun() == [("fast", ("B", "A")), ("high", ("D", "C"))]
    ledger.plan([Wanted(name, i, "s1", "d1") for i, name in enumerate("ABCDEF")])  # the next call
    with Ledger.open(ledger.path) as reader:
        assert reader.begun() == [("fast", ("B", "A")), ("high", ("D", "C"))]
    ledger.finish([done("B"), failed("A")])
    assert ledger.begun() == [("high", ("D", "C"))]
    ledger.start([unit("C")])
    assert ledger.begun() == []


def test_what_is_undone_was_never_there_for_others(ledger):
    ledger.finish([done("A"), failed("B")])
    before, digest = ledger.rows(), ledger.content_digest()
    with pytest.raises(ZeroDivisionError), ledger.undone():
        ledger.plan([Wanted("C", 2, "s2", "d2")])
        ledger.start([unit("C", "high")])
        ledger.finish([done("C")])
        ledger.retry_failed()
        ledger.set_meta({"uneven": True})
        assert ledger.counts()["done"] == 2
        with Ledger.open(ledger.path) as reader:
            assert reader.rows() == before
        raise ZeroDivisionError
    assert ledger.rows() == before and ledger.content_digest() == digest and not ledger.meta()
    ledger.finish([done("C")])  # and it goes on as ever
    assert ledger.counts()["done"] == 2


def test_a_failed_refit_leaves_no_stale_model(ledger):
    ledger.finish([done("A")])
    ledger.finish([failed("A")])
    assert not list(ledger.models())
    assert ledger.row("A").model_bytes == 0


def test_rows_say_what_was_kept(ledger):
    metrics = {"ic": np.float32(0.5), "curve": np.arange(2), "none": float("nan"), "best": np.int64(3)}
    ledger.finish(
        [done("B", b"12345", seconds=1.5, memory_bytes=9, num_rows=7, metrics=metrics, native=b"12")]
    )
    row = ledger.row("B")
    assert row.metrics == {"ic": 0.5, "curve": [0, 1], "none": None, "best": 3}
    assert (row.seconds, row.memory_bytes, row.num_rows, row.model_bytes, row.native_bytes) == (
        1.5,
        9,
        7,
        5,
        2,
    )
    assert ledger.model("B") == (b"12345", b"12")
    assert ledger.counts() == {"pending": 5, "running": 0, "done": 1, "failed": 0, "left_out": 0}
    assert [row.symbol for row in ledger.rows(status=["done"])] == ["B"]
    assert [row.symbol for row in ledger.rows(preset="fast")] == ["B"]
    assert [row.symbol for row in ledger.rows(limit=2)] == ["A", "B"]


def test_results_of_a_unit_are_kept_all_or_none(ledger):
    with pytest.raises(UsageError, match="Z is not in the fleet"):
        ledger.finish([done("A"), done("Z")])
    assert ledger.counts()["done"] == 0
    with pytest.raises(RuntimeError), ledger.together():
        ledger.finish([done("A")])
        raise RuntimeError
    assert ledger.counts()["done"] == 0
    with pytest.raises(UsageError, match="Z is not"):
        ledger.set_pooled("weights", {"A": 1, "Z": 2})
    assert ledger.pooled("weights") == {}
    with pytest.raises(UsageError, match="Z is not"):
        ledger.reset(["A", "Z"])


def test_a_block_written_together_is_seen_by_others_at_its_end(ledger):
    with Ledger.open(ledger.path) as reader:
        with ledger.together():
            ledger.finish([done("A")])
            ledger.start([unit("B")])
            assert reader.counts()["done"] == 0
        assert (reader.counts()["done"], reader.counts()["running"]) == (1, 1)


def test_meta_is_kept_by_name(ledger):
    ledger.set_meta({"preset": "fast", "plan": {"minutes": 3}})
    ledger.set_meta({"preset": "high"})
    assert ledger.meta() == {"preset": "high", "plan": {"minutes": 3}}


def test_content_digest_knows_models_and_not_their_order(tmp_path):
    def fleet(name, results, weights):
        with Ledger.create(tmp_path / name / "fleet.sqlite") as ledger:
            ledger.plan([Wanted(each, 0, "s", "d") for each in "AB"])
            for result in results:
                ledger.start([unit(result.symbol)])
                ledger.finish([result])
            ledger.set_pooled("weights", weights)
            return ledger.content_digest(), ledger.content_digest("weights")

    weights = {"A": [0.1], "B": [0.2]}
    first = fleet("1", [done("A", b"1"), done("B", b"2")], weights)
    assert fleet("2", [failed("B"), done("B", b"2", seconds=9), done("A", b"1")], weights) == first
    assert fleet("3", [done("A", b"1"), done("B", b"3")], weights)[0] != first[0]
    assert fleet("4", [done("A", b"2"), done("B", b"1")], weights)[0] != first[0]
    assert fleet("5", [done("A", b"1")], {"A": [0.1]})[0] != first[0]
    other = fleet("6", [done("A", b"1"), done("B", b"2")], {"A": [0.1], "B": [0.3]})
    assert other[0] == first[0]
    assert other[1] != first[1]


def test_one_writer_any_readers(ledger):
    with pytest.raises(OverlapError, match=f"process {os.getpid()}"):
        Ledger.create(ledger.path)
    with pytest.raises(OverlapError):
        Ledger.open(ledger.path, readonly=False)
    with Ledger.open(ledger.path) as reader:
        assert reader.counts()["pending"] == 6
        with pytest.raises(ResourceError, match="no permission"):
            reader.set_meta({"a": 1})


def test_opening_again_goes_on_and_fresh_begins_anew(tmp_path):
    path = tmp_path / "run" / "fleet.sqlite"
    with pytest.raises(RunError, match="no fleet ledger at"):
        Ledger.open(path)
    for fresh, there in ((False, 0), (False, 1), (True, 0)):
        with Ledger.create(path, fresh=fresh) as ledger:
            assert sum(ledger.counts().values()) == there
            ledger.plan(wanted(1))
    with Ledger.open(path, readonly=False) as ledger:
        ledger.finish([done("S0000")])
        assert ledger.size_bytes() >= path.stat().st_size > 0


def test_files_that_are_no_ledger_are_refused_and_left_alone(tmp_path):
    path = tmp_path / "fleet.sqlite"
    path.write_bytes(b"no database at all" * 100)
    for attempt in (Ledger.open, Ledger.create):
        with pytest.raises(StoreError, match="damaged or no fleet ledger"):
            attempt(path)
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE photographs (a)")
    other.close()
    for attempt in (Ledger.open, Ledger.create):
        with pytest.raises(StoreError, match="but no fleet ledger"):
            attempt(path)
    path.write_bytes(b"")  # the making of it was cut off
    Ledger.create(path).close()


def test_a_newer_version_is_refused_by_name(ledger):
    ledger.close()
    with sqlite3.connect(ledger.path) as connection:
        connection.execute(f"PRAGMA user_version = {ledger_file.VERSION + 1}")
    connection.close()
    for attempt in (Ledger.open, Ledger.create):
        with pytest.raises(StoreVersionError, match="pip install -U barcast"):
            attempt(ledger.path)


def test_a_full_disk_keeps_what_was_finished(ledger):
    ledger.finish([done("A", b"a" * 20_000)])
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(ResourceError, match="no space left on the disk"):
        ledger.finish([done("B", b"b" * 200_000)])
    ledger._connection.execute("PRAGMA max_page_count = 1000000")
    assert ledger.model("A").model == b"a" * 20_000
    assert ledger.row("B").status == "pending"
    ledger.finish([done("B", b"b" * 200_000)])


def test_a_folder_that_cannot_be_written(tmp_path, ledger, monkeypatch):
    ledger.close()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the way of a read-only folder, root or not
    with Ledger.open(ledger.path) as reader:
        assert reader.counts()["pending"] == 6
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(ResourceError, match="make this folder writable"),
        ledger_file.refusals_told("opening", tmp_path),
    ):
        sqlite3.connect(tmp_path / "folder")


def test_damage_inside_is_told(ledger):
    ledger.finish([done(symbol, os.urandom(30_000)) for symbol in "ABCDEF"])
    ledger.close()
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole[:8192] + os.urandom(len(whole) - 8192))
    with Ledger.open(ledger.path) as reader, pytest.raises(StoreError, match="restore it from a backup"):
        list(reader.models())


def test_models_come_one_at_a_time_in_order(tmp_path):
    with Ledger.create(tmp_path / "fleet.sqlite") as ledger:
        ledger.plan(wanted(60))
        for i in reversed(range(60)):
            ledger.finish([done(f"S{i:04d}", bytes([i]) * 500_000)])
        tracemalloc.start()
        try:
            seen = [(symbol, model[0], len(model)) for symbol, model in ledger.models()]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert seen == [(f"S{i:04d}", i, 500_000) for i in range(60)]
    assert peak < 4_000_000


def test_ten_thousand_symbols_are_listed_without_their_models(tmp_path):
    path, metrics = (
        tmp_path / "fleet.sqlite",
        {"weights": [0.25] * 4, "log_score": 1.25, "members": list("abcd")},
    )
    with Ledger.create(path) as ledger:
        ledger.plan(wanted(10_000))
        ledger.finish([done(f"S{i:04d}", bytes(20_000), metrics=metrics) for i in range(10_000)])
    with Ledger.open(path) as ledger:
        rows = ledger.rows()
        assert ledger.counts()["done"] == len(rows) == 10_000
    assert {(row.model_bytes, row.metrics["log_score"]) for row in rows} == {(20_000, 1.25)}
    with Ledger.open(path) as ledger:
        assert ledger.row("S5000").metrics == metrics


def start_writer(path, count, seed):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.fleet.ledger_writer", str(path), str(count), str(seed)]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)


def kill_and_look(path, count, seed, moment):
    """Kill a writer some time after it began; whatever is there must be whole. Return whether it ended first."""
    with start_writer(path, count, seed) as child:
        assert child.stdout.readline() == "begun\n"
        time.sleep(moment)
        child.kill()
        ended = "ended" in child.stdout.read()
    with Ledger.open(path) as ledger:
        assert ledger._connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert ledger._connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert ledger.counts()["running"] <= 2  # one for each of the two workers
        for symbol, model in ledger.models():
            expected, row = result_of(symbol), ledger.row(symbol)
            assert (model, ledger.model(symbol).native) == (expected.model, expected.native)
            assert (row.status, row.metrics) == ("done", expected.metrics)
        assert sum(1 for _ in ledger.models()) == ledger.counts()["done"]
    return ended


def kill_many_times(folder, kills, count):
    order = random.Random(kills)
    for seed in range(kills):
        if kill_and_look(folder / "killed.sqlite", count, seed, order.uniform(0, 0.3)):
            with Ledger.open(folder / "killed.sqlite", readonly=False) as ledger:
                ledger.reset([row.symbol for row in ledger.rows()])
    write(folder / "killed.sqlite", count, 0)
    (folder / "other").mkdir()
    write(folder / "other" / "whole.sqlite", count, 1)
    with (
        Ledger.open(folder / "killed.sqlite") as one,
        Ledger.open(folder / "other" / "whole.sqlite") as other,
    ):
        assert one.counts()["done"] == count
        assert one.content_digest() == other.content_digest()
        # Whatever was begun a second time was running at a kill: at most two a kill.
        assert sum(row.attempts - 1 for row in one.rows()) <= 2 * kills


def test_a_kill_at_any_moment_loses_no_finished_symbol(tmp_path):
    kill_many_times(tmp_path, 3, 150)


@pytest.mark.soak
def test_fifty_kills_lose_no_finished_symbol(tmp_path, soak_table):
    with soak_table.judging("fleet", "ledger killed at 50 random moments: every finished symbol whole"):
        kill_many_times(tmp_path, 50, 1500)


def test_metrics_are_json_that_any_reader_takes(ledger):
    ledger.finish([done("A", metrics={"nan": float("nan"), "text": "NaN and Infinity", "中": float("inf")})])
    (text,) = ledger._connection.execute("SELECT metrics FROM symbols WHERE symbol = 'A'").fetchone()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "nan": None,
        "text": "NaN and Infinity",
        "中": None,
    }


def test_stored_metrics_read_like_what_was_written():
    told = {"名": 1, "horizons": [{"rmse": 0.5}], "curve": {"inner": None}}
    for text in (json.dumps(told), json.dumps(told, ensure_ascii=False)):
        stored = StoredMetrics(text)
        assert stored == told and dict(stored) == told and len(stored) == 3 and repr(stored) == repr(told)
        assert stored["名"] == 1 and stored.get("horizons") == told["horizons"]
        assert "inner" not in stored and stored.get("taken_over", {}) == {}
