"""``barcast compare``: runs beside naive rows and ridge, on the rows that all of them cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from barcast.core.config import digest
from barcast.core.errors import RunError
from barcast.core.predictions import read_predictions, write_predictions
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, list_runs, open_run
from barcast.core.workspace import Workspace
from barcast.evaluation.align import CommonRows, align
from barcast.evaluation.compare import compare_rows
from barcast.evaluation.results import Comparison, Cost
from barcast.evaluation.sealed import FILE_NAME, TestSeal
from barcast.evaluation.settings import Settings
from barcast.models.registry import model_entries
from barcast.pipeline.forecast import base_rows, naive_rows
from barcast.pipeline.market import Market, load_market
from barcast.pipeline.settings import from_run, resolve
from barcast.pipeline.train import SCORED, train

#: The trained row that every table holds.
REFERENCE = "ridge"


@dataclass(frozen=True)
class Compared:
    """Comparisons by segment, and the table they were made from.

    Attributes
    ----------
    comparisons : tuple of Comparison
        `route`, and `test` where it was opened; one a horizon.
    rows : tuple of CommonRows
        What each of them was made from.
    runs : tuple of str
    openings : int
        How often the test segment of this data and label was opened in the workspace.
    """

    comparisons: tuple[Comparison, ...]
    rows: tuple[CommonRows, ...]
    runs: tuple[str, ...]
    openings: int


def compare_runs(
    workspace: Workspace,
    runs: Sequence[RunFolder],
    *,
    segments: Sequence[str] = ("route",),
    open_test: bool = False,
    market: Market | None = None,
    progress: Progress | None = None,
) -> Compared:
    """Score runs of one data and label side by side; the naive rows and ridge are added where missing.

    Parameters
    ----------
    segments : sequence of str
        Segments that may be looked at freely (`weigh`, `route`).
    open_test : bool
        Open the sealed test segment: counted, and shown beside every later score.

    Raises
    ------
    RunError
        When a run is unfinished, a refit, or about other data, labels or segments than the first.
    """
    progress = progress or Progress(enabled=False)
    _check_same_question(runs)
    config = from_run(runs[0].read("config.json"))
    if market is None:
        progress.note("reading the store and making labels")
        market = load_market(workspace, replace(config.data, asof=str(runs[0].info["cutoff"])[:10]))
    if market.label_key != runs[0].info["label_key"] or market.data_key != runs[0].info["data_key"]:
        raise RunError(
            f"the store has changed since `{runs[0].name}` was trained (rows up to {runs[0].info['cutoff']})",
            f"train again on the data as it is: barcast train {config.model}",
        )
    everyone = [*runs, *_reference(workspace, runs, market, progress)]
    frames = [read_predictions(run.predictions) for run in everyone]
    table = pl.concat([_naive(workspace, market, progress), *frames])
    seal = TestSeal(workspace.root / FILE_NAME)
    names = list(segments)
    if open_test:
        openings = seal.open(market.data_key, market.label_key, run=runs[0].name).count
        table = _with_outcomes(table, market)
        names.append("test")
    else:
        openings = seal.count(market.data_key, market.label_key)
    settings = Settings(
        cross_sectional=not market.small_universe,
        reference=REFERENCE,
        costs={run.name: _cost(run) for run in everyone},
        openings=openings,
        daily=market.bars.calendar.is_daily,
        survivors_only=market.quality.survivors_only,
    )
    rows = tuple(
        align(table, segment=name, horizon=horizon)
        for name in names
        for horizon in market.labels.spec.horizons
    )
    comparisons = tuple(compare_rows(part, settings) for part in rows)
    for run in runs:
        run.write("comparison.json", [comparison.to_plain() for comparison in comparisons])
    return Compared(comparisons, rows, tuple(run.name for run in runs), openings)


def runs_to_compare(workspace: Workspace, names: Sequence[str]) -> list[RunFolder]:
    """Find the named runs; without names, the newest finished run and all others of the same question."""
    if names:
        return [open_run(workspace, name) for name in names]
    done = [run for run in list_runs(workspace) if run.is_done and not run.info.get("final")]
    if not done:
        raise RunError("no finished run in this workspace", "barcast train lstm")
    newest = done[-1].info
    question = (newest["data_key"], newest["label_key"])
    return [run for run in done if (run.info["data_key"], run.info["label_key"]) == question]


def _check_same_question(runs: Sequence[RunFolder]) -> None:
    if not runs:
        raise RunError("nothing to compare", "barcast train lstm, then barcast compare RUN")
    first = runs[0].info
    for run in runs:
        info = run.info
        if not run.is_done:
            raise RunError(f"run `{run.name}` is not finished", "run its `barcast train` again: it resumes")
        if info.get("final"):
            raise RunError(
                f"`{run.name}` is a refit on everything known: no rows are left to judge it",
                f"compare its parent: barcast compare {info['parent']}",
            )
        if (info["data_key"], info["label_key"]) != (first["data_key"], first["label_key"]):
            raise RunError(
                f"`{run.name}` and `{runs[0].name}` are about different data, horizons or segments",
                "train both with the same --horizon, --segments, --symbols and store version",
            )


def _reference(
    workspace: Workspace, runs: Sequence[RunFolder], market: Market, progress: Progress
) -> list[RunFolder]:
    """Return the ridge run of the same question, trained now if there is none yet."""
    if any(run.info["model"] == REFERENCE for run in runs):
        return []
    keys = (market.data_key, market.label_key)
    for run in list_runs(workspace):
        info = run.info
        same = (info.get("data_key"), info.get("label_key")) == keys and info.get("model") == REFERENCE
        if not same or not run.is_done or info.get("final"):
            continue
        if run.read("config.json")["data"]["features"] == market.config.features:
            return [run]
    progress.note(f"training {REFERENCE}, the row to beat")
    config = replace(resolve(workspace, REFERENCE), data=market.config)
    if _is_window_normalised(workspace, market):
        config = replace(config, data=replace(market.config, features="tech48"))
    return [train(workspace, config, market=market, progress=progress).run]


def _is_window_normalised(workspace: Workspace, market: Market) -> bool:
    from barcast.pipeline.dataset import resolve_features

    return resolve_features(workspace, market.config.features).window_normalised


def _naive(workspace: Workspace, market: Market, progress: Progress) -> pl.DataFrame:
    """Return the naive rows, from the cache where this data and label were asked before."""
    import numpy as np

    path = workspace.cache / "naive" / f"{digest([market.data_key, market.label_key])}.parquet"
    if path.is_file():
        return read_predictions(path)
    progress.note("naive rows")
    rows = np.flatnonzero(market.rows_of(*SCORED))
    rules = [entry for entry in model_entries() if entry.kind == "naive"]
    table = pl.concat([naive_rows(market, rows, entry.name, entry.build) for entry in rules])
    write_predictions(path, table)
    return table


def _with_outcomes(table: pl.DataFrame, market: Market) -> pl.DataFrame:
    """Fill in the outcomes of the sealed rows."""
    rows = market.rows_of("test").nonzero()[0]
    keys = ["symbol", "time", "horizon"]
    outcomes = pl.concat(
        [
            base_rows(market, rows, h, opened=True).select(*keys, pl.col("y").alias("outcome"))
            for h in range(len(market.labels.spec.horizons))
        ]
    ).with_columns(pl.col("horizon").cast(pl.Int32))
    joined = table.join(outcomes, on=keys, how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce("y", "outcome").alias("y")).drop("outcome")


def _cost(run: RunFolder) -> Cost:
    info = run.info
    return Cost(
        train_seconds=info.get("train_seconds"),
        size_bytes=info.get("weights_bytes"),
        predict_seconds=info.get("predict_seconds"),
    )
