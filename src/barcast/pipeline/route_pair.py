"""Which two runs ``barcast route`` takes: a universal model and a fleet that ask the same question."""

from __future__ import annotations

from collections.abc import Sequence

from barcast.core.errors import RunError
from barcast.core.runs import RunFolder, by_activity, command_to_type, list_runs, open_run
from barcast.core.texts import some
from barcast.core.workspace import Workspace
from barcast.models.registry import model_entry
from barcast.pipeline.compare import REFERENCE, check_same_question
from barcast.pipeline.settings import DataConfig, from_run
from barcast.store import MarketStore

#: Options of the data that make another question, and have a flag.
_FLAGS = {"limit": "--limit", "horizons": "--horizon", "delay": "--delay", "target": "--target",
          "segments": "--segments"}  # fmt: skip
#: Those that have none, or too long a one.
_UNTYPED = ("symbols", "shares", "quality", "hold_out_fold")


def runs_to_route(workspace: Workspace, universal: str = "", fleet: str = "") -> tuple[RunFolder, RunFolder]:
    """Return the two runs, by default the fleet finished last that a universal run asks the same as.

    Of several universal runs it is the one finished last; the reference only where it is named.

    Raises
    ------
    RunError
        When one is missing, or of the wrong kind, or no two of them ask the same question.
    """
    done = by_activity([run for run in list_runs(workspace) if run.is_done and not run.info.get("final")])
    fleets = [open_run(workspace, fleet)] if fleet else [run for run in done if _kind(run) == "fleet"]
    if not fleets:
        raise RunError("no finished fleet in this workspace", "barcast fleet trees")
    every = [run for run in done if _is_universal(run)]
    firsts = [open_run(workspace, universal)] if universal else every
    if universal and not _is_universal(firsts[0]):
        raise _no(firsts[0], "universal model")
    if fleet and _kind(fleets[0]) != "fleet":
        raise _no(fleets[0], "fleet")
    if universal and fleet:
        return firsts[0], fleets[0]
    if universal or fleet:
        check_same_question(firsts if universal else fleets)
    taken = firsts if universal else [run for run in firsts if run.info["model"] != REFERENCE]
    found = _pair(taken, fleets)
    if found is None:
        raise _no_pair(workspace, firsts, fleets, named=bool(universal))
    return found


def _kind(run: RunFolder) -> str:
    return model_entry(str(run.info["model"])).kind


def _is_universal(run: RunFolder) -> bool:
    return _kind(run) in ("network", "tabular")


def _no(run: RunFolder, what: str) -> RunError:
    return RunError(
        f"`{run.name}` is no {what}",
        "barcast route UNIVERSAL FLEET, by the names that `barcast runs` lists",
    )


def _pair(universal: Sequence[RunFolder], fleets: Sequence[RunFolder]) -> tuple[RunFolder, RunFolder] | None:
    """Return the last fleet that a run asks the same as, and the last of these runs."""
    pairs = ((run, fleet) for fleet in reversed(fleets) for run in reversed(universal))
    return next((pair for pair in pairs if _ask_the_same(*pair)), None)


def _ask_the_same(run: RunFolder, fleet: RunFolder) -> bool:
    """Return whether scores of two runs can stand in one table."""
    if any(run.info.get(name) != fleet.info.get(name) for name in ("data_key", "label_key")):
        return False
    return bool(run.read("state.json")["target"] == fleet.read("state.json")["target"])


def _no_pair(
    workspace: Workspace, universal: Sequence[RunFolder], fleets: Sequence[RunFolder], *, named: bool
) -> RunError:
    """Say which runs there are, and what trains the one that is missing."""
    if (found := _pair(universal, fleets)) is not None:
        names = [run.name for run in found]
        return RunError(
            f"no finished universal model but `{names[0]}`, the reference of comparisons, asks what "
            f"`{names[1]}` does",
            f"name it: {command_to_type(workspace, 'route', *names)}",
        )
    missing, there, others, words = (
        ("fleet", universal, fleets, ["fleet", "trees"])
        if named
        else ("universal model", fleets, universal, ["train", "lstm"])
    )
    said, known = (some([f"`{run.name}`" for run in reversed(runs)]) for runs in (there, others))
    return RunError(
        f"no finished {missing} asks what {said} {'do' if len(there) > 1 else 'does'}"
        + (f" (there are {known})" if others else "")
        + ": rows, segments, horizons and target must be the same",
        _training(workspace, there[-1], words),
    )


def _training(workspace: Workspace, wanted: RunFolder, words: Sequence[str]) -> str:
    """Return the command that trains on the question of a run; in words where flags cannot say it."""
    data, plain = from_run(wanted.read("config.json")).data, DataConfig()
    if any(getattr(data, name) != getattr(plain, name) for name in _UNTYPED):
        return f"barcast {' '.join(words)} with the same options of the data as `{wanted.name}`"
    typed = list(words)
    for name, flag in _FLAGS.items():
        if (value := getattr(data, name)) != getattr(plain, name):
            typed += [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    if wanted.info["store_version"] != MarketStore.open(workspace.market).version:
        typed += ["--asof", str(wanted.info["cutoff"])]
    return command_to_type(workspace, *typed)
