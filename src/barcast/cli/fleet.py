"""``barcast fleet``: a model of its own for each symbol that has the rows for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption, numbers, words

if TYPE_CHECKING:
    from barcast.fleet.ledger_rows import LedgerRow
    from barcast.pipeline.fleet_verbs import FleetStatus, FleetSymbol

app = typer.Typer(no_args_is_help=True, help="A model of its own for each symbol: thousands inside a budget.")

RunOption = Annotated[str, typer.Option("--run", help="A fleet by name; default: the newest.")]
_STATUSES = ("done", "failed", "left_out", "pending", "running")


@app.command("trees")
def trees(
    preset: Annotated[
        str | None, typer.Option(help="extreme, fast, standard (default), high or published.")
    ] = None,
    features: Annotated[str | None, typer.Option(help="Feature set (core12).")] = None,
    horizons: Annotated[
        str | None, typer.Option("--horizon", help="Sessions from entry to exit; several: 1,5,20.")
    ] = None,
    delay: Annotated[int | None, typer.Option(help="Sessions from decision to entry.")] = None,
    segments: Annotated[
        str | None, typer.Option(help="Last days of fit,stop,weigh,route,test: 2022-12,2023-04,...")
    ] = None,
    symbols: Annotated[str | None, typer.Option(help="Only these symbols, separated by commas.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many symbols.")] = None,
    asof: Annotated[str | None, typer.Option(help="Last session that may be known: 2024-03-08.")] = None,
    target: Annotated[
        str | None, typer.Option(help="auto, rank, return, volatility_scaled or direction.")
    ] = None,
    min_rows: Annotated[
        int | None, typer.Option(help="Fewest training rows of a model of its own (500).")
    ] = None,
    symbol_config: Annotated[
        Path | None, typer.Option(help="TOML file with a table of options for each symbol that differs.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file with tables data and fleet-trees.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time for all fits: 30m, 1h30m, 90s.")] = None,
    time_per_symbol: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Most computing that one symbol may take.")
    ] = None,
    max_memory: Annotated[str | None, typer.Option(help="Of all processes together: 8G, 800M.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that fit (one a core).")] = None,
    batch_size: Annotated[
        int, typer.Option(help="Symbols a worker is handed at a time; 0: as their seconds ask for.")
    ] = 0,
    executor: Annotated[str, typer.Option(help="serial, processes or ray.")] = "processes",
    address: Annotated[str, typer.Option(help="Of a Ray cluster; default: one on this machine.")] = "",
    priority: Annotated[
        str, typer.Option(help="Who comes first: turnover, length or a CSV file with symbol,value.")
    ] = "turnover",
    final: Annotated[bool, typer.Option("--final", help="Refit on everything known as well.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, whatever is there.")] = False,
    open_test: Annotated[bool, typer.Option("--open-test", help="Score the sealed test segment.")] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write the HTML report.")] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Fit a few symbols, which are kept; plan the rest."),
    ] = False,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit a forest, XGBoost and LightGBM for each symbol, averaged by their evidence; resumes by default."""
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.fleet_options import fleet_how, symbol_options
    from barcast.pipeline.settings import resolve

    place = Workspace.find(workspace)
    flags: dict[str, Any] = {
        "preset": preset, "features": features, "horizons": numbers(horizons, "--horizon"), "delay": delay,
        "segments": words(segments), "symbols": words(symbols), "limit": limit, "asof": asof,
        "target": target, "min_rows": min_rows, "seed": seed,
        "symbol_options": None if symbol_config is None else symbol_options(place, symbol_config),
    }  # fmt: skip
    how = fleet_how(
        budget=budget, time_per_symbol=time_per_symbol, max_memory=max_memory, workers=workers,
        batch_size=batch_size, executor=executor, address=address, priority=priority,
    )  # fmt: skip
    resolved = resolve(place, "fleet-trees", flags, config)
    if dry_run:
        _plan(place, resolved, how, Progress(enabled=not quiet), json_output)
        return
    from barcast.cli.train import run_training
    from barcast.tracking.registry import open_mirror

    mirror = open_mirror(place, None, project=None, team=None, online=False)
    asked = {"final": final, "fresh": fresh, "open_test": open_test, "report": report}
    run_training(place, resolved, {**asked, "mirror": mirror, "fleet": how}, json_output, quiet)


def _plan(place: Any, config: Any, how: Any, progress: Any, json_output: bool) -> None:
    from barcast.cli.show import echo_config, print_json
    from barcast.core.interruption import signals_taken
    from barcast.pipeline.fleet_verbs import plan_fleet

    echo_config(config.plain(), progress)
    with signals_taken():
        plans = plan_fleet(place, config, how, progress)
    if json_output:
        print_json([plan.plain() for plan in plans])
        return
    for plan in plans:
        for line in plan.render():
            typer.echo(line)


@app.command("status")
def status(
    run: RunOption = "",
    only: Annotated[str | None, typer.Option(help="done, failed, left_out, pending or running.")] = None,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Say how a fleet stands, symbol by symbol with --json; a fleet at work may be asked too."""
    from barcast.cli.show import print_json
    from barcast.core.errors import UsageError
    from barcast.core.workspace import Workspace
    from barcast.pipeline.fleet_verbs import fleet_status

    if only not in (None, *_STATUSES):
        raise UsageError(f"--only {only}: no status", f"choose one of {', '.join(_STATUSES)}")
    found = fleet_status(Workspace.find(workspace), run, only)
    print_json(found.plain()) if json_output else _print_status(found, only)


def _print_status(found: FleetStatus, only: str | None) -> None:
    from barcast.cli.show import table
    from barcast.core.progress import clock
    from barcast.fleet.limits import size_text

    typer.echo(f"{found.run}: " + ", ".join(f"{num:,} {name}" for name, num in found.counts.items() if num))
    presets = ", ".join(f"{num:,} {name}" for name, num in found.presets.items())
    size = size_text(found.ledger_bytes)
    typer.echo(f"presets: {presets or '-'}; {clock(found.seconds)} of computing, {size} on disk")
    if only is not None:
        columns = [("symbol", "left"), ("preset", "left"), ("rows", "right"), ("seconds", "right"),
                   ("tries", "right"), ("reason", "left")]  # fmt: skip
        table(only.replace("_", " "), columns, [_row(row) for row in found.rows])
        return
    reasons: dict[str, list[str]] = {}
    for row in found.rows:
        if row.status in ("failed", "left_out"):
            reasons.setdefault(f"{row.status}: {row.reason.partition(':')[0]}", []).append(row.symbol)
    for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
        typer.echo(f"  {len(names):>7,} {reason.replace('_', ' ')}, e.g. {', '.join(names[:3])}")
    if found.counts.get("failed"):
        typer.echo("next: barcast fleet status --only failed; barcast fleet retry-failed")


def _row(row: LedgerRow) -> tuple[str, ...]:
    return row.symbol, row.preset, f"{row.num_rows:,}", f"{row.seconds:.2f}", str(row.attempts), row.reason


@app.command("show")
def show(
    symbol: Annotated[str, typer.Argument(help="A symbol, in any spelling.")],
    run: RunOption = "",
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show the model of one symbol: its members, their errors, weights and the evidence for them."""
    from barcast.cli.show import print_json
    from barcast.core.workspace import Workspace
    from barcast.pipeline.fleet_verbs import fleet_symbol

    found = fleet_symbol(Workspace.find(workspace), symbol, run)
    print_json(found.plain()) if json_output else _print_symbol(found)


def _print_symbol(found: FleetSymbol) -> None:
    from barcast.cli.show import table

    row = found.row
    typer.echo(f"{row.symbol} in {found.run}: {row.status.replace('_', ' ')}")
    if row.reason:
        typer.echo(f"  {row.reason}" + (f" -> {row.todo}" if row.todo else ""))
    if row.status != "done":
        return
    typer.echo(
        f"  preset {row.preset}, {row.num_rows:,} training rows, {row.seconds:.2f} s, "
        f"{(row.model_bytes + row.native_bytes) / 1000:.0f} kB, finished {row.finished_at}"
    )
    columns = [("member", "left"), ("trees", "right"), ("RMSE on stop", "right"), ("on weigh", "right"),
               ("log score", "right"), ("own weight", "right"), ("weight", "right")]  # fmt: skip
    for place, horizon in enumerate(row.metrics["horizons"]):
        evidence = found.weights[place] if found.weights else None
        names = evidence["members"] if evidence else list(horizon["members"])
        table("members", columns, [_member(name, horizon, evidence) for name in names])
        if evidence:
            typer.echo(
                f"  own evidence counts {evidence['strength']:.0%}, {evidence['num_rows']} rows in "
                f"{evidence['num_blocks']} blocks; log score over equal weights {evidence['gain']:+.4f} a row"
            )


def _member(name: str, horizon: dict[str, Any], evidence: dict[str, Any] | None) -> tuple[str, ...]:
    own = horizon["members"].get(name) or (horizon["zero"] if name == "zero" else {})

    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    weighed = ["-"] * 3
    if evidence is not None:
        at = evidence["members"].index(name)
        weighed = [number(evidence["log_score"][at], ".2f"), number(evidence["own"][at], ".3f"),
                   number(evidence["weights"][at], ".3f")]  # fmt: skip
    return (
        name, str(own.get("trees", "-")), number(own.get("rmse_stop"), ".4f"),
        number(own.get("rmse_weigh"), ".4f"), *weighed,
    )  # fmt: skip


@app.command("retry-failed")
def retry_failed(
    run: RunOption = "",
    workers: Annotated[int | None, typer.Option(help="Processes that fit (one a core).")] = None,
    workspace: WorkspaceOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fit once more what failed; what is finished stays."""
    from barcast.core.interruption import signals_taken
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.fleet_options import fleet_how
    from barcast.pipeline.fleet_verbs import retry_failed as retry

    with signals_taken():
        trained, again = retry(
            Workspace.find(workspace),
            run,
            how=fleet_how(workers=workers),
            progress=Progress(enabled=not quiet),
        )
    typer.echo(f"{len(again):,} symbols tried again in {trained.run.name}")
