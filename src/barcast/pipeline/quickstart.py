"""``barcast quickstart``: the bundled sample from bars to a universal model, a fleet, and who serves whom."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from barcast.core.errors import BarcastError
from barcast.core.progress import Progress
from barcast.core.workspace import Workspace
from barcast.pipeline.data import import_sample
from barcast.pipeline.fleet import FleetHow
from barcast.pipeline.predict import Forecasts, predict
from barcast.pipeline.route import Routed, route_runs
from barcast.pipeline.settings import resolve
from barcast.pipeline.workflow import TrainedAndCompared, report_again, train_and_report

#: The sample's last day is named because it is meant: no warning about old bars.
LAST_DAY = "2013-03-01"
#: Five symbols need a small network and small steps; everything else is the default.
UNIVERSAL = {
    "asof": LAST_DAY,
    "hidden_size": 32,
    "num_layers": 1,
    "batch_size": 1920,
    "stretch_length": 60,
    "epochs": 12,
    "lr": 2e-3,
}
FLEET = {"asof": LAST_DAY, "preset": "fast"}


@dataclass(frozen=True)
class Quickstarted(TrainedAndCompared):
    """What ``barcast quickstart`` ends with: the universal model's results, and those that follow.

    Attributes
    ----------
    fleet : TrainedAndCompared
        A model for each symbol with the rows for it.
    routed : Routed
        Who serves whom.
    routed_report : Path
    served : Forecasts or BarcastError
        The next session, each symbol by the model that serves it.
    """

    fleet: TrainedAndCompared
    routed: Routed
    routed_report: Path
    served: Forecasts | BarcastError

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            **super().plain(), "fleet": self.fleet.plain(), "routed": self.routed.plain(),
            "routed_report": str(self.routed_report),
        }  # fmt: skip


def quickstart(
    workspace: Workspace, *, fresh: bool = False, progress: Progress | None = None
) -> Quickstarted:
    """Take the bundled sample from bars to pages: import, check, train one model for all and one for each.

    Both are compared, refitted and reported; then the evidence decides who serves whom. Comparisons are on
    `route`; the sealed test stays sealed until its owner opens it. What is there from an earlier call is used
    again.
    """
    progress = progress or Progress(enabled=False)
    if not (workspace.market / "store.json").is_file():
        progress.note("importing the sample: AAPL, FB, GOOG, IBM, MSFT, daily, as traded, with factors")
        import_sample(workspace)
    asked: dict[str, Any] = {"final": True, "fresh": fresh, "progress": progress}
    universal = train_and_report(workspace, resolve(workspace, "lstm", UNIVERSAL), **asked)
    # workers would take longer to start than so few fits
    how = FleetHow(executor="serial")
    fleet = train_and_report(workspace, resolve(workspace, "fleet-trees", FLEET), **asked, fleet=how)
    routed = route_runs(workspace, universal.run, fleet.run, progress=progress)
    report = report_again(workspace, routed.run, progress=progress)
    progress.note(f"report: {report}")
    known = {field.name: getattr(universal, field.name) for field in fields(universal)}
    return Quickstarted(
        **known, fleet=fleet, routed=routed, routed_report=report, served=_forecasts(workspace, routed)
    )


def _forecasts(workspace: Workspace, routed: Routed) -> Forecasts | BarcastError:
    """Return the next session's forecasts, or what stands in their way."""
    try:
        return predict(workspace, routed.run, asof=LAST_DAY)
    except BarcastError as error:
        return error
