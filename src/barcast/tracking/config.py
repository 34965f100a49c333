"""What may be asked of tracking, and where it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barcast.core.config import read_values
from barcast.core.errors import UsageError
from barcast.core.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """The table ``[track]`` of a workspace's ``barcast.toml``. Being online is not in it: it is asked for."""

    adapters: tuple[str, ...] = ()
    """Trackers that follow every ``train``, ``fleet trees | lstm | gru`` and ``retrain`` of the workspace."""
    project: str = "barcast"
    """SwanLab project, MLflow experiment, TensorBoard folder."""
    workspace: str = ""
    """SwanLab workspace (an organisation's name); empty means the user's own."""


def track_settings(workspace: Workspace) -> TrackConfig:
    """Read the table ``[track]``.

    Raises
    ------
    UsageError
        On an unknown key or a value of the wrong kind.
    """
    values, where = workspace.settings.get("track", {}), f"{workspace.settings_file}: track"
    if not isinstance(values, Mapping):
        raise UsageError(f"{where}: expected a table, found `{values!r}`", 'adapters = ["tensorboard"]')
    return TrackConfig(**read_values(TrackConfig, values, where))


@dataclass(frozen=True)
class Place:
    """Where trackers write.

    Attributes
    ----------
    root : Path
        The workspace's folder.
    project, team : str
        As in `TrackConfig`, there called ``workspace``.
    online : bool
        Whether the network may be used.
    """

    root: Path
    project: str
    team: str
    online: bool

    @property
    def folder(self) -> Path:
        """The folder of all trackers' files."""
        return self.root / "tracking"

    def key(self) -> dict[str, Any]:
        """Return what must be equal for a run to go on where it was tracked before."""
        return {"project": self.project, "team": self.team, "online": self.online}
