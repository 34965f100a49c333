"""What a fit costs: seconds, memory and disk of one symbol by its rows, learned from finished symbols.

The fits that teach a cost model are fits of the fleet: their models are kept. Under a budget no symbol is
fitted twice for the sake of measuring; without one, who measured a lighter preset is fitted again in the end
(:func:`barcast.fleet.budget.only_measured`). A cost is a straight line in the rows: trees of a fixed number
of bins and networks of a fixed number of epochs are linear in them; where the line is not straight, that is
in the spread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from barcast.core.arrays import F64, I64, Bools
from barcast.fleet.ledger_rows import LedgerRow
from barcast.fleet.work import SymbolResult

#: Symbols of different lengths that measure a preset.
NUM_POINTS = 5
#: Least spread of fit times, standard deviations of their logarithm: a few points may agree by accident.
LEAST_SPREAD = 0.15
#: A median is this much less precise than a mean, variances, where the noise is normal.
_MEDIAN_VARIANCE = 1.57
#: Results as expected that a pace starts from, and what a result of another preset counts.
_DOUBT, _TOLD_BY_OTHERS = 2.0, 0.25


@dataclass(frozen=True)
class Measured:
    """What one finished symbol took.

    Attributes
    ----------
    symbol, preset : str
    rows : int
        As the plan counts them.
    seconds : float
        Of computing in the worker.
    memory_bytes : int
        What its worker held.
    disk_bytes : int
        Packed model and native formats.
    """

    symbol: str
    preset: str
    rows: int
    seconds: float
    memory_bytes: int
    disk_bytes: int

    @classmethod
    def of(cls, result: SymbolResult, rows: int, memory_bytes: int) -> Measured:
        """Read a result of a symbol of ``rows`` rows, whose worker held ``memory_bytes``."""
        size = len(result.model) + len(result.native)
        return cls(result.symbol, result.preset, rows, result.seconds, memory_bytes, size)

    @classmethod
    def of_row(cls, row: LedgerRow) -> Measured:
        """Read what the ledger says of a finished symbol."""
        size = row.model_bytes + row.native_bytes
        return cls(row.symbol, row.preset, row.num_rows, row.seconds, row.memory_bytes, size)


@dataclass(frozen=True)
class Line:
    """``base + per_row * rows``, neither of them negative."""

    base: float
    per_row: float

    def at(self, rows: I64) -> F64:
        """Return the values, shape of ``rows``."""
        return self.base + self.per_row * np.asarray(rows, np.float64)


@dataclass(frozen=True)
class CostModel:
    """What a preset costs by rows.

    Attributes
    ----------
    preset : str
    seconds, memory, disk : Line
        Median seconds of a fit; most bytes of a worker, above every measured one; median bytes stored.
    spread : float
        Standard deviation of the logarithm of a fit's seconds over ``seconds``.
    num_points : int
        Symbols that were measured.
    """

    preset: str
    seconds: Line
    memory: Line
    disk: Line
    spread: float
    num_points: int

    def expected(self, rows: I64) -> F64:
        """Return mean seconds, shape of ``rows``: a lognormal's mean lies above its median."""
        return self.seconds.at(rows) * float(np.exp(self.spread**2 / 2))

    @property
    def level_error(self) -> float:
        """Standard error of the logarithm of the level: what all fits may be slower by than expected."""
        return self.spread * float(np.sqrt(_MEDIAN_VARIANCE / self.num_points))


def fit_cost(preset: str, measured: Sequence[Measured]) -> CostModel:
    """Learn what a preset costs from fits of symbols of different lengths; those of others may be there.

    Lines go through repeated medians (Siegel, 1982, Biometrika 69): one fit that a busy machine held up
    moves neither slope nor level. One length alone says nothing of the slope: seconds and disk then go
    through zero, memory through the least that a worker of any preset held.

    Raises
    ------
    ValueError
        Without a measured symbol of the preset.
    """
    own = [each for each in measured if each.preset == preset]
    if not own:
        raise ValueError(f"no measured symbol of preset {preset}")
    rows = np.array([each.rows for each in own], np.int64)
    taken = np.array([[each.seconds, each.memory_bytes, each.disk_bytes] for each in own], np.float64)
    seconds, memory, disk = (repeated_medians(rows, taken[:, column]) for column in range(3))
    if len(set(rows.tolist())) == 1:  # most of a worker are libraries, which even the lightest fit holds
        least = float(min(each.memory_bytes for each in measured))
        memory = Line(least, (float(np.median(taken[:, 1])) - least) / max(int(rows[0]), 1))
    return CostModel(
        preset,
        seconds,
        _above(memory, rows, taken[:, 1]),
        disk,
        _spread(seconds, rows, taken[:, 0]),
        len(own),
    )


def repeated_medians(rows: I64, values: F64) -> Line:
    """Fit a line whose slope is the median over points of the median slope to the others.

    Where the rows are all alike it goes through zero. A negative slope becomes flat, a negative base zero.
    """
    x, y = np.asarray(rows, np.float64), np.asarray(values, np.float64)
    across, up = x[:, None] - x, y[:, None] - y
    slopes = np.divide(up, across, out=np.full(up.shape, np.nan), where=across != 0)
    own = [float(np.median(line[np.isfinite(line)])) for line in slopes if np.isfinite(line).any()]
    slope = max(float(np.median(own)), 0.0) if own else 0.0
    base = float(np.median(y - slope * x))
    if base < 0 or not own:
        return Line(0.0, float(np.median(y / np.maximum(x, 1))))
    return Line(base, slope)


def _above(line: Line, rows: I64, values: F64) -> Line:
    """Raise a line so that no measured value lies above it."""
    factor = float(np.max(values / np.maximum(line.at(rows), 1.0), initial=1.0))
    return Line(line.base * factor, line.per_row * factor)


def _spread(line: Line, rows: I64, seconds: F64) -> float:
    logs = np.log(np.maximum(seconds, 1e-9) / np.maximum(line.at(rows), 1e-9))
    return max(1.4826 * float(np.median(np.abs(logs - np.median(logs)))), LEAST_SPREAD)


def calibration_symbols(
    rows: I64, rank: I64, free: Bools, num: int = NUM_POINTS, *, valuable: bool = True
) -> list[int]:
    """Choose symbols that measure a preset: one of each stretch of lengths, shortest first.

    Parameters
    ----------
    rows : I64, shape (S,)
    rank : I64, shape (S,)
        0 for the most valuable symbol.
    free : Bools, shape (S,)
        Those that nothing was fitted for.
    num : int
        How many, at most.
    valuable : bool
        Take the most valuable one of each stretch: it would get this preset anyway. Else the least.

    Returns
    -------
    list of int
        Positions; fewer than ``num`` where fewer are free.
    """
    left = np.flatnonzero(free)
    if not left.size:
        return []
    by_length = left[np.lexsort((left, rows[left]))]
    groups = np.array_split(by_length, min(num, left.size))
    best = min if valuable else max
    chosen = {int(best(group, key=lambda position: int(rank[position]))) for group in groups}
    return sorted(chosen, key=lambda position: (int(rows[position]), position))


@dataclass
class _Decaying:
    """Sums of what was expected and observed, in which the last results count most."""

    expected: float = 0.0
    observed: float = 0.0
    weight: float = 0.0

    def add(self, expected: float, observed: float, keep: float, share: float = 1.0) -> None:
        """Take in a result that counts ``share`` of one, and ages the others as much."""
        aged = keep**share
        self.expected = self.expected * aged + share * expected
        self.observed = self.observed * aged + share * observed
        self.weight = self.weight * aged + share

    def ratio(self, doubt: float) -> float:
        """Return observed over expected, drawn to 1 as by ``doubt`` average results that were as expected."""
        if not self.weight:
            return 1.0
        prior = doubt * self.expected / self.weight
        return (self.observed + prior) / (self.expected + prior)


class Pace:
    """How much slower than their cost models fits are now, by preset.

    Exponentially weighted by results. A ratio of sums, not a mean of ratios: what counts is the time that the
    rest will take, and long fits take most of it. A result of one preset also tells, less, of the others: a
    machine that slows down slows those too that were not seen since.

    Parameters
    ----------
    presets : iterable of str
    half_life : float
        Results after which one counts half.
    """

    def __init__(self, presets: Iterable[str], half_life: float = 12.0) -> None:
        self._keep = 0.5 ** (1 / half_life)
        self._ratios = {preset: _Decaying() for preset in presets}
        self._squares = _Decaying()

    def observe(self, preset: str, expected: float, observed: float, spread: float) -> None:
        """Take in a finished unit.

        Parameters
        ----------
        preset : str
        expected : float
            Seconds by the cost models.
        observed : float
            Seconds it took.
        spread : float
            By the cost model.
        """
        expected, observed = max(expected, 1e-9), max(observed, 1e-9)
        surprise = float(np.log(observed / (expected * self.factor(preset)))) + spread**2 / 2
        self._squares.add(spread**2, surprise**2, self._keep)
        for name, sums in self._ratios.items():
            if name == preset:
                sums.add(expected, observed, self._keep)
            else:  # of another scale: as if a fit of the usual length had taken so much longer
                usual = sums.expected / sums.weight if sums.weight else expected
                sums.add(usual, usual * observed / expected, self._keep, _TOLD_BY_OTHERS)

    def factor(self, preset: str) -> float:
        """Return by how much a fit of the preset takes longer than its cost model says."""
        return self._ratios[preset].ratio(_DOUBT)

    def spread(self, spread: float) -> float:
        """Return the spread of fit times: that of a cost model, corrected by what was observed."""
        return spread * float(np.sqrt(self._squares.ratio(_DOUBT)))


class Overhead:
    """By how much more than the computing of a fit its worker is occupied: handing over, keeping, starting.

    Weighted by time, not by results: the start of a worker takes as long as a thousand of the smallest fits,
    and comes once.

    Parameters
    ----------
    half_life : float
        Seconds of occupied workers after which one counts half; as many as were without overhead come first.
    """

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self._computed = self._occupied = half_life

    def observe(self, computed: float, occupied: float) -> None:
        """Take in a finished unit: seconds that it computed, and that it occupied a worker."""
        keep = 0.5 ** (occupied / self._half_life)
        self._computed = self._computed * keep + computed
        self._occupied = self._occupied * keep + max(occupied, computed)

    @property
    def factor(self) -> float:
        """Occupied over computed seconds, at least 1."""
        return self._occupied / self._computed


def models_of(presets: Iterable[str], measured: Sequence[Measured]) -> dict[str, CostModel]:
    """Learn the cost models of those presets that have a measured symbol."""
    known = {each.preset for each in measured}
    return {preset: fit_cost(preset, measured) for preset in presets if preset in known}
