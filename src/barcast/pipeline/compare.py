"""``barcast compare``: runs beside naive rows and ridge, on the rows that all of them cover."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from barcast.core.config import digest
from barcast.core.errors import RunError
from barcast.core.memory import give_back
from barcast.core.predictions import QUANTILE_LEVELS, SEGMENTS, read_predictions
from barcast.core.progress import Progress
from barcast.core.runs import FLEET_LEDGER, RunFolder, list_runs, open_run
from barcast.core.workspace import Workspace
from barcast.evaluation.align import CommonRows, align
from barcast.evaluation.compare import compare_rows
from barcast.evaluation.results import Comparison, Cost
from barcast.evaluation.sealed import FILE_NAME, Openings, SealedTest, TestSeal
from barcast.evaluation.settings import Settings
from barcast.pipeline.dataset import resolve_features
from barcast.pipeline.forecast import base_rows
from barcast.pipeline.load import check_there
from barcast.pipeline.market import Market, load_market
from barcast.pipeline.naive import NaiveTables, spared
from barcast.pipeline.record import check_market, of_another_market
from barcast.pipeline.settings import RunConfig, from_run, resolve
from barcast.pipeline.train import train
from barcast.pipeline.unfinished import check_done

#: The trained row that every table holds.
REFERENCE = "ridge"
#: Options that make labels or segments others.
_LABEL_OPTIONS = ("horizons", "delay", "segments", "shares", "quality")


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
    openings : Openings
        How often the test segment was opened in the workspace.
    """

    comparisons: tuple[Comparison, ...]
    rows: tuple[CommonRows, ...]
    runs: tuple[str, ...]
    openings: Openings


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
    give_back()
    runs = list({run.name: run for run in runs}.values())
    check_same_question(runs)
    for run in runs:
        check_there(run, run.predictions, "predictions")
    market = market or market_again(workspace, runs[0], progress)
    reference = _reference(workspace, runs, market, progress)
    give_back()
    everyone = list({run.name: run for run in [*runs, reference]}.values())
    openings, seen = _openings(workspace, market, runs, open_test)
    naive, labels = NaiveTables(workspace, market, progress), _labels(everyone)
    rows = tuple(
        align(_table(naive, everyone, labels, name, horizon), segment=name, horizon=horizon)
        for name in dict.fromkeys((*segments, *["test"] * seen))
        for horizon in market.labels.spec.horizons
    )
    settings = Settings(
        cross_sectional=not market.small_universe,
        reference=_name_of_reference(reference, rows[0]),
        costs={run.name: _cost(run) for run in everyone},
        num_trials={run.name: int(run.info.get("num_trials", 0)) for run in everyone},
        openings=openings,
        daily=market.bars.calendar.is_daily,
        survivors_only=market.quality.survivors_only,
        quantile_levels=QUANTILE_LEVELS if market.config.target == "quantiles" else (),
    )
    comparisons = tuple(compare_rows(part, settings) for part in rows)
    if len(runs) == 1:
        with spared(progress, "the scores in comparison.json"):
            _keep_scores(runs[0], comparisons)
    return Compared(comparisons, rows, tuple(run.name for run in runs), openings)


def _labels(runs: Sequence[RunFolder]) -> dict[str, str]:
    """Name the rows of runs that differ in more than their seed: only seeds of one recipe make one row.

    Runs of one seed are told apart by what they say (`align`).
    """
    recipes: dict[str, dict[str, list[RunFolder]]] = {}
    seeds: dict[str, set[int]] = {}
    for run in runs:
        config = from_run(run.read("config.json"))
        recipe = digest([_recipe(config), run.info.get("warm_start")])
        recipes.setdefault(config.row_name, {}).setdefault(recipe, []).append(run)
        seeds.setdefault(config.row_name, set()).add(config.seed)
    return {
        run.name: f"{name} [{group[0].name}]"
        for name, groups in recipes.items()
        if len(groups) > 1 and len(seeds[name]) > 1
        for group in groups.values()
        for run in group
    }


def _recipe(config: RunConfig) -> dict[str, Any]:
    """Return what makes a model, but for its seed, the question, and where it was computed."""
    found = config.identity()
    for table, names in (
        (found, ("seed",)),
        (found["train"] or {}, ("seed", "threads", "device")),
        (found["data"], ("asof", "symbols", "limit", "segments", "shares")),
    ):
        for name in names:
            table.pop(name, None)
    return found


def _table(
    naive: NaiveTables, runs: Sequence[RunFolder], labels: Mapping[str, str], segment: str, horizon: int
) -> pl.DataFrame:
    """Return what rules and runs say of one segment and horizon; all of them at once would not fit."""
    said = []
    for run in runs:
        frame = read_predictions(run.predictions, segment=segment, horizon=horizon)
        if run.name in labels:
            frame = frame.with_columns(model=pl.lit(labels[run.name]))
        said.append(frame)
    table = pl.concat([*naive.of(segment, horizon), *said])
    return _with_outcomes(table, naive.market) if segment == "test" else table


def _keep_scores(run: RunFolder, comparisons: Sequence[Comparison]) -> None:
    """Write the scores into the run's folder, beside those of segments that were compared before."""
    try:
        known = run.read("comparison.json")
    except RunError:  # none yet, or damaged: what is asked now can be computed all the same
        known = []
    found = [*known, *(comparison.to_plain() for comparison in comparisons)]
    by_place = {(SEGMENTS.index(one["segment"]), one["horizon"]): one for one in found}
    run.write("comparison.json", [by_place[place] for place in sorted(by_place)])


def market_of(workspace: Workspace, run: RunFolder) -> Market:
    """Return the labelled rows a run was made from: its own store version and cutoff, whatever came later."""
    info, config = run.info, from_run(run.read("config.json"))
    return load_market(
        workspace, replace(config.data, asof=str(info["cutoff"])), version=info["store_version"]
    )


def market_again(workspace: Workspace, run: RunFolder, progress: Progress) -> Market:
    """Read the rows of a finished run again.

    Raises
    ------
    RunError
        When the store is of another market, or no longer has the rows the run was made from.
    """
    check_market(workspace, run)
    progress.note("reading the store and making labels")
    market, info = market_of(workspace, run), run.info
    if (market.label_key, market.data_key) != (info["label_key"], info["data_key"]):
        raise RunError(
            f"the store has changed since `{run.name}` was trained (rows up to {info['cutoff']})",
            f"train again on the data as it is: barcast train {info['model']}",
        )
    return market


def _openings(
    workspace: Workspace, market: Market, runs: Sequence[RunFolder], open_test: bool
) -> tuple[Openings, bool]:
    """Return how often this test was opened, and whether these runs' scores on it may be shown.

    Scores that were seen once stay visible without counting again; a run whose weights have changed is a new
    candidate, and looking at it is a new opening.
    """
    seal, test = TestSeal(workspace.root / FILE_NAME), _sealed_test(market)
    looked = {name for opening in seal.history(test) for name in opening.run.split()}
    new = [name for run in runs if (name := f"{run.name}@{_digest_of(run)}") not in looked]
    if new and open_test:
        seal.open(test, " ".join(new))
    return seal.count(test), open_test or not new


def test_was_seen(workspace: Workspace, run: RunFolder) -> bool:
    """Return whether scores of these weights on `test` were looked at: only then may they be again."""
    info, config = run.info, from_run(run.read("config.json")).data
    first, last = run.read("state.json")["segments"]["test"]
    test = SealedTest(
        data_key=info["data_key"], label_key=info["label_key"],
        market=f"{info['market']} {info['frequency']} {info['calendar']}",
        horizons=config.horizons, delay=config.delay, first=first, last=last,
    )  # fmt: skip
    looked = TestSeal(workspace.root / FILE_NAME).history(test)
    return f"{run.name}@{_digest_of(run)}" in {name for one in looked for name in one.run.split()}


def _sealed_test(market: Market) -> SealedTest:
    """Say which test this is: by its rows, and by what any other version of them shares with it."""
    calendar, spec = market.bars.calendar, market.labels.spec
    first, last = market.plan.spans["test"]
    return SealedTest(
        data_key=market.data_key,
        label_key=market.label_key,
        market=f"{market.bars.market} {calendar.frequency} {calendar.name}",
        horizons=spec.horizons,
        delay=spec.delay,
        first=str(calendar.times[first]),
        last=str(calendar.times[last]),
    )


def _digest_of(run: RunFolder) -> str:
    """Return a digest of a run's weights; when a fleet's were made, which its ledger says, does not count."""
    if not (run.fleet / FLEET_LEDGER).is_file():
        return hashlib.blake2b(run.weights.read_bytes(), digest_size=4).hexdigest()
    from barcast.fleet.ledger import Ledger
    from barcast.pipeline.fleet_weights import WEIGHTS

    with Ledger.open(run.fleet / FLEET_LEDGER) as ledger:
        return ledger.content_digest(WEIGHTS)[:8]


def runs_to_compare(
    workspace: Workspace, names: Sequence[str], *, progress: Progress | None = None
) -> list[RunFolder]:
    """Find the named runs; without names, the newest finished run and all others of the same question.

    Runs of another market than the store's are left out, and ``progress`` says so.
    """
    if names:
        return [open_run(workspace, name) for name in names]
    done = []
    for run in list_runs(workspace):
        if not run.is_done or run.info.get("final"):
            continue
        if foreign := of_another_market(workspace, run):
            (progress or Progress(enabled=False)).note(f"left out: {foreign}")
        else:
            done.append(run)
    if not done:
        raise RunError("no finished run in this workspace", "barcast train lstm")
    newest = done[-1].info
    question = (newest["data_key"], newest["label_key"])
    return [run for run in done if (run.info["data_key"], run.info["label_key"]) == question]


def check_same_question(runs: Sequence[RunFolder]) -> None:
    """Refuse runs that are unfinished, refits, or about other data, labels or segments than the first.

    Raises
    ------
    RunError
        Saying what differs.
    """
    if not runs:
        raise RunError("nothing to compare", "barcast train lstm, then barcast compare RUN")
    first = runs[0].info
    for run in runs:
        info = run.info
        check_done(run)
        if info.get("final"):
            raise RunError(
                f"`{run.name}` is a refit on everything known: no rows are left to judge it",
                f"compare its parent: barcast compare {info['parent']}",
            )
        if (info["data_key"], info["label_key"]) != (first["data_key"], first["label_key"]):
            raise RunError(
                f"`{run.name}` and `{runs[0].name}` ask different questions: {_differences(run, runs[0])}",
                "compare runs of one question; `barcast compare` without names takes all that fit the newest",
            )


def _differences(run: RunFolder, other: RunFolder) -> str:
    """Name what differs between two runs' data and labels, each with both values."""
    configs = [from_run(one.read("config.json")).data for one in (run, other)]
    infos = [one.info for one in (run, other)]
    pairs = {name: [getattr(data, name) for data in configs] for name in _LABEL_OPTIONS}
    for name, title in (("cutoff", "data up to"), ("num_symbols", "symbols"), ("num_rows", "bars")):
        pairs[title] = [info[name] for info in infos]
    found = [f"{title} {_shown(a)} against {_shown(b)}" for title, (a, b) in pairs.items() if a != b]
    versions = " against ".join(str(info["store_version"]) for info in infos)
    return "; ".join(found) or f"values inside the bars (store version {versions})"


def _shown(value: object) -> str:
    return ",".join(map(str, value)) or "by default" if isinstance(value, tuple) else str(value)


def _reference(
    workspace: Workspace, runs: Sequence[RunFolder], market: Market, progress: Progress
) -> RunFolder:
    """Return the ridge run that was taught what the others were, trained now if there is none yet.

    A ridge kept from some symbols, or with another target or features, is a row like any other. Among runs
    that were taught differently the one that kept nothing out decides.
    """
    asked = {run.name: from_run(run.read("config.json")).data for run in runs}
    ridges = [run for run in runs if run.info["model"] == REFERENCE]
    others = [asked[run.name] for run in runs if run not in ridges] or list(asked.values())
    data = min(others, key=lambda one: one.hold_out_fold)
    if resolve_features(workspace, data.features).window_normalised:
        data = replace(data, features="tech48")  # ridge sees one row at a time
    for run in ridges:
        if replace(asked[run.name], asof="") == replace(data, asof=""):
            return run
    config = replace(resolve(workspace, REFERENCE), data=data)
    return train(workspace, config, market=replace(market, config=data), progress=progress).run


def _name_of_reference(run: RunFolder, rows: CommonRows) -> str:
    """Name the reference by its run, unless another ridge that says the same stands for it in the table."""
    return run.name if any(forecast.run == run.name for forecast in rows.forecasts) else REFERENCE


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
