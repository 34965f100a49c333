"""A fleet through the command line: fitted, compared, served, refitted, killed, left out and taken up again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import barcast
from barcast.cli.app import _run
from barcast.core.errors import RunError, UsageError
from barcast.core.lock import writer_lock
from barcast.core.predictions import SEGMENTS, read_predictions
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.evaluation.metrics import rank_ic
from barcast.fleet.driver import Driver
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.ledger_rows import Wanted
from barcast.fleet.trees import fit
from barcast.fleet.trees.presets import MEMBERS, PRESETS
from barcast.fleet.work import Unit
from barcast.models.dedicated import FleetTreesConfig
from barcast.pipeline import fleet as fitting
from barcast.pipeline import fleet_options
from barcast.pipeline.dataset import build_dataset, resolve_features
from barcast.pipeline.fleet_lessons import lessons_of
from barcast.pipeline.fleet_seen import fleet_run
from barcast.pipeline.fleet_trees import LADDERS
from barcast.pipeline.fleet_weights import take_weights, weigh_members
from barcast.pipeline.market import load_market
from barcast.pipeline.settings import from_run
from tests.journey.test_journey import DECLARED, write_market
from tests.tracking.fake import tracked_by_default

NAMES = [f"SYM{s:02d}" for s in range(34)]
FAST = ["--preset", "fast", "--min-rows", "200", "--executor", "serial", "--quiet"]


def run(*arguments) -> int:
    return _run([str(argument) for argument in arguments], debug=False)


def import_market(root, shortened=("SYM33",)) -> None:
    write_market(root / "bars", symbols=len(NAMES), sessions=500)
    for name in shortened:
        path = root / "bars" / f"{name}.csv"
        pl.read_csv(path).tail(120).write_csv(path)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED) == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace with a market of 34 symbols, one of them short, and a fleet with its refit."""
    root = tmp_path_factory.mktemp("fleet")
    import_market(root)
    assert run("fleet", "trees", "-w", root, *FAST, "--final") == 0
    return root


def ledger_of(root, name=""):
    return Ledger.open(fleet_run(Workspace(root), name).fleet / LEDGER)


def digest_of(root) -> str:
    with ledger_of(root) as ledger:
        return ledger.content_digest("weights")


def test_presets_are_those_of_the_options():
    import typing

    named = typing.get_args(typing.get_type_hints(FleetTreesConfig)["preset"])
    assert set(named) == set(PRESETS) == set(LADDERS)
    assert all(ladder[-1] == name and set(ladder) <= set(PRESETS) for name, ladder in LADDERS.items())


def test_every_symbol_with_the_rows_has_a_model_and_the_short_one_a_reason(place, capsys):
    found = barcast.fleet_status(workspace=place)
    assert found.counts == {"pending": 0, "running": 0, "done": 33, "failed": 0, "left_out": 1}
    assert found.presets == {"fast": 33}
    assert run("fleet", "status", "-w", place, "--only", "left_out") == 0
    assert "too short: " in capsys.readouterr().out
    assert run("fleet", "status", "-w", place, "--json") == 0
    listed = json.loads(capsys.readouterr().out)["rows"]
    assert [row["symbol"] for row in listed] == sorted(NAMES)


def test_its_forecasts_are_compared_and_find_what_was_planted(place):
    fleet = fleet_run(Workspace(place))
    table = read_predictions(fleet.predictions, segment="route")
    assert "SYM33" not in table["symbol"].unique().to_list()
    assert table["score"].is_finite().all()
    session = table["time"].rank("dense").to_numpy().astype(int) - 1
    ic = rank_ic(table["y"].to_numpy(), table["score"].to_numpy(), session, session.max() + 1)
    assert np.nanmean(ic) > 0.05  # one-day reversal of a fifth of the variance, entry a day later
    (compared,) = json.loads((fleet.path / "comparison.json").read_text())
    row = next(row for row in compared["all_rows"]["rows"] if row["model"] == "fleet-trees")
    assert row["coverage"] < 1


def test_weights_are_the_evidence_of_rows_that_taught_nothing(place):
    shown = barcast.fleet_symbol("sym05", workspace=place)
    (evidence,) = shown.weights
    assert evidence["members"] == [*MEMBERS, "zero"]
    assert evidence["weights"][1] == 0 and "xgboost" in evidence["excluded"]  # `fast` has none
    assert sum(evidence["weights"]) == pytest.approx(1)
    with ledger_of(place) as ledger:
        pooled = ledger.pooled("weights")
    assert all(each[0]["num_rows"] > 20 for each in pooled.values())


def test_widths_are_of_stop_and_weights_of_weigh_and_nothing_later_counts(spare):
    fleet = fleet_run(Workspace(spare))
    config = from_run(fleet.read("config.json"))
    features = resolve_features(Workspace(spare), config.data.features)
    market = load_market(Workspace(spare), config.data)
    lessons = lessons_of(build_dataset(market, Workspace(spare), features, tabular=True))

    def weights_with(segment):
        data = lessons.data
        larger = np.where((data.segment == SEGMENTS.index(segment))[:, None], 10 * data.target, data.target)
        with Ledger.open(fleet.fleet / LEDGER, readonly=False) as ledger:
            weigh_members(ledger, replace(lessons, data=replace(data, target=larger)))
            return ledger.pooled("weights")

    with ledger_of(spare) as ledger:
        stored = ledger.pooled("weights")
    assert weights_with("route") == weights_with("test") == stored
    assert weights_with("stop") != stored != weights_with("weigh")


def test_the_refit_keeps_presets_rounds_and_weights_and_serves(place, capsys):
    fleet = fleet_run(Workspace(place))
    refit = next(r for r in barcast.runs(workspace=place) if r.info.get("parent") == fleet.name)
    with ledger_of(place) as before, ledger_of(place, refit.name) as after:
        assert before.pooled("weights") == after.pooled("weights")
        for row in after.rows(status=["done"]):
            old = before.row(row.symbol)
            assert row.preset == old.preset and row.num_rows > old.num_rows
            kept, trees = (each.metrics["horizons"][0]["members"]["lightgbm"]["trees"] for each in (old, row))
            assert trees <= kept
    assert run("predict", fleet.name, "-w", place, "--allow-old", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["run"] == refit.name and len(answer["forecasts"]) == 33
    (without,) = answer["without_forecast"]
    assert without["symbol"] == "SYM33" and "too short" in without["reason"]
    assert not any("identity" in warning for warning in answer["warnings"])


def test_weights_of_a_refit_are_of_the_members_that_it_has(place):
    with ledger_of(place) as ledger:
        told = {
            s: [{**each, "weights": [0.25] * 4} for each in own]
            for s, own in ledger.pooled("weights").items()
        }
        taken, (gone, *_) = {}, told
        parent = SimpleNamespace(
            meta=ledger.meta, pooled=lambda kind: {s: told[s] for s in told if s != gone}
        )
        refit = SimpleNamespace(
            models=ledger.models,
            set_meta=lambda meta: None,
            set_pooled=lambda kind, values: taken.update(values),
        )
        take_weights(refit, parent)
    for symbol, (own,) in taken.items():  # `fast` has no XGBoost, the second of the four members
        assert own["weights"][1] == 0 and sum(own["weights"]) == pytest.approx(1)
        assert symbol == gone or own["weights"][0] == pytest.approx(1 / 3)
    assert set(taken) == set(told)


def test_a_refit_serves_while_its_fleet_is_given_more_models(spare, capsys):
    fleet = fleet_run(Workspace(spare))
    fleet.update(status="running")
    assert run("predict", fleet.name, "-w", spare, "--allow-old", "--json") == 0
    assert json.loads(capsys.readouterr().out)["run"].startswith("fleet-trees-final-")


def test_the_same_command_again_fits_nothing_and_fresh_gives_the_same_bytes(spare, capsys):
    before = digest_of(spare)
    assert run("fleet", "trees", "-w", spare, *FAST[:-1]) == 0
    assert "is there already" in capsys.readouterr().err
    assert run("fleet", "trees", "-w", spare, *FAST, "--fresh", "--no-report", "--executor", "processes") == 0
    assert digest_of(spare) == before


def test_trackers_of_the_settings_file_follow_a_fleet_of_python(spare, monkeypatch):
    fake = tracked_by_default(spare, monkeypatch)
    asked = {"preset": "fast", "min_rows": 200, "executor": "serial", "report": False}
    found = barcast.train_fleet(workspace=spare, **asked)
    assert fake.runs == [found.run.name] and fake.told("finish") == [("finished", "")]
    ((_, scores, _),) = fake.told("summarise")
    assert "route/h5/rank_ic" in scores


def test_a_lost_file_of_packed_models_is_made_again(spare):
    fleet = fleet_run(Workspace(spare))
    before = barcast.predict(fleet.name, workspace=spare, allow_old=True).table
    for packed in spare.glob("runs/*/fleet/models.bin"):
        packed.unlink()
    assert barcast.predict(fleet.name, workspace=spare, allow_old=True).table.equals(before)


def test_what_failed_is_a_row_and_is_tried_again_when_asked(spare, monkeypatch, capsys):
    from barcast.fleet.trees import fit

    plain = fit.fit_symbol

    def broken(data, *rest):
        if data.symbol == "SYM07":
            raise ValueError("planted")
        return plain(data, *rest)

    monkeypatch.setattr(fit, "fit_symbol", broken)
    assert run("fleet", "trees", "-w", spare, *FAST, "--fresh", "--no-report") == 0
    found = barcast.fleet_status(workspace=spare, only="failed")
    assert [row.symbol for row in found.rows] == ["SYM07"] and "planted" in found.rows[0].reason
    assert found.counts["done"] == 32
    monkeypatch.setattr(fit, "fit_symbol", plain)
    with ledger_of(spare) as ledger:
        finished = {row.symbol: row.finished_at for row in ledger.rows(status=["done"])}
    capsys.readouterr()
    assert run("fleet", "retry-failed", "-w", spare, "--workers", "1", "-q") == 0
    assert "1 symbols tried again" in capsys.readouterr().out
    with ledger_of(spare) as ledger:
        assert ledger.counts()["done"] == 33
        assert {s: ledger.row(s).finished_at for s in finished} == finished


def test_options_of_one_symbol_change_that_symbol_alone(spare, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('[sym03]\nmin_rows = 100\nfeatures = ["ret_1"]\n[sym03.forest]\nnum_trees = 7\n')
    with ledger_of(spare) as ledger:
        before = {row.symbol: row.content for row in ledger.rows(status=["done"])}
    assert run("fleet", "trees", "-w", spare, *FAST, "--no-report", "--symbol-config", own) == 0
    with ledger_of(spare) as ledger:
        after = {row.symbol: row.content for row in ledger.rows(status=["done"])}
        assert ledger.row("SYM03").metrics["horizons"][0]["members"]["forest"]["trees"] == 7
    assert {symbol for symbol in after if after[symbol] != before.get(symbol)} == {"SYM03"}


@pytest.mark.parametrize(
    ("text", "said"),
    [("[NOBODY]\nmin_rows = 1\n", "NOBODY"), ('[SYM01]\nfeatures = ["nothing"]\n', "nothing"),
     ("[SYM01]\nmin_row = 3\n", "min_rows"), ("SYM01 = 3\n", "no table")],
)  # fmt: skip
def test_options_of_symbols_that_make_no_sense_are_refused_before_any_fit(
    place, tmp_path, text, said, capsys
):
    own = tmp_path / "own.toml"
    own.write_text(text)
    runs = [one.name for one in barcast.runs(workspace=place)]
    assert run("fleet", "trees", "-w", place, *FAST, "--symbol-config", own) in (2, 3)
    assert said in capsys.readouterr().err
    assert [one.name for one in barcast.runs(workspace=place)] == runs


def test_what_a_budget_leaves_out_is_fitted_when_there_is_more(spare, monkeypatch):
    import barcast.fleet.budget as budget

    plain = budget.assign

    def stingy(cost, top, order, capacity):
        rung = plain(cost, top, order, capacity)
        rung[8:] = budget.UNIVERSAL  # whoever else asks, and however often
        return rung

    with monkeypatch.context() as patch:
        patch.setattr(budget, "assign", stingy)
        assert run("fleet", "trees", "-w", spare, *FAST, "--fresh", "--no-report", "--budget", "10m") == 0
    found = barcast.fleet_status(workspace=spare, only="left_out")
    left = {row.symbol: row.reason for row in found.rows}
    assert len(left) > 15 and left["SYM33"].startswith("too short")
    assert all("budget" in reason for symbol, reason in left.items() if symbol != "SYM33")
    assert run("fleet", "trees", "-w", spare, *FAST, "--no-report") == 0
    whole = barcast.fleet_status(workspace=spare)
    assert whole.counts["done"] == 33 and whole.presets["extreme"] == found.presets["extreme"] > 0


LIMITED = (*FAST, "--no-report", "--max-memory", "64G")


@pytest.mark.parametrize("limit", [("--max-memory", "64G"), ("--time-per-symbol", "60")])
def test_what_measured_lighter_presets_gets_the_one_that_was_asked_for(spare, place, limit):
    assert run("fleet", "trees", "-w", spare, *FAST, "--no-report", "--fresh", *limit) == 0
    found = barcast.fleet_status(workspace=spare)
    assert found.presets == {"fast": 33} and digest_of(spare) == digest_of(place)
    assert sum(row.why == "asked for again" for row in found.rows) == 4


def kill_at(moment, patch) -> None:
    """Let a limited fleet be interrupted after it measured, before it evens out, or while it fits again."""

    def killed(*_, **__):
        raise KeyboardInterrupt

    if moment == "measured":
        patch.setattr(Driver, "plan", killed)
        return
    evens, fits, calls = fitting.even_out, fit.fit_symbol, []

    def one(*given):
        calls.append(given)
        return fits(*given) if len(calls) == 1 else killed()

    def then_killed(*given):
        assert evens(*given)
        patch.setattr(fit, "fit_symbol", one)
        return True

    patch.setattr(fitting, "even_out", killed if moment == "fitted" else then_killed)


@pytest.mark.parametrize("moment", ["measured", "fitted", "fitting again"])
def test_a_limited_fleet_that_was_killed_ends_in_the_same_bytes(spare, place, monkeypatch, moment):
    with monkeypatch.context() as patch:
        kill_at(moment, patch)
        assert run("fleet", "trees", "-w", spare, *LIMITED, "--fresh") == 130
    lighter = 4 if moment != "fitting again" else 0
    assert barcast.fleet_status(workspace=spare).presets.get("extreme", 0) == lighter
    again, measures = [], Driver._measure
    monkeypatch.setattr(Driver, "_measure", lambda *given: (again.append(given), measures(*given)))
    assert run("fleet", "trees", "-w", spare, *LIMITED) == 0
    assert barcast.fleet_status(workspace=spare).presets == {"fast": 33} and not again
    assert digest_of(spare) == digest_of(place)


def test_a_dry_run_keeps_what_it_fitted_and_says_what_the_rest_takes(spare, capsys):
    arguments = ("fleet", "trees", "-w", spare, *FAST, "--seed", "5")
    assert run(*arguments, "--dry-run", "--json") == 0
    (plan,) = json.loads(capsys.readouterr().out)
    assert plan["counts"]["fast"] == plan["num_symbols"] < 33
    kept = barcast.fleet_status(workspace=spare).counts
    assert kept["done"] == 33 - plan["num_symbols"] > 0
    assert run(*arguments, "--no-report") == 0
    assert barcast.fleet_status(workspace=spare).counts["done"] == 33


def test_serial_is_planned_as_the_one_worker_that_it_is(monkeypatch):
    monkeypatch.setattr(fleet_options, "available_cores", lambda: 16)
    assert fleet_options.fleet_how().limits.workers == 16
    for workers in (None, 1):
        assert fleet_options.fleet_how(executor="serial", workers=workers).limits.workers == 1
    with pytest.raises(UsageError, match="--workers 4 beside --executor serial"):
        fleet_options.fleet_how(executor="serial", workers=4)


def test_a_refit_is_not_retried_as_if_it_were_an_evaluation(place, capsys):
    refit = next(r.name for r in barcast.runs(workspace=place) if r.info.get("final"))
    assert run("fleet", "retry-failed", "--run", refit, "-w", place) == 5
    assert "barcast train --refit fleet-trees-" in capsys.readouterr().err


def test_a_symbol_that_the_fleet_does_not_have_is_said_to_be_missing_in_that_run(spare, capsys):
    fleet = fleet_run(Workspace(spare)).name
    with Ledger.open(fleet_run(Workspace(spare)).fleet / LEDGER, readonly=False) as ledger:
        ledger.forget(["SYM05"])
    assert run("fleet", "show", "SYM05", "-w", spare) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"SYM05 is not in the fleet `{fleet}`" in said and "sqlite" not in said


def begun_fleet(root, name, **facts):
    """A fleet of three symbols that begins to fit two of them, and whose process is no more."""
    run = RunFolder(root / "runs" / name)
    with Ledger.create(run.fleet / LEDGER) as ledger:
        ledger.plan([Wanted(symbol, place, "", "") for place, symbol in enumerate("ABC")])
        ledger.start([Unit((symbol,), (0,), "fast") for symbol in "AB"])
    command = "barcast fleet trees --preset fast --dry-run"
    run.write("run.json", {"status": "running", "model": "fleet-trees", "command": command, **facts})
    return run


def test_a_killed_fleet_has_nobody_at_work_and_says_what_goes_on_with_it(tmp_path, capsys):
    killed = begun_fleet(tmp_path, "fleet-trees-1")
    found = barcast.fleet_status(workspace=tmp_path)
    assert (found.counts["pending"], found.counts["running"]) == (3, 0)
    assert found.resume == found.plain()["resume"] == "barcast fleet trees --preset fast"
    assert [row.status for row in found.rows] == ["pending"] * 3
    assert run("fleet", "status", "-w", tmp_path) == 0
    assert "nobody is at work; goes on where it was: barcast fleet trees" in capsys.readouterr().out
    with writer_lock(killed.path):
        found = barcast.fleet_status(workspace=tmp_path)
    assert (found.counts["pending"], found.counts["running"], found.resume) == (1, 2, "")
    killed.update(command="Python: see config.json")
    assert barcast.fleet_status(workspace=tmp_path).resume == "the same call in Python"


def test_the_fleet_that_was_at_work_last_is_the_one_that_is_shown(tmp_path):
    begun_fleet(tmp_path, "fleet-trees-1", created="2024-01-01", started="2024-01-09")
    begun_fleet(tmp_path, "fleet-trees-2", created="2024-01-05")
    assert fleet_run(Workspace(tmp_path)).name == "fleet-trees-1"
    RunFolder(tmp_path / "runs" / "fleet-trees-2").complete()
    assert fleet_run(Workspace(tmp_path)).name == "fleet-trees-2"


def test_what_fitted_nobody_is_told_by_kinds_of_reasons(tmp_path):
    with Ledger.open(begun_fleet(tmp_path, "fleet-trees-1").fleet / LEDGER, readonly=False) as ledger:
        ledger.leave_out({"A": "too short: 7 of 500 training rows", "B": "too short: 8 of 500 training rows"})
        ledger.leave_out({"C": "MemoryError: no room"})
        error = fitting._nothing_fitted(ledger)
    assert error.found.endswith(
        ": too short: 7 of 500 training rows (A and 1 alike); MemoryError: no room (C)"
    )
    assert error.todo == "more history, or a smaller `min_rows`"


def test_a_workspace_without_a_fleet_says_how_to_have_one(tmp_path):
    with pytest.raises(RunError, match="no fleet"):
        barcast.fleet_status(workspace=tmp_path)
    with pytest.raises(UsageError, match="--budget"):
        barcast.train_fleet(workspace=tmp_path, budget="soon")


NUM_WORKERS = 2


def fleet_command(root) -> list[str]:
    """One symbol is with a worker at a time, so that the ledger's attempts count those that were begun."""
    return [sys.executable, "-m", "barcast", "fleet", "trees", "-w", str(root), "--preset", "fast", "--quiet",
            "--min-rows", "200", "--workers", str(NUM_WORKERS), "--batch-size", "1", "--no-report"]  # fmt: skip


def finished_in(root) -> int:
    try:
        with ledger_of(root) as ledger:
            return ledger.counts()["done"]
    except barcast.BarcastError:
        return 0  # no ledger yet


def killed_and_resumed(root, moments, num_symbols) -> int:
    """Kill the command at so many moments, spread at random over its work, then let it end.

    Returns how often it was killed. A kill costs at most the symbols that were at work.
    """
    rng, killed = random.Random(1), 0
    marks = sorted(rng.sample(range(1, num_symbols), moments))
    for wanted in marks:
        process = subprocess.Popen(fleet_command(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and finished_in(root) < wanted:
            time.sleep(0.005)
        if process.poll() is None:
            time.sleep(rng.uniform(0, 0.05))
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    assert subprocess.run(fleet_command(root), check=False).returncode == 0
    return killed


def attempts_of(root) -> int:
    with ledger_of(root) as ledger:
        return sum(row.attempts - 1 for row in ledger.rows(status=["done"]))


def test_killed_fleets_end_with_the_same_bytes(tmp_path, place):
    import_market(tmp_path)
    killed = killed_and_resumed(tmp_path, 3, 33)
    assert killed >= 1
    assert attempts_of(tmp_path) <= NUM_WORKERS * killed
    assert digest_of(tmp_path) == digest_of(place)


@pytest.mark.soak
def test_fifty_kills_over_500_symbols_cost_a_symbol_a_worker_each(tmp_path, soak_table):
    what = (
        "50 SIGKILLs over 500 symbols: models and weights the same bytes, at most "
        f"{NUM_WORKERS} symbols begun again a kill"
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with soak_table.judging("fleet", what) as found:
        for root in (whole, broken):
            write_market(root / "bars", symbols=500, sessions=500)
            assert run("data", "import", root / "bars", "-w", root, *DECLARED) == 0
        assert subprocess.run(fleet_command(whole), check=False).returncode == 0
        killed = killed_and_resumed(broken, 50, 500)
        again = attempts_of(broken)
        found.append(f"{killed} killed, {again} begun again")
        assert digest_of(broken) == digest_of(whole)
        assert killed >= 40 and again <= NUM_WORKERS * killed
