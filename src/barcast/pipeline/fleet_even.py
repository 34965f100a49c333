"""Symbols that lighter presets were measured on get the one that was asked for, where the limits allow it.

Lighter fits are dropped when all others are there, and what they took is kept in the same transaction: a call
that is killed after it measures nothing anew, and ends with the same models as one that was not. A budget is
another matter: what it gave lighter presets, and what it measured, keeps them, whatever later calls may take;
so they are kept in fleets that take them over, where it keeps nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from barcast.core.config import to_plain
from barcast.core.progress import Progress
from barcast.core.texts import counted
from barcast.fleet.budget import only_measured
from barcast.fleet.calibrate import Measured
from barcast.fleet.ledger import Ledger
from barcast.fleet.ledger_rows import TAKEN_OVER
from barcast.fleet.limits import Limits

#: Names among the ledger's plain values: whether fits came since all was even, whether a budget ever chose
#: presets, and what fits took that were dropped.
_DUE, _BUDGET, _DROPPED = "uneven", "budget", "dropped"


def fits_begin(ledger: Ledger, *, budget: bool) -> None:
    """Note that fits come of which some may measure lighter presets, and whether a budget chooses them."""
    ledger.set_meta({_DUE: True, **({_BUDGET: True} if budget else {})})


def had_budget(meta: Mapping[str, Any]) -> bool:
    """Return whether a budget ever chose presets, by the plain values of a ledger."""
    return bool(meta.get(_BUDGET))


def take_history(ledger: Ledger, told: Mapping[str, Any]) -> None:
    """Note what an older ledger, by its plain values, knows of its lighter presets that are taken over.

    They are fitted again here as they would be there. Whether a budget keeps them is noted with each
    (`as_if_fitted_here`): it kept nobody that is fitted here.
    """
    own = ledger.meta()
    ledger.set_meta({name: told[name] for name in (_DUE, _DROPPED) if told.get(name) and not own.get(name)})


def dropped_fits(ledger: Ledger, settings: str) -> list[Measured]:
    """Return what fits took that were dropped here, as long as settings (a digest) are the same."""
    told = ledger.meta().get(_DROPPED, {})
    return [Measured(**each) for each in told["fits"]] if told.get("settings") == settings else []


def even_out(
    ledger: Ledger, ladder: Sequence[str], settings: str, limits: Limits, base_bytes: int, progress: Progress,
    only: frozenset[str] | None = None,
) -> bool:  # fmt: skip
    """Make those pending again that have a lighter preset only because it was measured on them.

    Parameters
    ----------
    ladder : sequence of str
        Presets, light to heavy; the last is the one that was asked for.
    settings : str
        Digest of what all fits share.
    base_bytes : int
        Memory of the process tree without workers.
    only : frozenset of str, optional
        Symbols of which this call fits any; others stay as they are.

    Returns
    -------
    bool
        Whether there are any.
    """
    told = ledger.meta()
    if not told.get(_DUE):
        return False
    rows = ledger.rows(status=["done"])
    kept = {row.symbol for row in rows if row.metrics.get(TAKEN_OVER, {}).get("budget")}
    known = [Measured.of_row(row) for row in rows]
    found = [] if had_budget(told) else only_measured(ladder, known, limits, base_bytes)
    found = [each for each in found if each.symbol not in kept and (only is None or each.symbol in only)]
    fits = {(each.symbol, each.preset): each for each in (*dropped_fits(ledger, settings), *found)}
    with ledger.together():
        ledger.set_meta({_DUE: False})
        if found:
            ledger.set_meta({_DROPPED: {"settings": settings, "fits": to_plain(list(fits.values()))}})
            ledger.reset([each.symbol for each in found])
    if found:
        progress.note(f"{counted(len(found), 'symbol')} measured with lighter presets get `{ladder[-1]}` too")
    return bool(found)
