"""Stored fleets that are followed: planted decay is found and named, a stationary market is quiet."""

import json
import subprocess

import numpy as np
import polars as pl
import pytest

import barcast
from barcast.cli.app import _run
from barcast.core.calendar import exchange_days
from barcast.core.errors import RunError, UsageError
from barcast.core.runs import open_run
from barcast.core.workspace import Workspace
from barcast.evaluation.skill import ForecastRows
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.pipeline import fleet_decay as decay_module
from barcast.pipeline import fleet_refresh as refresh_module
from barcast.pipeline.fleet import FleetHow
from barcast.pipeline.fleet_seen import fleet_run

NAMES = [f"SYM{s:02d}" for s in range(34)]
FEW = NAMES[:5]
KNOWN, ALL = 480, 640  # sessions when the fleet is trained, and later
DAYS = exchange_days("XNYS", np.datetime64("2020-01-02").item(), np.datetime64("2022-12-29").item())[:ALL]
BORDERS = [str(DAYS[last - 1]) for last in (250, 290, 330, 460, KNOWN)]
FLEET = ["--preset", "fast", "--min-rows", "150", "--executor", "serial", "--quiet", "--horizon", "1"]


def run(*arguments) -> int:
    return _run([str(argument) for argument in arguments], debug=False)


def write_market(folder, sessions, gone=(), names=NAMES) -> None:
    """One CSV a symbol: a day's move is taken back in part two days later, until that is gone for some."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    market = rng.normal(0, 0.006, ALL)
    for name in names:
        noise, volume = rng.normal(0, 0.015, ALL), rng.integers(10_000, 900_000, ALL)
        own = noise.copy()
        own[2:] -= 0.7 * noise[:-2]
        if name in gone:
            own[KNOWN:] = noise[KNOWN:]
        close = 30 * np.exp(np.cumsum(own + market))
        told = {"Date": DAYS, "Open": close, "High": close * 1.004, "Low": close * 0.996, "Close": close}
        pl.DataFrame({**told, "Volume": volume}).head(sessions).write_csv(folder / f"{name}.csv")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workspace with a fleet and its refit, as of the first 480 sessions."""
    root = tmp_path_factory.mktemp("decay") / "ws"
    write_market(root / "bars", KNOWN)
    assert run("data", "import", root / "bars", "-w", root, "--market", "us", "--basis", "raw") == 0
    asked = [*FLEET, "--segments", ",".join(BORDERS), "--final", "--no-report"]
    assert run("fleet", "trees", "-w", root, *asked) == 0
    return root


def continued(trained, folder, gone=()):
    root = folder / "ws"
    subprocess.run(["cp", "-r", str(trained), str(root)], check=True)
    write_market(root / "later", ALL, gone)
    assert run("data", "update", root / "later", "-w", root) == 0
    return root


@pytest.fixture(scope="module")
def quiet(trained, tmp_path_factory):
    return continued(trained, tmp_path_factory.mktemp("quiet"))


@pytest.fixture(scope="module")
def few(trained, tmp_path_factory):
    return continued(trained, tmp_path_factory.mktemp("few"), FEW)


def evaluation(root) -> str:
    return fleet_run(Workspace(root)).name


def test_a_stationary_continuation_is_quiet(quiet):
    found = barcast.fleet_decay(evaluation(quiet), workspace=quiet)
    (report,) = found.reports.values()
    assert found.segments == ("route",) and found.reference == found.run
    assert (found.since, found.until) == (str(DAYS[KNOWN]), str(DAYS[ALL - 3]))
    assert report.pooled.measure == "rank_ic" and report.pooled.alarm is None
    assert report.pooled.reference > 0.3 and report.pooled.since > 0.3
    charts = [chart for of in report.cohorts.values() for chart in of]
    assert len(charts) == 3 and all(chart.alarm is None for chart in charts)  # one preset is no grouping
    assert found.named() == {} and not any(shift.shifted for shift in report.inputs)
    assert len(report.inputs) == 12 and report.naming.num_judged == len(NAMES)


def test_what_all_lost_is_found_when_it_was_lost(trained, tmp_path, capsys):
    root = continued(trained, tmp_path, NAMES)
    assert run("fleet", "decay", "-w", root, "-q") == 0  # an answer, no failure
    printed = capsys.readouterr().out
    assert "all: skill fell from about 20" in printed and "whose models decayed" in printed
    assert run("fleet", "decay", "-w", root, "-q", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    refit = next(one for one in barcast.runs(workspace=root) if one.info.get("parent"))
    assert answer["run"] == refit.name and answer["reference"] == evaluation(root)
    pooled = answer["horizons"]["1"]["pooled"]
    days = [str(day) for day in DAYS]
    assert days.index(pooled["onset"]) - KNOWN in range(-2, 15)
    assert days.index(pooled["known_at"]) - KNOWN in range(60)
    assert len(answer["named"]) > 20


def test_the_few_that_lost_it_are_named(few, capsys):
    found = barcast.fleet_decay(workspace=few)
    named = set(found.named())
    assert len(named & set(FEW)) >= 4 and len(named - set(FEW)) <= 1
    assert run("fleet", "decay", "-w", few, "-q") == 0
    printed = capsys.readouterr().out
    assert all(symbol in printed for symbol in named) and "fleet refresh --named" in printed


@pytest.fixture
def seen(monkeypatch):
    """The rows that decay is measured on, of each call the reference and then those watched."""
    found: list[ForecastRows] = []
    plain = decay_module.measure_decay

    def watched(symbols, reference, since, *rest, **more):
        found.extend((reference, since))
        return plain(symbols, reference, since, *rest, **more)

    monkeypatch.setattr(decay_module, "measure_decay", watched)
    return found


def test_the_sealed_test_is_not_looked_at_until_it_was_opened(quiet, tmp_path, seen):
    root = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(quiet), str(root)], check=True)
    name, inside = evaluation(root), str(DAYS[470])
    barcast.fleet_decay(name, workspace=root)
    test = set(range(460, KNOWN))
    assert not any(test & set(rows.session.tolist()) for rows in seen)
    with pytest.raises(UsageError, match="sealed"):
        barcast.fleet_decay(name, workspace=root, since=inside)
    for since in (str(DAYS[300]), "soon"):
        with pytest.raises(UsageError, match="--since"):
            barcast.fleet_decay(name, workspace=root, since=since)
    barcast.compare([name], workspace=root, open_test=True)
    found = barcast.fleet_decay(name, workspace=root, since=inside)
    assert found.segments == ("route", "test") and found.since == inside
    assert set(seen[-2].session.tolist()) & test == set(range(460, 470))


def test_symbols_are_fitted_again_and_the_others_taken_over(few, tmp_path, monkeypatch, capsys):
    root = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(few), str(root)], check=True)
    old = decay_module.stored_fleet(Workspace(root))
    again = sorted(barcast.fleet_decay(workspace=root).named())

    def killed(*arguments, **options):
        assert options["fleet"].executor == "serial"  # as of the evaluation: what it may take is on record
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(refresh_module, "fit_model", killed)  # after models were taken over
        barcast.fleet_refresh(named=True, workspace=root, workers=1)
    capsys.readouterr()
    assert run("fleet", "refresh", "--named", "-w", root, "-q", "--workers", "1") == 0
    taken = len(NAMES) - len(again)
    printed = capsys.readouterr().out
    assert f"{taken} taken over, {len(again)} fitted again" in printed
    new = decay_module.stored_fleet(Workspace(root))
    assert new.info["refreshed_from"] == old.name and new.info["parent"] == evaluation(root)
    assert new.info["taught_until"] == new.info["chosen_until"] == str(DAYS[ALL - 1])
    with Ledger.open(old.fleet / LEDGER) as before, Ledger.open(new.fleet / LEDGER) as after:
        assert before.pooled("weights") == after.pooled("weights")
        changed = {row.symbol for row in after.rows() if row.content != before.row(row.symbol).content}
        assert changed == set(again)
        assert all(after.model(symbol) == before.model(symbol) for symbol in {*NAMES} - changed)
        assert after.row(again[0]).num_rows > before.row(again[0]).num_rows
        assert new.info["num_teaching_rows"] == sum(after.row(symbol).num_rows for symbol in again)
        assert after.row("SYM20").metrics["taken_over"]["run"] == old.name
    forecasts = barcast.predict(evaluation(root), workspace=root, allow_old=True)
    assert forecasts.run == new.name and len(forecasts.table) == len(NAMES)
    assert differing(root, old.name, new.name) == set(again)


def test_one_refreshed_symbol_neither_blocks_the_others_nor_restarts_their_watch(few, tmp_path):
    root = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(few), str(root)], check=True)
    old = decay_module.stored_fleet(Workspace(root))
    serial = FleetHow(executor="serial")
    first = refresh_module.fleet_refresh(Workspace(root), ["SYM20"], how=serial)
    second = refresh_module.fleet_refresh(Workspace(root), ["SYM21"], how=serial)
    assert (first.of, second.of) == (old.name, first.run) and second.fitted == ("SYM21",)
    assert first.oldest_taught_until == second.oldest_taught_until == old.info["taught_until"]
    assert decay_module.stored_fleet(Workspace(root)).name == second.run  # of two that know as much
    assert barcast.predict(evaluation(root), workspace=root, allow_old=True).run == second.run
    assert differing(root, old.name, second.run) == {"SYM20", "SYM21"}
    for known in (["SYM20"], ["SYM20", "SYM21"]):
        with pytest.raises(RunError, match="knows all that the store does of SYM20"):
            refresh_module.fleet_refresh(Workspace(root), known, how=serial)
    before, after = (barcast.fleet_decay(run, workspace=root) for run in (old.name, second.run))
    watched = str(DAYS[KNOWN]), str(DAYS[ALL - 3])
    assert (after.since, after.until) == (before.since, before.until) == watched
    (report,) = after.reports.values()
    assert report.naming.num_judged == len(NAMES) - 2 and len(report.inputs) == 12
    named = set(after.named())
    assert len(named & set(FEW)) >= 4 and len(named - set(FEW)) <= 1
    later = barcast.fleet_decay(second.run, workspace=root, since=str(DAYS[KNOWN + 40]))
    assert later.since == str(DAYS[KNOWN + 40])
    with pytest.raises(UsageError, match="known until " + str(DAYS[KNOWN - 1])):
        barcast.fleet_decay(second.run, workspace=root, since=str(DAYS[KNOWN - 1]))


def test_models_taken_over_from_an_evaluation_leave_its_test_sealed(few, tmp_path, seen):
    root = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(few), str(root)], check=True)
    name, serial = evaluation(root), FleetHow(executor="serial")
    new = refresh_module.fleet_refresh(Workspace(root), ["SYM20"], name, how=serial).run
    assert barcast.fleet_decay(new, workspace=root).since == str(DAYS[KNOWN])
    assert not any(set(range(460, KNOWN)) & set(rows.session.tolist()) for rows in seen)
    with pytest.raises(UsageError, match="sealed"):
        barcast.fleet_decay(new, workspace=root, since=str(DAYS[470]))


def test_a_refreshed_fleet_is_as_old_as_its_oldest_model(few, tmp_path, capsys):
    root = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(few), str(root)], check=True)
    name = evaluation(root)
    old = open_run(Workspace(root), name).info["taught_until"]
    assert run("fleet", "refresh", "SYM20", "-w", root, "--run", name, "--workers", "1") == 0
    printed, said = capsys.readouterr()
    assert f"the oldest of them was taught by labels known until {old}" in " ".join(printed.split())
    assert "1 symbol to fit again, 33 keep their models, 0 without one" in " ".join(said.split())
    new = decay_module.stored_fleet(Workspace(root))
    assert (new.info["oldest_taught_until"], new.info["taught_until"]) == (old, str(DAYS[ALL - 1]))
    assert f"oldest model was taught by labels known until {old}" in (new.path / "card.md").read_text()
    assert run("fleet", "refresh", "SYM21", "-w", root, "--workers", "1", "--json", "-q") == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["of"], again["oldest_taught_until"]) == (new.name, old)
    assert run("predict", name, "-w", root, "-q") == 5
    refused = " ".join(capsys.readouterr().err.split())
    assert f"has models that were taught by labels known until {old}" in refused
    assert f"barcast train --refit {name}" in refused
    assert run("predict", name, "-w", root, "-q", "--allow-old") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"served by {again['run']} (of {name}, some of whose symbols were fitted again)" in printed
    assert f"{DAYS[ALL - 1]}, its oldest models until {old} only" in printed and "warning:" in printed
    for symbol, taught in (("SYM22", old), ("SYM21", str(DAYS[ALL - 1]))):
        found = barcast.fleet_export(symbol, tmp_path / "one.zip", workspace=root)
        assert (found.run, found.served_by, found.taught_until) == (again["run"], again["run"], taught)
    assert run("fleet", "export", "SYM21", "-w", root, "--run", name, "--to", tmp_path / "one.zip") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"SYM21 of {name}" in printed and f"taught by labels known until {old}" in printed
    assert f"barcast predict serves by {again['run']}" in printed


def differing(root, *runs) -> set[str]:
    """Return of which symbols two runs say different things."""
    scores = [
        dict(barcast.predict(run, workspace=root, allow_old=True).table.select("symbol", "score").iter_rows())
        for run in runs
    ]
    return {symbol for symbol, score in scores[0].items() if scores[1][symbol] != score}


def test_a_model_taken_over_reads_inputs_as_it_learned_them(tmp_path):
    """A small universe is normalised by what `fit` was like, and `fit` has moved since."""
    names = NAMES[:5]
    write_market(tmp_path / "bars", KNOWN, names=names)
    write_market(tmp_path / "later", ALL, names=names)
    assert run("data", "import", tmp_path / "bars", "-w", tmp_path, "--market", "us", "--basis", "raw") == 0
    asked = [*FLEET, "--preset", "extreme", "--final", "--no-report"]
    assert run("fleet", "trees", "-w", tmp_path, *asked) == 0
    assert run("data", "update", tmp_path / "later", "-w", tmp_path) == 0
    serial = FleetHow(executor="serial")
    found = refresh_module.fleet_refresh(Workspace(tmp_path), ["sym03"], how=serial)
    assert (found.fitted, found.num_taken_over, found.not_fitted) == (("SYM03",), 4, {})
    old, new = (Workspace(tmp_path).runs / name for name in (found.of, found.run))
    scalers = [json.loads((folder / "state.json").read_text())["scaler"] for folder in (old, new)]
    assert scalers[0] == scalers[1] is not None
    assert differing(tmp_path, found.of, found.run) == {"SYM03"}
    (report,) = barcast.fleet_decay(found.of, workspace=tmp_path).reports.values()
    assert report.pooled.measure == "gain" and report.pooled.alarm is None


def test_a_fleet_of_which_nothing_is_known_since_says_so(trained, capsys):
    assert run("fleet", "decay", "-w", trained, "-q") == 0
    assert "no outcome is known yet" in capsys.readouterr().out
    assert barcast.fleet_decay(workspace=trained).plain()["horizons"] == {}
    with pytest.raises(RunError, match="knows all that the store does"):
        barcast.fleet_refresh("SYM01", workspace=trained)
    assert run("fleet", "refresh", "--named", "-w", trained, "-q") == 0
    assert "nothing to fit again" in capsys.readouterr().out
    with pytest.raises(UsageError, match="nobody is named"):
        barcast.fleet_refresh(workspace=trained)
