"""The database file of a ledger: its tables, how it is opened, and what its refusals mean."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from barcast.core.errors import (
    OverlapError,
    ResourceError,
    RunError,
    StoreBusyError,
    StoreError,
    StoreVersionError,
    explained,
)

#: "barc": says that a SQLite file is a ledger.
APPLICATION_ID = 0x62617263
VERSION = 1
#: Readers and checkpoints of other processes end within this.
_BUSY_SECONDS = 10.0
#: What SQLite keeps beside a file in write-ahead mode.
_COMPANIONS = ("", "-wal", "-shm")

# Models rest in a table of their own: listing ten thousand rows must not page over gigabytes of them.
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE symbols (
    symbol TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'running', 'done', 'failed', 'left_out')),
    why TEXT NOT NULL,
    settings TEXT NOT NULL,
    data TEXT NOT NULL,
    preset TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    seconds REAL NOT NULL DEFAULT 0,
    memory_bytes INTEGER NOT NULL DEFAULT 0,
    num_rows INTEGER NOT NULL DEFAULT 0,
    metrics TEXT NOT NULL DEFAULT '{}',
    reason TEXT NOT NULL DEFAULT '',
    todo TEXT NOT NULL DEFAULT '',
    finished_at TEXT NOT NULL DEFAULT '',
    content TEXT NOT NULL DEFAULT '',
    model_bytes INTEGER NOT NULL DEFAULT 0,
    native_bytes INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX symbols_by_status ON symbols (status);
CREATE TABLE models (
    symbol TEXT PRIMARY KEY REFERENCES symbols ON DELETE CASCADE,
    model BLOB NOT NULL,
    native BLOB NOT NULL
);
CREATE TABLE pooled (
    symbol TEXT NOT NULL REFERENCES symbols ON DELETE CASCADE,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (symbol, kind)
) WITHOUT ROWID;
"""


def create(path: Path) -> None:
    """Make an empty ledger in place of whatever rests there; the caller holds the lock."""
    with explained("creating", path):
        for suffix in _COMPANIONS:
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    with refusals_told("creating", path), closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")


def is_made(path: Path) -> bool:
    """Return whether a database with tables rests at ``path``; one whose making was cut off has none."""
    if not path.is_file():
        return False
    with refusals_told("reading", path), closing(_read_only(path)) as connection:
        return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    """Open a ledger.

    Raises
    ------
    RunError
        Where there is none.
    StoreVersionError
        Where a newer barcast wrote it.
    StoreError
        Where the file is no ledger, or damaged.
    ResourceError
        Where the system refuses.
    """
    if not path.is_file():
        raise RunError(f"there is no fleet ledger at {path}", "train a fleet first, or name its folder")
    with refusals_told("opening", path):
        connection = _read_only(path) if readonly else sqlite3.connect(path, isolation_level=None)
        try:
            _verify(connection, path)
            connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def one_writer(path: Path) -> Iterator[None]:
    """Hold the lock of the ledger's folder.

    Raises
    ------
    OverlapError
        When another process writes this fleet.
    """
    from barcast.core.lock import writer_lock  # its room brings polars along, which no reader needs

    with ExitStack() as held:
        try:
            held.enter_context(writer_lock(path.parent))
        except StoreBusyError as error:
            raise OverlapError(
                error.found, "wait for it to finish; `barcast fleet status` works meanwhile"
            ) from error
        yield


@contextmanager
def one_snapshot(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Keep what a reader sees, from its first question in the block to the end, as it was at that moment."""
    with refusals_told("reading", path):
        connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:  # a failing disk may have ended it already
            connection.execute("ROLLBACK")


@contextmanager
def refusals_told(action: str, path: Path) -> Iterator[None]:
    """Turn what SQLite refuses into errors that name the next step.

    Raises
    ------
    ResourceError
        On a full disk, a missing permission or a failing disk.
    OverlapError
        When another process keeps the file locked.
    StoreError
        When the file is damaged, or no database.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the high bits say in which call
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise OverlapError(
                f"another process keeps {path} locked while {action} it", "try again when it has finished"
            ) from error
        if code in _REFUSALS:
            found, todo = _REFUSALS[code]
            raise ResourceError(f"{found} while {action} {path} ({error})", todo) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise StoreError(
                f"{path} is damaged or no fleet ledger ({error})",
                "restore it from a backup, or train the fleet anew with --fresh",
            ) from error
        raise


_SPACE = "free some space and run the same command again: what was finished is kept"
_WRITABLE = "choose another --workspace, or make this folder writable for you"
_REFUSALS = {
    sqlite3.SQLITE_FULL: ("no space left on the disk", _SPACE),
    sqlite3.SQLITE_READONLY: ("no permission", _WRITABLE),
    sqlite3.SQLITE_PERM: ("no permission", _WRITABLE),
    sqlite3.SQLITE_CANTOPEN: ("the file cannot be opened", _WRITABLE),
    sqlite3.SQLITE_IOERR: ("the disk failed or is full", _SPACE),
}


def _read_only(path: Path) -> sqlite3.Connection:
    """Open without writing; in a folder that is read-only SQLite must be told that nobody else writes."""
    place = path.resolve().as_uri()
    alone = not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists()
    return sqlite3.connect(f"{place}?{'immutable=1' if alone else 'mode=ro'}", uri=True, isolation_level=None)


def _verify(connection: sqlite3.Connection, path: Path) -> None:
    version = _pragma(connection, "user_version")
    if _pragma(connection, "application_id") != APPLICATION_ID or not version:
        raise StoreError(f"{path} is a database, but no fleet ledger", "name the folder of a fleet")
    if version > VERSION:
        raise StoreVersionError(
            f"{path} has version {version}, this barcast knows {VERSION}",
            "upgrade with `pip install -U barcast`, or train into another folder",
        )


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
