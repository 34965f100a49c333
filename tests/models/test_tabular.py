import numpy as np
import pytest

from barcast.models import tabular
from barcast.models.registry import model_entry
from barcast.models.tabular import predict_rows


@pytest.mark.parametrize("name", ["ridge", "lightgbm"])
@pytest.mark.parametrize("wanted", [0, 1, 70, 333])
def test_part_by_part_says_what_the_whole_says(name, wanted, monkeypatch):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 5)).astype(np.float32)
    target = (inputs[:, :2] + rng.normal(size=(400, 2))).astype(np.float32)
    entry = model_entry(name)
    model = entry.build(entry.config(), 0)
    everyone = np.arange(400)
    model.fit(inputs, target, everyone, lambda predict: -float(np.square(target - predict(inputs)).mean()))
    rows, asked = rng.permutation(everyone)[:wanted], []
    real = model.predict

    def seen(given):
        asked.append(len(given))
        return real(given)

    monkeypatch.setattr(model, "predict", seen)
    monkeypatch.setattr(tabular, "CHUNK_ROWS", 64)
    found = predict_rows(model, inputs, rows)
    np.testing.assert_allclose(found, real(inputs[rows]), rtol=1e-12, atol=1e-12)
    assert max(asked) <= 64 and found.shape == (wanted, 2)
