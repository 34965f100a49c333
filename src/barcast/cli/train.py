"""``barcast train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption, numbers, words

if TYPE_CHECKING:
    from barcast.core.workspace import Workspace
    from barcast.pipeline.settings import RunConfig
    from barcast.pipeline.workflow import TrainedAndCompared


def train(
    model: Annotated[
        str | None, typer.Argument(help="lstm (default), gru, transformer, mlp, ridge, lightgbm; see --list.")
    ] = None,
    model_type: Annotated[str | None, typer.Option(help="The same as the argument.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Preset of a network: small, balanced, large, xl (see --list).")
    ] = None,
    workspace: WorkspaceOption = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file with tables data, train and the model's.")
    ] = None,
    features: Annotated[str | None, typer.Option(help="Feature set (`barcast features list`).")] = None,
    horizons: Annotated[
        str | None, typer.Option("--horizon", help="Sessions from entry to exit; several: 1,5,20.")
    ] = None,
    delay: Annotated[int | None, typer.Option(help="Sessions from decision to entry.")] = None,
    segments: Annotated[
        str | None, typer.Option(help="Last days of fit,stop,weigh,route,test: 2022-12,2023-04,...")
    ] = None,
    symbols: Annotated[str | None, typer.Option(help="Only these symbols, separated by commas.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many symbols.")] = None,
    asof: Annotated[str | None, typer.Option(help="Last session that may be known: 2024-03-08.")] = None,
    target: Annotated[str | None, typer.Option(help="auto, rank, return or volatility_scaled.")] = None,
    look_back_window: Annotated[int | None, typer.Option(help="Own bars a prediction reads.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Most epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Labels a step.")] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", "--learning-rate", help="Highest learning rate.")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw, adam or sgd.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW weight decay.")] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Width of the network.")] = None,
    num_layers: Annotated[int | None, typer.Option(help="Stacked layers.")] = None,
    stock_embedding_dim: Annotated[
        int | None, typer.Option(help="Width of the symbol embedding; 0: no identity.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout.")] = None,
    gradient_accumulation_steps: Annotated[
        int | None, typer.Option(help="Parts a batch is computed in.")
    ] = None,
    amp: Annotated[str | None, typer.Option(help="auto, bf16 or off.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Processor threads of a step; 0: measure once, keep it with the run.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    hold_out_fold: Annotated[
        int | None, typer.Option(help="0..19: keep this twentieth of the symbols out of training.")
    ] = None,
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
    flags: dict[str, Any] = {
        "size": size, "optimizer": optimizer,
        "features": features, "horizons": numbers(horizons, "--horizon"), "delay": delay,
        "segments": words(segments), "symbols": words(symbols), "limit": limit, "asof": asof,
        "target": target, "look_back_window": look_back_window, "epochs": epochs,
        "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay, "hidden_size": hidden_size,
        "num_layers": num_layers, "stock_embedding_dim": stock_embedding_dim, "dropout": dropout,
        "gradient_accumulation_steps": gradient_accumulation_steps, "amp": amp, "device": device,
        "threads": threads, "seed": seed, "hold_out_fold": hold_out_fold,
    }  # fmt: skip
    place = Workspace.find(workspace)
    named = _one_model(model, model_type)
    if refit:
        parent, resolved = refit_config(place, refit, flags, config, named)
    else:
        parent, resolved = None, resolve(place, named or "lstm", flags, config)
    if dry_run:
        _describe(place, resolved, json_output, quiet)
        return
    how = {"parent": parent, "final": final, "fresh": fresh, "open_test": open_test, "report": report}
    _train(place, resolved, how, json_output, quiet)


def _one_model(model: str | None, model_type: str | None) -> str:
    from barcast.core.errors import UsageError

    if model and model_type and model != model_type:
        raise UsageError(f"two models were named: `{model}` and --model-type {model_type}", "name one")
    return model or model_type or ""


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
