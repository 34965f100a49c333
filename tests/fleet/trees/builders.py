"""Rows with a planted rule, and fleets of them."""

import numpy as np

from barcast.fleet.data import FleetData
from barcast.fleet.trees.fit import fit_symbol
from barcast.fleet.trees.packed import pack
from barcast.fleet.trees.presets import MEMBERS, configured

SMALL = {
    "min_rows": 100,
    "forest": {"num_trees": 5, "max_depth": 4},
    "xgboost": {"num_rounds": 12, "early_stopping_rounds": 4},
    "lightgbm": {"num_rounds": 10, "min_data_in_leaf": 10},
}


def planted(num_rows, num_features=6, seed=0, noise=0.5):
    """Features, some with ties, one constant; the first three matter."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((num_rows, num_features)).astype(np.float32)
    x[:, 1] = np.round(x[:, 1], 1)
    x[:, -1] = 1.5
    y = np.sin(2 * x[:, 0]) + 0.5 * (x[:, 1] > 0.3) * x[:, 2] + noise * rng.standard_normal(num_rows)
    return x, y


def fleet(lengths=(260, 300, 220), num_features=6, num_horizons=1, seed=0):
    """Symbols of some rows each: 60 % fit, then four segments of 10 %."""
    parts = [planted(n, num_features, seed + s) for s, n in enumerate(lengths)]
    offsets = np.cumsum([0, *lengths])
    segment = [np.minimum(np.arange(n) * 10 // n - 5, 4).clip(0) for n in lengths]
    rng = np.random.default_rng(seed)
    y = np.concatenate([y for _, y in parts])
    target = np.stack([y + 0.1 * h * rng.standard_normal(len(y)) for h in range(num_horizons)], axis=1)
    return FleetData(
        tuple(f"S{s}" for s in range(len(lengths))), offsets, np.concatenate([x for x, _ in parts]),
        target.astype(np.float32), np.concatenate([np.arange(n) for n in lengths]).astype(np.int32),
        np.concatenate(segment).astype(np.int8), np.repeat(offsets[:-1], lengths),
    )  # fmt: skip


def models(data, seed=0, **options):
    """The packed ensemble of each symbol."""
    config = configured("published", SMALL, options)
    return [fit_symbol(data.one(s), config, seed)["model"] for s in range(len(data.symbols))]


def packed_of(trees, num_inputs):
    """One horizon of one member."""
    return pack([{MEMBERS[0]: trees}], num_inputs)
