"""Options that a search chose for one symbol, put into a file of ``--symbol-config``."""

from __future__ import annotations

import fcntl
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from barcast.core.atomic import refuse_folder, write_text
from barcast.core.config import load_toml, to_toml
from barcast.core.errors import SymbolError, UsageError, explained
from barcast.core.workspace import Workspace
from barcast.pipeline.searched import SEARCH_KEY
from barcast.store import MarketStore

_HEADER = re.compile(r"^\s*\[[^\[]")


def toml_of(symbol: str, own: Mapping[str, Any]) -> str:
    """Return a symbol's table as the text of such a file."""
    name = to_toml(symbol)
    tables = {key: value for key, value in own.items() if isinstance(value, Mapping) and key != SEARCH_KEY}
    lines = [f"[{name}]", *(f"{key} = {to_toml(value)}" for key, value in own.items() if key not in tables)]
    for key, table in tables.items():
        lines += ["", f"[{name}.{key}]", *(f"{option} = {to_toml(value)}" for option, value in table.items())]
    return "\n".join(lines) + "\n"


def merge_own(workspace: Workspace, path: Path, symbol: str, own: Mapping[str, Any]) -> None:
    """Put a symbol's table into a file, which may be there or not; all else in it stays as it is.

    A table of the symbol that an earlier search wrote is replaced.

    Raises
    ------
    UsageError
        When the file has options of the symbol that no search wrote, or is laid out so that they cannot be
        told from others'.
    """
    with _alone(path.with_name(f"{path.name}.lock")):
        names = check_mergeable(workspace, path, symbol)
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
        before = load_toml(path) if text else {}
        kept = _without(text, names).rstrip()
        merged = f"{kept}\n\n{toml_of(symbol, own)}" if kept else toml_of(symbol, own)
        others = {name: table for name, table in before.items() if name not in names}
        if _read(merged) != {**others, symbol: dict(own)}:
            raise UsageError(
                f"{path}: the options of {symbol} cannot be told from the others' lines",
                "give each symbol tables of its own, or --write another file",
            )
        write_text(path, merged)


def check_mergeable(workspace: Workspace, path: Path, symbol: str) -> list[str]:
    """Return the names that a file gives to the symbol; refuse one whose options somebody wrote by hand.

    Raises
    ------
    UsageError
        As :func:`merge_own`; on a folder.
    """
    refuse_folder(path)
    before = load_toml(path) if path.is_file() else {}
    names = _spellings(workspace, before, symbol)
    for name in names:
        if not isinstance(before[name], Mapping) or SEARCH_KEY not in before[name]:
            raise UsageError(
                f"{path} has options of {name} already, which no search wrote",
                "take them out, or --write another file",
            )
    return names


def _spellings(workspace: Workspace, before: Mapping[str, Any], symbol: str) -> list[str]:
    store, found = MarketStore.open(workspace.market), []
    for name in before:
        try:
            (resolved,) = store.resolve((name,))
        except SymbolError:  # somebody of another store
            continue
        if resolved == symbol:
            found.append(name)
    return found


def _without(text: str, names: Sequence[str]) -> str:
    """Return the text without the tables of those names; comments above the table that follows stay."""
    kept: list[str] = []
    dropped: list[str] | None = None
    for line in text.splitlines():
        if _HEADER.match(line):
            owner = next(iter(_read(line)), "")
            if dropped is not None:
                kept += _last_comments(dropped)
            dropped = [] if owner in names else None
        (kept if dropped is None else dropped).append(line)
    return "\n".join(kept)


def _last_comments(lines: Sequence[str]) -> list[str]:
    """Return the comments and empty lines at the end."""
    first = len(lines)
    while first and (not lines[first - 1].strip() or lines[first - 1].lstrip().startswith("#")):
        first -= 1
    return list(lines[first:])


def _read(text: str) -> dict[str, Any]:
    """Read TOML; empty where it is none, as a line out of a longer text may be."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock while one file is read and written; the system releases it when a process dies."""
    with explained("locking", lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a+b")
    with file:
        with explained("locking", lock):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
