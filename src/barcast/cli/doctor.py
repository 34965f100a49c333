"""``barcast doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption, language

if TYPE_CHECKING:
    from barcast.core.workspace import Workspace


def doctor(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="Judge this run's learning and speed; none: the machine."),
    ] = None,
    workspace: WorkspaceOption = None,
    lang: Annotated[str, typer.Option(help="en or zh, for a run.")] = "en",
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what this machine has, or what is wrong with a run: its learning and its speed."""
    from barcast.core.workspace import Workspace

    spoken, place = language(lang), Workspace.find(workspace)
    if run is None:
        _machine(place, json_output)
        return
    from barcast.cli.diagnosis import print_diagnosis
    from barcast.cli.show import print_json
    from barcast.core.progress import Progress
    from barcast.core.runs import open_run
    from barcast.pipeline.diagnose import diagnose

    found = diagnose(place, open_run(place, run), progress=Progress(enabled=not quiet))
    print_json(found.plain()) if json_output else print_diagnosis(found, spoken)


def _machine(place: Workspace, json_output: bool) -> None:
    from barcast.cli.show import print_json, table
    from barcast.pipeline.doctor import examine

    findings = examine(place)
    if json_output:
        print_json([{"name": f.name, "found": f.found, "advice": f.advice} for f in findings])
        return
    table("barcast doctor", [("", "left"), ("found", "left"), ("advice", "left")],
          [(f.name, f.found, f.advice) for f in findings])  # fmt: skip
    if any(f.advice for f in findings):
        typer.echo("lines with advice are worth a look; nothing else is needed")
