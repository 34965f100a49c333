"""``barcast.load``: a finished run as an object, for whoever goes on with it in Python.

Letters: B batch, L look-back, F inputs (features and validity), H horizons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from barcast.core.arrays import F32, F64, I64
from barcast.core.errors import RunError, UsageError
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.features import FeatureSet
from barcast.models.heads import head_of
from barcast.models.registry import model_entry
from barcast.pipeline.attributes import attribute_values, identity_codes, sizes_of
from barcast.pipeline.dataset import embedding_index, run_features
from barcast.pipeline.fleet_engine import engine_of, look_back_of
from barcast.pipeline.settings import RunConfig, from_run
from barcast.pipeline.unfinished import check_done
from barcast.store import MarketStore
from barcast.store.names import read_names
from barcast.windows.normalise import FittedScaler

Normalisation = Literal["session", "fitted", "window"]


@dataclass(frozen=True)
class LoadedRun:
    """A trained model with everything that its inputs were made by.

    Attributes
    ----------
    name : str
        The run.
    workspace : Workspace
        Where it rests; its store knows the attributes of symbols, where the network reads any.
    config : RunConfig
        As recorded.
    module : torch.nn.Module or TabularModel
        With the run's weights; a network in eval mode, in float32 on the CPU.
    vocabulary : mapping of str to int
        Embedding row of each symbol that has its own; row 0 is everybody else.
    attributes : mapping of str to tuple of str
        Known values of each attribute (industry, exchange, ...) that the network reads, in order.
    features : tuple of str
        Columns of the inputs, in order; a validity column (share of features present) follows the last.
    normalisation : str
        ``session``: z-scores within the session over the symbols that the run was trained on, clipped at 5;
        ``fitted``: by ``scaler``; ``window``: log prices and log volume measured within the window.
    scaler : FittedScaler or None
        Constants fitted on `fit`; None for the other two normalisations, which have none.
    look_back_window : int
        L: own bars that a forecast reads; 1 for models that see one row at a time.
    horizons : tuple of int
        What the outputs are about, in order.
    """

    name: str
    workspace: Workspace
    config: RunConfig
    module: Any
    vocabulary: Mapping[str, int]
    attributes: Mapping[str, tuple[str, ...]]
    features: tuple[str, ...]
    normalisation: Normalisation
    scaler: FittedScaler | None
    look_back_window: int
    horizons: tuple[int, ...]

    @property
    def is_network(self) -> bool:
        """Whether ``module`` is a ``torch.nn.Module``; else it is a tabular model (ridge, lightgbm)."""
        return model_entry(self.config.model).kind == "network"

    def index(self, symbols: str | Sequence[str | None]) -> I64:
        """Return embedding rows of symbols, 0 for those of the store that the network never saw.

        Parameters
        ----------
        symbols : sequence of str or None, length B
            In any spelling that an import reads, or a single name; "" or None is somebody unknown.

        Returns
        -------
        I64, shape (B,)
            Or (B, 1 + A) where the network reads A attributes.

        Raises
        ------
        SymbolError
            On names that are no symbols, or that neither the network nor the store knows.
        """
        store = MarketStore.open(self.workspace.market)
        asked = [symbols] if isinstance(symbols, str) else symbols
        texts, found = [symbol or "" for symbol in asked], {}
        if others := {*texts} - {""} - self.vocabulary.keys():
            stored = tuple(sorted({*self.vocabulary, *store.symbols()}))
            found = read_names(sorted(others), stored, store.meta.market)
        names = tuple(found.get(text, text) for text in texts)
        values = attribute_values(store, tuple(self.attributes), names)
        return identity_codes(embedding_index(names, tuple(self.vocabulary)), values, self.attributes)

    def predict(self, inputs: F32 | F64, symbol: str | Sequence[str | None] | I64 | None = ()) -> F64:
        """Return raw scores, the ``score`` of the predictions table.

        Parameters
        ----------
        inputs : shape (B, L, F), or (B, F) for a tabular model
            Normalised values, missing ones 0, validity last; rows before a symbol's first bar are 0. A
            network takes windows shorter or longer than L too, but was trained and calibrated on L.
        symbol : str, sequence of str or None, or integers as `index` gives them
            Who each window belongs to, by name or by embedding row; a single name is that of every window,
            "" or None is somebody unknown. A tabular model asks for none.

        Returns
        -------
        F64, shape (B, H)
            One score a horizon; only their order within a session has a meaning.

        Raises
        ------
        UsageError
            On inputs of another shape or with NaN, not as many symbols as windows, or rows that the
            embedding lacks.
        SymbolError
            As for `index`.
        """
        shape, wide = np.shape(inputs), len(self.features) + 1
        wanted = ("B", "L", wide) if self.is_network else ("B", wide)
        if len(shape) != len(wanted) or shape[-1] != wide:
            raise UsageError(
                f"`{self.name}` reads inputs ({', '.join(map(str, wanted))}), got {shape}",
                "its columns are `features` and then the validity",
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
            values = np.asarray(inputs, np.float32)
        if num_broken := int((~np.isfinite(values)).sum()):
            raise UsageError(
                f"{num_broken:,} of {values.size:,} inputs are NaN or infinite",
                "missing values must be 0, as in training; the last column, the validity, tells of them",
            )
        if not self.is_network:
            return np.asarray(self.module.predict(values), np.float64)
        return self._through(values, symbol)

    def _through(self, inputs: F32, symbol: str | Sequence[str | None] | I64 | None) -> F64:
        import torch

        rows = self._rows_of([symbol] * len(inputs) if symbol is None or isinstance(symbol, str) else symbol)
        if len(rows) != len(inputs):
            raise UsageError(f"{len(inputs)} windows and {len(rows)} symbols", "name one symbol a window")
        with torch.no_grad():
            outputs = self.module(torch.from_numpy(inputs), torch.from_numpy(rows), 1)[:, 0]
        scores = head_of(self.config.data.target).scores(outputs.numpy())
        return np.asarray(scores, np.float64)

    def _rows_of(self, symbol: Sequence[str | None] | I64) -> I64:
        """Return embedding rows, given or looked up by name.

        Raises
        ------
        UsageError
            On anything but names or rows that there are.
        """
        given = np.asarray(symbol, object)
        if given.ndim == 1 and all(one is None or isinstance(one, str) for one in given):
            return self.index(given.tolist())
        top = np.array([len(self.vocabulary), *sizes_of(self.attributes)])  # of each column
        width = (len(top),) if self.attributes else ()
        whole = all(isinstance(one, int | np.integer) and not isinstance(one, bool) for one in given.flat)
        if not whole or given.ndim == 0 or given.shape[1:] != width:
            raise UsageError(
                f"`symbol` is neither names nor embedding rows of shape {('B', *width)}",
                "name one symbol a window, or take the rows that `index` gives",
            )
        rows = given.astype(np.int64)
        if ((rows < 0) | (rows > top)).any():
            raise UsageError(
                f"embedding rows from {rows.min()} to {rows.max()}; "
                f"`{self.name}` has 0 to {', '.join(map(str, top))}",
                "take the rows that `index` gives; 0 is somebody unknown",
            )
        return rows


def load(workspace: Workspace, run: RunFolder) -> LoadedRun:
    """Load a finished run.

    Raises
    ------
    RunError
        When it is not finished, a fleet or routed, or its weights are missing, damaged, of another shape or
        not numbers.
    """
    check_done(run)
    check_one_model(run)
    config, state = from_run(run.read("config.json")), run.read("state.json")
    features = run_features(run, state["feature_set"])
    scaler = state["scaler"]
    return LoadedRun(
        name=run.name,
        workspace=workspace,
        config=config,
        module=load_model(run, config, state),
        vocabulary={symbol: row for row, symbol in enumerate(state["vocabulary"], start=1)},
        attributes={name: tuple(values) for name, values in state.get("attributes", {}).items()},
        features=tuple(state["features"]),
        normalisation=_normalisation(features, scaler),
        scaler=None if scaler is None else FittedScaler(np.array(scaler["mean"]), np.array(scaler["std"])),
        look_back_window=look_back_of(config),
        horizons=config.data.horizons,
    )


def check_one_model(run: RunFolder) -> None:
    """Refuse a run that is many models, or two runs, where a single network or tabular model is read.

    Raises
    ------
    RunError
        With what to ask instead.
    """
    if model_entry(str(run.info["model"])).kind == "fleet":
        raise RunError(
            f"`{run.name}` has a model for each symbol: there is no single one to look into",
            f"barcast fleet status --run {run.name}, or barcast fleet show SYMBOL",
        )
    check_not_routed(run)


def check_not_routed(run: RunFolder) -> None:
    """Refuse a routed run where only the two that it is made of can answer (`RunError` with their names)."""
    if model_entry(str(run.info["model"])).kind == "routed":
        options = from_run(run.read("config.json")).options
        raise RunError(
            f"`{run.name}` is made of two runs and has no weights of its own",
            f"name one of them: {options.universal} or {options.fleet}",
        )


def _normalisation(features: FeatureSet, scaler: object) -> Normalisation:
    if features.window_normalised:
        return "window"
    return "session" if scaler is None else "fitted"


def check_whole(run: RunFolder) -> None:
    """Refuse a finished run whose weights or predictions somebody removed.

    Raises
    ------
    RunError
        With the command that makes them again.
    """
    for what, path in (("weights", run.weights), ("predictions", run.predictions)):
        check_there(run, path, what)


def check_there(run: RunFolder, path: Path, what: str) -> None:
    """Refuse a run without one of its files; otherwise as `check_whole`."""
    if path.is_file():
        return
    command = str(run.recorded.get("command", ""))
    again = (
        f"{command.removesuffix(' --fresh')} --fresh"
        if " train" in command
        else "train it again with --fresh"
    )
    raise RunError(
        f"the {what} of `{run.name}` cannot be used: no file {path}", f"restore its folder, or {again}"
    )


def load_model(run: RunFolder, config: RunConfig, state: Mapping[str, Any]) -> Any:
    """Return a run's network, in eval mode on the CPU, tabular model or fleet, with the run's weights.

    Raises
    ------
    RunError
        When the weights are missing, damaged, of another shape or not numbers.
    """
    from barcast.training.checkpoint import load_arrays
    from barcast.training.networks import load_network

    entry = model_entry(config.model)
    check_not_routed(run)
    if entry.kind == "fleet":
        return engine_of(config.model).served(run)
    check_there(run, run.weights, "weights")
    try:
        arrays = load_arrays(run.weights)
        if entry.kind == "tabular":
            model = entry.build(config.options, config.seed)
            model.load(arrays)
        else:
            num_outputs = len(config.data.horizons) * head_of(config.data.target).width
            sizes = (len(state["features"]) + 1, len(state["vocabulary"]), num_outputs)
            attributes = sizes_of(state.get("attributes", {}))
            model = load_network(entry, config.options, *sizes, run.weights, attributes, config.num_seeds)
    except RunError:
        raise
    except Exception as error:  # each library has its own word for damage
        raise RunError(
            f"the weights of `{run.name}` cannot be used: {error}",
            "restore its folder, or train it again with --fresh",
        ) from error
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise RunError(
            f"the weights of `{run.name}` are not all numbers: {', '.join(broken[:3])}",
            "train again with a lower --lr",
        )
    return model
