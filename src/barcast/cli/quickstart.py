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
    """Go from bundled sample bars to a trained, compared, predicting model and its report.

    Works in ./quickstart unless --workspace says otherwise.
    """
    import os
    from pathlib import Path

    from barcast.cli.show import print_compared, print_forecasts, print_json
    from barcast.core.memory import keep_freed_memory
    from barcast.core.progress import Progress
    from barcast.core.workspace import ENVIRONMENT_VARIABLE, Workspace
    from barcast.pipeline.workflow import quickstart

    keep_freed_memory()
    place = Workspace.find(workspace or os.environ.get(ENVIRONMENT_VARIABLE) or Path("quickstart"))
    result = quickstart(place, fresh=fresh, progress=Progress(enabled=not quiet))
    if json_output:
        print_json(result.plain())
        return
    print_compared(result.compared)
    if result.forecasts:
        print_forecasts(result.forecasts, limit=10)
    typer.echo(f"\nreport: {result.report}")
    typer.echo(
        f"next: open it in a browser, or use your own bars: barcast data import --help (in {place.root})"
    )
