"""What a run's model says of rows of the store: only what they depend on is computed.

That is the look-back of every row and the features' warm-up before it. That cut history gives the same values
as the whole one is what the audit checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from barcast.core.arrays import F64, I64, Bools
from barcast.core.bars import Bars
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.features import FeatureSet
from barcast.labels import trailing_volatility
from barcast.models.heads import PLAIN, Head, head_of
from barcast.models.registry import model_entry
from barcast.pipeline.attributes import attribute_values, identity_codes
from barcast.pipeline.dataset import embedding_index, make_panel, normalised
from barcast.pipeline.fleet_engine import look_back_of
from barcast.pipeline.load import load_model
from barcast.pipeline.market import VOLATILITY_BARS
from barcast.pipeline.settings import RunConfig
from barcast.store import MarketStore
from barcast.windows.normalise import FittedScaler


def run_head(config: RunConfig) -> Head:
    """Return what the outputs of a run's model mean; a tabular one has a single output for each horizon."""
    return head_of(config.data.target) if config.train is not None else PLAIN


def score_rows(
    workspace: Workspace, run: RunFolder, config: RunConfig, state: Mapping[str, Any], bars: Bars,
    features: FeatureSet, universe: Bools, last_rows: I64,
) -> tuple[F64, F64]:  # fmt: skip
    """Return scores (n, H) and volatility (n,) of the wanted rows, computing only what they depend on."""
    outputs, volatility = output_rows(workspace, run, config, state, bars, features, universe, last_rows)
    return run_head(config).scores(outputs).astype(np.float64), volatility


def output_rows(
    workspace: Workspace, run: RunFolder, config: RunConfig, state: Mapping[str, Any], bars: Bars,
    features: FeatureSet, universe: Bools, last_rows: I64,
) -> tuple[F64, F64]:  # fmt: skip
    """Return outputs (n, H * W) and volatility (n,) of rows, computing only what they depend on."""
    look_back = look_back_of(config)
    keep = needed_rows(bars, last_rows, look_back, max(features.max_warmup, VOLATILITY_BARS) + 1)
    tail = bars.take(keep)
    rows = (np.cumsum(keep) - 1)[last_rows]
    panel = make_panel(tail, features, None, "", cached=False)
    scaler = state["scaler"]
    fitted = None if scaler is None else FittedScaler(np.array(scaler["mean"]), np.array(scaler["std"]))
    inputs = normalised(panel, tail, features, fitted, universe)
    model = load_model(run, config, state)
    volatility = trailing_volatility(tail, VOLATILITY_BARS)[rows]
    kind = model_entry(config.model).kind
    if kind == "tabular":
        return np.asarray(model.predict(inputs[rows]), np.float64), volatility
    if kind == "fleet":
        from barcast.pipeline.fleet_residual import with_universal_forecast  # local: it predicts itself
        from barcast.pipeline.fleet_rows import rows_to_serve

        own = model.scores(rows_to_serve(tail, inputs, len(config.data.horizons)), rows)
        return with_universal_forecast(workspace, run, config, bars, last_rows, own), volatility
    from barcast.training.networks import make_resident
    from barcast.training.predict import predict_windows

    vocabulary, known = tuple(state["vocabulary"]), state.get("attributes", {})
    values = attribute_values(MarketStore.open(workspace.market), tuple(known), tail.symbols)
    embedding = identity_codes(embedding_index(tail.symbols, vocabulary), values, known)
    nothing = np.full((len(tail), len(config.data.horizons) * run_head(config).width), np.nan, np.float32)
    resident = make_resident(
        inputs, embedding[tail.symbol_of_row], tail.life_start, nothing, "cpu",
        anchored=features.window_normalised,
    )  # fmt: skip
    return predict_windows(model, resident, rows, look_back).astype(np.float64), volatility


def needed_rows(bars: Bars, last_rows: I64, look_back: int, warmup: int) -> Bools:
    """Return the rows that the windows of ``last_rows`` depend on, shape (R,).

    These are all rows from the oldest session in any window on (session statistics read every symbol there),
    and ``warmup`` own bars before them.
    """
    keep = np.zeros(len(bars), bool)
    if not len(last_rows):
        return keep
    first = np.maximum(last_rows - look_back + 1, bars.life_start[last_rows])
    oldest = int(bars.session[first].min())
    needed = bars.session >= oldest
    counts = np.bincount(bars.symbol_of_row[needed], minlength=bars.num_symbols)
    starts = np.maximum(bars.offsets[1:] - counts - warmup, bars.offsets[:-1])
    for start, stop in zip(starts, bars.offsets[1:], strict=True):
        keep[start:stop] = True
    return keep
