"""The verbs in Python: thin over the same functions as the commands, with the same names and defaults.

Every verb takes ``workspace``: a folder, a :class:`Workspace`, or None for ``BARCAST_WORKSPACE`` or the
current folder. Nothing heavy is imported until a verb is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, list_runs
from barcast.core.workspace import Workspace

if TYPE_CHECKING:
    from barcast.audit import AuditReport
    from barcast.pipeline.compare import Compared
    from barcast.pipeline.data import ImportResult
    from barcast.pipeline.predict import Forecasts
    from barcast.pipeline.workflow import TrainedAndCompared
    from barcast.quality import QualityReport

Place = Workspace | Path | str | None


def _place(workspace: Place) -> Workspace:
    return workspace if isinstance(workspace, Workspace) else Workspace.find(workspace)


def import_data(
    given: Any, *, workspace: Place = None, progress: bool = False, **declared: Any
) -> ImportResult:
    """Bring bars into the workspace's store.

    Parameters
    ----------
    given : path, list of paths, frame, or dict of frames
        Files or folders of CSV or Parquet; a pandas or polars frame; or frames by symbol.
    **declared
        What is known about the source: ``market``, ``basis``, ``volume_unit``, ``frequency``, ``tz``,
        ``stamp`` and the other fields of `ImportOptions`.
    """
    from barcast.pipeline.data import import_data as run
    from barcast.sources.options import ImportOptions

    return run(_place(workspace), given, ImportOptions(**declared), progress=Progress(progress))


def check_data(*, workspace: Place = None, symbols: Sequence[str] = ()) -> QualityReport:
    """Look for every known kind of defect in the store."""
    from barcast.pipeline.check import check_store

    return check_store(_place(workspace), symbols)[0]


def train(
    model: str = "lstm",
    *,
    workspace: Place = None,
    final: bool = False,
    fresh: bool = False,
    open_test: bool = False,
    report: bool = True,
    progress: bool = False,
    **options: Any,
) -> TrainedAndCompared:
    """Train a model, compare it with naive rows and ridge, optionally refit, write the report.

    Parameters
    ----------
    final : bool
        Refit on everything known afterwards, and forecast the next session.
    open_test : bool
        Open the sealed test segment; every opening is counted.
    **options
        Any option of the data, the loop or the model by its name: ``horizons=(1, 5)``, ``hidden_size=128``.
    """
    from barcast.pipeline.settings import resolve
    from barcast.pipeline.workflow import train_and_report

    place = _place(workspace)
    return train_and_report(
        place,
        resolve(place, model, options),
        final=final,
        fresh=fresh,
        open_test=open_test,
        report=report,
        progress=Progress(progress),
    )


def compare(
    names: Sequence[str] = (), *, workspace: Place = None, open_test: bool = False, progress: bool = False
) -> Compared:
    """Compare runs (by default all of the newest one's question) with naive rows and ridge."""
    from barcast.pipeline.compare import compare_runs, runs_to_compare

    place = _place(workspace)
    chosen = runs_to_compare(place, names)
    return compare_runs(place, chosen, open_test=open_test, progress=Progress(progress))


def predict(
    run: str | None = None,
    *,
    workspace: Place = None,
    symbols: Sequence[str] = (),
    asof: str = "",
    allow_old: bool = False,
    progress: bool = False,
) -> Forecasts:
    """Forecast symbols from their newest bars, with a run's refit where there is one."""
    from barcast.pipeline.predict import newest_run
    from barcast.pipeline.predict import predict as forecast

    place = _place(workspace)
    return forecast(
        place,
        newest_run(place, run),
        symbols=symbols,
        asof=asof,
        allow_old=allow_old,
        progress=Progress(progress),
    )


def report(run: str | None = None, *, workspace: Place = None, open_test: bool = False) -> Path:
    """Write a run's report again and return its path."""
    from barcast.pipeline.predict import newest_run
    from barcast.pipeline.workflow import report_again

    place = _place(workspace)
    return report_again(place, newest_run(place, run), open_test=open_test)


def audit(run: str | None = None, *, features: str | None = None, workspace: Place = None) -> AuditReport:
    """Look for any value of a run (by default the newest) or a feature set that sees beyond its cutoff."""
    from barcast.audit import audit_features, audit_run
    from barcast.pipeline.predict import newest_run

    place = _place(workspace)
    return audit_features(place, features) if features else audit_run(place, newest_run(place, run))


def runs(*, workspace: Place = None) -> list[RunFolder]:
    """Return the workspace's runs, oldest first."""
    return list_runs(_place(workspace))


def quickstart(*, workspace: Place = "quickstart", progress: bool = True) -> TrainedAndCompared:
    """Go from the bundled sample bars to a trained, compared, predicting model and its report."""
    from barcast.pipeline.workflow import quickstart as run

    return run(_place(workspace), progress=Progress(progress))
