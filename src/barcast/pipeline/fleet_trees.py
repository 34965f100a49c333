"""Fleets of trees: an ensemble a symbol, its members weighed by evidence, all of them in one mapped file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from barcast.core.arrays import F64, I64, Bools
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.fleet.data import FleetData, SymbolData
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.trees.fit import compile_kernels, predictions
from barcast.fleet.trees.packed_fleet import PackedFleet
from barcast.fleet.trees.presets import MEMBERS, EnsembleConfig, configured
from barcast.fleet.work import FitSource
from barcast.models.dedicated import FleetTreesConfig
from barcast.pipeline.fleet_lessons import Lessons
from barcast.pipeline.fleet_rows import owners_of, too_short
from barcast.pipeline.fleet_weights import cross_weighed, packed_fleet, take_weights, weigh_members
from barcast.pipeline.settings import RunConfig

#: Presets by work, the lightest first; a budget may give a symbol any up to the one that was asked for.
LADDERS: Mapping[str, tuple[str, ...]] = {
    "extreme": ("extreme",),
    "fast": ("extreme", "fast"),
    "standard": ("extreme", "fast", "standard"),
    "high": ("extreme", "fast", "standard", "high"),
    "published": ("extreme", "fast", "published"),
}


@dataclass(frozen=True)
class ServedTrees:
    """All ensembles and weights of a fleet, mapped."""

    packed: PackedFleet

    def scores(self, data: FleetData, rows: I64) -> F64:
        """Return scores (n, H) of rows; NaN where a symbol has no model of its own."""
        places = {symbol: position for position, symbol in enumerate(self.packed.symbols)}
        own = np.array([places.get(symbol, -1) for symbol in data.symbols], np.int64)
        which = own[owners_of(data, rows)]
        scores = np.full((len(rows), self.packed.directory.shape[1]), np.nan)
        served = np.flatnonzero(which >= 0)
        if len(served):
            scores[served] = self.packed.scores(
                np.asarray(data.inputs[rows[served]], np.float32), which[served]
            )
        return scores


class Trees:
    """The engine of ``fleet-trees``."""

    unit_size = 1
    reads_windows = False

    def ladder(self, options: FleetTreesConfig) -> tuple[str, ...]:
        """Return presets by work, the lightest first."""
        return LADDERS[options.preset]

    def values(self, preset: str) -> EnsembleConfig:
        """Return the options of a preset."""
        return configured(preset)

    def together(self, options: FleetTreesConfig, preset: str, num_inputs: int, num_horizons: int) -> int:
        """Return 1: an ensemble is a unit of its own."""
        return self.unit_size

    def shared(self, options: FleetTreesConfig) -> dict[str, Any]:
        """Return what differs from the preset for all symbols."""
        own = {str(name): dict(getattr(options, name)) for name in MEMBERS if getattr(options, name)}
        return {"min_rows": options.min_rows, **own}

    def check(self, options: FleetTreesConfig, own: Mapping[str, Any]) -> None:
        """Refuse options that no fit could read."""
        configured(options.preset, self.shared(options), own)

    def kept(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Return the rounds that early stopping chose."""
        kept: dict[str, Any] = {}
        for member in ("xgboost", "lightgbm"):
            found = [
                each["members"][member]["trees"] for each in metrics["horizons"] if member in each["members"]
            ]
            if found:
                rounds = max(round(float(np.mean(found))), 1)
                kept[member] = {"num_rounds": rounds, "early_stopping_rounds": 0}
        return kept

    def too_short(
        self, data: FleetData, options: FleetTreesConfig, overrides: Mapping[str, Mapping[str, Any]], *,
        refits: bool,
    ) -> dict[str, str]:  # fmt: skip
        """Say of each symbol that has too few rows to teach how many; a refit asks for no fewer."""
        least = {symbol: own["min_rows"] for symbol, own in overrides.items() if "min_rows" in own}
        return too_short(data, options.min_rows, least)

    def source(self, config: RunConfig, rows: Path, run: RunFolder, *, in_workers: bool) -> FitSource:
        """Return how a worker makes its fit; kernels are compiled here, once: workers find them."""
        compile_kernels()
        return FitSource(
            "barcast.fleet.trees.fit", "make_fit",
            {"folder": str(rows), "seed": config.seed, "options": self.shared(config.options)},
        )  # fmt: skip

    def conclude(
        self, ledger: Ledger, evaluated: Ledger | None, lessons: Lessons, run: RunFolder, progress: Progress
    ) -> ServedTrees:
        """Weigh the members, or take over their weights, and pack it all."""
        progress.note("weighing members, packing models")
        if evaluated is None:
            weigh_members(ledger, lessons)
        else:
            take_weights(ledger, evaluated)
        return ServedTrees(packed_fleet(ledger, run.fleet))

    def cross_weighed(
        self, ledger: Ledger, lessons: Lessons, halves: Sequence[tuple[Bools, Bools]]
    ) -> F64 | None:
        """Return forecasts (R, H) of rows of `weigh` by members that others of its rows weighed."""
        return cross_weighed(ledger, lessons, halves)

    def served(self, run: RunFolder) -> ServedTrees:
        """Map the packed models; the file is made again where it is missing or old."""
        with Ledger.open(run.fleet / LEDGER) as ledger:
            return ServedTrees(packed_fleet(ledger, run.fleet))

    def outputs(self, data: SymbolData, model: bytes, rows: I64) -> F64:
        """Return the plain mean of the members, (n, H)."""
        return np.asarray(np.nanmean(predictions(data, model, rows), axis=-1))

    def look_back(self, options: FleetTreesConfig) -> int:
        """Return 1: trees read one row of features."""
        return 1


TREES = Trees()
