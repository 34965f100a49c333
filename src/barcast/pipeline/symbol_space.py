"""What a search for one symbol's own model may vary: options that ``--symbol-config`` takes.

::

    features = [["ret_1", "ret_5"], ["ret_1", "ret_5", "vol_20"]]
    xgboost.max_depth = [2, 3, 4]
    xgboost.learning_rate = { low = 0.02, high = 0.3, log = true }
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from barcast.core.config import load_toml, nearest
from barcast.core.errors import UsageError
from barcast.fleet.data import SymbolData
from barcast.fleet.trees.presets import MEMBERS, EnsembleConfig, configured
from barcast.pipeline.fleet_engine import checked_features, engine_of
from barcast.pipeline.settings import RunConfig
from barcast.tuning.space import Parameter, Space, read_parameter

#: The table of `Space.by_owner` that holds all of them.
OWNER = "symbol"
_FOREST = {"max_depth": [4, 6, 8, 10], "min_samples_leaf": [10, 30, 50, 100]}
_RATE = {"low": 0.02, "high": 0.3, "log": True}
_TREES: dict[str, dict[str, Any]] = {
    "forest": _FOREST,
    "xgboost": {"max_depth": [2, 3, 4, 5], "num_rounds": [50, 100, 200], "learning_rate": _RATE},
    "lightgbm": {"num_leaves": [4, 7, 15, 31], "num_rounds": [50, 100, 200], "learning_rate": _RATE},
}
_NETWORK: dict[str, Any] = {
    "hidden_size": [16, 32, 64],
    "num_layers": [1, 2],
    "lr": {"low": 1e-3, "high": 1e-2, "log": True},
    "batch_size": [240, 480, 960],
    "dropout": {"low": 0.0, "high": 0.4},
    "weight_decay": {"low": 1e-3, "high": 0.1, "log": True},
}
#: Numbers of columns beside all of them.
_NUM_COLUMNS = (8, 4)


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """The option of a symbol that names columns."""

    features: tuple[str, ...] = ()


def symbol_space(
    config: RunConfig, data: SymbolData, columns: Sequence[str], fixed: set[str], file: Path | None
) -> Space:
    """Return the user's space, or that of the kind of fleet, without the options that are fixed.

    Raises
    ------
    UsageError
        On a name that a symbol's options do not have, a value that no fit could read, or nothing left.
    """
    where = str(file) if file else f"space of {config.model}"
    tables = load_toml(file) if file else _default(config, data, columns)
    kinds = _kinds(config)
    parameters = []
    for name, told in _flat(tables).items():
        owner, _, option = name.rpartition(".")
        kind = "columns" if name == "features" else owner
        if kind not in kinds or option not in {each.name for each in fields(kinds[kind])}:
            raise UsageError(f"{where}: `{name}` cannot be tuned", nearest(name, _names(kinds)))
        if name in fixed:
            continue
        found = read_parameter(option, kind, kinds, told, f"{where}: {name}")
        parameters.append(replace(found, name=name, owner=OWNER))
    if not parameters:
        raise UsageError(f"{where}: nothing is left to vary", "leave an option out of the command")
    _check_values(config, data.symbol, columns, parameters)
    return Space(tuple(parameters))


def own_table(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by dotted name as a table of ``--symbol-config``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        owner, _, option = name.rpartition(".")
        (found.setdefault(owner, {}) if owner else found)[option] = value
    return found


def _kinds(config: RunConfig) -> dict[str, type]:
    if config.model == "fleet-trees":
        whole = EnsembleConfig()
        return {"columns": _Columns, **{name: type(getattr(whole, name)) for name in MEMBERS}}
    from barcast.fleet.networks.presets import NetworkPreset  # local: networks bring torch along

    return {"columns": _Columns, "": NetworkPreset}


def _names(kinds: Mapping[str, type]) -> list[str]:
    return [
        f"{owner}.{each.name}" if owner in MEMBERS else each.name
        for owner, kind in kinds.items()
        for each in fields(kind)
    ]


def _flat(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of each option by its dotted name."""
    found: dict[str, Any] = {}
    for name, told in tables.items():
        if name in MEMBERS and isinstance(told, Mapping):
            found |= {f"{name}.{option}": values for option, values in told.items()}
        else:
            found[name] = told
    return found


def _default(config: RunConfig, data: SymbolData, columns: Sequence[str]) -> dict[str, Any]:
    choices: dict[str, Any] = {"features": _column_choices(data, columns)}
    if len(choices["features"]) < 2:
        del choices["features"]
    if config.model != "fleet-trees":
        return choices | _NETWORK
    members = configured(config.options.preset).members
    return choices | {name: table for name, table in _TREES.items() if name in members}


def _column_choices(data: SymbolData, columns: Sequence[str]) -> list[list[str]]:
    """Return all columns, and the few whose ranks go most with the target's in `fit`."""
    strength = np.zeros(len(columns))
    for h in range(data.target.shape[1]):
        rows = data.labelled("fit", h)
        inputs = np.asarray(data.inputs[rows, : len(columns)], np.float64)
        strength += np.abs(_rank_correlations(inputs, data.y(rows, h)))
    order = np.argsort(-strength, kind="stable")
    chosen = [np.sort(order[:num]) for num in _NUM_COLUMNS if num < len(columns)]
    return [list(columns), *([columns[place] for place in own] for own in chosen)]


def _rank_correlations(inputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of each column (n, F) with ``y`` (n,); 0 where one does not change."""
    ranks = np.column_stack([inputs, y]).argsort(axis=0, kind="stable").argsort(axis=0).astype(np.float64)
    ranks -= ranks.mean(axis=0)
    varies = np.ptp(inputs, axis=0) > 0
    found = ranks[:, :-1].T @ ranks[:, -1] / max(float((ranks[:, -1] ** 2).sum()), 1.0)
    return np.where(varies, found, 0.0)


def _check_values(
    config: RunConfig, symbol: str, columns: Sequence[str], parameters: Sequence[Parameter]
) -> None:
    engine = engine_of(config.model)
    for parameter in parameters:
        for value in parameter.ends():
            own = own_table({parameter.name: value})
            engine.check(config.options, checked_features(own, columns, config.data.features, symbol))
