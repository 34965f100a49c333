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
    universal: Annotated[str, typer.Argument(help="Universal run; none: the last that fits.")] = "",
    fleet: Annotated[str, typer.Argument(help="Run of a fleet; none: the last that fits.")] = "",
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
    from barcast.pipeline.route import checked_policy, route_runs, write_routes
    from barcast.pipeline.route_pair import runs_to_route

    place, chosen = Workspace.find(workspace), checked_policy(policy)
    first, second = runs_to_route(place, universal, fleet)
    found = route_runs(place, first, second, chosen, progress=Progress(enabled=not quiet))
    if export is not None:
        write_routes(found.routes, export)
    if json_output:
        print_json(found.plain())
        return
    print_routes(found, with_table=not quiet)
    if not any("dedicated" in counts for counts in found.counts().values()):
        typer.echo(f"nobody leaves: {found.run.name} is {found.universal} itself, there is nothing to judge")
        return
    typer.echo("decided on `route`, whose scores flatter it; on `test` it is judged once:")
    typer.echo(f"next: barcast compare {found.run.name} {found.universal} {found.fleet} --open-test")


def print_routes(found: Routed, *, with_table: bool = True) -> None:
    """Print how many symbols each model serves, and of some, or of all where they are few, why."""
    import polars as pl

    from barcast.cli.show import table

    for horizon, counts in found.counts().items():
        total = sum(counts.values())
        typer.echo(
            f"{found.run.name}, horizon {horizon}: {counts.get('dedicated', 0):,} of {total:,} symbols are "
            f"served by {found.fleet}, the others by {found.universal}"
        )
    if with_table:
        best, rest = (
            found.routes.filter(decision=server).sort(by, "gain", descending=True, nulls_last=True)
            for server, by in (("dedicated", "posterior_mean"), ("universal", "probability"))
        )
        if len(found.routes) > 2 * _SHOWN:
            best, rest = best.head(_SHOWN), rest.head(_SHOWN - min(len(best), _SHOWN) // 2)
        columns = [("symbol", "left"), ("horizon", "right"), ("served by", "left"), ("gain", "right"),
                   ("expected", "right"), ("P(gain)", "right"), ("why", "left")]  # fmt: skip
        lines = pl.concat([best, rest]).iter_rows(named=True)
        table("who serves whom, those with most to gain first", columns, [_row(line) for line in lines])
        hidden = len(found.routes) - len(best) - len(rest)
        typer.echo(
            "gain: squared error saved a row, in variances of the universal forecast"
            + (f"; {hidden:,} more: --export FILE.csv" if hidden else "")
        )


def _row(line: dict[str, object]) -> tuple[str, ...]:
    def number(value: object, form: str) -> str:
        return format(value, form) if isinstance(value, float) and value == value else "-"

    return (
        str(line["symbol"]), str(line["horizon"]), str(line["decision"]), number(line["gain"], "+.4f"),
        number(line["posterior_mean"], "+.4f"), number(line["probability"], ".0%"), str(line["reason"]),
    )  # fmt: skip
