"""``barcast predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption, words


def predict(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="Run; none: the champion, else the newest with a refit, else not ridge."
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    symbols: Annotated[
        str | None, typer.Option(help="Only these symbols of the store, separated by commas.")
    ] = None,
    asof: Annotated[str | None, typer.Option(help="Last session that may be known: 2024-03-08.")] = None,
    allow_old: Annotated[
        bool, typer.Option("--allow-old", help="Predict with a model whose training data is over a year old.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Write the whole table: a .csv, .parquet or .json file.")
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Print every symbol.")] = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Forecast every symbol from its newest bar."""
    from barcast.cli.show import print_forecasts, print_json
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.champion import run_to_serve
    from barcast.pipeline.predict import check_output, predict, write_table

    place = Workspace.find(workspace)
    if output:
        check_output(output)
    forecasts = predict(
        place,
        run_to_serve(place, name, asof or ""),
        symbols=words(symbols) or (),
        asof=asof or "",
        allow_old=allow_old,
        progress=Progress(enabled=not quiet),
    )
    if output:
        write_table(forecasts, output)
    if json_output:
        print_json(forecasts.plain())
    else:
        print_forecasts(forecasts, limit=len(forecasts.table) if show_all else 10)
