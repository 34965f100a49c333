"""The XGBoost member: trained by the library, one thread, then brought into flat arrays."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from barcast.core.arrays import F32, F64
from barcast.core.errors import DataError
from barcast.fleet.trees.packed import Linked, Trees
from barcast.fleet.trees.presets import XGBoostConfig


def train_xgboost(
    fit: tuple[F32, F64], stop: tuple[F32, F64] | None, config: XGBoostConfig, seed: int
) -> Any:
    """Return a ``xgboost.Booster`` that holds the rounds worth keeping.

    Parameters
    ----------
    fit, stop : pair of F32 (n, F) and F64 (n,)
        Finite rows to learn from, and to stop on; without the latter all rounds are kept.
    config : XGBoostConfig
    seed : int
        The lower 31 bits are used.
    """
    import xgboost

    parameters = {
        "objective": "reg:squarederror", "tree_method": "hist", "max_depth": config.max_depth,
        "eta": config.learning_rate, "subsample": config.subsample,
        "colsample_bytree": config.colsample_bytree, "alpha": config.reg_alpha, "lambda": config.reg_lambda,
        "min_child_weight": config.min_child_weight, "max_bin": config.max_bin, "nthread": 1,
        "seed": seed & 0x7FFFFFFF, "verbosity": 0,
    }  # fmt: skip
    # `nthread` alone leaves idle threads spinning: on two busy cores they take 35 of 49 ms
    with xgboost.config_context(nthread=1):
        # not a QuantileDMatrix: the training cuts the same bins from a plain one, in a quarter less time here
        data = xgboost.DMatrix(*fit, nthread=1)
        if stop is None or not config.early_stopping_rounds:
            return xgboost.train(parameters, data, config.num_rounds)
        judge = xgboost.DMatrix(*stop, nthread=1)
        booster = xgboost.train(
            parameters, data, config.num_rounds, evals=[(judge, "stop")], verbose_eval=False,
            early_stopping_rounds=config.early_stopping_rounds,
        )  # fmt: skip
        return booster[: booster.best_iteration + 1]


def trees_of_xgboost(booster: Any) -> Trees:
    """Bring a booster of one numeric output into flat arrays; its rule is ours: left is below the threshold.

    Raises
    ------
    DataError
        When it is of another kind: several outputs, categories, or weighted trees.
    """
    learner = json.loads(booster.save_raw("json"))["learner"]
    booster_kind, model = learner["gradient_booster"]["name"], learner["gradient_booster"]["model"]
    trees = model["trees"] if booster_kind == "gbtree" else []
    base = learner["learner_model_param"]["base_score"].strip("[]").split(",")
    if not trees or len(base) != 1 or any(tree["categories"] for tree in trees):
        raise DataError(
            f"only a `gbtree` of one numeric output is packed, this is a `{booster_kind}` of {len(base)} "
            f"outputs, {len(trees)} trees",
            "train it with objective reg:squarederror on numeric features",
        )

    def joined(key: str, kind: type[np.generic]) -> np.ndarray[Any, Any]:
        return np.concatenate([np.array(tree[key], kind) for tree in trees])

    left, right = joined("left_children", np.int64), joined("right_children", np.int64)
    starts = np.cumsum([0] + [len(tree["left_children"]) for tree in trees])
    first = np.repeat(starts[:-1], np.diff(starts))
    is_leaf = np.asarray(left < 0)
    # nodes are numbered through all trees; inner ones and leaves count for themselves
    reference = np.where(is_leaf, np.negative(np.cumsum(is_leaf)), np.cumsum(~is_leaf) - 1)
    inner = ~is_leaf
    numbers = joined("split_conditions", np.float32)
    return Linked(
        roots=reference[starts[:-1]],
        left=reference[(left + first)[inner]], right=reference[(right + first)[inner]],
        feature=joined("split_indices", np.int32)[inner], threshold=numbers[inner], value=numbers[is_leaf],
    ).flat(float(base[0]))  # fmt: skip
