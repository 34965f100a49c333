"""Purged cross-validation of a fleet: what folds read, what they say, and that they stop before `route`."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import barcast
from barcast.cli.app import _run
from barcast.core.errors import DataError, RunError, UsageError
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.features import feature_set
from barcast.fleet.data import SymbolData
from barcast.fleet.limits import Limits
from barcast.fleet.trees.fit import fit_symbol, predictions
from barcast.fleet.trees.presets import MEMBERS, configured
from barcast.pipeline.chosen import Tuned
from barcast.pipeline.dataset import build_dataset
from barcast.pipeline.fleet import FleetHow
from barcast.pipeline.fleet_cv import CvOptions, _lessons, cut_folds, fleet_cross_validation
from barcast.pipeline.fleet_folds import _is_finished
from barcast.pipeline.market import known_at_of, load_market
from barcast.pipeline.settings import resolve
from barcast.splits import check_disjoint
from tests.journey.test_journey import DECLARED, write_market

SESSIONS, REACH = 420, 6
FLAGS = {"preset": "extreme", "min_rows": 70}
SERIAL = FleetHow(executor="serial")


def run(*arguments) -> int:
    return _run([str(argument) for argument in arguments], debug=False)


def import_market(root, symbols=33, change=None) -> None:
    write_market(root / "bars", symbols=symbols, sessions=SESSIONS)
    path = root / "bars" / "SYM00.csv"
    pl.read_csv(path).tail(320).write_csv(path)  # too short in both folds, of 100 sessions less
    for path in sorted((root / "bars").glob("*.csv")) if change else ():
        change(pl.read_csv(path)).write_csv(path)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED) == 0


def validate(root, symbols=(), limit=0, how=SERIAL, flags=FLAGS, **cut):
    place = Workspace(root)
    options = CvOptions(**{"folds": 2, **cut})
    config = resolve(place, "fleet-trees", flags)
    return fleet_cross_validation(place, config, options, symbols=symbols, limit=limit, how=how)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("cv")
    import_market(root)
    return root


@pytest.fixture(scope="module")
def found(place):
    return validate(place)


def dataset_of(root):
    place = Workspace(root)
    config = resolve(place, "fleet-trees", FLAGS)
    return build_dataset(load_market(place, config.data), place, feature_set("core12"), tabular=True)


def test_scores_are_those_of_a_slow_reference(found):
    table = found.forecasts.to_pandas()
    for fold, part in [(None, table), *table.groupby("fold")]:
        scores = found.overall[5] if fold is None else found.folds[fold - 1].scores[5]
        sessions = [rows for _, rows in part.groupby("session")]
        for name, method in (("rank_ic", "spearman"), ("ic", "pearson")):
            daily = [rows["y"].corr(rows["score"], method=method) for rows in sessions]
            assert scores[name].value == pytest.approx(np.nanmean(daily))
            assert scores[name].low < scores[name].value < scores[name].high
        error = ((part["y"] - part["y_hat"]) ** 2).sum()
        assert scores["r2"].value == pytest.approx(1 - error / (part["y"] ** 2).sum())
    assert found.overall[5]["rank_ic"].low > 0  # reversal was planted


@pytest.mark.parametrize("fold", [1, 2])
def test_a_fold_forecasts_what_its_own_rows_teach(place, found, fold):
    """Rows are chosen again here, label by label; the ensemble's score is its one member's, times a weight."""
    data = dataset_of(place)
    bars, position = data.market.bars, 7
    span = data.market.plan.spans["weigh"][1] + 1
    train = round(0.5 * span)
    border = train if fold == 1 else round(train + (span - train) / 2)
    ends = [round(border * share) for share in (0.8, 0.9, 1.0)]
    rows = slice(int(bars.offsets[position]), int(bars.offsets[position + 1]))
    segment = np.full(rows.stop - rows.start, -1, np.int8)
    for row, session in enumerate(bars.session[rows].tolist()):
        part = sum(session >= end for end in ends)
        if row >= 19 and part < 3 and session + REACH < ends[part]:
            segment[row] = part
    one = SymbolData(
        bars.symbols[position], data.inputs[rows], data.target[rows], bars.session[rows].astype(np.int32),
        segment, np.zeros(len(segment), np.int64),
    )  # fmt: skip
    model = fit_symbol(one, configured("extreme", {"min_rows": 70}), 0)["model"]
    said = found.forecasts.filter(fold=fold, symbol=bars.symbols[position])
    judged = said["session"].to_numpy()
    assert judged[0] == border and judged[-1] + REACH < span
    forest = predictions(one, model, judged.astype(np.int64))[:, 0, MEMBERS.index("forest")]
    weight = said["score"].to_numpy() / forest
    assert 0 < weight[0] <= 1
    np.testing.assert_allclose(weight, weight[0], rtol=1e-5)
    np.testing.assert_allclose(said["y"].to_numpy(), data.market.labels.y[rows][judged, 0])


@pytest.mark.parametrize(("scheme", "embargo"), [("expanding", 0), ("rolling", 3)])
def test_no_label_serves_two_parts_and_none_reaches_route(place, scheme, embargo):
    data = dataset_of(place)
    bars, plan = data.market.bars, data.market.plan
    known_at, last = known_at_of(data.market.labels), plan.spans["weigh"][1]
    options = CvOptions(folds=3, scheme=scheme, embargo=embargo)
    folds = cut_folds(bars.calendar, options, REACH, (0, last))
    everybody = np.arange(bars.num_symbols)
    for fold in folds:
        segment = _lessons(Workspace(place), data, fold, everybody).lessons.data.segment
        check_disjoint(bars.session, known_at, segment)
        used = segment >= 0
        assert known_at[used].max() <= last
        assert known_at[used & (segment < 3)].max() < fold.validation[0] - embargo
        assert (bars.session[segment == 3] >= fold.validation[0]).all()
        # planted: had the rows that the purge takes been kept, the check would have spoken
        kept = segment.copy()
        late = (bars.session >= fold.train[1] - 3) & (bars.session <= fold.train[1]) & (known_at >= 0)
        kept[late] = 2
        with pytest.raises(barcast.BarcastError, match="has a label known at session"):
            check_disjoint(bars.session, known_at, kept)


def test_what_comes_after_weigh_changes_nothing(place, found, tmp_path):
    last = load_market(Workspace(place), resolve(Workspace(place), "fleet-trees").data).plan.spans["weigh"][1]

    def other_end(bars):
        moved = np.where(np.arange(len(bars)) > last - SESSIONS + len(bars), 1.7, 1.0)
        moved *= np.where(np.arange(len(bars)) % 3, 1.0, moved)
        return bars.with_columns(pl.col("Open", "High", "Low", "Close") * pl.Series(moved))

    import_market(tmp_path, change=other_end)
    other = validate(tmp_path)
    assert other.folder.rpartition("/")[2] != found.folder.rpartition("/")[2]
    assert other.forecasts.equals(found.forecasts)


def test_the_same_call_fits_nothing_again_and_failures_are_named(place, found, monkeypatch):
    assert list(found.failures) == ["SYM00"] and [fold.num_symbols for fold in found.folds] == [32, 32]
    assert all("too short" in reason for reason in found.failures["SYM00"])

    def refuse(*_):
        raise AssertionError("fitted again")

    monkeypatch.setattr("barcast.pipeline.fleet_folds.fit_lessons", refuse)
    (Path(found.folder) / "folds" / "0" / "fleet").mkdir()  # as a kill after the last file leaves it
    again = validate(place)
    assert again.forecasts.equals(found.forecasts) and again.overall == found.overall
    left = sorted(path.name for path in Workspace(place).runs.glob("cv-*/folds/0/*"))
    assert left == ["fold.json", "forecasts.parquet"]
    assert barcast.runs(workspace=place) == []


def test_a_fold_waits_for_symbols_whose_worker_had_no_memory(place, monkeypatch):
    asked, short = ("SYM07", "SYM08", "SYM09"), {"SYM09"}
    whole = validate(place, symbols=asked)
    shutil.rmtree(whole.folder)

    def fit(data, *more):
        if data.symbol in short:
            raise MemoryError("no room")
        return fit_symbol(data, *more)

    with monkeypatch.context() as patch:
        patch.setattr("barcast.fleet.trees.fit.fit_symbol", fit)
        less = validate(place, symbols=asked)
        short |= {*asked}
        with pytest.raises(DataError, match="the same command tries again"):
            validate(place, symbols=asked[:1])
    assert less.failures == {"SYM09": {"MemoryError: no room": [1, 2]}}
    again = validate(place, symbols=asked)
    assert again.folder == whole.folder and not again.failures
    assert again.forecasts.equals(whole.forecasts)
    assert not list(Path(again.folder).glob("folds/*/fleet"))


def test_a_fold_that_limits_kept_symbols_out_of_is_tried_again_under_others(tmp_path):
    fold = RunFolder(tmp_path)
    fold.write("fold.json", {"limits": [None, None, 1000]})
    assert _is_finished(fold, Limits(max_memory=1000)) and not _is_finished(fold, Limits(max_memory=2000))


def test_what_chose_the_settings_does_not_judge_them(place, found):
    where, begins = Workspace(place), found.folds[0].validation[0]
    config = resolve(where, "fleet-trees", FLAGS)
    before, late = (
        replace(config, tuned=Tuned(model="fleet-trees", run="search-x", trials=3, until=str(until)))
        for until in (np.datetime64(begins) - 1, begins)
    )
    with pytest.raises(RunError, match=f"known until {begins}, and folds judge from {begins}"):
        fleet_cross_validation(where, late, CvOptions(folds=2), how=SERIAL)
    assert fleet_cross_validation(where, before, CvOptions(folds=2), how=SERIAL).overall == found.overall
    with pytest.raises(UsageError, match="name it"):
        fleet_cross_validation(where, resolve(where, "fleet-lstm", {"preset": "auto"}), CvOptions())


def test_a_sample_is_forecast_as_in_the_whole_market(place, found):
    """Whoever is fitted, inputs are compared within the whole market."""
    some = validate(place, symbols=("sym07", "SYM09"))
    assert some.metrics == ("r2", "auc")  # two symbols cannot be ordered
    models = found.forecasts.filter(pl.col("symbol").is_in(["SYM07", "SYM09"]), fold=1).sort(
        "symbol", "session"
    )
    mine = some.forecasts.filter(fold=1).sort("symbol", "session")
    ratio = mine["score"] / models["score"]  # the same forest; weights are shared with fewer symbols
    for symbol in ("SYM07", "SYM09"):
        own = ratio.filter(mine["symbol"] == symbol).to_numpy()
        np.testing.assert_allclose(own, own[0], rtol=1e-5)
    assert validate(place, limit=5).num_symbols == 5


def test_the_command_and_what_it_refuses(place, monkeypatch, capsys):
    monkeypatch.setattr("barcast.pipeline.fleet_options.fleet_how", lambda **_: SERIAL)
    flags = ["-w", place, "--preset", "extreme", "--min-rows", 70, "--folds", 2, "--quiet"]
    assert run("fleet", "cv", *flags, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["overall"]["5"]["rank_ic"]["value"] > 0 and len(told["folds"]) == 2
    assert run("fleet", "cv", *flags) == 0
    shown = capsys.readouterr().out
    assert "RankIC" in shown and "1 symbol without a model in some folds, 1 in all: too short" in shown
    assert run("fleet", "cv", *flags, "--scheme", "sliding") == 2
    assert run("fleet", "cv", *flags, "--kind", "forest") == 2
    assert run("fleet", "cv", *flags[:-3], "--folds", 40) == 2
    api = barcast.fleet_cross_validation("SYM00", workspace=place, folds=2, preset="extreme", min_rows=5)
    assert api.num_symbols == 1 and not api.folds[1].skipped
    assert "too short: 3 of 5" in api.folds[0].skipped
    with pytest.raises(DataError, match=r"in any of 2 folds: .*\n  -> fewer folds"):
        validate(place, flags={**FLAGS, "min_rows": 5000})
    with pytest.raises(UsageError, match="is no fleet"):
        fleet_cross_validation(Workspace(place), resolve(Workspace(place), "ridge"), CvOptions())
