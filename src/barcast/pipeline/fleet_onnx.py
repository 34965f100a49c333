"""One symbol's forecast as a file for ONNX: its model, the members' weights and the calibration in one graph.

Inputs are those of the run's own rows: session statistics need the whole market and cannot be in one
symbol's file. What it takes to make them, and what the outputs are, stands in the file's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from barcast.core.runs import RunFolder
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.onnx import Graph
from barcast.pipeline.fleet_origins import model_taught_until
from barcast.pipeline.fleet_weights import weighed_model
from barcast.pipeline.record import load_maps
from barcast.pipeline.settings import RunConfig

SCORE, Y_HAT = "score", "y_hat"
_UNITS = {
    SCORE: "raw output, in units of the training target: only its order within a session has a meaning",
    Y_HAT: "expected log return from entry to exit, a fraction",
}
_NORMALISED = {
    "session": "z-scores within the session over the run's universe, clipped at 5, 0 where missing; the last "
    "column is the share of features that are present",
    "fitted": "(value - mean) / std of `scaler`, clipped at 5, 0 where missing; the last column is the share "
    "of features that are present",
}
#: What is read of rows that are not whole.
_MISSING = {
    "fleet-trees": "a row with an input that is not finite has no score (NaN)",
    "fleet-networks": "rows before the symbol's first bar, or its first after a long hole, are NaN",
}


def write_onnx(run: RunFolder, config: RunConfig, symbol: str, path: Path) -> None:
    """Write the forecast of one symbol of a finished fleet.

    Raises
    ------
    UsageError
        When the symbol has no model of its own, or the package onnx is not installed.
    """
    graph, maps = Graph(), load_maps(run)
    with Ledger.open(run.fleet / LEDGER) as ledger:
        add = _add_trees if config.model == "fleet-trees" else _add_network
        scores, look_back = add(graph, ledger, symbol)
    slopes = graph.constant([each.slope for each in maps], np.float64)
    scores = graph.cast(scores, np.float64)
    graph.cast(scores, np.float32, SCORE)
    graph.cast(graph.add("Mul", scores, slopes), np.float32, Y_HAT)
    facts = _facts(run, config, symbol)
    facts["sigma"] = [
        f"horizon {each.horizon}: {each.width} * volatility a bar * sqrt({each.horizon})" for each in maps
    ]
    rows: tuple[str | int, ...] = ("rows", len(facts["columns"]))
    if look_back:
        rows, facts["look_back_window"] = ("rows", look_back, len(facts["columns"])), look_back
    graph.write(path, rows, dict.fromkeys((SCORE, Y_HAT), ("rows", len(maps))), facts)


def _add_trees(graph: Graph, ledger: Ledger, symbol: str) -> tuple[str, int]:
    from barcast.fleet.trees.onnx import add_ensemble
    from barcast.fleet.trees.packed import unpack

    entry = weighed_model(ledger, symbol)
    return add_ensemble(graph, unpack(entry.model, symbol), entry.weights, entry.constant), 0


def _add_network(graph: Graph, ledger: Ledger, symbol: str) -> tuple[str, int]:
    from barcast.fleet.networks.onnx import add_network
    from barcast.fleet.networks.packing import unpack

    packed = unpack(ledger.model(symbol).model)
    return add_network(graph, packed), packed.look_back


def _facts(run: RunFolder, config: RunConfig, symbol: str) -> dict[str, Any]:
    state: Mapping[str, Any] = run.read("state.json")
    scaler = state["scaler"]
    found: dict[str, Any] = {
        "symbol": symbol,
        "run": run.name,
        "model": config.model,
        "columns": [*state["features"], "validity"],
        "normalisation": _NORMALISED["session" if scaler is None else "fitted"],
        "missing": _MISSING["fleet-trees" if config.model == "fleet-trees" else "fleet-networks"],
        "horizons": list(config.data.horizons),
        "delay": config.data.delay,
        "target": state["target"],
        "units": _UNITS,
        "taught_until": model_taught_until(run, symbol),
    }
    return found if scaler is None else {**found, "scaler": scaler}
