"""``barcast report``."""

from __future__ import annotations

from typing import Annotated

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption


def report(
    name: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Run; none: the newest finished one.")
    ] = None,
    workspace: WorkspaceOption = None,
    open_test: Annotated[
        bool, typer.Option("--open-test", help="Open the sealed test segment; every opening is counted.")
    ] = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a run's report.html again: scores, pictures, next-session forecasts."""
    from barcast.cli.show import print_json
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.predict import newest_run
    from barcast.pipeline.workflow import report_again

    place = Workspace.find(workspace)
    progress = Progress(enabled=not quiet)
    path = report_again(place, newest_run(place, name), open_test=open_test, progress=progress)
    print_json({"report": str(path)}) if json_output else typer.echo(str(path))
