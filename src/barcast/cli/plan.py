"""``barcast plan``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli.app_options import JsonOption, QuietOption, TimeBudgetOption, WorkspaceOption, minutes
from barcast.cli.run_options import (
    as_typed,
    changed,
    flag_of,
    parameters_of,
    with_run_options,
    with_signature,
)
from barcast.cli.train import train as train_command

if TYPE_CHECKING:
    from barcast.core.workspace import Workspace
    from barcast.pipeline.settings import RunConfig
    from barcast.planning.memory import MemoryPlan
    from barcast.planning.plan import Plan

#: Options of `train` that shape nothing of a plan, and may stand in the command that is planned.
UNREAD = (
    "final", "fresh", "open_test", "report", "output_dir", "profile", "track", "track_project",
    "track_workspace", "track_online",
)  # fmt: skip
app = typer.Typer(help="Say what a command will need, before it runs.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `train` a word of its own while it is the only plan."""


def _with_unread(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `train` that shape nothing of a plan; those that are typed are named."""
    unread = [each for each in parameters_of(train_command) if each.name in UNREAD]

    def wrapper(**typed: Any) -> None:
        given = [each for each in unread if typed.pop(each.name) != each.default]
        if given:
            flags = [flag_of(each).replace("--", "--no-" if each.default is True else "--") for each in given]
            typer.echo(f"{', '.join(flags)}: no part of what is planned", err=True)
        command(**typed)

    return with_signature(wrapper, command, [*parameters_of(command), *unread])


@app.command("train")
@_with_unread
@with_run_options
def train(
    *,
    model: str,
    config: Path | None,
    flags: dict[str, Any],
    workspace: WorkspaceOption = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="Plan for this machine (this) or a GPU: a10, rtx3080, h100, h800. --target takes these too."
        ),
    ] = None,
    tuned: Annotated[
        str | None, typer.Option(metavar="TUNE", help="Plan the best of this search (`barcast tune`).")
    ] = None,
    time_budget: TimeBudgetOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what a training will need: parameters, memory, arithmetic, time, largest batch, suiting scheme."""
    from barcast.cli.show import print_json
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.plan import plan_train
    from barcast.pipeline.settings import resolve
    from barcast.pipeline.tune import tuned_config
    from barcast.planning.machine import device_of, is_target

    if is_target(flags["target"]):  # as a training target none of these words means anything
        on, flags["target"] = on or flags["target"], None
    device_of(on := on or "this")
    if flags["target"] is not None:
        _check_label(flags["target"])
    place, progress = Workspace.find(workspace), Progress(enabled=not quiet)
    if tuned:
        model, config = tuned_config(place, tuned, model, config)
    resolved = resolve(
        place, model or "lstm", {**flags, "time_budget": minutes(time_budget)}, config, progress=progress
    )
    found = plan_train(place, resolved, target=on, progress=progress)
    print_json(found.plain()) if json_output else _print(found, _fleet_command(place, resolved))


def _check_label(target: str) -> None:
    """Refuse a word for --target that is neither a training target nor a machine."""
    from typing import get_args, get_type_hints

    from barcast.core.errors import UsageError
    from barcast.pipeline.settings import DataConfig
    from barcast.planning.machine import TARGETS

    known = get_args(get_type_hints(DataConfig)["target"])
    if target not in known:
        raise UsageError(
            f"--target {target}: neither a machine to plan for nor a target to train on",
            f"--on {', '.join(TARGETS)}, or --target {', '.join(known)}",
        )


def _print(found: Plan, fleet: str) -> None:
    """Print what is needed, by what, and the command that does it; ``fleet`` plans dedicated models."""
    from barcast.cli.show import table

    work = found.work
    typer.echo(
        f"{work.model}: {work.num_symbols:,} symbols, {work.num_rows:,} bars, "
        f"{work.num_labels:,} teaching labels"
    )
    left, right = "left", "right"
    rows = [(name, f"{number:,}") for name, number in found.parameters.items()]
    rows += [("total", f"{found.num_parameters:,}"), ("beside embeddings", f"{found.shared_parameters:,}")]
    table("Parameters", [("component", left), ("number", right)], rows)
    _print_memory("Host memory", found.host)
    if found.device is not None:
        _print_memory(f"Device memory: {found.device.limited_by}", found.device)
    table(
        "Arithmetic and time", [("what", left), ("a step", right), ("an epoch", right)], _compute_rows(found)
    )
    compute = found.compute
    typer.echo(
        f"{compute.labels_per_second:,.0f} labels/s; {compute.share_of_peak:.1%} of the peak of "
        f"{_with_unit(compute.peak_flops, 'FLOP/s')} ({compute.basis}"
        + (f", {compute.threads} threads)" if compute.threads else ")")
    )
    _print_run(found)
    for line in _what_next(found.scheme.choice, _training_command(found.target), fleet):
        typer.echo(line)


def _print_run(found: Plan) -> None:
    from barcast.core.progress import clock

    work = found.work
    typer.echo(
        f"the run: at most {clock(found.run_seconds)} ({work.train.epochs} epochs, then "
        f"{clock(found.compute.forecast_seconds)} of forecasts for {work.num_scored_rows:,} rows)"
    )
    if found.largest_batch is not None:
        typer.echo(
            f"largest batch that fits: {found.largest_batch:,} labels; planned: {work.train.batch_size:,}"
        )
    typer.echo(f"scheme: {found.scheme.choice}: {'; '.join(found.scheme.reasons)}")
    for note in found.notes:
        typer.echo(f"note: {note}")
    if not found.fits:
        typer.echo("this does not fit: --size, --batch-size, --limit or --features core12 make it smaller")


def _what_next(choice: str, planned: str, fleet: str) -> tuple[str, ...]:
    """Return lines with the commands that a scheme asks for, and the one that was planned."""
    if choice == "dedicated":
        return f"next: {fleet}", f"as planned: {planned}"
    return (f"next: {planned}", f"then: {fleet}") if choice == "both" else (f"next: {planned}",)


def _fleet_command(place: Workspace, config: RunConfig) -> str:
    """Return the command that plans a model for each symbol, asked what this training is asked."""
    from barcast.cli.fleet_train import COMMANDS
    from barcast.core.runs import command_to_type

    asked = {**changed(config.data), "seed": config.seed or None}
    return command_to_type(place, "fleet", "trees", *as_typed(COMMANDS["trees"], asked), "--dry-run")


def _print_memory(title: str, plan: MemoryPlan) -> None:
    from barcast.cli.show import table
    from barcast.planning.memory import gib

    rows = [(name, "train", gib(size)) for name, size in plan.components.items()]
    rows += [("everything", f"at the peak of: {phase}", gib(size)) for phase, size in plan.phases.items()]
    rows.append(("peak", plan.peak_phase, gib(plan.peak)))
    if plan.available is not None:
        verdict = "fits" if plan.fits else "does NOT fit"
        rows.append((f"available ({plan.limited_by})", verdict, gib(plan.available)))
        rows.append(("headroom", "", gib(plan.available - plan.peak)))
    table(title, [("component", "left"), ("when", "left"), ("size", "right")], rows)


def _compute_rows(found: Plan) -> list[tuple[str, str, str]]:
    compute, steps = found.compute, found.compute.steps_per_epoch
    return [
        (
            "arithmetic",
            _with_unit(compute.flops_per_step, "FLOP"),
            _with_unit(compute.flops_per_step * steps, "FLOP"),
        ),
        (
            "traffic, at least",
            _with_unit(compute.bytes_per_step, "B"),
            _with_unit(compute.bytes_per_step * steps, "B"),
        ),
        ("training", f"{compute.seconds_per_step:.3f} s", f"{compute.seconds_per_epoch:.2f} s"),
        ("judging on stop", "", f"{compute.judging_seconds_per_epoch:.2f} s"),
        ("steps", "1", f"{steps:,}"),
    ]


def _with_unit(value: float, unit: str) -> str:
    """Write a quantity for people: 14.0 TFLOP."""
    from barcast.core.progress import count

    digits = (text := count(value)).rstrip("kMGT")
    return f"{digits} {text.removeprefix(digits)}{unit}"


def _training_command(target: str) -> str:
    """Return the planned command: what was typed, without what only a plan reads, on a GPU for a GPU."""
    from barcast.planning.machine import THIS, is_target

    words = sys.argv[1:]
    kept, skip = [], False
    for word, following in zip(words, [*words, ""][1:], strict=True):
        name, _, joined = word.partition("=")
        if skip or word in ("plan", "--json", "--quiet", "-q"):
            skip = False
        elif name == "--on" or (name == "--target" and is_target(joined or following)):
            skip = not joined
        else:
            kept.append(word)
    kept = kept if kept[:1] == ["train"] else ["train"]
    if target != THIS and not any(word.partition("=")[0] == "--device" for word in kept):
        kept += ["--device", "cuda"]
    return shlex.join(["barcast", *kept])
