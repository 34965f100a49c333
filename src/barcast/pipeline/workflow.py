"""Verbs that chain verbs: train with comparison and report, and the quickstart from bars to a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.pipeline.compare import Compared, compare_runs
from barcast.pipeline.market import load_market
from barcast.pipeline.predict import Forecasts, predict
from barcast.pipeline.report import write_run_report
from barcast.pipeline.settings import RunConfig
from barcast.pipeline.train import refit, train


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
    forecasts : Forecasts or None
        The next session, from the refit.
    """

    run: RunFolder
    compared: Compared
    report: Path | None
    final: RunFolder | None
    forecasts: Forecasts | None

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
    final: bool = False,
    fresh: bool = False,
    open_test: bool = False,
    report: bool = True,
    progress: Progress | None = None,
) -> TrainedAndCompared:
    """Train, compare with naive rows and ridge, optionally refit on everything known, write the report."""
    progress = progress or Progress(enabled=False)
    trained = train(workspace, config, fresh=fresh, progress=progress)
    compared = compare_runs(
        workspace, [trained.run], open_test=open_test, market=trained.market, progress=progress
    )
    refitted = forecasts = None
    if final:
        refitted = refit(
            workspace, trained.run, config, market=trained.market, fresh=fresh, progress=progress
        )
        forecasts = predict(workspace, refitted, asof=config.data.asof, progress=progress)
    path = None
    if report:
        path = write_run_report(workspace, trained.run, compared, trained.market, forecasts)
        progress.note(f"report: {path}")
    return TrainedAndCompared(trained.run, compared, path, refitted, forecasts)


def describe(workspace: Workspace, config: RunConfig) -> dict[str, Any]:
    """Return what a training would do: rows, segments and labels, without training anything."""
    market = load_market(workspace, config.data)
    times = market.bars.calendar.times
    return {
        "model": config.model,
        "symbols": market.bars.num_symbols,
        "bars": len(market.bars),
        "sessions": len(times),
        "small_universe": market.small_universe,
        "segments": {
            name: {
                "first": str(times[first]),
                "last": str(times[last]),
                "labelled_rows": int(market.rows_of(name).sum()),
            }
            for name, (first, last) in market.plan.spans.items()
        },
        "labels": market.labels.counts(),
    }
