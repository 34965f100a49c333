"""``barcast adapt``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption, words

if TYPE_CHECKING:
    from barcast.pipeline.adapt import Adaptation


def adapt(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A network's run; its refit where it has one.")],
    workspace: WorkspaceOption = None,
    symbols: Annotated[
        str | None, typer.Option(help="Only these symbols; none: all that the run does not know.")
    ] = None,
    asof: Annotated[str | None, typer.Option(help="Last session that may be known: 2024-03-08.")] = None,
    min_labels: Annotated[int, typer.Option(min=1, help="Known labels that a symbol must have.")] = 120,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Write a run even where adapting helps on no label held out.")
    ] = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Give symbols that a finished network never saw an embedding of their own, in seconds: a new run."""
    from barcast.cli.show import print_json
    from barcast.core.memory import keep_freed_memory
    from barcast.core.progress import Progress
    from barcast.core.runs import open_run
    from barcast.core.workspace import Workspace
    from barcast.pipeline.adapt import adapt as run

    keep_freed_memory()
    place = Workspace.find(workspace)
    found = run(
        place, open_run(place, name), symbols=words(symbols) or (), asof=asof or "", min_labels=min_labels,
        anyway=anyway, progress=Progress(enabled=not quiet),
    )  # fmt: skip
    print_json(found.plain()) if json_output else _print(found)


def _print(found: Adaptation) -> None:
    from barcast.core.texts import counted

    at_unknown, chosen = found.losses[0], found.losses[found.steps]
    typer.echo(
        f"{counted(len(found.symbols), 'new symbol')}, {sum(found.symbols.values()):,} known labels; "
        f"{len(found.too_few)} with too few"
    )
    typer.echo(
        f"loss on their last labels, held out: {at_unknown:.5f} as unknown, "
        f"{chosen:.5f} after {found.steps} steps"
    )
    if found.run is None:
        typer.echo("adapting did not help, nothing was written: they are forecast as unknown (--anyway)")
        return
    if not found.helps:
        typer.echo("adapting did not help; the run was written because of --anyway")
    typer.echo(f"run: {found.run.name} ({found.seconds:.1f} s); next: barcast predict {found.run.name}")
