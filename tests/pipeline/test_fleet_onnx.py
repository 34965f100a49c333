"""A symbol's forecast as an ONNX file: a runtime that knows nothing of barcast says what barcast says."""

import json

import numpy as np
import polars as pl
import pytest

import barcast
from barcast.core.errors import UsageError
from barcast.core.predictions import read_predictions
from barcast.core.workspace import Workspace
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.networks.packing import unpack
from barcast.pipeline.dataset import build_dataset, run_features
from barcast.pipeline.fleet_export import fleet_export
from barcast.pipeline.fleet_seen import fleet_run
from barcast.pipeline.fleet_weights import packed_fleet
from barcast.pipeline.market import load_market
from barcast.pipeline.record import load_maps
from barcast.pipeline.settings import from_run
from tests.journey.test_journey import DECLARED, run, write_market

onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install -e '.[dev]'")

OWN = '[SYM02]\nfeatures = ["ret_1", "ret_5"]\n'
NETWORK = ["--hidden-size", "8", "--num-layers", "2", "--look-back-window", "10", "--stretch-length", "20",
           "--batch-size", "80", "--epochs", "2"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace with a fleet of trees and one of each network, of few symbols: inputs by a fitted scaler."""
    root = tmp_path_factory.mktemp("onnx")
    write_market(root / "bars", symbols=5, sessions=420)
    (root / "own.toml").write_text(OWN)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED) == 0
    asked = [
        "--min-rows",
        "150",
        "--executor",
        "serial",
        "--no-report",
        "--quiet",
        "--horizon",
        "1,5",
        "-w",
        root,
    ]
    assert run("fleet", "trees", *asked, "--symbol-config", root / "own.toml") == 0
    for kind in ("lstm", "gru"):
        assert run("fleet", kind, *asked, *NETWORK) == 0
    return root


def fleet_of(place, kind):
    (found,) = [name for name in (place / "runs").iterdir() if name.name.startswith(f"fleet-{kind}")]
    return fleet_run(Workspace(place), found.name)


def answers(path, inputs):
    """Run a file and return score and y_hat."""
    session = onnxruntime.InferenceSession(path)
    return session.run(["score", "y_hat"], {"inputs": inputs})


def rows_of(place, fleet):
    """Return the normalised inputs of all rows, as the run made them."""
    config = from_run(fleet.read("config.json"))
    market = load_market(Workspace(place), config.data)
    features = run_features(fleet, fleet.read("state.json")["feature_set"])
    return build_dataset(market, Workspace(place), features, tabular=True)


def served(fleet, symbol):
    """Return the sessions and the forecasts of a symbol in the predictions table, shape (2, n, H)."""
    table = read_predictions(fleet.predictions).filter(symbol=symbol)
    wide = [table.pivot("horizon", index="time", values=name).sort("time") for name in ("score", "y_hat")]
    return wide[0]["time"], np.stack([each.select(pl.exclude("time")).to_numpy() for each in wide])


@pytest.mark.parametrize("symbol", ["SYM01", "SYM02"])
def test_trees_say_what_the_packed_fleet_does_of_whole_and_broken_rows(place, tmp_path, symbol):
    fleet = fleet_of(place, "trees")
    found = barcast.fleet_export(symbol, tmp_path / "one.onnx", fleet.name, workspace=place)
    inputs = np.random.default_rng(0).normal(size=(400, len(found.inputs))).astype(np.float32)
    inputs[3, 2], inputs[4, 0], inputs[5, 1], inputs[6] = np.nan, np.inf, -np.inf, np.nan
    inputs[7] = 0.0
    with Ledger.open(fleet.fleet / LEDGER) as ledger:
        packed = packed_fleet(ledger, fleet.fleet)
    own = np.full(len(inputs), packed.symbols.index(symbol))
    expected = packed.scores(inputs, own)
    score, y_hat = answers(found.path, inputs)
    assert np.isnan(expected[3:7]).any() and np.isfinite(expected[7:]).all()
    np.testing.assert_allclose(score, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        y_hat, expected * [each.slope for each in load_maps(fleet)], rtol=1e-5, atol=1e-8
    )


def test_real_rows_give_the_forecasts_of_the_predictions_table(place, tmp_path):
    fleet = fleet_of(place, "trees")
    dataset = rows_of(place, fleet)
    bars = dataset.market.bars
    found = barcast.fleet_export("SYM03", tmp_path / "one.onnx", fleet.name, workspace=place)
    times, expected = served(fleet, "SYM03")
    start = bars.offsets[bars.symbols.index("SYM03")]
    rows = start + np.searchsorted(bars.times[start : bars.offsets[bars.symbols.index("SYM03") + 1]], times)
    score, y_hat = answers(found.path, np.asarray(dataset.inputs[rows], np.float32))
    np.testing.assert_allclose(score, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y_hat, expected[1], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_networks_read_windows_that_may_begin_before_the_first_bar(place, tmp_path, kind):
    fleet = fleet_of(place, kind)
    dataset = rows_of(place, fleet)
    bars = dataset.market.bars
    found = barcast.fleet_export("SYM01", tmp_path / "one.onnx", fleet.name, workspace=place)
    times, expected = served(fleet, "SYM01")
    start = bars.offsets[1]
    rows = start + np.searchsorted(bars.times[start : bars.offsets[2]], times)
    windows = dataset.inputs[rows[:, None] + np.arange(-9, 1)].astype(np.float32)
    score, y_hat = answers(found.path, windows)
    np.testing.assert_allclose(score, expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(y_hat, expected[1], rtol=1e-4, atol=1e-7)

    with Ledger.open(fleet.fleet / LEDGER) as ledger:
        network = unpack(ledger.model("SYM01").model)
    short = windows[:3].copy()
    short[:, :4] = np.nan
    padded = network.scaler.inputs(short)
    padded[:, :4] = 0.0
    again = answers(found.path, short)[0]
    np.testing.assert_allclose(again, by_hand(network, padded), rtol=1e-4, atol=1e-5)
    assert not np.allclose(again, score[:3])


def by_hand(network, inputs):
    """Run a network's equations step by step on scaled windows, slowly."""
    shape = network.shape
    sizes = np.cumsum([int(np.prod(of)) for of in shape.weights.values()])[:-1]
    parts = np.split(network.weights.astype(np.float64), sizes)
    w = {name: part.reshape(of) for (name, of), part in zip(shape.weights.items(), parts, strict=True)}
    sequence = [inputs[:, step].astype(np.float64) for step in range(inputs.shape[1])]
    for depth in range(shape.num_layers):
        h = c = np.zeros((len(inputs), shape.hidden_size))
        states = []
        for x in sequence:
            given = x @ w[f"weight_ih_l{depth}"].T + w[f"bias_ih_l{depth}"]
            recur = h @ w[f"weight_hh_l{depth}"].T
            if shape.kind == "lstm":
                i, f, g, o = np.split(given + recur, 4, axis=1)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                (r, z, n), (hr, hz, hn) = (
                    np.split(each, 3, axis=1) for each in (given, recur + w[f"bias_hh_l{depth}"])
                )
                h = sigmoid(z + hz) * h + (1 - sigmoid(z + hz)) * np.tanh(n + sigmoid(r + hr) * hn)
            states.append(h)
        sequence = states
    last = (h - h.mean(axis=1, keepdims=True)) / np.sqrt(h.var(axis=1, keepdims=True) + 1e-5)
    return (last @ w["head.weight"].T + w["head.bias"]) * network.scaler.target


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_file_says_what_it_reads_and_gives(place, tmp_path, capsys):
    fleet = fleet_of(place, "lstm")
    target = tmp_path / "one.onnx"
    assert run("fleet", "export", "sym01", "--to", target, "--run", fleet.name, "-w", place) == 0
    assert "onnxruntime.InferenceSession" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(target)
    told = session.get_modelmeta().custom_metadata_map
    assert (told["symbol"], told["run"], told["model"]) == ("SYM01", fleet.name, "fleet-lstm")
    assert json.loads(told["columns"])[-1] == "validity" and json.loads(told["horizons"]) == [1, 5]
    assert "fraction" in json.loads(told["units"])["y_hat"] and len(json.loads(told["scaler"])["mean"]) == 12
    assert session.get_inputs()[0].shape == ["rows", 10, len(json.loads(told["columns"]))]


def test_networks_come_out_as_safetensors_and_not_as_native_files(place, tmp_path):
    from safetensors.numpy import load_file

    fleet = fleet_of(place, "gru")
    found = fleet_export(Workspace(place), "SYM01", tmp_path / "one.safetensors", fleet.name)
    assert load_file(found.path)["weight_hh_l1"].shape == (24, 8)
    with pytest.raises(UsageError, match="no fleet of trees"):
        fleet_export(Workspace(place), "SYM01", tmp_path / "one.zip", fleet.name)
    assert not (tmp_path / "one.zip").exists()


def test_without_the_package_the_extra_is_named(place, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(UsageError, match=r"barcast\[onnx\]"):
        barcast.fleet_export("SYM01", tmp_path / "one.onnx", workspace=place)
