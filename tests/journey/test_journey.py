"""The whole road through the command line: bars in files, a store, a model, a comparison, a forecast, a page."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from barcast.cli.app import _run
from barcast.core.calendar import exchange_days
from barcast.core.predictions import read_predictions
from barcast.core.runs import list_runs
from barcast.core.workspace import Workspace

TINY = [
    "--epochs",
    "2",
    "--hidden-size",
    "8",
    "--num-layers",
    "1",
    "--look-back-window",
    "20",
    "--amp",
    "off",
]
DECLARED = ["--market", "us", "--basis", "raw"]


def write_market(folder: Path, symbols=40, sessions=800, seed=0, skip_last=0, names=None) -> None:
    """One CSV a symbol: random walks with a planted reversal, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    days = exchange_days("XNYS", np.datetime64("2020-01-02").item(), np.datetime64("2023-12-29").item())
    days = days[: sessions - skip_last]
    folder.mkdir(parents=True, exist_ok=True)
    market = rng.normal(0, 0.008, sessions)
    for s in range(symbols):
        noise = rng.normal(0, 0.015, sessions)
        own = noise.copy()
        own[3:] -= 0.25 * (noise[2:-1] + noise[1:-2] + noise[:-3])
        close = 30 * np.exp(np.cumsum(own + market))[: len(days)]
        open_ = close * np.exp(rng.normal(0, 0.004, sessions))[: len(days)]
        pl.DataFrame(
            {
                "Date": days,
                "Open": open_,
                "High": np.maximum(open_, close) * 1.004,
                "Low": np.minimum(open_, close) * 0.996,
                "Close": close,
                "Volume": rng.integers(10_000, 900_000, sessions)[: len(days)],
            }
        ).write_csv(folder / f"{names[s] if names else f'SYM{s:02d}'}.csv")


def run(*arguments: object) -> int:
    return _run([str(argument) for argument in arguments], debug=False)


def lstm_run(place):
    """The first LSTM run that is no refit."""
    runs = list_runs(Workspace(place))
    return next(r for r in runs if r.info["model"] == "lstm" and not r.info.get("final"))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A workspace with an imported market, a trained ridge and a trained, refitted LSTM."""
    root = tmp_path_factory.mktemp("journey")
    write_market(root / "bars")
    assert run("data", "import", root / "bars", "-w", root, *DECLARED) == 0
    assert run("train", "lstm", "-w", root, *TINY, "--final", "--quiet") == 0
    return root


def test_the_road_leaves_what_it_promises(place):
    names = sorted(r.info["model"] for r in list_runs(Workspace(place)) if not r.info.get("final"))
    assert names == ["lstm", "ridge"]
    lstm = next(
        r for r in list_runs(Workspace(place)) if r.name.startswith("lstm-") and "final" not in r.name
    )
    for name in ("config.json", "environment.json", "metrics.jsonl", "weights.safetensors", "state.json",
                 "predictions.parquet", "comparison.json", "quality.json", "card.md", "report.html"):  # fmt: skip
        assert (lstm.path / name).stat().st_size > 0, name
    assert not lstm.checkpoint.exists()


def test_the_test_segment_stays_sealed_until_it_is_opened(place, capsys):
    lstm = next(
        r for r in list_runs(Workspace(place)) if r.info["model"] == "lstm" and not r.info.get("final")
    )
    table = read_predictions(lstm.predictions)
    sealed = table.filter(segment="test")
    assert len(sealed) and sealed["y"].null_count() == len(sealed)
    assert table.filter(segment="route")["y"].null_count() == 0
    assert run("compare", lstm.name, "-w", place, "--json", "--quiet") == 0
    assert {c["segment"] for c in json.loads(capsys.readouterr().out)} == {"route"}
    for flags in (["--open-test"], ["--open-test"], []):  # what was seen once stays seen, and counts once
        assert run("compare", lstm.name, "-w", place, "--json", "--quiet", *flags) == 0
        found = json.loads(capsys.readouterr().out)
        assert {c["segment"] for c in found} == {"route", "test"}
        assert all(c["openings"] == 1 for c in found)
    ridge = next(r for r in list_runs(Workspace(place)) if r.info["model"] == "ridge")
    assert run("compare", ridge.name, "-w", place, "--json", "--quiet", "--open-test") == 0
    assert all(c["openings"] == 2 for c in json.loads(capsys.readouterr().out))


def test_a_forecast_never_comes_from_a_model_that_saw_its_outcome(place, capsys):
    """As of a day before a refit was taught, the evaluation answers; before that one's labels, nobody does."""
    name = lstm_run(place).name
    assert run("predict", name, "-w", place, "--asof", "2022-10-03", "--json", "--quiet", "--allow-old") == 0
    assert json.loads(capsys.readouterr().out)["run"] == name
    assert run("predict", name, "-w", place, "--asof", "2021-03-01", "--json", "--quiet", "--allow-old") == 5
    assert "seen its own outcome" in capsys.readouterr().err


def test_an_edited_user_feature_is_another_run(place, tmp_path, capsys):
    """The source is copied into the run, and predictions use that copy."""
    copy = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(place), str(copy)], check=True)
    text = (
        "from barcast.features import feature\n\n\n@feature\ndef move(log_return):\n    return {}log_return\n"
    )
    (copy / "mine.py").write_text(text.format(""))
    (copy / "barcast.toml").write_text('[features]\nfiles = ["mine.py"]\n')
    train = ["train", "ridge", "-w", copy, "--features", "mine", "--quiet", "--no-report"]
    assert run(*train) == 0
    mine = [r for r in list_runs(Workspace(copy)) if r.read("config.json")["data"]["features"] == "mine"]
    assert (mine[0].path / "features" / "mine.py").read_text() == text.format("")
    capsys.readouterr()
    ask = ["predict", mine[0].name, "-w", copy, "--json", "--quiet", "--allow-old"]
    assert run(*ask) == 0
    before = json.loads(capsys.readouterr().out)["forecasts"]
    (copy / "mine.py").write_text(text.format("-"))
    assert run(*ask) == 0
    assert json.loads(capsys.readouterr().out)["forecasts"] == before
    assert run(*train) == 0
    mine = [r for r in list_runs(Workspace(copy)) if r.read("config.json")["data"]["features"] == "mine"]
    assert len(mine) == 2


def test_a_planted_signal_is_found_and_beats_doing_nothing(place, capsys):
    assert run("compare", "-w", place, "--json", "--quiet", "--segments", "weigh,route") == 0
    for comparison in json.loads(capsys.readouterr().out):
        rows = {row["model"]: row for row in comparison["all_rows"]["rows"]}
        assert next(iter(rows)) == "zero" and {"ridge", "lstm", "reversal", "historical_mean"} <= set(rows)
        assert rows["ridge"]["scores"]["rank_ic"]["low"] > 0
        assert all(row["coverage"] > 0.9 for row in rows.values())


def test_every_symbol_is_predicted_and_new_ones_too(place, tmp_path, capsys):
    """A symbol that no model ever saw is predicted; one with too few bars gets a reason."""
    write_market(tmp_path / "new", symbols=1, names=["NEWCO"], seed=9)
    write_market(tmp_path / "short", symbols=1, names=["SHORT"], seed=8)
    frame = pl.read_csv(tmp_path / "short" / "SHORT.csv").tail(9)
    frame.write_csv(tmp_path / "new" / "SHORT.csv")
    copy = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(place), str(copy)], check=True)
    assert run("data", "update", tmp_path / "new", "-w", copy) == 0
    capsys.readouterr()
    name = next(
        r.name for r in list_runs(Workspace(copy)) if r.info["model"] == "lstm" and not r.info.get("final")
    )
    assert run("predict", name, "-w", copy, "--json", "--quiet") == 0
    found = json.loads(capsys.readouterr().out)
    symbols = {row["symbol"] for row in found["forecasts"]}
    assert "NEWCO" in symbols and len(symbols) == 41
    assert found["without_forecast"][0]["symbol"] == "SHORT"
    assert "short history: 9 bars" in found["without_forecast"][0]["reason"]
    assert found["run"].startswith("lstm-final")


def test_asking_for_few_symbols_changes_no_forecast(place, capsys):
    name = next(
        r.name for r in list_runs(Workspace(place)) if r.info["model"] == "lstm" and not r.info.get("final")
    )
    answers = []
    for flags in ([], ["--symbols", "SYM03,SYM07"]):
        assert run("predict", name, "-w", place, "--json", "--quiet", *flags) == 0
        answers.append({r["symbol"]: r["score"] for r in json.loads(capsys.readouterr().out)["forecasts"]})
    assert set(answers[1]) == {"SYM03", "SYM07"}
    assert answers[1]["SYM03"] == pytest.approx(answers[0]["SYM03"], abs=1e-6)


def test_forecasts_as_of_an_earlier_session_equal_those_of_the_table(place, capsys):
    """What `predict` computes from the tail of the store is what evaluation computed from all of it."""
    run_folder = next(r for r in list_runs(Workspace(place)) if r.info["model"] == "ridge")
    table = read_predictions(run_folder.predictions).filter(segment="test")
    day = table["time"].unique().sort()[10]
    assert (
        run(
            "predict",
            run_folder.name,
            "-w",
            place,
            "--asof",
            str(day)[:10],
            "--json",
            "--quiet",
            "--allow-old",
        )
        == 0
    )
    found = {r["symbol"]: r["score"] for r in json.loads(capsys.readouterr().out)["forecasts"]}
    expected = dict(table.filter(pl.col("time") == day).select("symbol", "score").iter_rows())
    assert len(expected) == 40
    for symbol, score in expected.items():
        assert found[symbol] == pytest.approx(score, abs=1e-5), symbol


def test_a_second_train_finds_the_run_again(place, capsys):
    before = {r.name: r.info["total_seconds"] for r in list_runs(Workspace(place))}
    assert run("train", "lstm", "-w", place, *TINY) == 0
    assert "is there already" in capsys.readouterr().err
    assert {r.name: r.info["total_seconds"] for r in list_runs(Workspace(place))} == before


def test_multi_horizon_training_scores_each_horizon(place, capsys):
    assert run("train", "ridge", "-w", place, "--horizon", "1,5", "--quiet", "--no-report", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [c["horizon"] for c in found["comparisons"]] == [1, 5]


def test_lightgbm_goes_the_same_road(place):
    assert run("train", "lightgbm", "-w", place, "--quiet") == 0


def test_features_measured_within_the_window(place):
    assert run("train", "lstm", "-w", place, "--features", "ohlcv5", *TINY, "--quiet") == 0
    assert run("train", "ridge", "-w", place, "--features", "ohlcv5", "--quiet") == 2


def test_dry_run_trains_nothing(place, capsys):
    before = len(list_runs(Workspace(place)))
    assert run("train", "lstm", "-w", place, "--seed", "77", "--dry-run", "--json", "--quiet") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["symbols"] == 40 and set(found["segments"]) == {"fit", "stop", "weigh", "route", "test"}
    assert len(list_runs(Workspace(place))) == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "lstmm"], 2, "choose one of"),
        (["train", "lstm", "--features", "tech49"], 2, "tech48"),
        (["train", "lstm", "--horizon", "five"], 2, "whole numbers"),
        (["train", "lstm", "--symbols", "NOPE"], 3, "NOPE"),
        (["train", "lstm", "--segments", "2020-06,2020-05,2020-07,2020-08,2020-09"], 2, "segment"),
        (["train", "lstm", "--horizon", "400"], 2, "horizon"),
        (["predict", "nothing"], 5, "no run called"),
        (["compare", "nothing"], 5, "no run called"),
        (["train", "--no-such-flag"], 2, "no-such-flag"),
        (["data", "export"], 2, ""),
    ],
)
def test_errors_say_what_to_do_and_give_their_code(place, capsys, arguments, code, words):
    assert run(*arguments, "-w", place) == code
    assert words in capsys.readouterr().err


def test_an_empty_workspace_names_the_next_command(tmp_path, capsys):
    assert run("train", "lstm", "-w", tmp_path) == 4
    assert "barcast data import" in capsys.readouterr().err
    assert run("runs", "-w", tmp_path) == 0
    assert run("doctor", "-w", tmp_path, "--json") == 0


def test_help_is_light():
    code = (
        "import sys; from barcast.cli.app import _run; _run(['--help'], False); _run(['train', '--help'], False);"
        "print([m for m in ('torch', 'polars', 'numba', 'lightgbm', 'pyarrow', 'pandas', 'scipy', 'numpy') "
        "if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]")


@pytest.mark.parametrize("moment", [1.5, 4.0])
def test_a_killed_training_goes_on(place, tmp_path, moment):
    """SIGKILL in the middle; the same command ends with the weights of an undisturbed run."""
    straight, killed = tmp_path / "a", tmp_path / "b"
    flags = [*TINY, "--seed", "5", "--epochs", "6", "--no-report"]
    settings = "[train]\ncheckpoint_seconds = 0.0\n"
    for copy in (straight, killed):
        subprocess.run(["cp", "-r", str(place), str(copy)], check=True)
        (copy / "barcast.toml").write_text(settings)
    command = [sys.executable, "-m", "barcast", "train", "lstm", *flags, "--quiet"]
    subprocess.run([*command, "-w", str(straight)], check=True, capture_output=True, env=os.environ)
    child = subprocess.Popen(
        [*command, "-w", str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(moment)
    child.send_signal(signal.SIGKILL)
    child.wait()
    subprocess.run([*command, "-w", str(killed)], check=True, capture_output=True, env=os.environ)
    found = [
        {
            r.name: r.weights.read_bytes()
            for r in list_runs(Workspace(copy))
            if r.name.startswith("lstm-") and r.is_done
        }
        for copy in (straight, killed)
    ]
    assert found[0] == found[1]


def test_a_run_is_trained_by_one_process_at_a_time(place, tmp_path, capsys):
    from barcast.store.lock import writer_lock

    copy = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(place), str(copy)], check=True)
    with writer_lock(lstm_run(copy).path):
        assert run("train", "lstm", "-w", copy, *TINY, "--fresh", "--quiet") == 4
    assert "is being written by" in capsys.readouterr().err
