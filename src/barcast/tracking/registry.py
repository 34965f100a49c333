"""Which trackers there are, and the refusal of what cannot be had, before any work."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from barcast.core.config import nearest
from barcast.core.errors import UsageError
from barcast.core.workspace import Workspace
from barcast.tracking.base import Tracker
from barcast.tracking.config import Place, track_settings
from barcast.tracking.mirror import Mirror
from barcast.tracking.mlflow import SERVER, MLflowTracker
from barcast.tracking.swanlab import KEY, SwanLabTracker
from barcast.tracking.tensorboard import TensorBoardTracker


@dataclass(frozen=True)
class TrackerEntry:
    """One tracker.

    Attributes
    ----------
    make : callable
    needs : tuple of str
        Modules that must be installed; the extra of barcast that brings them has the tracker's name.
    online : str
        Environment variable without which it cannot go online; empty where it never does.
    """

    make: Callable[[Place], Tracker]
    needs: tuple[str, ...]
    online: str


TRACKERS = {
    "swanlab": TrackerEntry(SwanLabTracker, ("swanlab",), KEY),
    "mlflow": TrackerEntry(MLflowTracker, ("mlflow", "sqlalchemy", "alembic"), SERVER),
    "tensorboard": TrackerEntry(TensorBoardTracker, ("tensorboard",), ""),
}
#: Asked for instead of names, it leaves the settings file's trackers out.
NONE = "none"


def open_mirror(
    workspace: Workspace,
    names: Sequence[str] | None = None,
    *,
    project: str | None = None,
    team: str | None = None,
    online: bool = False,
) -> Mirror:
    """Return the mirror of the trackers asked for, or of those of the settings file.

    Parameters
    ----------
    names : sequence of str, optional
        Trackers, or ``none``; None takes the settings file's.
    project, team : str, optional
        Instead of the settings file's `project` and `workspace`.
    online : bool
        Whether SwanLab and MLflow may use the network.

    Raises
    ------
    UsageError
        On an unknown tracker, a library that is not installed, an option that nothing would read, or online
        without its environment variable.
    """
    settings = track_settings(workspace)
    chosen = tuple(dict.fromkeys(settings.adapters if names is None else names))
    if chosen == (NONE,):
        chosen = ()
    given = {"--track-project": project, "--track-workspace": team, "--track-online": online}
    _refuse_unread([flag for flag, value in given.items() if value], chosen)
    for name in chosen:
        _check(name, online=online)
    if os.environ.get("RANK", "0") != "0":  # of several processes of one training the first one writes
        chosen = ()
    if project == "":
        raise UsageError("`--track-project` is empty", "--track-project barcast")
    place = Place(
        workspace.root, project or settings.project, settings.workspace if team is None else team, online
    )
    return Mirror({name: TRACKERS[name].make(place) for name in chosen}, place)


def _refuse_unread(flags: Sequence[str], chosen: Sequence[str]) -> None:
    if flags and not chosen:
        raise UsageError(f"{', '.join(flags)}: nothing is tracked", f"--track {','.join(TRACKERS)}")
    if "--track-workspace" in flags and "swanlab" not in chosen:
        raise UsageError("--track-workspace is read by swanlab only", "leave it out, or add --track swanlab")
    if "--track-online" in flags and not any(TRACKERS[name].online for name in chosen if name in TRACKERS):
        raise UsageError(f"{', '.join(chosen)} has no servers to go to", "leave --track-online out")


def _check(name: str, *, online: bool) -> None:
    if name not in TRACKERS:
        raise UsageError(f"`{name}` is no tracker", nearest(name, [*TRACKERS, NONE]))
    entry = TRACKERS[name]
    missing = [module for module in entry.needs if find_spec(module) is None]
    if missing:
        raise UsageError(
            f"tracking by {name} needs {', '.join(missing)}, which is not installed",
            f"pip install 'barcast[{name}]'",
        )
    if online and entry.online and not os.environ.get(entry.online):
        raise UsageError(
            f"--track-online: {name} needs {entry.online} in the environment",
            f"export {entry.online}=..., or leave --track-online out",
        )
