"""Verbs that chain verbs: train with comparison, refit and report; a report again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barcast.core.errors import BarcastError, RunError, UsageError
from barcast.core.memory import give_back
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, open_run
from barcast.core.workspace import Workspace
from barcast.pipeline.compare import REFERENCE, Compared, compare_runs, market_again
from barcast.pipeline.load import check_not_routed, check_whole
from barcast.pipeline.market import as_of, segment_counts
from barcast.pipeline.plan import still_to_compare
from barcast.pipeline.predict import Forecasts, predict
from barcast.pipeline.record import check_market
from barcast.pipeline.report import write_run_report
from barcast.pipeline.settings import RunConfig, from_run, resolve
from barcast.pipeline.train import prepare, refit, refitted_market, remarks, train
from barcast.pipeline.unfinished import check_done

if TYPE_CHECKING:
    from barcast.pipeline.fleet import FleetHow


@dataclass(frozen=True)
class TrainedAndCompared:
    """What ``barcast train`` ends with.

    Attributes
    ----------
    run : RunFolder
    compared : Compared
    report : Path or None
    final : RunFolder or None
        The refit, where one was asked for.
    forecasts : Forecasts or BarcastError
        The next session, from the refit where there is one, or what `predict` says instead.
    """

    run: RunFolder
    compared: Compared
    report: Path | None
    final: RunFolder | None
    forecasts: Forecasts | BarcastError

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "run": self.run.name,
            "folder": str(self.run.path),
            "info": self.run.info,
            "comparisons": [comparison.to_plain() for comparison in self.compared.comparisons],
            "report": str(self.report) if self.report else None,
            "final": self.final.name if self.final else None,
        }


def train_and_report(
    workspace: Workspace,
    config: RunConfig,
    *,
    parent: RunFolder | None = None,
    final: bool = False,
    fresh: bool = False,
    open_test: bool = False,
    report: bool = True,
    keep_forecasts: bool = True,
    progress: Progress | None = None,
    follow: Callable[[RunFolder], RunFolder] | None = None,
    profile: bool = False,
    fleet: FleetHow | None = None,
    extend: bool = True,
) -> TrainedAndCompared:
    """Train, compare with naive rows and ridge, optionally refit on everything known, write the report.

    With ``parent``, a finished run, nothing is trained: it is compared on the rows it was made from and
    refitted on everything known now. ``config`` is then its own (`refit_config`). Without ``keep_forecasts``
    a refit's forecasts are shown, but not kept as served. ``follow``, ``profile``, ``fleet`` and ``extend``
    are as for `train`.
    """
    progress = progress or Progress(enabled=False)
    _check_asked(workspace, config, parent, profile=profile)
    if parent is None:
        trained = train(
            workspace, config, fresh=fresh, progress=progress, follow=follow, profile=profile, fleet=fleet,
            extend=extend,
        )  # fmt: skip
        if profile and not (trained.run.path / "profile.json").is_file():
            progress.note("nothing was trained, so nothing was measured: --fresh --profile")
        run, market, newest = trained.run, trained.market, trained.market
    else:
        run, market, newest = parent, market_again(workspace, parent, progress), None
    compared = compare_runs(workspace, [run], open_test=open_test, market=market, progress=progress)
    refitted = None
    if final or parent:
        refitted = refit(
            workspace, run, config, market=newest, fresh=fresh, progress=progress, fleet=fleet, extend=extend
        )
    asof = config.data.asof
    save = keep_forecasts and bool(refitted) and not asof
    forecasts = _forecasts(workspace, run, asof, progress, save=save)
    path = None
    if report:
        path = write_run_report(workspace, run, compared, market, forecasts)
        progress.note(f"report: {path}")
    return TrainedAndCompared(run, compared, path, refitted, forecasts)


def _check_asked(workspace: Workspace, config: RunConfig, parent: RunFolder | None, *, profile: bool) -> None:
    """Refuse, before anything is read, what a training or a refit could not do."""
    if profile and (parent is not None or config.train is None):
        raise UsageError(
            "`--profile` measures the steps of a network's training: a refit, or a model without, has none",
            "barcast train lstm --profile",
        )
    if parent is not None:
        check_done(parent)
    resolve(workspace, REFERENCE)  # a mistake in its table is said now, not when the comparison needs it


def refit_config(
    workspace: Workspace, name: str, flags: Mapping[str, Any], file: Path | None = None, model: str = ""
) -> tuple[RunFolder, RunConfig]:
    """Return the evaluated run to refit and its recorded config, for the ``asof`` of the flags.

    Raises
    ------
    UsageError
        When an option is given that a refit would not read, or the name of another model.
    RunError
        When the run is of another market than the store's.
    """
    given = [option for option, value in flags.items() if value is not None and option != "asof"]
    given += ["config"] * (file is not None)
    if given:
        raise UsageError(
            f"`{', '.join(given)}`: a refit keeps the options of its run",
            f"barcast train --refit {name}, only with --asof",
        )
    run = open_run(workspace, name)
    check_not_routed(run)
    check_market(workspace, run)
    parent = open_run(workspace, str(run.info.get("parent", run.name)))
    config = from_run(parent.read("config.json"))
    if model not in ("", config.model):
        raise UsageError(
            f"`{parent.name}` is of {config.model}, not {model}", f"barcast train --refit {name}"
        )
    return parent, replace(config, data=as_of(config.data, flags.get("asof") or ""))


def _forecasts(
    workspace: Workspace, run: RunFolder, asof: str, progress: Progress, *, save: bool
) -> Forecasts | BarcastError:
    """Return the next session's forecasts, or what stands in their way: it costs no report."""
    give_back()  # what compared lies beside what forecasts otherwise
    try:
        return predict(workspace, run, asof=asof, progress=progress, save=save)
    except BarcastError as error:
        progress.note("no forecasts in the report")
        return error


def describe(
    workspace: Workspace, config: RunConfig, *, parent: RunFolder | None = None, profile: bool = False,
    fresh: bool = False, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return what a training would do: rows, segments and labels, without training anything.

    What `train_and_report` would refuse before it trains is refused here.
    """
    _check_asked(workspace, config, parent, profile=profile)
    if parent is None:
        market = prepare(workspace, config, progress=progress, compare_widths=False, fresh=fresh).market
    else:
        market = refitted_market(workspace, parent, config)
    times, counts = market.bars.calendar.times, segment_counts(market)
    return {
        "model": config.model,
        "symbols": market.bars.num_symbols,
        "bars": len(market.bars),
        "sessions": len(times),
        "small_universe": market.small_universe,
        "segments": {
            name: {"first": str(times[first]), "last": str(times[last]), **counts[name]}
            for name, (first, last) in market.plan.spans.items()
        },
        "labels": market.labels.counts(),
        "without_bars": dict(market.without_bars),
        "notes": [*remarks(config), *still_to_compare(config.sized)],
    }


def compare_and_report(
    workspace: Workspace, run: RunFolder, *, report: bool = True, progress: Progress | None = None
) -> TrainedAndCompared:
    """Compare a run that is made of finished ones, forecast by it, and write its report.

    The forecasts are shown, but not kept as served.
    """
    progress = progress or Progress(enabled=False)
    market = market_again(workspace, run, progress)
    compared = compare_runs(workspace, [run], market=market, progress=progress)
    forecasts = _forecasts(workspace, run, "", progress, save=False)
    path = write_run_report(workspace, run, compared, market, forecasts) if report else None
    return TrainedAndCompared(run, compared, path, None, forecasts)


def report_again(
    workspace: Workspace, run: RunFolder, *, open_test: bool = False, progress: Progress | None = None
) -> Path:
    """Compare a finished run again and write its report."""
    progress = progress or Progress(enabled=False)
    if run.info.get("final"):
        raise RunError(
            f"`{run.name}` is a refit: its evidence is its parent's", f"barcast report {run.info['parent']}"
        )
    check_done(run)
    check_whole(run)
    market = market_again(workspace, run, progress)
    compared = compare_runs(workspace, [run], open_test=open_test, market=market, progress=progress)
    forecasts = _forecasts(workspace, run, str(run.info["cutoff"]), progress, save=False)
    return write_run_report(workspace, run, compared, market, forecasts)
