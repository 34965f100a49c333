"""Fitting a fleet: a model for each symbol that has the rows, inside a budget, resumed after any kill."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from barcast.core.arrays import F64, I64
from barcast.core.config import digest
from barcast.core.errors import DataError, UsageError
from barcast.core.progress import Progress, count
from barcast.core.runs import RunFolder
from barcast.core.texts import counted
from barcast.fleet.budget import Plan
from barcast.fleet.calibrate import Measured
from barcast.fleet.data import FleetData
from barcast.fleet.driver import Driver
from barcast.fleet.executors import ExecutorName, executor
from barcast.fleet.floor import Job, Workers
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.ledger_rows import Planned, Wanted
from barcast.fleet.limits import Limits
from barcast.fleet.trees.fit import compile_kernels
from barcast.fleet.trees.packed_fleet import PackedFleet
from barcast.fleet.trees.presets import MEMBERS, configured
from barcast.fleet.work import FitSource
from barcast.models.dedicated import FleetTreesConfig
from barcast.pipeline.dataset import Dataset
from barcast.pipeline.fleet_rows import (
    TOO_SHORT,
    candidates_of,
    check_symbols,
    fleet_data,
    rows_digests,
    rows_for_workers,
    too_short,
    values_of,
)
from barcast.pipeline.fleet_weights import packed_fleet, take_weights, weigh_members
from barcast.pipeline.settings import RunConfig

NOT_EVALUATED = "no model in the evaluation that this refits"
#: How the reasons begin that another call would not change.
SETTLED = (TOO_SHORT, NOT_EVALUATED)
#: Presets by work, the lightest first; a budget may give a symbol any up to the one that was asked for.
LADDERS: Mapping[str, tuple[str, ...]] = {
    "extreme": ("extreme",),
    "fast": ("extreme", "fast"),
    "standard": ("extreme", "fast", "standard"),
    "high": ("extreme", "fast", "standard", "high"),
    "published": ("extreme", "fast", "published"),
}


@dataclass(frozen=True, kw_only=True)
class FleetHow:
    """What a fleet may take and who computes it; it shapes no model but by the presets that it commits.

    Attributes
    ----------
    limits : Limits
    executor : str
        ``serial``, ``processes`` or ``ray``.
    address : str
        Of a Ray cluster; empty: one on this machine.
    batch_size : int
        Units a worker is handed at a time; 0: as their seconds ask for.
    priority : str
        Who comes first where not all can be served: ``turnover``, ``length`` or a CSV file.
    """

    limits: Limits = field(default_factory=Limits)
    executor: ExecutorName = "processes"
    address: str = ""
    batch_size: int = 0
    priority: str = "turnover"


@dataclass(frozen=True)
class Fitted:
    """A fleet that is fitted as far as its budget allowed.

    Attributes
    ----------
    packed : PackedFleet
        All models and weights, mapped.
    facts : dict
        For run.json.
    """

    packed: PackedFleet
    facts: dict[str, Any]

    def predict(self, dataset: Dataset, rows: I64) -> F64:
        """Return scores (n, H) of rows; NaN where a symbol has no model of its own."""
        bars = dataset.market.bars
        return scores_of(
            self.packed, dataset.inputs[rows], [bars.symbols[s] for s in bars.symbol_of_row[rows]]
        )


def scores_of(packed: PackedFleet, inputs: Any, symbols: list[str]) -> F64:
    """Return scores (n, H) of rows by the symbol of each; NaN where it has no model of its own."""
    places = {symbol: position for position, symbol in enumerate(packed.symbols)}
    which = np.array([places.get(symbol, -1) for symbol in symbols], np.int64)
    scores = np.full((len(which), packed.directory.shape[1]), np.nan)
    served = np.flatnonzero(which >= 0)
    if len(served):
        scores[served] = packed.scores(np.asarray(inputs[served], np.float32), which[served])
    return scores


def fit_fleet(
    config: RunConfig, dataset: Dataset, run: RunFolder, progress: Progress, how: FleetHow,
    parent: RunFolder | None = None,
) -> Fitted:  # fmt: skip
    """Fit what the ledger of the run does not have yet, weigh the members, pack it all.

    Parameters
    ----------
    how : FleetHow
    parent : RunFolder, optional
        The evaluation whose refit this is: its presets, rounds and weights are kept.

    Raises
    ------
    DataError
        When no symbol has the rows for a model of its own, or none could be fitted.
    ResourceError
        When the memory allowed holds not even one worker.
    """
    started = time.perf_counter()
    with _ready_to_fit(config, dataset, run, progress, how, parent) as (ledger, evaluated, data, drivers):
        for driver in drivers:
            driver.calibrate()
            plan = driver.plan()
            for line in plan.render():
                progress.note(line)
            progress.note(driver.run(plan).render())
            driver.close()
        if not ledger.counts()["done"]:
            raise _nothing_fitted(ledger)
        progress.note("weighing members, packing models")
        if evaluated is None:
            weigh_members(ledger, data, dataset)
        else:
            take_weights(ledger, evaluated)
        packed = packed_fleet(ledger, run.fleet)
        return Fitted(packed, _facts(ledger, time.perf_counter() - started))


def plan_fits(
    config: RunConfig, dataset: Dataset, run: RunFolder, progress: Progress, how: FleetHow
) -> list[Plan]:
    """Fit only what measures the presets, and return the plan of the rest."""
    with _ready_to_fit(config, dataset, run, progress, how, None) as (_, _, _, drivers):
        plans = []
        for driver in drivers:
            driver.calibrate()
            plans.append(driver.plan())
        return plans


def has_more_to_fit(run: RunFolder) -> bool:
    """Return whether symbols of a finished fleet wait for another call: left out by a budget, or retried."""
    with Ledger.open(run.fleet / LEDGER) as ledger:
        counts = ledger.counts()
        left = [row.reason for row in ledger.rows(status=["left_out"])]
    waiting = counts["pending"] + counts["running"]
    return bool(waiting) or not all(reason.startswith(SETTLED) for reason in left)


@contextmanager
def _ready_to_fit(
    config: RunConfig, dataset: Dataset, run: RunFolder, progress: Progress, how: FleetHow,
    parent: RunFolder | None,
) -> Iterator[tuple[Ledger, Ledger | None, FleetData, list[Driver]]]:  # fmt: skip
    """Open ledgers, put the rows where workers find them, and make a driver for each job that is left."""
    data, options = fleet_data(dataset), config.options
    with ExitStack() as held:
        ledger = held.enter_context(Ledger.create(run.fleet / LEDGER))
        evaluated = held.enter_context(Ledger.open(parent.fleet / LEDGER)) if parent else None
        jobs = _jobs(ledger, data, dataset, options, how, evaluated, progress)
        folder = held.enter_context(rows_for_workers(data, run.fleet / "rows"))
        source = FitSource(
            "barcast.fleet.trees.fit", "make_fit",
            {"folder": str(folder), "seed": config.seed, "options": shared_options(options)},
        )  # fmt: skip
        compile_kernels()  # once, here: workers find them in the cache
        drivers = [Driver(ledger, _workers(source, how), job, progress=progress) for job in jobs]
        for driver in drivers:
            held.callback(driver.close)
        yield ledger, evaluated, data, drivers


def check_options(options: FleetTreesConfig, dataset: Dataset) -> None:
    """Refuse options of symbols that are not here, or that no fit could read.

    Raises
    ------
    UsageError
        With the symbol, and the nearest known name.
    """
    check_symbols(dataset.market.bars.symbols, options.symbol_options, "--symbol-config")
    for symbol in options.symbol_options:
        _own_options(options, dataset, symbol)
    configured(options.preset, shared_options(options))


def shared_options(options: FleetTreesConfig) -> dict[str, Any]:
    """Return what differs from the preset for all symbols, as the fit of an ensemble reads it."""
    own = {str(name): dict(getattr(options, name)) for name in MEMBERS if getattr(options, name)}
    return {"min_rows": options.min_rows, **own}


def _jobs(
    ledger: Ledger, data: FleetData, dataset: Dataset, options: FleetTreesConfig, how: FleetHow,
    evaluated: Ledger | None, progress: Progress,
) -> list[Job]:  # fmt: skip
    """Write down what is wanted, and return what is left to do: one job, or of a refit one a preset."""
    chosen = {row.symbol: row for row in evaluated.rows(status=["done"])} if evaluated is not None else {}
    overrides = {
        symbol: {**_kept_rounds(chosen[symbol].metrics), **own} if symbol in chosen else own
        for symbol in data.symbols
        if (own := _own_options(options, dataset, symbol)) or symbol in chosen
    }
    presets = {symbol: row.preset for symbol, row in chosen.items()}
    short = too_short(
        data, options.min_rows, {s: o["min_rows"] for s, o in overrides.items() if "min_rows" in o}
    )
    if evaluated is not None:
        told = {row.symbol: row.reason for row in evaluated.rows()}
        short |= {
            symbol: told.get(symbol) or NOT_EVALUATED for symbol in data.symbols if symbol not in chosen
        }
    plan = ledger.plan(_wanted(data, options, overrides, presets))
    ledger.leave_out({each.symbol: short[each.symbol] for each in plan.todo if each.symbol in short})
    todo = [each for each in plan.todo if each.symbol not in short]
    _say(plan.done, todo, short, progress)
    value, known = (
        values_of(dataset, how.priority),
        [Measured.of_row(row) for row in ledger.rows(status=["done"])],
    )
    groups: dict[tuple[str, ...], list[Planned]] = {}
    for each in todo:
        ladder = (presets[each.symbol],) if each.symbol in presets else LADDERS[options.preset]
        groups.setdefault(ladder, []).append(each)
    return [
        Job(
            candidates_of(data, value, {each.symbol: each.position for each in group}), ladder,
            how.limits, overrides=overrides, known=known,
            attempts={each.symbol: each.attempts for each in group},
        )
        for ladder, group in groups.items()
    ]  # fmt: skip


def _own_options(options: FleetTreesConfig, dataset: Dataset, symbol: str) -> dict[str, Any]:
    """Return the overrides of a symbol as the fit reads them: features by position.

    Raises
    ------
    UsageError
        On an option that there is not, or a feature that the rows do not have.
    """
    own = dict(options.symbol_options.get(symbol, {}))
    if not own:
        return {}
    if "features" in own:
        columns = list(dataset.features.names)
        if strange := [name for name in own["features"] if name not in columns]:
            raise UsageError(
                f"--symbol-config: {symbol} asks for features that are not in `{dataset.features.name}`: "
                f"{', '.join(map(str, strange))}",
                f"its features: {', '.join(columns)}",
            )
        own["features"] = [columns.index(name) for name in own["features"]]
    configured(options.preset, shared_options(options), own)
    return own


def _kept_rounds(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what early stopping chose, as options of a refit, which has no `stop`."""
    kept: dict[str, Any] = {}
    for member in ("xgboost", "lightgbm"):
        found = [
            each["members"][member]["trees"] for each in metrics["horizons"] if member in each["members"]
        ]
        if found:
            kept[member] = {"num_rounds": max(round(float(np.mean(found))), 1), "early_stopping_rounds": 0}
    return kept


def _wanted(
    data: FleetData, options: FleetTreesConfig, overrides: Mapping[str, Any], presets: Mapping[str, str]
) -> list[Wanted]:
    shared = shared_options(options)
    rows = rows_digests(data)
    return [
        Wanted(
            symbol, position,
            digest([presets.get(symbol, options.preset), shared, overrides.get(symbol, {})]), rows[position],
        )
        for position, symbol in enumerate(data.symbols)
    ]  # fmt: skip


def _say(done: int, todo: list[Planned], short: Mapping[str, str], progress: Progress) -> None:
    reasons: dict[str, int] = {}
    for each in todo:
        reasons[each.why] = reasons.get(each.why, 0) + 1
    told = ", ".join(f"{num:,} {why}" for why, num in reasons.items())
    progress.note(
        f"{counted(len(todo), 'symbol')} to fit{f' ({told})' if told else ''}, {done:,} done before, "
        f"{len(short):,} without the rows for a model of their own"
    )


def _workers(source: FitSource, how: FleetHow) -> Workers:
    return lambda num, worker_bytes: executor(
        how.executor, num, source, worker_bytes=worker_bytes, batch_size=how.batch_size or None,
        address=how.address or None,
    )  # fmt: skip


def _nothing_fitted(ledger: Ledger) -> DataError:
    rows = ledger.rows(status=["failed", "left_out"])
    told = {row.reason for row in rows}
    first = rows[0] if rows else None
    return DataError(
        f"none of {counted(len(rows), 'symbol')} could be given a model of its own: "
        + (
            first.reason if first is not None and len(told) == 1 else f"{len(told)} reasons, see fleet status"
        ),
        "more history, or a smaller --min-rows" if first is not None else "barcast data info",
    )


def _facts(ledger: Ledger, seconds: float) -> dict[str, Any]:
    counts, rows = ledger.counts(), ledger.rows(status=["done"])
    presets: dict[str, int] = {}
    for row in rows:
        presets[row.preset] = presets.get(row.preset, 0) + 1
    return {
        "seconds": seconds,
        "num_models": counts["done"],
        "num_failed": counts["failed"],
        "num_left_out": counts["left_out"],
        "presets": presets,
        "fit_seconds": sum(row.seconds for row in rows),
        "ledger_bytes": ledger.size_bytes(),
        "fleet": f"{count(counts['done'])} models",
    }
