"""``barcast runs``."""

from __future__ import annotations

from barcast.cli.app_options import JsonOption, WorkspaceOption


def runs(workspace: WorkspaceOption = None, json_output: JsonOption = False) -> None:
    """List the runs of the workspace."""
    from barcast.cli.show import print_json, print_runs
    from barcast.core.runs import list_runs
    from barcast.core.workspace import Workspace

    found = list_runs(Workspace.find(workspace))
    if json_output:
        print_json([run.info for run in found])
    else:
        print_runs(found)
