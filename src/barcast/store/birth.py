"""A store's first import: until ``store.json`` is there, a mark says that the folder's parts are ours.

A killed first import leaves parts that its repetition must clear away. Without the mark nothing is removed:
the same names may hold a user's files, or a store whose ``store.json`` was lost.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from barcast.core.atomic import write_json
from barcast.core.errors import StoreError
from barcast.store.meta import FORMAT, refuse_name

_MARK = "importing.json"
_FOLDERS = ("bars", "status", "facts", "conflicts", "failures", "staging")


def begin_store(folder: Path) -> None:
    """Clear away what a killed first import published, and mark the folder; the writer lock must be held.

    Does nothing where there is a store.

    Raises
    ------
    StoreError
        When the folder holds a store without its description, or files that are not ours.
    """
    refuse_name(folder)
    mark = folder / _MARK
    if (folder / "store.json").is_file():
        mark.unlink(missing_ok=True)  # a kill came between the description and the removal of the mark
        return
    if mark.is_file():
        # only the table's own folders; orphans beside it go with the next version, staged parts are taken up
        for pattern in ("_delta_log", "period=*"):
            for part in (folder / "bars").glob(pattern):
                shutil.rmtree(part)
        return
    refuse_lost_description(folder)
    taken = [str(folder / name) for name in _FOLDERS if _holds_something(folder / name)]
    if taken:
        raise StoreError(
            f"the market store would go where other files are: {', '.join(taken)}",
            "move them elsewhere, or choose another --workspace",
        )
    write_json(mark, {"format": FORMAT})


def end_birth(folder: Path) -> None:
    """Take the mark away: the store has its description."""
    (folder / _MARK).unlink(missing_ok=True)


def refuse_lost_description(folder: Path) -> None:
    """Refuse a folder that holds versions of a store, but no ``store.json`` and no mark of a first import.

    Raises
    ------
    StoreError
        With what to put back.
    """
    if (folder / "store.json").is_file() or (folder / _MARK).is_file():
        return
    if (folder / "bars" / "_delta_log").is_dir():
        raise StoreError(
            f"{folder} holds a market store, but its description {folder / 'store.json'} is gone",
            'restore it from a backup, or write it: {"market": "us", "frequency": "1d", "calendar": "XNYS", '
            f'"format": {FORMAT}}}, with what the store holds',
        )


def _holds_something(folder: Path) -> bool:
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
