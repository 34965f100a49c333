"""``barcast audit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption

if TYPE_CHECKING:
    from barcast.audit import AuditReport


def audit(
    name: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Run; none: the newest finished one.")
    ] = None,
    workspace: WorkspaceOption = None,
    features: Annotated[
        str | None, typer.Option(help="Audit a feature set on the stored bars instead of a run.")
    ] = None,
    cuts: Annotated[int, typer.Option(help="Sessions at which history is cut.")] = 8,
    sample: Annotated[int, typer.Option(help="Symbols whose whole history is recomputed.")] = 200,
    seed: Annotated[int, typer.Option(help="Chooses symbols, cuts and altered futures.")] = 0,
    act_at: Annotated[
        str, typer.Option("--act-at", help="close, or open: values are used at the open of their session.")
    ] = "close",
    against: Annotated[
        Path | None, typer.Option(help="Workspace with a second source, to compare stamps with.")
    ] = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Recompute everything on cut and altered histories and name the first value that saw its future."""
    from barcast.audit import AuditSettings, audit_features, audit_run
    from barcast.cli.show import print_json
    from barcast.core.errors import UsageError
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.predict import newest_run

    if name and features:
        raise UsageError("name a run or give --features, not both", "barcast audit --features tech48")
    place, progress = Workspace.find(workspace), Progress(enabled=not quiet)
    options: dict[str, Any] = {"num_cuts": cuts, "num_symbols": sample, "seed": seed, "acts_at": act_at}
    settings = AuditSettings(**options, against=Workspace.find(against) if against else None)
    if features:
        report = audit_features(place, features, settings, progress=progress)
    else:
        report = audit_run(place, newest_run(place, name), settings, progress=progress)
    print_json(report.plain()) if json_output else _print(report)
    report.raise_if_leaking()


def _print(report: AuditReport) -> None:
    from barcast.cli.show import table
    from barcast.core.texts import some

    leaking = {finding.check for finding in report.findings}
    rows = [
        (check.name, f"{check.num_values:,}", check.about, "LEAK" if check.name in leaking else "clean")
        for check in report.checks
    ]
    columns = [("check", "left"), ("values", "right"), ("what", "left"), ("", "left")]
    table(f"Audit of {report.subject}", columns, rows)
    typer.echo(f"history cut at {', '.join(report.cuts)}; {report.seconds:.1f} s")
    for finding in report.findings:
        typer.echo(f"{finding.check}: {finding.sentence}")
        others = [column for column in finding.columns if column != finding.column]
        if others:
            typer.echo(f"    {finding.num_values:,} values; also {some(others, most=8)}")
    for note in report.notes:
        typer.echo(f"note: {note}")
