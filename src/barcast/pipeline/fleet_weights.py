"""What the members of each symbol's ensemble weigh, and the one file that serves them all.

Weights come from `weigh`, on which no member was fitted or stopped; beside the trees stand "zero" and, where
the target is a return, the pooled mean of what taught: on real returns a forest is often worse than either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from barcast.core.arrays import F64, I64
from barcast.core.config import to_plain
from barcast.core.predictions import SEGMENTS
from barcast.core.runs import PACKED_FLEET
from barcast.ensemble.bma import average
from barcast.ensemble.densities import fit_widths, log_densities
from barcast.fleet.data import FleetData
from barcast.fleet.ledger import Ledger
from barcast.fleet.trees.fit import predictions
from barcast.fleet.trees.packed_fleet import FleetEntry, PackedFleet, open_fleet
from barcast.fleet.trees.presets import MEMBERS
from barcast.pipeline.dataset import Dataset

#: Kind of pooled values in the ledger.
WEIGHTS = "weights"
ZERO, POOLED_MEAN = "zero", "pooled mean"


@dataclass(frozen=True)
class Constants:
    """Members that are no trees.

    Attributes
    ----------
    names : tuple of str
    values : F64, shape (H, number of names)
        In units of the target.
    """

    names: tuple[str, ...]
    values: F64


def constants_of(dataset: Dataset) -> Constants:
    """Return zero and, where the target is a return, the mean of all labels that teach."""
    num_horizons = dataset.target.shape[1]
    if dataset.target_name not in ("return", "volatility_scaled"):
        return Constants((ZERO,), np.zeros((num_horizons, 1)))
    taught = np.nanmean(dataset.target[dataset.teach].astype(np.float64), axis=0)
    return Constants((ZERO, POOLED_MEAN), np.stack([np.zeros(num_horizons), taught], axis=1))


@dataclass(frozen=True)
class _Outputs:
    """What the trees of all finished symbols say of the rows of some segments."""

    symbols: tuple[str, ...]
    rows: I64  # (n,), in FleetData
    offsets: I64  # (number of symbols + 1,)
    trees: F64  # (n, H, K)


def _outputs(ledger: Ledger, data: FleetData, segment: str) -> _Outputs:
    places = {symbol: position for position, symbol in enumerate(data.symbols)}
    code, symbols, rows, found = SEGMENTS.index(segment), [], [], []
    for symbol, model in ledger.models():
        one = data.one(places[symbol])
        own = np.flatnonzero(one.segment == code)
        symbols.append(symbol)
        rows.append(own + data.rows_of(places[symbol]).start)
        found.append(predictions(one, model, own))
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in rows])]).astype(np.int64)
    return _Outputs(tuple(symbols), np.concatenate(rows), offsets, np.concatenate(found))


def weigh_members(ledger: Ledger, data: FleetData, dataset: Dataset) -> None:
    """Weigh the members of all finished symbols; keep weights and evidence in the ledger."""
    constants, spec = constants_of(dataset), dataset.market.labels.spec
    before, weighing = _outputs(ledger, data, "stop"), _outputs(ledger, data, "weigh")
    averaged = []
    for h, horizon in enumerate(spec.horizons):
        scale = _scale(dataset, horizon)
        y = data.target[:, h].astype(np.float64)
        widths = fit_widths(y[before.rows], scale[before.rows], before.offsets)
        owner = np.repeat(np.arange(len(weighing.symbols)), np.diff(weighing.offsets))
        fixed = np.broadcast_to(constants.values[h], (len(weighing.rows), len(constants.names)))
        density = log_densities(
            y[weighing.rows], np.concatenate([weighing.trees[:, h], fixed], axis=1),
            scale[weighing.rows] * widths[owner],
        )  # fmt: skip
        averaged.append(average(
            density, weighing.offsets, data.session[weighing.rows], horizon,
            members=(*MEMBERS, *constants.names),
        ))  # fmt: skip
    ledger.set_meta({"constants": {"names": constants.names, "values": constants.values.tolist()}})
    ledger.set_pooled(WEIGHTS, {
        symbol: [to_plain(each.evidence(position)) for each in averaged]
        for position, symbol in enumerate(weighing.symbols)
    })  # fmt: skip


def _scale(dataset: Dataset, horizon: int) -> F64:
    """Return the standard deviation of the target by the one model that members share, shape (R,)."""
    volatility = dataset.market.volatility
    if dataset.target_name != "return":  # ranks, signs and scaled returns have the same width everywhere
        return np.ones(len(volatility))
    return np.asarray(volatility * np.sqrt(horizon))


def take_weights(ledger: Ledger, parent: Ledger) -> None:
    """Give a refit the weights that its evaluation found; a symbol that is new has the market's."""
    known = parent.pooled(WEIGHTS)
    market = [{**each, "weights": each["pooled"]} for each in next(iter(known.values()))]
    done = [row.symbol for row in ledger.rows(status=["done"])]
    ledger.set_meta({"constants": parent.meta()["constants"]})
    ledger.set_pooled(WEIGHTS, {symbol: known.get(symbol, market) for symbol in done})


def packed_fleet(ledger: Ledger, folder: Path) -> PackedFleet:
    """Map the file of all models and weights, made again where it is not that of the ledger."""
    return open_fleet(folder / PACKED_FLEET, ledger.content_digest(WEIGHTS), lambda: _entries(ledger))


def _entries(ledger: Ledger) -> Iterator[FleetEntry]:
    weights, values = ledger.pooled(WEIGHTS), np.array(ledger.meta()["constants"]["values"], np.float64)
    for symbol, model in ledger.models():
        own = np.array([each["weights"] for each in weights[symbol]], np.float64)
        constant = (own[:, len(MEMBERS) :] * values).sum(axis=1)
        yield FleetEntry(symbol, model, own[:, : len(MEMBERS)], constant)
