"""The ledger of a fleet: every symbol's fate and model in one database file that survives any kill.

One process writes (the driver), any number read. A finished symbol is one durable transaction of SQLite in
write-ahead mode: it is there whole, flushed to the disk, or not at all. A symbol that is not ``done`` has no
model here.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from barcast.core.errors import UsageError
from barcast.core.runs import FLEET_LEDGER
from barcast.fleet import ledger_file
from barcast.fleet.ledger_rows import (
    ASKED_AGAIN,
    COLUMNS,
    FAILED_BEFORE,
    STATUSES,
    LedgerRow,
    Plan,
    Planned,
    RowStatus,
    Wanted,
    decide,
    decide_anew,
    to_json,
)
from barcast.fleet.work import Begun, SymbolResult, Unit

LEDGER = FLEET_LEDGER
#: Name among the plain values: units of several symbols that began and did not end.
_UNITS = "units"
#: Symbols of one question to the database.
_CHUNK = 500


class StoredModel(NamedTuple):
    """The packed model of a symbol and the libraries' own formats, as :class:`SymbolResult` brought them."""

    model: bytes
    native: bytes


class Ledger:
    """One fleet's database; use it as a context manager, or close it."""

    def __init__(self, path: Path, connection: sqlite3.Connection, held: ExitStack) -> None:
        self.path = path
        self._connection = connection
        self._held = held

    # -- opening ------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path, *, fresh: bool = False) -> Ledger:
        """Open for writing, made first where there is none.

        Parameters
        ----------
        path : Path
            The file; its folder is made.
        fresh : bool
            Begin with an empty ledger: what was there is lost.

        Raises
        ------
        OverlapError
            When another process writes this fleet.
        StoreError, StoreVersionError, ResourceError
            As :meth:`open`.
        """
        with ExitStack() as held:
            held.enter_context(ledger_file.one_writer(path))
            if fresh or not ledger_file.is_made(path):
                ledger_file.create(path)
            return cls(path, ledger_file.connect(path, readonly=False), held.pop_all())

    @classmethod
    def open(cls, path: Path, *, readonly: bool = True) -> Ledger:
        """Open what is there; readers need no lock and hinder nobody.

        Raises
        ------
        RunError
            Where there is none.
        OverlapError
            When another process writes it and this one wants to.
        StoreVersionError
            Where a newer barcast wrote it.
        StoreError
            Where it is damaged, or no ledger.
        ResourceError
            Where the system refuses.
        """
        with ExitStack() as held:
            if not readonly and path.is_file():
                held.enter_context(ledger_file.one_writer(path))
            return cls(path, ledger_file.connect(path, readonly=readonly), held.pop_all())

    def close(self) -> None:
        """Close the file and let the next writer in."""
        self._connection.close()
        self._held.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- writing ------------------------------------------------------------------------------------------

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make everything written in the block one durable transaction: there whole, or not at all.

        A flush to the disk takes milliseconds; a driver that notes what ended and what begins in one block
        pays for one of them.

        Raises
        ------
        ResourceError
            When the disk is full or may not be written; nothing of the block is kept then.
        """
        if self._connection.in_transaction:
            yield
            return
        with ledger_file.refusals_told("writing", self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk may have ended it already
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Take back everything written in the block when it ends, or the process does; no reader sees it."""
        with ledger_file.refusals_told("writing", self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                if self._connection.in_transaction:  # as above
                    self._connection.execute("ROLLBACK")

    def plan(self, wanted: Sequence[Wanted], before: Mapping[str, LedgerRow] | None = None) -> Plan:
        """Compare what is wanted with what is there, note it, and return what is to be trained and why.

        A symbol whose settings or rows changed loses its model and its count of attempts. Symbols that are
        in the ledger but not wanted stay as they are. Whom only an older ledger knows (``before``, by symbol)
        is to be trained for what changed since that one, or for what kept it there.
        """
        older = before or {}
        rows = {row.symbol: row for row in self._among([each.symbol for each in wanted])}
        todo, done, failed = [], 0, []
        with self.together():
            for each in wanted:
                row = rows.get(each.symbol)
                why = decide(each, row) if row is not None else decide_anew(each, older.get(each.symbol))
                if row is None or why:
                    same = row is not None and (row.settings, row.data) == (each.settings, each.data)
                    attempts = row.attempts if row is not None and same else 0
                    self._await(each, why, attempts)
                    todo.append(Planned(each.symbol, each.position, why, attempts))
                    continue
                self._write("UPDATE symbols SET position = ? WHERE symbol = ?", each.position, each.symbol)
                done += row.status == "done"
                failed += [row.symbol] if row.status == "failed" else []
        return Plan(tuple(todo), done, tuple(failed))

    def _await(self, wanted: Wanted | LedgerRow, why: str, attempts: int = 0) -> None:
        """Make a symbol pending; nothing is left of what it was, its model included."""
        self._write("DELETE FROM symbols WHERE symbol = ?", wanted.symbol)
        self._write(
            "INSERT INTO symbols (symbol, position, status, why, settings, data, attempts) "
            "VALUES (?, ?, 'pending', ?, ?, ?, ?)",
            wanted.symbol, wanted.position, why, wanted.settings, wanted.data, attempts,
        )  # fmt: skip

    def start(self, units: Sequence[Unit]) -> None:
        """Note, durably and before their fits, that units begin, with which preset; an attempt is counted.

        Which symbols are together is noted as well: what a unit saved on the way is of use to the same alone.

        Raises
        ------
        UsageError
            For a symbol that was not planned.
        """
        with self.together():
            for unit in units:
                for symbol in unit.symbols:
                    self._write_one(
                        "UPDATE symbols SET status = 'running', preset = ?, attempts = attempts + 1 "
                        "WHERE symbol = ?",
                        unit.preset, symbol,
                    )  # fmt: skip
            symbols = {symbol for unit in units for symbol in unit.symbols}
            self._note_begun(symbols, [Begun(each.preset, each.symbols) for each in units])

    def begun(self) -> list[Begun]:
        """Return the units of several symbols that began and did not end, whatever ended their driver."""
        found = self._read("SELECT value FROM meta WHERE key = ?", _UNITS)
        return [
            Begun(preset, tuple(symbols)) for preset, symbols in (json.loads(found[0][0]) if found else ())
        ]

    def _note_begun(self, over: Collection[str], new: Sequence[Begun] = ()) -> None:
        """Forget the units of symbols whose fits ended or begin anew, and note those that begin."""
        before = self.begun()
        now = [each for each in before if not set(over) & set(each.symbols)]
        now += [each for each in new if len(each.symbols) > 1]
        if now != before:
            self.set_meta({_UNITS: now})

    def finish(self, results: Sequence[SymbolResult]) -> None:
        """Keep results for good, all of them or none: one durable transaction.

        Raises
        ------
        UsageError
            For a symbol that was not planned.
        ResourceError
            When the disk is full: none of these results is kept, all earlier ones are.
        """
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        with self.together():
            for each in results:
                self._finish(each, now)
            self._note_begun({each.symbol for each in results})

    def _finish(self, result: SymbolResult, now: str) -> None:
        has_model = result.status == "done"
        self._write("DELETE FROM models WHERE symbol = ?", result.symbol)
        self._write_one(
            "UPDATE symbols SET status = ?, preset = ?, seconds = ?, memory_bytes = ?, num_rows = ?, "
            "metrics = ?, reason = ?, todo = ?, finished_at = ?, content = ?, model_bytes = ?, "
            "native_bytes = ? WHERE symbol = ?",
            result.status, result.preset, result.seconds, result.memory_bytes, result.num_rows,
            to_json(result.metrics), result.reason, result.todo, now,
            hashlib.sha256(result.model).hexdigest() if has_model else "",
            len(result.model) if has_model else 0, len(result.native) if has_model else 0, result.symbol,
        )  # fmt: skip
        if has_model:
            self._write("INSERT INTO models VALUES (?, ?, ?)", result.symbol, result.model, result.native)

    def leave_out(self, reasons: Mapping[str, str]) -> None:
        """Note which symbols get no model this time, and why (the budget, too few rows)."""
        with self.together():
            for symbol, reason in reasons.items():
                self._write_one(
                    "UPDATE symbols SET status = 'left_out', reason = ? WHERE symbol = ?", reason, symbol
                )

    def retry_failed(self) -> tuple[str, ...]:
        """Make every failed symbol pending again; return them."""
        with self.together():
            rows = self.rows(status=["failed"])
            for row in rows:
                self._await(row, FAILED_BEFORE)
        return tuple(row.symbol for row in rows)

    def reset(self, symbols: Sequence[str]) -> None:
        """Make symbols pending again, whatever they are; their models are dropped.

        Raises
        ------
        UsageError
            For a symbol that the ledger does not know; nothing is changed then.
        """
        with self.together():
            for symbol in symbols:
                self._await(self.row(symbol), ASKED_AGAIN)

    def forget(self, symbols: Sequence[str]) -> None:
        """Drop symbols, their models and what was pooled of them."""
        with self.together():
            for symbol in symbols:
                self._write("DELETE FROM symbols WHERE symbol = ?", symbol)

    # -- what belongs to the fleet -------------------------------------------------------------------------

    def set_meta(self, values: Mapping[str, Any]) -> None:
        """Keep plain values by name, in one transaction; those of other names stay."""
        with self.together():
            for key, value in values.items():
                self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, to_json(value))

    def meta(self) -> dict[str, Any]:
        """Return the values of :meth:`set_meta`."""
        return {key: json.loads(value) for key, value in self._read("SELECT key, value FROM meta")}

    def set_pooled(self, kind: str, values: Mapping[str, Any]) -> None:
        """Replace one kind of what only all symbols together tell (weights, routes), in one transaction.

        Raises
        ------
        UsageError
            For a symbol that the ledger does not know; the former values stay then.
        """
        with self.together():
            self._write("DELETE FROM pooled WHERE kind = ?", kind)
            for symbol, value in values.items():
                try:
                    self._write("INSERT INTO pooled VALUES (?, ?, ?)", symbol, kind, to_json(value))
                except sqlite3.IntegrityError as error:
                    raise self._unknown(symbol) from error

    def pooled(self, kind: str, symbol: str | None = None) -> dict[str, Any]:
        """Return the values of one kind by symbol, of all symbols or one; sorted by symbol."""
        query = "SELECT symbol, value FROM pooled WHERE kind = ?"
        rows = self._read(query + " ORDER BY symbol", kind) if symbol is None else self._read(
            query + " AND symbol = ?", kind, symbol
        )  # fmt: skip
        return {name: json.loads(value) for name, value in rows}

    # -- reading ------------------------------------------------------------------------------------------

    @contextmanager
    def unchanging(self) -> Iterator[None]:
        """Read the ledger all through the block as it stands at one moment, whatever its writer does."""
        with ledger_file.one_snapshot(self._connection, self.path):
            yield

    def rows(
        self, *, status: Collection[RowStatus] = STATUSES, preset: str | None = None, limit: int | None = None
    ) -> list[LedgerRow]:
        """Return what is known of symbols of some statuses and of one preset or all, sorted by symbol."""
        found = self._read(
            f"SELECT {COLUMNS} FROM symbols WHERE status IN ({_marks(status)}) "
            "AND preset = coalesce(?, preset) ORDER BY symbol LIMIT ?",
            *status, preset, -1 if limit is None else limit,
        )  # fmt: skip
        return [LedgerRow.read(values) for values in found]

    def row(self, symbol: str) -> LedgerRow:
        """Return what is known of one symbol.

        Raises
        ------
        UsageError
            When the ledger does not know it.
        """
        for row in self._among([symbol]):
            return row
        raise self._unknown(symbol)

    def digests(self, status: Collection[RowStatus] = STATUSES) -> dict[str, tuple[str, str]]:
        """Return by symbol what it was, or is to be, trained with: digests of its settings and its rows."""
        query = f"SELECT symbol, settings, data FROM symbols WHERE status IN ({_marks(status)})"
        return {symbol: (settings, data) for symbol, settings, data in self._read(query, *status)}

    def counts(self) -> dict[RowStatus, int]:
        """Return how many symbols have each status, every status named."""
        found = dict(self._read("SELECT status, count(*) FROM symbols GROUP BY status"))
        return {status: found.get(status, 0) for status in STATUSES}

    def model(self, symbol: str) -> StoredModel:
        """Return the model of one symbol.

        Raises
        ------
        UsageError
            When the ledger does not know the symbol, or it has no model.
        """
        found = self._read("SELECT model, native FROM models WHERE symbol = ?", symbol)
        if found:
            return StoredModel(*found[0])
        row = self.row(symbol)
        said = f": {row.reason}" if row.reason else ""
        raise UsageError(
            f"{symbol} has no model of its own, it is {row.status.replace('_', ' ')}{said}",
            row.todo or f"see `barcast fleet show {symbol}`",
        )

    def models(self) -> Iterator[tuple[str, bytes]]:
        """Yield every symbol that is done and its packed model, sorted by symbol, one in memory at a time."""
        # CROSS JOIN keeps SQLite from starting with the models, which it would have to sort.
        query = "SELECT symbol, model FROM symbols CROSS JOIN models USING (symbol) ORDER BY symbol"
        with ledger_file.refusals_told("reading", self.path):
            yield from self._connection.execute(query)

    def content_digest(self, *kinds: str) -> str:
        """Return a digest of all models, and of some kinds of pooled values: equal fleets have equal ones.

        When symbols ended, how long they took and in which order does not count; their presets do.
        """
        told = hashlib.sha256()
        query = "SELECT symbol, preset, content FROM symbols WHERE +status = 'done' ORDER BY symbol"
        for values in self._read(query):
            told.update(json.dumps(values).encode())
        for kind in sorted(kinds):
            told.update(json.dumps([kind, self.pooled(kind)], sort_keys=True).encode())
        return told.hexdigest()

    def size_bytes(self) -> int:
        """Return what the ledger takes on the disk, the log that SQLite writes ahead included."""
        companions = (self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal"))
        return sum(each.stat().st_size for each in companions if each.exists())

    # -- the database -------------------------------------------------------------------------------------

    def _among(self, symbols: Sequence[str]) -> Iterator[LedgerRow]:
        for first in range(0, len(symbols), _CHUNK):
            some = symbols[first : first + _CHUNK]
            for values in self._read(
                f"SELECT {COLUMNS} FROM symbols WHERE symbol IN ({_marks(some)})", *some
            ):
                yield LedgerRow.read(values)

    def _read(self, query: str, *values: object) -> list[Any]:
        with ledger_file.refusals_told("reading", self.path):
            return self._connection.execute(query, values).fetchall()

    def _write(self, statement: str, *values: object) -> int:
        return self._connection.execute(statement, values).rowcount

    def _write_one(self, statement: str, *values: object) -> None:
        """Write to the row whose symbol is the last value; it must be there."""
        if not self._write(statement, *values):
            raise self._unknown(str(values[-1]))

    def _unknown(self, symbol: str) -> UsageError:
        return UsageError(
            f"{symbol} is not in the fleet `{self.path.parent.parent.name}`",
            "see its symbols with `barcast fleet status`",
        )


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))
