import zlib

import numpy as np
import polars as pl
import pytest

from barcast.core.errors import DataError
from barcast.fleet.trees.forest import grow_forest
from barcast.fleet.trees.lightgbm import train_lightgbm, trees_of_lightgbm
from barcast.fleet.trees.packed import Trees, combine, pack, unpack
from barcast.fleet.trees.predict import predict_members
from barcast.fleet.trees.presets import ForestConfig, LightGBMConfig, XGBoostConfig
from barcast.fleet.trees.xgboost import train_xgboost, trees_of_xgboost
from tests.fleet.trees.builders import packed_of, planted

FIELDS = ("sizes", "feature", "threshold", "skip", "value")


def slow_output(trees, row):
    """Follow links spelled out from the sizes of subtrees."""
    total, node_start, leaf_start = 0.0, 0, 0
    for size in trees.sizes:

        def walk(node, leaf, size):
            if size == 0:
                return trees.value[leaf]
            left = trees.skip[node]
            if row[trees.feature[node]] < trees.threshold[node]:
                return walk(node + 1, leaf, left)
            return walk(node + 1 + left, leaf + left + 1, size - 1 - left)

        total += float(walk(node_start, leaf_start, int(size)))
        node_start, leaf_start = node_start + size, leaf_start + size + 1
    return trees.base + trees.scale * total


def sealed(words):
    """Give damaged words a checksum that fits."""
    words = words.copy()
    words[2] = zlib.crc32(words[3:].tobytes())
    return words.tobytes()


def on_thresholds(trees, x):
    """Rows whose values are thresholds, and their neighbours on both sides."""
    rows = (
        x[: len(trees.feature)].repeat(1 + len(trees.feature) // len(x), axis=0)[: len(trees.feature)].copy()
    )
    at = np.arange(len(rows)), trees.feature
    found = []
    for values in (
        trees.threshold,
        np.nextafter(trees.threshold, np.float32(-9)),
        np.nextafter(trees.threshold, np.float32(9)),
    ):
        rows[at] = values
        found.append(rows.copy())
    return np.concatenate(found)


def boosters(fit, stop, seed=0):
    import xgboost

    xgb = train_xgboost(fit, stop, XGBoostConfig(), seed)
    lgb = train_lightgbm(fit, stop, LightGBMConfig(min_data_in_leaf=20, early_stopping_rounds=5), seed)
    kept = lgb.best_iteration or None
    members = {
        "xgboost": trees_of_xgboost(xgb),
        "lightgbm": trees_of_lightgbm(lgb.model_to_string(num_iteration=kept)),
    }
    return members, lambda x: np.stack(
        [xgb.predict(xgboost.DMatrix(x, nthread=1)), lgb.predict(x, num_iteration=kept)], axis=1
    )


@pytest.mark.parametrize(("seed", "stops"), [(0, False), (1, True), (2, False)])
def test_boosters_predict_what_their_libraries_do(seed, stops):
    x, y = planted(700, 6, seed, noise=2.0)
    members, native = boosters((x[:500], y[:500]), (x[500:600], y[500:600]) if stops else None, seed)
    packed = unpack(pack([members], 6))
    for rows in (x, *(on_thresholds(trees, x) for trees in members.values())):
        np.testing.assert_allclose(predict_members(packed, rows)[:, 0, 1:], native(rows), atol=5e-6)
    assert np.isnan(predict_members(packed, x)[:, 0, 0]).all()  # there is no forest


def test_boosters_without_a_single_split():
    x, y = planted(60, 3)
    fit = x, np.full(60, 2.5) + 1e-9 * y
    members, native = boosters(fit, None)
    assert all(trees.sizes.sum() == 0 for trees in members.values())
    np.testing.assert_allclose(predict_members(unpack(pack([members], 3)), x)[:, 0, 1:], native(x), atol=1e-6)


def test_boosters_of_other_kinds_are_refused():
    import lightgbm
    import xgboost

    x, y = planted(200)
    holes = np.where(np.arange(200)[:, None] % 9 == 0, np.nan, x)
    plain = {"objective": "regression", "verbosity": -1, "num_threads": 1}
    forest = {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1}
    classes = {"objective": "multiclass", "num_class": 3}
    for inputs, target, options in (
        (x, y, forest), (x, y, {"linear_tree": True}), (holes, y, {}), (x, np.arange(200) % 3, classes),
    ):  # fmt: skip
        booster = lightgbm.train(plain | options, lightgbm.Dataset(inputs, target, params=plain | options), 3)
        with pytest.raises(DataError, match="only a boosted regression of one output"):
            trees_of_lightgbm(booster.model_to_string())
    for target, options in ((y, {"booster": "gblinear"}), (np.stack([y, y], axis=1), {})):
        with xgboost.config_context(nthread=1, verbosity=0):
            booster = xgboost.train(options | {"nthread": 1}, xgboost.DMatrix(x, target, nthread=1), 3)
        with pytest.raises(DataError, match="only a `gbtree` of one numeric output"):
            trees_of_xgboost(booster)


def test_early_stopping_keeps_the_best_rounds_only():
    x, y = planted(600, 6, 3, noise=4.0)
    fit, stop = (x[:400], y[:400]), (x[400:], y[400:])
    packed = {stops: boosters(fit, stop if stops else None)[0] for stops in (False, True)}
    for name in ("xgboost", "lightgbm"):
        assert len(packed[True][name].sizes) < len(packed[False][name].sizes)
    whole = packed[False]["xgboost"]
    rounds = len(packed[True]["xgboost"].sizes)
    errors = []
    for kept in range(1, 71):
        nodes = whole.sizes[:kept].sum()
        part = Trees(whole.sizes[:kept], whole.feature[:nodes], whole.threshold[:nodes], whole.skip[:nodes],
                     whole.value[: nodes + kept], whole.base)  # fmt: skip
        output = predict_members(unpack(pack([{"xgboost": part}], 6)), stop[0])[:, 0, 1]
        errors.append(np.mean((stop[1] - output) ** 2))
    assert rounds == 1 + int(np.argmin(errors[: rounds + 15]))


@pytest.mark.parametrize("wide", ["no", "features", "thresholds"])
def test_packs_and_reads_back_what_it_was_given(wide):
    x, y = planted(700, 300 if wide == "features" else 5, 4)
    config = ForestConfig(num_trees=12, max_depth=20, min_samples_leaf=2, max_bin=256, max_features=0.4)
    forest = grow_forest(x, y, config, 0)
    other = grow_forest(x + np.float32(1e-3), y, config, 1) if wide == "thresholds" else forest
    packed = unpack(pack([{"forest": forest, "lightgbm": other}, {"xgboost": forest}], x.shape[1]))
    assert packed.directory[0, 9] == (1 if wide == "no" else 2)
    for h, member, trees in ((0, "forest", forest), (0, "lightgbm", other), (1, "xgboost", forest)):
        found = packed.trees(h)[member]
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(found, field), getattr(trees, field))
    outputs = predict_members(packed, x)
    np.testing.assert_allclose(outputs[:20, 0, 2], [slow_output(other, row) for row in x[:20]], rtol=1e-6)
    np.testing.assert_array_equal(outputs[:, 0, 0], outputs[:, 1, 1])
    assert np.isnan(outputs[:, 0, 1]).all() and np.isnan(outputs[:, 1, [0, 2]]).all()


def test_rows_that_are_not_finite_have_no_prediction():
    x, y = planted(200)
    packed = unpack(packed_of(grow_forest(x, y, ForestConfig(num_trees=3), 0), 6))
    x[3, 5], x[7, 0] = np.nan, np.inf
    assert np.flatnonzero(np.isnan(predict_members(packed, x)[:, 0, 0])).tolist() == [3, 7]
    with pytest.raises(DataError, match="read 6 features, the rows have shape"):
        predict_members(packed, x[:, :5])


def test_any_damaged_byte_is_found():
    x, y = planted(120)
    model = packed_of(grow_forest(x, y, ForestConfig(num_trees=2), 0), 6)
    for at in range(0, len(model), 7):
        with pytest.raises(DataError, match="the packed ensemble of S1 "):
            unpack(model[:at] + bytes([model[at] ^ 0x41]) + model[at + 1 :], "S1")
    for cut in (0, 3, 12, 40, len(model) - 4):
        with pytest.raises(DataError, match="damaged"):
            unpack(model[:cut])
    with pytest.raises(DataError, match="damaged"):
        unpack(model + bytes(4))


@pytest.mark.parametrize("max_bin", [16, 256])
def test_hostile_models_are_errors_not_accesses_out_of_bounds(max_bin):
    x, y = planted(150, 300 if max_bin == 256 else 6)
    forest = grow_forest(x, y, ForestConfig(num_trees=4, min_samples_leaf=2, max_bin=max_bin), 0)
    words = np.frombuffer(packed_of(forest, x.shape[1]), "<u4")
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(1500):
        wrong = words.copy()
        at = rng.integers(3, min(len(words), 80)) if rng.random() < 0.3 else rng.integers(3, len(words))
        wrong[at] = rng.choice([0, 1, 2, 3, 0xFFFF, 2**31, 2**32 - 1, rng.integers(0, 2**32)])
        try:
            packed = unpack(sealed(wrong))
            predict_members(packed, x[:, : packed.num_inputs][:4])
            packed.trees()
        except DataError:
            refused += 1
    assert refused > 300


def test_combines_members_that_are_there():
    members = np.array([[1.0, np.nan, 3.0], [1.0, np.nan, 5.0]])
    found = combine(members, np.array([[0.5, 0.0, 0.25], [0.0, 0.0, 0.0]]), np.array([0.1, 0.2]))
    np.testing.assert_allclose(found, [1.35, 0.2])


@pytest.mark.realdata
def test_equal_on_every_row_of_real_symbols(real_data):
    frame = pl.read_parquet(real_data / "cn_a_share.parquet", columns=["symbol", "date", "close", "volume"])
    for symbol in ("000001", "000821", "002091"):
        own = frame.filter(pl.col("symbol") == symbol).sort("date")
        moves = np.diff(np.log(own["close"].to_numpy().astype(float)))
        volume = np.diff(np.log1p(own["volume"].to_numpy().astype(float)))
        x = np.stack(
            [moves[k : len(moves) - 7 + k] for k in range(6)]
            + [volume[k : len(volume) - 7 + k] for k in range(6)],
            axis=1,
        )
        x, y = np.nan_to_num(x).astype(np.float32), moves[6:-1]
        members, native = boosters((x[:720], y[:720]), (x[720:800], y[720:800]))
        outputs = predict_members(unpack(pack([members], 12)), x)[:, 0, 1:]
        np.testing.assert_allclose(outputs, native(x), atol=1e-6 * np.abs(y).max(), rtol=1e-5)
