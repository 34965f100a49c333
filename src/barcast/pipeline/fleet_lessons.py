"""What a fleet learns from, wherever its rows come from: bars of a market, or frames of a user's own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from barcast.core.arrays import F64, I64
from barcast.core.progress import Progress
from barcast.fleet.data import FleetData
from barcast.pipeline.dataset import Dataset
from barcast.pipeline.fleet_priority import values_of
from barcast.pipeline.fleet_rows import fleet_data


@dataclass(frozen=True)
class Lessons:
    """Rows of S symbols, R in all, and what is known of their H targets.

    Attributes
    ----------
    data : FleetData
        Inputs, targets and segments.
    columns : tuple of str
        Inputs that the options of a symbol may name, in order.
    source : str
        What messages call these columns together.
    horizons : tuple of int
        Sessions that each target spans.
    value : F64, shape (S,)
        What a symbol is worth where not all can be served; NaN comes last.
    scale : tuple of F64, length H, each shape (R,)
        Standard deviation of each target by the one model of it that members share.
    mean_counts : bool
        Whether the mean of all targets that teach is a member of every ensemble.
    """

    data: FleetData
    columns: tuple[str, ...]
    source: str
    horizons: tuple[int, ...]
    value: F64
    scale: tuple[F64, ...]
    mean_counts: bool

    def of_symbols(self, positions: I64) -> Lessons:
        """Return the lessons of some symbols, by position in ascending order."""
        data = self.data
        lengths = np.diff(data.offsets)[positions]
        rows = self.rows_of(positions)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        moved = np.repeat(data.offsets[positions] - offsets[:-1], lengths)
        own = FleetData(
            tuple(data.symbols[position] for position in positions), offsets, data.inputs[rows],
            data.target[rows], data.session[rows], data.segment[rows], data.life_start[rows] - moved,
        )  # fmt: skip
        scale = tuple(each[rows] for each in self.scale)
        return replace(self, data=own, value=self.value[positions], scale=scale)

    def rows_of(self, positions: I64) -> I64:
        """Return the rows of some symbols, by position, in order."""
        spans = [np.arange(self.data.offsets[each], self.data.offsets[each + 1]) for each in positions]
        return np.concatenate(spans) if spans else np.empty(0, np.int64)


def lessons_of(dataset: Dataset, priority: str = "turnover", progress: Progress | None = None) -> Lessons:
    """Return what a fleet learns from a market; ``priority`` says who comes first (see ``values_of``)."""
    features, horizons = dataset.features, dataset.market.labels.spec.horizons
    return Lessons(
        fleet_data(dataset), tuple(features.names), features.name, horizons,
        values_of(dataset, priority, progress),
        tuple(target_scale(dataset, horizon) for horizon in horizons),
        dataset.target_name in ("return", "volatility_scaled"),
    )  # fmt: skip


def target_scale(dataset: Dataset, horizon: int) -> F64:
    """Return the standard deviation of the target by the one model that members share, shape (R,)."""
    volatility = dataset.market.volatility
    if dataset.target_name != "return":  # ranks, signs and scaled returns have the same width everywhere
        return np.broadcast_to(1.0, volatility.shape)
    return np.asarray(volatility * np.sqrt(horizon))
