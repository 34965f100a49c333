"""``barcast fleet trees | lstm | gru``: one command a kind of model; what they share is declared once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption
from barcast.cli.run_options import parameters_of, read, shared_parameters, with_signature

#: Options of a run that say what every fleet learns from.
_DATA = ("features", "horizons", "delay", "segments", "symbols", "limit", "asof", "target", "seed")


def _of_the_call(
    symbol_config: Annotated[
        Path | None, typer.Option(help="TOML file with a table of options for each symbol that differs.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file with tables data and the model's own.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Time for all fits: 30m, 1h30m, 90s.")] = None,
    time_per_symbol: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Most computing that one symbol may take.")
    ] = None,
    max_memory: Annotated[str | None, typer.Option(help="Of all processes together: 8G, 800M.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that fit (one a core).")] = None,
    executor: Annotated[str, typer.Option(help="serial, processes or ray.")] = "processes",
    address: Annotated[str, typer.Option(help="Of a Ray cluster; default: one on this machine.")] = "",
    priority: Annotated[
        str, typer.Option(help="Who comes first: turnover, length or a CSV file with symbol,value.")
    ] = "turnover",
    final: Annotated[bool, typer.Option("--final", help="Refit on everything known as well.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, whatever is there.")] = False,
    open_test: Annotated[bool, typer.Option("--open-test", help="Score the sealed test segment.")] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write the HTML report.")] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Fit a few symbols, which are kept; plan the rest."),
    ] = False,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Declare what a call may take and does; never called."""


def _of_residuals(
    on: Annotated[
        str | None, typer.Option(help="target (default), or residual: what a universal run leaves.")
    ] = None,
    universal: Annotated[
        str | None, typer.Option(metavar="RUN", help="What --on residual leans on; default: the newest.")
    ] = None,
) -> None:
    """Declare what a fleet learns; never called."""


def _of_trees(
    preset: Annotated[
        str | None, typer.Option(help="extreme, fast, standard (default), high or published.")
    ] = None,
    min_rows: Annotated[
        int | None, typer.Option(help="Fewest training rows of a model of its own (500).")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Symbols a worker is handed at a time; 0: as their seconds ask for.")
    ] = 0,
) -> None:
    """Fit a forest, XGBoost and LightGBM for each symbol, averaged by their evidence; resumes by default."""


def _of_networks(
    preset: Annotated[
        str | None, typer.Option(help="Width: 16, 32, 64 (default), 128x2, 256x3 or auto.")
    ] = None,
    min_rows: Annotated[
        int | None, typer.Option(help="Fewest training rows of a network of its own (250).")
    ] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Width, where it is not the preset's.")] = None,
    num_layers: Annotated[
        int | None, typer.Option(help="Stacked layers, where they are not the preset's.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout (0.1).")] = None,
    look_back_window: Annotated[int | None, typer.Option(help="Own bars a prediction reads (60).")] = None,
    stretch_length: Annotated[
        int | None, typer.Option(help="Predictions of one pass (120); 1: plain windows.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Labels a step of one network (480).")] = None,
    epochs: Annotated[int | None, typer.Option(help="Most epochs (30).")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without a better score on the symbol's `stop` (6).")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr", "--learning-rate", help="Highest learning rate (0.003 up to width 64, less for wider)."
        ),
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW weight decay (0.01).")] = None,
    unit_size: Annotated[
        int, typer.Option(help="Symbols a worker trains together; 0: 128, fewer wide ones.")
    ] = 0,
) -> None:
    """Train a recurrent network for each symbol, many at once; resumes by default, half-trained ones too."""


def _command(model: str, declared: Callable[..., None], units: str) -> Callable[..., None]:
    """Return the command that fits a fleet of a model, whose own options ``declared`` has.

    The one called ``units`` says how many symbols a worker gets at a time, and shapes no model.
    """
    own, data = [*parameters_of(declared), *parameters_of(_of_residuals)], shared_parameters(*_DATA)
    flags = [each.name for each in (*own, *data) if each.name != units]

    def command(**typed: Any) -> None:
        given = {name: read(name, typed.pop(name)) for name in flags}
        _fit(model, given, typed, typed.pop(units))

    return with_signature(command, declared, [*own, *data, *parameters_of(_of_the_call)])


def _fit(model: str, flags: dict[str, Any], call: dict[str, Any], batch_size: int) -> None:
    """Fit a fleet, or plan it; ``call`` is what is no option of the model or its data."""
    from barcast.core.memory import keep_freed_memory
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.fleet_options import fleet_how, symbol_options
    from barcast.pipeline.settings import resolve

    place, own = Workspace.find(call["workspace"]), call["symbol_config"]
    flags["symbol_options"] = None if own is None else symbol_options(place, own)
    how = fleet_how(
        budget=call["budget"], time_per_symbol=call["time_per_symbol"], max_memory=call["max_memory"],
        workers=call["workers"], batch_size=batch_size, executor=call["executor"],
        address=call["address"], priority=call["priority"],
    )  # fmt: skip
    resolved = resolve(place, model, flags, call["config"])
    if model != "fleet-trees" or resolved.options.on == "residual":
        keep_freed_memory()
    if call["dry_run"]:
        progress = Progress(enabled=not call["quiet"])
        _plan(place, resolved, how, progress, call["json_output"], final=call["final"])
        return
    from barcast.cli.train import run_training
    from barcast.tracking.registry import open_mirror

    mirror = open_mirror(place, None, project=None, team=None, online=False)
    asked = {name: call[name] for name in ("final", "fresh", "open_test", "report")}
    run_training(
        place, resolved, {**asked, "mirror": mirror, "fleet": how}, call["json_output"], call["quiet"]
    )


def _plan(place: Any, config: Any, how: Any, progress: Any, json_output: bool, *, final: bool) -> None:
    from barcast.cli.show import echo_config, print_json
    from barcast.core.interruption import signals_taken
    from barcast.pipeline.fleet_verbs import plan_fleet

    echo_config(config.plain(), progress)
    with signals_taken():
        plans = plan_fleet(place, config, how, progress)
    if json_output:
        print_json([plan.plain() for plan in plans])
        return
    for plan in plans:
        for line in plan.render():
            typer.echo(line)
    if plans:
        typer.echo("without --dry-run the same command fits them")
    if plans and final:
        typer.echo("and the refit of --final about as long again: --budget does not end it")


#: Commands by name.
COMMANDS: dict[str, Callable[..., None]] = {
    "trees": _command("fleet-trees", _of_trees, "batch_size"),
    "lstm": _command("fleet-lstm", _of_networks, "unit_size"),
    "gru": _command("fleet-gru", _of_networks, "unit_size"),
}
