import dataclasses
import io
import itertools
import json
from contextlib import closing

import numpy as np
import pytest

from barcast.core.errors import DataError, UsageError
from barcast.core.predictions import SEGMENTS
from barcast.fleet.executors import executor
from barcast.fleet.trees.export import native_files, to_safetensors
from barcast.fleet.trees.fit import compile_kernels, make_fit, predictions
from barcast.fleet.trees.packed import unpack
from barcast.fleet.trees.predict import predict_members
from barcast.fleet.trees.presets import PRESETS, configured
from barcast.fleet.work import FitSource, Unit
from tests.fleet.executors.driving import drive
from tests.fleet.trees.builders import SMALL, fleet


def unit(position, preset="published", **options):
    return Unit((f"S{position}",), (position,), preset, options=options)


def fitted(data, folder, *units, seed=0, **options):
    data.save(folder)
    arguments = {"folder": str(folder), "seed": seed, "options": SMALL | options}
    fit = FitSource("barcast.fleet.trees.fit", "make_fit", arguments).make()
    return [result for u in units for result in fit(u)]


def test_a_symbol_comes_back_packed_with_its_errors(tmp_path):
    data = fleet(num_horizons=2)
    (result,) = fitted(data, tmp_path, unit(1))
    assert (result.symbol, result.preset, result.status, result.reason) == ("S1", "published", "done", "")
    assert result.num_rows == 180 and result.seconds > 0
    assert json.loads(json.dumps(result.metrics)) == result.metrics
    own = data.one(1)
    for h, found in enumerate(result.metrics["horizons"]):
        assert found["rows"] == {"fit": 180, "stop": 30, "weigh": 30}
        for name in ("stop", "weigh"):
            rows = own.labelled(name, h)
            outputs, y = predictions(own, result.model, rows)[:, h], own.target[rows, h]
            expected = np.sqrt(np.mean((y[:, None] - outputs) ** 2, axis=0))
            members = [found["members"][m][f"rmse_{name}"] for m in ("forest", "xgboost", "lightgbm")]
            np.testing.assert_allclose(members, expected, rtol=1e-6)
            assert max(members) < found["zero"][f"rmse_{name}"] == pytest.approx(np.sqrt(np.mean(y**2.0)))
        assert found["members"]["forest"]["trees"] == 5


def test_a_worker_holds_nothing_of_what_its_caller_once_held(tmp_path):
    np.ones(1000 << 17)  # and gone: workers start with the caller's record of its peak
    fleet().save(tmp_path)
    source = FitSource("barcast.fleet.trees.fit", "make_fit", {"folder": str(tmp_path), "options": SMALL})
    with closing(executor("processes", 1, source)) as pool:
        (finished,) = drive(pool, [unit(1)])
    assert finished.results[0].status == "done"
    assert 50 << 20 < finished.results[0].memory_bytes < 700 << 20


def test_bytes_do_not_depend_on_order_or_company(tmp_path):
    data = fleet()
    first = fitted(data, tmp_path / "a", unit(0), unit(1), unit(2))
    second = fitted(data, tmp_path / "b", unit(2), unit(0))
    assert [r.model for r in second] == [first[2].model, first[0].model]
    assert [r.native for r in second] == [first[2].native, first[0].native]
    assert fitted(data, tmp_path / "c", unit(0), seed=1)[0].model != first[0].model


def test_only_fit_and_stop_shape_a_model(tmp_path):
    data = fleet(lengths=(300,))
    (before,) = fitted(data, tmp_path / "a", unit(0))

    def without(*names):
        target = data.target.copy()
        for name in names:
            target[data.segment == SEGMENTS.index(name)] *= -3
        changed = dataclasses.replace(data, target=target)
        return unpack(fitted(changed, tmp_path / "-".join(names), unit(0))[0].model).trees()

    assert fitted(data, tmp_path / "again", unit(0))[0].model == before.model
    old = unpack(before.model).trees()
    for names, alike in (
        (("weigh", "route", "test"), set(old)),
        (("stop",), {"forest", "lightgbm"}),
        (("fit",), set()),
    ):
        new = without(*names)
        assert {m for m in old if np.array_equal(new[m].value, old[m].value)} == alike


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        ("", {"min_rows": 181}, "too short: 180 of 181 training rows"),
        ("constant", {}, "constant target: 0.5 on all 180 training rows"),
        ("inputs", {}, "inputs that are not finite: 2 of 180 rows of `fit`, first at session 3, feature 2"),
        ("", {"features": [0, 6]}, "feature 6 asked, the rows have 6"),
        ("", {"xgboost": {"eta": 0.1}}, "ensemble.xgboost: unknown key `eta`"),
        ("", {"forest": {"num_trees": 0}}, "`num_trees` must be at least 1, got 0"),
        ("", {"lightgbm": {"num_leaves": 2**40}}, "num_leaves"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_that_symbols_result(tmp_path, change, options, reason):
    data = fleet()
    own = data.rows_of(1)
    if change == "constant":
        data.target[own] = 0.5
    if change == "inputs":
        data.inputs[own][3, 2], data.inputs[own][4, 0] = np.inf, np.nan
    bad, good = fitted(data, tmp_path, unit(1, **options), unit(0))
    assert (bad.symbol, bad.status, bad.model) == ("S1", "failed", b"") and bad.todo
    assert reason in bad.reason, bad.reason
    assert good.status == "done"


def test_overrides_of_a_symbol_come_after_those_of_all(tmp_path):
    data = fleet(lengths=(300,))
    options = {"members": ["forest", "xgboost"], "features": [2, 4], "forest": {"num_trees": 3}}
    (result,) = fitted(data, tmp_path, unit(0, **options))
    members = unpack(result.model).trees()
    assert list(members) == ["forest", "xgboost"] and len(members["forest"].sizes) == 3
    assert {int(f) for m in members.values() for f in m.feature} <= {2, 4}
    changed = data.inputs.copy()
    changed[:, [0, 1, 3, 5]] = 9.0
    packed = unpack(result.model)
    np.testing.assert_array_equal(predict_members(packed, changed), predict_members(packed, data.inputs))


def test_without_stop_rows_all_rounds_are_kept(tmp_path):
    data = fleet(lengths=(300,))
    data.target[data.segment > 0] = np.nan
    (result,) = fitted(data, tmp_path, unit(0))
    found = result.metrics["horizons"][0]
    assert found["rows"] == {"fit": 180, "stop": 0, "weigh": 0} and found["zero"]["rmse_stop"] is None
    assert found["members"]["xgboost"]["trees"] == 12


def test_presets_are_a_ladder_and_their_options_are_known():
    assert list(PRESETS) == ["extreme", "fast", "standard", "high", "published"]
    ladder = [PRESETS[name] for name in ("extreme", "fast", "standard", "high")]
    rounds = {"forest": "num_trees", "xgboost": "num_rounds", "lightgbm": "num_rounds"}
    work = [[getattr(getattr(c, m), rounds[m]) if m in c.members else 0 for m in rounds] for c in ladder]
    assert all(np.all(np.array(a) <= b) and a != b for a, b in itertools.pairwise(work)), work
    published = PRESETS["published"]
    assert dataclasses.astuple(published.forest)[:5] == (100, 10, 0.8, 10, 0.8)
    assert published.xgboost.early_stopping_rounds == 15 and published.lightgbm.early_stopping_rounds == 0
    assert (
        configured("published", {"xgboost": {"early_stopping_rounds": 42}}).xgboost.early_stopping_rounds
        == 42
    )
    for preset, options, message in (
        ("publishd", {}, "did you mean `published`"),
        ("fast", {"min_row": 3}, "did you mean `min_rows`"),
        ("fast", {"forest": {"n_estimators": 3}}, "did you mean `num_trees`"),
        ("fast", {"forest": 3}, "expected a table"),
        ("fast", {"members": []}, "one or more of"),
        ("fast", {"features": [1, 1]}, "each once"),
        ("fast", {"forest": {"max_bin": 300}}, "at most 256"),
        ("fast", {"lightgbm": {"learning_rate": 0.0}}, r"in \(0, 1\]"),
    ):
        with pytest.raises(UsageError, match=message):
            configured(preset, options)


def test_exports_what_the_libraries_read(tmp_path):
    import lightgbm
    import xgboost
    from safetensors.numpy import load_file

    data = fleet(lengths=(300,), num_horizons=2)
    (result,) = fitted(data, tmp_path, unit(0))
    files = native_files(result.model, result.native, "S0")
    assert sorted(files) == sorted(
        f"{m}_{h}{e}"
        for m, e in (("forest", ".npz"), ("lightgbm", ".txt"), ("xgboost", ".ubj"))
        for h in (0, 1)
    )
    outputs = predict_members(unpack(result.model), data.inputs)
    xgb = xgboost.Booster(model_file=bytearray(files["xgboost_1.ubj"]))
    native = xgb.predict(xgboost.DMatrix(data.inputs, nthread=1))
    np.testing.assert_allclose(outputs[:, 1, 1], native, atol=1e-6)
    native = lightgbm.Booster(model_str=files["lightgbm_1.txt"].decode()).predict(data.inputs)
    np.testing.assert_allclose(outputs[:, 1, 2], native, atol=1e-6)
    forest = np.load(io.BytesIO(files["forest_0.npz"]))
    assert len(forest["sizes"]) == 5

    to_safetensors(result.model, tmp_path / "S0.safetensors")
    arrays = load_file(tmp_path / "S0.safetensors")
    np.testing.assert_array_equal(arrays["0.forest.value"], forest["value"])
    assert {name.split(".")[0] for name in arrays} == {"0", "1"}
    with pytest.raises(DataError, match="no native formats are stored for S0"):
        native_files(result.model, b"", "S0")
    with pytest.raises(DataError, match="native models of S0 are damaged"):
        native_files(result.model, result.native[:-9], "S0")


def test_kernels_are_compiled_before_workers_need_them(tmp_path):
    from barcast.fleet.trees import forest, packed, predict

    kernels = (forest.bin_features, forest.grow_trees, packed.walk_in_preorder, predict.predict_rows)
    compile_kernels()
    known = [set(kernel.signatures) for kernel in kernels]
    assert all(known)
    fitted(fleet(), tmp_path, unit(0), unit(1, features=[1, 2]))
    assert [set(kernel.signatures) for kernel in kernels] == known


def test_native_formats_are_left_out_where_not_wanted(tmp_path):
    fleet().save(tmp_path)
    (result,) = make_fit(str(tmp_path), options=SMALL, native=False)(unit(0))
    assert result.status == "done" and result.native == b""
