"""Fits the ensemble of one symbol: members on `fit`, early stopping on `stop`, seeds by name."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from barcast.core.arrays import F32, F64, I64
from barcast.core.errors import BarcastError, DataError
from barcast.fleet.data import FleetData, SymbolData
from barcast.fleet.trees.forest import grow_forest
from barcast.fleet.trees.lightgbm import train_lightgbm, trees_of_lightgbm
from barcast.fleet.trees.native import LIGHTGBM_FILE, XGBOOST_FILE, zipped
from barcast.fleet.trees.packed import Linked, Trees, pack, unpack
from barcast.fleet.trees.predict import predict_members
from barcast.fleet.trees.presets import MEMBERS, EnsembleConfig, ForestConfig, MemberName, configured
from barcast.fleet.trees.seeds import seed_of
from barcast.fleet.trees.xgboost import train_xgboost, trees_of_xgboost
from barcast.fleet.work import TRY_AGAIN, SymbolResult, Unit

#: Segments whose errors of each member are kept with the model.
_JUDGED = ("stop", "weigh")
_UNIVERSAL = "served by the universal model"


def make_fit(
    folder: str, seed: int = 0, options: Mapping[str, Any] | None = None, native: bool = True
) -> EnsembleFit:
    """Make the fit of a worker.

    Parameters
    ----------
    folder : str
        Where :meth:`FleetData.save` wrote the rows.
    seed : int
        Of the fleet; a symbol's draws follow from it and from the symbol's name.
    options : mapping, optional
        Overrides of the presets for all symbols; those of a unit come after.
    native : bool
        Whether the boosters are kept in their libraries' formats as well, for export.
    """
    _load_libraries()  # a second or two that belong to the worker, not to its first symbol
    return EnsembleFit(FleetData.map(Path(folder)), seed, options or {}, native)


def _load_libraries() -> None:
    """Bring in what every fit uses: compiled kernels and both boosting libraries."""
    import lightgbm  # noqa: F401
    import xgboost  # noqa: F401

    compile_kernels()


def compile_kernels() -> None:
    """Compile what fits and predictions run, in the parent: workers then load it instead of all compiling."""
    rows, target = np.arange(8, dtype=np.float32).reshape(4, 2), np.arange(4.0)
    forest = grow_forest(rows, target, ForestConfig(num_trees=1, min_samples_leaf=1), 0)
    none = np.zeros(0, np.int64)
    single = np.zeros(1, np.float32)
    leaf = Linked(np.array([-1]), none, none, none.astype(np.int32), single[:0], single).flat()
    predict_members(unpack(pack([{"forest": forest, "xgboost": leaf}], 2)), rows)


class EnsembleFit:
    """Fits units of one or more symbols, each on its own; see :class:`Fit`."""

    def __init__(self, data: FleetData, seed: int, options: Mapping[str, Any], native: bool) -> None:
        self.data = data
        self.seed = seed
        self.options = options
        self.native = native

    def __call__(self, unit: Unit) -> list[SymbolResult]:
        """Fit each symbol of the unit; what goes wrong with one is its result."""
        return [self._fit(unit, position) for position in unit.positions]

    def _fit(self, unit: Unit, position: int) -> SymbolResult:
        began = time.perf_counter()
        data = self.data.one(position)
        try:
            config = configured(unit.preset, self.options, unit.options)
            found = fit_symbol(data, config, self.seed, self.native)
        except BarcastError as error:
            found = {"status": "failed", "reason": error.found, "todo": error.todo}
        except Exception as error:  # a library's own: one symbol must not end thousands
            found = {"status": "failed", "reason": f"{type(error).__name__}: {error}", "todo": TRY_AGAIN}
        return SymbolResult(data.symbol, unit.preset, seconds=time.perf_counter() - began, **found)


def fit_symbol(data: SymbolData, config: EnsembleConfig, seed: int, native: bool = True) -> dict[str, Any]:
    """Fit all members on all horizons of one symbol.

    Returns
    -------
    dict
        The fields of :class:`SymbolResult` that a finished symbol has: ``metrics["horizons"]`` holds, a
        horizon, the rows of each segment and, a member, its trees, seconds, and root mean squared errors on
        `stop` and `weigh` (None where there are no rows), beside those of zero; all in units of the target.

    Raises
    ------
    DataError
        When the symbol has too few training rows, a constant target, inputs that are not finite, or fewer
        features than asked.
    """
    columns = _columns(data, config)
    packed: list[dict[MemberName, Trees]] = []
    files: dict[str, bytes] = {}
    rows, seconds = [], []
    for h in range(data.target.shape[1]):
        rows.append({name: data.labelled(name, h) for name in ("fit", *_JUDGED)})
        _check_rows(data, rows[h], h, config.min_rows, columns)
        trainer = _Trainer(data, rows[h], h, columns, config, seed)
        packed.append(
            {name: _whole(trainer.train(name), columns) for name in MEMBERS if name in config.members}
        )
        seconds.append(trainer.seconds)
        files |= {f"{name}_{h}{suffix}": text for (name, suffix), text in trainer.files.items()}
    model = pack(packed, data.inputs.shape[1])
    return {
        "status": "done", "num_rows": min(len(r["fit"]) for r in rows), "model": model,
        "native": zipped(files) if native else b"",
        "metrics": {"horizons": _metrics(data, model, rows, packed, seconds)},
    }  # fmt: skip


class _Trainer:
    """Trains the members of one horizon, and keeps what they took."""

    def __init__(
        self, data: SymbolData, rows: Mapping[str, I64], horizon: int, columns: I64, config: EnsembleConfig,
        seed: int,
    ) -> None:  # fmt: skip
        self.config = config
        self.fit, self.stop = (
            (np.ascontiguousarray(data.inputs[rows[name]][:, columns]), data.y(rows[name], horizon))
            for name in ("fit", "stop")
        )
        self.names = (data.symbol, horizon)
        self.seed = seed
        self.seconds: dict[MemberName, float] = {}
        self.files: dict[tuple[str, str], bytes] = {}

    def train(self, name: MemberName) -> Trees:
        began = time.perf_counter()
        trees = self._train(name, seed_of(self.seed, *self.names, name))
        self.seconds[name] = time.perf_counter() - began
        return trees

    def _train(self, name: MemberName, seed: int) -> Trees:
        stop = self.stop if len(self.stop[0]) else None
        if name == "forest":
            return grow_forest(*self.fit, self.config.forest, seed)
        if name == "xgboost":
            booster = train_xgboost(self.fit, stop, self.config.xgboost, seed)
            self.files[XGBOOST_FILE] = bytes(booster.save_raw("ubj"))
            return trees_of_xgboost(booster)
        booster = train_lightgbm(self.fit, stop, self.config.lightgbm, seed)
        text = booster.model_to_string(num_iteration=booster.best_iteration or None)
        self.files[LIGHTGBM_FILE] = text.encode()
        return trees_of_lightgbm(text)


def _columns(data: SymbolData, config: EnsembleConfig) -> I64:
    num_inputs = data.inputs.shape[1]
    columns = np.array(config.features or range(num_inputs), np.int64)
    if columns.max() >= num_inputs:
        raise DataError(
            f"feature {columns.max()} asked, the rows have {num_inputs}, counted from 0",
            "mend `features` of this symbol, or train the fleet on more features",
        )
    return columns


def _whole(trees: Trees, columns: I64) -> Trees:
    """Count features among all columns of the rows, not among those used."""
    return Trees(
        trees.sizes, columns[trees.feature].astype(np.int32), trees.threshold, trees.skip, trees.value,
        trees.base, trees.scale,
    )  # fmt: skip


def _check_rows(data: SymbolData, rows: Mapping[str, I64], horizon: int, min_rows: int, columns: I64) -> None:
    taught = rows["fit"]
    if len(taught) < min_rows:
        raise DataError(f"too short: {len(taught)} of {min_rows} training rows", _UNIVERSAL)
    if np.ptp(data.y(taught, horizon)) == 0:
        raise DataError(
            f"constant target: {data.y(taught, horizon)[0]:g} on all {len(taught)} training rows", _UNIVERSAL
        )
    for name, own in rows.items():
        bad = np.argwhere(~np.isfinite(data.inputs[own][:, columns]))
        if len(bad):
            row, column = own[bad[0, 0]], columns[bad[0, 1]]
            raise DataError(
                f"inputs that are not finite: {len(np.unique(bad[:, 0]))} of {len(own)} rows of `{name}`, "
                f"first at session {data.session[row]}, feature {column}",
                "give 0 where an input is missing, as its validity says",
            )


def _metrics(
    data: SymbolData, model: bytes, rows: list[dict[str, I64]], members: list[dict[MemberName, Trees]],
    seconds: list[dict[MemberName, float]],
) -> list[dict[str, Any]]:  # fmt: skip
    judged = np.unique(np.concatenate([own[name] for own in rows for name in _JUDGED]))
    predicted = predict_members(unpack(model), np.asarray(data.inputs[judged], np.float32))
    metrics = []
    for h, own in enumerate(rows):
        known = {name: data.y(own[name], h) for name in _JUDGED}
        of_members: dict[str, dict[str, Any]] = {}
        for member, trees in members[h].items():
            output = predicted[:, h, MEMBERS.index(member)]
            of_members[member] = {
                "trees": len(trees.sizes), "nodes": len(trees.feature), "seconds": seconds[h][member],
            }  # fmt: skip
            for name in _JUDGED:
                error = known[name] - output[np.searchsorted(judged, own[name])]
                of_members[member][f"rmse_{name}"] = _rmse(error)
        metrics.append(
            {
                "rows": {name: len(positions) for name, positions in own.items()},
                "zero": {f"rmse_{name}": _rmse(known[name]) for name in _JUDGED},
                "members": of_members,
            }
        )
    return metrics


def _rmse(error: F64) -> float | None:
    return float(np.sqrt(np.mean(error * error))) if len(error) else None


def predictions(data: SymbolData, model: bytes, rows: I64) -> F64:
    """Predict rows (by position) of a symbol by its members: shape (n, H, K), see ``predict_members``."""
    inputs: F32 = np.asarray(data.inputs[rows], np.float32)
    return predict_members(unpack(model, data.symbol), inputs, data.symbol)
