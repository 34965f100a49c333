"""Every registered feature against the slow reference, on random and on nasty series."""

import numpy as np
import pytest

from barcast.features import compute_features, feature_set, feature_sets
from tests.conftest import make_bars
from tests.features.conftest import SERIES
from tests.features.reference import SETS, reference

ALL = [made.name for made in feature_sets()]


def test_reference_covers_every_registered_set():
    assert set(ALL) == set(SETS)
    for made in feature_sets():
        assert made.names == tuple(SETS[made.name])
        assert made.warmup.tolist() == [warmup for warmup, _ in SETS[made.name].values()]


@pytest.mark.parametrize("kind", SERIES)
@pytest.mark.parametrize("name", ("tech48", "adv11_official", "ohlcv5"))
def test_equals_slow_reference(name, kind):
    bars = SERIES[kind]()
    made = feature_set(name)
    found = compute_features(bars, made)
    with np.errstate(all="ignore"):
        expected = reference(name, bars)
    for j, feature in enumerate(made.features):
        where = f"{feature.name}, {kind}"
        np.testing.assert_allclose(found[:, j], expected[:, j], rtol=2e-6, atol=2e-6, err_msg=where)


@pytest.mark.parametrize("name", ("tech_close", "core12", "adv11"))
def test_smaller_sets_equal_slow_reference(name):
    bars = make_bars((180, 70, 5), seed=11, holes=((0, 100, 130),))
    found = compute_features(bars, feature_set(name))
    np.testing.assert_allclose(found, reference(name, bars), rtol=2e-6, atol=2e-6)
