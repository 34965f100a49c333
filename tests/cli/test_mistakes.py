"""Mistakes that can be foreseen get a reason and the code of their kind, never "bug in barcast"."""

import json
import os

import pytest

from barcast.cli import app
from barcast.core.runs import list_runs
from barcast.core.workspace import Workspace
from tests.store.builders import make_store, rows


@pytest.fixture
def place(tmp_path):
    make_store(tmp_path / "market", rows(count=300))
    return tmp_path


def run(*arguments) -> int:
    return app._run([str(a) for a in arguments], debug=False)


def test_a_config_file_that_is_not_there(place, capsys):
    for path in (place / "no.toml", place):
        assert run("train", "ridge", "--config", path, "-w", place) == 2
    assert "no config file at" in capsys.readouterr().err
    (place / "latin.toml").write_bytes(b"# \xe9\xff")
    assert run("train", "ridge", "--config", place / "latin.toml", "-w", place) == 2


def test_a_seed_that_is_no_number(place, capsys):
    (place / "c.toml").write_text('seed = "x"')
    assert run("train", "ridge", "--config", place / "c.toml", "-w", place) == 2
    assert "seed: expected a whole number, found `'x'`" in capsys.readouterr().err


def test_a_feature_set_that_is_not_there_is_found_by_a_dry_run_too(place, capsys):
    assert run("train", "lstm", "--features", "nonsense", "--dry-run", "-w", place, "-q") == 2
    assert "no feature set `nonsense`" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_leaves_no_run(place, capsys, device):
    assert run("train", "lstm", "--device", device, "-w", place, "--quiet") == 2
    assert f"no device `{device}`" in capsys.readouterr().err
    assert not (place / "runs").exists()


def test_a_folder_where_a_file_is_to_be_written(place, capsys):
    assert run("data", "export", place, "-w", place) == 2
    assert run("data", "check", "--output", place, "-w", place) == 2
    assert run("predict", "--output", place, "-w", place) == 2
    assert capsys.readouterr().err.count("is a folder") == 3


def test_an_ending_and_a_language_that_nobody_knows(place, capsys):
    assert run("data", "check", "--output", place / "x.txt", "-w", place) == 2
    assert "x.txt: neither .csv nor .parquet" in capsys.readouterr().err
    assert not (place / "x.txt").exists()
    assert run("data", "check", "--lang", "fr", "-w", place) == 2
    assert run("compare", "--lang", "fr", "-w", place) == 2
    assert capsys.readouterr().err.count("--lang fr: not a language") == 2


def test_a_workspace_that_is_a_file(place, capsys):
    (place / "note.txt").write_text("x")
    for below in (place / "note.txt", place / "note.txt" / "w"):
        assert run("data", "info", "-w", below) == 2
    assert capsys.readouterr().err.count(f"{place / 'note.txt'} is a file") == 2


def test_an_update_of_nothing_and_status_tables_that_are_none(place, capsys):
    bars = place / "bars.csv"
    bars.write_text("date,open,high,low,close,volume\n2024-01-02,1,1,1,1,1\n")
    assert run("data", "update", bars, "-w", place / "new") == 4
    assert f"barcast data import {bars} -w {place / 'new'} --market cn|us|" in capsys.readouterr().err
    (place / "s.csv").write_text("symbol,kind,start\nA,halted,2024-01-02\n")
    for table in (place / "no.csv", place / "s.csv"):
        assert run("data", "update", bars, "--basis", "raw", "--status", table, "-w", place) == 3
        assert run("data", "status", table, "-w", place) == 3
        assert run("data", "import", bars, "--market", "us", "--status", table, "-w", place / "n") == 3
    assert capsys.readouterr().err.count("row 1: A has the kind `halted`") == 3
    assert not (place / "new").exists()


def test_a_torn_run_is_named_by_doctor_and_stops_nothing(place, capsys):
    (place / "runs" / "lstm-torn").mkdir(parents=True)
    (place / "runs" / "lstm-torn" / "run.json").write_text('{"name": "ls')
    assert run("runs", "--json", "-w", place) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert list_runs(Workspace(place)) == []
    assert run("doctor", "--json", "-w", place) == 0
    found = {line["name"]: line for line in json.loads(capsys.readouterr().out)}
    assert found["broken runs"]["found"] == "lstm-torn"
    assert "run.json cannot be read" in found["broken runs"]["advice"]
    assert run("predict", place / "runs" / "lstm-torn", "-w", place) == 5


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (MemoryError("Unable to allocate 9 TiB"), 6, "out of memory"),
        (FileNotFoundError(2, "No such file or directory", "weights.safetensors"), 6, "weights.safetensors"),
        (BrokenPipeError(), 0, ""),
        (ZeroDivisionError("really"), 70, "bug in barcast"),
    ],
)
def test_what_the_system_refuses_is_no_bug(monkeypatch, capsys, error, code, word):
    def refused(**_):
        raise error

    monkeypatch.setattr(app, "app", refused)
    assert run("doctor") == code
    assert word in capsys.readouterr().err


def test_doctor_sweeps_what_killed_commands_left(place, capsys):
    left = place / "runs" / "lstm-1" / "run.json.tmp-123-0123abcd"
    left.parent.mkdir(parents=True)
    left.write_text("")
    os.utime(left, (0, 0))
    assert run("doctor", "--json", "-w", place) == 0
    assert "removed 1 half-written" in capsys.readouterr().out
    assert not left.exists()
