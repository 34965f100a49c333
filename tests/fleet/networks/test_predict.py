"""Predictions of many symbols at once are those of each one's plain windows."""

import dataclasses

import numpy as np
import pytest
import torch

from barcast.core.errors import RunError
from barcast.fleet.networks import predict
from barcast.fleet.networks.lessons import Scaler
from barcast.fleet.networks.packing import Packed, pack, unpack
from barcast.fleet.networks.predict import predict_packed, predict_rows
from barcast.fleet.networks.stacked import Shape, forward
from tests.fleet.networks.builders import as_module, market


def _network(seed, kind="lstm", width=6, layers=1, look_back=7, clipped=True) -> Packed:
    shape = Shape(kind, width, layers, 4, 2)
    rng = np.random.default_rng(seed)
    mean, scale = (rng.uniform(0.2, 0.5, 4).astype(np.float32) for _ in range(2))
    scaler = Scaler(mean, scale, np.array([0.02, 3.0], np.float32), clipped)
    return Packed(shape, look_back, scaler, shape.initial(seed).numpy())


def _by_hand(network, data, rows):
    """One window after the other through torch's own layers; NaN before the life's first bar."""
    module, found = as_module(network), []
    for row in rows:
        window = np.full((network.look_back, 4), np.nan, np.float32)
        first = max(row - network.look_back + 1, data.life_start[row])
        window[network.look_back - (row + 1 - first) :] = data.inputs[first : row + 1]
        with torch.no_grad():
            found.append(module(torch.from_numpy(window)[None])[0].numpy())
    return np.array(found).reshape(-1, 2)


@pytest.mark.parametrize("chunk", [512, 5], ids=["one chunk", "many chunks"])
def test_every_row_is_its_plain_window(chunk, monkeypatch):
    monkeypatch.setattr(predict, "CHUNK_WINDOWS", chunk)
    market_ = market()
    networks = [
        _network(0), _network(1, layers=2), _network(2, "gru"), _network(3), _network(4, width=40, clipped=False),
    ]  # fmt: skip
    data = [market_.one(p) for p in range(5)]
    rows = [
        np.array([0, 3, 149]),
        np.array([39, 40, 41, 46, 47, 219]),
        np.arange(20, 40),
        np.array([100]),
        np.array([], int),
    ]
    rows[4] = np.array([199, 2])  # in no order
    found = predict_rows(networks, data, rows)
    for network, own, wanted, outputs in zip(networks, data, rows, found, strict=True):
        np.testing.assert_allclose(outputs, _by_hand(network, own, wanted), rtol=1e-4, atol=1e-6)
    packed = predict_packed([pack(network) for network in networks], data, rows)
    assert all(np.array_equal(a, b) for a, b in zip(found, packed, strict=True))


def test_no_rows_give_no_outputs_and_no_symbols_none():
    data = market().one(0)
    empty = predict_rows([_network(0), _network(1)], [data, data], [np.array([], int), np.array([7])])
    assert empty[0].shape == (0, 2) and empty[1].shape == (1, 2)
    assert predict_rows([], [], []) == []


def test_the_first_prediction_of_a_stretch_is_that_of_the_window():
    data, network = market().one(0), _network(5)
    inputs = torch.from_numpy(network.scaler.inputs(data.inputs[50:80]))[None, :, None]
    views = network.shape.views(torch.from_numpy(network.weights)[None])
    stretch = forward(network.shape, views, inputs, 30 - 6)[0, 0, 0].numpy() * network.scaler.target
    np.testing.assert_allclose(stretch, predict_rows([network], [data], [np.array([56])])[0][0], rtol=1e-5)


def test_predictions_see_nothing_after_their_row():
    data, network = market().one(0), _network(6)
    later = dataclasses.replace(data, inputs=data.inputs.copy())
    later.inputs[101:] = 50
    rows = np.array([99, 100])
    one, other = (predict_rows([network], [each], [rows])[0] for each in (data, later))
    assert np.array_equal(one, other)


def test_packing_keeps_everything_and_is_small():
    network = _network(7, "gru", layers=2)
    again = unpack(pack(network))
    assert (again.shape, again.look_back, again.scaler.clipped) == (network.shape, 7, True)
    assert np.array_equal(again.weights, network.weights)
    wide = Shape("lstm", 64, 1, 13, 1)
    packed = pack(dataclasses.replace(network, shape=wide, weights=wide.initial(0).numpy()))
    assert len(packed) < 85_000


@pytest.mark.parametrize("spoil", [lambda b: b[:50], lambda b: b"nothing", lambda b: b"", lambda b: b[:-8]])
def test_bytes_that_are_no_network_are_refused(spoil):
    with pytest.raises(RunError, match="cannot be read"):
        unpack(spoil(pack(_network(0))))
