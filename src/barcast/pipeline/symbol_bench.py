"""How good one symbol's own model is on its own `stop` rows, and how far that number is luck.

Models are fitted as a fleet fits them, by the same seed of the symbol. Their score is R² against zero, a mean
over horizons: what an ensemble says is the plain mean of its members, since its weights come from `weigh`,
which no search may see.

Letters: n rows of `stop`, H horizons.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from barcast.core.arrays import F64
from barcast.core.config import to_plain
from barcast.core.errors import BarcastError, DataError
from barcast.core.runs import RunFolder
from barcast.evaluation.intervals import default_block_length
from barcast.fleet.work import Unit
from barcast.pipeline.fleet_engine import checked_features, engine_of
from barcast.pipeline.fleet_lessons import Lessons
from barcast.pipeline.settings import RunConfig
from barcast.pipeline.symbol_space import OWNER, own_table

#: Share of searches over options that do nothing that may still suggest one.
ALPHA = 0.05
#: Seeds whose fits of the default say what luck in fitting is worth.
NUM_SEEDS = 3


@dataclass(frozen=True)
class Gain:
    """The best of a search against the default.

    Attributes
    ----------
    default, best : float
        R² against zero on `stop`.
    standard_error : float
        Of their difference, by blocks of sessions.
    luck : float
        Standard deviation of the default's score over seeds.
    num_blocks : int
    noise : float
        What the best of so many trials must gain before it is more than luck.
    """

    default: float
    best: float
    standard_error: float
    luck: float
    num_blocks: int
    noise: float

    @property
    def gain(self) -> float:
        """Best less default."""
        return self.best - self.default

    @property
    def is_real(self) -> bool:
        """Whether the gain is beyond noise."""
        return bool(np.isfinite(self.noise) and self.gain > self.noise)

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON; None stands for noise that too few blocks cannot tell."""
        found = {**to_plain(self), "gain": self.gain, "is_real": self.is_real}
        return {name: value if np.isfinite(value) else None for name, value in found.items()}


class SymbolBench:
    """Fits and scores options of one symbol.

    Parameters
    ----------
    config : RunConfig
        Of a fleet.
    lessons : Lessons
        Of the symbol alone.
    rows : Path
        Where its rows are kept for fits (`rows_for_workers`).
    scratch : RunFolder
        For what half-trained networks need.
    """

    def __init__(self, config: RunConfig, lessons: Lessons, rows: Path, scratch: RunFolder) -> None:
        self.config = config
        self.lessons = lessons
        self._engine = engine_of(config.model)
        self._data = lessons.data.one(0)
        self._fits = {
            seed: self._engine.source(replace(config, seed=seed), rows, scratch, in_workers=False).make()
            for seed in range(config.seed, config.seed + NUM_SEEDS)
        }
        known = [self._data.labelled("stop", h) for h in range(self._data.target.shape[1])]
        self._rows = np.unique(np.concatenate(known))
        y = np.asarray(self._data.target[self._rows], np.float64)
        self._over, self._y = _shares(self._data.symbol, y), np.nan_to_num(y)

    def attempt(
        self, tables: Mapping[str, Mapping[str, Any]], threads: int, folder: Path, observer: object
    ) -> dict[str, Any]:
        """Fit one trial and score it; answers as `Bench.attempt`, and is never pruned."""
        started = time.perf_counter()
        try:
            score = self.score(self.outputs(own_table(tables[OWNER])))
            found = {"kind": "done", "score": score, "threads": 0}
        except BarcastError as error:
            found = {"kind": "failed", "reason": str(error)}
        return found | {"seconds": time.perf_counter() - started}

    def outputs(self, own: Mapping[str, Any], seed: int | None = None) -> F64:
        """Return what a model with these options says of `stop` (n, H), in units of the target.

        Raises
        ------
        DataError
            When it cannot be fitted.
        """
        lessons, symbol = self.lessons, self._data.symbol
        options = checked_features(own, lessons.columns, lessons.source, symbol)
        preset = self._engine.ladder(self.config.options)[-1]
        fit = self._fits[self.config.seed if seed is None else seed]
        (result,) = fit(Unit((symbol,), (0,), preset, options=options))
        if result.status == "failed":
            raise DataError(f"{symbol}: {result.reason}", result.todo)
        return self._engine.outputs(self._data, result.model, self._rows)

    def score(self, outputs: F64) -> float:
        """Return R² against zero, a mean over horizons."""
        return float((self._over * (np.square(self._y) - np.square(self._y - outputs))).sum())

    def against(self, default: F64, best: F64, num_trials: int) -> Gain:
        """Return what the best of a search gained over the default, and how much of that is noise.

        Notes
        -----
        Labels that reach over the same sessions err together, so errors are summed by blocks of sessions.
        The best of N trials is N chances to be lucky: the level is divided by N (Bonferroni), with Student's
        t of the blocks. Two fits by other seeds differ too: that variance is added for both.
        """
        from scipy.special import stdtrit

        gained = (self._over * (np.square(self._y - default) - np.square(self._y - best))).sum(axis=1)
        session = self._data.session[self._rows]
        span = int(session[-1] - session[0]) + 1
        length = default_block_length(span, max(self.lessons.horizons), self.config.data.delay)
        blocks = np.bincount((session - session[0]) // length, weights=gained)
        error = float(np.sqrt(len(blocks) * blocks.var(ddof=1))) if len(blocks) > 1 else np.inf
        scores = [self.score(default), *(self.score(self.outputs({}, seed)) for seed in [*self._fits][1:])]
        luck = float(np.std(scores, ddof=1))
        limit = stdtrit(max(len(blocks) - 1, 1), 1 - ALPHA / max(num_trials, 1))
        noise = float(limit * np.sqrt(error**2 + 2 * luck**2))
        return Gain(scores[0], self.score(best), error, luck, len(blocks), noise)


def _shares(symbol: str, y: F64) -> F64:
    """Return what squared errors are multiplied with, (n, H); 0 where the label is not known.

    Raises
    ------
    DataError
        When a horizon has no label, or none but 0.
    """
    known = np.isfinite(y)
    squares = np.square(np.where(known, y, 0.0)).sum(axis=0)
    if not (squares > 0).all():
        raise DataError(
            f"{symbol}: `stop` has no label but 0 of some horizon", "other --segments, with a longer `stop`"
        )
    return np.where(known, 1 / (squares * len(squares)), 0.0)
