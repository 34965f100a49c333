"""``barcast retrain``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption
from barcast.cli.run_options import as_typed, changed

if TYPE_CHECKING:
    from barcast.pipeline.gate import GatePolicy
    from barcast.pipeline.retrain import Retrained


def retrain(
    workspace: WorkspaceOption = None,
    promote_if_better: Annotated[
        bool,
        typer.Option("--promote-if-better", help="Promote the challenger's refit if the gate passes it."),
    ] = False,
    margin: Annotated[
        float | None,
        typer.Option(help="Pass what is not worse by more than this (default: 0.01 RankIC or 0.005 R²)."),
    ] = None,
    min_gain: Annotated[
        float | None, typer.Option(help="Instead of a margin: pass only what is better by more than this.")
    ] = None,
    when_unclear: Annotated[
        str, typer.Option(help="keep the champion or promote the challenger where there is no clear answer.")
    ] = "keep",
    min_sessions: Annotated[int, typer.Option(help="Fewest sessions to compare for an answer.")] = 20,
    report: Annotated[bool, typer.Option(help="Write the challenger's report.html.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, train nothing.")
    ] = False,
    template: Annotated[
        str | None,
        typer.Option(
            help="Print a schedule for Sunday night with these options: systemd-service, systemd-timer, cron."
        ),
    ] = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the champion's recipe on the data as of now, compare on `route`, promote what is not worse."""
    from barcast.cli.show import print_json
    from barcast.core.errors import UsageError
    from barcast.core.interruption import signals_taken
    from barcast.core.memory import keep_freed_memory
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.gate import GatePolicy
    from barcast.pipeline.retrain import describe_retrain, retrain
    from barcast.pipeline.schedule import schedule

    place = Workspace.find(workspace)
    policy = GatePolicy.of(margin, min_gain, when_unclear, min_sessions)
    if template is not None:
        if dry_run:
            raise UsageError("`--template` only prints: nothing is trained", "leave --dry-run out")
        typer.echo(schedule(place, template, _typed(policy, report, json_output)), nl=False)
        return
    if dry_run:
        described = describe_retrain(place, policy)
        print_json(described) if json_output else _print_plan(described)
        return
    keep_freed_memory()
    progress = Progress(enabled=not quiet)
    with signals_taken():
        found = retrain(
            place, policy, promote_if_better=promote_if_better, report=report, progress=progress
        )  # fmt: skip
    print_json(found.plain()) if json_output else _print(found)


def _typed(policy: GatePolicy, report: bool, json_output: bool) -> list[str]:
    """Return the options that differ from their defaults, as words of a command line."""
    words = as_typed(retrain, changed(policy))
    return [*words, *["--no-report"] * (not report), *["--json"] * json_output]


def _print(found: Retrained) -> None:
    typer.echo(f"champion: {found.champion.run}, since {found.champion.since}")
    refit = f", the refit of {found.challenger}" if found.serving != found.challenger else ""
    typer.echo(f"challenger: {found.serving}{refit}, data up to {found.cutoff}")
    for line in (*(one.sentence() for one in found.differences), *found.problems):
        typer.echo(line)
    typer.echo(f"{found.decision}: {found.reason}")
    if found.decision == "would promote":
        typer.echo(f"nobody asked for it: --promote-if-better, or barcast promote {found.serving}")


def _print_plan(found: dict[str, Any]) -> None:
    typer.echo(f"champion: {found['champion']['run']}, data up to {found['champion_cutoff']}")
    verb = "route anew" if found["model"] == "routed" else f"train {found['model']}"
    typer.echo(f"would {verb} on data up to {found['cutoff']} ({found['new_sessions']} new sessions)")
    if found["first"]:
        typer.echo(
            f"would train before that what it rests on, by the options of {' and '.join(found['first'])}"
        )
    route = found["route"]
    typer.echo(
        f"would compare on {found['sessions_to_compare']} sessions of `route` ({route['first']} to "
        f"{route['last']}); {found['min_sessions']} are needed"
    )
    typer.echo(
        f"would promote where the lower end of the difference in {found['metric']} is above "
        f"{found['bound']:+g}; where that is unclear: {found['when_unclear']}"
    )
