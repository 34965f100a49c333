"""``barcast doctor``."""

from __future__ import annotations

import typer

from barcast.cli.app_options import JsonOption, WorkspaceOption


def doctor(workspace: WorkspaceOption = None, json_output: JsonOption = False) -> None:
    """Say what this machine has: versions, cores, bf16, memory, disk, GPU, caches."""
    from barcast.cli.show import print_json, table
    from barcast.core.workspace import Workspace
    from barcast.pipeline.doctor import examine

    findings = examine(Workspace.find(workspace))
    if json_output:
        print_json([{"name": f.name, "found": f.found, "advice": f.advice} for f in findings])
        return
    table("barcast doctor", [("", "left"), ("found", "left"), ("advice", "left")],
          [(f.name, f.found, f.advice) for f in findings])  # fmt: skip
    if any(f.advice for f in findings):
        typer.echo("lines with advice are worth a look; nothing else is needed")
