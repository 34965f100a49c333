"""A new fleet fits what is new or changed; all else it takes over, as if it had been fitted anew."""

import ast
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import barcast
from barcast.cli.app import _run
from barcast.core.calendar import exchange_days
from barcast.core.errors import OverlapError, ResourceError
from barcast.core.predictions import SEGMENTS
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, open_run
from barcast.core.workspace import Workspace
from barcast.fleet.data import FleetData
from barcast.fleet.floor import DIED
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.ledger_rows import Wanted
from barcast.fleet.limits import Limits
from barcast.fleet.networks.fit import NetworkFit
from barcast.fleet.networks.packing import unpack
from barcast.fleet.trees import fit, presets
from barcast.fleet.trees.fit import EnsembleFit
from barcast.fleet.work import SymbolResult, Unit
from barcast.pipeline import fleet_taken, fleet_versions
from barcast.pipeline.fleet import FleetHow
from barcast.pipeline.fleet_decay import fleet_decay
from barcast.pipeline.fleet_even import _BUDGET, _DUE, even_out, had_budget
from barcast.pipeline.fleet_origins import origins
from barcast.pipeline.fleet_refresh import fleet_refresh
from barcast.pipeline.fleet_rows import rows_digests
from barcast.pipeline.fleet_seen import fleet_run, fleet_status
from barcast.pipeline.fleet_taken import Older
from barcast.windows.index import random_phases

NAMES = [f"SYM{s:02d}" for s in range(34)]
LATE, SHORT = "SYM32", "SYM33"  # one begins long after the others, one too late for a model
KNOWN, ALL = 430, 470  # sessions when the first fleet is trained, and later
DAYS = exchange_days("XNYS", np.datetime64("2020-01-02").item(), np.datetime64("2021-12-30").item())[:ALL]
#: Borders that stay where they are; the last segment grows with the data.
BORDERS = ",".join([*(str(DAYS[last - 1]) for last in (260, 300, 340, 380)), "2021"])
TREES = ["--preset", "fast", "--min-rows", "100", "--executor", "serial", "--horizon", "1", "--no-report"]
TREES += ["--segments", BORDERS]
NETWORK = {
    "hidden_size": 8, "look_back_window": 10, "stretch_length": 20, "batch_size": 80, "epochs": 4, "min_rows": 100,
}  # fmt: skip
NETWORKS = [word for name, value in NETWORK.items() for word in (f"--{name.replace('_', '-')}", str(value))]
NETWORKS += ["--executor", "serial", "--horizon", "1", "--no-report", "--segments", BORDERS]


def run(*arguments) -> int:
    return _run([str(argument) for argument in arguments], debug=False)


def write_market(folder, sessions, names=NAMES, revised=""):
    """One CSV a symbol; of ``revised`` one early close is another than it was."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for name in names:
        noise, volume = rng.normal(0, 0.015, ALL), rng.integers(10_000, 900_000, ALL)
        own = noise.copy()
        own[2:] -= 0.5 * noise[:-2]
        close = 30 * np.exp(np.cumsum(own))
        if name == revised:
            close[30] *= 1.03
        told = {"Date": DAYS, "Open": close, "High": close * 1.004, "Low": close * 0.996, "Close": close}
        table = pl.DataFrame({**told, "Volume": volume})
        table.slice({LATE: 130, SHORT: 350}.get(name, 0)).filter(
            pl.col("Date") <= DAYS[sessions - 1]
        ).write_csv(folder / f"{name}.csv")


def import_market(root, names=NAMES):
    write_market(root / "bars", KNOWN, names)
    assert run("data", "import", root / "bars", "-w", root, "--market", "us", "--basis", "raw", "-q") == 0
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace with a fleet of trees, cut by dates."""
    root = import_market(tmp_path_factory.mktemp("taken") / "ws")
    assert run("fleet", "trees", "-w", root, *TREES, "-q") == 0
    return root


def evaluation(root) -> RunFolder:
    return fleet_run(Workspace(root))


def ledger_of(root, name=""):
    return Ledger.open(fleet_run(Workspace(root), name).fleet / LEDGER)


def facts_of(row):
    """Return what a ledger says of a symbol but for where, when and how fast it was fitted."""

    def plain(value):
        if isinstance(value, Mapping):
            return {k: plain(v) for k, v in value.items() if k not in ("taken_over", "seconds")}
        return [plain(each) for each in value] if isinstance(value, list) else value

    return (
        row.status,
        row.preset,
        row.settings,
        row.data,
        row.num_rows,
        row.content,
        row.reason,
        plain(row.metrics),
    )


def content_of(root):
    """Return all that a fleet holds: the facts of every symbol, every model with its files, all weights."""
    with ledger_of(root) as ledger:
        rows = ledger.rows()
        models = {row.symbol: ledger.model(row.symbol) for row in rows if row.status == "done"}
        return {row.symbol: facts_of(row) for row in rows}, models, ledger.pooled("weights")


def taken_in(root) -> set[str]:
    with ledger_of(root) as ledger:
        return {row.symbol for row in ledger.rows(status=["done", "failed"]) if row.fitted_by}


def updated(root, **changed):
    write_market(root / "later", **{"sessions": ALL, **changed})
    assert run("data", "update", root / "later", "-w", root, "-q") == 0


def newer_bars(root, _):
    """Bring later sessions, and a symbol listed in them whose name comes before all others."""
    write_market(root / "later", ALL)
    pl.read_csv(root / "later" / "SYM01.csv").tail(ALL - KNOWN).write_csv(root / "later" / "AAA.csv")
    assert run("data", "update", root / "later", "-w", root, "-q") == 0
    return ()


def own_options(root, tmp_path):
    file = tmp_path / "own.toml"
    file.write_text("[sym03.forest]\nnum_trees = 7\n")
    return ("--symbol-config", file)


def words(text) -> str:
    return " ".join(text.split())


CHANGES = {
    "newer bars": (newer_bars, {*NAMES} - {SHORT}, "0 symbols to fit"),
    "an early bar is another": (
        lambda root, _: updated(root, sessions=KNOWN, revised="SYM05") or (), {LATE},
        "32 symbols to fit (32 data changed)",
    ),
    "options of one symbol": (own_options, {*NAMES} - {SHORT, "SYM03"}, "1 symbol to fit (1 settings changed)"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_only_what_changed_is_fitted_and_all_is_as_if_fitted_anew(
    change, spare, tmp_path, monkeypatch, capsys
):
    old, plain, fitted = evaluation(spare), fit.fit_symbol, []
    make, wanted, said = CHANGES[change]
    options = make(spare, tmp_path)
    monkeypatch.setattr(
        fit, "fit_symbol", lambda data, *rest: (fitted.append(data.symbol), plain(data, *rest))[1]
    )
    assert run("fleet", "trees", "-w", spare, *TREES, *options) == 0
    err = words(capsys.readouterr().err)
    number = f"{len(wanted)} model{'s' if len(wanted) > 1 else ''}"
    assert f"{number} taken over from {old.name}: same rows, same options" in err and said in err
    new = evaluation(spare)
    assert new.name != old.name and new.info["taken_over"] == {old.name: len(wanted)}
    assert taken_in(spare) == wanted and {*fitted} == {*NAMES} - {SHORT} - wanted
    facts, models, weights = content_of(spare)
    forecasts = pl.read_parquet(new.predictions)
    assert facts[SHORT][0] == "left_out"

    fitted.clear()
    assert run("fleet", "trees", "-w", spare, *TREES, *options, "--fresh", "-q") == 0
    assert evaluation(spare).name == new.name and not taken_in(spare)
    assert {*fitted} == {*NAMES} - {SHORT}
    assert content_of(spare) == (facts, models, weights)
    assert pl.read_parquet(new.predictions).equals(forecasts)


def test_shares_move_the_segments_and_everybody_is_fitted(spare, capsys):
    by_share = TREES[: TREES.index("--segments")]
    assert run("fleet", "trees", "-w", spare, *by_share, "-q") == 0
    updated(spare)
    capsys.readouterr()
    assert run("fleet", "trees", "-w", spare, *by_share) == 0
    err = words(capsys.readouterr().err)
    assert (
        "no older fleet has a model of the same rows" in err
        and "33 data changed" in err
        and not taken_in(spare)
    )


def test_a_killed_takeover_goes_on_where_it_was(spare, monkeypatch):
    old, finish, calls = evaluation(spare), Ledger.finish, []
    updated(spare)

    def killed(self, results):
        calls.append(results)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return finish(self, results)

    monkeypatch.setattr(fleet_taken, "_TOGETHER", 5)
    monkeypatch.setattr(fit, "fit_symbol", None)  # nobody is fitted
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "finish", killed)
        assert run("fleet", "trees", "-w", spare, *TREES, "-q") == 130
    new = evaluation(spare)
    with ledger_of(spare) as ledger:
        here = {row.symbol: row.finished_at for row in ledger.rows()}
        assert new.name != old.name and len(here) == 10 == ledger.counts()["done"]
    assert run("fleet", "trees", "-w", spare, *TREES, "-q") == 0
    with ledger_of(spare) as ledger, ledger_of(spare, old.name) as before:
        assert {s: ledger.row(s).finished_at for s in here} == here and ledger.counts()["done"] == 33
        assert dict(ledger.models()) == dict(before.models())
    assert new.info["taken_over"] == {old.name: 33}


def test_a_plan_counts_who_will_be_taken_over_and_takes_over_nobody(spare, tmp_path, capsys):
    options, old = own_options(spare, tmp_path), evaluation(spare).name
    capsys.readouterr()
    assert run("fleet", "trees", "-w", spare, *TREES, *options, "--dry-run", "--json") == 0
    told = capsys.readouterr()
    (plan,) = json.loads(told.out)
    assert plan["num_symbols"] == 1 == plan["counts"]["fast"]  # what it takes is known from the others
    assert f"32 models would be taken over from {old}" in words(told.err)
    with ledger_of(spare) as ledger:
        assert evaluation(spare).name != old and ledger.counts()["done"] == 0
        assert {row.symbol for row in ledger.rows()} == {"SYM03", SHORT}
    assert run("fleet", "trees", "-w", spare, *TREES, *options, "-q") == 0
    assert len(taken_in(spare)) == 32


def test_models_keep_where_and_when_they_were_fitted_and_belong_to_the_new_run(spare, capsys):
    first = evaluation(spare)
    with ledger_of(spare) as ledger:
        ended = {row.symbol: row.finished_at for row in ledger.rows()}
    for sessions in (KNOWN + 20, ALL):
        write_market(spare / f"to {sessions}", sessions)
        assert run("data", "update", spare / f"to {sessions}", "-w", spare, "-q") == 0
        assert run("fleet", "trees", "-w", spare, *TREES, "-q") == 0
    last = evaluation(spare)
    assert last.info["taken_over"] == {first.name: 33}  # not the one between, which took them over too
    with ledger_of(spare) as ledger:
        rows = ledger.rows(status=["done"])
        assert {row.fitted_by for row in rows} == {first.name} and ledger.row("SYM05").fitted_at == ended[
            "SYM05"
        ]
        assert {each.run for each in origins(last, rows).values()} == {last.name}
    capsys.readouterr()
    assert run("fleet", "show", "SYM05", "-w", spare) == 0
    assert f"finished {ended['SYM05']} in {first.name}" in words(capsys.readouterr().out)
    assert run("fleet", "status", "-w", spare) == 0
    assert f"taken over as they were fitted before: 33 of {first.name}" in capsys.readouterr().out
    # the outcomes of its `test` stay sealed, though the models come from a run whose `test` ended earlier
    found = fleet_decay(Workspace(spare), last.name)
    assert found.since > str(DAYS[ALL - 1]) and not found.reports
    again = fleet_refresh(Workspace(spare), ["SYM05"], last.name, how=FleetHow(executor="serial"))
    assert (again.fitted, again.num_taken_over) == (("SYM05",), 32)
    refreshed = open_run(Workspace(spare), again.run)
    with Ledger.open(refreshed.fleet / LEDGER) as ledger:
        row = ledger.row("SYM06")
        assert origins(refreshed, [row])["SYM06"].run == last.name and row.fitted_at == ended["SYM06"]
        assert row.fitted_by == first.name
        own = ledger.row("SYM05").seconds  # the only fit of this run
    assert fleet_status(Workspace(spare), refreshed.name).seconds == own == refreshed.info["fit_seconds"]
    assert fleet_status(Workspace(spare), last.name).seconds == last.info["fit_seconds"] == 0
    assert run("report", last.name, "-w", spare, "-q") == 0
    page = (last.path / "report.html").read_text("utf-8")
    assert json.loads(page.split('id="report-data">')[1].split("</script>")[0])["fleet"]["seconds"] == 0


def test_what_failed_is_not_tried_again_before_somebody_asks(spare, capsys):
    old = evaluation(spare)
    with Ledger.open(old.fleet / LEDGER, readonly=False) as ledger:
        ledger.finish([SymbolResult("SYM07", "fast", "failed", reason="planted")])
    updated(spare)
    capsys.readouterr()
    assert run("fleet", "trees", "-w", spare, *TREES) == 0
    assert f"32 models and 1 failure taken over from {old.name}" in words(capsys.readouterr().err)
    with ledger_of(spare) as ledger:
        assert (ledger.row("SYM07").status, ledger.row("SYM07").reason) == ("failed", "planted")
    assert run("fleet", "retry-failed", "-w", spare, "-q") == 0
    with ledger_of(spare) as ledger:
        assert ledger.row("SYM07").status == "done" and not ledger.row("SYM07").fitted_by
        assert ledger.counts()["done"] == 33


def test_a_retrained_champion_takes_over_what_is_the_same(spare):
    old = evaluation(spare)
    assert run("train", "--refit", old.name, "-w", spare, "--no-report", "-q") == 0
    refit = next(one for one in barcast.runs(workspace=spare) if one.info.get("final"))
    assert run("promote", refit.name, "-w", spare) == 0
    updated(spare)
    assert run("retrain", "-w", spare, "--no-report", "-q") == 0
    assert evaluation(spare).info["taken_over"] == {old.name: 33}
    refits = [one for one in barcast.runs(workspace=spare) if one.info.get("final")]
    assert len(refits) == 2 and not refits[-1].info["taken_over"]  # more labels teach it than before


def test_a_refit_fits_whose_options_changed_too(spare, tmp_path, monkeypatch):
    assert run("fleet", "trees", "-w", spare, *TREES, "--final", "-q") == 0
    old, plain, fitted = barcast.runs(workspace=spare)[-1], fit.fit_symbol, []
    options = own_options(spare, tmp_path)
    monkeypatch.setattr(
        fit, "fit_symbol", lambda data, *rest: (fitted.append(data.symbol), plain(data, *rest))[1]
    )
    assert run("fleet", "trees", "-w", spare, *TREES, *options, "--final", "-q") == 0
    new = barcast.runs(workspace=spare)[-1]
    assert fitted == ["SYM03", "SYM03"] and new.info["final"] and new.info["taken_over"] == {old.name: 32}
    with ledger_of(spare, new.name) as ledger:
        found = {row.symbol: facts_of(row) for row in ledger.rows()}
    assert run("train", "--refit", new.info["parent"], "-w", spare, "--fresh", "--no-report", "-q") == 0
    with ledger_of(spare, new.name) as ledger:
        assert not new.info["taken_over"] and {row.symbol: facts_of(row) for row in ledger.rows()} == found


# --- networks ------------------------------------------------------------------------------------------------


def test_networks_are_taken_over_as_if_trained_anew(tmp_path, capsys):
    root, few = import_market(tmp_path / "ws", NAMES[:6]), NAMES[:6]
    assert run("fleet", "lstm", "-w", root, *NETWORKS, "-q") == 0
    old = evaluation(root)
    updated(root, names=few)
    own = tmp_path / "own.toml"
    own.write_text("[sym03]\nlr = 0.005\n")
    capsys.readouterr()
    assert run("fleet", "lstm", "-w", root, *NETWORKS, "--symbol-config", own) == 0
    err = words(capsys.readouterr().err)
    assert f"5 models taken over from {old.name}" in err and "1 symbol to fit (1 settings changed)" in err
    assert taken_in(root) == {*few} - {"SYM03"}
    with ledger_of(root) as ledger:
        found = {symbol: unpack(model).weights for symbol, model in ledger.models()}
    assert run("fleet", "lstm", "-w", root, *NETWORKS, "--symbol-config", own, "--fresh", "-q") == 0
    assert not taken_in(root)
    with ledger_of(root) as ledger:
        anew = {symbol: unpack(model).weights for symbol, model in ledger.models()}
    assert found.keys() == anew.keys() == {*few}
    for symbol, weights in anew.items():
        np.testing.assert_allclose(found[symbol], weights, rtol=1e-3, atol=1e-4, err_msg=symbol)


# --- what the digest covers ----------------------------------------------------------------------------------

_CODE = {name: code for code, name in enumerate(SEGMENTS)}


def made_up(num_rows=420) -> FleetData:
    """One symbol of two lives: 20 rows that teach nothing, `fit`, a gap, `stop`, a gap, `weigh`, `route`."""
    rng = np.random.default_rng(5)
    inputs = rng.normal(size=(num_rows, 4)).astype(np.float32)
    target = (0.5 * inputs[:, :1] + rng.normal(size=(num_rows, 1))).astype(np.float32)
    segment = np.full(num_rows, -1, np.int8)
    for name, rows in {
        "fit": (20, 240),
        "stop": (245, 300),
        "weigh": (305, 350),
        "route": (355, 400),
    }.items():
        segment[slice(*rows)] = _CODE[name]
    segment[150:170] = -1  # a second life begins
    life = np.where(np.arange(num_rows) < 150, 0, 150).astype(np.int64)
    session = np.arange(num_rows, dtype=np.int32)
    return FleetData(("A",), np.array([0, num_rows]), inputs, target, session, segment, life)


def with_rows(data, rows, name="inputs"):
    """Return the data with other values in some rows."""
    values = getattr(data, name).copy()
    values[rows] += 1
    return replace(data, **{name: values})


UNIT = Unit(
    ("A",),
    (0,),
    "lstm-16",
    options={"min_rows": 50, "epochs": 2, "look_back_window": 8, "stretch_length": 30},
)


def networks_of(data):
    (found,) = NetworkFit(data, "lstm", {}, 1)(UNIT)
    assert found.status == "done", found.reason
    return found


def trees_of(data):
    (found,) = EnsembleFit(data, 1, {"min_rows": 50}, True)(Unit(("A",), (0,), "fast"))
    assert found.status == "done", found.reason
    return found


def untimed(metrics):
    return json.loads(
        json.dumps(metrics), object_hook=lambda each: {k: v for k, v in each.items() if k != "seconds"}
    )


LATER = np.r_[300:420]  # all after `stop`


def test_trees_read_nothing_that_their_digest_does_not_cover():
    data = made_up()
    (digest,) = rows_digests(data, windows=False)
    unread = np.flatnonzero(~np.isin(data.segment, [_CODE["fit"], _CODE["stop"], _CODE["weigh"]]))
    other = with_rows(with_rows(with_rows(data, unread), unread, "target"), np.s_[:], "session")
    other = replace(other, segment=np.where(data.segment == _CODE["route"], -1, data.segment).astype(np.int8))
    assert rows_digests(other, windows=False) == [digest]
    found, again = trees_of(data), trees_of(other)
    assert (found.model, found.native, untimed(found.metrics)) == (
        again.model,
        again.native,
        untimed(again.metrics),
    )
    for name, rows in (("inputs", 100), ("inputs", 250), ("inputs", 320), ("target", 100), ("target", 320)):
        assert rows_digests(with_rows(data, rows, name), windows=False) != [digest], (name, rows)


def test_networks_read_nothing_that_their_digest_does_not_cover():
    data = made_up()
    (digest,) = rows_digests(data, windows=True)
    silent = np.r_[0:20, 150:170, 240:245]  # read in windows; their targets teach nothing
    other = with_rows(with_rows(with_rows(data, LATER), LATER, "target"), silent, "target")
    life = np.where(np.arange(420) >= 330, 330, other.life_start)  # a third life begins later
    other = replace(
        other,
        life_start=life,
        segment=np.where(np.isin(np.arange(420), LATER), -1, data.segment).astype(np.int8),
    )
    assert rows_digests(other, windows=True) == [digest]
    found, again = networks_of(data), networks_of(other)
    np.testing.assert_allclose(unpack(found.model).weights, unpack(again.model).weights, rtol=1e-5, atol=1e-6)
    assert (found.num_rows, found.metrics["best_epoch"]) == (again.num_rows, again.metrics["best_epoch"])
    for name, rows in (
        ("inputs", 5),
        ("inputs", 160),
        ("inputs", 242),
        ("inputs", 299),
        ("target", 100),
        ("target", 299),
    ):
        assert rows_digests(with_rows(data, rows, name), windows=True) != [digest], (name, rows)
    one_life = replace(data, life_start=np.zeros(420, np.int64))
    assert rows_digests(one_life, windows=True) != [digest]
    assert (
        random_phases(5, 120, seed=3, epoch=1)[:2].tolist() == random_phases(2, 120, seed=3, epoch=1).tolist()
    )


# --- ledgers alone -------------------------------------------------------------------------------------------


def fleet_in(root, name, models, created, **facts) -> RunFolder:
    """A fleet's folder whose ledger has models: preset, settings and rows by symbol."""
    folder = RunFolder(Workspace(root).runs / name)
    folder.write("run.json", {"name": name, "model": "fleet-trees", "created": created, **facts})
    with Ledger.create(folder.fleet / LEDGER) as ledger:
        Older().take(ledger, (), {}, Progress(enabled=False))
        ledger.plan([Wanted(s, i, *digests) for i, (s, (_, *digests)) in enumerate(models.items())])
        ledger.finish([
            SymbolResult(s, preset, "done", 1.0, 1, 100, model=f"{name} {s}".encode()) for s, (preset, *_) in models.items()
        ])  # fmt: skip
    return folder


def taken(run, symbols, settings="s", rows="d", notes=None):
    wanted = [Wanted(s, i, settings, rows) for i, s in enumerate(symbols)]
    progress = Progress(enabled=False)
    if notes is not None:
        progress.note = notes.append
    with Ledger.create(run.fleet / LEDGER) as ledger:
        found = Older.of(run).take(ledger, wanted, dict.fromkeys(symbols, "fast"), progress)
        plan = ledger.plan(wanted, found.before)
        return dict(ledger.models()), {each.symbol: each.why for each in plan.todo}


def test_each_symbol_comes_from_the_newest_fleet_that_has_it_so(tmp_path):
    fleet_in(tmp_path, "a", {"A": ("fast", "s", "d"), "B": ("fast", "s", "d"), "C": ("fast", "s", "d")}, "1")
    fleet_in(
        tmp_path, "b", {"A": ("fast", "s", "d"), "B": ("fast", "s2", "d"), "C": ("fast", "s2", "d2")}, "2"
    )
    fleet_in(tmp_path, "c", {"D": ("fast", "s2", "d"), "E": ("fast", "s", "d2")}, "3")
    fleet_in(tmp_path, "refit", {"F": ("fast", "s", "d")}, "4", parent="c")
    fleet_in(tmp_path, "residual", {"F": ("fast", "s", "d")}, "4", universal={"run": "ridge"})
    new = fleet_in(tmp_path, "new", {}, "5")
    models, why = taken(new, "ABCDEF")
    assert models == {"A": b"b A", "B": b"a B", "C": b"a C"}
    assert why == {"D": "settings changed", "E": "data changed", "F": "new"}


@pytest.mark.parametrize("facts", [{"fresh": True}, {"universal": {"run": "ridge"}}])
def test_fleets_that_begin_anew_or_learn_residuals_take_over_nothing(tmp_path, facts):
    fleet_in(tmp_path, "a", {"A": ("fast", "s", "d")}, "1")
    assert taken(fleet_in(tmp_path, "new", {}, "2", **facts), "A") == ({}, {"A": "new"})


def test_fits_of_other_versions_are_passed_over_and_it_is_said(tmp_path, monkeypatch):
    fleet_in(tmp_path, "a", {"A": ("fast", "s", "d")}, "1")
    here, notes = fleet_versions.computed_by(), []
    with monkeypatch.context() as patch:
        patch.setattr(fleet_versions, "computed_by", lambda: {**here, "lightgbm": "99.0"})
        assert taken(fleet_in(tmp_path, "b", {}, "3"), "AB", notes=notes) == (
            {}, {"A": "not taken over", "B": "new"},
        )  # fmt: skip
        assert notes == ["a is passed over: fitted by other versions"]
        assert taken(fleet_in(tmp_path, "c", {}, "4"), "A", "s2")[1] == {"A": "settings changed"}
    assert taken(fleet_in(tmp_path, "d", {}, "5"), "A")[0] == {"A": b"a A"}
    with Ledger.open(Workspace(tmp_path).runs / "d" / "fleet" / LEDGER, readonly=False) as ledger:
        # somebody went on with another
        ledger.set_meta({"computed_by": [here, {**here, "lightgbm": "99.0"}]})
    (Workspace(tmp_path).runs / "a" / "fleet" / LEDGER).unlink()
    assert taken(fleet_in(tmp_path, "e", {}, "6"), "A") == ({}, {"A": "not taken over"})


def test_fits_of_other_sources_are_passed_over(tmp_path, monkeypatch):
    fleet_in(tmp_path, "a", {"A": ("fast", "s", "d")}, "1")
    monkeypatch.setattr(fleet_versions, "_sources_digest", lambda: "another")
    assert taken(fleet_in(tmp_path, "b", {}, "2"), "A") == ({}, {"A": "not taken over"})


def test_a_preset_that_stands_for_other_values_is_another(spare, monkeypatch, capsys):
    changed = presets.configured("fast", {"forest": {"num_trees": 8}})
    monkeypatch.setitem(presets.PRESETS, "fast", changed)
    updated(spare)
    capsys.readouterr()
    assert run("fleet", "trees", "-w", spare, *TREES) == 0
    assert "33 symbols to fit (33 settings changed)" in words(capsys.readouterr().err)
    assert not taken_in(spare)


def imports_of(file) -> set[str]:
    """Return the modules of barcast that a file imports from, as paths below the package."""
    found = [
        each for each in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(each, ast.ImportFrom)
    ]
    names = {each.module for each in found if str(each.module).startswith("barcast.")}
    return {f"{name.removeprefix('barcast.').replace('.', '/')}.py" for name in names}


def test_the_sources_that_count_are_all_that_a_fit_runs():
    package = Path(barcast.__file__).parent
    counted = {
        file.relative_to(package).as_posix() for each in fleet_versions.SOURCES for file in package.glob(each)
    }
    assert all(list(package.glob(each)) for each in fleet_versions.SOURCES)
    fits = {file for file in counted if file.startswith("fleet/")}
    assert {"fleet/trees/fit.py", "fleet/networks/trainer.py"} <= fits
    read = set().union(*(imports_of(package / file) for file in fits)) - counted
    # files, errors and memory; and what only hands results over, or writes them for others
    assert {file for file in read if not file.startswith("core/")} <= {"fleet/work.py", "fleet/onnx.py"}


def test_a_giver_is_read_as_it_stood_at_one_moment(tmp_path, monkeypatch):
    symbols, plain, calls = "ABCD", Ledger.model, []
    old = fleet_in(tmp_path, "a", dict.fromkeys(symbols, ("fast", "s", "d")), "1", status="running")

    def model(self, symbol):
        if not calls:  # its driver gives two of them another fit, of which one has ended
            with Ledger.open(old.fleet / LEDGER, readonly=False) as writer:
                writer.reset(["B", "C"])
                writer.finish([SymbolResult("C", "extreme", "done", 1.0, 1, 100, model=b"another")])
        calls.append(symbol)
        return plain(self, symbol)

    monkeypatch.setattr(Ledger, "model", model)
    models, why = taken(fleet_in(tmp_path, "new", {}, "2"), symbols)
    assert calls == [*symbols] and models == {name: f"a {name}".encode() for name in symbols} and not why


@pytest.mark.parametrize("reason", ["MemoryError: no room", "ResourceError: no room", DIED])
def test_failures_in_passing_are_not_taken_over(tmp_path, reason):
    old = fleet_in(tmp_path, "a", dict.fromkeys("ABC", ("fast", "s", "d")), "1")
    with Ledger.open(old.fleet / LEDGER, readonly=False) as ledger:
        ledger.finish([
            SymbolResult("A", "fast", "failed", reason=reason), SymbolResult("B", "fast", "failed", reason="planted")
        ])  # fmt: skip
    notes = []
    models, why = taken(fleet_in(tmp_path, "new", {}, "2"), "ABC", notes=notes)
    assert models == {"C": b"a C"} and why == {"A": "failed before"}
    assert notes == ["1 model and 1 failure taken over from a: same rows, same options"]


def big_fleet(root, name, symbols, created):
    """A fleet whose models fill pages of their own."""
    folder = fleet_in(root, name, dict.fromkeys(symbols, ("fast", "s", "d")), created)
    with Ledger.open(folder.fleet / LEDGER, readonly=False) as ledger:
        ledger.finish([
            SymbolResult(each, "fast", "done", 1.0, 1, 100, model=f"{name} {each} ".encode() * 4000) for each in symbols
        ])  # fmt: skip
    return folder


def damage_model(folder, symbol, *, whole_page):
    """Write over a page of a stored model, or its text alone; the file opens, and its rows are read, as before."""
    path = folder.fleet / LEDGER
    content = bytearray(path.read_bytes())
    place = content.rindex(f"{folder.name} {symbol} ".encode() * 600)
    first, length = (place // 4096 * 4096, 4096) if whole_page else (place, 1000)
    content[first : first + length] = b"\xff" * length
    path.write_bytes(content)


@pytest.mark.parametrize("whole_page", [False, True])
def test_an_older_ledger_that_is_damaged_stops_nobody(tmp_path, monkeypatch, whole_page):
    monkeypatch.setattr(fleet_taken, "_TOGETHER", 2)
    fleet_in(tmp_path, "good", {"D": ("fast", "s", "d")}, "1")
    old = big_fleet(tmp_path, "old", "ABCD", "2")
    (fleet_in(tmp_path, "other", {}, "3").fleet / LEDGER).write_bytes(b"no database" * 100)
    damage_model(old, "C", whole_page=whole_page)
    with Ledger.open(old.fleet / LEDGER) as ledger:
        assert len(ledger.rows()) == 4
    notes = []
    models, why = taken(fleet_in(tmp_path, "new", {}, "4"), "ABCD", notes=notes)
    assert models == {"A": b"old A " * 4000, "B": b"old B " * 4000, "D": b"good D"}
    assert why == {"C": "not taken over"}
    told = [note.split(":")[0] for note in notes]
    assert told == [
        "other is passed over", "2 models taken over from old", "the rest of old is passed over",
        "1 model taken over from good",
    ]  # fmt: skip


@pytest.mark.parametrize("asked", ["meta", "digests", "rows", "model"])
def test_an_older_ledger_that_is_locked_stops_nobody(tmp_path, monkeypatch, asked):
    old, plain = fleet_in(tmp_path, "a", {"A": ("fast", "s", "d")}, "1"), getattr(Ledger, asked)

    def refused(self, *arguments, **options):
        if self.path.parent == old.fleet:
            raise OverlapError("another process keeps it locked")
        return plain(self, *arguments, **options)

    new, notes = fleet_in(tmp_path, "new", {}, "2"), []
    monkeypatch.setattr(Ledger, asked, refused)
    models, _ = taken(new, "A", notes=notes)
    assert not models and notes == ["a is passed over: another process keeps it locked"]


def test_a_full_disk_is_no_fault_of_the_older_ledger(tmp_path, monkeypatch):
    fleet_in(tmp_path, "a", {"A": ("fast", "s", "d")}, "1")
    new = fleet_in(tmp_path, "new", {}, "2")

    def refused(self, results):
        raise ResourceError("no space left on the disk")

    monkeypatch.setattr(Ledger, "finish", refused)
    with pytest.raises(ResourceError, match="no space left"):
        taken(new, "A")


@pytest.mark.parametrize("budget", [False, True])
def test_lighter_presets_are_kept_where_a_budget_gave_them_and_evened_out_elsewhere(tmp_path, budget):
    presets = dict.fromkeys("ABCDEFGH", "fast") | {"C": "extreme"}
    old = fleet_in(tmp_path, "a", {name: (preset, "s", "d") for name, preset in presets.items()}, "1")
    with Ledger.open(old.fleet / LEDGER, readonly=False) as ledger:
        ledger.set_meta({_DUE: True, _BUDGET: budget})
    between, new, notes = fleet_in(tmp_path, "b", {}, "2"), fleet_in(tmp_path, "new", {}, "3"), []
    taken(between, presets, notes=notes)
    assert notes == [
        "7 models taken over from a: same rows, same options",
        "1 model of a lighter preset taken over from a: same rows",
    ]
    taken(new, [*presets, "NEW"])  # from the one between, which took them over itself
    with Ledger.open(new.fleet / LEDGER, readonly=False) as ledger:
        assert ledger.row("C").preset == "extreme" and ledger.row("C").fitted_by == "a"
        assert not had_budget(ledger.meta())
        # of a listing of this fleet, which has no budget, the lighter preset was only measured
        ledger.finish([SymbolResult("NEW", "extreme", "done", 1.0, 1, 100, model=b"light")])
        assert even_out(ledger, ("extreme", "fast"), "x", Limits(workers=1), 0, Progress(enabled=False))
        assert ledger.row("C").status == ("done" if budget else "pending")
        assert ledger.row("NEW").status == "pending"


def test_a_run_that_is_still_at_work_gives_what_it_has(tmp_path):
    old = fleet_in(tmp_path, "a", {"A": ("fast", "s", "d")}, "1", status="running")
    with Ledger.open(old.fleet / LEDGER, readonly=False) as ledger:
        ledger.plan([Wanted("B", 1, "s", "d")])
        models, why = taken(fleet_in(tmp_path, "new", {}, "2"), "AB")
    assert models == {"A": b"a A"} and why == {"B": "new"}
    assert open_run(Workspace(tmp_path), "a").info["status"] == "running"
