"""``barcast train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption
from barcast.cli.run_options import with_run_options

if TYPE_CHECKING:
    from barcast.core.workspace import Workspace
    from barcast.pipeline.settings import RunConfig
    from barcast.pipeline.workflow import TrainedAndCompared


@with_run_options
def train(
    *,
    model: str,
    config: Path | None,
    flags: dict[str, Any],
    workspace: WorkspaceOption = None,
    final: Annotated[
        bool, typer.Option("--final", help="Then refit on everything known, as the evaluation chose.")
    ] = False,
    refit: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Train nothing: refit this finished run on everything known now."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again even if the run is there.")] = False,
    open_test: Annotated[
        bool, typer.Option("--open-test", help="Open the sealed test segment; every opening is counted.")
    ] = False,
    report: Annotated[bool, typer.Option(help="Write report.html.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, train nothing.")
    ] = False,
    list_models: Annotated[bool, typer.Option("--list", help="List the models.")] = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a model on the whole store, compare it with naive rows and ridge, write the report."""
    from barcast.cli.show import print_models
    from barcast.core.workspace import Workspace
    from barcast.pipeline.settings import resolve
    from barcast.pipeline.workflow import refit_config

    if list_models:
        print_models(json_output)
        return
    place = Workspace.find(workspace)
    if refit:
        parent, resolved = refit_config(place, refit, flags, config, model)
    else:
        parent, resolved = None, resolve(place, model or "lstm", flags, config)
    if dry_run:
        _describe(place, resolved, json_output, quiet)
        return
    how = {"parent": parent, "final": final, "fresh": fresh, "open_test": open_test, "report": report}
    _train(place, resolved, how, json_output, quiet)


def _describe(place: Workspace, config: RunConfig, json_output: bool, quiet: bool) -> None:
    from barcast.cli.show import echo_config, print_description, print_json
    from barcast.core.progress import Progress
    from barcast.pipeline.dataset import resolve_features
    from barcast.pipeline.workflow import describe

    resolve_features(place, config.data.features)  # so that a name that nothing has is refused here too
    echo_config(config.plain(), Progress(enabled=not quiet))
    description = describe(place, config)
    print_json(description) if json_output else print_description(description)


def _train(place: Workspace, config: RunConfig, how: dict[str, Any], json_output: bool, quiet: bool) -> None:
    from barcast.cli.show import echo_config, print_compared, print_forecasts, print_json
    from barcast.core.memory import keep_freed_memory
    from barcast.core.progress import Progress
    from barcast.pipeline.workflow import train_and_report

    keep_freed_memory()
    progress = Progress(enabled=not quiet)
    echo_config(config.plain(), progress)
    result = train_and_report(place, config, progress=progress, **how)
    if json_output:
        print_json(result.plain())
    elif quiet:
        _print_essentials(result)
    else:
        print_compared(result.compared)
        print_forecasts(result.forecasts, limit=10)


def _print_essentials(result: TrainedAndCompared) -> None:
    """Print the names, one line of scores a comparison, and where the page is."""
    from barcast.core.texts import counted
    from barcast.evaluation.words import METRIC_NAMES, number

    typer.echo(f"run: {result.run.name}")
    if result.final:
        typer.echo(f"refit: {result.final.name}")
    for found in result.compared.comparisons:
        scores = ", ".join(
            f"{row.model} {number(found.primary, row.scores[found.primary].value)}"
            for row in found.all_rows.rows
        )
        about = f"{found.segment}, {counted(found.horizon, 'session' if found.is_daily else 'bar')} ahead"
        typer.echo(f"{about}: {METRIC_NAMES[found.primary].en}: {scores}")
    if result.report:
        typer.echo(f"report: {result.report}")
