"""The universal model that a residual fleet leans on: which run, and what it says of rows it never learned.

A model's forecasts of rows that taught it hold their outcomes: what it leaves there is too little, and says
nothing of what it will leave. Every forecast here is of a row that the model behind it never learned:

- `fit`: the run's own config is trained again in folds that grow with time (`purged_folds`). A fold learns
  labels that were known before its block of `fit` begins and forecasts that block; a symbol that has not yet
  taught has the unknown identity there. Nothing stops early: passes, rounds and penalties are those that the
  run was best with. The sessions before the first block have no forecast, and teach a residual fleet nothing.
- later rows: the stored run itself, which learned `fit` alone, computed as `barcast predict` does. `stop`
  chose its best step or penalty, so what it leaves there is a little too small: those rows stop a residual
  fleet, and teach it nothing, in a refit either.

Each fold's forecasts are kept beside the ledger as one file that is there whole or not at all; a network that
is killed in the middle of a fold goes on from its checkpoint.

Letters: R rows, S symbols, H horizons.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I64, Bools
from barcast.core.atomic import atomic_path
from barcast.core.bars import Bars
from barcast.core.errors import RunError
from barcast.core.progress import Progress, count
from barcast.core.runs import RunFolder, list_runs, open_run
from barcast.core.workspace import Workspace
from barcast.models.registry import ROW_MODELS, model_entry
from barcast.pipeline.attributes import Values, attributes_of
from barcast.pipeline.compare import REFERENCE
from barcast.pipeline.dataset import (
    Dataset,
    build_dataset,
    enough_history,
    make_panel,
    normalised,
    run_features,
    target_name,
    taught_by,
)
from barcast.pipeline.fit import fit_model
from barcast.pipeline.fleet_rows import rows_of_table
from barcast.pipeline.fleet_seen import LEANS_ON
from barcast.pipeline.market import Market, session_times
from barcast.pipeline.scoring import score_rows
from barcast.pipeline.settings import RunConfig, from_run
from barcast.pipeline.warm import weights_digest
from barcast.splits.cross_validation import Fold, purged_folds
from barcast.windows.normalise import FittedScaler

#: Blocks of `fit` that are forecast out of fold; the first of so many parts and one more only teaches.
NUM_FOLDS = 4
#: Where the forecasts are kept, in the folder of the ledger.
FOLDER = "universal"


@dataclass(frozen=True)
class Universal:
    """A finished run that a residual fleet leans on, as it was then.

    Attributes
    ----------
    run : RunFolder
    id : str
        Identity of the run.
    digest : str
        Of its weights.
    """

    run: RunFolder
    id: str
    digest: str

    @classmethod
    def of(cls, run: RunFolder) -> Universal:
        """Return a run as it is now."""
        return cls(run, str(run.info["id"]), weights_digest(run))

    def plain(self) -> dict[str, str]:
        """Return what run.json records."""
        return {"run": self.run.name, "id": self.id, "digest": self.digest}


def is_residual(config: RunConfig) -> bool:
    """Return whether a run is a fleet that learns what a universal model leaves."""
    return getattr(config.options, "on", "") == "residual"


def refuse_residual(run: RunFolder, todo: str) -> None:
    """Refuse a residual fleet where its models alone would be taken for forecasts (`RunError`)."""
    if universal := run.recorded.get(LEANS_ON):
        raise RunError(
            f"`{run.name}` is a residual fleet: its models forecast what `{universal['run']}` leaves, and "
            "nothing alone",
            todo,
        )


def with_universal(workspace: Workspace, config: RunConfig, market: Market, progress: Progress) -> RunConfig:
    """Return the config of a residual fleet with the whole name of its universal run; others as they are.

    Where none is named an unfinished fleet of the same options goes on with its own; else it is the newest.

    Raises
    ------
    RunError
        When there is no such run, or the one that was named could not have made out-of-fold forecasts of
        these rows.
    """
    if not is_residual(config):
        return config
    named = config.options.universal
    begun = None if named else _of_unfinished(workspace, config, market)
    if begun is not None:
        progress.note(f"going on with the fleet that leans on {begun.name}; --universal RUN names another")
    run = open_run(workspace, named) if named else begun or _newest(workspace, market)
    if why := _unsuited(run, market):
        raise RunError(
            f"`{run.name}` cannot carry a residual fleet: {why}",
            "--universal RUN: one trained on the same rows, segments, horizons and target (barcast runs)",
        )
    return replace(config, options=replace(config.options, universal=run.name))


def _of_unfinished(workspace: Workspace, config: RunConfig, market: Market) -> RunFolder | None:
    """Return what the newest unfinished fleet of otherwise the same options and rows leans on."""
    for fleet in reversed(list_runs(workspace)):
        info = fleet.info
        if info["model"] != config.model or info["status"] == "done" or "parent" in info:
            continue
        if (info.get("data_key"), info.get("label_key")) != (market.data_key, market.label_key):
            continue
        if not (fleet.path / "config.json").is_file():  # killed as it began
            continue
        begun = from_run(fleet.read("config.json"))
        run = RunFolder(workspace.runs / begun.options.universal)
        same = replace(config, options=replace(config.options, universal=begun.options.universal))
        if same.identity() == begun.identity() and run.is_done and not _unsuited(run, market):
            return run
    return None


def _newest(workspace: Workspace, market: Market) -> RunFolder:
    """Return the newest run that suits; ridge, which comparisons train by themselves, only by its name."""
    suited = [
        run
        for run in list_runs(workspace)
        if run.is_done and run.info["model"] != REFERENCE and not _unsuited(run, market)
    ]
    if suited:
        return suited[-1]
    raise RunError(
        "no finished universal run learned the rows, segments, horizons and target of this fleet",
        "barcast train lstm with the same options of the data, then this again; or --universal RUN",
    )


def _unsuited(run: RunFolder, market: Market) -> str:
    """Say what keeps a run from carrying a residual fleet on a market; empty where nothing does."""
    info = run.info
    if not run.is_done:
        return "it is not finished"
    if info.get("final"):
        return f"it is a refit, which learned every known label; name `{info['parent']}`"
    if model_entry(str(info["model"])).kind not in ("network", "tabular"):
        return "it is no universal model"
    if "warm_start" in info:
        return f"it began with the weights of `{info['warm_start']['run']}`, which know what a fold must not"
    if info.get("data_key") != market.data_key:
        return f"it learned other rows (to {info['cutoff']}), and this fleet's end {market.cutoff}"
    if info.get("label_key") != market.label_key:
        return "its horizons or segments differ"
    learned, wanted = run.read("state.json")["target"], target_name(market)
    if learned != wanted:
        return f"it learned {learned}, and this fleet {wanted}"
    config = from_run(run.read("config.json"))
    if config.data.hold_out_fold != market.config.hold_out_fold:
        return "other symbols were held out"
    if info.get("features_code") != run_features(run, config.data.features).code_digest():
        return f"features `{config.data.features}` are computed otherwise now"
    return ""


def recorded_universal(workspace: Workspace, run: RunFolder) -> Universal | None:
    """Return the run that a residual fleet leans on, as it was recorded; None for any other run.

    Raises
    ------
    RunError
        When it is gone, or its weights are no longer those that the fleet learned to correct.
    """
    told = run.recorded.get(LEANS_ON)
    if told is None:
        return None
    folder = RunFolder(workspace.runs / told["run"])
    there = folder.is_done and folder.weights.is_file()
    if not there or weights_digest(folder) != told["digest"]:
        found = "has other weights now" if there else "is gone"
        raise RunError(
            f"`{run.name}` corrects what `{told['run']}` says, which {found}",
            f"bring {folder.path} back, or fit the fleet again with --fresh",
        )
    return Universal(folder, told["id"], told["digest"])


def stored_scores(workspace: Workspace, run: RunFolder, bars: Bars, rows: I64) -> F64:
    """Return what a finished run says of rows (n,) of bars, shape (n, H), as ``barcast predict`` does."""
    config, state = from_run(run.read("config.json")), run.read("state.json")
    features = run_features(run, state["feature_set"])
    universe = np.isin(np.array(bars.symbols), np.array(state["universe"]))
    return score_rows(workspace, run, config, state, bars, features, universe, rows)[0]


def unseen_scores(
    workspace: Workspace, run: RunFolder, universal: RunFolder, market: Market, progress: Progress,
    evaluated: RunFolder | None = None,
) -> F64:  # fmt: skip
    """Return scores (R, H) of a universal model by which no scored row was learned; NaN where there is none.

    Parameters
    ----------
    run : RunFolder
        The fleet; what is computed is kept there.
    evaluated : RunFolder, optional
        The fleet that ``run`` refits: it has the forecasts of its `fit`, by symbol and session.
    """
    if evaluated is None:
        _forecast_folds(workspace, run, universal, market, progress)
        last = market.bars.calendar.times[market.plan.spans["fit"][1]]
    else:
        last = np.datetime64(evaluated.read("state.json")["segments"]["fit"][1])
    later = run.fleet / FOLDER / "later.parquet"
    if not later.is_file():
        after = market.bars.calendar.times[market.bars.session] > last
        rows = np.flatnonzero(after & _worth_it(market))
        progress.note(f"{universal.name} forecasts {count(len(rows))} rows after `fit`")
        _keep(later, _table(market.bars, rows, stored_scores(workspace, universal, market.bars, rows)))
    scores = np.full((len(market.bars), len(market.labels.spec.horizons)), np.nan)
    for part in (*(_part(evaluated or run, place) for place in range(NUM_FOLDS)), later):
        _put(scores, market.bars, part)
    return scores


def _part(run: RunFolder, place: int) -> Path:
    return run.fleet / FOLDER / f"fold-{place}.parquet"


def _worth_it(market: Market) -> Bools:
    """Return which rows may ever teach or judge: with the history for a forecast, and a known label."""
    found: Bools = market.labels.known.any(axis=1) & enough_history(market)
    return found


def _folds(market: Market) -> tuple[Fold, ...]:
    """Cut `fit`, from the first session that may teach on."""
    fit = np.flatnonzero(market.rows_of("fit") & _worth_it(market))
    span = int(market.bars.session[fit].min()), market.plan.spans["fit"][1]
    return purged_folds(
        market.bars.calendar, NUM_FOLDS, label_sessions=market.labels.spec.label_sessions, span=span
    )


def _forecast_folds(
    workspace: Workspace, run: RunFolder, universal: RunFolder, market: Market, progress: Progress
) -> None:
    """Make the forecasts of the folds that are not there yet, each from a training of its own."""
    missing = {place: fold for place, fold in enumerate(_folds(market)) if not _part(run, place).is_file()}
    for place in {*range(NUM_FOLDS)} - missing.keys():  # a kill may have left what it was trained in
        shutil.rmtree(_part(run, place).with_suffix(""), ignore_errors=True)
    if not missing:
        return
    config = from_run(universal.read("config.json"))
    features, values = run_features(universal, config.data.features), attributes_of(workspace, config, market)
    tabular = model_entry(config.model).kind in ROW_MODELS
    dataset = build_dataset(market, workspace, features, tabular=tabular, attributes=values)
    for place, fold in missing.items():
        part = _part(run, place)
        known = _known_to(fold, workspace, dataset, values)
        with progress.about(f"{universal.name} out of fold, {place + 1} of {NUM_FOLDS}: "):
            table = _fold_scores(part.with_suffix(""), universal, config, known, fold, progress)
        _keep(part, table)
        shutil.rmtree(part.with_suffix(""), ignore_errors=True)


def _fold_scores(
    folder: Path, universal: RunFolder, config: RunConfig, dataset: Dataset, fold: Fold, progress: Progress
) -> pl.DataFrame:
    """Train a universal run's config in a folder of its own, and forecast the block of a fold."""
    market, (first, last) = dataset.market, fold.validation
    session, times = market.bars.session, market.bars.calendar.times
    rows = np.flatnonzero((session >= first) & (session <= last) & _worth_it(market))
    progress.note(
        f"{count(int(dataset.teach.sum()))} rows known by {times[fold.train[1]]} teach, "
        f"{count(len(rows))} from {times[first]} to {times[last]} are forecast"
    )
    folder.mkdir(parents=True, exist_ok=True)
    scratch = RunFolder(folder)
    scratch.write("run.json", {"name": scratch.name, "status": "running", **scratch.recorded})
    # as a refit: what the run chose is kept, and steps go by the labels that teach
    outcome = fit_model(model_entry(config.model), config, dataset, scratch, progress, parent=universal)
    outputs = np.asarray(outcome.predict(rows), np.float64)
    return _table(market.bars, rows, outcome.head.scores(outputs))


def _known_to(fold: Fold, workspace: Workspace, dataset: Dataset, values: Values) -> Dataset:
    """Return the rows of a dataset as they were known when the block of a fold began."""
    market, features = dataset.market, dataset.features
    known, _ = fold.rows(market.bars.session, market.labels.last_known_at)
    teach = np.zeros(len(market.bars), bool)
    teach[known] = dataset.teach[known]
    if dataset.scaler is not None:  # its constants come from all of `fit`
        panel = make_panel(market.bars, features, workspace, market.data_digest)
        scaler = FittedScaler.fit(panel.values, teach)
        everyone = np.ones(market.bars.num_symbols, bool)
        inputs = normalised(panel, market.bars, features, scaler, everyone)
        dataset = replace(dataset, scaler=scaler, inputs=inputs)
    return taught_by(dataset, teach, values)


def _table(bars: Bars, rows: I64, scores: Any) -> pl.DataFrame:
    symbols = np.array(bars.symbols, dtype=object)[bars.symbol_of_row[rows]]
    columns = {f"score_{h}": np.asarray(column, np.float64) for h, column in enumerate(scores.T)}
    keys = {"symbol": pl.Series(symbols, dtype=pl.String), "time": session_times(bars, bars.session[rows])}
    return pl.DataFrame({**keys, **columns})


def _keep(path: Path, table: pl.DataFrame) -> None:
    with atomic_path(path) as temporary:
        table.write_parquet(temporary)


def _put(scores: F64, bars: Bars, part: Path) -> None:
    """Put the forecasts of a file where their rows are now; a row that is no longer there is left out."""
    if not part.is_file():
        raise RunError(f"no universal forecasts in {part}", "fit the fleet again with --fresh")
    table = pl.read_parquet(part)
    rows = rows_of_table(bars, table)
    found = table.select(pl.selectors.starts_with("score_")).to_numpy()
    scores[rows[rows >= 0]] = found[rows >= 0]
