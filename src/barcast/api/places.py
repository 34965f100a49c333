"""Where verbs work, and how they are given names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from barcast.core.config import items, some_items
from barcast.core.workspace import Workspace

Place = Workspace | Path | str | None
#: A name alone is one, not its letters.
Names = str | Sequence[str]


def names_of(given: Names | None, where: str) -> tuple[str, ...]:
    """Return names as given: one, several or none; ``where`` says in errors which option they are."""
    return items(given, where, str)


def symbols_of(given: Names | None) -> tuple[str, ...]:
    """Return the symbols that were chosen, none where the choice was left out; an empty one is refused."""
    return some_items(given, "symbols", str)


def place_of(workspace: Place) -> Workspace:
    """Return the workspace that was named, or the one that the environment or the current folder is."""
    return workspace if isinstance(workspace, Workspace) else Workspace.find(workspace)
