"""``barcast promote`` and ``barcast rollback``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from barcast.cli.app_options import JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from barcast.pipeline.champion import Change


def promote(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Evaluated run or refit.")],
    workspace: WorkspaceOption = None,
    why: Annotated[str, typer.Option(help="A sentence to keep with it.")] = "promoted by hand",
    json_output: JsonOption = False,
) -> None:
    """Make a run the champion: it predicts when nobody names another. Of a run with a refit, the refit."""
    from barcast.core.workspace import Workspace
    from barcast.pipeline.champion import promote

    _say(promote(Workspace.find(workspace), run, why=why), json_output)


def rollback(
    workspace: WorkspaceOption = None,
    to: Annotated[str, typer.Option(metavar="RUN", help="An earlier champion; none: the one before.")] = "",
    json_output: JsonOption = False,
) -> None:
    """Go back to the champion before; twice goes back two."""
    from barcast.core.workspace import Workspace
    from barcast.pipeline.champion import rollback

    _say(rollback(Workspace.find(workspace), to), json_output)


def _say(change: Change, json_output: bool) -> None:
    from barcast.cli.show import print_json

    if json_output:
        print_json(change.plain())
        return
    now, before = change.now, change.before
    if not change.changed:
        typer.echo(f"{now.run} is the champion already, since {now.since}")
        return
    refit = f", the refit of {now.evaluated}" if now.evaluated != now.run else ""
    typer.echo(f"champion: {now.run}{refit}")
    typer.echo(f"before: {before.run}, since {before.since}" if before else "before: none")
    if change.served_by:
        typer.echo(f"it predicts by {' and '.join(change.served_by)}: keep them and the runs they refit")
    elif not refit:
        typer.echo(
            f"it is not refitted on everything known: barcast train --refit {now.run} makes the refit that "
            "then serves in its place"
        )
