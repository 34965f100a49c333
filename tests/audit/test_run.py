"""Whole runs: a clean one is clean, and a record that saw the future is named."""

import json
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from barcast.audit import AuditSettings, audit_features, audit_run
from barcast.audit.records import _first_unlike
from barcast.cli.app import _run
from barcast.core.errors import LeakError, RunError, UsageError
from barcast.core.predictions import read_predictions, write_predictions
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.pipeline import dataset
from barcast.pipeline.data import import_data
from barcast.pipeline.market import held_out
from barcast.pipeline.settings import resolve
from barcast.pipeline.train import train
from barcast.sources import ImportOptions
from barcast.store import MarketStore, StoreMeta
from tests.audit.builders import make_world

FAST = AuditSettings(num_cuts=1, num_symbols=30)


def make_workspace(root, world) -> Workspace:
    place = Workspace(root)
    meta = StoreMeta(market=world.market, frequency="1d", calendar=world.calendar.name)
    MarketStore.create(place.market, meta).publish(world.frame, {}, periods=None, beside={})
    return place


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_workspace(tmp_path_factory.mktemp("many"), make_world(40, 300, seed=7))


@pytest.fixture(scope="module")
def run(place):
    return train(place, resolve(place, "ridge", {"features": "core12"})).run


@pytest.fixture(scope="module")
def small_place(tmp_path_factory):
    return make_workspace(tmp_path_factory.mktemp("few"), make_world(6, 300, seed=8))


@pytest.fixture(scope="module")
def small_run(small_place):
    flags = {"features": "core12", "epochs": 1, "hidden_size": 4, "look_back_window": 10}
    return train(small_place, resolve(small_place, "lstm", flags)).run


@pytest.fixture
def tampered(run, tmp_path):
    """A copy of the run that a test may spoil."""
    shutil.copytree(run.path, tmp_path / run.name)
    return RunFolder(tmp_path / run.name)


def only(report, stage):
    (finding,) = [finding for finding in report.findings if finding.stage == stage]
    return finding


def test_a_clean_run_is_clean(place, run):
    report = audit_run(place, run, FAST)
    assert report.is_clean, [finding.sentence for finding in report.findings]
    report.raise_if_leaking()
    counts = {check.name: check.num_values for check in report.checks}
    assert min(counts.values()) > 0
    assert {"cut history", "altered future", "label", "recorded state", "predictions table"} <= set(counts)
    assert counts["recomputed predictions"] > 100


def test_a_small_universe_and_a_network_are_clean(small_place, small_run):
    report = audit_run(small_place, small_run, FAST)
    assert report.is_clean, [finding.sentence for finding in report.findings]


def test_symbols_that_may_not_teach_are_no_leak(small_place, tmp_path):
    """One listed a few bars before the end of `fit`, and held-out ones: neither has an embedding."""
    world = make_world(40, 300, basis="adjusted", seed=7)
    late = world.frame["symbol"].unique().sort()[3]
    listed = world.calendar.times[170]  # `fit` ends with session 179
    young = world.frame.filter((pl.col("symbol") != late) | (pl.col("time") >= listed))
    place = make_workspace(tmp_path / "many", replace(world, frame=young))
    done = train(place, resolve(place, "ridge", {"features": "core12"}))
    fit = done.market.rows_of("fit")
    position = done.market.bars.symbols.index(late)
    assert (fit & (done.market.bars.symbol_of_row == position)).any()
    assert late not in json.loads((done.run.path / "state.json").read_text())["vocabulary"]
    report = audit_run(place, done.run, FAST)
    assert report.is_clean, [finding.sentence for finding in report.findings]

    held = next(fold for fold in range(20) if held_out(tuple(symbols_of(small_place)), fold).any())
    flags = {"features": "core12", "hold_out_fold": held}
    report = audit_run(small_place, train(small_place, resolve(small_place, "ridge", flags)).run, FAST)
    assert report.is_clean, [finding.sentence for finding in report.findings]


def symbols_of(place):
    return MarketStore.open(place.market).symbols()


def test_score_map_fitted_on_test(place, tampered):
    state = tampered.read("state.json")
    state["maps"][0]["width"] *= 1.02
    tampered.write("state.json", state)
    first = only(audit_run(place, tampered, FAST), "calibration")
    assert (first.check, first.column) == ("recorded state", "width_5")
    assert first.found == pytest.approx(1.02 * first.expected)


def test_scaler_fitted_on_the_whole_sample(small_place, small_run, tmp_path, monkeypatch):
    """Planted in training itself; the weights then only fit inputs that nobody could have had."""

    def whole(values, rows):
        return honest(values, np.ones(len(rows), bool))

    honest = dataset.FittedScaler.fit
    other = Workspace(tmp_path)
    shutil.copytree(small_place.market, other.market)
    monkeypatch.setattr(dataset.FittedScaler, "fit", whole)
    flags = {"features": "core12", "epochs": 1, "hidden_size": 4, "look_back_window": 10}
    leaky = train(other, resolve(other, "lstm", flags)).run
    monkeypatch.undo()
    first = only(audit_run(other, leaky, FAST), "scaler")
    assert first.column == "ret_1.mean" and len(first.columns) >= 12


def test_vocabulary_of_symbols_that_taught_nothing(place, tampered):
    state = tampered.read("state.json")
    state["vocabulary"].append("LATER")
    tampered.write("state.json", state)
    first = only(audit_run(place, tampered, FAST), "vocabulary")
    assert first.symbol == "LATER" and "no row that may teach" in first.detail


@pytest.mark.parametrize("name", ["num_teaching_rows", "last_teaching_session"])
def test_rows_beyond_fit_that_taught(place, tampered, name):
    tampered.update(**{name: {"num_teaching_rows": 9999, "last_teaching_session": "2020-03-02"}[name]})
    assert only(audit_run(place, tampered, FAST), "teaching").column == name


def test_outcomes_of_sealed_rows_written_down(place, tampered):
    table = read_predictions(tampered.predictions)
    write_predictions(tampered.predictions, table.with_columns(pl.col("y").fill_null(0.01)))
    first = only(audit_run(place, tampered, FAST), "predictions")
    assert (first.column, first.found, first.expected) == ("y", 0.01, None)


def test_outcome_of_the_next_session(place, tampered):
    table = read_predictions(tampered.predictions)
    moved = pl.when(pl.col("segment") != "test").then(pl.col("y").shift(-1).over("symbol", "segment"))
    write_predictions(tampered.predictions, table.with_columns(moved.alias("y")))
    assert only(audit_run(place, tampered, FAST), "predictions").column == "y"


def test_scores_that_the_weights_do_not_give(place, tampered):
    """Inputs of training that saw the future leave scores that the past cannot give again."""
    table = read_predictions(tampered.predictions)
    noise = np.random.default_rng(0).normal(0, 0.05 * table["score"].std(), len(table))
    write_predictions(tampered.predictions, table.with_columns(pl.col("score") + pl.Series(noise)))
    findings = {(f.check, f.column) for f in audit_run(place, tampered, FAST).findings}
    assert ("recomputed predictions", "score") in findings


def test_rounding_of_a_lone_row_is_no_leak_and_more_is():
    scores = np.random.default_rng(0).normal(0, 0.1, 500)
    whole = pl.DataFrame({"symbol": "X", "time": range(500), "score": scores})
    one = whole[:1]
    assert _first_unlike(one, {"score": scores[:1] + 1e-7}, whole, "") is None
    assert _first_unlike(one, {"score": scores[:1] + 1e-3}, whole, "") is not None


def test_session_statistics_planted_in_the_pipeline(place, run, monkeypatch):
    """A scaler of the whole sample in place of session statistics, as the pipeline's own function."""

    def leaky(values, session, num_sessions, in_universe):
        scaler = dataset.FittedScaler.fit(values, np.ones(len(values), bool))
        return scaler.transform(values)

    monkeypatch.setattr(dataset, "session_normalise", leaky)
    report = audit_run(place, run, FAST)
    assert (report.findings[0].stage, report.findings[0].column) == ("inputs", "ret_1")
    with pytest.raises(LeakError, match=r"inputs: `ret_1` of S\d+ at 20\d\d-"):
        report.raise_if_leaking()


def test_calibration_on_test_planted_in_training(place, run, tmp_path, monkeypatch):
    """Planted in the pipeline: maps are fitted on every scored row instead of those of `weigh`."""
    from barcast.pipeline import forecast as verb

    other = Workspace(tmp_path)
    shutil.copytree(place.market, other.market)
    honest = verb.fit_score_map

    def leaky(score, y, volatility, session, horizon):
        return honest(*(np.concatenate([a, a[-200:] * 2]) for a in (score, y, volatility)),
                      np.concatenate([session, session[-200:]]), horizon)  # fmt: skip

    monkeypatch.setattr(verb, "fit_score_map", leaky)
    spoiled = train(other, resolve(other, "ridge", {"features": "core12"})).run
    monkeypatch.undo()
    assert only(audit_run(other, spoiled, FAST), "calibration").check == "recorded state"


def test_a_store_that_changed_is_not_a_leak(run, tmp_path):
    other = make_workspace(tmp_path, make_world(40, 300, seed=9))
    with pytest.raises(RunError, match="has changed since"):
        audit_run(other, run, FAST)


def test_an_unfinished_run_is_refused(place, tampered):
    tampered.update(status="running")
    with pytest.raises(RunError, match="not finished"):
        audit_run(place, tampered, FAST)


def test_settings_are_checked():
    with pytest.raises(UsageError, match="at least one cut"):
        AuditSettings(num_cuts=0)
    with pytest.raises(UsageError, match="not a moment"):
        AuditSettings(acts_at="noon")


def test_features_at_the_open(place):
    report = audit_features(place, "core12", replace(FAST, acts_at="open"))
    assert report.findings[0].stage == "features" and report.findings[0].check == "rest of the session"


def test_notes_say_what_cannot_be_seen(place):
    report = audit_features(place, "core12", replace(FAST, num_symbols=10, num_cuts=1))
    assert any("10 of 40 symbols" in note for note in report.notes)


def test_user_features_are_covered(place, tmp_path, monkeypatch):
    """The loader tries a file on made-up bars; the audit tries it on the real ones, where more can happen."""
    other = Workspace(tmp_path)
    shutil.copytree(place.market, other.market)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "from barcast.features import feature\n"
        "from barcast.features.primitives import mean\n\n"
        "@feature\ndef over_mean_7(close):\n    return close / mean(close, 7) - 1\n\n"
        "@feature\ndef holiday(close, volume):\n"
        "    quiet = volume == 0\n"  # made-up bars always trade
        "    return np.where(quiet, np.roll(close, -1) / close, 1.0)\n"
    )
    (tmp_path / "barcast.toml").write_text('[features]\nfiles = ["mine.py"]\n')
    report = audit_features(other, "mine", FAST)
    assert (report.findings[0].stage, report.findings[0].columns) == ("features", ("holiday",))
    assert report.findings[0].column == "holiday"


def test_command_prints_and_exits(place, run, capsys):
    arguments = ["audit", run.name, "-w", str(place.root), "--cuts", "1", "--sample", "20", "-q"]
    assert _run([*arguments, "--json"], debug=False) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["clean"] is True and found["subject"] == run.name and len(found["cuts"]) == 1
    assert _run(arguments, debug=False) == 0
    assert "clean" in capsys.readouterr().out


def test_command_exits_with_seven_on_a_leak(place, capsys):
    arguments = [
        "audit",
        "--features",
        "core12",
        "--act-at",
        "open",
        "-w",
        str(place.root),
        "--cuts",
        "1",
        "-q",
    ]
    assert _run([*arguments, "--json"], debug=False) == 7
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["clean"] is False and found["findings"][0]["stage"] == "features"
    assert "rest of the session: features: `" in printed.err
    assert _run(["audit", "name", "--features", "core12", "-w", str(place.root)], debug=False) == 2


@pytest.fixture(scope="module")
def hours(tmp_path_factory):
    """The same hourly bars of New York, stamped at their end, imported as declared: right and wrong."""
    days = np.arange(np.datetime64("2023-11-13"), np.datetime64("2024-03-01"))
    days = days[(days.astype("int64") + 3) % 7 < 5]
    minutes = np.array([*range(630, 931, 60), 960])  # 10:30, 11:30, ..., 15:30, 16:00
    times = (days[:, None].astype("datetime64[m]") + minutes.astype("timedelta64[m]")).ravel()
    frames = []
    for position, symbol in enumerate(("AAA", "BBB", "CCC")):
        close = 50 * np.exp(np.cumsum(np.random.default_rng(position).normal(0, 0.005, len(times))))
        bar = {"open": close * 0.999, "high": close * 1.002, "low": close * 0.998, "close": close}
        time = pl.Series(times.astype("datetime64[us]"))
        frames.append(
            pl.DataFrame({"symbol": [symbol] * len(times), "time": time, **bar, "volume": 1e4 * close})
        )
    places = {}
    for stamp in ("start", "end"):
        places[stamp] = Workspace(tmp_path_factory.mktemp(stamp))
        options = ImportOptions(market="us", frequency="1h", tz="America/New_York", stamp=stamp, basis="raw")
        import_data(places[stamp], pl.concat(frames), options)
    return places


def test_bars_stamped_at_their_end_and_imported_as_starts(hours):
    assert audit_features(hours["end"], "core12", FAST).is_clean
    report = audit_features(hours["start"], "core12", FAST)
    assert [finding.stage for finding in report.findings] == ["stamps"]
    assert "--stamp end" in report.findings[0].detail


def test_a_second_store_tells_which_stamps_are_wrong(hours):
    report = audit_features(hours["start"], "core12", replace(FAST, against=hours["end"]))
    assert [finding.check for finding in report.findings] == ["intraday stamp", "second source"]
    assert "-3600 seconds" in report.findings[1].detail
    again = audit_features(hours["end"], "core12", replace(FAST, against=hours["end"]))
    assert again.is_clean and "second source" in {check.name for check in again.checks}
