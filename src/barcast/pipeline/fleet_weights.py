"""What the members of each symbol's ensemble weigh, and the one file that serves them all.

Weights come from `weigh`, on which no member was fitted or stopped; beside the trees stand "zero" and, where
the target is a return, the pooled mean of what taught: on real returns a forest is often worse than either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from barcast.core.arrays import F64, I32, I64, Bools
from barcast.core.config import to_plain
from barcast.core.predictions import SEGMENTS
from barcast.core.runs import PACKED_FLEET
from barcast.ensemble.bma import Averaged, Averaging, average, restricted
from barcast.ensemble.densities import fit_widths, log_densities
from barcast.fleet.data import FleetData
from barcast.fleet.ledger import Ledger
from barcast.fleet.trees.fit import predictions
from barcast.fleet.trees.packed import combine, unpack
from barcast.fleet.trees.packed_fleet import FleetEntry, PackedFleet, open_fleet
from barcast.fleet.trees.presets import MEMBERS
from barcast.pipeline.fleet_lessons import Lessons

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


def constants_of(lessons: Lessons) -> Constants:
    """Return zero and, where it counts, the mean of all targets that teach."""
    num_horizons = len(lessons.horizons)
    if not lessons.mean_counts:
        return Constants((ZERO,), np.zeros((num_horizons, 1)))
    teach = lessons.data.segment == SEGMENTS.index("fit")
    taught = np.nanmean(lessons.data.target[teach].astype(np.float64), axis=0)
    return Constants((ZERO, POOLED_MEAN), np.stack([np.zeros(num_horizons), taught], axis=1))


def _rows_of(data: FleetData, places: Sequence[int], segment: str) -> tuple[I64, I64]:
    """Return rows (n,) of a segment of some symbols, by position, and where each one's begin."""
    code = SEGMENTS.index(segment)
    rows = [
        np.flatnonzero(data.segment[own] == code) + own.start
        for own in (data.rows_of(each) for each in places)
    ]
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in rows])]).astype(np.int64)
    return np.concatenate(rows), offsets


def _outputs(ledger: Ledger, data: FleetData) -> tuple[list[int], Bools, F64]:
    """Return finished symbols, by position, which trees they have (S, H, K) and what these say of `weigh`."""
    position = {symbol: place for place, symbol in enumerate(data.symbols)}
    code, places, present, found = SEGMENTS.index("weigh"), [], [], []
    for symbol, model in ledger.models():
        one = data.one(position[symbol])
        places.append(position[symbol])
        present.append(unpack(model, symbol).present)
        found.append(predictions(one, model, np.flatnonzero(one.segment == code)))
    return places, np.stack(present), np.concatenate(found)


@dataclass(frozen=True)
class _Weighing:
    """What all members said of the outcomes of `weigh`: n rows of S finished symbols, K members.

    Attributes
    ----------
    places : list of int, length S
        Of the symbols, in the rows that taught.
    rows, offsets : I64, shapes (n,) and (S + 1,)
    session : I32, shape (n,)
    horizons, members : tuple
        Lengths H and K.
    absent : Bools, shape (S, H, K)
        Members that a symbol does not have.
    outputs : F64, shape (n, H, number of trees)
        What the trees expect.
    density : F64, shape (H, n, K)
        Log densities of the outcomes.
    """

    places: list[int]
    rows: I64
    offsets: I64
    session: I32
    horizons: tuple[int, ...]
    members: tuple[str, ...]
    absent: Bools
    outputs: F64
    density: F64

    @classmethod
    def of(cls, ledger: Ledger, lessons: Lessons, constants: Constants) -> _Weighing:
        data, horizons = lessons.data, lessons.horizons
        places, present, trees = _outputs(ledger, data)
        (before, starts), (rows, offsets) = (_rows_of(data, places, name) for name in ("stop", "weigh"))
        owner, density = np.repeat(np.arange(len(places)), np.diff(offsets)), []
        for h in range(len(horizons)):
            scale, y = lessons.scale[h], data.target[:, h].astype(np.float64)
            widths = fit_widths(y[before], scale[before], starts)
            fixed = np.broadcast_to(constants.values[h], (len(rows), len(constants.names)))
            y_hat = np.concatenate([trees[:, h], fixed], axis=1)
            density.append(log_densities(y[rows], y_hat, scale[rows] * widths[owner]))
        members, absent = (*MEMBERS, *constants.names), ~_with_constants(present, len(constants.names))
        return cls(
            places, rows, offsets, data.session[rows], horizons, members, absent, trees, np.stack(density)
        )

    @property
    def owner(self) -> I64:
        """Position in ``places`` of each row's symbol, shape (n,)."""
        return np.repeat(np.arange(len(self.places)), np.diff(self.offsets))

    def averaged(self, by: Bools | None = None, options: Averaging | None = None) -> list[Averaged]:
        """Weigh the members of each horizon by the outcomes of all rows, or of those of ``by`` (n,)."""
        return [
            average(
                density if by is None else np.where(by[:, None], density, np.nan), self.offsets, self.session,
                horizon, members=self.members, absent=self.absent[:, h], options=options,
            )
            for h, (horizon, density) in enumerate(zip(self.horizons, self.density, strict=True))
        ]  # fmt: skip


def _with_constants(present: Bools, num_constants: int) -> Bools:
    """Return which members (..., K) there are, from which trees: constants always are."""
    return np.concatenate([present, np.ones((*present.shape[:-1], num_constants), bool)], axis=-1)


def weigh_members(ledger: Ledger, lessons: Lessons) -> None:
    """Weigh the members of all finished symbols; keep weights and evidence in the ledger."""
    constants = constants_of(lessons)
    weighing = _Weighing.of(ledger, lessons, constants)
    averaged = weighing.averaged()
    ledger.set_meta({"constants": {"names": constants.names, "values": constants.values.tolist()}})
    ledger.set_pooled(WEIGHTS, {
        lessons.data.symbols[place]: [to_plain(each.evidence(position)) for each in averaged]
        for position, place in enumerate(weighing.places)
    })  # fmt: skip


def cross_weighed(ledger: Ledger, lessons: Lessons, halves: Sequence[tuple[Bools, Bools]]) -> F64:
    """Return what finished ensembles expect of rows by whose outcomes their members were not weighed.

    Parameters
    ----------
    halves : sequence of two pairs of Bools, each of shape (R,)
        Rows of `weigh` by which members are weighed, and rows of it that are forecast with these weights.

    Returns
    -------
    F64, shape (R, H)
        NaN on all other rows, and for symbols without a model.
    """
    constants = constants_of(lessons)
    weighing = _Weighing.of(ledger, lessons, constants)
    found = np.full((len(lessons.data.session), len(lessons.horizons)), np.nan)
    # half of the sessions: weights are to move to equal ones as far as those of all sessions do
    options = Averaging(min_sessions=Averaging().min_sessions // 2)
    for by, forecast in halves:
        averaged = weighing.averaged(by[weighing.rows], options)
        weights = np.stack([each.weights for each in averaged], axis=1)[weighing.owner]
        trees, fixed = np.split(weights, [len(MEMBERS)], axis=2)
        scores = combine(weighing.outputs, trees, (fixed * constants.values).sum(axis=2))
        own = forecast[weighing.rows]
        found[weighing.rows[own]] = scores[own]
    return found


def take_weights(ledger: Ledger, parent: Ledger) -> None:
    """Give a refit its evaluation's weights, of the members that it has; new symbols have the market's."""
    known, constants = parent.pooled(WEIGHTS), parent.meta()["constants"]
    market = [{**each, "weights": each["pooled"]} for each in next(iter(known.values()))]
    ledger.set_meta({"constants": constants})
    ledger.set_pooled(WEIGHTS, {
        symbol: [
            {**each, "weights": restricted(np.array(each["weights"]), own).tolist()}
            for each, own in zip(
                known.get(symbol, market),
                _with_constants(unpack(model, symbol).present, len(constants["names"])), strict=True,
            )
        ]
        for symbol, model in ledger.models()
    })  # fmt: skip


def packed_fleet(ledger: Ledger, folder: Path) -> PackedFleet:
    """Map the file of all models and weights, made again where it is not that of the ledger."""
    return open_fleet(folder / PACKED_FLEET, ledger.content_digest(WEIGHTS), lambda: _entries(ledger))


def weighed_model(ledger: Ledger, symbol: str) -> FleetEntry:
    """Return the model of one symbol with the weights of its members.

    Raises
    ------
    UsageError
        When the symbol has no model of its own.
    """
    model = ledger.model(symbol).model
    return _entry(symbol, model, ledger.pooled(WEIGHTS, symbol)[symbol], _constants(ledger))


def _entries(ledger: Ledger) -> Iterator[FleetEntry]:
    weights, constants = ledger.pooled(WEIGHTS), _constants(ledger)
    for symbol, model in ledger.models():
        yield _entry(symbol, model, weights[symbol], constants)


def _constants(ledger: Ledger) -> F64:
    return np.array(ledger.meta()["constants"]["values"], np.float64)


def _entry(symbol: str, model: bytes, evidence: Sequence[Mapping[str, Any]], constants: F64) -> FleetEntry:
    own = np.array([each["weights"] for each in evidence], np.float64)
    constant = (own[:, len(MEMBERS) :] * constants).sum(axis=1)
    return FleetEntry(symbol, model, own[:, : len(MEMBERS)], constant)
