"""``barcast train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli.app_options import (
    JsonOption,
    QuietOption,
    TimeBudgetOption,
    TrackOnlineOption,
    TrackOption,
    TrackProjectOption,
    TrackWorkspaceOption,
    WorkspaceOption,
    minutes,
    words,
)
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
    tuned: Annotated[
        str | None, typer.Option(metavar="TUNE", help="Train the best of this search (`barcast tune`).")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again even if the run is there.")] = False,
    open_test: Annotated[
        bool, typer.Option("--open-test", help="Open the sealed test segment; every opening is counted.")
    ] = False,
    report: Annotated[bool, typer.Option(help="Write report.html.")] = True,
    output_dir: Annotated[
        Path | None, typer.Option(help="Copy the finished run's folder to this place too.")
    ] = None,
    time_budget: TimeBudgetOption = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Measure where a network's time goes and what would be faster.")
    ] = False,
    track: TrackOption = None,
    track_project: TrackProjectOption = None,
    track_workspace: TrackWorkspaceOption = None,
    track_online: TrackOnlineOption = False,
    range_test: Annotated[
        bool, typer.Option("--range-test", help="Train nothing: raise the rate step by step, suggest one.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, train nothing.")
    ] = False,
    list_models: Annotated[bool, typer.Option("--list", help="List the models.")] = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a model on the whole store, compare it with naive rows and ridge, write the report."""
    from barcast.cli.show import print_models
    from barcast.core.memory import keep_freed_memory
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.range_test import check_read
    from barcast.pipeline.results import check_output_dir
    from barcast.pipeline.settings import resolve
    from barcast.pipeline.tune import tuned_config
    from barcast.pipeline.workflow import refit_config
    from barcast.tracking.registry import open_mirror

    if list_models:
        print_models(json_output)
        return
    keep_freed_memory()
    if range_test:
        check_read({
            **flags, "final": final, "refit": refit, "fresh": fresh, "open_test": open_test,
            "no_report": not report, "output_dir": output_dir, "profile": profile, "track": track,
            "track_project": track_project, "track_workspace": track_workspace,
            "track_online": track_online, "dry_run": dry_run,
        })  # fmt: skip
    if output_dir is not None:
        check_output_dir(output_dir)
    place, flags = Workspace.find(workspace), {**flags, "time_budget": minutes(time_budget)}
    mirror = open_mirror(
        place, words(track), project=track_project, team=track_workspace, online=track_online
    )
    if tuned:
        model, config = tuned_config(place, tuned, model, config, refit)
    if refit:
        parent, resolved = refit_config(place, refit, flags, config, model)
    else:
        parent, resolved = None, resolve(
            place, model or "lstm", flags, config, compare_sizes=not (dry_run or range_test),
            progress=Progress(enabled=not quiet),
        )  # fmt: skip
    if dry_run:
        _describe(place, resolved, {"parent": parent, "profile": profile, "fresh": fresh}, json_output, quiet)
        return
    if range_test:
        _test_rates(place, resolved, json_output, quiet)
        return
    how: dict[str, Any] = {
        "parent": parent, "final": final, "fresh": fresh, "open_test": open_test, "report": report,
        "mirror": mirror, "profile": profile, "output_dir": output_dir,
    }  # fmt: skip
    run_training(place, resolved, how, json_output, quiet)


def _describe(
    place: Workspace, config: RunConfig, how: dict[str, Any], json_output: bool, quiet: bool
) -> None:
    from barcast.cli.show import echo_config, print_description, print_json
    from barcast.core.progress import Progress
    from barcast.pipeline.workflow import describe

    progress = Progress(enabled=not quiet)
    echo_config(config.plain(), progress)
    description = describe(place, config, progress=progress, **how)
    print_json(description) if json_output else print_description(description)


def _test_rates(place: Workspace, config: RunConfig, json_output: bool, quiet: bool) -> None:
    from barcast.cli.show import echo_config, print_json
    from barcast.core.progress import Progress
    from barcast.pipeline.range_test import range_test

    progress = Progress(enabled=not quiet)
    echo_config(config.plain(), progress)
    found = range_test(place, config, progress=progress)
    if json_output:
        print_json(found.plain())
        return
    if found.steepest and found.lowest:
        typer.echo(f"the loss fell fastest at {found.steepest:.2g} and was lowest at {found.lowest:.2g}")
    else:
        typer.echo("the loss fell nowhere beyond its noise")
    typer.echo(f"it ran away at {found.diverged:.2g}" if found.diverged else "it ran away nowhere up to 1")
    typer.echo(f"suggested: --lr {found.suggested:.2g} (this command would take {found.lr:g})")
    typer.echo(f"curve: {found.picture}, {found.json_file}")


def run_training(
    place: Workspace, config: RunConfig, how: dict[str, Any], json_output: bool, quiet: bool
) -> None:
    """Train as ``how`` says, and print what came of it."""
    from barcast.cli.diagnosis import print_profile
    from barcast.cli.show import echo_config, print_compared, print_forecasts, print_json
    from barcast.core.interruption import signals_taken
    from barcast.core.progress import Progress
    from barcast.pipeline.tracked import train_tracked

    progress = Progress(enabled=not quiet)
    echo_config(config.plain(), progress)
    with signals_taken():
        result = train_tracked(place, config, progress=progress, **how)
    if json_output:
        print_json(result.plain())
    elif quiet:
        _print_essentials(result)
    else:
        print_compared(result.compared)
        print_forecasts(result.forecasts, limit=10)
        if how.get("profile") and (result.run.path / "profile.json").is_file():
            print_profile(result.run.read("profile.json"))


def _print_essentials(result: TrainedAndCompared) -> None:
    """Print the names, one line of scores a comparison, and where the page is."""
    from barcast.core.texts import Text, counted
    from barcast.evaluation.words import METRIC_NAMES, among_trials, number

    typer.echo(f"run: {result.run.name}")
    if result.final:
        typer.echo(f"refit: {result.final.name}")
    for found in result.compared.comparisons:
        scores = ", ".join(
            f"{(Text.same(row.model) + among_trials(row.num_trials)).en} "
            f"{number(found.primary, row.scores[found.primary].value)}"
            for row in found.all_rows.rows
        )
        about = f"{found.segment}, {counted(found.horizon, 'session' if found.is_daily else 'bar')} ahead"
        typer.echo(f"{about}: {METRIC_NAMES[found.primary].en}: {scores}")
    if result.report:
        typer.echo(f"report: {result.report}")
