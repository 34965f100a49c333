"""``barcast compare``: runs beside naive rows and ridge, on the rows that all of them cover."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
from barcast.models import naive
from barcast.models.registry import model_entries
from barcast.pipeline import forecast
from barcast.pipeline.dataset import resolve_features
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
    runs = list({run.name: run for run in runs}.values())
    _check_same_question(runs)
    config = from_run(runs[0].read("config.json"))
    if market is None:
        progress.note("reading the store and making labels")
        market = market_of(workspace, runs[0])
    if market.label_key != runs[0].info["label_key"] or market.data_key != runs[0].info["data_key"]:
        raise RunError(
            f"the store has changed since `{runs[0].name}` was trained (rows up to {runs[0].info['cutoff']})",
            f"train again on the data as it is: barcast train {config.model}",
        )
    everyone = [*runs, *_reference(workspace, runs, market, progress)]
    frames = [read_predictions(run.predictions) for run in everyone]
    table = pl.concat([_naive(workspace, market, progress), *frames])
    names = list(segments)
    openings, seen = _openings(workspace, market, runs, open_test)
    if seen:
        table = _with_outcomes(table, market)
        names.append("test")
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
    if len(runs) == 1:
        runs[0].write("comparison.json", [comparison.to_plain() for comparison in comparisons])
    return Compared(comparisons, rows, tuple(run.name for run in runs), openings)


def market_of(workspace: Workspace, run: RunFolder) -> Market:
    """Return the labelled rows a run was made from: its own store version and cutoff, whatever came later."""
    info, config = run.info, from_run(run.read("config.json"))
    return load_market(
        workspace, replace(config.data, asof=str(info["cutoff"])), version=info["store_version"]
    )


def _openings(
    workspace: Workspace, market: Market, runs: Sequence[RunFolder], open_test: bool
) -> tuple[int, bool]:
    """Return how often this test was opened, and whether these runs' scores on it may be shown.

    Scores that were seen once stay visible without counting again; a run whose weights have changed is a new
    candidate, and looking at it is a new opening.
    """
    seal = TestSeal(workspace.root / FILE_NAME)
    names = [f"{run.name}@{_digest_of(run.weights)}" for run in runs]
    looked = {
        name for opening in seal.history(market.data_key, market.label_key) for name in opening.run.split()
    }
    new = [name for name in names if name not in looked]
    if new and open_test:
        return seal.open(market.data_key, market.label_key, run=" ".join(new)).count, True
    return seal.count(market.data_key, market.label_key), not new


def _digest_of(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=4).hexdigest()


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
    data = market.config
    if resolve_features(workspace, data.features).window_normalised:
        data = replace(data, features="tech48")  # ridge sees one row at a time
    return [
        train(
            workspace, replace(resolve(workspace, REFERENCE), data=data), market=market, progress=progress
        ).run
    ]


def _naive(workspace: Workspace, market: Market, progress: Progress) -> pl.DataFrame:
    """Return the naive rows, from the cache where this data and label were asked before."""
    import numpy as np

    code = [Path(module.__file__ or "").read_text(encoding="utf-8") for module in (naive, forecast)]
    path = workspace.cache / "naive" / f"{digest([market.data_key, market.label_key, code])}.parquet"
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
