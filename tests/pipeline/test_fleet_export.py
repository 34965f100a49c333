"""One symbol's model taken out of a fleet: what the libraries predict is what the fleet's members do."""

import io
import json
import zipfile

import numpy as np
import pytest

import barcast
from barcast.core.errors import UsageError
from barcast.core.workspace import Workspace
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.trees.packed import unpack
from barcast.fleet.trees.predict import predict_members
from barcast.fleet.trees.presets import MEMBERS
from barcast.pipeline.fleet_seen import fleet_run
from tests.journey.test_journey import DECLARED, run, write_market

OWN = '[SYM02]\nfeatures = ["ret_1", "ret_5"]\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace with a fleet of all three members for six symbols."""
    root = tmp_path_factory.mktemp("export")
    write_market(root / "bars", symbols=6, sessions=400)
    (root / "own.toml").write_text(OWN)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED) == 0
    asked = ["--min-rows", "150", "--executor", "serial", "--no-report", "--quiet", "--horizon", "1,5"]
    assert run("fleet", "trees", "-w", root, *asked, "--symbol-config", root / "own.toml") == 0
    return root


def outputs_of(place, symbol, inputs):
    with Ledger.open(fleet_run(Workspace(place)).fleet / LEDGER) as ledger:
        return predict_members(unpack(ledger.model(symbol).model), inputs)


@pytest.mark.parametrize("symbol", ["sym01", "SYM02"])
def test_the_libraries_predict_what_the_members_do(place, tmp_path, symbol):
    import lightgbm
    import xgboost

    found = barcast.fleet_export(symbol, tmp_path / "one.zip", workspace=place)
    inputs = np.random.default_rng(0).normal(size=(500, len(found.inputs))).astype(np.float32)
    members = outputs_of(place, symbol.upper(), inputs)
    read = inputs[:, [found.inputs.index(name) for name in found.booster_inputs]]
    with zipfile.ZipFile(found.path) as archive:
        assert archive.namelist() == list(found.files) and len(found.files) == 6
        files = {name: archive.read(name) for name in archive.namelist()}
    for h in (0, 1):
        booster = xgboost.Booster(model_file=bytearray(files[f"xgboost_{h}.ubj"]))
        told = booster.predict(xgboost.DMatrix(read, nthread=1))
        np.testing.assert_allclose(members[:, h, MEMBERS.index("xgboost")], told, atol=1e-5)
        told = lightgbm.Booster(model_str=files[f"lightgbm_{h}.txt"].decode()).predict(read)
        np.testing.assert_allclose(members[:, h, MEMBERS.index("lightgbm")], told, atol=1e-5)
    assert len(np.load(io.BytesIO(files["forest_0.npz"]))["sizes"]) == 100
    assert len(found.loaded) == 3
    assert found.booster_inputs == (("ret_1", "ret_5") if symbol == "SYM02" else found.inputs)


def by_the_rule(arrays, name, rows):
    """Follow the flat arrays as their metadata says, slowly."""
    sizes, feature, threshold, skip, value = (
        arrays[f"{name}.{field}"] for field in ("sizes", "feature", "threshold", "skip", "value")
    )
    base, scale = arrays[f"{name}.base_scale"]
    total, start = np.zeros(len(rows)), 0
    for tree, size in enumerate(sizes.tolist()):
        for place, row in enumerate(rows):
            node, leaf, left = start, start + tree, size
            while left:
                inner = int(skip[node])
                if row[feature[node]] < threshold[node]:
                    node, left = node + 1, inner
                else:
                    node, leaf, left = node + 1 + inner, leaf + 1 + inner, left - 1 - inner
            total[place] += value[leaf]
        start += size
    return base + scale * total


def test_flat_arrays_say_the_same(place, tmp_path, capsys):
    from safetensors.numpy import load_file

    target = tmp_path / "one.safetensors"
    assert run("fleet", "export", "SYM01", "--to", target, "-w", place) == 0
    printed = capsys.readouterr().out
    assert str(target) in printed and "safetensors.numpy.load_file" in printed
    arrays = load_file(target)
    inputs = np.random.default_rng(1).normal(size=(20, 13)).astype(np.float32)
    members = outputs_of(place, "SYM01", inputs)
    for h in (0, 1):
        for k, name in enumerate(MEMBERS):
            np.testing.assert_allclose(
                by_the_rule(arrays, f"{h}.{name}", inputs), members[:, h, k], atol=1e-5
            )


def test_json_names_what_was_written(place, tmp_path, capsys):
    target = tmp_path / "SYM03.zip"
    assert run("fleet", "export", "SYM03", "--to", target, "--format", "native", "-w", place, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["symbol"] == "SYM03" and "xgboost_0.ubj" in answer["files"]
    assert answer["inputs"][-1] == "validity"


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [(".", "", "is a folder"), ("one.csv", "", "ends"), ("one", "", "ends"), ("one.zip", "pmml", "no such format"),
     ("one.zip", "safetensors", "ends safetensors in .safetensors")],
)  # fmt: skip
def test_what_is_no_file_of_a_model_is_refused(place, tmp_path, name, kind, said):
    with pytest.raises(UsageError, match=said):
        barcast.fleet_export("SYM01", tmp_path / name, workspace=place, kind=kind)
    assert not any(tmp_path.iterdir())


def test_a_symbol_without_a_model_is_refused_with_the_reason(place, tmp_path, capsys):
    assert run("fleet", "export", "NOBODY", "--to", tmp_path / "one.zip", "-w", place) != 0
    assert "NOBODY" in capsys.readouterr().err
