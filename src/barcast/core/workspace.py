"""A workspace is a folder: ``barcast.toml``, ``market/`` (the store), ``runs/``, ``cache/``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from barcast.core.config import load_toml
from barcast.core.errors import UsageError

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
        """Resolve ``--workspace``, then the environment, then the current folder.

        Raises
        ------
        UsageError
            When that is a file, or lies below one.
        """
        chosen = given or os.environ.get(ENVIRONMENT_VARIABLE) or "."
        root = Path(chosen).expanduser().resolve()
        if file := next((path for path in (root, *root.parents) if path.is_file()), None):
            raise UsageError(
                f"the workspace must be a folder, and {file} is a file", "name a folder: -w FOLDER"
            )
        return cls(root)

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

    @property
    def settings_file(self) -> Path:
        """Where ``settings`` come from."""
        return self.root / "barcast.toml"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The content of ``barcast.toml``; empty where there is none."""
        return load_toml(self.settings_file) if self.settings_file.is_file() else {}
