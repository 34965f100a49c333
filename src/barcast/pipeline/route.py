"""``barcast route``: a run of two, in which every symbol is served by the model that the evidence is for.

The evidence is what the dedicated models gained on `route`, where neither run learned, stopped or weighed
anything; so what routing is worth shows on `test` alone, and `route` rows of a routed run flatter it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import polars as pl

from barcast.core.atomic import atomic_path, write_text
from barcast.core.config import to_plain
from barcast.core.errors import RunError, UsageError
from barcast.core.lock import writer_lock
from barcast.core.predictions import conform, read_predictions, write_predictions
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, run_folder, run_identity, start_run
from barcast.core.texts import counted
from barcast.core.workspace import Workspace
from barcast.ensemble.routing import Policy, Routing, route
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.models.dedicated import RoutedConfig
from barcast.pipeline.compare import check_same_question
from barcast.pipeline.fleet_universal import recorded_universal
from barcast.pipeline.predict import Forecasts, is_served_to_all, keep_served, predict
from barcast.pipeline.record import check_market, known_until, load_maps
from barcast.pipeline.routed_parts import FACT, ROUTES, Parts, open_routes, recorded_parts
from barcast.pipeline.settings import RunConfig, from_run
from barcast.pipeline.unfinished import failure_recorded
from barcast.store import MarketStore

#: What run.json of a routed run has in common with that of the universal model.
_SHARED = (
    "store_version", "cutoff", "data_key", "label_key", "data_digest", "market", "frequency", "calendar",
    "num_symbols", "num_rows", "num_sessions", "small_universe", "quality_policy", "left_out", "segments",
    "num_teaching_rows", "last_teaching_session",
)  # fmt: skip


@dataclass(frozen=True)
class Routed:
    """A routed run.

    Attributes
    ----------
    run : RunFolder
    universal, fleet : str
        The runs that serve.
    routes : pl.DataFrame
        A row a symbol and horizon: ``symbol, horizon, decision, gain, standard_error, posterior_mean,
        probability, num_rows, num_blocks, reason``. Gains are squared errors in units of the universal
        forecast's variance.
    """

    run: RunFolder
    universal: str
    fleet: str
    routes: pl.DataFrame

    def counts(self) -> dict[int, dict[str, int]]:
        """Return how many symbols each model serves, by horizon."""
        found = self.routes.group_by("horizon", "decision").len()
        return {
            horizon: dict(found.filter(horizon=horizon).select("decision", "len").iter_rows())
            for horizon in sorted(found["horizon"].unique())
        }

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "run": self.run.name, "universal": self.universal, "fleet": self.fleet,
            "counts": {str(horizon): counts for horizon, counts in self.counts().items()},
            "routes": self.routes.to_dicts(),
        }  # fmt: skip


def checked_policy(policy: str) -> Policy:
    """Return the rule by which servers are chosen.

    Raises
    ------
    UsageError
        On any other word.
    """
    if policy not in get_args(Policy):
        raise UsageError(f"--route {policy}: no such rule", f"choose one of {', '.join(get_args(Policy))}")
    return cast("Policy", policy)


def route_runs(
    workspace: Workspace, universal: RunFolder, fleet: RunFolder, policy: Policy = "evidence", *,
    progress: Progress | None = None,
) -> Routed:  # fmt: skip
    """Decide for every symbol who serves it, and make the run that does.

    Raises
    ------
    RunError
        When the runs are about other rows, labels or segments, or learned different targets: their scores
        could not stand in one table; or when the run that the fleet corrects is gone.
    """
    progress = progress or Progress(enabled=False)
    started = time.perf_counter()
    for one in (universal, fleet):
        check_market(workspace, one)
    check_same_question([universal, fleet])
    recorded_universal(workspace, fleet)  # what a residual fleet corrects serves with it
    targets = [one.read("state.json")["target"] for one in (universal, fleet)]
    if targets[0] != targets[1]:
        raise RunError(
            f"`{universal.name}` learned {targets[0]} and `{fleet.name}` {targets[1]}: their scores are of "
            "different kinds",
            f"train one of them again with --target {targets[0]}",
        )
    parent = from_run(universal.read("config.json"))
    options = RoutedConfig(universal=universal.name, fleet=fleet.name, policy=policy)
    config = RunConfig("routed", parent.seed, parent.data, options, None)
    info = universal.info
    identity = run_identity(config.plain(), info["cutoff"], info["data_digest"])
    progress.note(f"routing between {universal.name} and {fleet.name}")
    _say_what_has_no_size(universal, progress)
    with writer_lock(run_folder(workspace, "routed", identity).path):
        facts = {name: info[name] for name in _SHARED if name in info}
        run = start_run(workspace, "routed", identity, config.plain(), {**facts, "model": "routed"})
        with failure_recorded(run):
            MarketStore.open(workspace.market).cite(info["store_version"], run.name)
            routes = _decide(Parts(universal, fleet), config)
            _write(run, Parts(universal, fleet), routes, started)
    return Routed(run, universal.name, fleet.name, routes)


def _say_what_has_no_size(universal: RunFolder, progress: Progress) -> None:
    """Say for which horizons the universal model counts as zero: errors know sizes, not ranks."""
    flat = [str(each.horizon) for each in load_maps(universal) if each.slope == 0]
    if flat:
        progress.note(
            f"scores of {universal.name} stood for no return on `weigh` (horizon {', '.join(flat)}): as a "
            "forecast it counts as zero, whatever its RankIC; a symbol leaves where its own model beats zero"
        )


def routed_by(workspace: Workspace, run: RunFolder, until: np.datetime64) -> pl.DataFrame:
    """Return `route` rows of a routed run as if labels known until then alone had decided who serves whom.

    What labels of `route` decided, the same labels cannot judge; later rows of these can be judged.
    """
    parts, config = recorded_parts(workspace, run), from_run(run.read("config.json"))
    universal, fleet = (read_predictions(part.predictions, segment="route") for part in parts)
    return served_rows(universal, fleet, _decide(parts, config, until), run.name)


def _decide(parts: Parts, config: RunConfig, until: np.datetime64 | None = None) -> pl.DataFrame:
    """Decide by the labels of `route`, or by those of them that were known until a session."""
    frames, fates = [], _fates(parts.fleet)
    for horizon in config.data.horizons:
        rows = _both(parts, horizon)
        if until is not None:
            rows = rows.filter(pl.col("known_at") <= pl.lit(until))
        symbols = pl.concat([rows["symbol"], pl.Series("symbol", list(fates), pl.String)]).unique().sort()
        own = pl.col("symbol").is_in([symbol for symbol, reason in fates.items() if not reason])
        known = rows.filter(own & pl.col("y").is_not_null() & pl.col("dedicated").is_not_null())
        places = dict(zip(symbols.to_list(), range(len(symbols)), strict=True))
        place = np.array([places[symbol] for symbol in known["symbol"]], np.int64)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(place, minlength=len(symbols)))])
        session = known["time"].rank("dense").to_numpy().astype(np.int64) - 1
        y, u, d, sigma = (known[name].to_numpy() for name in ("y", "y_hat", "dedicated", "sigma"))
        gain = (np.square(y - u) - np.square(y - d)) / np.square(sigma)
        has = np.array([fates.get(symbol) == "" for symbol in symbols])
        found = route(
            gain, offsets, session, horizon=horizon, delay=config.data.delay,
            policy=config.options.policy, has_dedicated=has,
        )  # fmt: skip
        frames.append(_evidence(symbols, found, horizon, fates))
    return pl.concat(frames)


def _fates(fleet: RunFolder) -> dict[str, str]:
    """Return why each symbol of a fleet has no model of its own; empty for those that have one."""
    with Ledger.open(fleet.fleet / LEDGER) as ledger:
        return {row.symbol: "" if row.status == "done" else row.reason or row.status for row in ledger.rows()}


def _both(parts: Parts, horizon: int) -> pl.DataFrame:
    """Return `route` rows of the universal run with the fleet's forecast beside, by symbol and time."""
    keys = ["symbol", "time"]
    first, second = (read_predictions(run.predictions, segment="route", horizon=horizon) for run in parts)
    beside = second.select(*keys, pl.col("y_hat").alias("dedicated"))
    return first.join(beside, on=keys, how="left").sort(keys)


def _evidence(symbols: pl.Series, found: Routing, horizon: int, fates: Mapping[str, str]) -> pl.DataFrame:
    lines = [to_plain(found.evidence(position)) for position in range(len(symbols))]
    for symbol, line in zip(symbols, lines, strict=True):
        if fates.get(symbol):
            line["reason"] = f"There is no dedicated model: {fates[symbol]}."
    frame = pl.DataFrame(lines).with_columns(symbol=symbols, horizon=pl.lit(horizon, pl.Int32))
    frame = frame.with_columns(pl.col(pl.Float64).fill_nan(None))
    first = ["symbol", "horizon", "decision"]
    return frame.select(*first, *[name for name in frame.columns if name not in first])


def _write(run: RunFolder, parts: Parts, routes: pl.DataFrame, started: float) -> None:
    from barcast.training.checkpoint import save_arrays

    universal = parts.universal
    first, second = (read_predictions(part.predictions) for part in parts)
    table = served_rows(first, second, routes, run.name)
    write_predictions(run.predictions, table)
    with atomic_path(run.path / ROUTES) as temporary:
        routes.write_parquet(temporary)
    save_arrays(run.weights, {"dedicated": (routes["decision"] == "dedicated").to_numpy().astype(np.uint8)})
    run.write("state.json", universal.read("state.json"))
    run.write("failures.json", universal.read("failures.json"))
    write_text(run.path / "quality.json", (universal.path / "quality.json").read_text(encoding="utf-8"))
    write_text(run.path / "card.md", _card(run, parts, routes))
    seen = table.filter(segment="route")["known_at"].max()
    until = max(*(known_until(part) for part in parts), _known(seen))
    taught = max(str(part.info["taught_until"]) for part in parts)
    run.complete(
        taught_until=taught, chosen_until=until, best_score=None, num_predictions=len(table),
        weights_bytes=sum(int(part.info["weights_bytes"]) for part in parts),
        train_seconds=sum(float(part.info["train_seconds"]) for part in parts),
        total_seconds=round(time.perf_counter() - started, 3), **{FACT: parts.plain()},
    )  # fmt: skip


def _known(seen: object) -> str:
    """Write when the last outcome was known that decided; a session of daily bars is a date."""
    return seen.isoformat().removesuffix("T00:00:00") if isinstance(seen, datetime) else ""


def served_rows(
    universal: pl.DataFrame, fleet: pl.DataFrame, routes: pl.DataFrame, name: str
) -> pl.DataFrame:
    """Return each symbol's rows from the model that serves it, in the name of the routed run."""
    served = routes.filter(decision="dedicated").select("symbol", "horizon")
    keys = ["symbol", "horizon"]
    own = fleet.join(served, on=keys, how="semi")
    covered = own.select("symbol", "horizon", "time", "segment")
    rest = universal.join(covered, on=["symbol", "horizon", "time", "segment"], how="anti")
    both = [
        part.with_columns(run=pl.lit(name), model=pl.lit("routed"), route=pl.lit(server))
        for part, server in ((rest, "universal"), (own, "dedicated"))
    ]
    return conform(pl.concat(both).sort("horizon", "symbol", "time"))


def _card(run: RunFolder, parts: Parts, routes: pl.DataFrame) -> str:
    served = routes.filter(decision="dedicated")
    return (
        f"# {run.name}\n\n- `{parts.universal.name}` serves the symbols that `{parts.fleet.name}` does not\n"
        f"- {counted(len(served), 'symbol')} of {len(routes):,} are served by their own; why: {ROUTES}\n"
        "- decided on `route`: scores on that segment flatter it, `test` tells\n"
    )


def predict_routed(
    workspace: Workspace, run: RunFolder, *, save: bool | None = None, **asked: Any
) -> Forecasts:
    """Forecast by the newest refits of both runs of a routed one, each for the symbols that it serves.

    A fleet that serves none of them is not asked; the universal model stands in for every symbol without a
    forecast of its own. Options are those of `predict`.

    Raises
    ------
    RunError
        Also when one of the two is gone, or has other weights than those that decided who serves whom; and
        when the session is one that decided.
    """
    parts = recorded_parts(workspace, run)
    routes = open_routes(run)
    serving = parts if _serves_by_fleet(workspace, routes, asked.get("symbols", ())) else parts[:1]
    answers = [predict(workspace, part, save=False, **asked) for part in serving]
    first, *_ = answers
    table = served_rows(first.table, answers[-1].table, routes, run.name)  # of one answer nobody leaves it
    reasons = first.reasons.filter(~pl.col("symbol").is_in(table["symbol"].unique().to_list()))
    if np.datetime64(known_until(run)) > np.datetime64(first.asof):
        raise RunError(
            f"`{run.name}` chose who serves whom by labels known until {known_until(run)}: a forecast as of "
            f"{first.asof} would have seen its own outcome",
            f"by one of its runs alone: barcast predict {parts.universal.name} --asof {first.asof}",
        )
    table = table.sort(["horizon", "score"], descending=[False, True])
    if is_served_to_all(asked.get("symbols", ()), asked.get("asof", ""), save):
        keep_served(run, np.datetime64(first.asof), table)
    return replace(
        first, run=run.name, parent="", table=table,
        taught_until=max(each.taught_until for each in answers),
        oldest_taught_until=min(each.oldest_taught_until for each in answers),
        chosen_until=max(known_until(run), *(each.chosen_until for each in answers)), reasons=reasons,
        warnings=tuple(dict.fromkeys(warning for each in answers for warning in each.warnings)),
    )  # fmt: skip


def _serves_by_fleet(workspace: Workspace, routes: pl.DataFrame, symbols: Sequence[str]) -> bool:
    """Return whether any of the symbols (none: of all) is served by its own model."""
    own = set(routes.filter(decision="dedicated")["symbol"])
    wanted = set(MarketStore.open(workspace.market).resolve(symbols)) if symbols else own
    return bool(own & wanted)


def write_routes(routes: pl.DataFrame, path: Path) -> None:
    """Write who serves whom as CSV."""
    with atomic_path(path) as temporary:
        routes.write_csv(temporary)
