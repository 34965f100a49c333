"""A new fleet takes over what older ones of its workspace fitted alike; it fits what is new, or changed.

A model follows from the rows that its fit reads, its options and the seed. Where the digests of all these are
those of an older ledger, and the same versions computed both, fitting it here would give the same bytes (of
networks the same within rounding): so it is taken over as if it had been fitted here, and the facts of the
symbol say where and when it was. Weights, calibration, scores and routes are the new run's own.

A ledger is treated as it would be by a call that goes on with it: what failed is taken over as well, and not
tried again before somebody asks; a lighter preset that a budget gave is kept; who was left out, or did not
end, is fitted.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import Any

from barcast.core.errors import BarcastError
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, list_runs
from barcast.core.texts import counted
from barcast.core.workspace import Workspace
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.ledger_rows import TAKEN_OVER, LedgerRow, RowStatus, Wanted
from barcast.fleet.work import SymbolResult
from barcast.pipeline.fleet_even import take_history
from barcast.pipeline.fleet_origins import as_if_fitted_here
from barcast.pipeline.fleet_seen import LEANS_ON
from barcast.pipeline.record import FRESH

#: Symbols taken over in one transaction.
_TOGETHER = 100
#: Statuses of symbols whose fit came to an end.
_ENDED: tuple[RowStatus, ...] = ("done", "failed")
#: Name among a ledger's plain values: what computed its fits, an entry for each set of versions that did.
_COMPUTED_BY = "computed_by"
#: Packages whose versions decide what comes out of a fit.
_FIT_WITH = ("barcast", "numpy", "numba", "lightgbm", "xgboost", "xgboost-cpu", "torch")


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

    def take(self, ledger: Ledger, wanted: Sequence[Wanted], asked: str, progress: Progress) -> Taken:
        """Take over what is wanted and not in the ledger yet, each symbol from the newest that has it so.

        What an interrupted call took over is there whole, and stays; the next one takes over the rest.

        Parameters
        ----------
        asked : str
            The preset that was asked for.
        """
        _note_versions(ledger)
        known = ledger.digests() if self.runs else {}
        missing = {each.symbol: each for each in wanted if each.symbol not in known}
        before: dict[str, LedgerRow] = {}
        taken: dict[str, LedgerRow] = {}
        for run in self.runs:
            if not missing:
                break
            with _opened(run, progress) as old:
                rows = {} if old is None else _rows_worth(old, missing, before)
                alike = {name: row for name, row in rows.items() if _is_alike(row, missing[name])}
                if old is not None and alike and self.writes:
                    _bring_alike(old, ledger, run, alike, missing, asked)
            if alike:
                progress.note(_said(run, alike.values(), writes=self.writes))
            before, taken = {**rows, **before}, {**taken, **alike}
            missing = {name: each for name, each in missing.items() if name not in alike}
        if before and not taken:
            progress.note("no older fleet has a model of the same rows and options")
        return Taken(before, {} if self.writes else taken)


def _may_give(other: RunFolder, run: RunFolder) -> bool:
    """Return whether another run is of the same kind, and all of its models as if it had fitted them."""
    info, own = other.info, run.info
    alike = info.get("model") == own["model"] and ("parent" in info) == ("parent" in own)
    is_whole = not {LEANS_ON, "refreshed_from"} & info.keys()
    return alike and is_whole and other.name != run.name and (other.fleet / LEDGER).is_file()


def _computed_by() -> dict[str, str]:
    """Return what decides the bytes of a fit beside rows, options and seed: machine and versions."""
    found = {"system": platform.system(), "machine": platform.machine()}
    for package in _FIT_WITH:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _note_versions(ledger: Ledger) -> None:
    """Write down, before any fit, what computes the fits of this call."""
    told, here = ledger.meta().get(_COMPUTED_BY, []), _computed_by()
    if here not in told:
        ledger.set_meta({_COMPUTED_BY: [*told, here]})


@contextmanager
def _opened(run: RunFolder, progress: Progress) -> Iterator[Ledger | None]:
    """Open an older ledger; None where it cannot be read, or other versions had a part in it."""
    with ExitStack() as held:
        ledger = None
        try:
            ledger = held.enter_context(Ledger.open(run.fleet / LEDGER))
        except BarcastError as error:
            progress.note(f"{run.name} is passed over: {error.found}")
        alike = ledger is not None and ledger.meta().get(_COMPUTED_BY) == [_computed_by()]
        yield ledger if alike else None


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
    return row.status in _ENDED and (row.settings, row.data) == (wanted.settings, wanted.data)


def _bring_alike(
    old: Ledger, ledger: Ledger, run: RunFolder, alike: Mapping[str, LedgerRow],
    wanted: Mapping[str, Wanted], asked: str,
) -> None:  # fmt: skip
    """Take over symbols from the ledger of a run, and before them why some have a lighter preset."""
    if any(row.preset != asked for row in alike.values() if row.status == "done"):
        take_history(ledger, old)
    places = {name: wanted[name].position for name in alike}
    bring(old, ledger, list(alike.values()), places, partial(as_if_fitted_here, run=run))


def _said(run: RunFolder, alike: Collection[LedgerRow], *, writes: bool) -> str:
    num_failed = sum(row.status == "failed" for row in alike)
    told = counted(len(alike) - num_failed, "model")
    told += f" and {counted(num_failed, 'failure')}" if num_failed else ""
    return f"{told} {'' if writes else 'would be '}taken over from {run.name}: same rows, same options"


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
    for first in range(0, len(rows), _TOGETHER):
        with ledger.together():
            _bring(old, ledger, rows[first : first + _TOGETHER], places, facts)


def _bring(
    old: Ledger, ledger: Ledger, rows: Sequence[LedgerRow], places: Mapping[str, int],
    facts: Callable[[LedgerRow], dict[str, Any]],
) -> None:  # fmt: skip
    ledger.plan([Wanted(row.symbol, places[row.symbol], row.settings, row.data) for row in rows])
    told = {row.symbol: facts(row) for row in rows}
    ledger.finish([_result(old, row, told[row.symbol]) for row in rows if row.status in _ENDED])
    left = [row for row in rows if row.status not in _ENDED]
    ledger.leave_out(
        {row.symbol: row.reason or f"not fitted in {told[row.symbol][TAKEN_OVER]['run']}" for row in left}
    )


def _result(old: Ledger, row: LedgerRow, facts: Mapping[str, Any]) -> SymbolResult:
    """Return what a ledger says of a symbol as if it had just ended."""
    stored = old.model(row.symbol) if row.status == "done" else None
    return SymbolResult(
        row.symbol, row.preset, "done" if stored else "failed", row.seconds, row.memory_bytes, row.num_rows,
        facts, stored.model if stored else b"", stored.native if stored else b"", row.reason, row.todo,
    )  # fmt: skip
