"""The words everyone shares."""

import errno
import io
import json
import os
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from barcast.core import errors
from barcast.core.atomic import (
    atomic_folder,
    atomic_path,
    read_json,
    sweep_leftovers,
    temporary_beside,
    write_json,
    write_text,
)
from barcast.core.calendar import Calendar, build_calendar, exchange_days
from barcast.core.config import digest, from_plain, load_toml, to_plain
from barcast.core.errors import DataError, ResourceError, RunError, UsageError, explained
from barcast.core.memory import pss_bytes, tree_pss_bytes
from barcast.core.predictions import SCHEMA, conform, read_predictions, write_predictions
from barcast.core.progress import Progress, clock, count
from barcast.core.runs import RunFolder, broken_runs, list_runs, open_run, run_identity, start_run
from barcast.core.workspace import Workspace
from tests.conftest import make_bars


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = (1, 2)
    since: date | None = None
    inner: Inner = field(default_factory=Inner)


class TestConfig:
    def test_round_trip(self):
        config = Outer(name="b", sizes=(3,), since=date(2024, 1, 2), inner=Inner(rate=0.5))
        assert from_plain(Outer, json.loads(json.dumps(to_plain(config)))) == config

    def test_whole_numbers_fill_floats(self):
        assert from_plain(Outer, {"inner": {"rate": 1}}).inner.rate == 1.0

    def test_an_unknown_key_names_the_nearest(self):
        with pytest.raises(UsageError, match="did you mean `sizes`"):
            from_plain(Outer, {"size": [1]})

    @pytest.mark.parametrize(
        "bad", [{"name": "c"}, {"sizes": 3}, {"sizes": ["x"]}, {"inner": {"rate": "high"}}]
    )
    def test_a_wrong_kind_says_where(self, bad):
        with pytest.raises(UsageError, match=r"config\."):
            from_plain(Outer, bad)

    def test_digest_follows_values_not_order(self):
        assert digest({"a": 1, "b": (2, 3)}) == digest({"b": [2, 3], "a": 1})
        assert digest({"a": 1}) != digest({"a": 2})

    def test_toml_errors_name_the_file(self, tmp_path):
        (tmp_path / "x.toml").write_text("a = = 1")
        with pytest.raises(UsageError, match=r"x\.toml"):
            load_toml(tmp_path / "x.toml")


class TestAtomic:
    def test_a_failed_write_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "a.txt"
        write_text(path, "old")

        def interrupted():
            with atomic_path(path) as temporary:
                temporary.write_text("half")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            interrupted()
        assert path.read_text() == "old"
        assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]

    def test_folders_appear_whole(self, tmp_path):
        (tmp_path / "d").mkdir()
        with atomic_folder(tmp_path / "d") as temporary:
            (temporary / "x").write_text("one")
        assert (tmp_path / "d" / "x").read_text() == "one"
        assert [p.name for p in tmp_path.iterdir()] == ["d"]

    def test_a_folder_with_files_is_never_replaced(self, tmp_path, monkeypatch):
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "thesis.txt").write_text("years of work")
        monkeypatch.chdir(tmp_path / "d")
        for target in (tmp_path / "d", Path(), tmp_path / "d" / "thesis.txt"):
            with pytest.raises(UsageError, match="no empty folder"), atomic_folder(target):
                pass

        def filled_meanwhile():
            with atomic_folder(tmp_path / "e") as temporary:
                (temporary / "x").write_text("ours")
                (tmp_path / "e").mkdir()
                (tmp_path / "e" / "y").write_text("theirs")

        with pytest.raises(OSError, match="not empty"):
            filled_meanwhile()
        assert (tmp_path / "d" / "thesis.txt").read_text() == "years of work"
        assert [p.name for p in (tmp_path / "e").iterdir()] == ["y"]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "e"]

    def test_a_file_does_not_replace_a_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for target in (tmp_path, Path(), Path("..")):
            with pytest.raises(UsageError, match="is a folder"), atomic_path(target):
                pass

    def test_old_leftovers_are_swept_and_nothing_else(self, tmp_path):
        old = temporary_beside(tmp_path / "run.json")
        fresh = temporary_beside(tmp_path / "run.json")
        folder = temporary_beside(tmp_path / "d")
        theirs = tmp_path / "notes.tmp-2024"
        folder.mkdir()
        for path in (old, fresh, theirs, folder / "x"):
            path.write_text("")
        for path in (old, folder, theirs):
            os.utime(path, (0, 0))
        assert sweep_leftovers(tmp_path) == 2
        assert sorted(tmp_path.iterdir()) == sorted([fresh, theirs])

    def test_json_refuses_nan(self, tmp_path):
        with pytest.raises(ValueError, match="JSON compliant"):
            write_json(tmp_path / "x.json", float("nan"))
        write_json(tmp_path / "x.json", {"名": 1})
        assert read_json(tmp_path / "x.json") == {"名": 1}

    @pytest.mark.parametrize(
        ("code", "word"), [(errno.ENOSPC, "no space left"), (errno.EACCES, "no permission")]
    )
    def test_the_systems_refusals_are_explained(self, code, word):
        with pytest.raises(ResourceError, match=word), explained("writing", Path("x")):
            raise OSError(code, os.strerror(code))

    def test_other_errors_pass(self):
        with pytest.raises(FileNotFoundError), explained("reading", Path("x")):
            Path("/nowhere/at/all").read_text()


def test_the_error_tree_in_the_docstring_is_the_tree():
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.BarcastError)]
    assert len(kinds) > 10
    for kind in kinds:
        line = next(line for line in errors.__doc__.splitlines() if f"{kind.__name__} " in line)
        assert str(kind.exit_code) in line.split()


class TestCalendar:
    def test_exchanges_know_their_holidays(self):
        days = exchange_days("XSHG", date(2024, 2, 5), date(2024, 2, 20))
        assert [str(d) for d in days] == [
            "2024-02-05", "2024-02-06", "2024-02-07", "2024-02-08", "2024-02-19", "2024-02-20",
        ]  # fmt: skip
        assert np.datetime64("2024-07-04") not in exchange_days("XNYS", date(2024, 7, 1), date(2024, 7, 7))
        assert len(exchange_days("24x7", date(2024, 1, 1), date(2024, 1, 7))) == 7

    def test_unknown_names_are_refused(self):
        with pytest.raises(UsageError, match="choose one of"):
            exchange_days("MARS", date(2024, 1, 1), date(2024, 1, 2))
        with pytest.raises(UsageError, match="frequency"):
            build_calendar("XNYS", "7h", np.array([], "datetime64[s]"))

    def test_a_session_that_no_file_has_still_counts(self):
        seen = np.array(["2024-01-02", "2024-01-04"], "datetime64[D]")
        calendar = build_calendar("XNYS", "1d", seen)
        assert len(calendar) == 3
        assert calendar.index(np.array(["2024-01-04", "2024-01-06"], "datetime64[D]")).tolist() == [2, -1]

    def test_round_the_clock_is_an_even_grid(self):
        seen = np.array(["2024-01-01T00", "2024-01-01T05"], "datetime64[s]")
        calendar = build_calendar("24x7", "1h", seen)
        assert len(calendar) == 6 and calendar.bars_per_day == 24

    def test_the_next_sessions_lie_beyond_the_data(self):
        calendar = build_calendar("XNYS", "1d", np.array(["2024-07-02", "2024-07-03"], "datetime64[D]"))
        assert str(calendar.next_after(np.datetime64("2024-07-03"))) == "2024-07-05"
        assert str(calendar.next_after(np.datetime64("2024-07-02"), 3)) == "2024-07-08"
        hours = Calendar("24x7", "1h", np.array(["2024-01-01T00"], "datetime64[s]"))
        assert str(hours.next_after(np.datetime64("2024-01-01T00", "s"), 2)) == "2024-01-01T02:00:00"

    @given(st.lists(st.integers(1, 3), min_size=1, max_size=60), st.lists(st.integers(1, 16), max_size=5))
    @example([1] * 25, [16])
    @example([1] * 3, [16] * 2)
    def test_later_days_change_no_hole_of_earlier_ones(self, known, later_days):
        """Cut anywhere, a hole that has been seen so far is long by both counts or by neither."""
        bars_of_day, cut = known + later_days, len(known)
        day = np.repeat(np.arange(len(bars_of_day)), bars_of_day)
        hour = np.concatenate([np.arange(count) for count in bars_of_day])
        times = np.datetime64("2024-01-01", "s") + (day * 24 + hour) * np.timedelta64(3600, "s")
        early = times[day < cut]
        now = Calendar("observed", "1h", early).bars_per_day
        later = Calendar("observed", "1h", times).bars_per_day
        longest = np.arange(len(early))
        assert ((longest > 20 * now) == (longest > 20 * later)).all()

    def test_intraday_sessions_go_on_the_next_exchange_day(self):
        def day(text, first, last):
            hours = np.arange(np.datetime64(f"{text}T{first}"), np.datetime64(f"{text}T{last}"), 60)
            return hours.astype("datetime64[s]")

        friday, monday = day("2024-03-08", "14:30", "20:31"), day("2024-03-11", "13:30", "19:31")
        calendar = Calendar("XNYS", "1h", friday)
        found = [calendar.next_after(friday[-1], steps) for steps in range(1, 15)]
        assert found[:7] == list(monday)  # clocks went forward in between
        assert str(found[7]) == "2024-03-12T13:30:00"
        half = Calendar("XNYS", "1h", np.concatenate([friday, monday[:3]]))
        assert [half.next_after(monday[2], steps) for steps in (1, 2, 3, 4)] == list(monday[3:])
        assert half.next_after(friday[0], 2) == friday[2]

    @pytest.mark.realdata
    @pytest.mark.parametrize(
        ("file", "name"), [("cn_a_share", "XSHG"), ("us_market", "XNYS"), ("kdd17", "XNYS")]
    )
    def test_real_sessions_are_the_exchanges(self, real_data, file, name):
        seen = pl.read_parquet(real_data / f"{file}.parquet", columns=["date"])["date"].unique().sort()
        assert (build_calendar(name, "1d", seen.to_numpy()).times == seen.to_numpy()).all()


class TestBars:
    def test_lives_break_at_long_holes_only(self):
        bars = make_bars((100, 100), holes=[(0, 40, 59), (1, 40, 60)])
        assert np.diff(bars.lives).tolist() == [80, 40, 39]

    def test_until_is_the_history_known_then(self):
        bars = make_bars((100, 60))
        part = bars.until(70)
        assert len(part.calendar) == 71 and part.session.max() == 70
        assert (part.lives[:-1] == bars.lives[:-1] - [0, 29]).all()
        np.testing.assert_array_equal(part.close, bars.close[bars.session <= 70])

    def test_empty_symbols_stay(self):
        bars = make_bars((50, 10))
        part = bars.until(20)
        assert part.num_symbols == 2 and np.diff(part.offsets).tolist() == [21, 0]
        assert part.lives.tolist() == [0, 21]

    def test_the_digest_sees_every_number(self):
        bars = make_bars((30, 20))
        before = bars.content_digest()
        assert before == make_bars((30, 20)).content_digest()
        bars.volume[7] += 1
        assert bars.content_digest() != before


class TestPredictions:
    def test_round_trip_and_missing_columns(self, tmp_path):
        write_predictions(tmp_path / "p.parquet", pl.DataFrame({"symbol": ["A"], "score": [1]}))
        found = read_predictions(tmp_path / "p.parquet")
        assert found.columns == list(SCHEMA) and found["score"].to_list() == [1.0]
        assert found["y"].to_list() == [None]

    def test_strangers_are_refused(self):
        with pytest.raises(DataError, match="price"):
            conform(pl.DataFrame({"price": [1.0]}))
        with pytest.raises(DataError, match="do not fit"):
            conform(pl.DataFrame({"score": ["high"]}))


class TestRuns:
    def start(self, tmp_path, seed=0):
        place = Workspace(tmp_path)
        identity = run_identity({"seed": seed}, "2024-01-02", "abc")
        return place, start_run(place, "lstm", identity, {"seed": seed}, {"cutoff": "2024-01-02"})

    def test_identity_follows_config_cutoff_and_rows(self):
        base = run_identity({"a": 1}, "2024-01-02", "x")
        assert base == run_identity({"a": 1}, "2024-01-02", "x")
        others = [({"a": 2}, "2024-01-02", "x"), ({"a": 1}, "2024-01-03", "x"), ({"a": 1}, "2024-01-02", "y")]
        assert base not in [run_identity(*o) for o in others]

    def test_found_by_beginning_and_refused_when_unclear(self, tmp_path):
        place, run = self.start(tmp_path)
        assert open_run(place, run.name[:8]).path == run.path
        self.start(tmp_path, seed=1)
        assert len(list_runs(place)) == 2
        with pytest.raises(RunError, match="several"):
            open_run(place, "lstm")
        with pytest.raises(RunError, match="no run called"):
            open_run(place, "gru")

    def test_a_torn_run_breaks_no_other(self, tmp_path):
        place, run = self.start(tmp_path)
        for name, text in (("torn", '{"name": "to'), ("list", "[]")):
            (place.runs / name).mkdir()
            (place.runs / name / "run.json").write_text(text)
        assert [r.name for r in list_runs(place)] == [run.name]
        assert [r.name for r in broken_runs(place)] == ["list", "torn"]
        with pytest.raises(RunError, match="damaged"):
            _ = RunFolder(place.runs / "torn").info

    def test_a_line_cut_by_a_kill_is_left_out(self, tmp_path):
        _, run = self.start(tmp_path)
        for step in (1, 2, 3):
            run.append_metrics({"step": step})
        with run.metrics.open("a") as file:
            file.write('{"step": 4, "lo')
        assert [line["step"] for line in run.read_metrics()] == [1, 2, 3]
        run.keep_metrics(2)
        assert [line["step"] for line in run.read_metrics()] == [1, 2]

    def test_environment_and_command_are_kept_and_name_nobody(self, tmp_path):
        _, run = self.start(tmp_path)
        text = json.dumps(run.read("environment.json"))
        assert "torch" in text and str(Path.home()) not in text
        assert run.info["status"] == "running" and run.info["command"]
        assert not RunFolder(tmp_path / "nothing").is_done


def test_memory_is_measured():
    assert pss_bytes() > 1e6
    assert tree_pss_bytes() > 0.9 * pss_bytes()


def test_off_a_terminal_a_line_comes_every_ten_seconds(monkeypatch):
    """Neither nothing nor thousands: in a log file each line stays."""
    stream, now = io.StringIO(), [100.0]
    monkeypatch.setattr("barcast.core.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    progress = Progress(stream=stream)
    for step in range(6000):  # one minute
        progress.step(f"step {step}")
        now[0] += 0.01
    assert len(stream.getvalue().splitlines()) in (6, 7)
    assert "\r" not in stream.getvalue()
    silent = Progress(enabled=False, stream=stream)
    silent.note("nothing")
    assert not silent.due() and "nothing" not in stream.getvalue()


def test_words_for_people():
    assert [clock(7), clock(750), clock(3723)] == ["0:07", "12:30", "1:02:03"]
    assert [count(950), count(12300), count(4.8e6), count(1.4e13)] == ["950", "12.3k", "4.8M", "14.0T"]
