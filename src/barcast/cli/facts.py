"""``barcast data facts``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from barcast.cli.app_options import JsonOption, WorkspaceOption
from barcast.cli.data import VersionOption, show_rows
from barcast.core.errors import UsageError


def facts(
    table: Annotated[
        Path | None, typer.Argument(help="CSV or Parquet: symbol (代码) and columns such as name, industry.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="This table takes the place of what the store has.")
    ] = False,
    version: VersionOption = None,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Put names, industries and other facts of symbols on record; without a table, list what there is."""
    from barcast.cli.show import print_added
    from barcast.pipeline.beside import add_facts, store_facts

    if table is not None:
        print_added(add_facts(workspace, table, replace_all=replace), json_output)
    elif replace:
        raise UsageError("--replace without a table", "barcast data facts TABLE --replace")
    else:
        show_rows(store_facts(workspace, version), json_output)
