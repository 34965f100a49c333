"""The search that chose a run's options: its trials, and what it knew, go wherever its choice goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from barcast.core.config import from_plain
from barcast.core.errors import RunError, UsageError
from barcast.core.runs import RunFolder
from barcast.core.texts import counted, some
from barcast.pipeline.chosen import Tuned
from barcast.pipeline.market import Market
from barcast.pipeline.settings import RunConfig

#: What run.json says of a search; it stays with the run when it is trained afresh.
SEARCH_FACTS = ("num_trials", "tuned_by", "tuned_until", "size_auto")
#: The key in a symbol's options that says which search chose them.
SEARCH_KEY = "tuned"


def without_searches(
    tables: Mapping[str, Mapping[str, Any]], model: str, preset: str, tuned: Tuned | None
) -> tuple[dict[str, dict[str, Any]], Tuned | None]:
    """Return options of single symbols as fits read them, and the searches behind them and the others as one.

    Raises
    ------
    UsageError
        When a search chose the options of a symbol for another model, or around another preset than the
        fleet's, or its table is not whole.
    """
    own = {
        symbol: {key: value for key, value in options.items() if key != SEARCH_KEY}
        for symbol, options in tables.items()
    }
    found = {} if tuned is None else {tuned.run: tuned}
    for symbol, options in tables.items():
        if SEARCH_KEY not in options:
            continue
        told, around = options[SEARCH_KEY], preset
        if isinstance(told, Mapping):  # searches of earlier versions did not write the preset down
            told, around = {k: v for k, v in told.items() if k != "preset"}, told.get("preset", preset)
        search = from_plain(Tuned, told, f"{symbol}.{SEARCH_KEY}")
        if search.model != model:
            raise UsageError(
                f"`{search.run}` chose the options of {symbol} for {search.model}, not {model}",
                f"barcast tune --symbol {symbol} {model}, or leave them out",
            )
        if around != preset:
            raise UsageError(
                f"`{search.run}` chose the options of {symbol} around the preset {around}, not {preset}",
                f"--preset {around}; or barcast tune --symbol {symbol} {model} --preset {preset}",
            )
        found[search.run] = search
    if not found or (tuned is not None and len(found) == 1):
        return own, tuned
    trials = sum(search.trials for search in found.values())
    until = max(search.until for search in found.values())
    return own, Tuned(model=model, run=some(list(found)), trials=trials, until=until)


def check_search_knows_nothing_later(config: RunConfig, market: Market) -> None:
    """Refuse options that were chosen by labels that are to calibrate or judge the new run.

    Searches of versions that did not write down until when they knew are let through.

    Raises
    ------
    RunError
        When a label of the search's `stop` became known no earlier than `weigh` begins.
    """
    refuse_search_after(
        config.tuned, market.bars.calendar.times[market.plan.spans["weigh"][0]], "`weigh` of this run begins",
        f"search on what was known then: barcast tune {config.model} with this --asof, --segments; "
        "or later --segments, or options that no search chose",
    )  # fmt: skip


def refuse_search_after(tuned: Tuned | None, begins: np.datetime64, what: str, todo: str) -> None:
    """Refuse options whose search knew a label no earlier than judging begins; ``what`` says that it does."""
    if tuned is not None and tuned.until and np.datetime64(tuned.until) >= begins:
        raise RunError(
            f"`{tuned.run}` chose these options by labels known until {tuned.until}, and {what} {begins}: "
            "they were chosen by what is to judge this run",
            todo,
        )


def remember_search(run: RunFolder, config: RunConfig) -> None:
    """Write the search that chose a run's options into it.

    A search shapes no result: options that were trained before it chose them are the same run, which from
    then on is a chosen one.
    """
    if config.sized is not None:
        run.update(size_auto=config.sized.facts())
    if config.tuned is not None:
        _remember(run, config.tuned)


def with_search(config: RunConfig, run: RunFolder) -> RunConfig:
    """Return a config that was read from a run together with the search that had chosen it."""
    return replace(config, tuned=_search_of(run))


def inherit_search(run: RunFolder, other: RunFolder) -> None:
    """Give a run what another one, whose options or weights it takes over, knows of the search."""
    tuned = _search_of(other)
    if tuned is not None:
        _remember(run, tuned)
    sized = other.info.get("size_auto")
    if sized is not None and "size_auto" not in run.info:
        run.update(size_auto=sized)


def _search_of(run: RunFolder) -> Tuned | None:
    info = run.info
    if "num_trials" not in info:
        return None
    until = info.get("tuned_until", "")
    return Tuned(model=info["model"], run=info["tuned_by"], trials=info["num_trials"], until=until)


def _remember(run: RunFolder, tuned: Tuned) -> None:
    """Of several searches the one with most trials stays, and the latest time that any knew of."""
    known = run.info
    found: dict[str, object] = {}
    if tuned.trials > known.get("num_trials", 0):
        found |= {"num_trials": tuned.trials, "tuned_by": tuned.run}
    if tuned.until > known.get("tuned_until", ""):
        found["tuned_until"] = tuned.until
    if found:
        run.update(**found)


def search_lines(info: Mapping[str, Any]) -> list[str]:
    """Return the lines of a model card that say so; none for options that nobody searched."""
    lines = []
    if trials := info.get("num_trials"):
        found = f"options chosen among {counted(trials, 'trial')} on `stop` by `{info['tuned_by']}`"
        lines.append(f"- {found}: scores on `stop` flatter it")
    if sized := info.get("size_auto"):
        by = sized.get("by", "--size auto")  # runs of earlier versions knew no other
        lines.append(f"- size `{sized['size']}` chosen by `{by}`: {'; '.join(sized['reasons'])}")
    return lines


def stop_known(market: Market) -> str:
    """Return when the last label of `stop` became known, which is until when a search on it knows."""
    return str(market.bars.calendar.times[market.labels.last_known_at[market.rows_of("stop")].max()])
