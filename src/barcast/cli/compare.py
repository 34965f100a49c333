"""``barcast compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption, language, words


def compare(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="Runs; none: every finished run that fits.")
    ] = None,
    workspace: WorkspaceOption = None,
    segments: Annotated[str, typer.Option(help="Segments to score freely: weigh, route.")] = "route",
    open_test: Annotated[
        bool, typer.Option("--open-test", help="Open the sealed test segment; every opening is counted.")
    ] = False,
    lang: Annotated[str, typer.Option(help="en or zh.")] = "en",
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare runs with naive rows and ridge on the rows that all of them cover."""
    from barcast.cli.show import print_compared, print_json
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.compare import compare_runs, runs_to_compare

    spoken = language(lang)
    place = Workspace.find(workspace)
    progress = Progress(enabled=not quiet)
    compared = compare_runs(
        place,
        runs_to_compare(place, names or [], progress=progress),
        segments=words(segments) or ("route",),
        open_test=open_test,
        progress=progress,
    )
    if json_output:
        print_json([comparison.to_plain() for comparison in compared.comparisons])
    else:
        print_compared(compared, spoken)
