"""A workspace is a folder: ``barcast.toml``, ``market/`` (the store), ``runs/``, ``cache/``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from barcast.core.config import load_toml

ENVIRONMENT_VARIABLE = "BARCAST_WORKSPACE"


@dataclass(frozen=True)
class Workspace:
    """The folder every command works in.

    Parameters
    ----------
    root : Path
        The folder; it is made when something is first written.
    """

    root: Path

    @classmethod
    def find(cls, given: Path | str | None = None) -> Workspace:
        """Resolve ``--workspace``, then the environment, then the current folder."""
        chosen = given or os.environ.get(ENVIRONMENT_VARIABLE) or "."
        return cls(Path(chosen).expanduser().resolve())

    @property
    def market(self) -> Path:
        """The market store."""
        return self.root / "market"

    @property
    def runs(self) -> Path:
        """One folder a run."""
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        """What can be deleted at any time and is made again."""
        return self.root / "cache"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The content of ``barcast.toml``; empty where there is none."""
        path = self.root / "barcast.toml"
        return load_toml(path) if path.is_file() else {}
