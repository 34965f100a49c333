"""What the fits of a fleet may take, on record: a later call that does not say it takes the same."""

from __future__ import annotations

from pathlib import Path

from barcast.core.config import from_plain, to_plain
from barcast.core.cores import available_cores
from barcast.core.runs import RunFolder
from barcast.pipeline.fleet import FleetHow
from barcast.pipeline.fleet_priority import PRIORITIES

#: What run.json calls it.
_FACT = "takes"


def record_how(run: RunFolder, how: FleetHow) -> None:
    """Write down what the fits of a fleet may take; as many workers as there are cores are one a core."""
    told = to_plain(how)
    del told["only"]
    if how.limits.workers == available_cores() and how.executor != "serial":
        del told["limits"]["workers"]
    if how.priority not in PRIORITIES:  # a file, which later calls find from any folder; no home is named
        file, home = Path(how.priority).resolve(), Path.home()
        told["priority"] = f"~/{file.relative_to(home)}" if file.is_relative_to(home) else str(file)
    run.update(**{_FACT: told})


def recorded_how(run: RunFolder, workers: int | None = None) -> FleetHow:
    """Return what the fits of a fleet might take the last time, on other workers where they are given.

    Of a fleet that has nothing on record nothing is limited, and there is a worker a core.
    """
    told = dict(run.recorded.get(_FACT, {}))
    told["limits"] = {"workers": available_cores(), **told.get("limits", {})}
    told["priority"] = str(Path(told.get("priority", FleetHow.priority)).expanduser())
    if workers is not None:
        told["limits"]["workers"] = workers
        if workers > 1 and told.get("executor") == "serial":
            told["executor"] = "processes"
    return from_plain(FleetHow, told, f"run.json of {run.name}")
