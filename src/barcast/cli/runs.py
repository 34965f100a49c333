"""``barcast runs``."""

from __future__ import annotations

from typing import Any

import typer

from barcast.cli.app_options import JsonOption, WorkspaceOption
from barcast.core.texts import counted


def runs(workspace: WorkspaceOption = None, json_output: JsonOption = False) -> None:
    """List the runs of the workspace; the champion is marked."""
    from barcast.cli.show import print_json
    from barcast.core.champion import read_champions
    from barcast.core.runs import list_runs
    from barcast.core.workspace import Workspace
    from barcast.pipeline.unfinished import run_facts

    place = Workspace.find(workspace)
    champions = read_champions(place)
    best = champions.current.run if champions else ""
    found = [{**run_facts(run), "champion": run.name == best} for run in list_runs(place)]
    print_json(found) if json_output else _print(found)
    if champions and not json_output:
        typer.echo(f"champion: {best}, since {champions.current.since}: {champions.current.why}")


def _print(found: list[dict[str, Any]]) -> None:
    from barcast.cli.show import table

    rows = []
    for info in found:
        score = info.get("best_score")
        shown = "-" if score is None else f"{score:.4f}"
        if trials := info.get("num_trials"):
            shown += f" (best of {counted(trials, 'trial')})"
        created, cutoff = info["created"][:16].replace("T", " "), str(info.get("cutoff", ""))[:10]
        seconds = f"{info.get('total_seconds', 0):.0f} s"
        status = f"{info['status']}, champion" if info["champion"] else info["status"]
        rows.append((info["name"], status, created, cutoff, shown, seconds))
    columns = ("run", "status", "created (UTC)", "data up to", "stop score", "time")
    table("Runs", [(c, "left" if i < 4 else "right") for i, c in enumerate(columns)], rows)
    for info in found:
        if info["status"] == "failed":
            typer.echo(f"{info['name']} failed: {info['reason']}; when that is mended: {info['resume']}")
        elif "resume" in info:
            typer.echo(f"{info['name']} was interrupted; what goes on with it: {info['resume']}")
