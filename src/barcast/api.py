"""The verbs in Python: thin over the same functions as the commands, with the same names and defaults.

Every verb takes ``workspace``: a folder, a :class:`Workspace`, or None for ``BARCAST_WORKSPACE`` or the
current folder. Nothing heavy is imported until a verb is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from barcast.core.config import items
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, list_runs
from barcast.core.workspace import Workspace

if TYPE_CHECKING:
    import polars as pl

    from barcast.audit import AuditReport
    from barcast.features import FeatureSet
    from barcast.pipeline.adapt import Adaptation
    from barcast.pipeline.champion import Change
    from barcast.pipeline.compare import Compared
    from barcast.pipeline.data_results import ExportResult, ImportResult, StatusResult
    from barcast.pipeline.diagnose import Diagnosis
    from barcast.pipeline.doctor import Finding
    from barcast.pipeline.embeddings import SymbolEmbeddings
    from barcast.pipeline.load import LoadedRun
    from barcast.pipeline.predict import Forecasts
    from barcast.pipeline.range_test import RangeTested
    from barcast.pipeline.retrain import Retrained
    from barcast.pipeline.tune import Tuning
    from barcast.pipeline.workflow import TrainedAndCompared
    from barcast.planning.plan import Plan
    from barcast.quality import QualityReport
    from barcast.store import Compaction, StoreInfo

Place = Workspace | Path | str | None
#: A name alone is one, not its letters.
Names = str | Sequence[str]


def _names(given: Names | None, where: str) -> tuple[str, ...]:
    return items(given, where, str)


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
    *, workspace: Place = None, symbols: Names = (), policy: Mapping[str, str] | None = None
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

    found, chosen = check_store(_place(workspace), _names(symbols, "symbols"), policy)
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
    from barcast.pipeline.beside import add_status as run

    return run(_place(workspace), table, replace_all=replace)


def facts(
    table: Path | str | pl.DataFrame | None = None,
    *,
    workspace: Place = None,
    replace: bool = False,
    version: int | None = None,
) -> pl.DataFrame:
    """Return what is on record about symbols (name, industry, ...), after adding ``table`` where given.

    Parameters
    ----------
    table : path or polars frame, optional
        One row a symbol: ``symbol`` and columns of text. Rows whose symbol cannot be read are left out.
    replace : bool
        The table takes the place of what the store has.
    """
    from barcast.pipeline.beside import add_facts, store_facts

    if table is not None:
        add_facts(_place(workspace), table, replace_all=replace)
    return store_facts(_place(workspace), version)


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
    symbols: Names | None = None,
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
        _place(workspace), Path(target), form=form, per_symbol=per_symbol,
        symbols=None if symbols is None else _names(symbols, "symbols"), start=start, end=end,
        version=version, force=force,
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
    tuned: str | None = None,
    fresh: bool = False,
    open_test: bool = False,
    report: bool = True,
    time_budget: float | None = None,
    profile: bool = False,
    track: Names | None = None,
    track_project: str | None = None,
    track_workspace: str | None = None,
    track_online: bool = False,
    output_dir: Path | str | None = None,
    progress: bool = False,
    **options: Any,
) -> TrainedAndCompared:
    """Train a model, compare it with naive rows and ridge, optionally refit, write the report.

    Parameters
    ----------
    size : str, optional
        Preset of a network: ``small``, ``balanced``, ``large``, ``xl``; ``auto``: the largest that its labels
        support, that fits, whose run stays in ``time_budget``, and that short trials on `stop` support.
    config : path, optional
        TOML file with tables ``data``, ``train`` and the model's; ``options`` win over it.
    final : bool
        Refit on everything known afterwards, and forecast the next session.
    refit : str, optional
        Train nothing: refit this finished run, with its own options, on everything known now (or as of
        ``asof``).
    tuned : str, optional
        Train the best of this search (`tune`); ``model`` need not be said then.
    open_test : bool
        Open the sealed test segment; every opening is counted.
    time_budget : float, optional
        Minutes that trials of sizes and the run may take where the size is ``auto``, 120 by default.
    profile : bool
        Measure where a network's time goes and what would be faster, into profile.json of the run.
    track : str or sequence of str, optional
        Trackers that mirror the run: ``("mlflow", "tensorboard")``; ``"none"`` for none, by default those of
        ``barcast.toml``.
    track_project, track_workspace : str, optional
        The trackers' project, and SwanLab's workspace.
    track_online : bool
        Let trackers use the network; keys come from the environment alone.
    output_dir : path, optional
        Gets a copy of the finished run's folder.
    **options
        Any option of the data, the loop or the model by its name: ``horizons=(1, 5)``, ``hidden_size=128``.
        Where several may be named, a single one stands for itself: ``symbols="AAPL"``, ``horizons=5``.
    """
    from barcast.pipeline.results import check_output_dir
    from barcast.pipeline.settings import resolve
    from barcast.pipeline.tracked import train_tracked
    from barcast.pipeline.tune import tuned_config
    from barcast.pipeline.workflow import refit_config
    from barcast.tracking.registry import open_mirror

    place, file, parent = _place(workspace), Path(config) if config else None, None
    trackers = None if track is None else _names(track, "track")
    mirror = open_mirror(place, trackers, project=track_project, team=track_workspace, online=track_online)
    if output_dir:
        check_output_dir(Path(output_dir))
    if tuned:
        model, file = tuned_config(place, tuned, "" if model == "lstm" else model, file, refit)
    if refit:
        parent, resolved = refit_config(place, refit, options, file)
    else:
        flags = {"size": size, "time_budget": time_budget, **options}
        resolved = resolve(place, model, flags, file, compare_sizes=True, progress=Progress(progress))
    return train_tracked(
        place,
        resolved,
        mirror,
        parent=parent,
        final=final,
        fresh=fresh,
        open_test=open_test,
        report=report,
        profile=profile,
        output_dir=Path(output_dir) if output_dir else None,
        progress=Progress(progress),
    )


def plan_train(
    model: str = "lstm",
    *,
    workspace: Place = None,
    size: str | None = None,
    time_budget: float | None = None,
    config: Path | str | None = None,
    on: str = "this",
    progress: bool = False,
    **options: Any,
) -> Plan:
    """Say what a training will need, without training: parameters, memory, time, largest batch, scheme.

    Parameters
    ----------
    size, time_budget, config, **options
        As for :func:`train`.
    on : str
        ``this`` machine, or a GPU that it does not have: ``a10``, ``rtx3080``, ``h100``, ``h800``.
    """
    from barcast.pipeline.plan import plan_train as plan
    from barcast.pipeline.settings import resolve

    place, shown = _place(workspace), Progress(progress)
    flags = {"size": size, "time_budget": time_budget, **options}
    resolved = resolve(place, model, flags, Path(config) if config else None, progress=shown)
    return plan(place, resolved, target=on, progress=shown)


def tune(
    model: str = "lstm",
    *,
    workspace: Place = None,
    size: str | None = None,
    config: Path | str | None = None,
    trials: int = 30,
    time_budget: float | None = None,
    parallel: int = 1,
    space: Path | str | None = None,
    progress: bool = False,
    **options: Any,
) -> Tuning:
    """Search options of a model and its training by the score on `stop`; the same call goes on.

    Parameters
    ----------
    size, config, **options
        As for :func:`train`; ``size`` and ``options`` are fixed, a file says where the search starts.
    trials : int
        Candidates in all, those of earlier calls included.
    time_budget : float, optional
        Minutes after which no trial begins.
    parallel : int
        Processes; each has its share of the threads.
    space : path, optional
        TOML file of what varies: ``lr = { low = 1e-4, high = 1e-2, log = true }``, ``num_layers = [1, 2]``.
    """
    from barcast.pipeline.tune import plan_search
    from barcast.pipeline.tune import tune as search

    place, file = _place(workspace), Path(config) if config else None
    chosen = {"size": size, **options}
    shown = Progress(progress)
    resolved, varied = plan_search(
        place, model, chosen, file, Path(space) if space else None, compare_sizes=True, progress=shown
    )
    return search(
        place, resolved, varied, trials=trials, minutes=time_budget, parallel=parallel, progress=shown
    )


def range_test(
    model: str = "lstm",
    *,
    workspace: Place = None,
    size: str | None = None,
    config: Path | str | None = None,
    progress: bool = False,
    **options: Any,
) -> RangeTested:
    """Raise the learning rate from 1e-6 to 1 on fresh weights, and say which one to train with; makes no run.

    Parameters
    ----------
    size, config, **options
        As :func:`train`.
    """
    from barcast.pipeline.range_test import check_read
    from barcast.pipeline.range_test import range_test as run
    from barcast.pipeline.settings import resolve

    check_read(options)
    place = _place(workspace)
    resolved = resolve(place, model, {"size": size, **options}, Path(config) if config else None)
    return run(place, resolved, progress=Progress(progress))


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

    place = _place(workspace)
    shown = Progress(progress)
    chosen = runs_to_compare(place, _names(names, "names"), progress=shown)
    looked = _names(segments, "segments")
    return compare_runs(place, chosen, segments=looked, open_test=open_test, progress=shown)


def predict(
    run: str | None = None,
    *,
    workspace: Place = None,
    symbols: Names = (),
    asof: str = "",
    allow_old: bool = False,
    progress: bool = False,
) -> Forecasts:
    """Forecast symbols from their newest bars, with the run's refit; without a run, with the champion."""
    from barcast.pipeline.champion import run_to_serve
    from barcast.pipeline.predict import predict as forecast

    place = _place(workspace)
    return forecast(
        place,
        run_to_serve(place, run, asof),
        symbols=_names(symbols, "symbols"),
        asof=asof,
        allow_old=allow_old,
        progress=Progress(progress),
    )


def promote(run: str, *, workspace: Place = None, why: str = "promoted by hand") -> Change:
    """Make a run the champion, which predicts when nobody names another; of a run with a refit, the refit.

    Raises
    ------
    RunError
        When it is not finished, damaged, or cannot serve the workspace's store.
    """
    from barcast.pipeline.champion import promote as crown

    return crown(_place(workspace), run, why=why)


def rollback(to: str = "", *, workspace: Place = None) -> Change:
    """Go back to the champion before, or to the earlier one called ``to``."""
    from barcast.pipeline.champion import rollback as back

    return back(_place(workspace), to)


def retrain(
    *,
    workspace: Place = None,
    promote_if_better: bool = False,
    margin: float | None = None,
    min_gain: float | None = None,
    when_unclear: str = "keep",
    min_sessions: int = 20,
    report: bool = True,
    progress: bool = False,
) -> Retrained:
    """Train the champion's recipe on the data as of now and compare with it on `route`.

    Parameters
    ----------
    promote_if_better : bool
        Promote the challenger's refit where the gate passes it.
    margin, min_gain, when_unclear, min_sessions
        What passes: see `GatePolicy`.

    Raises
    ------
    OverlapError
        When another retrain of the workspace is at work.
    """
    from barcast.pipeline.gate import GatePolicy
    from barcast.pipeline.retrain import retrain as run

    policy = GatePolicy.of(margin, min_gain, when_unclear, min_sessions)
    return run(
        _place(workspace), policy, promote_if_better=promote_if_better, report=report,
        progress=Progress(progress),
    )  # fmt: skip


def load(run: str, *, workspace: Place = None) -> LoadedRun:
    """Return a finished run (``"champion"`` is one too) as network, vocabulary and scaler.

    Raises
    ------
    RunError
        When it is not finished, or its weights are missing or damaged.
    """
    from barcast.core.runs import open_run
    from barcast.pipeline.load import load as run_as_object

    place = _place(workspace)
    return run_as_object(place, open_run(place, run))


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

    place = _place(workspace)
    return read_embeddings(place, open_run(place, run), facts=facts)


def adapt(
    name: str,
    *,
    workspace: Place = None,
    symbols: Names = (),
    asof: str = "",
    min_labels: int = 120,
    anyway: bool = False,
    progress: bool = False,
) -> Adaptation:
    """Give symbols that a finished network never saw an embedding of their own: a new run beside it.

    Parameters
    ----------
    name : str
        A network's run; its refit, where it has one, is what is adapted.
    symbols : str or sequence of str
        Empty means every symbol of the store that the run does not know.
    asof : str
        Last session that may be known; empty means the store's last.
    min_labels : int
        Known labels that a symbol must have.
    anyway : bool
        Write a run even where no number of steps beats "unknown" on the labels held out.
    """
    from barcast.core.runs import open_run
    from barcast.pipeline.adapt import adapt as run

    place = _place(workspace)
    return run(
        place, open_run(place, name), symbols=_names(symbols, "symbols"), asof=asof, min_labels=min_labels,
        anyway=anyway, progress=Progress(progress),
    )  # fmt: skip


def runs(*, workspace: Place = None) -> list[RunFolder]:
    """Return the workspace's runs, oldest first."""
    return list_runs(_place(workspace))


def run_status(run: RunFolder) -> str:
    """Return ``done``, ``running``, ``interrupted`` (killed; the same call goes on) or ``failed``."""
    from barcast.pipeline.unfinished import run_status as status_of

    return status_of(run)


@overload
def doctor(run: None = None, *, workspace: Place = None, progress: bool = False) -> list[Finding]: ...
@overload
def doctor(run: str, *, workspace: Place = None, progress: bool = False) -> Diagnosis: ...
def doctor(
    run: str | None = None, *, workspace: Place = None, progress: bool = False
) -> list[Finding] | Diagnosis:
    """Say what this machine has; or, of a run, what is wrong with its learning and what binds its speed."""
    place = _place(workspace)
    if run is None:
        from barcast.pipeline.doctor import examine

        return examine(place)
    from barcast.core.runs import open_run
    from barcast.pipeline.diagnose import diagnose

    return diagnose(place, open_run(place, run), progress=Progress(progress))


def quickstart(
    *, workspace: Place = "quickstart", fresh: bool = False, progress: bool = True
) -> TrainedAndCompared:
    """Go from the bundled sample bars to a trained, compared, predicting model and its report."""
    from barcast.pipeline.workflow import quickstart as run

    return run(_place(workspace), fresh=fresh, progress=Progress(progress))
