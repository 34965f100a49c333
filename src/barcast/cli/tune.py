"""``barcast tune``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption, minutes
from barcast.cli.run_options import with_run_options

if TYPE_CHECKING:
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.tune import Tuning
    from barcast.pipeline.tune_symbol import SymbolTuning


@with_run_options
def tune(
    *,
    model: str,
    config: Path | None,
    flags: dict[str, Any],
    workspace: WorkspaceOption = None,
    symbol: Annotated[
        str | None,
        typer.Option(
            metavar="SYMBOL", help="Search its own model: fleet-trees (default), fleet-lstm, fleet-gru."
        ),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Of --symbol: the preset of the fleet.")] = None,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of --symbol: put what is worth it into this --symbol-config."),
    ] = None,
    trials: Annotated[int, typer.Option(help="Candidates in all, those of earlier calls included.")] = 30,
    time_budget: Annotated[
        str | None,
        typer.Option(metavar="MINUTES", help="Begin no trial later than this; 30m, 1h30m too."),
    ] = None,
    parallel: Annotated[int, typer.Option(help="Processes; each has its share of the threads.")] = 1,
    space: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file of what varies (see --list-space).")
    ] = None,
    list_space: Annotated[
        bool, typer.Option("--list-space", help="Print what would vary, as such a file.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be searched, train nothing.")
    ] = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Search options of a model and its training by the score on `stop`; options given are fixed."""
    from barcast.cli.show import echo_config, print_json
    from barcast.core.errors import UsageError
    from barcast.core.interruption import resumed_by, signals_taken
    from barcast.core.memory import keep_freed_memory
    from barcast.core.progress import Progress
    from barcast.core.runs import command_line
    from barcast.core.workspace import Workspace
    from barcast.pipeline.plan import still_to_compare
    from barcast.pipeline.tune import describe_search, plan_search
    from barcast.pipeline.tune import tune as search
    from barcast.tuning.study import check_optuna

    if not list_space:
        check_optuna()
    place, budget = Workspace.find(workspace), minutes(time_budget)
    progress = Progress(enabled=not quiet)
    keep_freed_memory()
    if symbol is not None:
        if parallel > 1:
            raise UsageError("the fits of one symbol take turns", "leave --parallel out")
        asked = (place, symbol, model or "fleet-trees", {**flags, "preset": preset}, config, space)
        how = {"trials": trials, "minutes": budget, "write": write}
        _tune_symbol(*asked, progress, how, (list_space, dry_run, json_output))
        return
    if preset is not None or write is not None:
        raise UsageError("--preset and --write are read by a search for one symbol", "--symbol 600519.SH")
    resolved, varied = plan_search(
        place, model or "lstm", flags, config, space, minutes=budget,
        compare_sizes=not (list_space or dry_run), progress=progress,
    )  # fmt: skip
    if list_space:
        print_json(varied.plain()) if json_output else typer.echo(varied.to_toml(), nl=False)
        return
    echo_config(resolved.plain(), progress)
    if dry_run:
        notes = {"notes": list(still_to_compare(resolved.sized, "the search"))}
        found = describe_search(place, resolved, varied) | {"trials": trials} | notes
        print_json(found) if json_output else _describe(found, varied.to_toml())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "torchrun divides one training, not a search",
            "the same command without torchrun; --parallel 2 runs two trials at once",
        )
    with signals_taken(), resumed_by(command_line()):
        done = search(
            place, resolved, varied, trials=trials, minutes=budget, parallel=parallel, progress=progress
        )
    print_json(done.plain()) if json_output else _print(done, quiet)


def _tune_symbol(
    place: Workspace, symbol: str, model: str, flags: dict[str, Any], config: Path | None,
    space: Path | None, progress: Progress, how: dict[str, Any], wanted: tuple[bool, bool, bool],
) -> None:  # fmt: skip
    """Search for one symbol; ``wanted``: the space alone, what would be searched alone, JSON."""
    from barcast.cli.show import print_json
    from barcast.core.interruption import resumed_by, signals_taken
    from barcast.core.runs import command_line
    from barcast.pipeline.tune_symbol import ready_to_search, tune_symbol

    list_space, dry_run, as_json = wanted
    if list_space or dry_run:
        ready = ready_to_search(place, symbol, model, flags, config, space, progress)
        varies = ready.space.plain()
        if as_json:
            print_json(varies if list_space else {"tune": ready.name(place), "space": varies})
            return
        if dry_run:
            typer.echo(f"{ready.name(place)} varies:")
        typer.echo(ready.space.to_toml(), nl=False)
        return
    with signals_taken(), resumed_by(command_line()):
        done = tune_symbol(place, symbol, model, flags, config, space, progress=progress, **how)
    print_json(done.plain()) if as_json else _print_symbol(
        done, _fleet_command(place, done, flags, config), progress.enabled
    )


def _fleet_command(place: Workspace, done: SymbolTuning, flags: dict[str, Any], config: Path | None) -> str:
    """Return the command that fits a fleet as was searched, as a user types it."""
    from barcast.cli.fleet_train import COMMANDS
    from barcast.cli.run_options import as_typed
    from barcast.core.runs import command_to_type

    kind = done.model.removeprefix("fleet-")
    words = as_typed(COMMANDS[kind], {**flags, "config": config, "symbol_config": done.written or "FILE"})
    return command_to_type(place, "fleet", kind, *words)


def _print_symbol(done: SymbolTuning, command: str, shows_trials: bool) -> None:
    """Print the trials, the best beside the default, how noisy that is, and what is suggested."""
    from barcast.cli.show import table
    from barcast.core.texts import counted

    gain = done.gain
    if shows_trials:
        columns = [("trial", "right"), ("state", "left"), ("stop score", "right"), ("seconds", "right"),
                   ("options", "left")]  # fmt: skip
        table(done.path.name, columns, [_row(record) for record in done.trials])
    typer.echo(
        f"{done.symbol}: best of {counted(done.num_trials, 'trial')} on its own `stop`: R2 {gain.best:+.4f}, "
        f"the default's {gain.default:+.4f}"
    )
    typer.echo(
        f"  gain {gain.gain:+.4f}; noise up to {gain.noise:.4f}: the best of so many trials, on "
        f"{counted(gain.num_blocks, 'block')} of sessions (standard error {gain.standard_error:.4f}), and "
        f"fits by other seeds differ by {gain.luck:.4f}"
    )
    if not gain.is_real:
        typer.echo("  that is within noise: nothing is suggested")
        return
    typer.echo(f"\n{done.toml}", nl=False)
    file = done.written or "FILE"
    said = f"written to {done.written}; " if done.written else f"--write {file} puts it there; "
    typer.echo(f"\n{said}next: {command}")


def _describe(found: dict[str, Any], space: str) -> None:
    typer.echo(
        f"{found['tune']}: {found['done']} of {found['trials']} trials are done; what varies:\n{space}"
    )
    for note in found["notes"]:
        typer.echo(f"note: {note}")


def _print(done: Tuning, quiet: bool) -> None:
    """Print the best, the trials, what mattered, and the command that trains the best."""
    from barcast.cli.show import table
    from barcast.core.texts import counted

    best = ", ".join(f"{name} = {_short(value)}" for name, value in done.best.options.items())
    if not quiet:
        columns = [("trial", "right"), ("state", "left"), ("stop score", "right"), ("seconds", "right"),
                   ("options", "left")]  # fmt: skip
        table(done.name, columns, [_row(record) for record in done.trials])
        if done.importance:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in done.importance.items())
            typer.echo(f"what mattered among completed trials: {shares}")
    typer.echo(
        f"best of {counted(done.num_trials, 'trial')} on `stop`: {done.best.score:.4f} "
        f"(trial {done.best.number}): {best}"
    )
    typer.echo("that score flatters: it is the best of many on the rows that chose it; `route` tells")
    typer.echo(f"next: {done.next}")


def _row(record: Any) -> tuple[str, ...]:
    said = record.reason.splitlines()[0] if record.reason else ""
    options = said or ", ".join(f"{name}={_short(value)}" for name, value in record.options.items())
    score = "-" if record.score is None else f"{record.score:.4f}"
    seconds = "-" if record.seconds is None else f"{record.seconds:.1f}"
    return str(record.number), record.state, score, seconds, options


def _short(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], str):  # columns: brackets would be markup
        return f"{len(value)} columns: {' '.join(value)}"
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
