"""``barcast runs``."""

from __future__ import annotations

from typing import Any

import typer

from barcast.cli.app_options import JsonOption, WorkspaceOption


def runs(workspace: WorkspaceOption = None, json_output: JsonOption = False) -> None:
    """List the runs of the workspace."""
    from barcast.cli.show import print_json
    from barcast.core.runs import list_runs
    from barcast.core.workspace import Workspace
    from barcast.pipeline.unfinished import run_facts

    found = [run_facts(run) for run in list_runs(Workspace.find(workspace))]
    print_json(found) if json_output else _print(found)


def _print(found: list[dict[str, Any]]) -> None:
    from barcast.cli.show import table

    rows = []
    for info in found:
        score = info.get("best_score")
        shown = "-" if score is None else f"{score:.4f}"
        created, cutoff = info["created"][:16].replace("T", " "), str(info.get("cutoff", ""))[:10]
        seconds = f"{info.get('total_seconds', 0):.0f} s"
        rows.append((info["name"], info["status"], created, cutoff, shown, seconds))
    columns = ("run", "status", "created (UTC)", "data up to", "stop score", "time")
    table("Runs", [(c, "left" if i < 4 else "right") for i, c in enumerate(columns)], rows)
    for info in found:
        if info["status"] == "failed":
            typer.echo(f"{info['name']} failed: {info['reason']}; when that is mended: {info['resume']}")
        elif "resume" in info:
            typer.echo(f"{info['name']} was interrupted; what goes on with it: {info['resume']}")
