"""``barcast data check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from barcast.cli.app_options import JsonOption, WorkspaceOption, language, words
from barcast.core.errors import UsageError


def check(
    workspace: WorkspaceOption = None,
    symbols: Annotated[str | None, typer.Option(help="Only these symbols, separated by commas.")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", help="KIND=refuse|mask|accept; several times."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write every finding, as .csv or .parquet.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="Show the rows of this kind, largest values first.")
    ] = None,
    lang: Annotated[str, typer.Option(help="en or zh.")] = "en",
    json_output: JsonOption = False,
) -> None:
    """Name what is wrong with the stored bars, with offending rows, and what will be done about it."""
    from barcast.core.atomic import atomic_path, refuse_folder
    from barcast.core.workspace import Workspace
    from barcast.pipeline.check import check_store
    from barcast.quality import apply_policy, finding_lines, report_lines

    spoken = language(lang)
    if output:
        refuse_folder(output)
        if output.suffix not in (".csv", ".parquet"):
            raise UsageError(f"--output {output}: neither .csv nor .parquet", f"--output {output.stem}.csv")
    choices = dict(_pair(text) for text in policy or [])
    report, chosen = check_store(Workspace.find(workspace), words(symbols) or (), choices)
    if output:
        with atomic_path(output) as temporary:
            if output.suffix == ".parquet":
                report.findings.write_parquet(temporary)
            else:
                report.findings.write_csv(temporary)
    if json_output:
        typer.echo(report.to_json())
    else:
        lines = finding_lines(report, kind, spoken) if kind else report_lines(report, chosen, spoken)
        typer.echo("\n".join(lines))
    apply_policy(report, chosen)  # a kind whose policy is `refuse` ends the command with its rows


def _pair(text: str) -> tuple[str, str]:
    kind, sign, choice = text.partition("=")
    if not sign:
        raise UsageError(f"--policy {text}: expected KIND=CHOICE", "for example --policy zero_volume=mask")
    return kind.strip(), choice.strip()
