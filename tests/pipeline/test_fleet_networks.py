"""A fleet of networks through the command line: compared, served from its own windows, refitted, killed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

import barcast
from barcast.cli.app import _run
from barcast.core.errors import UsageError
from barcast.core.predictions import read_predictions
from barcast.core.workspace import Workspace
from barcast.evaluation.metrics import rank_ic
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.networks.packing import unpack
from barcast.fleet.networks.presets import presets
from barcast.fleet.networks.trainer import BatchTrainer
from barcast.models.dedicated import FleetNetworksConfig
from barcast.pipeline.fleet_networks import NETWORKS
from barcast.pipeline.fleet_seen import fleet_run
from tests.journey.test_journey import DECLARED, write_market

NAMES = [f"SYM{s:02d}" for s in range(34)]
OPTIONS = {
    "hidden_size": 8, "look_back_window": 10, "stretch_length": 20, "batch_size": 80, "epochs": 12, "patience": 4,
    "lr": 0.01, "min_rows": 200,
}  # fmt: skip
SMALL = [word for name, value in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
QUICK = [*SMALL, "--executor", "serial", "--quiet"]


def run(*arguments) -> int:
    return _run([str(argument) for argument in arguments], debug=False)


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """A market of 34 symbols: one came too late to teach, one left too early to say when to stop."""
    root = tmp_path_factory.mktemp("market")
    write_market(root / "bars", symbols=len(NAMES), sessions=500)
    late, early = (root / "bars" / f"{name}.csv" for name in ("SYM33", "SYM32"))
    pl.read_csv(late).tail(120).write_csv(late)
    pl.read_csv(early).head(315).write_csv(early)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED) == 0
    return root


def copied(source, folder):
    subprocess.run(["cp", "-r", str(source), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def place(market, tmp_path_factory):
    """A workspace with a fleet and its refit."""
    root = copied(market, tmp_path_factory.mktemp("fleet") / "ws")
    assert run("fleet", "lstm", "-w", root, *QUICK, "--final") == 0
    return root


@pytest.fixture
def spare(place, tmp_path):
    return copied(place, tmp_path / "ws")


def ledger_of(root, name=""):
    return Ledger.open(fleet_run(Workspace(root), name).fleet / LEDGER)


def weights_of(root, name="") -> dict[str, np.ndarray]:
    with ledger_of(root, name) as ledger:
        return {symbol: unpack(model).weights for symbol, model in ledger.models()}


def assert_same(found, expected) -> None:
    assert set(found) == set(expected)
    for symbol, weights in expected.items():
        np.testing.assert_allclose(found[symbol], weights, rtol=1e-3, atol=1e-4, err_msg=symbol)


def test_every_symbol_with_the_rows_has_a_network_and_the_others_a_reason(place, capsys):
    found = barcast.fleet_status(workspace=place)
    assert found.counts == {"pending": 0, "running": 0, "done": 32, "failed": 0, "left_out": 2}
    assert found.presets == {"lstm-64": 32}
    told = {row.symbol: row.reason for row in found.rows if row.status == "left_out"}
    assert "of 200 training rows" in told["SYM33"] and "of 20 labels in `stop`" in told["SYM32"]
    assert run("fleet", "show", "sym05", "-w", place) == 0
    assert "width 8, 1 layer" in capsys.readouterr().out
    assert not list(place.glob("runs/*/fleet/states")) and not list(place.glob("runs/*/fleet/rows"))


def test_its_forecasts_are_compared_and_find_what_was_planted(place):
    fleet = fleet_run(Workspace(place))
    table = read_predictions(fleet.predictions, segment="route")
    assert table["score"].is_finite().all() and table["route"].unique().to_list() == ["dedicated"]
    assert not {"SYM32", "SYM33"} & set(table["symbol"].unique())
    session = table["time"].rank("dense").to_numpy().astype(int) - 1
    ic = rank_ic(table["y"].to_numpy(), table["score"].to_numpy(), session, session.max() + 1)
    assert np.nanmean(ic) > 0.05
    (compared,) = json.loads((fleet.path / "comparison.json").read_text())
    row = next(row for row in compared["all_rows"]["rows"] if row["model"] == "fleet-lstm")
    assert row["coverage"] < 1
    assert fleet.weights.name == LEDGER and fleet.info["weights_bytes"] == fleet.weights.stat().st_size


def live_and_table(root):
    """Scores of the last labelled session, as served and as in the predictions table, by symbol."""
    fleet = fleet_run(Workspace(root))
    table = read_predictions(fleet.predictions, segment="test")  # its labels are sealed
    last = table["time"].max()
    live = barcast.predict(fleet.name, workspace=root, asof=str(last)[:10], allow_old=True)
    assert live.run == fleet.name
    rows = table.filter(pl.col("time") == last)
    return tuple(dict(each.select("symbol", "score").iter_rows()) for each in (live.table, rows))


def test_what_is_served_is_what_the_table_says(place):
    live, table = live_and_table(place)
    assert len(table) == 32 and live == pytest.approx(table, rel=1e-4, abs=1e-6)


def test_the_refit_passes_as_often_over_all_labels_and_serves(place, capsys):
    fleet = fleet_run(Workspace(place))
    refit = next(r for r in barcast.runs(workspace=place) if r.info.get("parent") == fleet.name)
    with ledger_of(place) as before, ledger_of(place, refit.name) as after:
        rows = after.rows(status=["done"])
        assert [row.symbol for row in rows] == [row.symbol for row in before.rows(status=["done"])]
        for row in rows:
            old = before.row(row.symbol)
            assert row.preset == old.preset and row.num_rows > old.num_rows
            assert row.metrics["epochs"] == old.metrics["best_epoch"] and row.metrics["stop_score"] is None
        assert len({row.metrics["epochs"] for row in rows}) > 1
        assert "labels in `stop`" in after.row("SYM32").reason
    assert run("predict", fleet.name, "-w", place, "--allow-old", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["run"] == refit.name and len(answer["forecasts"]) == 32


def test_the_same_command_again_trains_nothing_and_fresh_gives_the_same_networks(spare, capsys):
    before = weights_of(spare)
    assert run("fleet", "lstm", "-w", spare, *QUICK[:-1], "--no-report") == 0
    assert "is there already" in capsys.readouterr().err
    assert run("fleet", "lstm", "-w", spare, *QUICK, "--fresh", "--no-report", "--unit-size", 5) == 0
    assert_same(weights_of(spare), before)


def test_options_of_one_symbol_change_that_symbol_alone(spare, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('[sym03]\nhidden_size = 12\nlook_back_window = 25\nfeatures = ["ret_1"]\n')
    before = weights_of(spare)
    assert run("fleet", "lstm", "-w", spare, *QUICK, "--no-report", "--symbol-config", own) == 0
    with ledger_of(spare) as ledger:
        network = unpack(ledger.model("SYM03").model)
        assert (network.shape.hidden_size, network.look_back) == (12, 25)
        assert (network.scaler.scale != 0).sum() == 1
    after = weights_of(spare)
    del before["SYM03"], after["SYM03"]
    assert_same(after, before)
    live, table = live_and_table(spare)  # its window reaches further back than the others'
    assert live == pytest.approx(table, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "text", "said"),
    [((), '[SYM01]\nfeatures = ["nothing"]\n', "nothing"), ((), "[SYM01]\nhidden = 3\n", "hidden_size"),
     (("--dropout", "1.5"), "", "dropout"), (("--look-back-window", "900"), "", "900"),
     (("--preset", "17"), "", "17"), (("--batch-size", "10"), "", "batch_size")],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused_before_any_fit(place, tmp_path, words, text, said, capsys):
    own = tmp_path / "own.toml"
    own.write_text(text)
    runs = [one.name for one in barcast.runs(workspace=place)]
    assert run("fleet", "lstm", "-w", place, *QUICK, *words, "--symbol-config", own) in (2, 3)
    assert said in capsys.readouterr().err
    assert [one.name for one in barcast.runs(workspace=place)] == runs


def test_gru_in_python_keeps_its_kind_through_plan_and_fit(market, tmp_path):
    root = copied(market, tmp_path / "ws")
    options = {**OPTIONS, "symbols": NAMES[:8], "executor": "serial", "epochs": 2}
    (plan,) = barcast.plan_fleet(kind="gru", workspace=root, **options)
    assert plan.ladder == ("gru-64",) and len(plan.candidates.symbols) == 7
    trained = barcast.train_fleet(kind="gru", workspace=root, report=False, **options)
    assert trained.run.info["model"] == "fleet-gru" and trained.run.info["num_models"] == 8
    with ledger_of(root) as ledger:
        assert unpack(ledger.model("SYM00").model).shape.kind == "gru"
    with pytest.raises(UsageError, match="no such fleet"):
        barcast.train_fleet(kind="mlp", workspace=root)


def test_presets_are_the_engines_and_a_width_of_ones_own_has_no_narrower_ones():
    import typing

    named = typing.get_args(typing.get_type_hints(FleetNetworksConfig)["preset"])
    assert tuple(f"gru-{name}" for name in named if name != "auto") == tuple(presets("gru"))
    assert NETWORKS["fleet-gru"].ladder(FleetNetworksConfig(preset="64")) == ("gru-16", "gru-32", "gru-64")
    assert NETWORKS["fleet-lstm"].ladder(FleetNetworksConfig(num_layers=2)) == ("lstm-64",)
    for name, preset in presets("lstm").items():  # what nobody says is as the engine has it
        shared = NETWORKS["fleet-lstm"].shared(FleetNetworksConfig(preset=name.removeprefix("lstm-")))
        assert {option: getattr(preset, option) for option in shared} == shared
        assert not {"hidden_size", "num_layers"} & set(shared)


@pytest.mark.parametrize(("hidden", "most"), [(64, 128), (1024, 3), (4096, 1)])
def test_fewer_wide_networks_make_a_unit(hidden, most):
    options = FleetNetworksConfig(hidden_size=hidden)
    assert NETWORKS["fleet-lstm"].together(options, "lstm-64", 13, 1) == most


@pytest.mark.parametrize("unit", [2, 3], ids=["while presets are measured", "later"])
def test_a_batch_that_was_cut_off_goes_on_from_its_last_save(unit, market, place, tmp_path, monkeypatch):
    root = copied(market, tmp_path / "ws")
    monkeypatch.setattr("barcast.fleet.networks.fit.SAVE_SECONDS", 0.005)
    step, resume, resumed, begun = BatchTrainer._step, BatchTrainer.from_state, [], []

    def fragile(self):
        begun.extend([self] if self not in begun else [])
        if len(begun) == unit and max(seat.standing.step for seat in self.seats) == 20:
            raise KeyboardInterrupt
        step(self)

    def watched(*arguments):
        trainer = resume(*arguments)
        resumed.extend(seat.standing.step for seat in trainer.seats)
        return trainer

    words = ["fleet", "lstm", "-w", root, *QUICK, "--no-report"]
    with monkeypatch.context() as patch:
        patch.setattr(BatchTrainer, "_step", fragile)
        assert run(*words) != 0
    assert list(root.glob("runs/*/fleet/states/*"))
    monkeypatch.setattr(BatchTrainer, "from_state", watched)
    assert run(*words) == 0
    assert max(resumed) > 0  # looked at as it went on: seats are given up in the end
    assert_same(weights_of(root), weights_of(place))
    assert not list(root.glob("runs/*/fleet/states"))


def finished_in(root) -> dict[str, str]:
    try:
        with ledger_of(root) as ledger:
            return {row.symbol: row.finished_at for row in ledger.rows(status=["done"])}
    except barcast.BarcastError:
        return {}  # no ledger yet


def test_a_killed_fleet_goes_on_and_ends_with_the_same_networks(market, place, tmp_path):
    root = copied(market, tmp_path / "ws")
    words = ["fleet", "lstm", "-w", str(root), *QUICK, "--unit-size", "3", "--no-report"]
    workers = ("--executor", "processes", "--workers", "1")
    process = subprocess.Popen([sys.executable, "-m", "barcast", *words, *workers])
    while process.poll() is None and len(finished_in(root)) < 8:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = finished_in(root)
    assert 8 <= len(kept) < 32
    assert run(*words) == 0
    assert finished_in(root).items() >= kept.items()
    assert_same(weights_of(root), weights_of(place))
