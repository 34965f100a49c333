"""``barcast route``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption

if TYPE_CHECKING:
    from barcast.pipeline.route import Routed

_SHOWN = 10


def route(
    universal: Annotated[str, typer.Argument(help="Run of a universal model; none: the newest.")] = "",
    fleet: Annotated[str, typer.Argument(help="Run of a fleet; none: the newest.")] = "",
    policy: Annotated[
        str, typer.Option("--route", help="evidence, prefer-dedicated or universal.")
    ] = "evidence",
    export: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write who serves whom, and why.")
    ] = None,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Let each symbol be served by its own model where the evidence is for it, else by the universal one."""
    from barcast.cli.show import print_json
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.route import checked_policy, route_runs, runs_to_route, write_routes

    place, chosen = Workspace.find(workspace), checked_policy(policy)
    first, second = runs_to_route(place, universal, fleet)
    found = route_runs(place, first, second, chosen, progress=Progress(enabled=not quiet))
    if export is not None:
        write_routes(found.routes, export)
    print_json(found.plain()) if json_output else _print(found, quiet)


def _print(found: Routed, quiet: bool) -> None:
    from barcast.cli.show import table

    for horizon, counts in found.counts().items():
        total = sum(counts.values())
        typer.echo(
            f"{found.run.name}, horizon {horizon}: {counts.get('dedicated', 0):,} of {total:,} symbols are "
            f"served by {found.fleet}, the others by {found.universal}"
        )
    if not quiet:
        best = found.routes.filter(decision="dedicated").sort("posterior_mean", descending=True).head(_SHOWN)
        rest = found.routes.filter(decision="universal").sort("probability", descending=True, nulls_last=True)
        columns = [("symbol", "left"), ("horizon", "right"), ("served by", "left"), ("gain", "right"),
                   ("expected", "right"), ("P(gain)", "right"), ("why", "left")]  # fmt: skip
        lines = [*best.iter_rows(named=True), *rest.head(_SHOWN - len(best) // 2).iter_rows(named=True)]
        table("who serves whom", columns, [_row(line) for line in lines])
    typer.echo("decided on `route`, whose scores flatter it; on `test` it is judged once:")
    typer.echo(f"next: barcast compare {found.run.name} {found.universal} {found.fleet} --open-test")


def _row(line: dict[str, object]) -> tuple[str, ...]:
    def number(value: object, form: str) -> str:
        return format(value, form) if isinstance(value, float) and value == value else "-"

    return (
        str(line["symbol"]), str(line["horizon"]), str(line["decision"]), number(line["gain"], "+.4f"),
        number(line["posterior_mean"], "+.4f"), number(line["probability"], ".0%"), str(line["reason"]),
    )  # fmt: skip
