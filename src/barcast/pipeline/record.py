"""What a run writes about itself: what it saw, what it learned from and until when, whom it cannot serve."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from barcast.core.arrays import I64
from barcast.core.atomic import write_text
from barcast.core.config import from_plain, to_plain
from barcast.core.errors import RunError
from barcast.core.runs import RunFolder, command_to_type, run_folder, start_run
from barcast.core.texts import counted
from barcast.core.workspace import Workspace
from barcast.pipeline.dataset import Dataset
from barcast.pipeline.forecast import ScoreMap
from barcast.pipeline.market import Market, segment_counts
from barcast.pipeline.members import drop_checkpoints
from barcast.pipeline.searched import SEARCH_FACTS, search_lines
from barcast.pipeline.settings import RunConfig
from barcast.store import MarketStore
from barcast.windows.index import MIN_BARS, own_bars

#: Findings of each kind that are saved with a run; their counts are whole.
EXAMPLES = 20
#: What train --profile writes.
PROFILE = "profile.json"
#: Where run.json says that a run began anew, whatever was there.
FRESH = "fresh"
#: Where run.json of a refreshed fleet says when the last label became known that taught its oldest model.
OLDEST = "oldest_taught_until"


def begin(
    workspace: Workspace, config: RunConfig, identity: str, dataset: Dataset, *, fresh: bool, **facts: Any
) -> RunFolder:
    """Make the run's folder, keep its store version, copy the source of user features."""
    ending = "-adapted" if "adapted_from" in facts else "-final" if "parent" in facts else ""
    kind = f"{config.model}{ending}"
    if fresh:
        _forget(run_folder(workspace, kind, identity))
        facts = {**facts, FRESH: True}
    known = {**market_facts(dataset.market), "features_code": dataset.features.code_digest(), **facts}
    run = start_run(workspace, kind, identity, config.plain(), {**known, "model": config.model})
    (run.path / "comparison.json").unlink(missing_ok=True)  # it was about the weights that go now
    MarketStore.open(workspace.market).cite(dataset.market.store_version, run.name)
    for file in dataset.features.files:
        write_text(run.path / "features" / file.path.name, file.text)
    return run


def _forget(run: RunFolder) -> None:
    """Drop what an earlier attempt measured: all but when the run was made and which search chose it."""
    drop_checkpoints(run)
    shutil.rmtree(run.path / "members", ignore_errors=True)
    shutil.rmtree(run.fleet, ignore_errors=True)
    (run.path / PROFILE).unlink(missing_ok=True)
    if run.recorded:
        kept = ("name", "id", "model", "created", *SEARCH_FACTS)
        run.write("run.json", {name: value for name, value in run.info.items() if name in kept})


def market_facts(market: Market) -> dict[str, Any]:
    """Return what run.json says about the data."""
    bars = market.bars
    return {
        "store_version": market.store_version,
        "cutoff": market.cutoff,
        "data_key": market.data_key,
        "label_key": market.label_key,
        "data_digest": market.data_digest,
        "market": bars.market,
        "frequency": bars.calendar.frequency,
        "calendar": bars.calendar.name,
        "num_symbols": bars.num_symbols,
        "num_rows": len(bars),
        "num_sessions": len(bars.calendar),
        "small_universe": market.small_universe,
        "quality_policy": dict(market.policy.choices),
        "left_out": market.left_out,
        "segments": segment_counts(market),
    }


def of_another_market(workspace: Workspace, run: RunFolder) -> str:
    """Say what market, frequency or calendar of a run is not the store's; empty where all are."""
    meta, info = MarketStore.open(workspace.market).meta, run.info
    for kind in ("market", "frequency", "calendar"):
        trained, stored = info.get(kind), getattr(meta, kind)
        if trained not in (None, stored):  # runs of earlier versions did not write it down
            return f"`{run.name}` was trained on {kind} {trained}, and the store holds {stored}"
    return ""


def check_market(workspace: Workspace, run: RunFolder) -> None:
    """Refuse to put a run to bars that it knows nothing about.

    Raises
    ------
    RunError
        When it was trained on another market, frequency or calendar than the workspace's store holds.
    """
    if found := of_another_market(workspace, run):
        raise RunError(found, "name a run of this store: barcast runs")


def finish(
    run: RunFolder, dataset: Dataset, learned: Mapping[str, Any], started: float, *, chosen_until: str,
    taught_before: str = "", **facts: Any,
) -> None:  # fmt: skip
    """Write what is left and mark the run done; only then is the checkpoint of no more use.

    ``learned`` is what fitting has to say: steps, best score, speed. ``chosen_until`` says when the last
    label was known that stopped, chose or calibrated anything, beside those of a search that run.json knows
    of; ``taught_before`` when the last one that had taught the weights that fitting began with.
    """
    run.write("failures.json", failures(dataset))
    write_text(run.path / "card.md", model_card(run, dataset))
    taught_until = max(last_known(dataset, np.flatnonzero(dataset.teach)), taught_before)
    run.complete(
        num_teaching_rows=int(dataset.teach.sum()),
        last_teaching_session=str(last_teaching_session(dataset)),
        taught_until=taught_until,
        chosen_until=max(taught_until, chosen_until, run.info.get("tuned_until", "")),
        total_seconds=round(time.perf_counter() - started, 3),
        weights_bytes=run.weights.stat().st_size,
        **facts,
        **learned,
    )
    drop_checkpoints(run)


def last_teaching_session(dataset: Dataset) -> np.datetime64:
    """Return the last decision session whose label taught."""
    bars = dataset.market.bars
    return np.datetime64(bars.calendar.times[bars.session[dataset.teach].max()])


def last_known(dataset: Dataset, rows: I64) -> str:
    """Return when the last label of the rows (n,) became known."""
    market = dataset.market
    return str(market.bars.calendar.times[market.labels.last_known_at[rows].max()])


def known_until(run: RunFolder) -> str:
    """Return when the last label became known that taught, stopped, chose or calibrated a finished run.

    Runs of versions that did not write it down used nothing beyond the end of `weigh`.
    """
    info = run.info
    if "chosen_until" in info:
        return str(info["chosen_until"])
    return max(str(info["taught_until"]), str(run.read("state.json")["segments"]["weigh"][1]))


def oldest_taught_until(run: RunFolder) -> str:
    """Return when the last label became known that taught the oldest model of a finished run.

    What was seen in all is told by the newest (``taught_until``), how old a forecast can be by the oldest.
    Only a refreshed fleet has models of several ages.
    """
    info = run.info
    return str(info.get(OLDEST, info["taught_until"]))


def check_known_by(workspace: Workspace, run: RunFolder, asof: str) -> None:
    """Refuse to serve a session that a run knows more than.

    Raises
    ------
    RunError
        When a label that taught, stopped, chose or calibrated it became known after ``asof``.
    """
    known = known_until(run)
    if np.datetime64(known) > np.datetime64(asof):
        again = command_to_type(workspace, "train", run.info["model"], "--asof", asof, "--final")
        raise RunError(
            f"`{run.name}` was taught, chosen and calibrated by labels known until {known}: a forecast as of "
            f"{asof} would have seen its own outcome",
            f"train on what was known then: {again}",
        )


def save_state(run: RunFolder, dataset: Dataset, maps: tuple[ScoreMap, ...]) -> None:
    """Write what a prediction needs besides the weights."""
    scaler = dataset.scaler
    run.write(
        "state.json",
        {
            "universe": dataset.market.bars.symbols,
            "vocabulary": dataset.vocabulary,
            "attributes": dataset.attributes,
            "features": dataset.features.names,
            "feature_set": dataset.features.name,
            "target": dataset.target_name,
            "small_universe": dataset.market.small_universe,
            "scaler": None if scaler is None else {"mean": scaler.mean.tolist(), "std": scaler.std.tolist()},
            "maps": to_plain(maps),
            "segments": {
                name: [str(dataset.market.bars.calendar.times[i]) for i in span]
                for name, span in dataset.market.plan.spans.items()
            },
        },
    )


def load_maps(run: RunFolder) -> tuple[ScoreMap, ...]:
    """Read a run's score maps."""
    return tuple(from_plain(ScoreMap, values, "state.maps") for values in run.read("state.json")["maps"])


def model_card(run: RunFolder, dataset: Dataset) -> str:
    """Return what a person should know before using this model, as Markdown."""
    market, info = dataset.market, run.info
    bars = market.bars
    spans = {
        name: f"{bars.calendar.times[first]} to {bars.calendar.times[last]}"
        for name, (first, last) in market.plan.spans.items()
    }
    step, symbol = "session" if bars.calendar.is_daily else "bar", f"{bars.market} symbol"
    lines = [
        f"# {run.name}",
        "",
        f"- model `{info['model']}`; command: `{info['command']}`",
        f"- data: {counted(bars.num_symbols, symbol)}, {len(bars):,} bars to {market.cutoff}, "
        f"store version {market.store_version}, digest `{market.data_digest}`",
        f"- features `{dataset.features.name}`, target `{dataset.target_name}`, entry after "
        f"{market.config.delay}, horizons {', '.join(map(str, market.config.horizons))} {step}s",
    ]
    parent = info.get("parent")
    lines += search_lines(info)
    if "members" in info:
        lines.append(f"- mean of {len(info['members'])} seeds: the outputs of so many networks are averaged")
    if "warm_start" in info:
        lines.append(f"- began with the weights of `{info['warm_start']['run']}`")
    if "adapted_from" in info:
        lines.append(
            f"- `{info['adapted_from']}` with embeddings for new symbols, fitted on their labels alone; "
            f"its evidence is that of `{parent}`"
        )
    elif "refreshed_from" in info:
        lines.append(
            f"- `{info['refreshed_from']}` with some symbols refitted on their known labels; its evidence is "
            f"that of `{parent}`"
        )
        if OLDEST in info:
            lines.append(f"- its oldest model was taught by labels known until {info[OLDEST]}")
    elif parent is None:
        lines += [f"- {name}: {span}" for name, span in spans.items()]
        lines.append("- scores: comparison.json and report.html; `test` is sealed until it is opened")
    else:
        lines.append(f"- refit on every known label; its evidence is that of its parent `{parent}`")
    if market.quality.survivors_only:
        lines.append("- survivors only: the data holds no symbol that was delisted, which flatters any score")
    lines.append("- a forecast is an expected log return with its standard deviation; it is not advice")
    return "\n".join(lines) + "\n"


def failures(dataset: Dataset) -> list[dict[str, str]]:
    """Return the symbols that this run could not serve, why, and what serves them instead."""
    bars = dataset.market.bars
    lengths = np.diff(bars.offsets)
    longest = np.zeros(bars.num_symbols, np.int64)
    np.maximum.at(longest, bars.symbol_of_row, own_bars(bars.life_start))
    reasons = dict(dataset.market.without_bars)
    for position, symbol in enumerate(bars.symbols):
        if not lengths[position]:
            reasons[symbol] = "no usable bar: all lie outside the calendar"
        elif longest[position] < MIN_BARS:
            found = f"{longest[position]} bars without a long hole"
            reasons[symbol] = f"short history: {found}, {MIN_BARS} are needed"
    return [
        {"symbol": symbol, "stage": "predict", "reason": reason, "fallback": "no prediction"}
        for symbol, reason in sorted(reasons.items())
    ]
