"""Mistakes that can be foreseen get a reason and the code of their kind, never "bug in barcast"."""

import json
import os
import pathlib
import sys

import pytest

import barcast
from barcast.cli import app
from barcast.core.errors import ResourceError, RunError, UsageError
from barcast.core.runs import RunFolder, list_runs
from barcast.core.workspace import Workspace
from barcast.pipeline.results import check_output_dir
from barcast.pipeline.settings import resolve
from barcast.store import MarketStore
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


@pytest.mark.parametrize(
    ("flags", "found", "todo"),
    [
        ("lstm --seed -1", "seed: expected a whole number of 0 or more, found `-1`", "--seed 7"),
        ("lstm --target foo", "`foo` is not one of auto, rank", "write one of them"),
        ("lstm --target ranks", "`ranks` is not one of auto", "did you mean `rank`?"),
        ("gru --target a10", "a machine to plan for", "barcast plan train gru --target a10"),
        ("lstm --amp on", "`on` is not one of auto, bf16", "write one of them"),
        ("lstm --optimizer lion", "`lion` is not one of adamw", "write one of them"),
        ("lstm --horizon 0", "whole numbers from 1 on, got 0", "--horizon 5 or --horizon 1,5"),
        ("lstm --horizon -5", "whole numbers from 1 on, got -5", "--horizon 5 or --horizon 1,5"),
        ("lstm --horizon 5,5 --dry-run", "different whole numbers from 1 on, got 5, 5", "--horizon 5"),
        ("lstm --delay -1", "`delay` must not be negative, got -1", "the next close"),
        ("lstm --asof yesterday", "`asof` is not a date: `yesterday`", "--asof 2024-03-08"),
        ("lstm --epochs 1000000000000 --dry-run", "`epochs` must be at most 100000", "the flag"),
        ("lstm --threads 100000 --dry-run", "`threads` must be at most 1024", "the flag"),
        ("lstm --size auto --time-budget soon", "--time-budget `soon` is no duration", '"30m"'),
        ("lstm --size auto --time-budget -3", "`--time-budget` must be positive, got -3", '"30m"'),
        ("lstm --horizon a", "--horizon: expected whole numbers", "--horizon 5, or --horizon 1,5,20"),
        ("transformer --hidden-size 30", "twice `num_heads` (8), got 30", "--hidden-size 24 or --hidden-size 32"),
        ("transformer --hidden-size 3", "twice `num_heads` (8), got 3", "-> --hidden-size 8"),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused_with_the_remedy(
    place, capsys, monkeypatch, flags, found, todo
):
    monkeypatch.setattr(MarketStore, "open", lambda *_: pytest.fail("it can be known without data"))
    assert run("train", *flags.split(), "-w", place, "--quiet") == 2
    said, remedy = capsys.readouterr().err.splitlines()
    assert found in said
    assert remedy.startswith("  -> ") and todo in remedy


def test_the_name_of_a_flag_is_explained_in_a_settings_file(place, capsys):
    (place / "c.toml").write_text("[train]\nlearning_rate = 0.001")
    assert run("train", "lstm", "--config", place / "c.toml", "-w", place) == 2
    assert "unknown key `learning_rate`\n  -> did you mean `lr`?" in capsys.readouterr().err


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("flags", "code", "found"),
    [
        ("--warm-start nope", 5, "no run called `nope`"),
        ("--static nonsense", 2, "no symbol here has a known `nonsense`"),
        ("--look-back-window 5000", 2, "no symbol has more than 300 bars"),
        ("--hidden-size 1000000", 6, "12.0T parameters, which take at least"),
        ("--hidden-size 9999999999999", 6, "no memory holds a `lstm` of these options"),
        ("--horizon 100000", 2, "a horizon of at most "),
        ("--asof 1990-01-01", 3, "the last one "),
        ("--output-dir {place}/note.txt/out", 6, "--output-dir {place}/note.txt/out cannot be written"),
        ("--refit ridge-cut", 5, "`ridge-cut` is not finished"),
    ],
)
def test_a_dry_run_refuses_what_the_command_refuses(place, capsys, dry, flags, code, found):
    (place / "note.txt").write_text("x")
    unfinished(place, "ridge-cut", "ridge")
    told = [word.format(place=place) for word in flags.split()]
    assert run("train", *[] if "--refit" in told else ["lstm"], *told, *dry, "-w", place, "--quiet") == code
    assert found.format(place=place) in capsys.readouterr().err
    assert [path.name for path in (place / "runs").iterdir()] == ["ridge-cut"]


def test_more_threads_than_cores_are_noted_by_a_dry_run_as_by_the_training(place, capsys, monkeypatch):
    monkeypatch.setattr("barcast.pipeline.train.available_cores", lambda: 2)
    assert run("train", "lstm", "--threads", "3", "--dry-run", "-q", "-w", place) == 0
    assert "note: 3 threads take turns on 2 cores" in capsys.readouterr().out
    monkeypatch.setattr("barcast.pipeline.train.build_dataset", lambda *_, **__: 1 / 0)
    assert run("train", "lstm", "--threads", "3", "-w", place) == 70
    assert "3 threads take turns on 2 cores" in capsys.readouterr().err
    assert run("train", "lstm", "--threads", "2", "--dry-run", "-q", "-w", place) == 0
    assert "note:" not in capsys.readouterr().out


@pytest.mark.parametrize("flags", ["lstm", "lstm --dry-run", "lstm --size auto", "--symbol AAA"])
def test_a_search_without_optuna_says_so_before_it_reads_anything(place, capsys, monkeypatch, flags):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setattr(MarketStore, "open", lambda *_: pytest.fail("nothing is to be read"))
    assert run("tune", *flags.split(), "-w", place) == 2
    assert "needs Optuna, which is not installed\n  -> pip install" in capsys.readouterr().err
    with pytest.raises(UsageError, match="Optuna"):
        barcast.tune("lstm", workspace=place, size="auto")
    with pytest.raises(UsageError, match="Optuna"):
        barcast.tune_symbol("AAA", workspace=place)


def test_memory_that_runs_out_where_nobody_foresaw_it_is_no_bug(monkeypatch, capsys):
    def refuse(*_, **__):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("barcast.cli.app.app", refuse)
    assert run("runs") == 6
    said = capsys.readouterr().err
    assert said.startswith("error: out of memory\n  -> ") and "alloc_cpu" not in said


def unfinished(place, name, model="lstm"):
    """A run that was cut off, as it lies on disk."""
    known = resolve(Workspace(place), model)
    folder = RunFolder(place / "runs" / name)
    folder.path.mkdir(parents=True)
    folder.write("config.json", known.plain())
    folder.write("run.json", {"name": name, "id": "0", "model": model, "status": "interrupted", "market": "us",
                              "created": "2024", "command": f"barcast train {model} --epochs 9"})  # fmt: skip


def test_a_place_that_cannot_be_made_is_named_before_any_work(place, capsys, monkeypatch):
    monkeypatch.setattr("barcast.pipeline.train.load_market", None)  # whoever reads the store fails
    if (proc := pathlib.Path("/proc")).is_dir():
        assert run("train", "ridge", "--output-dir", proc / "x", "-w", place, "--quiet") == 6
        assert "--output-dir /proc/x cannot be written" in capsys.readouterr().err
    with pytest.raises(ResourceError, match="--output-dir"):
        barcast.train("ridge", workspace=place, output_dir=place / "market" / "store.json" / "x")


def test_trying_a_place_out_leaves_nothing_there(place):
    check_output_dir(place / "new" / "er")
    assert not (place / "new").exists()
    (place / "empty").mkdir()
    check_output_dir(place / "empty")
    assert list((place / "empty").iterdir()) == []


def test_an_unfinished_run_is_told_so_by_everybody_in_the_same_words(place, capsys):
    unfinished(place, "lstm-cut")
    for command in ("report", "embeddings", "predict", "promote", "compare"):
        assert run(command, "lstm-cut", "-w", place) == 5
        said = capsys.readouterr().err
        assert "run `lstm-cut` is not finished\n  -> barcast train lstm --epochs 9   (it goes on" in said, (
            command
        )
        assert "--fresh" not in said
    with pytest.raises(RunError, match=r"not finished\n  -> barcast train lstm --epochs 9 "):
        barcast.load("lstm-cut", workspace=place)


def test_the_name_of_a_search_is_known_as_one(place, capsys):
    (place / "runs" / "tune-lstm-0123").mkdir(parents=True)
    (place / "runs" / "tune-lstm-0123" / "tune.json").write_text("{}")
    for command in ("compare", "doctor", "predict", "report"):
        for name in ("tune-lstm-0123", "tune-lstm", place / "runs" / "tune-lstm-0123"):
            assert run(command, name, "-w", place) == 5
            said = capsys.readouterr().err
            assert "`tune-lstm-0123` is a search, no run" in said
            assert "barcast train --tuned tune-lstm-0123" in said
    assert run("report", "lstm-0", "-w", place) == 5
    assert "search" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    ["--profile", "--final", "--epochs 3", "--seeds 2", "--track tensorboard", "--no-report", "--dry-run",
     "--warm-start nope", "--output-dir out --fresh"],
)  # fmt: skip
def test_a_range_test_refuses_what_it_would_not_read(place, capsys, flags):
    assert run("train", "lstm", "--range-test", *flags.split(), "-w", place, "--quiet") == 2
    said = capsys.readouterr().err
    assert "a range test makes no run and does not read" in said
    assert all(word in said for word in flags.split() if word.startswith("--"))
    assert not (place / "range-tests").exists()


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
