"""A fleet of which a budget left most out: what later calls fit of it, and what they leave alone."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from types import SimpleNamespace

import polars as pl
import pytest

import barcast
from barcast.core.calendar import exchange_days
from barcast.core.errors import UsageError
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.fleet import budget
from barcast.fleet.driver import Driver
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.limits import Limits
from barcast.fleet.trees import fit
from barcast.fleet.work import SymbolResult
from barcast.pipeline import fleet as fitting
from barcast.pipeline import fleet_takes
from barcast.pipeline.fleet import FleetHow
from barcast.pipeline.fleet_options import fleet_how
from barcast.pipeline.fleet_priority import values_of
from barcast.pipeline.fleet_seen import fleet_run
from barcast.pipeline.settings import from_run
from barcast.pipeline.train import refit
from tests.pipeline.test_fleet import FAST, digest_of, import_market, ledger_of, run

AGAIN = ("fleet", "trees", *FAST, "--no-report", "-w")


@contextmanager
def short_of_time():
    """Let no time be left for any preset but the lightest, nor for more than eight symbols with that."""
    plain = budget.assign

    def stingy(cost, top, order, capacity):
        rung = plain(cost, top, order, capacity)
        rung[8:] = budget.UNIVERSAL  # whoever else asks, and however often
        return rung

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "assign", stingy)
        patch.setattr(Driver, "_is_worth_measuring", lambda _, preset: preset == "extreme")
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace with a fleet that had too little time, and its refit."""
    root = tmp_path_factory.mktemp("fleet limits")
    import_market(root)
    with short_of_time():
        assert run(*AGAIN, root, "--budget", "10m") == 0
    assert run("train", "--refit", fleet_run(Workspace(root)).name, "-w", root, "--no-report", "-q") == 0
    return root


def evaluation(root) -> RunFolder:
    return fleet_run(Workspace(root))


def refits(root) -> list[RunFolder]:
    return [found for found in barcast.runs(workspace=root) if found.info.get("final")]


def counts(root, name="") -> dict[str, int]:
    return barcast.fleet_status(name, workspace=root).counts


def models(root, name="") -> dict[str, str]:
    """Return a digest of each symbol's model."""
    with ledger_of(root, name) as ledger:
        return {row.symbol: row.content for row in ledger.rows(status=["done"])}


def asked_of_fits(patch) -> list[FleetHow]:
    """Return a list that takes what every later fit of a fleet may take."""
    asked, plain = [], fitting.fit_fleet
    patch.setattr(fitting, "fit_fleet", lambda *given: (asked.append(given[4]), plain(*given))[1])
    return asked


def test_most_symbols_wait_for_more_time(place):
    found = counts(place)
    assert 8 < found["done"] < 20 and found["left_out"] == 34 - found["done"]
    assert models(place).keys() == models(place, refits(place)[0].name).keys()


# --- a plan ------------------------------------------------------------------------------------------------


def test_a_dry_run_of_a_fleet_that_serves_changes_nothing_of_it(spare, capsys):
    fleet, before = evaluation(spare), (counts(spare), digest_of(spare))
    info, compared = fleet.info, (fleet.path / "comparison.json").read_bytes()
    capsys.readouterr()
    assert run(*AGAIN, spare, "--dry-run", "--json", "--budget", "1h") == 0
    (plan,) = json.loads(capsys.readouterr().out)
    waiting = before[0]["left_out"] - 1  # one is too short, however long it waits
    assert 0 < plan["counts"]["fast"] == plan["num_symbols"] < waiting  # `fast` was measured just now
    assert (counts(spare), digest_of(spare)) == before
    assert fleet.info == info and (fleet.path / "comparison.json").read_bytes() == compared
    assert run("predict", fleet.name, "-w", spare, "--allow-old", "-q") == 0
    capsys.readouterr()
    assert run(*AGAIN, spare, "--dry-run", "--final", "--budget", "1h") == 0
    assert "the refit of --final about as long again" in capsys.readouterr().out


# --- what failed -------------------------------------------------------------------------------------------


def let_fail(root, *symbols) -> None:
    with Ledger.open(evaluation(root).fleet / LEDGER, readonly=False) as ledger:
        ledger.finish([SymbolResult(symbol, "extreme", "failed", reason="planted") for symbol in symbols])


def forget_the_budget(root) -> None:
    """Let lighter presets look as if they had only been measured, what a fleet without a budget evens out."""
    with Ledger.open(evaluation(root).fleet / LEDGER, readonly=False) as ledger:
        ledger.set_meta({"budget": False})
    evaluation(root).update(takes={"executor": "serial"})


@pytest.mark.parametrize("limited", [True, False])
def test_what_failed_is_fitted_again_as_before_and_nobody_else_is(spare, monkeypatch, capsys, limited):
    before, asked = models(spare), asked_of_fits(monkeypatch)
    broken = min(before)
    let_fail(spare, broken)
    if not limited:
        forget_the_budget(spare)
    assert counts(spare)["failed"] == 1
    capsys.readouterr()
    assert run("fleet", "retry-failed", "-w", spare, "-q", "--workers", "1") == 0
    assert "1 symbols tried again" in capsys.readouterr().out
    after = models(spare)
    assert after.keys() == before.keys()
    assert {name: after[name] for name in after if name != broken} == {
        name: before[name] for name in before if name != broken
    }
    (how,) = asked
    assert how.executor == "serial" and how.only == {broken}
    assert how.limits.budget == (600 if limited else None)
    assert evaluation(spare).is_done and counts(spare)["left_out"] == 34 - len(before)


def test_another_try_that_was_killed_goes_on_with_the_same_symbols(spare, monkeypatch, capsys):
    before = models(spare)
    broken = sorted(before)[:2]
    let_fail(spare, *broken)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit, "fit_symbol", killed)
        assert run("fleet", "retry-failed", "-w", spare, "-q") == 130
    assert not evaluation(spare).is_done
    capsys.readouterr()
    assert run("fleet", "retry-failed", "-w", spare, "-q") == 0
    assert "2 symbols tried again" in capsys.readouterr().out
    assert models(spare).keys() == before.keys() and evaluation(spare).is_done


def test_nothing_is_fitted_where_nothing_failed(spare, capsys):
    before, info = (counts(spare), digest_of(spare)), evaluation(spare).info
    assert run("fleet", "retry-failed", "-w", spare, "-q") == 0
    assert "0 symbols tried again" in capsys.readouterr().out
    assert (counts(spare), digest_of(spare)) == before and evaluation(spare).info == info


# --- the refit ---------------------------------------------------------------------------------------------


def test_a_refit_gets_what_its_evaluation_gained_since(spare, capsys):
    (refit,) = refits(spare)
    before = models(spare, refit.name)
    assert run(*AGAIN, spare, "--final") == 0
    assert refits(spare) == [refit] and len(models(spare)) == 33
    after = models(spare, refit.name)
    assert after.keys() == models(spare).keys()
    assert {name: after[name] for name in before} == before  # nobody is fitted twice
    with ledger_of(spare) as evaluated, ledger_of(spare, refit.name) as ledger:
        assert ledger.pooled("weights") == evaluated.pooled("weights")
    capsys.readouterr()
    assert run("predict", evaluation(spare).name, "-w", spare, "--allow-old", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["run"] == refit.name and len(answer["forecasts"]) == 33
    info = refit.info
    assert run(*AGAIN, spare, "--final") == 0
    assert refit.info == info and models(spare, refit.name) == after


def test_a_refit_gets_whom_it_left_out_itself(spare):
    (refit,) = refits(spare)
    before = models(spare, refit.name)
    with Ledger.open(refit.fleet / LEDGER, readonly=False) as ledger:
        ledger.reset([min(before)])
        ledger.leave_out({min(before): "`extreme` takes more memory than --max-memory 1G leaves"})
    assert run("train", "--refit", evaluation(spare).name, "-w", spare, "--no-report", "-q") == 0
    assert models(spare, refit.name) == before


def test_a_refit_is_ended_by_no_limit_of_time_of_its_evaluation(spare):
    space, parent = Workspace(spare), evaluation(spare)
    (before,) = refits(spare)
    config, found = from_run(parent.read("config.json")), models(spare, before.name)
    shutil.rmtree(before.path)
    no_time = Limits(workers=1, budget=0.001, time_per_symbol=1e-6)
    refitted = refit(space, parent, config, fleet=FleetHow(executor="serial", limits=no_time))
    assert refitted.name == before.name and models(spare, refitted.name) == found


def test_a_refit_takes_what_its_evaluation_might(spare, monkeypatch):
    (before,) = refits(spare)
    shutil.rmtree(before.path)
    asked = asked_of_fits(monkeypatch)
    assert run("train", "--refit", evaluation(spare).name, "-w", spare, "--no-report", "-q") == 0
    (how,) = asked
    assert how.executor == "serial" and how.limits.budget is None


# --- what is on record -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "it is empty"), ("ticker,value\nA,1\n", "no column symbol: it begins with `ticker,value`"),
     ("symbol,value\n", "no line below its header"), ("symbol,value\nA,1\nB,dear\n", "line 3: .* B is dear"),
     ("symbol,value\nA,nan\n", "line 2: .* A is nan"), ("symbol,value\nA\n", "line 2: .* A is missing"),
     ("symbol,value\n,1\n", "line 2: no symbol"), ("symbol,value\nA,1\nA,2\n", "line 3: A is there already"),
     (b"symbol,value\n\xff,1\n", "no CSV file in UTF-8"), (None, "neither turnover, length nor a file")],
)  # fmt: skip
def test_a_list_of_priorities_that_cannot_be_read_is_refused_up_front(tmp_path, text, said):
    path = tmp_path / "prio.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=said):
        fleet_how(priority=str(path))


def test_priorities_are_read_in_any_spelling_and_strangers_are_counted(tmp_path, capsys):
    path = tmp_path / "prio.csv"
    path.write_text("symbol,value\nsh.600519,3\n000001,2\nNOBODY,1\n")
    bars = SimpleNamespace(symbols=("000001.SZ", "000002.SZ", "600519.SH"), market="cn")
    dataset = SimpleNamespace(market=SimpleNamespace(bars=bars))
    found = values_of(dataset, str(path), Progress())
    assert found[[0, 2]].tolist() == [2.0, 3.0] and found[1] != found[1]
    assert "1 of 3 lines are of no symbol of this fleet, e.g. NOBODY" in capsys.readouterr().err
    path.write_text("symbol,value\nsh.600519,3\n600519,2\n")
    with pytest.raises(UsageError, match=r"sh\.600519 and 600519 are one symbol"):
        values_of(dataset, str(path))


@pytest.mark.parametrize("cores", [3, 64])
def test_a_worker_a_core_is_on_record_as_that_and_any_other_number_as_it_is(tmp_path, monkeypatch, cores):
    (tmp_path / "prio.csv").write_text("symbol,value\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(fleet_takes, "available_cores", lambda: 3)
    folder = RunFolder(tmp_path)
    folder.write("run.json", {"name": "a"})
    assert fleet_takes.recorded_how(folder) == FleetHow(limits=Limits(workers=3))
    limits = Limits(workers=cores, budget=60.0, time_per_symbol=1.5, max_memory=2**31)
    how = FleetHow(limits=limits, batch_size=7, priority="prio.csv")
    fleet_takes.record_how(folder, how)
    assert str(tmp_path) not in json.dumps(folder.info)
    monkeypatch.setattr(fleet_takes, "available_cores", lambda: 16)
    told = fleet_takes.recorded_how(folder)
    expected = replace(limits, workers=16 if cores == 3 else 64)
    assert told == replace(how, limits=expected, priority=str(tmp_path / "prio.csv"))
    assert fleet_takes.recorded_how(folder, workers=2).limits.workers == 2


def test_a_serial_fleet_stays_one_worker_until_more_are_asked_for(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.write("run.json", {"name": "a"})
    monkeypatch.setattr(fleet_takes, "available_cores", lambda: 1)
    fleet_takes.record_how(folder, FleetHow(executor="serial"))
    monkeypatch.setattr(fleet_takes, "available_cores", lambda: 16)
    assert fleet_takes.recorded_how(folder) == FleetHow(executor="serial")
    assert fleet_takes.recorded_how(folder, workers=1) == FleetHow(executor="serial")
    assert fleet_takes.recorded_how(folder, workers=4) == FleetHow(limits=Limits(workers=4))


# --- a champion --------------------------------------------------------------------------------------------


def test_a_champion_that_left_symbols_out_is_not_altered_by_retraining(spare):
    fleet, (refitted,) = evaluation(spare), refits(spare)
    assert run("promote", fleet.name, "-w", spare) == 0
    before = [(each.info, models(spare, each.name)) for each in (fleet, refitted)]
    found = barcast.retrain(workspace=spare, report=False)
    assert found.decision == "kept" and "nothing is new" in found.reason
    assert [(each.info, models(spare, each.name)) for each in (fleet, refitted)] == before


def test_a_challenger_takes_what_the_champion_might(spare, monkeypatch):
    assert run("promote", evaluation(spare).name, "-w", spare) == 0
    days = exchange_days("XNYS", date(2020, 1, 2), date(2023, 12, 29))[500:520]
    for path in (spare / "bars").glob("*.csv"):
        table = pl.read_csv(path)
        later = table.tail(len(days)).with_columns(Date=pl.Series([str(day) for day in days]))
        pl.concat([table, later]).write_csv(path)
    assert run("data", "update", spare / "bars", "-w", spare, "-q") == 0
    asked = asked_of_fits(monkeypatch)
    with short_of_time():
        found = barcast.retrain(workspace=spare, report=False)
    evaluated, final = asked
    assert {how.executor for how in asked} == {"serial"}
    assert evaluated.limits.budget == 600 and final.limits.budget is None
    again = barcast.retrain(workspace=spare, report=False)
    assert (again.challenger, again.serving) == (found.challenger, found.serving) and len(asked) == 2
    assert counts(spare, found.challenger)["left_out"] > 15
