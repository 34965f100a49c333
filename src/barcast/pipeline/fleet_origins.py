"""Which run fitted each model of a fleet, and what it knew: a refreshed fleet has models of several runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from barcast.core.config import to_plain
from barcast.core.runs import RunFolder
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.ledger_rows import TAKEN_OVER, LedgerRow
from barcast.pipeline.record import known_until


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Attributes
    ----------
    run : str
        The run that fitted it.
    data_key : str
        Digest of the rows of the market that this run read.
    known_until : str
        When the last label became known that taught, stopped, chose or calibrated anything of this run.
    taught_until : str
        When the last one became known that taught it.
    """

    run: str
    data_key: str
    known_until: str
    taught_until: str

    @classmethod
    def of(cls, run: RunFolder) -> Origin:
        """Return the origin of the models that a run fits itself."""
        info = run.info
        return cls(run.name, str(info.get("data_key", "")), known_until(run), str(info["taught_until"]))


def origins(run: RunFolder, rows: Iterable[LedgerRow]) -> dict[str, Origin]:
    """Return by symbol where the model of each row of a finished run's ledger comes from."""
    here = Origin.of(run)
    return {row.symbol: _origin(row, here) for row in rows}


def _origin(row: LedgerRow, here: Origin) -> Origin:
    told = row.metrics.get(TAKEN_OVER, {})
    if "known_until" not in told:  # fitted here, or taken over as if it had been (`as_if_fitted_here`)
        return here
    known = told["known_until"]  # all that ledgers of earlier versions say; it is no earlier
    return Origin(told["run"], told["data_key"], known, told.get("taught_until", known))


def model_taught_until(run: RunFolder, symbol: str) -> str:
    """Return when the last label became known that taught one symbol's model of a finished run."""
    with Ledger.open(run.fleet / LEDGER) as ledger:
        return origins(run, [ledger.row(symbol)])[symbol].taught_until


def with_origin(row: LedgerRow, origin: Origin) -> dict[str, Any]:
    """Return what a ledger measured of a symbol, with where its model comes from, who fitted it and when.

    The run it comes from knew what it knows; one that took it over as its own did not fit it.
    """
    told = row.metrics.get(TAKEN_OVER, _fitted(row, origin.run))
    return {**row.metrics, TAKEN_OVER: {**told, **to_plain(origin)}}


def as_if_fitted_here(row: LedgerRow, run: RunFolder, *, budget: bool) -> dict[str, Any]:
    """Return what the ledger of ``run`` measured of a symbol, with which run fitted it and when.

    What that run knew is not said: rows and options are those of the run that takes the model over, so it
    knows what a model that was fitted there would know.

    Parameters
    ----------
    budget : bool
        Whether a budget chose presets in that run; a lighter one is then kept wherever it goes.
    """
    told = row.metrics.get(TAKEN_OVER, _fitted(row, run.name))
    return {**row.metrics, TAKEN_OVER: {**told, **({"budget": True} if budget else {})}}


def _fitted(row: LedgerRow, by: str) -> dict[str, Any]:
    return {"fitted_by": by, "finished_at": row.finished_at}
