"""Training in Python: plans, searches, runs, refits and adapted runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from barcast.api.checked import checked
from barcast.api.places import Names, Place, names_of, place_of, symbols_of
from barcast.core.progress import Progress

if TYPE_CHECKING:
    from barcast.pipeline.adapt import Adaptation
    from barcast.pipeline.quickstart import Quickstarted
    from barcast.pipeline.range_test import RangeTested
    from barcast.pipeline.retrain import Retrained
    from barcast.pipeline.tune import Tuning
    from barcast.pipeline.tune_symbol import SymbolTuning
    from barcast.pipeline.workflow import TrainedAndCompared
    from barcast.planning.plan import Plan


@checked
def train(
    model: str | None = None,
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
    time_budget: float | str | None = None,
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
    model : str, optional
        ``lstm`` by default; with ``refit`` or ``tuned`` that of the run or the search.
    size : str, optional
        Preset of a network: ``small``, ``balanced``, ``large``, ``xl``; ``auto``: the largest that its labels
        support, that fits, whose run stays in ``time_budget``, and that short trials on `stop` support.
    config : path, optional
        TOML file with tables ``data``, ``train`` and the model's, or a run's config.json; ``options`` win
        over it.
    final : bool
        Refit on everything known afterwards, and forecast the next session.
    refit : str, optional
        Train nothing: refit this finished run, with its own options, on everything known now (or as of
        ``asof``).
    tuned : str, optional
        Train the best of this search (`tune`).
    open_test : bool
        Open the sealed test segment; every opening is counted.
    time_budget : float or str, optional
        Minutes, or ``"1h30m"``, that trials of sizes and the run may take where the size is ``auto``, 120 by
        default.
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

    place, file, parent = place_of(workspace), Path(config) if config else None, None
    trackers = None if track is None else names_of(track, "track")
    mirror = open_mirror(place, trackers, project=track_project, team=track_workspace, online=track_online)
    if output_dir:
        check_output_dir(Path(output_dir))
    if tuned:
        model, file = tuned_config(place, tuned, model or "", file, refit)
    flags = {"size": size, "time_budget": time_budget, **options}
    if refit:
        parent, resolved = refit_config(place, refit, flags, file, model or "")
    else:
        resolved = resolve(
            place, model or "lstm", flags, file, compare_sizes=True, progress=Progress(progress)
        )
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


@checked
def plan_train(
    model: str | None = None,
    *,
    workspace: Place = None,
    size: str | None = None,
    time_budget: float | str | None = None,
    config: Path | str | None = None,
    tuned: str | None = None,
    on: str = "this",
    progress: bool = False,
    **options: Any,
) -> Plan:
    """Say what a training will need, without training: parameters, memory, time, largest batch, scheme.

    Parameters
    ----------
    model, size, time_budget, config, tuned, **options
        As for :func:`train`.
    on : str
        ``this`` machine, or a GPU that it does not have: ``a10``, ``rtx3080``, ``h100``, ``h800``.
    """
    from barcast.pipeline.plan import plan_train as plan
    from barcast.pipeline.settings import resolve
    from barcast.pipeline.tune import tuned_config

    place, shown, file = place_of(workspace), Progress(progress), Path(config) if config else None
    if tuned:
        model, file = tuned_config(place, tuned, model or "", file)
    flags = {"size": size, "time_budget": time_budget, **options}
    resolved = resolve(place, model or "lstm", flags, file, progress=shown)
    return plan(place, resolved, target=on, progress=shown)


@checked
def tune(
    model: str = "lstm",
    *,
    workspace: Place = None,
    size: str | None = None,
    config: Path | str | None = None,
    trials: int = 30,
    time_budget: float | str | None = None,
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
    time_budget : float or str, optional
        Minutes, or ``"1h30m"``, after which no trial begins; the size ``auto`` is chosen before, within as
        many (at most 120).
    parallel : int
        Processes; each has its share of the threads.
    space : path, optional
        TOML file of what varies: ``lr = { low = 1e-4, high = 1e-2, log = true }``, ``num_layers = [1, 2]``.
    """
    from barcast.pipeline.tune import plan_search
    from barcast.pipeline.tune import tune as search

    place, file = place_of(workspace), Path(config) if config else None
    chosen = {"size": size, **options}
    shown = Progress(progress)
    resolved, varied = plan_search(
        place, model, chosen, file, Path(space) if space else None, minutes=time_budget, compare_sizes=True,
        progress=shown,
    )  # fmt: skip
    return search(
        place, resolved, varied, trials=trials, minutes=time_budget, parallel=parallel, progress=shown
    )


@checked
def tune_symbol(
    symbol: str,
    model: str = "fleet-trees",
    *,
    workspace: Place = None,
    config: Path | str | None = None,
    trials: int = 30,
    time_budget: float | str | None = None,
    space: Path | str | None = None,
    write: Path | str | None = None,
    progress: bool = False,
    **options: Any,
) -> SymbolTuning:
    """Search options of one symbol's own model by its score on its own `stop`; the same call goes on.

    Parameters
    ----------
    symbol : str
        In any spelling.
    model : str
        ``fleet-trees``, ``fleet-lstm`` or ``fleet-gru``.
    config, **options
        As for :func:`train_fleet`: ``preset``, ``min_rows``, ``hidden_size``, ...
    trials : int
        Candidates in all, those of earlier calls included.
    time_budget : float or str, optional
        Minutes, or ``"1h30m"``, after which no trial begins.
    space : path, optional
        TOML file of what varies: ``xgboost.max_depth = [2, 3]``, ``lr = { low = 1e-3, high = 1e-2 }``.
    write : path, optional
        File of ``--symbol-config`` that gets the best, where its gain is beyond noise.

    Returns
    -------
    SymbolTuning
        ``gain.is_real`` says whether anything is suggested; ``own`` and ``toml`` are what would be.
    """
    from barcast.pipeline.tune_symbol import tune_symbol as search

    return search(
        place_of(workspace), symbol, model, options, Path(config) if config else None,
        Path(space) if space else None, trials=trials, minutes=time_budget,
        write=Path(write) if write else None, progress=Progress(progress),
    )  # fmt: skip


@checked
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
    place = place_of(workspace)
    resolved = resolve(place, model, {"size": size, **options}, Path(config) if config else None)
    return run(place, resolved, progress=Progress(progress))


@checked
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
        place_of(workspace), policy, promote_if_better=promote_if_better, report=report,
        progress=Progress(progress),
    )  # fmt: skip


@checked
def adapt(
    name: str,
    *,
    workspace: Place = None,
    symbols: Names | None = None,
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
    symbols : str or sequence of str, optional
        Left out, every symbol of the store that the run does not know.
    asof : str
        Last session that may be known; empty means the store's last.
    min_labels : int
        Known labels that a symbol must have.
    anyway : bool
        Write a run even where no number of steps beats "unknown" on the labels held out.
    """
    from barcast.core.runs import open_run
    from barcast.pipeline.adapt import adapt as run

    place = place_of(workspace)
    return run(
        place, open_run(place, name), symbols=symbols_of(symbols), asof=asof, min_labels=min_labels,
        anyway=anyway, progress=Progress(progress),
    )  # fmt: skip


@checked
def quickstart(
    *, workspace: Place = "quickstart", fresh: bool = False, progress: bool = True
) -> Quickstarted:
    """Go from the bundled sample bars to a universal model, a model for each symbol, and who serves whom."""
    from barcast.pipeline.quickstart import quickstart as run

    return run(place_of(workspace), fresh=fresh, progress=Progress(progress))
