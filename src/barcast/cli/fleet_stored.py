"""``barcast fleet decay | refresh | export``: what is asked of models that are stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption

if TYPE_CHECKING:
    from barcast.pipeline.fleet_decay import FleetDecay
    from barcast.pipeline.fleet_export import Exported
    from barcast.pipeline.fleet_refresh import Refreshed

_ServingOption = Annotated[
    str, typer.Option("--run", help="A fleet by name; default: the newest, or the refit that serves for it.")
]
#: Lines of a table; --json has them all.
_SHOWN = 30


def decay(
    run: _ServingOption = "",
    since: Annotated[
        str, typer.Option(help="First session watched (2024-03-08); default: all since training.")
    ] = "",
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say whether stored models lost their skill since training, and whose did; decay is no failure."""
    from barcast.cli.show import print_json
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.fleet_decay import fleet_decay

    found = fleet_decay(Workspace.find(workspace), run, since=since, progress=Progress(enabled=not quiet))
    print_json(found.plain()) if json_output else _print_decay(found)


def _print_decay(found: FleetDecay) -> None:
    until = f"to {found.until}" if found.until else "on (none known yet)"
    typer.echo(
        f"{found.run}: sessions from {found.since} {until} against "
        f"{' and '.join(found.segments)} of {found.reference}"
    )
    if not found.reports:
        typer.echo(f"no outcome is known yet of any session from {found.since} on")
        typer.echo("next: barcast data update FILES")
        return
    for horizon, report in found.reports.items():
        typer.echo(f"horizon {horizon}:")
        charts = [chart for of in report.cohorts.values() for chart in of]
        told = [*found.sentences(horizon)[:1], *_told_of(found, horizon)]
        for sentence in told:
            typer.echo(f"  {sentence}")
        quiet = sum(chart.alarm is None and not chart.reason for chart in charts)
        typer.echo(f"  {quiet:,} of {len(charts):,} cohorts without a sign of decay")
    _print_named(found)


def _told_of(found: FleetDecay, horizon: int) -> list[str]:
    """Return what the report tells after the whole, but for the symbols, which have a table."""
    named = {each.sentence for each in found.reports[horizon].naming.named}
    return [sentence for sentence in found.sentences(horizon)[1:] if sentence not in named]


def _print_named(found: FleetDecay) -> None:
    from barcast.cli.show import table

    judged = {horizon: report.naming.num_judged for horizon, report in found.reports.items()}
    rate = next(iter(found.reports.values())).naming.rate
    named = found.named()
    typer.echo(
        f"{len(named):,} symbols' own models decayed, of {max(judged.values()):,} with enough sessions "
        f"to judge; at most {rate:.0%} of those named are named in vain"
    )
    if not named:
        return
    columns = [("symbol", "left"), ("horizon", "right"), ("gain before", "right"), ("since", "right"),
               ("effect", "right"), ("q", "right")]  # fmt: skip
    lines = [
        (symbol, horizon, f"{each.before:+.4f}", f"{each.since:+.4f}", f"{each.effect:.2f}",
         f"{each.q_value:.2g}")
        for symbol, horizons in named.items()
        for horizon, each in horizons.items()
    ]  # fmt: skip
    table("whose models decayed", columns, lines[:_SHOWN])
    if len(lines) > _SHOWN:
        typer.echo(f"and {len(lines) - _SHOWN:,} more: --json")
    typer.echo(f"next: barcast fleet refresh --named --run {found.run}")


def refresh(
    symbols: Annotated[list[str] | None, typer.Argument(help="Symbols, in any spelling.")] = None,
    run: _ServingOption = "",
    named: Annotated[bool, typer.Option("--named", help="Those whose models decayed.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes that fit (one a core).")] = None,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit symbols again on everything known now, in a refit that takes over the models of all others."""
    from barcast.cli.show import print_json
    from barcast.core.interruption import signals_taken
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.fleet_refresh import fleet_refresh

    with signals_taken():
        found = fleet_refresh(
            Workspace.find(workspace), tuple(symbols or ()), run, named=named,
            workers=workers, progress=Progress(enabled=not quiet),
        )  # fmt: skip
    print_json(found.plain()) if json_output else _print_refreshed(found)


def _print_refreshed(found: Refreshed) -> None:
    if found.run == found.of:
        typer.echo(f"nobody's model in {found.run} decayed: nothing to fit again")
        return
    typer.echo(f"{found.run}: {found.num_taken_over:,} taken over, {len(found.fitted):,} fitted again")
    if found.num_taken_over:
        typer.echo(f"  the oldest of them was taught by labels known until {found.oldest_taught_until}")
    for symbol, reason in found.not_fitted.items():
        typer.echo(f"  {symbol} has no model now: {reason}")
    typer.echo("it serves from now on: barcast predict")


def export(
    symbol: Annotated[str, typer.Argument(help="A symbol, in any spelling.")],
    to: Annotated[
        Path, typer.Option(metavar="FILE", help="FILE.zip (native), FILE.safetensors or FILE.onnx.")
    ],
    run: _ServingOption = "",
    kind: Annotated[
        str, typer.Option("--format", help="native, safetensors or onnx; default: as the file ends.")
    ] = "",
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Write one symbol's model to a file that other programs read."""
    from barcast.cli.show import print_json
    from barcast.core.workspace import Workspace
    from barcast.pipeline.fleet_export import fleet_export

    found = fleet_export(Workspace.find(workspace), symbol, to, run, kind)
    print_json(found.plain()) if json_output else _print_exported(found)


def _print_exported(found: Exported) -> None:
    typer.echo(f"{found.path}: {found.symbol} of {found.run}: {', '.join(found.files)}")
    typer.echo(f"  taught by labels known until {found.taught_until}")
    if found.served_by != found.run:
        typer.echo(
            f"  barcast predict serves by {found.served_by}: --run {found.served_by} takes out its model"
        )
    typer.echo(f"  reads {', '.join(found.inputs)}; normalised as for the run")
    if found.booster_inputs != found.inputs:
        typer.echo(f"  files of xgboost and lightgbm read {', '.join(found.booster_inputs)}")
    for how in found.loaded:
        typer.echo(f"  {how}")


COMMANDS: dict[str, Callable[..., None]] = {"decay": decay, "refresh": refresh, "export": export}
