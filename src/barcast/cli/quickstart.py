"""``barcast quickstart``."""

from __future__ import annotations

from typing import Annotated

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption


def quickstart(
    workspace: WorkspaceOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again even if it was done before.")] = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Go from bundled sample bars to a universal model, a model for each symbol, and who serves whom.

    Works in ./quickstart unless --workspace says otherwise.
    """
    import os
    from pathlib import Path

    from barcast.cli.route import print_routes
    from barcast.cli.show import print_compared, print_forecasts, print_json, print_next
    from barcast.core.interruption import signals_taken
    from barcast.core.memory import keep_freed_memory
    from barcast.core.progress import Progress
    from barcast.core.workspace import ENVIRONMENT_VARIABLE, Workspace
    from barcast.pipeline.quickstart import quickstart

    keep_freed_memory()
    place = Workspace.find(workspace or os.environ.get(ENVIRONMENT_VARIABLE) or Path("quickstart"))
    with signals_taken():
        result = quickstart(place, fresh=fresh, progress=Progress(enabled=not quiet))
    if json_output:
        print_json(result.plain())
        return
    print_compared(result.compared)
    print_routes(result.routed)
    print_forecasts(result.served, limit=10)
    typer.echo("\nreports, to open in a browser:")
    for name, path in (
        ("one model for all", result.report),
        ("a model for each", result.fleet.report),
        ("who serves whom", result.routed_report),
    ):
        typer.echo(f"  {name:<18}{path}")
    here = ["-w", os.path.relpath(place.root) if place.root.is_relative_to(Path.cwd()) else str(place.root)]
    print_next(
        [
            (
                ["compare", result.run.name, "--open-test", *here],
                "score the sealed test segment: honest once",
            ),
            (["predict", result.routed.run.name, *here], "the forecasts again, or of chosen --symbols"),
            (["fleet", "show", "AAPL", *here], "one symbol's own model: members, weights, evidence"),
            (["audit", result.run.name, *here], "does any value see beyond its session?"),
            (["data", "import", "--help"], "your own bars"),
        ]
    )
