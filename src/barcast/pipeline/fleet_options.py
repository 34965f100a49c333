"""What users say of a fleet, as words and files, turned into what fitting reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from barcast.core.config import load_toml
from barcast.core.cores import available_cores
from barcast.core.durations import parse_duration
from barcast.core.errors import UsageError
from barcast.core.workspace import Workspace
from barcast.fleet.executors import ExecutorName
from barcast.fleet.limits import Limits, parse_size
from barcast.pipeline.fleet import FleetHow
from barcast.pipeline.fleet_priority import check_priority
from barcast.store import MarketStore

#: Kinds of fleets.
KINDS = ("trees", "lstm", "gru")


def fleet_how(
    *, budget: str | float | None = None, time_per_symbol: float | None = None,
    max_memory: str | int | None = None, workers: int | None = None, batch_size: int = 0,
    executor: str = "processes", address: str = "", priority: str = "turnover",
) -> FleetHow:  # fmt: skip
    """Read what a fleet may take.

    Parameters
    ----------
    budget : str or float, optional
        ``30m``, ``1h30m``, or seconds.
    time_per_symbol : float, optional
        Seconds of computing.
    max_memory : str or int, optional
        ``8G``, ``800M``, or bytes.
    workers : int, optional
        By default one for each core that this process may use; of ``serial`` there is one.
    priority : str
        ``turnover``, ``length`` or a CSV file.

    Raises
    ------
    UsageError
        On a duration, size, number or file that makes no sense, or more than one worker of ``serial``.
    """
    cores = 1 if executor == "serial" else available_cores()
    if executor == "serial" and workers is not None and workers > 1:
        raise UsageError(
            f"--workers {workers} beside --executor serial, which fits in this process alone",
            "leave out --workers, or --executor processes",
        )
    if batch_size < 0:
        raise UsageError(
            f"--batch-size {batch_size}: a number of symbols", "--batch-size 50, or leave it out"
        )
    if time_per_symbol is not None and not time_per_symbol > 0:
        raise UsageError(f"--time-per-symbol {time_per_symbol}: seconds above 0", "--time-per-symbol 1.0")
    check_priority(priority)
    limits = Limits(
        workers=cores if workers is None else workers,
        budget=parse_duration(budget, "--budget") if isinstance(budget, str) else budget,
        time_per_symbol=time_per_symbol,
        max_memory=parse_size(max_memory, "--max-memory") if isinstance(max_memory, str) else max_memory,
    )
    return FleetHow(
        limits=limits, executor=cast(ExecutorName, executor), address=address, batch_size=batch_size,
        priority=priority,
    )  # fmt: skip


def fleet_model(kind: str) -> str:
    """Return the registered model of a kind of fleet.

    Raises
    ------
    UsageError
        On a kind that there is not.
    """
    if kind not in KINDS:
        raise UsageError(f"kind={kind!r}: no such fleet", f"choose one of {', '.join(KINDS)}")
    return f"fleet-{kind}"


def symbol_options(workspace: Workspace, file: Path) -> dict[str, dict[str, Any]]:
    """Read a file of options for single symbols: a table a symbol, in any spelling.

    Raises
    ------
    UsageError
        When there is no such file, or something in it is no table.
    SymbolError
        On a symbol that the store does not have.
    """
    return checked_symbol_options(workspace, load_toml(file), str(file))


def checked_symbol_options(
    workspace: Workspace, told: Mapping[str, Any], where: str
) -> dict[str, dict[str, Any]]:
    """Return options of single symbols by their names in the store; otherwise as :func:`symbol_options`."""
    for name, options in told.items():
        if not isinstance(options, Mapping):
            raise UsageError(
                f"{where}: `{name}` is no table", 'write ["600519.SH"] and the options of the symbol below it'
            )
    store = MarketStore.open(workspace.market)
    return {store.resolve((name,))[0]: dict(options) for name, options in told.items()}
