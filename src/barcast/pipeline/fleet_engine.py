"""What the pipeline asks of a kind of fleet: one object each for trees and for networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from barcast.core.arrays import F64, I64, Bools
from barcast.core.errors import UsageError
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder

if TYPE_CHECKING:
    from barcast.fleet.data import FleetData, SymbolData
    from barcast.fleet.ledger import Ledger
    from barcast.fleet.work import FitSource
    from barcast.pipeline.fleet_lessons import Lessons
    from barcast.pipeline.settings import RunConfig


class Served(Protocol):
    """The finished models of a fleet, ready to answer."""

    def scores(self, data: FleetData, rows: I64) -> F64:
        """Return scores (n, H) of rows of ``data``; NaN where a symbol has no model of its own."""
        ...


class Engine(Protocol):
    """A kind of fleet; ``options`` are those of its model."""

    @property
    def unit_size(self) -> int:
        """Most symbols of a unit of work; one: symbols of a unit share their options."""
        ...

    def together(self, options: Any, preset: str, num_inputs: int, num_horizons: int) -> int:
        """Return how many symbols of a preset make a unit of work where nobody says."""
        ...

    @property
    def reads_windows(self) -> bool:
        """Whether a fit reads a row with those before it."""
        ...

    def ladder(self, options: Any) -> tuple[str, ...]:
        """Return presets by work, the lightest first; the last is the one that was asked for."""
        ...

    def values(self, preset: str) -> Any:
        """Return what a preset stands for."""
        ...

    def shared(self, options: Any) -> dict[str, Any]:
        """Return the options of all symbols over those of their presets, as the fit reads them."""
        ...

    def check(self, options: Any, own: Mapping[str, Any]) -> None:
        """Refuse options, and those of one symbol over them, that no fit could read (`UsageError`)."""
        ...

    def kept(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the evaluation of a symbol chose, as options of its refit, which has no `stop`."""
        ...

    def too_short(
        self, data: FleetData, options: Any, overrides: Mapping[str, Mapping[str, Any]], *, refits: bool
    ) -> dict[str, str]:
        """Say of each symbol that has not the rows for a model of its own what it lacks."""
        ...

    def source(self, config: RunConfig, rows: Path, run: RunFolder, *, in_workers: bool) -> FitSource:
        """Return how a worker makes its fit, and prepare what all of them share."""
        ...

    def conclude(
        self, ledger: Ledger, evaluated: Ledger | None, lessons: Lessons, run: RunFolder, progress: Progress
    ) -> Served:
        """Do what only all symbols together allow, and return what serves."""
        ...

    def cross_weighed(
        self, ledger: Ledger, lessons: Lessons, halves: Sequence[tuple[Bools, Bools]]
    ) -> F64 | None:
        """Return forecasts (R, H) of rows of `weigh` by members that others of its rows weighed.

        None where a model has no members to weigh: its own forecasts are these. ``halves`` are pairs of rows
        (R,) that weigh and rows that are forecast; NaN elsewhere, and where a symbol has no model of its own.
        """
        ...

    def served(self, run: RunFolder) -> Served:
        """Return what serves of a finished run."""
        ...

    def outputs(self, data: SymbolData, model: bytes, rows: I64) -> F64:
        """Return what one symbol's packed model alone says of its rows (n, H): of members the plain mean."""
        ...

    def look_back(self, options: Any) -> int:
        """Return how many own bars the longest prediction reads."""
        ...


def engine_of(model: str) -> Engine:
    """Return the engine of a registered model of kind ``fleet``."""
    if model == "fleet-trees":
        from barcast.pipeline.fleet_trees import TREES

        return TREES
    from barcast.pipeline.fleet_networks import NETWORKS

    return NETWORKS[model]


def look_back_of(config: RunConfig) -> int:
    """Return how many own bars a prediction of a run reads."""
    from barcast.models.registry import model_entry

    if config.train is not None:
        return config.train.look_back_window
    return (
        engine_of(config.model).look_back(config.options) if model_entry(config.model).kind == "fleet" else 1
    )


def checked_features(
    own: Mapping[str, Any], columns: Sequence[str], source: str, symbol: str
) -> dict[str, Any]:
    """Return the options of a symbol as fits read them: features by position.

    Raises
    ------
    UsageError
        On a feature that is none of the columns, which together are called ``source``.
    """
    if "features" not in own:
        return dict(own)
    if strange := [name for name in own["features"] if name not in columns]:
        raise UsageError(
            f"--symbol-config: {symbol} asks for features that are not in `{source}`: "
            f"{', '.join(map(str, strange))}",
            f"its features: {', '.join(columns)}",
        )
    return {**own, "features": [columns.index(name) for name in own["features"]]}
