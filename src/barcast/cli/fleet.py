"""``barcast fleet``: a model of its own for each symbol that has the rows for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli import fleet_cv, fleet_stored, fleet_train
from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption

if TYPE_CHECKING:
    from barcast.fleet.ledger_rows import LedgerRow
    from barcast.pipeline.fleet_seen import FleetStatus, FleetSymbol

app = typer.Typer(no_args_is_help=True, help="A model of its own for each symbol: thousands inside a budget.")

RunOption = Annotated[str, typer.Option("--run", help="A fleet by name; default: the newest.")]
_STATUSES = ("done", "failed", "left_out", "pending", "running")


for _name, _command in {**fleet_train.COMMANDS, **fleet_stored.COMMANDS, **fleet_cv.COMMANDS}.items():
    app.command(_name)(_command)


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
    from barcast.pipeline.fleet_seen import fleet_status

    if only not in (None, *_STATUSES):
        raise UsageError(f"--only {only}: no status", f"choose one of {', '.join(_STATUSES)}")
    found = fleet_status(Workspace.find(workspace), run, only)
    print_json(found.plain()) if json_output else _print_status(found, only)


def _print_status(found: FleetStatus, only: str | None) -> None:
    from barcast.cli.show import table
    from barcast.core.progress import clock
    from barcast.fleet.limits import size_text

    counts = ", ".join(f"{num:,} {name}" for name, num in found.counts.items() if num)
    typer.echo(f"{found.run}: {counts or 'no symbol has begun yet'}")
    if found.resume:
        typer.echo(f"nobody is at work; goes on where it was: {found.resume}")
    presets = ", ".join(f"{num:,} {name}" for name, num in found.presets.items())
    if found.universal:
        typer.echo(f"on the residual: forecasts are those of {found.universal}, corrected")
    size = size_text(found.ledger_bytes)
    typer.echo(f"presets: {presets or '-'}; {clock(found.seconds)} of computing, {size} on disk")
    if found.taken_over:
        told = ", ".join(f"{num:,} of {name}" for name, num in found.taken_over.items())
        typer.echo(f"taken over as they were fitted before: {told}")
    if found.seconds_left is not None:
        typer.echo(
            f"at work: {found.rate:.1f} symbols a second over the last minute, about "
            f"{clock(found.seconds_left)} left; a worker held at most {size_text(found.memory_bytes)}"
        )
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
    from barcast.pipeline.fleet_seen import fleet_symbol

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
        f"{(row.model_bytes + row.native_bytes) / 1000:.0f} kB, finished {row.fitted_at}"
        + (f" in {row.fitted_by}" if row.fitted_by else "")
    )
    for slope in found.slopes:
        _print_slope(slope)
    if "horizons" not in row.metrics:
        _print_network(row.metrics)
        return
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


def _print_slope(found: Mapping[str, Any]) -> None:
    def number(name: str) -> str:
        return "-" if found[name] is None else f"{found[name]:+.3f}"

    industry = f"{found['industry'] or 'industry'} {number('industry_slope')}"
    typer.echo(
        f"  corrects the universal forecast, times {found['slope']:.3f}: own slope {number('own')}, believed "
        f"{found['strength']:.0%} (market {number('market_slope')}, {industry})"
    )


def _print_network(found: Mapping[str, Any]) -> None:
    from barcast.core.texts import counted

    score = found["stop_score"]
    judged = "no `stop` to judge it" if score is None else f"R2 on `stop` {score:+.4f}"
    typer.echo(
        f"  width {found['hidden_size']}, {counted(found['num_layers'], 'layer')}; {found['epochs']} epochs, "
        f"best after {found['best_epoch']}: {judged}"
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
    workers: Annotated[int | None, typer.Option(help="Processes that fit (as many as before).")] = None,
    workspace: WorkspaceOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fit once more what failed, with the limits of before; what is finished stays."""
    from barcast.core.interruption import signals_taken
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.fleet_verbs import retry_failed as retry

    with signals_taken():
        trained, again = retry(
            Workspace.find(workspace),
            run,
            workers=workers,
            progress=Progress(enabled=not quiet),
        )
    typer.echo(f"{len(again):,} symbols tried again in {trained.run.name}")
