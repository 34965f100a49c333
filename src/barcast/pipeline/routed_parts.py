"""The two runs that a routed one is made of: on record with what they weighed, and still the same."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from barcast.core.errors import RunError
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.models.registry import model_entry
from barcast.pipeline.settings import from_run
from barcast.pipeline.unfinished import check_done
from barcast.pipeline.warm import weights_digest

#: Who serves whom, and why; and what run.json calls the runs that do.
ROUTES, FACT = "routes.parquet", "parts"


class Parts(NamedTuple):
    """The runs that serve for a routed one: as evaluated, whatever refits they have."""

    universal: RunFolder
    fleet: RunFolder

    def plain(self) -> dict[str, dict[str, str]]:
        """Return what run.json records: their names, and digests of their weights."""
        return {
            kind: {"run": run.name, "digest": _digest(run)}
            for kind, run in zip(self._fields, self, strict=True)
        }


def is_routed(run: RunFolder) -> bool:
    """Return whether a run is made of two."""
    return model_entry(str(run.info["model"])).kind == "routed"


def recorded_parts(workspace: Workspace, run: RunFolder) -> Parts:
    """Return the runs that a finished routed one is made of, as they were recorded.

    Raises
    ------
    RunError
        When the run is not finished; when one of the two is gone, unfinished, or has other weights than those
        whose evidence decided who serves whom.
    """
    check_done(run)
    options, told = from_run(run.read("config.json")).options, run.info.get(FACT)
    parts = Parts(*(RunFolder(workspace.runs / name) for name in (options.universal, options.fleet)))
    decide = f"barcast route {options.universal} {options.fleet} --route {options.policy} decides anew"
    for part in parts:
        if found := _not_there(part):
            raise RunError(
                f"`{run.name}` is made of two runs, of which `{part.name}` {found}",
                f"bring {part.path} back whole, or route other runs: barcast route UNIVERSAL FLEET",
            )
    if told is None:  # the first routed runs did not write it down
        return parts
    for part, now in zip(parts, parts.plain().values(), strict=True):
        if now not in told.values():
            raise RunError(
                f"`{run.name}` is made of two runs, of which `{part.name}` has other weights now than those "
                "that decided who serves whom",
                decide,
            )
    return parts


def open_routes(run: RunFolder) -> pl.DataFrame:
    """Read who serves whom.

    Raises
    ------
    RunError
        When the file is not there.
    """
    path = run.path / ROUTES
    if not path.is_file():
        raise RunError(f"no routes in `{run.name}`: no file {path}", "barcast route makes it again")
    return pl.read_parquet(path)


def _not_there(part: RunFolder) -> str:
    """Say what keeps a part from serving; empty where nothing does."""
    if not (part.path / "run.json").is_file():
        return "is gone"
    if not part.is_done:
        return "is not finished"
    return "" if part.weights.is_file() else "has lost its weights"


def _digest(run: RunFolder) -> str:
    """Return a digest of what a run learned; of a fleet when its models were made does not count."""
    if model_entry(str(run.info["model"])).kind != "fleet":
        return weights_digest(run)
    from barcast.fleet.ledger import LEDGER, Ledger  # local: who serves no fleet pays for none
    from barcast.pipeline.fleet_residual import SLOPES
    from barcast.pipeline.fleet_weights import WEIGHTS

    with Ledger.open(run.fleet / LEDGER) as ledger:
        return ledger.content_digest(WEIGHTS, SLOPES)
