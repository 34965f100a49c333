"""Finished runs in Python: compare, predict, promote, look into, audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from barcast.api.checked import checked
from barcast.api.places import Names, Place, names_of, place_of, symbols_of
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, list_runs

if TYPE_CHECKING:
    import polars as pl

    from barcast.audit import AuditReport
    from barcast.pipeline.champion import Change
    from barcast.pipeline.compare import Compared
    from barcast.pipeline.diagnose import Diagnosis
    from barcast.pipeline.doctor import Finding
    from barcast.pipeline.embeddings import SymbolEmbeddings
    from barcast.pipeline.load import LoadedRun
    from barcast.pipeline.predict import Forecasts


@checked
def compare(
    names: Names = (),
    *,
    workspace: Place = None,
    segments: Names = ("route",),
    open_test: bool = False,
    progress: bool = False,
) -> Compared:
    """Compare runs (by default all of the newest one's question) with naive rows and ridge.

    Parameters
    ----------
    segments : str or sequence of str
        Segments that may be looked at freely: ``weigh``, ``route``.
    open_test : bool
        Open the sealed test segment; every opening is counted.
    """
    from barcast.pipeline.compare import compare_runs, runs_to_compare

    place = place_of(workspace)
    shown = Progress(progress)
    chosen = runs_to_compare(place, names_of(names, "names"), progress=shown)
    looked = names_of(segments, "segments")
    return compare_runs(place, chosen, segments=looked, open_test=open_test, progress=shown)


@checked
def predict(
    run: str | None = None,
    *,
    workspace: Place = None,
    symbols: Names | None = None,
    asof: str = "",
    allow_old: bool = False,
    progress: bool = False,
) -> Forecasts:
    """Forecast symbols from their newest bars, with the run's refit; without a run, with the champion."""
    from barcast.pipeline.champion import run_to_serve
    from barcast.pipeline.predict import predict as forecast

    place = place_of(workspace)
    return forecast(
        place,
        run_to_serve(place, run, asof),
        symbols=symbols_of(symbols),
        asof=asof,
        allow_old=allow_old,
        progress=Progress(progress),
    )


@checked
def promote(run: str, *, workspace: Place = None, why: str = "promoted by hand") -> Change:
    """Make a run the champion, which predicts when nobody names another; of a run with a refit, the refit.

    Raises
    ------
    RunError
        When it is not finished, damaged, or cannot serve the workspace's store.
    """
    from barcast.pipeline.champion import promote as crown

    return crown(place_of(workspace), run, why=why)


@checked
def rollback(to: str = "", *, workspace: Place = None) -> Change:
    """Go back to the champion before, or to the earlier one called ``to``."""
    from barcast.pipeline.champion import rollback as back

    return back(place_of(workspace), to)


@checked
def load(run: str, *, workspace: Place = None) -> LoadedRun:
    """Return a finished run (``"champion"`` is one too) as network, vocabulary and scaler.

    Raises
    ------
    RunError
        When it is not finished, or its weights are missing or damaged.
    """
    from barcast.core.runs import open_run
    from barcast.pipeline.load import load as run_as_object

    place = place_of(workspace)
    return run_as_object(place, open_run(place, run))


@checked
def report(
    run: str | None = None, *, workspace: Place = None, open_test: bool = False, progress: bool = False
) -> Path:
    """Write a run's report again and return its path."""
    from barcast.pipeline.predict import newest_run
    from barcast.pipeline.workflow import report_again

    place = place_of(workspace)
    return report_again(place, newest_run(place, run), open_test=open_test, progress=Progress(progress))


@checked
def run_audit(
    run: str | None = None,
    *,
    workspace: Place = None,
    features: str | None = None,
    cuts: int = 8,
    sample: int = 200,
    seed: int = 0,
    act_at: Literal["close", "open"] = "close",
    against: Place = None,
    progress: bool = False,
) -> AuditReport:
    """Look for any value of a run (by default the newest) or a feature set that sees beyond its cutoff.

    Parameters
    ----------
    cuts, sample : int
        Sessions at which history is cut; symbols whose whole history is recomputed.
    act_at : str
        ``close``, or ``open`` where values are used at the open of their session.
    against : workspace, optional
        One with a second source, to compare stamps with.
    """
    from barcast.audit import AuditSettings, audit_features, audit_run
    from barcast.pipeline.predict import newest_run

    place, shown = place_of(workspace), Progress(progress)
    settings = AuditSettings(
        num_cuts=cuts, num_symbols=sample, seed=seed, acts_at=act_at,
        against=place_of(against) if against else None,
    )  # fmt: skip
    if features:
        return audit_features(place, features, settings, progress=shown)
    return audit_run(place, newest_run(place, run), settings, progress=shown)


@checked
def embeddings(
    run: str, *, workspace: Place = None, facts: Path | str | pl.DataFrame | None = None
) -> SymbolEmbeddings:
    """Return what a network's run knows of each symbol: ``neighbours``, ``purity``, ``draw``, ``write``.

    Parameters
    ----------
    facts : path or polars frame, optional
        ``symbol`` and columns such as ``name`` and ``industry``, beside what the store has on record.
    """
    from barcast.core.runs import open_run
    from barcast.pipeline.embeddings import read_embeddings

    place = place_of(workspace)
    return read_embeddings(place, open_run(place, run), facts=facts)


@checked
def runs(*, workspace: Place = None) -> list[RunFolder]:
    """Return the workspace's runs, oldest first."""
    return list_runs(place_of(workspace))


@checked
def run_status(run: RunFolder) -> str:
    """Return ``done``, ``running``, ``interrupted`` (killed; the same call goes on) or ``failed``."""
    from barcast.pipeline.unfinished import run_status as status_of

    return status_of(run)


@overload
def doctor(run: None = None, *, workspace: Place = None, progress: bool = False) -> list[Finding]: ...
@overload
def doctor(run: str, *, workspace: Place = None, progress: bool = False) -> Diagnosis: ...
@checked
def doctor(
    run: str | None = None, *, workspace: Place = None, progress: bool = False
) -> list[Finding] | Diagnosis:
    """Say what this machine has; or, of a run, what is wrong with its learning and what binds its speed."""
    place = place_of(workspace)
    if run is None:
        from barcast.pipeline.doctor import examine

        return examine(place)
    from barcast.core.runs import open_run
    from barcast.pipeline.diagnose import diagnose

    return diagnose(place, open_run(place, run), progress=Progress(progress))
