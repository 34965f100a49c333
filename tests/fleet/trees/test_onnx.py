"""Trees of any shape as operators of ONNX."""

import numpy as np
import pytest

from barcast.fleet.onnx import Graph
from barcast.fleet.trees.onnx import add_ensemble
from barcast.fleet.trees.packed import Trees, combine, pack, unpack
from barcast.fleet.trees.predict import predict_members

onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install -e '.[dev]'")


def random_trees(rng, sizes, num_inputs, base=0.0, scale=1.0):
    """Trees of the given numbers of inner nodes, each of a random shape; thresholds repeat among rows."""

    def skips(size):
        if not size:
            return []
        left = int(rng.integers(0, size))
        return [left, *skips(left), *skips(size - 1 - left)]

    skip = [each for size in sizes for each in skips(size)]
    return Trees(
        np.array(sizes, np.int32), rng.integers(0, num_inputs, len(skip)).astype(np.int32),
        rng.integers(-3, 4, len(skip)).astype(np.float32), np.array(skip, np.int32),
        rng.normal(size=len(skip) + len(sizes)).astype(np.float32), base, scale,
    )  # fmt: skip


def run(tmp_path, packed, weights, constant, inputs):
    graph = Graph()
    graph.cast(add_ensemble(graph, packed, weights, constant), np.float32, "score")
    graph.write(tmp_path / "one.onnx", ("rows", inputs.shape[1]), {"score": ("rows", len(weights))}, {})
    return onnxruntime.InferenceSession(tmp_path / "one.onnx").run(None, {"inputs": inputs})[0]


@pytest.mark.parametrize(
    "weights",
    [
        [[0.3, 0.5, 0.1], [1.0, 0.0, 0.0]],
        [[0.3, 0.5, 0.1], [0.0, 0.0, 0.0]],  # a horizon in which no member counts knows every row
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
    ],
)
def test_every_shape_of_tree_and_weight(tmp_path, weights):
    rng = np.random.default_rng(3)
    horizons = [
        {"forest": random_trees(rng, [0, 1, 7, 30], 4, scale=0.25), "xgboost": random_trees(rng, [0], 4, base=0.5),
         "lightgbm": random_trees(rng, [2, 5], 4)},
        {"forest": random_trees(rng, [12], 4, base=-1.0)},
    ]  # fmt: skip
    packed = unpack(pack(horizons, 4))
    inputs = rng.integers(-4, 5, (300, 4)).astype(np.float32)  # many rows lie on a threshold
    inputs[0, 1], inputs[1, 3], inputs[2] = np.nan, -np.inf, -0.0
    weights, constant = np.array(weights), np.array([0.2, -0.1])
    expected = combine(predict_members(packed, inputs), weights, constant)
    found = run(tmp_path, packed, weights, constant, inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(found[:2]).all(axis=0).tolist() == [bool(own.any()) for own in weights]
