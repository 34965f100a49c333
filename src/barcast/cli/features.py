"""``barcast features``: what a model can be given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli.app_options import JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from barcast.features import FeatureSet

app = typer.Typer(help="Features: what a model sees.", no_args_is_help=True)


@app.callback()
def _features() -> None:
    """Features: what a model sees."""


@app.command("list")
def list_features(
    name: Annotated[
        str | None, typer.Option("--set", help="One set, or several joined: tech48+my_features.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the feature sets, or the features of one set with formula, warm-up and source."""
    from barcast.core.workspace import Workspace  # local: help must not wait for numpy
    from barcast.features import feature_set, feature_sets, user_feature_sets
    from barcast.pipeline.settings import check_workspace

    place = Workspace.find(workspace)
    check_workspace(place)
    own = user_feature_sets(place)
    chosen = (*feature_sets(), *own) if name is None else (feature_set(name, own),)
    if as_json:
        typer.echo(json.dumps([_plain(made) for made in chosen], ensure_ascii=False, indent=2))
    elif name is None:
        _print_sets(chosen)
    else:
        _print_features(chosen[0])


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(metavar="FILE|SET", help="my_features.py, or a set's name.")],
    workspace: WorkspaceOption = None,
) -> None:
    """Recompute features on cut histories, of made-up and of stored bars: none may see its future."""
    from barcast.core.workspace import Workspace
    from barcast.pipeline.check import check_features

    made, num_symbols = check_features(Workspace.find(workspace), name)
    where = f"{num_symbols} stored symbols" if num_symbols else "made-up bars only: no market store here"
    typer.echo(f"{made.name}: {len(made.features)} features recomputed on cut histories, clean ({where})")
    listed = ", once barcast.toml lists the file" if name.endswith(".py") else ""
    typer.echo(f"with holes, listings and altered futures{listed}: barcast audit --features {made.name}")


def _plain(made: FeatureSet) -> dict[str, Any]:
    return {
        "set": made.name,
        "description": made.description,
        "needs": made.needs,
        "warmup": made.max_warmup,
        "scale_free": made.scale_free,
        "window_normalised": made.window_normalised,
        "features": [
            {
                "name": feature.name,
                "formula": feature.formula,
                "warmup": feature.warmup,
                "source": feature.source,
                "needs": made.needs_of(feature),
            }
            for feature in made.features
        ],
    }


def _print_sets(sets: tuple[FeatureSet, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("set", "features", "warm-up", "needs", "what")
    for made in sets:
        count = str(len(made.features))
        table.add_row(made.name, count, f"{made.max_warmup} bars", " ".join(made.needs), made.description)
    console = Console()
    console.print(table)
    console.print("one set with its formulas: barcast features list --set NAME", highlight=False)


def _print_features(made: FeatureSet) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("#", "feature", "formula", "warm-up", "source")
    table.columns[2].overflow = "fold"  # a formula that is cut off says nothing
    for number, feature in enumerate(made.features, start=1):
        # Text, not str: the brackets of C[-5] are no markup
        table.add_row(
            str(number), feature.name, Text(feature.formula), str(feature.warmup), Text(feature.source)
        )
    console = Console()
    console.print(table)
    console.print(f"{made.name}: {made.description}; needs {' '.join(made.needs)}", highlight=False)
