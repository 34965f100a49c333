"""Fleets in Python: a model of its own for each symbol, how it stands, one symbol's model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barcast.api.checked import checked
from barcast.api.places import Place, place_of
from barcast.core.progress import Progress

if TYPE_CHECKING:
    from barcast.fleet.budget import Plan
    from barcast.pipeline.fleet_seen import FleetStatus, FleetSymbol
    from barcast.pipeline.route import Routed
    from barcast.pipeline.train import Trained
    from barcast.pipeline.workflow import TrainedAndCompared


#: Options of ``train_fleet`` that say what a fleet may take.
_HOW = (
    "budget", "time_per_symbol", "max_memory", "workers", "batch_size", "unit_size", "executor", "address",
    "priority",
)  # fmt: skip


@checked
def train_fleet(
    *,
    kind: str = "trees",
    workspace: Place = None,
    config: Path | str | None = None,
    symbol_config: Path | str | Mapping[str, Mapping[str, Any]] | None = None,
    budget: str | float | None = None,
    time_per_symbol: float | None = None,
    max_memory: str | int | None = None,
    workers: int | None = None,
    batch_size: int = 0,
    unit_size: int = 0,
    executor: str = "processes",
    address: str = "",
    priority: str = "turnover",
    final: bool = False,
    fresh: bool = False,
    open_test: bool = False,
    report: bool = True,
    progress: bool = False,
    **options: Any,
) -> TrainedAndCompared:
    """Fit a model for each symbol that has the rows for it, compare it and write the report.

    Trackers of ``barcast.toml`` follow it.

    Parameters
    ----------
    kind : str
        ``trees``, ``lstm`` or ``gru``.
    symbol_config : path or mapping, optional
        Options of single symbols: ``{"600519.SH": {"min_rows": 300, "xgboost": {"max_depth": 3}}}``.
    budget : str or float, optional
        For all fits: ``"30m"``, or seconds. What does not fit gets a lighter preset or none.
    time_per_symbol : float, optional
        Seconds of computing that one symbol may take.
    max_memory : str or int, optional
        Of all processes together: ``"8G"``, or bytes.
    workers : int, optional
        By default one a core.
    batch_size : int
        Of trees the symbols a worker is handed at a time (0: as their seconds ask for), of networks the
        labels a step (0: the preset's).
    unit_size : int
        Of networks the symbols that a worker trains together; 0: 128.
    executor : str
        ``serial``, ``processes`` or ``ray`` (with ``address`` of a cluster).
    priority : str
        Who comes first where not all can be served: ``turnover``, ``length`` or a CSV file.
    **options
        As the command's flags: ``preset``, ``features``, ``horizons``, ``symbols``, ``min_rows``, ...

    Raises
    ------
    UsageError
        On options that there are not, or values that make no sense.
    DataError
        When no symbol can be given a model of its own.
    """
    from barcast.pipeline.tracked import train_tracked
    from barcast.tracking.registry import open_mirror

    place, how, resolved = _asked(
        kind, workspace, config, symbol_config, options, budget=budget, time_per_symbol=time_per_symbol,
        max_memory=max_memory, workers=workers, batch_size=batch_size, unit_size=unit_size,
        executor=executor, address=address, priority=priority,
    )  # fmt: skip
    return train_tracked(
        place, resolved, open_mirror(place), final=final, fresh=fresh, open_test=open_test, report=report,
        progress=Progress(enabled=progress), fleet=how,
    )  # fmt: skip


@checked
def plan_fleet(
    *,
    kind: str = "trees",
    workspace: Place = None,
    config: Path | str | None = None,
    symbol_config: Path | str | Mapping[str, Mapping[str, Any]] | None = None,
    progress: bool = False,
    **options: Any,
) -> list[Plan]:
    """Fit a few symbols, which are kept, and return what the rest takes: options as of ``train_fleet``."""
    from barcast.pipeline.fleet_verbs import plan_fleet as plan

    takes = {name: options.pop(name) for name in _HOW if name in options}
    place, how, resolved = _asked(kind, workspace, config, symbol_config, options, **takes)
    return plan(place, resolved, how, Progress(enabled=progress))


@checked
def fleet_status(run: str = "", *, workspace: Place = None, only: str | None = None) -> FleetStatus:
    """Return how a fleet stands, by default the newest; ``only`` keeps the rows of a status."""
    from barcast.pipeline.fleet_seen import fleet_status as status

    return status(place_of(workspace), run, only)


@checked
def fleet_symbol(symbol: str, run: str = "", *, workspace: Place = None) -> FleetSymbol:
    """Return what a fleet knows of one symbol: its model's members, their errors, weights and evidence."""
    from barcast.pipeline.fleet_seen import fleet_symbol as show

    return show(place_of(workspace), symbol, run)


@checked
def retry_failed(
    run: str = "", *, workspace: Place = None, workers: int | None = None, progress: bool = False
) -> Trained:
    """Fit once more what failed in a fleet, with the limits of before; what is finished stays."""
    from barcast.pipeline.fleet_verbs import retry_failed as retry

    return retry(place_of(workspace), run, workers=workers, progress=Progress(enabled=progress))[0]


@checked
def route(
    universal: str = "", fleet: str = "", policy: str = "evidence", *, workspace: Place = None,
    export: Path | str | None = None, progress: bool = False,
) -> Routed:  # fmt: skip
    """Let each symbol be served by its own model where the evidence is for it, else by the universal one.

    Parameters
    ----------
    universal, fleet : str
        Runs; by default the fleet finished last whose question a universal run asks too, and the last of
        these.
    policy : str
        ``evidence``, ``prefer-dedicated`` or ``universal``.
    export : path, optional
        CSV file of who serves whom, and why.

    Raises
    ------
    RunError
        When there are no such runs, or they learned or ask different things.
    """
    from barcast.pipeline.route import checked_policy, route_runs, write_routes
    from barcast.pipeline.route_pair import runs_to_route

    place = place_of(workspace)
    first, second = runs_to_route(place, universal, fleet)
    found = route_runs(place, first, second, checked_policy(policy), progress=Progress(enabled=progress))
    if export is not None:
        write_routes(found.routes, Path(export))
    return found


def _asked(
    kind: str, workspace: Place, config: Path | str | None,
    symbol_config: Path | str | Mapping[str, Mapping[str, Any]] | None, options: dict[str, Any], **how: Any,
) -> Any:  # fmt: skip
    from barcast.pipeline.fleet_options import checked_symbol_options, fleet_how, fleet_model, symbol_options
    from barcast.pipeline.settings import resolve

    model = fleet_model(kind)
    place, unit_size = place_of(workspace), how.pop("unit_size", 0)
    if kind != "trees":
        options["batch_size"], how["batch_size"] = how.pop("batch_size", 0) or None, unit_size
    if isinstance(symbol_config, Mapping):
        options["symbol_options"] = checked_symbol_options(place, symbol_config, "symbol_config")
    elif symbol_config is not None:
        options["symbol_options"] = symbol_options(place, Path(symbol_config))
    resolved = resolve(place, model, options, None if config is None else Path(config))
    return place, fleet_how(**how), resolved
