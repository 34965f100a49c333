"""How many trials a run's options were chosen among: the number stays with the run and what comes of it."""

from __future__ import annotations

from dataclasses import replace

from barcast.core.runs import RunFolder
from barcast.core.texts import counted
from barcast.pipeline.settings import RunConfig, Tuned


def remember_search(run: RunFolder, config: RunConfig) -> None:
    """Write the search that chose a run's options into it; of several the one with most trials stays.

    A search shapes no result: options that were trained before it chose them are the same run, which from
    then on is a chosen one.
    """
    tuned = config.tuned
    if tuned is not None and tuned.trials > run.info.get("num_trials", 0):
        run.update(num_trials=tuned.trials, tuned_by=tuned.run)


def with_search(config: RunConfig, run: RunFolder) -> RunConfig:
    """Return a config that was read from a run together with the search that had chosen it."""
    if "num_trials" not in run.info:
        return config
    tuned = Tuned(model=config.model, run=run.info["tuned_by"], trials=run.info["num_trials"])
    return replace(config, tuned=tuned)


def inherit_search(run: RunFolder, parent: RunFolder) -> None:
    """Give a refit what its parent knows of the search."""
    known = {name: parent.info[name] for name in ("num_trials", "tuned_by") if name in parent.info}
    if known:
        run.update(**known)


def search_line(info: dict[str, object]) -> list[str]:
    """Return the line of a model card that says so; none for options that nobody searched."""
    trials = info.get("num_trials")
    if not isinstance(trials, int):
        return []
    found = f"options chosen among {counted(trials, 'trial')} on `stop` by `{info['tuned_by']}`"
    return [f"- {found}: scores on `stop` flatter it"]
