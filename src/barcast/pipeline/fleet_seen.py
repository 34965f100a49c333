"""What is to be seen of a fleet that is there: how it stands, and one symbol's model.

Programs ask this often, of thousands of symbols, so nothing is imported that fits or forecasts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from barcast.core.config import to_plain
from barcast.core.errors import RunError
from barcast.core.runs import RunFolder, by_activity, list_runs, open_run
from barcast.core.workspace import Workspace
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.ledger_rows import STATUSES, LedgerRow
from barcast.pipeline.unfinished import DONE, RUNNING, going_on, run_status

#: Where run.json of a residual fleet names the universal run that it leans on.
LEANS_ON = "universal"
#: Over which a fleet at work is timed.
RECENT_SECONDS = 60.0


@dataclass(frozen=True)
class FleetStatus:
    """How a fleet stands.

    Attributes
    ----------
    run : str
    counts : dict of str to int
        Symbols by status: pending, running, done, failed, left_out. Fits that a kill or an error ended are
        pending.
    presets : dict of str to int
        Finished symbols by preset.
    seconds : float
        Of computing, all finished fits of this run together; not those that it took over.
    ledger_bytes : int
        On disk.
    rows : tuple of LedgerRow
        Symbol by symbol.
    universal : str
        Of a residual fleet the run that it leans on.
    rate : float
        Symbols a second over the last minute; 0 where nobody is at work.
    memory_bytes : int
        Most that a worker held.
    taken_over : dict of str to int
        How many finished models other runs fitted, by their names.
    resume : str
        What goes on with it; empty where somebody is at work, or there is nothing to go on with.
    """

    run: str
    counts: dict[str, int]
    presets: dict[str, int]
    seconds: float
    ledger_bytes: int
    rows: tuple[LedgerRow, ...]
    universal: str
    rate: float = 0.0
    memory_bytes: int = 0
    taken_over: dict[str, int] = field(default_factory=dict)
    resume: str = ""

    @property
    def seconds_left(self) -> float | None:
        """Seconds until nobody waits any more, at the rate of now; None where that is not known."""
        waiting = self.counts["pending"] + self.counts["running"]
        return waiting / self.rate if self.rate else None

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain: dict[str, Any] = to_plain(self)
        return plain


@dataclass(frozen=True)
class FleetSymbol:
    """One symbol of a fleet.

    Attributes
    ----------
    run : str
    row : LedgerRow
    weights : list of dict
        Evidence for the weights of its members, one a horizon; empty before they were weighed.
    slopes : list of dict
        Of a residual fleet why its forecast is believed as far as it is, one a horizon.
    """

    run: str
    row: LedgerRow
    weights: list[dict[str, Any]]
    slopes: list[dict[str, Any]]

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def fleet_run(workspace: Workspace, name: str = "") -> RunFolder:
    """Return the named fleet, or the one that was at work last, finished or not.

    Raises
    ------
    RunError
        When there is none, or the run is no fleet.
    """
    if name:
        run = open_run(workspace, name)
        if not (run.fleet / LEDGER).is_file():
            raise RunError(f"`{run.name}` is no fleet: it has no ledger", "name a fleet: barcast runs")
        return run
    found = by_activity([run for run in list_runs(workspace) if (run.fleet / LEDGER).is_file()])
    evaluations = [run for run in found if not run.info.get("final")]
    if not found:
        raise RunError("no fleet in this workspace", "barcast fleet trees")
    return (evaluations or found)[-1]


def fleet_status(workspace: Workspace, name: str = "", only: str | None = None) -> FleetStatus:
    """Return how a fleet stands; another process may be fitting it. ``only`` keeps the rows of a status."""
    run = fleet_run(workspace, name)
    with Ledger.open(run.fleet / LEDGER) as ledger:
        rows, size = tuple(ledger.rows()), ledger.size_bytes()
    status = run_status(run)
    if status != RUNNING:  # who began a fit died with it
        rows = tuple(replace(row, status="pending") if row.status == "running" else row for row in rows)
    counts = {str(each): 0 for each in STATUSES} | Counter(str(row.status) for row in rows)
    goes_on = status != RUNNING and (status != DONE or counts["pending"])
    done = [row for row in rows if row.status == "done"]
    presets = dict(Counter(row.preset for row in done))
    return FleetStatus(
        run.name, counts, presets,
        sum(row.seconds for row in done if not row.fitted_by), size,
        tuple(row for row in rows if only in (None, row.status)),
        run.recorded.get(LEANS_ON, {}).get("run", ""),
        _rate(rows) if status == RUNNING else 0.0,
        max((row.memory_bytes for row in rows), default=0),
        dict(Counter(row.fitted_by for row in done if row.fitted_by)),
        going_on(run) or "the same call in Python" if goes_on else "",
    )  # fmt: skip


def _rate(rows: Sequence[LedgerRow]) -> float:
    """Return how many symbols a second were fitted in the last minute."""
    now = datetime.now().astimezone()
    fitted = (row.finished_at for row in rows if not row.fitted_by)
    ended = [datetime.fromisoformat(each) for each in fitted if each]
    recent = [age for end in ended if (age := (now - end).total_seconds()) <= RECENT_SECONDS]
    return len(recent) / max(*recent, 1.0) if recent else 0.0


def fleet_symbol(workspace: Workspace, symbol: str, name: str = "") -> FleetSymbol:
    """Return what a fleet knows of one symbol, in any spelling.

    Raises
    ------
    SymbolError
        When the store does not have it.
    UsageError
        When the fleet does not have it.
    """
    from barcast.pipeline.fleet_residual import SLOPES
    from barcast.pipeline.fleet_weights import WEIGHTS
    from barcast.store import MarketStore

    run = fleet_run(workspace, name)
    (canonical,) = MarketStore.open(workspace.market).resolve((symbol,))
    with Ledger.open(run.fleet / LEDGER) as ledger:
        row = ledger.row(canonical)
        weights, slopes = (ledger.pooled(kind, canonical).get(canonical, []) for kind in (WEIGHTS, SLOPES))
        return FleetSymbol(run.name, row, weights, slopes)
