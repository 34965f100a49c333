"""The LightGBM member: trained by the library, one thread, then brought into flat arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from barcast.core.arrays import F32, F64
from barcast.core.errors import DataError
from barcast.fleet.trees.packed import Linked, Trees
from barcast.fleet.trees.presets import LightGBMConfig

#: A node that compares numbers and knows no missing values; the second bit only says where those would go.
_PLAIN_DECISIONS = (0, 2)
_ZERO = np.float32(1e-35)


def train_lightgbm(
    fit: tuple[F32, F64], stop: tuple[F32, F64] | None, config: LightGBMConfig, seed: int
) -> Any:
    """Return a ``lightgbm.Booster``; ``best_iteration`` says how many rounds are worth keeping, 0 all.

    Parameters
    ----------
    fit, stop : pair of F32 (n, F) and F64 (n,)
        Finite rows to learn from, and to stop on; without the latter all rounds are kept.
    config : LightGBMConfig
    seed : int
        The lower 31 bits are used.
    """
    import lightgbm

    parameters = {
        "objective": "regression", "metric": "l2", "num_leaves": config.num_leaves,
        "max_depth": config.max_depth, "learning_rate": config.learning_rate,
        "feature_fraction": config.feature_fraction, "bagging_fraction": config.bagging_fraction,
        "bagging_freq": 1, "min_data_in_leaf": config.min_data_in_leaf, "max_bin": config.max_bin,
        "feature_pre_filter": False, "force_row_wise": True, "deterministic": True, "num_threads": 1,
        "seed": seed & 0x7FFFFFFF, "verbosity": -1,
    }  # fmt: skip
    data = lightgbm.Dataset(*fit, params=parameters)
    stopping: dict[str, Any] = {}
    if stop is not None and config.early_stopping_rounds:
        stopping["valid_sets"] = [data.create_valid(*stop, params=parameters)]
        stopping["callbacks"] = [lightgbm.early_stopping(config.early_stopping_rounds, verbose=False)]
    # kept as it is: the default writes the booster as text and reads it back
    return lightgbm.train(parameters, data, config.num_rounds, keep_training_booster=True, **stopping)


def trees_of_lightgbm(text: str) -> Trees:
    """Bring a booster's text into flat arrays.

    LightGBM sends a row left where its value, in double precision, is at most the threshold. For values of
    single precision that is: below the next single number above it.

    Raises
    ------
    DataError
        When it is of another kind: several outputs, an average, categories, missing values, linear leaves.
    """
    lines = [line.partition("=")[::2] for line in text.split("\nend of trees", 1)[0].splitlines()]
    found: dict[str, list[str]] = {}
    for key, value in lines:
        found.setdefault(key, []).append(value)
    decisions = np.unique(_numbers(found, "decision_type", np.int32))
    is_sum = "average_output" not in found and set(found.get("is_linear", ())) <= {"0"}
    if (
        found.get("num_tree_per_iteration") != ["1"]
        or not set(decisions) <= set(_PLAIN_DECISIONS)
        or not is_sum
    ):
        raise DataError(
            "only a boosted regression of one output on numbers is packed, without categories, missing "
            "values or linear leaves",
            "train it with boosting gbdt, objective regression, on finite numeric features",
        )
    num_leaves = np.array(found["num_leaves"], np.int64)
    leaf_start = np.cumsum(num_leaves) - num_leaves
    inner_start = leaf_start - np.arange(len(num_leaves))

    def linked(key: str) -> np.ndarray[Any, Any]:
        child = _numbers(found, key, np.int64)
        return child + np.where(child < 0, -np.repeat(leaf_start, num_leaves - 1),
                                np.repeat(inner_start, num_leaves - 1))  # fmt: skip

    return Linked(
        roots=np.where(num_leaves > 1, inner_start, -leaf_start - 1),
        left=linked("left_child"), right=linked("right_child"),
        feature=_numbers(found, "split_feature", np.int32),
        threshold=_lowest_right(_numbers(found, "threshold", np.float64)),
        value=_numbers(found, "leaf_value", np.float64).astype(np.float32),
    ).flat()  # fmt: skip


def _numbers(found: dict[str, list[str]], key: str, kind: type[np.generic]) -> np.ndarray[Any, Any]:
    return np.fromstring(" ".join(found.get(key, [])), kind, sep=" ")


def _lowest_right(threshold: F64) -> F32:
    """Return the lowest single-precision numbers that go right.

    LightGBM takes what is no further from 0 than ``_ZERO`` for 0, and cuts exactly there.
    """
    nearest = threshold.astype(np.float32)
    above = np.where(nearest > threshold, nearest, np.nextafter(nearest, np.float32(np.inf)))
    at_zero = np.where(threshold < 0, -_ZERO, np.nextafter(_ZERO, np.float32(np.inf)))
    return np.where(np.abs(threshold) <= _ZERO, at_zero, above).astype(np.float32)
