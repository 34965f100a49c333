"""The verbs in Python: thin over the same functions as the commands, with the same names and defaults.

Every verb takes ``workspace``: a folder, a :class:`Workspace`, or None for ``BARCAST_WORKSPACE`` or the
current folder. Nothing heavy is imported until a verb is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, list_runs
from barcast.core.workspace import Workspace

if TYPE_CHECKING:
    import polars as pl

    from barcast.audit import AuditReport
    from barcast.features import FeatureSet
    from barcast.pipeline.compare import Compared
    from barcast.pipeline.data_results import ExportResult, ImportResult, StatusResult
    from barcast.pipeline.doctor import Finding
    from barcast.pipeline.predict import Forecasts
    from barcast.pipeline.workflow import TrainedAndCompared
    from barcast.quality import QualityReport
    from barcast.store import Compaction, StoreInfo

Place = Workspace | Path | str | None


def _place(workspace: Place) -> Workspace:
    return workspace if isinstance(workspace, Workspace) else Workspace.find(workspace)


def import_data(
    given: Any,
    *,
    workspace: Place = None,
    replace: bool = False,
    status: Path | str | pl.DataFrame | None = None,
    progress: bool = False,
    **declared: Any,
) -> ImportResult:
    """Bring bars into the workspace's store.

    Parameters
    ----------
    given : path, list of paths, frame, or dict of frames
        Files or folders of CSV or Parquet; a pandas or polars frame; or frames by symbol.
    replace : bool
        Replace what the store holds; older versions stay readable.
    status : path or polars frame, optional
        Listings, delistings, suspensions and ST spells.
    **declared
        What is known about the source: ``market``, ``basis``, ``volume_unit``, ``frequency``, ``tz``,
        ``stamp`` and the other fields of `ImportOptions`.
    """
    from barcast.pipeline.data import import_data as run
    from barcast.sources.options import ImportOptions

    said = ImportOptions(**declared)
    return run(
        _place(workspace), given, said, replace_all=replace, status=status, progress=Progress(progress)
    )


def update_data(
    given: Any,
    *,
    workspace: Place = None,
    same_anchor: bool = False,
    status: Path | str | pl.DataFrame | None = None,
    progress: bool = False,
    **declared: Any,
) -> ImportResult:
    """Merge newer bars into the store: append sessions, take over corrections, replace moved anchors.

    Parameters
    ----------
    given, status, **declared
        As for :func:`import_data`; what was declared then need not be said again.
    same_anchor : bool
        That the source never moves the anchor of its adjusted prices.
    """
    from barcast.pipeline.data import update_data as run
    from barcast.sources.options import ImportOptions

    said = ImportOptions(**declared)
    return run(
        _place(workspace), given, said, same_anchor=same_anchor, status=status, progress=Progress(progress)
    )


def check_data(
    *, workspace: Place = None, symbols: Sequence[str] = (), policy: Mapping[str, str] | None = None
) -> QualityReport:
    """Look for every known kind of defect in the store.

    Parameters
    ----------
    policy : mapping, optional
        ``refuse``, ``mask`` or ``accept`` by kind of defect, over the workspace's ``[quality]``.

    Raises
    ------
    QualityError
        When a defect was found whose policy is ``refuse``.
    """
    from barcast.pipeline.check import check_store
    from barcast.quality import apply_policy

    found, chosen = check_store(_place(workspace), symbols, policy)
    apply_policy(found, chosen)
    return found


def info(*, workspace: Place = None) -> StoreInfo:
    """Describe the store: what it holds, since when, in which versions."""
    from barcast.pipeline.data import store_info

    return store_info(_place(workspace))


def status(*, workspace: Place = None, version: int | None = None) -> pl.DataFrame:
    """Return the listings, delistings, suspensions and ST spells that are on record."""
    from barcast.pipeline.data import store_status

    return store_status(_place(workspace), version)


def add_status(
    table: Path | str | pl.DataFrame, *, workspace: Place = None, replace: bool = False
) -> StatusResult:
    """Put listings, delistings, suspensions and ST spells on record, or ``replace`` all that are."""
    from barcast.pipeline.data import add_status as run

    return run(_place(workspace), table, replace_all=replace)


def failures(*, workspace: Place = None, version: int | None = None) -> pl.DataFrame:
    """Return what the last import or update could not use, with file, line and reason."""
    from barcast.pipeline.data import store_failures

    return store_failures(_place(workspace), version)


def conflicts(*, workspace: Place = None, version: int | None = None) -> pl.DataFrame:
    """Return the rows that disagree about a bar; the one marked as kept is stored."""
    from barcast.pipeline.data import store_conflicts

    return store_conflicts(_place(workspace), version)


def compact(*, workspace: Place = None, keep_hours: int = 24) -> Compaction:
    """Merge small files and drop old versions of the store that no run cites.

    Parameters
    ----------
    keep_hours : int
        Versions replaced so lately stay, for whoever reads them.
    """
    from barcast.pipeline.data import compact_store

    return compact_store(_place(workspace), keep_hours=keep_hours)


def export_data(
    target: Path | str,
    *,
    workspace: Place = None,
    form: str | None = None,
    per_symbol: bool = False,
    symbols: Sequence[str] | None = None,
    start: date | None = None,
    end: date | None = None,
    version: int | None = None,
    force: bool = False,
) -> ExportResult:
    """Write stored bars, as given and with their factors, to one file or one file a symbol.

    Parameters
    ----------
    form : str
        ``parquet`` (the default) or ``csv``, for one file a symbol; a single file's ending says it.
    start, end : date, optional
        First and last day.
    version : int, optional
        Of the store; by default the last.
    force : bool
        Replace a file that is there.
    """
    from barcast.pipeline.data import export_data as run

    return run(
        _place(workspace), Path(target), form=form, per_symbol=per_symbol, symbols=symbols, start=start,
        end=end, version=version, force=force,
    )  # fmt: skip


def feature_sets(name: str | None = None, *, workspace: Place = None) -> tuple[FeatureSet, ...]:
    """Return every feature set, the workspace's own included, or the one called ``name``."""
    from barcast.features import feature_set, user_feature_sets
    from barcast.features import feature_sets as built_in
    from barcast.pipeline.settings import check_workspace

    place = _place(workspace)
    check_workspace(place)
    own = user_feature_sets(place)
    return (*built_in(), *own) if name is None else (feature_set(name, own),)


def check_features(name: str, *, workspace: Place = None) -> FeatureSet:
    """Recompute a file's or set's features on cut histories and return the set, if none saw its future.

    Raises
    ------
    LeakError
        With the feature that did.
    """
    from barcast.pipeline.check import check_features as run

    return run(_place(workspace), name)[0]


def train(
    model: str = "lstm",
    *,
    workspace: Place = None,
    size: str | None = None,
    config: Path | str | None = None,
    final: bool = False,
    refit: str | None = None,
    fresh: bool = False,
    open_test: bool = False,
    report: bool = True,
    progress: bool = False,
    **options: Any,
) -> TrainedAndCompared:
    """Train a model, compare it with naive rows and ridge, optionally refit, write the report.

    Parameters
    ----------
    size : str, optional
        Preset of a network: ``small``, ``balanced``, ``large``, ``xl``.
    config : path, optional
        TOML file with tables ``data``, ``train`` and the model's; ``options`` win over it.
    final : bool
        Refit on everything known afterwards, and forecast the next session.
    refit : str, optional
        Train nothing: refit this finished run, with its own options, on everything known now (or as of
        ``asof``).
    open_test : bool
        Open the sealed test segment; every opening is counted.
    **options
        Any option of the data, the loop or the model by its name: ``horizons=(1, 5)``, ``hidden_size=128``.
    """
    from barcast.pipeline.settings import resolve
    from barcast.pipeline.workflow import refit_config, train_and_report

    place, file, parent = _place(workspace), Path(config) if config else None, None
    if refit:
        parent, resolved = refit_config(place, refit, options, file)
    else:
        resolved = resolve(place, model, {"size": size, **options}, file)
    return train_and_report(
        place,
        resolved,
        parent=parent,
        final=final,
        fresh=fresh,
        open_test=open_test,
        report=report,
        progress=Progress(progress),
    )


def compare(
    names: Sequence[str] = (),
    *,
    workspace: Place = None,
    segments: Sequence[str] = ("route",),
    open_test: bool = False,
    progress: bool = False,
) -> Compared:
    """Compare runs (by default all of the newest one's question) with naive rows and ridge.

    Parameters
    ----------
    segments : sequence of str
        Segments that may be looked at freely: ``weigh``, ``route``.
    open_test : bool
        Open the sealed test segment; every opening is counted.
    """
    from barcast.pipeline.compare import compare_runs, runs_to_compare

    place = _place(workspace)
    chosen = runs_to_compare(place, names)
    return compare_runs(place, chosen, segments=segments, open_test=open_test, progress=Progress(progress))


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


def report(
    run: str | None = None, *, workspace: Place = None, open_test: bool = False, progress: bool = False
) -> Path:
    """Write a run's report again and return its path."""
    from barcast.pipeline.predict import newest_run
    from barcast.pipeline.workflow import report_again

    place = _place(workspace)
    return report_again(place, newest_run(place, run), open_test=open_test, progress=Progress(progress))


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

    place, shown = _place(workspace), Progress(progress)
    settings = AuditSettings(
        num_cuts=cuts, num_symbols=sample, seed=seed, acts_at=act_at,
        against=_place(against) if against else None,
    )  # fmt: skip
    if features:
        return audit_features(place, features, settings, progress=shown)
    return audit_run(place, newest_run(place, run), settings, progress=shown)


def runs(*, workspace: Place = None) -> list[RunFolder]:
    """Return the workspace's runs, oldest first."""
    return list_runs(_place(workspace))


def run_status(run: RunFolder) -> str:
    """Return ``done``, ``running``, ``interrupted`` (killed; the same call goes on) or ``failed``."""
    from barcast.pipeline.unfinished import run_status as status_of

    return status_of(run)


def doctor(*, workspace: Place = None) -> list[Finding]:
    """Say what this machine has: versions, cores, bf16, memory, disk, GPU, caches."""
    from barcast.pipeline.doctor import examine

    return examine(_place(workspace))


def quickstart(
    *, workspace: Place = "quickstart", fresh: bool = False, progress: bool = True
) -> TrainedAndCompared:
    """Go from the bundled sample bars to a trained, compared, predicting model and its report."""
    from barcast.pipeline.workflow import quickstart as run

    return run(_place(workspace), fresh=fresh, progress=Progress(progress))
