"""What one symbol's network learns from: its rows made comparable, what teaches, what judges, and when.

Everything here is a function of the symbol's own rows, its options and its own seed: the batch that it trains
in, its seat and when it was seated change nothing.

Letters: n rows of the symbol, F inputs, H horizons, M stretches.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from barcast.core.arrays import F32, F64, I64, Bools
from barcast.core.errors import DataError
from barcast.fleet.data import SymbolData
from barcast.fleet.networks.presets import NetworkPreset
from barcast.windows.index import Stretches, cut_stretches, random_phases, shuffled
from barcast.windows.normalise import CLIP, RESOLUTION

#: Fewer known labels in `stop` than this say nothing about when to stop.
MIN_STOP = 20


@dataclass(frozen=True)
class Scaler:
    """How a symbol's inputs and targets are brought to the order of one.

    Attributes
    ----------
    mean, scale : F32, shape (F,)
        Inputs become ``(x - mean) * scale``, clipped at 5; the scale of an input that is not read is 0.
        An input that is constant in `fit` (a validity channel, say) stays as it is.
    target : F32, shape (H,)
        Root mean square of the targets in `fit`; outputs are multiplied with it. Zero stays "no opinion".
    clipped : bool
        False where inputs are taken as they are.
    """

    mean: F32
    scale: F32
    target: F32
    clipped: bool

    @classmethod
    def fit(cls, data: SymbolData, rows: I64, preset: NetworkPreset) -> Scaler:
        """Fit on those rows alone; a horizon without a label, or with nothing but zeros, has scale 0."""
        num_inputs = data.inputs.shape[1]
        mean, scale = np.zeros(num_inputs), np.ones(num_inputs)
        if preset.normalise == "symbol":
            own = np.asarray(data.inputs[rows], np.float64)
            spread = own.std(axis=0)
            varies = spread > RESOLUTION * np.abs(own.mean(axis=0))
            mean = np.where(varies, own.mean(axis=0), 0.0)
            scale = np.where(varies, 1 / np.where(varies, spread, 1.0), 1.0)
        if preset.features:
            scale[np.setdiff1d(np.arange(num_inputs), preset.features)] = 0.0
        taught = np.asarray(data.target[rows], np.float64)
        known = np.isfinite(taught)
        squares = np.where(known, taught, 0.0) ** 2
        target = np.sqrt(squares.sum(axis=0) / np.maximum(known.sum(axis=0), 1))
        mean32, scale32, target32 = (np.asarray(part, np.float32) for part in (mean, scale, target))
        return cls(mean32, scale32, target32, clipped=preset.normalise == "symbol")

    def inputs(self, values: F32) -> F32:
        """Return what the network reads of rows (n, F)."""
        found = (values - self.mean) * self.scale
        return np.clip(found, -CLIP, CLIP, out=found) if self.clipped else found


@dataclass(frozen=True)
class Lessons:
    """One symbol, ready to be seated.

    Attributes
    ----------
    inputs : F32, shape (n, F)
    taught, judged : F32, shape (n, H)
        Targets over their scale, NaN where they do not teach, or do not judge.
    lives : I64, shape (num_lives + 1,)
        Borders of unbroken rows.
    grid : Stretches
        The fixed stretches that `stop` is judged on; none where the number of epochs is fixed.
    num_rows : int
        Rows that teach.
    scaler : Scaler
    preset : NetworkPreset
    seed : int
        The symbol's own.
    """

    inputs: F32
    taught: F32
    judged: F32
    lives: I64
    grid: Stretches
    num_rows: int
    scaler: Scaler
    preset: NetworkPreset
    seed: int

    def batches(self, epoch: int) -> list[Stretches]:
        """Cut an epoch at a phase of its own, shuffle it, and deal it into nearly equal steps."""
        length, size = self.preset.stretch_length, self.preset.num_stretches
        phases = random_phases(len(self.lives) - 1, length, seed=self.seed, epoch=epoch)
        whole = cut_stretches(self.lives, _any_known(self.taught), length, phases)
        order = shuffled(len(whole), seed=self.seed, epoch=epoch)
        return [whole.take(chunk) for chunk in np.array_split(order, -(-len(order) // size))]


def symbol_seed(seed: int, symbol: str) -> int:
    """Return a symbol's own seed: 63 bits of a hash, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{symbol}".encode(), digest_size=8).digest(), "little") >> 1


def lessons_of(data: SymbolData, preset: NetworkPreset, seed: int) -> Lessons:
    """Prepare a symbol.

    Raises
    ------
    DataError
        Where the symbol has too few labels, none that differ from 0, or inputs that are no numbers or never
        change.
    """
    fit = _known(data, "fit")
    stop = np.zeros(0, np.int64) if preset.fixed_epochs else _known(data, "stop")
    _check_enough(data, fit, stop, preset)
    if not np.isfinite(data.inputs).all():
        row = int(np.flatnonzero(~np.isfinite(data.inputs).all(axis=1))[0])
        raise DataError(f"an input of row {row} is no number", "look at it with `barcast data check`")
    scaler = Scaler.fit(data, fit, preset)
    inputs = scaler.inputs(np.asarray(data.inputs))
    if not np.ptp(inputs[fit], axis=0).any():
        raise DataError("no input changes in `fit`", "choose other features; the universal model serves it")
    over = _over(scaler.target)
    taught, judged = (np.full(data.target.shape, np.nan, np.float32) for _ in range(2))
    taught[fit], judged[stop] = data.target[fit] * over, data.target[stop] * over
    needed = (taught,) if preset.fixed_epochs else (taught, judged)
    if not all(np.nan_to_num(each).any() for each in needed):
        raise DataError("every label of `fit` or of `stop` is 0", "the universal model serves it")
    lives = np.append(np.unique(data.life_start), len(data.inputs)).astype(np.int64)
    grid = cut_stretches(lives, _any_known(judged), preset.stretch_length)
    return Lessons(
        inputs, taught, judged, lives, grid, len(fit), scaler, preset, symbol_seed(seed, data.symbol)
    )


def _known(data: SymbolData, segment: str) -> I64:
    """Return the rows of a segment with a label of any horizon."""
    found = [data.labelled(segment, horizon) for horizon in range(data.target.shape[1])]
    return np.unique(np.concatenate(found))


def _any_known(targets: F32) -> Bools:
    return np.asarray(np.isfinite(targets).any(axis=1))


def _over(scale: F32) -> F64:
    """Return what targets are multiplied with; a horizon without any spread teaches nothing (NaN)."""
    return 1 / np.where(scale > 0, scale, np.nan).astype(np.float64)


def _check_enough(data: SymbolData, fit: I64, stop: I64, preset: NetworkPreset) -> None:
    least_stop = 0 if preset.fixed_epochs else MIN_STOP
    for name, rows, least in (("fit", fit, preset.min_rows), ("stop", stop, least_stop)):
        if len(rows) < least:
            raise DataError(
                f"{len(rows)} known labels in `{name}`, a network of one's own needs {least}",
                "the universal model serves it until there is more history",
            )
    wrong = [position for position in preset.features if not 0 <= position < data.inputs.shape[1]]
    if wrong:
        raise DataError(f"there is no input {wrong[0]}", f"positions are 0 .. {data.inputs.shape[1] - 1}")
