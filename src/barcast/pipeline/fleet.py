"""Fitting a fleet: a model for each symbol that has the rows, inside a budget, resumed after any kill."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from barcast.core.arrays import F64, I64
from barcast.core.config import digest
from barcast.core.errors import DataError, UsageError
from barcast.core.memory import tree_pss_bytes
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.texts import counted, some
from barcast.fleet.budget import Plan
from barcast.fleet.calibrate import Measured
from barcast.fleet.data import FleetData
from barcast.fleet.driver import Driver
from barcast.fleet.executors import ExecutorName, check_executor, executor
from barcast.fleet.floor import Job, Workers
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.ledger_rows import LedgerRow, Planned, Wanted
from barcast.fleet.limits import Limits
from barcast.fleet.work import FitSource
from barcast.pipeline.dataset import Dataset
from barcast.pipeline.fleet_engine import Engine, Served, checked_features, engine_of
from barcast.pipeline.fleet_even import dropped_fits, even_out, fits_begin
from barcast.pipeline.fleet_lessons import Lessons, lessons_of
from barcast.pipeline.fleet_rows import (
    NOT_EVALUATED,
    TOO_SHORT,
    candidates_of,
    check_symbols,
    rows_digests,
    rows_for_workers,
    rows_to_serve,
    who_waits,
)
from barcast.pipeline.fleet_taken import Older
from barcast.pipeline.settings import RunConfig

#: Name among the plain values of a refit's ledger: a digest of the evaluation's models that it refits.
_EVALUATED = "evaluated"


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
        Symbols a worker is handed at a time; 0: as their seconds ask for, of networks as train together.
    priority : str
        Who comes first where not all can be served: ``turnover``, ``length`` or a CSV file.
    only : frozenset of str, optional
        Symbols to fit; others stay as the ledger has them. None: all.
    """

    limits: Limits = field(default_factory=Limits)
    executor: ExecutorName = "processes"
    address: str = ""
    batch_size: int = 0
    priority: str = "turnover"
    only: frozenset[str] | None = None

    def __post_init__(self) -> None:
        check_executor(self.executor, self.address or None)

    def of_a_refit(self) -> FleetHow:
        """Return the same without limits of time: a refit has the presets that its evaluation chose."""
        return replace(self, limits=replace(self.limits, budget=None, time_per_symbol=None))


@dataclass(frozen=True)
class Fitted:
    """A fleet that is fitted as far as its budget allowed.

    Attributes
    ----------
    served : Served
        All models that are finished.
    facts : dict
        For run.json.
    """

    served: Served
    facts: dict[str, Any]

    def predict(self, dataset: Dataset, rows: I64) -> F64:
        """Return scores (n, H) of rows; NaN where a symbol has no model of its own."""
        num_horizons = dataset.target.shape[1]
        return self.served.scores(rows_to_serve(dataset.market.bars, dataset.inputs, num_horizons), rows)


def fit_fleet(
    config: RunConfig, dataset: Dataset, run: RunFolder, progress: Progress, how: FleetHow,
    parent: RunFolder | None = None,
) -> Fitted:  # fmt: skip
    """Fit what the ledger of the run does not have yet, and make it ready to answer.

    Parameters
    ----------
    how : FleetHow
    parent : RunFolder, optional
        The evaluation whose refit this is: its presets, rounds (or epochs) and weights are kept.

    Raises
    ------
    DataError
        When no symbol has the rows for a model of its own, or none could be fitted.
    ResourceError
        When the memory allowed holds not even one worker.
    """
    older = Older.of(run) if how.only is None else Older()  # else nobody but those is touched
    lessons = lessons_of(dataset, how.priority, progress)
    return fit_lessons(config, lessons, run, progress, how, parent, older)


def fit_lessons(
    config: RunConfig, lessons: Lessons, run: RunFolder, progress: Progress, how: FleetHow,
    parent: RunFolder | None = None, older: Older | None = None,
) -> Fitted:  # fmt: skip
    """Fit a fleet on rows wherever they come from; otherwise as :func:`fit_fleet`.

    What measured lighter presets is fitted again in a second round, with the one that was asked for. What
    ``older`` fleets fitted alike is taken over.
    """
    started, engine, evened = time.perf_counter(), engine_of(config.model), False
    while True:
        ready = _ready_to_fit(config, lessons, run, progress, how, parent, older)
        with ready as (ledger, evaluated, drivers):
            if drivers and parent is None and not evened:
                fits_begin(ledger, budget=how.limits.budget is not None)
            for driver in drivers:
                driver.calibrate()
                plan = driver.plan()
                for line in plan.render():
                    progress.note(line)
                progress.note(driver.run(plan).render())
                driver.close()
            if not ledger.counts()["done"]:
                raise _nothing_fitted(ledger)
            if parent is None and not evened:
                base = drivers[0].base_bytes if drivers else tree_pss_bytes()
                ladder, settings = engine.ladder(config.options), _settings(config)
                evened = even_out(ledger, ladder, settings, how.limits, base, progress, how.only)
                if evened:
                    continue
            served = engine.conclude(ledger, evaluated, lessons, run, progress)
            return Fitted(served, _facts(ledger, time.perf_counter() - started))


def plan_fits(
    config: RunConfig, dataset: Dataset, run: RunFolder, progress: Progress, how: FleetHow, *, keep: bool
) -> list[Plan]:
    """Fit only what measures the presets, and return the plan of the rest.

    What older fleets fitted alike is no part of the plan, and not taken over yet.

    Parameters
    ----------
    keep : bool
        Whether the ledger keeps what is fitted; else it stays as it is.
    """
    lessons, older = lessons_of(dataset, how.priority, progress), Older.of(run, writes=False)
    with _ready_to_fit(config, lessons, run, progress, how, older=older, keep=keep) as (ledger, _, drivers):
        if drivers:
            fits_begin(ledger, budget=False)  # a plan gives nobody a preset
        plans = []
        for driver in drivers:
            driver.calibrate()
            plans.append(driver.plan())
        return plans


def has_more_to_fit(run: RunFolder) -> bool:
    """Return whether symbols of a finished fleet wait for another call: left out by a budget, or retried."""
    with Ledger.open(run.fleet / LEDGER) as ledger:
        return bool(who_waits(ledger))


def is_behind(refit: RunFolder, evaluation: RunFolder) -> bool:
    """Return whether a finished refit is of another state of its evaluation, or a limit left symbols out."""
    with Ledger.open(refit.fleet / LEDGER) as ledger, Ledger.open(evaluation.fleet / LEDGER) as evaluated:
        if ledger.meta().get(_EVALUATED) != evaluated.content_digest():
            return True
        waiting = set(who_waits(ledger))
        return any(row.symbol in waiting for row in evaluated.rows(status=["done"]))


@contextmanager
def _ready_to_fit(
    config: RunConfig, lessons: Lessons, run: RunFolder, progress: Progress, how: FleetHow,
    parent: RunFolder | None = None, older: Older | None = None, *, keep: bool = True,
) -> Iterator[tuple[Ledger, Ledger | None, list[Driver]]]:  # fmt: skip
    """Open ledgers, put the rows where workers find them, and make a driver for each job that is left."""
    engine = engine_of(config.model)
    with ExitStack() as held:
        ledger = held.enter_context(Ledger.create(run.fleet / LEDGER))
        if not keep:
            held.enter_context(ledger.undone())
        evaluated = held.enter_context(Ledger.open(parent.fleet / LEDGER)) if parent else None
        if evaluated is not None:  # before its rows are read: what it gains meanwhile is not in this refit
            ledger.set_meta({_EVALUATED: evaluated.content_digest()})
        jobs = _jobs(engine, ledger, lessons, config, how, evaluated, older or Older(), progress)
        folder = held.enter_context(rows_for_workers(lessons.data, run.fleet / "rows"))
        source = engine.source(config, folder, run, in_workers=how.executor != "serial")
        workers = _workers(source, how, engine)
        drivers = [Driver(ledger, workers, job, progress=progress) for job in jobs]
        for driver in drivers:
            held.callback(driver.close)
        yield ledger, evaluated, drivers


def check_options(config: RunConfig, dataset: Dataset) -> None:
    """Refuse options of symbols that are not here, or that no fit could read.

    Raises
    ------
    UsageError
        With the symbol, and the nearest known name.
    """
    features = dataset.features
    check_own_options(config, dataset.market.bars.symbols, features.names, features.name)


def check_own_options(config: RunConfig, symbols: Sequence[str], columns: Sequence[str], source: str) -> None:
    """Refuse options of a fleet as :func:`check_options` does, by the names of its symbols and columns."""
    engine, options = engine_of(config.model), config.options
    check_symbols(symbols, options.symbol_options, "--symbol-config")
    for symbol in options.symbol_options:
        _own_options(engine, options, columns, source, symbol)
    engine.check(options, {})


def _jobs(
    engine: Engine, ledger: Ledger, lessons: Lessons, config: RunConfig, how: FleetHow,
    evaluated: Ledger | None, older: Older, progress: Progress,
) -> list[Job]:  # fmt: skip
    """Write down what is wanted, and return what is left to do: one job, or of a refit one a preset.

    What fits took that were dropped, or that a plan only counts, teaches the cost models too.
    """
    data, options, named = lessons.data, config.options, (lessons.columns, lessons.source)
    chosen = {row.symbol: row for row in evaluated.rows(status=["done"])} if evaluated is not None else {}
    overrides = {
        symbol: {**engine.kept(chosen[symbol].metrics), **own} if symbol in chosen else own
        for symbol in data.symbols
        if (own := _own_options(engine, options, *named, symbol)) or symbol in chosen
    }
    presets = {symbol: row.preset for symbol, row in chosen.items()}
    short = engine.too_short(data, options, overrides, refits=evaluated is not None)
    if evaluated is not None:
        told = {row.symbol: row.reason for row in evaluated.rows()}
        short |= {
            symbol: told.get(symbol) or NOT_EVALUATED for symbol in data.symbols if symbol not in chosen
        }
    ladder = engine.ladder(options)
    wanted = _wanted(data, config, overrides, presets)
    wanted = [each for each in wanted if how.only is None or each.symbol in how.only]
    asked = {each.symbol: presets.get(each.symbol, ladder[-1]) for each in wanted}
    taken = older.take(ledger, [each for each in wanted if each.symbol not in short], asked, progress)
    plan = ledger.plan([each for each in wanted if each.symbol not in taken.counted], taken.before)
    ledger.leave_out({each.symbol: short[each.symbol] for each in plan.todo if each.symbol in short})
    todo = [each for each in plan.todo if each.symbol not in short]
    if how.only is None:
        _say(plan.done, todo, short, progress)
    else:
        _say_who_stays(ledger, len(todo), progress)
    there = [*ledger.rows(status=["done"]), *taken.counted.values()]
    known = [Measured.of_row(row) for row in there if row.status == "done"]
    known += dropped_fits(ledger, _settings(config))
    groups: dict[tuple[str, ...], list[Planned]] = {}
    for each in todo:
        own_ladder = (presets[each.symbol],) if each.symbol in presets else ladder
        groups.setdefault(own_ladder, []).append(each)
    given, shape = how.batch_size if engine.unit_size > 1 else 0, (data.inputs.shape[1], data.target.shape[1])
    return [
        Job(
            candidates_of(data, lessons.value, {each.symbol: each.position for each in group}), rungs,
            how.limits, batch_size=given or engine.together(options, rungs[-1], *shape), overrides=overrides,
            mixed=engine.unit_size > 1, known=known,
            attempts={each.symbol: each.attempts for each in group},
        )
        for rungs, group in groups.items()
    ]  # fmt: skip


def _shared(config: RunConfig) -> dict[str, Any]:
    """Return what shapes every fit over its preset and rows."""
    return {**engine_of(config.model).shared(config.options), "seed": config.seed}


def _settings(config: RunConfig, preset: str | None = None) -> str:
    """Return a digest of what all fits share: options, seed, and what their presets are, not only called.

    Parameters
    ----------
    preset : str, optional
        The only one that they may have; None: those up to the one that was asked for.
    """
    engine = engine_of(config.model)
    rungs = engine.ladder(config.options) if preset is None else (preset,)
    return digest([[rungs, [engine.values(each) for each in rungs]], _shared(config)])


def _own_options(
    engine: Engine, options: Any, columns: Sequence[str], source: str, symbol: str
) -> dict[str, Any]:
    """Return the overrides of a symbol as the fit reads them: features by position.

    Raises
    ------
    UsageError
        On an option that there is not, or a feature that the rows do not have.
    """
    own = checked_features(options.symbol_options.get(symbol, {}), columns, source, symbol)
    if own:
        try:
            engine.check(options, own)
        except UsageError as error:
            raise UsageError(f"options of {symbol}: {error.found}", error.todo) from error
    return own


def _wanted(
    data: FleetData, config: RunConfig, overrides: Mapping[str, Any], presets: Mapping[str, str]
) -> list[Wanted]:
    rows = rows_digests(data, windows=engine_of(config.model).reads_windows)
    settings = {preset: _settings(config, preset) for preset in {None, *presets.values()}}
    return [
        Wanted(
            symbol, position,
            digest([settings[presets.get(symbol)], overrides.get(symbol, {})]), rows[position],
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


def _say_who_stays(ledger: Ledger, num_again: int, progress: Progress) -> None:
    """Say how many are fitted of those that were named, and what the ledger has of everybody else."""
    counts = ledger.counts()
    progress.note(
        f"{counted(num_again, 'symbol')} to fit again, {counts['done']:,} keep their models, "
        f"{counts['failed'] + counts['left_out']:,} without one"
    )


def _workers(source: FitSource, how: FleetHow, engine: Engine) -> Workers:
    units = how.batch_size if engine.unit_size == 1 else 0  # elsewhere symbols are handed over as one unit
    return lambda num, worker_bytes: executor(
        how.executor, num, source, worker_bytes=worker_bytes, batch_size=units or None,
        address=how.address or None,
    )  # fmt: skip


def _nothing_fitted(ledger: Ledger) -> DataError:
    rows = ledger.rows(status=["failed", "left_out"])
    if not rows:
        return DataError("there is no symbol to fit", "barcast data info")
    alike: dict[str, list[LedgerRow]] = {}
    for row in rows:
        alike.setdefault(row.reason.partition(":")[0], []).append(row)
    groups = sorted(alike.values(), key=len, reverse=True)
    told = [
        f"{group[0].reason} ({group[0].symbol}{f' and {len(group) - 1:,} alike' if len(group) > 1 else ''})"
        for group in groups
    ]
    first = groups[0][0]
    needs_rows = first.reason.startswith(TOO_SHORT)
    return DataError(
        f"none of {counted(len(rows), 'symbol')} could be given a model of its own: {some(told, '; ', 3)}",
        "more history, or a smaller `min_rows`" if needs_rows else first.todo or "mend what the reasons say",
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
        "taken_over": dict(Counter(row.fitted_by for row in rows if row.fitted_by)),
        "fit_seconds": sum(row.seconds for row in rows if not row.fitted_by),
        "ledger_bytes": ledger.size_bytes(),
    }
