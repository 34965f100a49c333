"""Whole runs on a small market: each planted fault is the first verdict, healthy runs have none."""

import json
import shlex
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

import barcast
from barcast.core.runs import list_runs
from barcast.core.workspace import Workspace
from barcast.diagnosis.evidence import lagged_values
from barcast.pipeline import train as room
from barcast.pipeline.diagnose import diagnose
from barcast.pipeline.settings import resolve
from barcast.training.checkpoint import load_tensors, save_tensors
from tests.journey.test_journey import DECLARED, run, write_market

OPTIONS = {"epochs": 10, "hidden_size": 8, "num_layers": 1, "look_back_window": 8, "batch_size": 960,
           "features": "core12", "horizons": (1,), "lr": 3e-3, "amp": "off", "threads": 1}  # fmt: skip
FLAGS = ["--epochs", "10", "--hidden-size", "8", "--num-layers", "1", "--look-back-window", "8", "--batch-size",
         "960", "--features", "core12", "--horizon", "1", "--lr", "3e-3", "--amp", "off"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("diagnosis")
    write_market(root / "bars", sessions=450)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED, "--quiet") == 0
    return Workspace(root)


def trained(place, monkeypatch=None, teach=None, **options):
    """A run, where ``teach`` replaces the targets that training sees."""
    real = room.build_dataset
    if teach:
        monkeypatch.setattr(
            room, "build_dataset", lambda *a, **k: replace(made := real(*a, **k), target=teach(made))
        )
    return room.train(place, resolve(place, "lstm", {**OPTIONS, **options}), fresh=True).run


def kinds(place, found):
    return [verdict.kind for verdict in diagnose(place, found).learning]


def test_healthy_runs_of_several_seeds_have_no_verdict(place):
    for seed in range(2):
        assert kinds(place, trained(place, seed=seed)) == [], seed


def test_a_rate_too_high_and_one_too_low(place):
    assert kinds(place, trained(place, lr=1.0)) == ["rate_too_high"]
    assert kinds(place, trained(place, lr=1e-7)) == ["rate_too_low"]


def test_a_head_of_zeros_is_a_dead_output(place):
    found = trained(place, seed=9)
    tensors, header = load_tensors(found.weights)
    tensors["head.weight"] = torch.zeros_like(tensors["head.weight"])
    save_tensors(found.weights, tensors, header)
    assert kinds(place, found) == ["dead_outputs"]


def test_labels_of_the_session_before(place, monkeypatch):
    def teach(made):
        symbol = made.market.bars.symbol_of_row.astype(np.int64)
        return lagged_values(made.target[:, 0], symbol, np.arange(len(symbol)), -1)[:, None].astype(
            np.float32
        )

    (verdict,) = diagnose(place, trained(place, monkeypatch, teach, lr=1e-2)).learning
    assert (verdict.kind, verdict.numbers["lag"]) == ("labels_shifted", -1)


def test_labels_in_another_order(place, monkeypatch):
    def teach(made):
        target, known = made.target.copy(), np.isfinite(made.target[:, 0])
        target[known] = np.random.default_rng(0).permutation(target[known])
        return target

    assert kinds(place, trained(place, monkeypatch, teach)) == ["labels_shuffled"]


def test_a_market_of_noise(tmp_path):
    write_market(tmp_path / "bars", sessions=450)
    rng = np.random.default_rng(3)
    for path in (tmp_path / "bars").glob("*.csv"):
        bars = pl.read_csv(path)
        close = 30 * np.exp(np.cumsum(rng.normal(0, 0.02, len(bars))))
        bars.with_columns(Open=close, High=close * 1.01, Low=close * 0.99, Close=close).write_csv(path)
    assert run("data", "import", tmp_path / "bars", "-w", tmp_path, *DECLARED, "--quiet") == 0
    assert kinds(Workspace(tmp_path), trained(Workspace(tmp_path)))[0] in ("no_signal", "not_shown")


def test_a_loss_that_is_no_number_is_judged_without_weights(place):
    with pytest.raises(barcast.BarcastError, match="the loss became"):
        trained(place, lr=1e30)
    failed = next(one for one in list_runs(place) if one.info["status"] == "failed")
    found = diagnose(place, failed)
    assert [verdict.kind for verdict in found.learning] == ["rate_too_high"]
    assert found.learning[0].command.endswith("--lr 1e+29")


def test_the_commands(place, capsys):
    assert run("train", "lstm", "-w", place.root, *FLAGS, "--profile", "--no-report") == 0
    shown = capsys.readouterr().out
    assert "Where the time goes" in shown and "bound by" in shown
    newest = next(one for one in reversed(list_runs(place)) if (one.path / "profile.json").is_file())
    profile = json.loads((newest.path / "profile.json").read_text())
    total = sum(line["seconds"] for line in profile["sections"])
    assert total == pytest.approx(profile["wall_seconds"]) and profile["num_steps"] > 20
    assert profile["trials"][0]["name"] == "now" and profile["work"]["peak_flops"] > 1e8
    info = newest.info  # the experiments of a profile are no part of the training
    parts = info["prepare_seconds"] + info["train_seconds"] + profile["profile_seconds"]
    assert profile["profile_seconds"] > 0 and parts <= info["total_seconds"]
    assert run("doctor", newest.name, "-w", place.root, "--json", "--quiet") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["learning"] == [] and found["speed"]["kind"] == profile["verdict"]["kind"]
    assert run("doctor", newest.name, "-w", place.root, "--lang", "zh", "--quiet") == 0
    shown = capsys.readouterr().out
    assert "未发现问题" in shown and "时间去向" in shown
    ridge = next(one for one in list_runs(place) if one.info["model"] == "ridge")
    assert run("doctor", ridge.name, "-w", place.root, "--quiet") == 0
    shown = capsys.readouterr().out
    assert "nothing found" in shown and "no steps to profile" in shown
    assert barcast.doctor(newest.name, workspace=place).learning == ()


def test_what_to_type_trains_that_run_again_whoever_began_it(place):
    """Options without a flag and the session that was the last then come along; nothing that was typed does."""
    found = trained(place, seed=5, epochs=2, clip=0.9, stretch_length=60, asof="2021-06-30")
    command = diagnose(place, found).profile_command
    for typed, started in (
        ("barcast retrain --promote-if-better", ""),
        ("barcast train gru --lr 1 --output-dir out --open-test", ""),
        ("torchrun --nproc-per-node 2 -m barcast train lstm --lr 1", "torchrun --nproc-per-node 2 -m "),
    ):
        found.update(command=typed)
        assert diagnose(place, found).profile_command == started + command
    networks = [one.name for one in list_runs(place) if one.info["model"] == "lstm"]
    program, *words = shlex.split(command)
    assert program == "barcast" and run(*words, "--no-report", "--quiet") == 0
    assert [one.name for one in list_runs(place) if one.info["model"] == "lstm"] == networks
    assert found.read("profile.json")["num_steps"] > 0 and found.info["cutoff"] == "2021-06-30"


def test_a_model_without_steps_is_told_of_its_own_options(place):
    options = {name: OPTIONS[name] for name in ("features", "horizons")}
    ridge = room.train(place, resolve(place, "ridge", {**options, "penalties": (1.0,)})).run
    tensors, header = load_tensors(ridge.weights)
    save_tensors(ridge.weights, {**tensors, "weights": torch.zeros_like(tensors["weights"])}, header)
    found = diagnose(place, ridge)
    assert [(one.kind, one.command) for one in found.learning] == [("dead_outputs", "")]
    assert "own options" in found.learning[0].todo.en and found.profile_command == ""


def test_what_has_no_steps_is_not_profiled(place, capsys):
    assert run("train", "ridge", "-w", place.root, "--profile", "--quiet") == 2
    assert "barcast train lstm --profile" in capsys.readouterr().err
