"""The whole road through the command line: bars in files, a store, a model, a comparison, a forecast, a page."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from barcast.cli.app import _run
from barcast.core.calendar import exchange_days
from barcast.core.predictions import read_predictions
from barcast.core.runs import list_runs
from barcast.core.workspace import Workspace
from barcast.models.registry import model_entries
from barcast.pipeline.unfinished import run_status

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


@pytest.fixture
def spare(place, tmp_path) -> Path:
    """A copy of the workspace, for tests that change it."""
    copy = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(place), str(copy)], check=True)
    return copy


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


def test_a_changed_store_does_not_make_the_test_new(spare, capsys):
    """Fewer symbols are other rows and other runs; over the same dates the looks at the first ones count."""
    (spare / "seals.json").unlink(missing_ok=True)
    ask = ["train", "ridge", "-w", spare, "--quiet", "--no-report", "--json"]
    counts = []
    for flags in (["--open-test"], ["--limit", "35", "--open-test"], ["--limit", "35"]):
        capsys.readouterr()
        assert run(*ask, *flags) == 0
        found = json.loads(capsys.readouterr().out)["comparisons"]
        assert {c["segment"] for c in found} == {"route", "test"}
        counts.append((found[-1]["openings"], found[-1]["openings_elsewhere"]))
    assert counts == [(1, 0), (2, 1), (2, 1)]
    assert run("report", "-w", spare, "--quiet") == 0  # the page shows both numbers


def test_runs_of_different_questions_say_what_differs_and_a_run_named_twice_counts_once(spare, capsys):
    for flags in (["--horizon", "2"], ["--limit", "36"]):
        assert run("train", "ridge", "-w", spare, "--quiet", "--no-report", *flags) == 0
    runs = {r.name: r.read("config.json")["data"] for r in list_runs(Workspace(spare)) if "ridge" in r.name}
    two = next(name for name, data in runs.items() if data["horizons"] == [2])
    fewer = next(name for name, data in runs.items() if data["limit"] == 36)
    capsys.readouterr()
    assert run("compare", fewer, two, "-w", spare, "--quiet") == 5
    said = capsys.readouterr().err
    assert "horizons 2 against 5" in said and "symbols 40 against 36" in said and "segments" not in said
    assert run("compare", two, two, "-w", spare, "--quiet", "--json") == 0
    rows = json.loads(capsys.readouterr().out)[0]["all_rows"]["rows"]
    assert sum(row["model"].startswith("ridge") for row in rows) == 1


def test_a_ridge_kept_from_some_symbols_is_not_the_row_to_beat(spare, capsys):
    before = {r.name for r in list_runs(Workspace(spare))}
    assert run("train", "ridge", "-w", spare, "--hold-out-fold", "3", "--quiet", "--no-report") == 0
    (kept,) = {r.name for r in list_runs(Workspace(spare))} - before
    capsys.readouterr()
    assert run("compare", kept, lstm_run(spare).name, "-w", spare, "--json", "--quiet") == 0
    table = json.loads(capsys.readouterr().out)[0]["all_rows"]
    assert {row["model"]: row["kind"] for row in table["rows"]}[f"ridge [{kept}]"] == "model"
    assert table["reference"].startswith("ridge [") and kept not in table["reference"]
    assert {r.name for r in list_runs(Workspace(spare))} == before | {kept}  # the full ridge was found again
    assert run("train", "lightgbm", "-w", spare, "--hold-out-fold", "3", "--quiet", "--no-report") == 0
    forest = next(r.name for r in list_runs(Workspace(spare)) if r.info["model"] == "lightgbm")
    scores = []
    for others in ([], [forest]):  # beside a run that kept symbols out, the full ridge stays the row to beat
        capsys.readouterr()
        assert run("compare", *others, lstm_run(spare).name, "-w", spare, "--json", "--quiet") == 0
        rows = json.loads(capsys.readouterr().out)[0]["all_rows"]["rows"]
        scores += [row["scores"]["rank_ic"]["value"] for row in rows if row["kind"] == "reference"]
    assert scores[0] == scores[1]


def test_naive_rows_are_kept_in_bounds_and_made_again_when_their_rule_changes(spare, tmp_path, monkeypatch):
    from barcast.pipeline import naive as room

    folder, ask = spare / "cache" / "naive", ["compare", lstm_run(spare).name, "-w", spare, "--quiet"]
    made = {path.stat().st_ino for path in folder.glob("*.parquet")}
    assert len(made) == len([entry for entry in model_entries() if entry.kind == "naive"])
    assert run(*ask) == 0
    assert {path.stat().st_ino for path in folder.glob("*.parquet")} == made
    edited = tmp_path / "naive.py"
    edited.write_text("# another rule\n")
    monkeypatch.setattr(sys.modules["barcast.models.naive"], "__file__", str(edited))
    assert run(*ask) == 0
    assert len(list(folder.glob("*.parquet"))) == 2 * len(made)
    monkeypatch.setattr(room, "NAIVE_CACHE_BYTES", 1)
    edited.write_text("# and another\n")
    assert run(*ask) == 0
    assert len(list(folder.glob("*.parquet"))) == 1


def test_a_forecast_says_who_made_it_and_how_old_its_bars_are(place, capsys, monkeypatch):
    from barcast.pipeline import serving_notes

    name, ask = lstm_run(place).name, ["predict", lstm_run(place).name, "-w", place, "--quiet"]
    last = date.fromisoformat(list_runs(Workspace(place))[0].info["cutoff"])
    for days, is_old in ((6, False), (30, True)):
        monkeypatch.setattr(serving_notes, "_today", lambda days=days: last + timedelta(days=days))
        capsys.readouterr()
        assert run(*ask) == 0
        said = capsys.readouterr().out
        assert (f"the newest bar is of {last}" in said) == is_old
        assert re.search(
            rf"served by lstm-final-\w+ \(the refit of {name} .*\), taught .* until {last}", said
        )
    assert run(*ask, "--asof", last) == 0
    assert "newest bar" not in capsys.readouterr().out


def test_a_symbol_whose_every_bar_is_left_out_gets_a_reason(spare, tmp_path, capsys):
    write_market(tmp_path / "new", symbols=1, names=["DEAD"], seed=3)
    path = tmp_path / "new" / "DEAD.csv"
    pl.read_csv(path).with_columns(Volume=0).write_csv(path)
    assert run("data", "update", tmp_path / "new", "-w", spare) == 0
    (spare / "barcast.toml").write_text('[quality]\nzero_volume = "mask"\n')
    capsys.readouterr()
    assert run("predict", lstm_run(spare).name, "-w", spare, "--quiet", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["forecasts"]) == 40
    ((symbol, reason),) = [(row["symbol"], row["reason"]) for row in found["without_forecast"]]
    assert symbol == "DEAD" and "quality policy: zero_volume" in reason


def test_what_was_served_stays_and_replays_are_not_kept(spare):
    final = next(r for r in list_runs(Workspace(spare)) if r.info.get("final"))
    (served,) = (final.path / "live").glob("*.parquet")
    bits, name = served.read_bytes(), lstm_run(spare).name
    times = list_runs(Workspace(spare))[0].info["cutoff"]
    early = ["--asof", "2022-12-01", "--allow-old"]
    for command in (
        ["predict", name],
        ["predict", name, "--asof", times],
        ["predict", name, *early],
        ["report", name],
    ):
        assert run(*command, "-w", spare, "--quiet") == 0
    assert [(p.name, p.read_bytes()) for p in spare.glob("runs/*/live/*")] == [(served.name, bits)]
    served.unlink()
    assert run("predict", name, "--symbols", "SYM01", "-w", spare, "--quiet") == 0
    assert run("report", name, "-w", spare, "--quiet") == 0
    assert not list(spare.glob("runs/*/live/*"))


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_forecasts_are_written_as_their_ending_says(place, tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    assert run("predict", lstm_run(place).name, "-w", place, "--quiet", "--output", path) == 0
    frame = {"csv": pl.read_csv, "parquet": pl.read_parquet, "json": pl.read_json}[ending](path)
    assert len(frame) == 40 and {"symbol", "score", "y_hat", "y"} <= set(frame.columns)
    assert frame["y"].null_count() == 40


def test_each_horizon_shows_its_own_highest_and_lowest(spare, capsys):
    assert run("train", "ridge", "-w", spare, "--horizon", "5,1", "--final", "--quiet", "--no-report") == 0
    name = next(
        r.name
        for r in list_runs(Workspace(spare))
        if sorted(r.read("config.json")["data"]["horizons"]) == [1, 5]
    )
    capsys.readouterr()
    assert run("predict", name, "-w", spare, "--quiet", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["for_sessions"]["1"] == found["for_session"] < found["for_sessions"]["5"]
    assert run("predict", name, "-w", spare, "--quiet") == 0
    tables = capsys.readouterr().out.split("Forecasts as of ")[1:]
    for horizon, text in zip((1, 5), tables, strict=True):
        rows = sorted((r for r in found["forecasts"] if r["horizon"] == horizon), key=lambda r: -r["score"])
        shown = re.findall(r"SYM\d\d", text)
        assert shown == [r["symbol"] for r in rows[:10] + rows[-10:]]
        assert f"to the close of {found['for_sessions'][str(horizon)]}" in text


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
    assert any("1 of 41 symbols never taught this run (NEWCO)" in warning for warning in found["warnings"])
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


def test_quiet_prints_the_run_its_scores_and_the_page(place, capsys):
    assert run("train", "lstm", "-w", place, *TINY, "--final", "--quiet") == 0
    out, err = capsys.readouterr()
    folder = lstm_run(place)
    refit = next(r.name for r in list_runs(Workspace(place)) if r.info.get("parent") == folder.name)
    lines = out.splitlines()
    assert lines[0] == f"run: {folder.name}" and lines[1] == f"refit: {refit}"
    assert re.fullmatch(r"route, 5 sessions ahead: RankIC: zero –, .*ridge 0\.\d{4}, lstm .*", lines[2])
    assert lines[-1] == f"report: {folder.path / 'report.html'}"
    assert len(lines) <= 5 and not err


def test_forecasts_of_an_evaluation_say_once_how_to_refit(place, capsys):
    command = ["train", "ridge", "-w", place, "--horizon", "3", "--no-report"]
    assert run(*command) == 0
    out = capsys.readouterr().out
    assert out.count("refit it on everything known") == out.count("barcast train --refit ridge-") == 1


def test_a_cutoff_beyond_the_data_is_no_other_run(place, capsys):
    """Today's date on a weekend means the last session, is said, and finds the same run."""
    before = [r.name for r in list_runs(Workspace(place))]
    assert run("train", "lstm", "-w", place, *TINY, "--asof", "2040-01-01", "--json") == 0
    out, err = capsys.readouterr()
    info = json.loads(out)["info"]
    assert info["cutoff"] < "2040" and info["name"] == lstm_run(place).name
    assert f"as of 2040-01-01: the last stored session up to then is {info['cutoff']}" in err
    assert run("train", "lstm", "-w", place, *TINY, "--asof", info["cutoff"]) == 0
    assert "as of" not in capsys.readouterr().err.replace("symbols as of", "")
    assert [r.name for r in list_runs(Workspace(place))] == before


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
        (["predict", "nothing"], 5, "barcast runs"),
        (["predict", "lstmm"], 5, "the nearest: lstm-"),
        (["predict", "--output", "tomorrow.xyz"], 2, "tomorrow.csv"),
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


def test_an_interrupted_training_says_so_and_goes_on(place, tmp_path, capsys):
    """Ctrl-C, then SIGTERM; between them the run is shown as interrupted, and it ends as if undisturbed."""
    straight, stopped = tmp_path / "a", tmp_path / "b"
    flags = [*TINY, "--epochs", "4", "--batch-size", "960", "--seed", "6", "--no-report", "--quiet"]
    for copy in (straight, stopped):
        subprocess.run(["cp", "-r", str(place), str(copy)], check=True)
        (copy / "barcast.toml").write_text("[train]\ncheckpoint_seconds = 0.0\npatience = 99\n")
    assert run("train", "lstm", *flags, "-w", straight) == 0
    command = [sys.executable, "-m", "barcast", "train", "lstm", *flags, "-w", str(stopped)]
    for kind, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        started = time.time()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while not any(
            file.stat().st_mtime > started for file in stopped.glob("runs/*/checkpoint.safetensors")
        ):
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.01)
        (unfinished,) = [r for r in list_runs(Workspace(stopped)) if not r.is_done]
        assert run_status(unfinished) == "running"
        child.send_signal(kind)
        said = child.communicate()[1]
        assert child.returncode == code
        assert "interrupted; the same command goes on where it stopped: barcast train lstm" in said
        assert run_status(unfinished) == unfinished.info["status"] == "interrupted"
    capsys.readouterr()
    assert run("runs", "-w", stopped) == 0
    assert (
        f"{unfinished.name} was interrupted; what goes on with it: barcast train" in capsys.readouterr().out
    )
    assert run("doctor", "-w", stopped, "--json") == 0
    assert f"interrupted: {unfinished.name}" in capsys.readouterr().out
    assert run("train", "lstm", *flags, "-w", stopped) == 0
    assert run_status(unfinished) == "done"
    whole = Workspace(straight).runs / unfinished.name / "weights.safetensors"
    assert unfinished.weights.read_bytes() == whole.read_bytes()


def test_a_run_is_trained_by_one_process_at_a_time(place, tmp_path, capsys):
    from barcast.core.lock import writer_lock

    copy = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(place), str(copy)], check=True)
    with writer_lock(lstm_run(copy).path):
        assert run("train", "lstm", "-w", copy, *TINY, "--fresh", "--quiet") == 4
    assert "is being written by" in capsys.readouterr().err
