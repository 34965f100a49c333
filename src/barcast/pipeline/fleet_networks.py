"""Fleets of recurrent networks: a network a symbol, trained many at once, read from the ledger one by one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from barcast.core.arrays import F64, I64, Bools
from barcast.core.predictions import SEGMENTS
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.fleet.data import FleetData, SymbolData
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.networks.lessons import MIN_STOP
from barcast.fleet.networks.predict import predict_packed
from barcast.fleet.networks.presets import SHAPES, Kind, NetworkPreset, presets, resolve
from barcast.fleet.networks.stacked import Shape
from barcast.fleet.work import FitSource
from barcast.models.dedicated import FleetNetworksConfig
from barcast.pipeline.fleet_lessons import Lessons
from barcast.pipeline.fleet_rows import TOO_SHORT, owners_of, too_short, who_waits
from barcast.pipeline.settings import RunConfig

#: Symbols of a unit: enough to fill the seats of a batch, few enough that all workers have some.
UNIT_SIZE = 128
#: Bytes of a unit's networks: finished ones are saved with those at work until all of the unit are done.
_UNIT_BYTES = 64_000_000
#: Networks in memory at once while a fleet predicts.
_GROUP = 64
#: Options of a model that are no options of a network, and those whose 0 means that of the preset.
_OF_THE_FLEET = ("preset", "symbol_options", "on", "universal")
_OF_THE_PRESET = ("hidden_size", "num_layers")


@dataclass(frozen=True)
class ServedNetworks:
    """The networks of a ledger; a few are in memory at a time.

    Attributes
    ----------
    ledger : Path
    """

    ledger: Path

    def scores(self, data: FleetData, rows: I64) -> F64:
        """Return outputs (n, H) of rows, each from its own window; NaN where a symbol has no network."""
        scores = np.full((len(rows), data.target.shape[1]), np.nan)
        owner = owners_of(data, rows)
        order = np.argsort(owner, kind="stable")
        present, first_of = np.unique(owner[order], return_index=True)
        places_of = dict(zip(present.tolist(), np.split(order, first_of[1:]), strict=bool(len(rows))))
        with Ledger.open(self.ledger) as ledger:
            done = {row.symbol for row in ledger.rows(status=["done"])}
            wanted = [position for position in places_of if data.symbols[position] in done]
            for first in range(0, len(wanted), _GROUP):
                group = wanted[first : first + _GROUP]
                places = [places_of[position] for position in group]
                found = predict_packed(
                    [ledger.model(data.symbols[position]).model for position in group],
                    [data.one(position) for position in group],
                    [rows[own] - data.offsets[position] for own, position in zip(places, group, strict=True)],
                )
                for own, outputs in zip(places, found, strict=True):
                    scores[own] = outputs
        return scores


@dataclass(frozen=True)
class Networks:
    """The engine of ``fleet-lstm`` or ``fleet-gru``."""

    kind: Kind
    unit_size: int = UNIT_SIZE
    reads_windows = True

    def ladder(self, options: FleetNetworksConfig) -> tuple[str, ...]:
        """Return presets by work, the narrowest first; one alone where the width or depth is given."""
        rungs = list(presets(self.kind))
        top = rungs.index(f"{self.kind}-{options.preset}")
        given = any(getattr(options, name) for name in _OF_THE_PRESET)
        return tuple(rungs[top if given else 0 : top + 1])

    def values(self, preset: str) -> NetworkPreset:
        """Return the options of a preset."""
        return resolve(self.kind, preset)

    def together(self, options: FleetNetworksConfig, preset: str, num_inputs: int, num_horizons: int) -> int:
        """Return how many networks make a unit of work: fewer of wide ones."""
        network = resolve(self.kind, preset, self.shared(options))
        size = Shape.of(network, num_inputs, num_horizons).size * np.dtype(np.float32).itemsize
        return min(self.unit_size, max(_UNIT_BYTES // size, 1))

    def shared(self, options: FleetNetworksConfig) -> dict[str, Any]:
        """Return the options of all networks."""
        named = {each.name: getattr(options, each.name) for each in fields(options)}
        left_out = (*_OF_THE_FLEET, *(name for name in _OF_THE_PRESET if not named[name]))
        return {name: value for name, value in named.items() if name not in left_out}

    def check(self, options: FleetNetworksConfig, own: Mapping[str, Any]) -> None:
        """Refuse options that no fit could read."""
        self._network(options, own)

    def _network(self, options: FleetNetworksConfig, own: Mapping[str, Any]) -> NetworkPreset:
        return resolve(self.kind, self.ladder(options)[-1], self.shared(options), own)

    def kept(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Return the epochs after which the network was best: a refit passes as often over its labels."""
        return {"fixed_epochs": metrics["best_epoch"]}

    def too_short(
        self, data: FleetData, options: FleetNetworksConfig, overrides: Mapping[str, Mapping[str, Any]], *,
        refits: bool,
    ) -> dict[str, str]:  # fmt: skip
        """Say of each symbol that has too few rows to teach, or to stop by, how many it has."""
        least = {symbol: own["min_rows"] for symbol, own in overrides.items() if "min_rows" in own}
        found = too_short(data, self._network(options, {}).min_rows, least)
        if refits:
            return found
        stop = (data.segment == SEGMENTS.index("stop")) & np.isfinite(data.target).any(axis=1)
        counts = np.bincount(owners_of(data, np.flatnonzero(stop)), minlength=len(data.symbols)).tolist()
        return {
            symbol: f"{TOO_SHORT}: {count} of {MIN_STOP} labels in `stop`"
            for symbol, count in zip(data.symbols, counts, strict=True)
            if count < MIN_STOP and not overrides.get(symbol, {}).get("fixed_epochs")
        } | found

    def source(self, config: RunConfig, rows: Path, run: RunFolder, *, in_workers: bool) -> FitSource:
        """Return how a worker makes its fit; half-trained batches are kept beside the ledger."""
        states = _states(run)
        states.mkdir(parents=True, exist_ok=True)
        return FitSource(
            "barcast.fleet.networks.fit", "make_fit",
            {
                "folder": str(rows), "kind": self.kind, "options": self.shared(config.options),
                "seed": config.seed, "states": str(states), "keep_freed": in_workers,
            },
        )  # fmt: skip

    def conclude(
        self, ledger: Ledger, evaluated: Ledger | None, lessons: Lessons, run: RunFolder, progress: Progress
    ) -> ServedNetworks:
        """Drop half-trained batches when nobody waits any more."""
        if not who_waits(ledger):
            shutil.rmtree(_states(run), ignore_errors=True)
        return ServedNetworks(ledger.path)

    def cross_weighed(
        self, ledger: Ledger, lessons: Lessons, halves: Sequence[tuple[Bools, Bools]]
    ) -> F64 | None:
        """Return None: a network has no members to weigh."""
        return None

    def served(self, run: RunFolder) -> ServedNetworks:
        """Return what serves of a finished run."""
        with Ledger.open(run.fleet / LEDGER) as ledger:
            return ServedNetworks(ledger.path)

    def outputs(self, data: SymbolData, model: bytes, rows: I64) -> F64:
        """Return what the network says of plain windows, (n, H)."""
        return predict_packed([model], [data], [rows])[0].astype(np.float64)

    def look_back(self, options: FleetNetworksConfig) -> int:
        """Return how many own bars the longest prediction reads."""
        each = [self._network(options, own) for own in ({}, *map(_shape_of, options.symbol_options.values()))]
        return max(network.look_back_window for network in each)


def _states(run: RunFolder) -> Path:
    return run.fleet / "states"


def _shape_of(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a symbol that decide its network's shape: features are names before a fit."""
    return {name: value for name, value in own.items() if name in SHAPES}


NETWORKS: Mapping[str, Networks] = {"fleet-lstm": Networks("lstm"), "fleet-gru": Networks("gru")}
