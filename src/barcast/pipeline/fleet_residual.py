"""``barcast fleet trees --on residual``: small models of what the universal model leaves, each shrunk.

::

    forecast of a symbol = c * universal + slope * what its own model expects the universal one to leave

- `c` brings the universal model's score to the unit of what the fleet learns (networks state it almost,
  others need not): the slope through the origin of the target on the score, over the rows of `fit` that were
  forecast out of fold, shrunk by its own error like the maps of `weigh`.
- A symbol's model learns ``target - c * universal`` on `fit`, from forecasts that never saw those labels
  (`fleet_universal`), and stops on `stop`. Members are weighed on `weigh`, as in any fleet.
- Its slope is what residuals of `weigh` turned out to be on what was forecast of them, drawn from symbol to
  industry to market to 0 (`ensemble.shrinkage`): a fleet that learned noise leaves the universal model as it
  is. So that weights chosen by an outcome do not pass for knowledge of it, members that judge one half of
  `weigh` are weighed on the other, purged (`halves_of_weigh`); those that serve, on all of it. A symbol
  without a model of its own has slope 0: the universal forecast.

`route` and `test` have no part in any of it. A refit learns from every known label with a forecast that did
not see it (those of `fit` out of fold, later ones by the evaluated universal run; not those of `stop`, which
chose that run), keeps `c` and the slopes of its evaluation, and serves with the refit of the universal run.
Which run serves beside the fleet is on record with the digest of its weights, and a forecast without it is
refused.

Letters: R rows, S symbols, H horizons, I industries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from barcast.core.arrays import F64, I64, Bools
from barcast.core.bars import Bars
from barcast.core.errors import RunError
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.ensemble.shrinkage import Shrinkage, shrink
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.pipeline.attributes import attribute_values, known_attributes
from barcast.pipeline.dataset import Dataset
from barcast.pipeline.fleet_engine import engine_of
from barcast.pipeline.fleet_lessons import lessons_of, target_scale
from barcast.pipeline.fleet_seen import LEANS_ON
from barcast.pipeline.fleet_universal import (
    Universal,
    is_residual,
    recorded_universal,
    stored_scores,
    unseen_scores,
)
from barcast.pipeline.forecast import shrunken_slope
from barcast.pipeline.market import Market
from barcast.pipeline.record import known_until
from barcast.pipeline.searched import inherit_search
from barcast.pipeline.settings import RunConfig
from barcast.store import MarketStore

#: Kind of pooled values in the ledger, and the name among its plain ones of the slopes `c`.
SLOPES, CALIBRATION = "slopes", "calibration"


@dataclass(frozen=True)
class Residual:
    """What a residual fleet learns, and what its forecasts are added to.

    Attributes
    ----------
    universal : Universal
        The run that serves beside the fleet.
    calibration : tuple of float
        ``c`` of each horizon.
    base : F64, shape (R, H)
        ``c`` times the universal score by which the row was not learned, in units of the target; NaN where
        there is none.
    learned : Dataset
        The rows with the residual as their target, without those that have no forecast.
    industry : tuple of str, length S
        Empty where not on record.
    evaluated : RunFolder or None
        The fleet whose refit this is: its slopes are kept.
    """

    universal: Universal
    calibration: tuple[float, ...]
    base: F64
    learned: Dataset
    industry: tuple[str, ...]
    evaluated: RunFolder | None

    @property
    def known_until(self) -> str:
        """When the last label became known that is in the universal forecasts."""
        return known_until(self.universal.run)

    def conclude(self, run: RunFolder, own: Callable[[I64], F64]) -> Callable[[I64], F64]:
        """Keep how far the fleet's forecasts are believed, and return what forecasts with them.

        Parameters
        ----------
        own : callable
            Rows (n,) to what the symbols' models expect (n, H); NaN where a symbol has none.
        """
        with Ledger.open(run.fleet / LEDGER, readonly=False) as ledger:
            if self.evaluated is None:
                found = self._slopes(self._to_judge(run, ledger, own))
            else:
                found = _slopes_of(self.evaluated)
            done = [row.symbol for row in ledger.rows(status=["done"]) if row.symbol in found]
            with ledger.together():
                ledger.set_meta({CALIBRATION: list(self.calibration)})
                ledger.set_pooled(SLOPES, {symbol: found[symbol] for symbol in done})
        bars, joined = self.learned.market.bars, _Joined.of(run)
        return lambda rows: joined.scores(bars, rows, self.base[rows], own(rows))

    def _to_judge(self, run: RunFolder, ledger: Ledger, own: Callable[[I64], F64]) -> F64:
        """Return forecasts (n, H) of the rows of `weigh` that had no part in the weights of their members."""
        lessons, rows = lessons_of(self.learned, "length"), self.learned.rows_to_judge("weigh")
        engine = engine_of(str(run.info["model"]))
        found = engine.cross_weighed(ledger, lessons, halves_of_weigh(self.learned))
        return own(rows) if found is None else found[rows]

    def _slopes(self, forecast: F64) -> dict[str, list[dict[str, Any]]]:
        """Return the evidence for each symbol's slope, one a horizon, from forecasts (n, H) of `weigh`."""
        dataset, codes = self.learned, _codes(self.industry)
        market = dataset.market
        bars, spec = market.bars, market.labels.spec
        rows = dataset.rows_to_judge("weigh")
        realised = dataset.target[rows].astype(np.float64)
        offsets = np.searchsorted(rows, bars.offsets)
        evidence: dict[str, list[dict[str, Any]]] = {symbol: [] for symbol in bars.symbols}
        for h, horizon in enumerate(spec.horizons):
            scale = target_scale(dataset, horizon)[rows]
            found = shrink(
                forecast[:, h] / scale, realised[:, h] / scale, offsets, bars.session[rows], codes,
                horizon=horizon, delay=spec.delay,
            )  # fmt: skip
            for position, symbol in enumerate(bars.symbols):
                evidence[symbol].append(_evidence(found, position, self.industry, codes))
        return evidence


def halves_of_weigh(dataset: Dataset) -> tuple[tuple[Bools, Bools], tuple[Bools, Bools]]:
    """Return pairs of rows (R,) that weigh members and rows to judge them by: either half of `weigh` in turn.

    No label of a row that weighs overlaps one that judges.
    """
    market = dataset.market
    session, known = market.bars.session, market.labels.last_known_at
    first, last = market.plan.spans["weigh"]
    middle = (first + last + 1) // 2
    after = middle + market.labels.spec.label_sessions
    weigh = np.zeros(len(session), bool)
    weigh[dataset.rows_to_judge("weigh")] = True
    early, late = weigh & (session < middle), weigh & (session >= middle)
    return (early & (known < middle), late), (late & (session >= after), early & (known < after))


def residual_of(
    workspace: Workspace, run: RunFolder, config: RunConfig, dataset: Dataset, progress: Progress, *,
    evaluated: RunFolder | None = None, serving: RunFolder | None = None,
) -> Residual | None:  # fmt: skip
    """Return what a residual fleet learns, of any other run None; what is computed is kept with the run.

    Parameters
    ----------
    run : RunFolder
        The fleet, begun.
    dataset : Dataset
        Its rows, with the target itself.
    evaluated : RunFolder, optional
        The fleet whose refit this is.
    serving : RunFolder, optional
        Of a refit the universal run that serves beside it.

    Raises
    ------
    RunError
        When the universal run is not the one that the fleet began with.
    """
    if not is_residual(config):
        return None
    known = recorded_universal(workspace, evaluated or run)
    universal = known or Universal.of(RunFolder(workspace.runs / config.options.universal))
    beside = universal if serving is None else Universal.of(serving)
    run.update(**{LEANS_ON: beside.plain()})
    inherit_search(run, universal.run)
    Ledger.create(run.fleet / LEDGER).close()  # it has a status while the universal model is trained again
    scores = unseen_scores(workspace, run, universal.run, dataset.market, progress, evaluated)
    if evaluated is None:
        calibration = _calibrate(dataset, scores)
        said = ", ".join(f"{each:.3g}" for each in calibration)
        progress.note(f"{universal.run.name} out of fold: the target is {said} times what it says")
    else:
        calibration = _Joined.of(evaluated).calibration
    base = scores * np.array(calibration)
    target = (dataset.target - base).astype(np.float32)
    teach = dataset.teach & np.isfinite(target).any(axis=1)
    if evaluated is not None:
        teach &= ~_chose(evaluated, dataset.market.bars)
    learned = replace(dataset, target=target, teach=teach)
    industry = _industries(workspace, dataset.market)
    return Residual(beside, calibration, base, learned, industry, evaluated)


def _chose(evaluated: RunFolder, bars: Bars) -> Bools:
    """Return which rows (R,) of bars chose the universal run: those of the evaluation's `stop`."""
    first, last = (np.datetime64(time) for time in evaluated.read("state.json")["segments"]["stop"])
    times = bars.calendar.times[bars.session]
    return np.asarray((times >= first) & (times <= last), np.bool_)


def with_universal_forecast(
    workspace: Workspace, run: RunFolder, config: RunConfig, bars: Bars, rows: I64, own: F64
) -> F64:
    """Return the scores (n, H) that a fleet serves for rows of bars, from those of its own models.

    Of a plain fleet these are the same.

    Raises
    ------
    RunError
        When the universal run of a residual fleet is gone, or no longer the one that it learned to correct.
    """
    if not is_residual(config):
        return own
    universal = recorded_universal(workspace, run)
    if universal is None:
        raise RunError(f"`{run.name}` does not say what it corrects", "fit it again with --fresh")
    joined = _Joined.of(run)
    base = stored_scores(workspace, universal.run, bars, rows) * np.array(joined.calibration)
    return joined.scores(bars, rows, base, own)


@dataclass(frozen=True)
class _Joined:
    """How a finished residual fleet joins two forecasts."""

    calibration: tuple[float, ...]
    slopes: dict[str, list[float]]

    @classmethod
    def of(cls, run: RunFolder) -> _Joined:
        with Ledger.open(run.fleet / LEDGER) as ledger:
            calibration, found = ledger.meta().get(CALIBRATION), ledger.pooled(SLOPES)
        if calibration is None:
            raise RunError(f"`{run.name}` was not finished: it has no slopes yet", "run its command again")
        slopes = {symbol: [each["slope"] for each in evidence] for symbol, evidence in found.items()}
        return cls(tuple(calibration), slopes)

    def scores(self, bars: Bars, rows: I64, base: F64, own: F64) -> F64:
        """Add what symbols' own models expect (n, H), as far as it is believed, to ``base`` (n, H)."""
        none = [0.0] * len(self.calibration)
        slopes = np.array([self.slopes.get(symbol, none) for symbol in bars.symbols])
        return np.asarray(base + slopes[bars.symbol_of_row[rows]] * np.nan_to_num(own), np.float64)


def _slopes_of(evaluated: RunFolder) -> dict[str, Any]:
    with Ledger.open(evaluated.fleet / LEDGER) as ledger:
        return ledger.pooled(SLOPES)


def _calibrate(dataset: Dataset, scores: F64) -> tuple[float, ...]:
    """Return the slope of the target on the universal score of each horizon, over the rows that teach."""
    session, slopes = dataset.market.bars.session, []
    for h, horizon in enumerate(dataset.market.labels.spec.horizons):
        known = dataset.teach & np.isfinite(scores[:, h]) & np.isfinite(dataset.target[:, h])
        y = dataset.target[known, h].astype(np.float64)
        slopes.append(shrunken_slope(scores[known, h], y, session[known] // (2 * horizon)))
    return tuple(slopes)


def _industries(workspace: Workspace, market: Market) -> tuple[str, ...]:
    """Return each symbol's industry as of the version of the store that a run learns from."""
    store, symbols = MarketStore.open(workspace.market), market.bars.symbols
    if "industry" not in known_attributes(store.facts(market.store_version), store.meta.market):
        return ("",) * len(symbols)
    return attribute_values(store, ("industry",), symbols, market.store_version)["industry"]


def _codes(industry: Sequence[str]) -> I64:
    """Return each symbol's code, -1 where its industry is not on record."""
    place = {name: code for code, name in enumerate(sorted({*industry} - {""}))}
    return np.array([place.get(name, -1) for name in industry], np.int64)


def _evidence(found: Shrinkage, position: int, industry: Sequence[str], codes: I64) -> dict[str, Any]:
    """Return why a symbol's slope is what it is; None stands for numbers that there are not."""
    own, code = found.symbols, int(codes[position])
    numbers = {
        "own": own.slope[position], "standard_error": own.standard_error[position],
        "industry_slope": found.industries.shrunken[code] if code >= 0 else np.nan,
        "market_slope": found.market.shrunken[0],
    }  # fmt: skip
    return {
        "slope": float(found.factor[position]), "strength": float(own.strength[position]),
        "industry": industry[position],
        **{name: float(value) if np.isfinite(value) else None for name, value in numbers.items()},
    }  # fmt: skip
