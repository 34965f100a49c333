"""A fleet on users' own frames: what is learned, what is refused, what is kept, and that nothing sees ahead."""

import json
import re
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import barcast
from barcast.core.errors import DataError, LeakError, RunError, StoreError, UsageError
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.trees import fit
from barcast.fleet.trees.fit import fit_symbol
from barcast.fleet.trees.presets import configured
from barcast.pipeline import fleet
from barcast.pipeline.fleet_frames import FrameOptions, _as_frame, _lessons
from barcast.pipeline.frame_rows import read_frames, rows_to_predict
from barcast.pipeline.frame_tables import ZONED
from barcast.splits import check_disjoint, purged_folds

NAMES = [f"S{s}" for s in range(6)]
ROWS, COLUMNS = 400, ["x0", "x1", "x2"]
DAYS = pd.date_range("2020-01-01", periods=ROWS, freq="B")


def frames(names=NAMES, rows=ROWS):
    """Features and targets, half of whose variance follows from the first column."""
    rng = np.random.default_rng(1)
    features, targets = {}, {}
    for name in names:
        x = rng.normal(size=(rows, len(COLUMNS)))
        features[name] = pd.DataFrame(x, DAYS[:rows], COLUMNS)
        y = x[:, 0] + rng.normal(size=rows)
        y[-1] = np.nan  # the last one is not known yet
        targets[name] = pd.Series(y, DAYS[:rows])
    return features, targets


def trainer(**changed):
    """Without limits: nothing is measured with lighter presets first."""
    usual = {"preset": "fast", "min_rows": 100, "executor": "serial"}
    return barcast.FleetTrainer(None, 50, None, **{**usual, **changed})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    features, targets = frames()
    return features, targets, trainer().fit(features, targets, tmp_path_factory.mktemp("frames"))


def digest_of(folder):
    with Ledger.open(folder / "fleet" / LEDGER) as ledger:
        return ledger.content_digest("weights")


# --- what comes out ------------------------------------------------------------------------------------------


def test_the_summary_says_how_it_went_and_is_written(fitted):
    features, _, fleet = fitted
    told = fleet.summary
    assert (told["successful_stocks"], told["failed_stocks"], told["failures"]) == (6, 0, {})
    assert 0 < told["total_training_time_hours"] < 1
    assert told["presets"] == {"fast": 6} and told["fitted_now"] == {"new": 6}
    assert json.loads((fleet.folder / "training_summary.json").read_text()) == told
    segments = told["segments"]
    assert list(segments) == ["fit", "stop", "weigh", "validation"]
    assert segments["validation"] == {
        "first": str(DAYS[320].date()), "last": str(DAYS[-2].date()), "num_rows": 6 * (ROWS // 5 - 1)
    }  # fmt: skip
    assert set(told["symbols"]) == set(features)
    assert all(each["correlation"] > 0.4 and each["num_rows"] > 200 for each in told["symbols"].values())
    r2 = told["validation"]["scores"]["r2"]  # six symbols have no cross-section worth ordering
    assert 0.2 < r2["low"] < r2["value"] < r2["high"] < 0.6 and "rank_ic" not in told["validation"]["scores"]


def test_scores_of_the_validation_are_those_of_a_slow_reference(fitted):
    features, targets, fleet = fitted
    begins = round(ROWS * 0.8)
    said = fleet.predict(features).iloc[begins:]
    y = pd.DataFrame(targets).iloc[begins:]
    square = ((y - said) ** 2).sum().sum()
    assert fleet.summary["validation"]["scores"]["r2"]["value"] == pytest.approx(
        1 - square / (y**2).sum().sum()
    )
    own = fleet.summary["symbols"]["S2"]
    assert own["correlation"] == pytest.approx(y["S2"].corr(said["S2"]))
    assert own["num_validated"] == y["S2"].notna().sum()


def test_models_are_those_of_the_engine_on_the_same_rows(fitted):
    features, targets, fleet = fitted
    rows = read_frames(features, targets)
    (fold,) = purged_folds(ROWS, 1, label_sessions=1, train_share=0.8)
    data = _lessons(rows, fold, FrameOptions(preset="fast", min_rows=100)).lessons.data
    with Ledger.open(fleet.folder / "fleet" / LEDGER) as ledger:
        for position in (0, 4):
            alone = fit_symbol(data.one(position), configured("fast", {"min_rows": 100}), 0)
            assert ledger.model(data.symbols[position]).model == alone["model"]


def test_another_process_loads_and_predicts_the_same(fitted, tmp_path):
    features, _, fleet = fitted
    pd.to_pickle(features, tmp_path / "features.pkl")
    code = (
        "import sys, pandas as pd, barcast; fleet = barcast.FleetTrainer.load(sys.argv[1]); "
        "found = fleet.predict(pd.read_pickle(sys.argv[2])); found.to_pickle(sys.argv[3]); "
        "print(fleet.summary['successful_stocks'])"
    )
    given = (fleet.folder, tmp_path / "features.pkl", tmp_path / "said.pkl")
    out = subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "6"
    pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "said.pkl"), fleet.predict(features))
    with pytest.raises(RunError, match="no finished fleet"):
        barcast.FleetTrainer.load(tmp_path)


def test_forecasts_of_new_rows(fitted):
    features, _, fleet = fitted
    later = {name: frame.iloc[-3:].copy() for name, frame in features.items()}
    later["S0"] = later["S0"][["x2", "x0", "x1"]].assign(more=1.0)  # any order, more columns
    later["S1"] = later["S1"].iloc[1:]
    later["S2"].iloc[2, 1] = np.nan
    later["NEW"] = later["S3"]
    said, whole = fleet.predict(later), fleet.predict(features)
    assert list(said.columns) == [*NAMES, "NEW"] and (said.index == DAYS[-3:]).all()
    known = said.drop(columns="NEW").where(said.drop(columns="NEW").notna(), whole.iloc[-3:])
    pd.testing.assert_frame_equal(known, whole.iloc[-3:], check_freq=False)
    missing = [(0, "S1"), (2, "S2"), *((row, "NEW") for row in range(3))]
    assert [(r, c) for c in said for r in range(3) if np.isnan(said[c].iloc[r])] == missing
    with pytest.raises(DataError, match=r"S3: columns are missing that others have: x1.*\n  -> mend"):
        fleet.predict({**later, "S3": later["S3"].drop(columns="x1")})
    with pytest.raises(DataError, match="S3: its index holds numbers, those that taught times"):
        fleet.predict({"S3": later["S3"].reset_index(drop=True)})


# --- what is refused ------------------------------------------------------------------------------------------


def spoiled(features, targets):
    """Every kind of input that cannot be used, one a symbol; returns what each is called."""
    some = features["S0"]
    value = some.copy()
    value.iloc[7, 1] = np.inf
    infinite = targets["S0"].copy()
    infinite.iloc[3] = -np.inf
    holes = some.copy()
    holes.loc[some["x0"] <= 1, "x2"] = np.nan
    words = some.assign(sector="bank", when=DAYS)
    features |= {
        "inf": value, "lacks": some.drop(columns="x1"), "words": words, "unsorted": some.iloc[::-1],
        "twice": some.iloc[[0, 1, 1, 2]], "short": some.iloc[:90], "list": [1, 2], "empty": some.iloc[:0],
        "numbered": some.reset_index(drop=True), "columns": some[["x0", "x0", "x1"]], "no target": some,
        "levels": some.set_index([DAYS, DAYS]), "holes": holes,
        "late": some, "beyond": some, "constant": some, "texts": some, "mixed": some,
    }  # fmt: skip
    targets |= {name: targets["S0"] for name in features if name not in targets and name != "no target"}
    targets |= {
        "late": targets["S0"].set_axis(DAYS + pd.Timedelta(days=10_000)), "beyond": infinite,
        "constant": targets["S0"] * 0 + 1, "texts": targets["S0"].astype(str), "no features": targets["S0"],
        "mixed": targets["S0"].reset_index(drop=True),
    }  # fmt: skip
    return {
        "inf": "1 infinite values, the first in `x1` at 2020-01-10", "lacks": "missing that others have: x1",
        "words": r"columns that hold no numbers: `sector` \(str\), `when` \(datetime64",
        "unsorted": "its index is out of order: 2021-07-12.* comes after 2021-07-13",
        "twice": "its index holds 2020-01-02.* twice", "short": r"too short: \d+ of 100 training rows",
        "list": "no pandas or polars frame but a list", "empty": "a frame without a row",
        "numbered": "its index holds numbers, that of others times", "columns": "several columns have one name: x0",
        "no target": "features, but no targets", "no features": "targets, but no features",
        "levels": "an index of 2 levels", "holes": r"too short: .* of 100 training rows \(3\d\d rows lack a value\)",
        "late": "no target is known at any of its rows", "beyond": "1 infinite targets, the first at 2020-01-06",
        "constant": "constant target: 1 on all", "texts": "targets are no numbers but str",
        "mixed": "the index of its targets holds numbers, that of its rows times",
    }  # fmt: skip


def test_what_cannot_be_used_is_a_row_of_failures_and_stops_nobody(tmp_path):
    features, targets = frames()
    expected = spoiled(features, targets)
    features["S5"]["more"] = 1.0
    fleet = trainer().fit(features, targets, tmp_path)
    failures = fleet.summary["failures"]
    assert set(failures) == set(expected)
    for symbol, reason in expected.items():
        assert re.search(reason, failures[symbol]), (symbol, failures[symbol])
    assert fleet.summary["successful_stocks"] == 6 and fleet.summary["failed_stocks"] == len(expected)
    assert fleet.summary["ignored_columns"] == {"S5": ["more"]}


def test_what_is_wrong_for_all_is_an_error(tmp_path):
    features, targets = frames(NAMES[:2])
    for wrong, said in (
        ({"preset": "fastest"}, "no preset `fastest`"), ({"label_sessions": 0}, "`label_sessions` is 0"),
        ({"validation_share": 1.0}, "`validation_share` is 1"), ({"label_sessions": 60}, "part without a label|too few"),
        ({"symbol_config": {"S9": {}}}, "symbols that are not here: S9"),
        ({"symbol_config": {"S0": {"features": ["x9"]}}}, "features that are not in `features`: x9"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            trainer(**wrong).fit(features, targets, tmp_path)
    for wrong in ({"batch_size": 0}, {"max_memory_gb": 0}, {"target_time_per_symbol": -1}):
        with pytest.raises(UsageError):
            barcast.FleetTrainer(**wrong).fit(features, targets, tmp_path)
    with pytest.raises(UsageError, match="expected a dict by symbol, found DataFrame"):
        trainer().fit(features["S0"], targets, tmp_path)
    with pytest.raises(DataError, match="no symbol can be used: S0: features, but no targets"):
        trainer().fit(features, {}, tmp_path)
    with pytest.raises(DataError, match="features and targets are empty"):
        trainer().fit({}, {}, tmp_path)
    with pytest.raises(UsageError, match="20 sessions in the index are too few") as told:
        trainer().fit(*frames(["S0"], 20), tmp_path)
    assert "fold" not in str(told.value) and "more history" in told.value.todo
    with pytest.raises(DataError, match=r"none of 2 symbols .* too short: \d+ of 500 training rows"):
        trainer(min_rows=500).fit(features, targets, tmp_path)
    assert json.loads((tmp_path / "training_summary.json").read_text())["failed_stocks"] == 2
    with pytest.raises(RunError, match="no finished fleet"):
        barcast.FleetTrainer.load(tmp_path)


# --- what is kept ---------------------------------------------------------------------------------------------


def test_only_what_changed_is_fitted_again(tmp_path):
    features, targets = frames()
    first = trainer().fit(features, targets, tmp_path)
    before = digest_of(tmp_path)
    again = trainer().fit(features, targets, tmp_path).summary
    assert (again["kept_from_before"], again["fitted_now"]) == (6, {}) and digest_of(tmp_path) == before
    assert again["symbols"] == first.summary["symbols"]
    targets["S3"] = targets["S3"].copy()
    targets["S3"].iloc[50] += 1
    changed = trainer().fit(features, targets, tmp_path).summary
    assert (changed["kept_from_before"], changed["fitted_now"]) == (5, {"data changed": 1})
    del features["S0"], targets["S0"]
    assert set(trainer().fit(features, targets, tmp_path).summary["symbols"]) == set(NAMES[1:])
    reseeded = trainer(seed=1).fit(features, targets, tmp_path).summary
    assert reseeded["fitted_now"] == {"settings changed": 5}
    assert trainer(seed=1, checkpointing=False).fit(features, targets, tmp_path).summary["fitted_now"] == {
        "new": 5
    }


def test_a_killed_fit_goes_on_and_ends_in_the_same_bytes(fitted, tmp_path, monkeypatch):
    features, targets, whole = fitted
    calls, real = [], fit.fit_symbol

    def killed(*given):
        calls.append(given)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(fit, "fit_symbol", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer().fit(features, targets, tmp_path)
    with pytest.raises(RunError):
        barcast.FleetTrainer.load(tmp_path)
    monkeypatch.setattr(fit, "fit_symbol", real)
    told = trainer().fit(features, targets, tmp_path).summary
    assert told["kept_from_before"] >= 3 and told["successful_stocks"] == 6
    assert digest_of(tmp_path) == digest_of(whole.folder)


def test_what_is_refused_leaves_the_fleet_that_serves(fitted, tmp_path):
    features, targets, whole = fitted
    shutil.copytree(whole.folder, tmp_path / "fleet")
    with pytest.raises(UsageError, match="no executor 'proceses'"):
        trainer(seed=5, executor="proceses").fit(features, targets, tmp_path / "fleet")
    said = barcast.FleetTrainer.load(tmp_path / "fleet").predict(features)
    pd.testing.assert_frame_equal(said, whole.predict(features))
    for file in (tmp_path / "fleet" / "fleet").glob(f"{LEDGER}*"):
        file.write_bytes(b"no ledger" * 1000)
    with pytest.raises(StoreError):
        trainer(seed=5).fit(features, targets, tmp_path / "fleet")
    assert (tmp_path / "fleet" / "training_summary.json").is_file()


def later_frames():
    """Those of another day: of the first symbol not usable, of the second too short, of the third none."""
    features, targets = frames()
    features["S0"] = features["S0"].drop(columns="x1")
    features["S1"], targets["S1"] = features["S1"].tail(60), targets["S1"].tail(60)
    del features["S2"], targets["S2"]
    targets["S3"] = targets["S3"] + 1
    return features, targets


def check_dropped(told):
    assert set(told["dropped"]) == {"S0", "S1", "S2"} and set(told["failures"]) == {"S0", "S1"}
    assert told["dropped"]["S2"] == "not given any more" and told["dropped"]["S1"].startswith("too short: ")
    assert "x1" in told["dropped"]["S0"]
    for symbol, reason in told["failures"].items():
        assert reason == f"{told['dropped'][symbol]}; its model of an earlier fit is dropped"
    assert (told["successful_stocks"], told["failed_stocks"]) == (3, 2)


def test_whose_frame_is_no_longer_usable_keeps_no_model_and_the_summary_says_so(fitted, tmp_path, capsys):
    features, _, whole = fitted
    shutil.copytree(whole.folder, tmp_path / "fleet")
    now = later_frames()
    fleet = trainer(progress=True).fit(*now, tmp_path / "fleet")
    check_dropped(fleet.summary)
    assert "3 models of an earlier fit dropped: S0: " in capsys.readouterr().err
    assert json.loads((tmp_path / "fleet" / "training_summary.json").read_text()) == fleet.summary
    said = fleet.predict(features)
    assert said[["S0", "S1", "S2"]].isna().all().all() and said["S3"].notna().all()
    anew = trainer().fit(*now, tmp_path / "anew").summary  # it is what these frames alone give
    assert digest_of(tmp_path / "fleet") == digest_of(tmp_path / "anew") and anew["dropped"] == {}
    again = trainer().fit(*now, tmp_path / "fleet").summary  # said once
    assert again["dropped"] == {} and again["failures"] == anew["failures"]


def test_what_was_dropped_is_said_by_the_call_that_ends(fitted, tmp_path, monkeypatch):
    whole, now = fitted[2], later_frames()
    shutil.copytree(whole.folder, tmp_path / "fleet")
    with monkeypatch.context() as patch:
        patch.setattr(fit, "fit_symbol", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trainer().fit(*now, tmp_path / "fleet")
    check_dropped(trainer().fit(*now, tmp_path / "fleet").summary)


@pytest.mark.parametrize("preset", ["extreme", "fast", "standard"])
def test_whose_history_ends_before_the_weighing_rows_has_the_weights_of_its_members(tmp_path, preset):
    features, targets = frames()
    features["S5"], targets["S5"] = (
        features["S5"][:250],
        targets["S5"][:250],
    )  # of 400: the fifth before is weighed
    fleet = trainer(preset=preset).fit(features, targets, tmp_path)
    assert fleet.summary["successful_stocks"] == 6
    weights = fleet.summary["symbols"]["S5"]["weights"]
    members = {"extreme": 1, "fast": 2, "standard": 3}[preset] + 2  # zero and the pooled mean
    assert sum(value > 0 for value in weights.values()) == members
    assert sum(weights.values()) == pytest.approx(1)
    assert np.isfinite(fleet.predict({"S5": features["S5"].tail(1)}).iloc[0, -1])


def test_a_target_of_time_and_memory_gives_presets_of_the_ladder(tmp_path):
    features, targets = frames()
    given = {"preset": "standard", "min_rows": 100, "executor": "serial"}
    told = barcast.FleetTrainer(target_time_per_symbol=1e-4, max_memory_gb=64.0, **given).fit(
        features, targets, tmp_path
    )
    assert (
        told.summary["presets"]["extreme"] >= 1
    )  # nothing fits the target: the measured ones are what there is
    assert all("--time-per-symbol" in reason for reason in told.summary["failures"].values())
    whole = barcast.FleetTrainer(target_time_per_symbol=60, max_memory_gb=64.0, **given)
    told = whole.fit(features, targets, tmp_path / "whole").summary
    assert told["presets"] == {"standard": 6} and told["fitted_now"] == {"new": 6}
    assert whole.fit(features, targets, tmp_path / "whole").summary["kept_from_before"] == 6


# --- nothing sees ahead -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reach", [1, 5])
def test_models_and_weights_do_not_depend_on_what_comes_after_them(fitted, tmp_path, reach):
    features, targets, whole = fitted
    if reach > 1:
        whole = trainer(label_sessions=reach).fit(features, targets, tmp_path / "whole")
    begins = round(ROWS * 0.8)
    rng = np.random.default_rng(2)
    later_x, later_y = {}, {}
    for name in NAMES:
        x, y = features[name].copy(), targets[name].copy()
        x.iloc[begins:] = rng.normal(size=x.iloc[begins:].shape)
        y.iloc[begins - reach :] = rng.normal(size=ROWS - begins + reach)  # these reach beyond the border
        later_x[name], later_y[name] = x, y
    trainer(label_sessions=reach).fit(later_x, later_y, tmp_path / "later")
    assert digest_of(tmp_path / "later") == digest_of(whole.folder)


def test_a_label_that_reaches_further_than_said_would_be_seen():
    features, targets = frames()
    features["S1"], targets["S1"] = (
        each["S1"].drop(DAYS[300:330]) for each in (features, targets)
    )  # a pause
    rows = read_frames(features, targets)
    true = rows.known_at(5)
    own = rows.session[rows.offsets[1] : rows.offsets[2]]
    assert true[rows.offsets[1] + 298] == own[303] == 333  # its fifth row from then on comes after the pause
    folds = purged_folds(len(rows.calendar), 3, label_sessions=5)
    said = FrameOptions(label_sessions=5)
    for fold in folds:
        check_disjoint(rows.session, true, _lessons(rows, fold, said).lessons.data.segment)
        with pytest.raises(LeakError):
            too_short = FrameOptions(label_sessions=1)
            check_disjoint(rows.session, true, _lessons(rows, fold, too_short).lessons.data.segment)


# --- other frames and indices -----------------------------------------------------------------------------------


def reindexed(given, index):
    return {name: each.set_axis(index[: len(each)]) for name, each in given.items()}


@pytest.mark.parametrize(
    "index",
    [pd.RangeIndex(100, 100 + ROWS), [date(2020, 1, 1) + timedelta(days=d) for d in range(ROWS)],
     pd.date_range("2020-01-01", periods=ROWS, tz="Asia/Shanghai"), [f"{t:05d}" for t in range(ROWS)],
     pd.period_range("2020-01", periods=ROWS, freq="W")],
    ids=["numbers", "dates", "zone", "words", "periods"],
)  # fmt: skip
def test_any_index_that_can_be_sorted(fitted, tmp_path, index):
    features, targets, whole = fitted
    given = reindexed(features, index)
    fleet = trainer().fit(given, reindexed(targets, index), tmp_path)
    assert digest_of(tmp_path) == digest_of(whole.folder)
    said = fleet.predict(given)
    assert list(said.index) == list(given["S0"].index)
    np.testing.assert_array_equal(said.to_numpy(), whole.predict(features).to_numpy())


def test_targets_are_joined_by_their_index(fitted, tmp_path):
    features, targets, whole = fitted
    rng = np.random.default_rng(3)
    shuffled = {name: each.dropna().sample(frac=1, random_state=rng) for name, each in targets.items()}
    trainer().fit(features, shuffled, tmp_path)
    assert digest_of(tmp_path) == digest_of(whole.folder)


def test_polars_frames_make_the_same_fleet(fitted, tmp_path):
    features, targets, whole = fitted
    given = {name: pl.from_pandas(each.rename_axis("day").reset_index()) for name, each in features.items()}
    fleet = trainer(index="day").fit(
        given, {n: pl.Series(y.to_numpy()) for n, y in targets.items()}, tmp_path
    )
    assert digest_of(tmp_path) == digest_of(whole.folder)
    said = fleet.predict(given)
    assert said.columns == ["day", *NAMES] and said["day"].to_list() == list(DAYS.to_pydatetime())
    np.testing.assert_array_equal(said.drop("day").to_numpy(), whole.predict(features).to_numpy())
    with pytest.raises(DataError, match="a polars frame has no index"):
        trainer().fit(given, targets, tmp_path)


def test_indices_of_several_types_make_one_calendar(fitted, tmp_path):
    features, targets, whole = fitted
    columns = {name: each.rename_axis("day").reset_index() for name, each in features.items()}
    given = {name: pl.from_pandas(each) for name, each in columns.items()}
    given["S1"], given["S2"] = given["S1"].with_columns(pl.col("day").cast(pl.Date)), columns["S2"]
    series = {name: pl.Series(y.to_numpy()) for name, y in targets.items()}
    fleet = trainer(index="day").fit(given, {**series, "S2": targets["S2"]}, tmp_path)
    assert digest_of(tmp_path) == digest_of(whole.folder)
    expected = whole.predict(features)
    said = fleet.predict(given)
    assert said.columns == ["day", *NAMES] and said["day"].to_list() == list(DAYS.to_pydatetime())
    np.testing.assert_array_equal(said.drop("day").to_numpy(), expected.to_numpy())
    said = fleet.predict({"S2": given["S2"], "S1": given["S1"]})  # as the first is made
    pd.testing.assert_frame_equal(said, expected[["S2", "S1"]], check_freq=False, check_index_type=False)


@pytest.mark.parametrize("is_polars", [False, True], ids=["pandas", "polars"])
def test_indices_of_several_zones_are_told_in_utc(is_polars):
    features, _ = frames(NAMES[:2], 10)
    for name, zone in zip(NAMES, ("Asia/Shanghai", "America/New_York"), strict=False):
        features[name] = features[name].set_axis(DAYS[:10].tz_localize("UTC").tz_convert(zone))
    if is_polars:
        features = {n: pl.from_pandas(x.rename_axis("t").reset_index()) for n, x in features.items()}
    index = "t" if is_polars else ""
    rows = rows_to_predict(features, COLUMNS, ZONED, index)
    said = _as_frame(features, rows, np.arange(20.0), index)
    days = said["t"].to_list() if is_polars else list(said.index)
    assert days == list(DAYS[:10].tz_localize("UTC"))
    np.testing.assert_array_equal(said[NAMES[:2]].to_numpy(), np.arange(20.0).reshape(2, 10).T)


def test_polars_frames_need_no_pandas():
    code = (
        "import sys; sys.modules['pandas'] = None; import polars as pl\n"
        "from barcast.pipeline.frame_rows import read_frames\n"
        "frame = pl.DataFrame({'t': [1, 2, 3], 'x': [1.0, 2.0, None]})\n"
        "print(read_frames({'A': frame}, {'A': pl.Series([1, 2, 3])}, 't').inputs.tolist())\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[[1.0], [2.0], [nan]]"


# --- folds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["expanding", "rolling"])
def test_folds_of_frames(tmp_path, scheme):
    features, targets = frames([f"S{s:02d}" for s in range(31)])
    features["bad"] = features["S00"]
    found = trainer(preset="extreme").cross_validate(
        features, targets, folds=2, scheme=scheme, save_dir=tmp_path
    )
    assert found.metrics == ("rank_ic", "ic", "r2")
    assert [fold.num_symbols for fold in found.folds] == [31, 31] and found.num_symbols == 32
    ((reason, folds),) = found.failures["bad"].items()
    assert "no targets" in reason and list(folds) == [1, 2] and len(found.failures) == 1
    score = found.overall[1]["rank_ic"]
    table = found.forecasts.to_pandas()
    daily = table.groupby("session").apply(lambda rows: rows["y"].corr(rows["score"], method="spearman"))
    assert score.value == pytest.approx(daily.mean()) and score.low < score.value < score.high
    assert found.overall[1]["r2"].value == pytest.approx(
        1 - ((table["y"] - table["y_hat"]) ** 2).sum() / (table["y"] ** 2).sum()
    )
    second = table[table["fold"] == 2]
    daily = second.groupby("session").apply(lambda rows: rows["y"].corr(rows["score"]))
    assert found.folds[1].scores[1]["ic"].value == pytest.approx(daily.mean())
    assert json.loads((tmp_path / found.folder / "cv.json").read_text())["num_symbols"] == 32
    again = trainer(preset="extreme").cross_validate(
        features, targets, folds=2, scheme=scheme, save_dir=tmp_path
    )
    assert again.forecasts.equals(found.forecasts) and again.seconds < found.seconds


def test_folds_are_fitted_as_the_fit_is(tmp_path, monkeypatch):
    limits, made = [], fleet.Driver.__init__

    def spied(self, ledger, workers, job, **given):
        limits.append(job.limits)
        made(self, ledger, workers, job, **given)

    monkeypatch.setattr(fleet.Driver, "__init__", spied)
    features, targets = frames()
    given = {"preset": "fast", "min_rows": 100, "executor": "serial"}
    asked = {"features": features, "targets": targets, "folds": 2, "save_dir": tmp_path}
    found = barcast.FleetTrainer(60, 50, 64.0, **given).cross_validate(**asked)
    assert [fold.presets for fold in found.folds] == [{"fast": 6}] * 2  # nobody has less for being measured
    assert len(limits) == 4 and set(limits) == {limits[0]} and limits[0].max_memory == 64 << 30
    other = barcast.FleetTrainer(50, 50, 64.0, **given).cross_validate(**asked)
    assert other.folder != found.folder


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_example_of_the_page_runs_and_says_what_it_says(language, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / language / "fleet.md").read_text(encoding="utf-8")
    (block,) = (each for each in re.findall(r"```python\n(.*?)```", page, re.S) if "FleetTrainer(" in each)
    monkeypatch.chdir(tmp_path)
    exec(block.replace("FleetTrainer(target", 'FleetTrainer(executor="serial", target'), {})
    successful, failures, score, said = capsys.readouterr().out.split("\n", 3)
    assert successful.startswith("3 0.00")
    assert block.partition("# {'FB'")[2].splitlines()[0] == failures.removeprefix("{'FB'")
    assert "'low'" in score and "AAPL" in said
