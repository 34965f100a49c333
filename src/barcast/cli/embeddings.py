"""``barcast embeddings``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from barcast.cli.app_options import JsonOption, WorkspaceOption, language, words

if TYPE_CHECKING:
    import polars as pl

#: Lines of a table of everybody's neighbours; all of them are in --json.
SHOWN = 10


def embeddings(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A network's run, or a unique beginning of it.")],
    workspace: WorkspaceOption = None,
    symbol: Annotated[str, typer.Option(help="Neighbours of this symbol only.")] = "",
    neighbours: Annotated[int, typer.Option(help="Nearest symbols to look at.")] = 10,
    purity: Annotated[
        str | None, typer.Option(help="Do neighbours share it? industry,board: against shuffled labels.")
    ] = None,
    facts: Annotated[
        Path | None, typer.Option(help="Table with symbol and columns such as name, industry, for this once.")
    ] = None,
    map_file: Annotated[Path | None, typer.Option("--map", help="Draw all symbols, as .html.")] = None,
    export: Annotated[Path | None, typer.Option(help="Write the vectors, as .parquet, .csv or .tsv.")] = None,
    lang: Annotated[str, typer.Option(help="en or zh.")] = "en",
    json_output: JsonOption = False,
) -> None:
    """Show what a network knows of each symbol: neighbours, purity, a map, the vectors."""
    from barcast.cli.show import print_json
    from barcast.core.runs import open_run
    from barcast.core.workspace import Workspace
    from barcast.pipeline import embeddings as room

    spoken = language(lang)
    if map_file:
        room.check_file(map_file, (".html",), "--map")
    if export:
        room.check_file(export, room.EXPORT_ENDINGS, "--export")
    place = Workspace.find(workspace)
    found = room.read_embeddings(place, open_run(place, name), facts=facts)
    near = found.neighbours(symbol, neighbours)
    pure = [found.purity(column, neighbours) for column in words(purity) or ()]
    said = [room.purity_in_words(one, found.told) for one in pure]
    if export:
        found.write(export)
    if map_file:
        found.draw(map_file, said)
    if json_output:
        print_json(room.plain(found, near, pure))
        return
    _print(near, f"Nearest to {symbol}" if symbol else f"Nearest of {found.run}", neighbours)
    for text in (*found.warnings(), *said):
        typer.echo(text.in_language(spoken))
    for written in (export, map_file):
        if written:
            typer.echo(f"written: {written}")


def _print(near: pl.DataFrame, title: str, num_neighbours: int) -> None:
    from barcast.cli.show import table

    facts = near.columns[4:]
    columns = [("symbol", "left"), ("nearest", "left"), *((name, "left") for name in facts)]
    one_symbol = near["symbol"].n_unique() == 1
    shown = near if one_symbol else near.filter(rank=1).head(SHOWN)
    rows = [
        (row["symbol"], row["neighbour"], *(row[name] or "" for name in facts), f"{row['cosine']:.3f}")
        for row in shown.iter_rows(named=True)
    ]
    table(title, [*columns, ("cosine", "right")], rows)
    if not one_symbol and (hidden := near["symbol"].n_unique() - len(rows)) > 0:
        typer.echo(
            f"the nearest only, {hidden:,} symbols more: --json has all, --symbol X {num_neighbours} of one"
        )
