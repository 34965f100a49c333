"""A new fleet takes over what older ones of its workspace fitted alike; it fits what is new, or changed.

A model follows from the rows that its fit reads, its options and the seed. Where the digests of all these are
those of an older ledger, and the same versions computed both, fitting it here would give the same bytes (of
networks the same within rounding): so it is taken over as if it had been fitted here, and the facts of the
symbol say where and when it was. Weights, calibration, scores and routes are the new run's own.

A ledger is treated as it would be by a call that goes on with it: what failed is taken over as well, and not
tried again before somebody asks; a lighter preset that a budget gave is kept; who was left out, or did not
end, is fitted. So is who failed in passing, which says nothing of the symbol.

An older ledger that cannot be read, or no further, is passed over: it stops no fleet that can do without it.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from barcast.core.errors import BarcastError, StoreError
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, list_runs
from barcast.core.texts import counted
from barcast.core.workspace import Workspace
from barcast.fleet.ledger import LEDGER, Ledger, StoredModel
from barcast.fleet.ledger_rows import TAKEN_OVER, LedgerRow, RowStatus, Wanted
from barcast.fleet.work import SymbolResult
from barcast.pipeline.fleet_even import had_budget, take_history
from barcast.pipeline.fleet_origins import as_if_fitted_here
from barcast.pipeline.fleet_rows import PASSING
from barcast.pipeline.fleet_seen import LEANS_ON
from barcast.pipeline.fleet_versions import note_versions, only_these_versions
from barcast.pipeline.record import FRESH

#: Symbols taken over in one transaction.
_TOGETHER = 100
#: Statuses of symbols whose fit came to an end.
_ENDED: tuple[RowStatus, ...] = ("done", "failed")
#: Rows of an older ledger, and the results of those that ended.
_Part: TypeAlias = tuple[Sequence[LedgerRow], list[SymbolResult]]


@dataclass(frozen=True)
class Taken:
    """What older ledgers say of symbols that a fleet did not know yet.

    Attributes
    ----------
    before : mapping of str to LedgerRow
        The newest row of each symbol that any of them knows.
    counted : mapping of str to LedgerRow
        Who is to be taken over, where that is only counted.
    """

    before: Mapping[str, LedgerRow] = field(default_factory=dict)
    counted: Mapping[str, LedgerRow] = field(default_factory=dict)


@dataclass(frozen=True)
class Older:
    """Fleets that a new one may take models over from.

    Attributes
    ----------
    runs : tuple of RunFolder
        The newest first.
    writes : bool
        Whether models are taken over; else they are only counted.
    """

    runs: tuple[RunFolder, ...] = ()
    writes: bool = True

    @classmethod
    def of(cls, run: RunFolder, *, writes: bool = True) -> Older:
        """Return the other fleets of a model in its workspace, finished or not; of a refit the other refits.

        None for a run that began anew, for a bare folder, and for residual fleets: what they learn hangs on
        trainings of a universal model that belong to each of them.
        """
        told = run.recorded
        if not told or {FRESH, LEANS_ON} & told.keys():
            return cls(writes=writes)
        others = reversed(list_runs(Workspace(run.path.parent.parent)))
        return cls(tuple(each for each in others if _may_give(each, run)), writes)

    def take(
        self, ledger: Ledger, wanted: Sequence[Wanted], asked: Mapping[str, str], progress: Progress
    ) -> Taken:
        """Take over what is wanted and not in the ledger yet, each symbol from the newest that has it so.

        What an interrupted call took over is there whole, and stays; the next one takes over the rest.

        Parameters
        ----------
        asked : mapping of str to str
            The preset that was asked for, by symbol.
        """
        note_versions(ledger)
        known = ledger.digests() if self.runs else {}
        missing = {each.symbol: each for each in wanted if each.symbol not in known}
        before: dict[str, LedgerRow] = {}
        taken: dict[str, LedgerRow] = {}
        passed_over = False
        for run in self.runs:
            if not missing:
                break
            giver = _Giver(run, missing, before)
            self._take_from(giver, ledger, asked)
            for line in giver.told(asked, writes=self.writes):
                progress.note(line)
            before, taken = {**giver.rows, **before}, {**taken, **giver.given}
            missing = {name: each for name, each in missing.items() if name not in giver.given}
            passed_over |= bool(giver.why_not)
        if before and not taken and not passed_over:
            progress.note("no older fleet has a model of the same rows and options")
        return Taken(before, {} if self.writes else taken)

    def _take_from(self, giver: _Giver, ledger: Ledger, asked: Mapping[str, str]) -> None:
        places = {name: each.position for name, each in giver.missing.items()}
        with closing(giver.read(models=self.writes)) as found:
            for rows, results in found:
                with ledger.together():
                    if _num_lighter(rows, asked):
                        take_history(ledger, giver.meta)
                    _put(ledger, rows, results, places)


def _may_give(other: RunFolder, run: RunFolder) -> bool:
    """Return whether another run is of the same kind, and all of its models as if it had fitted them."""
    info, own = other.info, run.info
    alike = info.get("model") == own["model"] and ("parent" in info) == ("parent" in own)
    is_whole = not {LEANS_ON, "refreshed_from"} & info.keys()
    return alike and is_whole and other.name != run.name and (other.fleet / LEDGER).is_file()


@dataclass
class _Giver:
    """An older fleet, read as it stands at one moment whatever is written meanwhile.

    Attributes
    ----------
    missing : mapping of str to Wanted
        Symbols that are looked for.
    before : mapping of str to LedgerRow
        What newer fleets said of them.
    meta : dict
        Plain values of its ledger.
    rows, given : dict of str to LedgerRow
        What it says of these symbols, and whom it gave.
    why_not : str
        Why it gave nobody, or nobody else; empty where it was read whole.
    """

    run: RunFolder
    missing: Mapping[str, Wanted]
    before: Mapping[str, LedgerRow]
    meta: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, LedgerRow] = field(default_factory=dict)
    given: dict[str, LedgerRow] = field(default_factory=dict)
    why_not: str = ""

    def read(self, *, models: bool) -> Generator[_Part, None, None]:
        """Yield who is to be taken over, a hundred at a time; nobody where that is only counted.

        Only this ledger is read here: what fails while another is written is not its fault, and not told so.
        """
        try:
            with Ledger.open(self.run.fleet / LEDGER) as old, old.unchanging():
                yield from self._read(old, models)
        except (BarcastError, sqlite3.DatabaseError, ValueError) as error:  # damaged text is no JSON
            self.why_not = error.found if isinstance(error, BarcastError) else f"damaged ({error})"

    def _read(self, old: Ledger, models: bool) -> Iterator[_Part]:
        self.meta, self.rows = old.meta(), _rows_worth(old, self.missing, self.before)
        alike = {name: row for name, row in self.rows.items() if _is_alike(row, self.missing[name])}
        if alike and not only_these_versions(self.meta):
            self.why_not = "fitted by other versions"
        elif not models:
            self.given = alike
        else:
            facts = partial(as_if_fitted_here, run=self.run, budget=had_budget(self.meta))
            for rows in _in_parts(list(alike.values())):
                yield rows, _results(old, rows, facts)
                self.given |= {row.symbol: row for row in rows}

    def told(self, asked: Mapping[str, str], *, writes: bool) -> list[str]:
        """Say whom it gave, and why nobody else."""
        given, taken = list(self.given.values()), "taken over" if writes else "would be taken over"
        num_failed, num_lighter = sum(row.status == "failed" for row in given), _num_lighter(given, asked)
        lines = []
        if len(given) > num_lighter:
            told = counted(len(given) - num_failed - num_lighter, "model")
            told += f" and {counted(num_failed, 'failure')}" if num_failed else ""
            lines.append(f"{told} {taken} from {self.run.name}: same rows, same options")
        if num_lighter:
            told = counted(num_lighter, "model")
            lines.append(f"{told} of a lighter preset {taken} from {self.run.name}: same rows")
        if self.why_not:
            lines.append(f"{'the rest of ' if given else ''}{self.run.name} is passed over: {self.why_not}")
        return lines


def _rows_worth(
    old: Ledger, missing: Mapping[str, Wanted], before: Mapping[str, LedgerRow]
) -> dict[str, LedgerRow]:
    """Return what an older ledger says of the missing symbols; nothing where that is of no use.

    The digests alone tell, and they are quickly read.
    """
    known, ended = old.digests(), old.digests(_ENDED)
    useful = any(
        (name in known and name not in before) or ended.get(name) == (each.settings, each.data)
        for name, each in missing.items()
    )
    return {row.symbol: row for row in old.rows() if row.symbol in missing} if useful else {}


def _is_alike(row: LedgerRow, wanted: Wanted) -> bool:
    """Return whether a fit came to an end that would come to the same here."""
    in_passing = row.status == "failed" and row.reason.startswith(PASSING)
    same = (row.settings, row.data) == (wanted.settings, wanted.data)
    return row.status in _ENDED and same and not in_passing


def _num_lighter(rows: Sequence[LedgerRow], asked: Mapping[str, str]) -> int:
    return sum(row.status == "done" and row.preset != asked[row.symbol] for row in rows)


def bring(
    old: Ledger, ledger: Ledger, rows: Sequence[LedgerRow], places: Mapping[str, int],
    facts: Callable[[LedgerRow], dict[str, Any]],
) -> None:  # fmt: skip
    """Write what an old ledger says of symbols into one that does not know them, models included.

    A hundred symbols are one durable transaction: few flushes, and no more than their models in memory.

    Parameters
    ----------
    places : mapping of str to int
        Positions of the symbols in the rows of the fleet that takes them over.
    facts : callable
        From a row to its metrics and, as ``TAKEN_OVER``, where its model comes from.
    """
    for some in _in_parts(rows):
        left = {row.symbol: row.reason or _not_fitted(facts(row)) for row in some if row.status not in _ENDED}
        results = _results(old, some, facts)
        with ledger.together():
            _put(ledger, some, results, places)
            ledger.leave_out(left)


def _in_parts(rows: Sequence[LedgerRow]) -> Iterator[Sequence[LedgerRow]]:
    for first in range(0, len(rows), _TOGETHER):
        yield rows[first : first + _TOGETHER]


def _not_fitted(facts: Mapping[str, Any]) -> str:
    return f"not fitted in {facts[TAKEN_OVER]['run']}"


def _put(
    ledger: Ledger, rows: Sequence[LedgerRow], results: Sequence[SymbolResult], places: Mapping[str, int]
) -> None:
    ledger.plan([Wanted(row.symbol, places[row.symbol], row.settings, row.data) for row in rows])
    ledger.finish(results)


def _results(
    old: Ledger, rows: Sequence[LedgerRow], facts: Callable[[LedgerRow], dict[str, Any]]
) -> list[SymbolResult]:
    """Return what a ledger says of symbols whose fits ended, as if they had just done so."""
    return [_result(old, row, facts(row)) for row in rows if row.status in _ENDED]


def _result(old: Ledger, row: LedgerRow, facts: Mapping[str, Any]) -> SymbolResult:
    stored = _model(old, row) if row.status == "done" else None
    return SymbolResult(
        row.symbol, row.preset, "done" if stored else "failed", row.seconds, row.memory_bytes, row.num_rows,
        facts, stored.model if stored else b"", stored.native if stored else b"", row.reason, row.todo,
    )  # fmt: skip


def _model(old: Ledger, row: LedgerRow) -> StoredModel:
    stored = old.model(row.symbol)
    if hashlib.sha256(stored.model).hexdigest() != row.content:  # a page may be damaged that SQLite can read
        raise StoreError(
            f"the model of {row.symbol} in {old.path} is damaged",
            "restore the file from a backup, or train the fleet anew with --fresh",
        )
    return stored
