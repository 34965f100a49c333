"""Options that shape a run, written once for every command that takes them.

``@with_run_options`` gives a command all of them beside its own options and hands it what was typed as one
dict ``flags``: names as in the settings, None where an option was not given.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from barcast.cli.app_options import numbers, words


def _declared(
    model: Annotated[
        str | None, typer.Argument(help="lstm (default), gru, transformer, mlp, ridge, lightgbm; see --list.")
    ] = None,
    model_type: Annotated[str | None, typer.Option(help="The same as the argument.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Preset of a network: small, balanced, large, xl, or auto.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="TOML file with tables data, train and the model's; or a run's config.json."
        ),
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
    target: Annotated[
        str | None, typer.Option(help="auto, rank, return, volatility_scaled, direction or quantiles.")
    ] = None,
    look_back_window: Annotated[int | None, typer.Option(help="Own bars a prediction reads.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Most epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Labels a step.")] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr", "--learning-rate", help="Highest learning rate (0.003 up to width 64, less for wider)."
        ),
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw, adam or sgd.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW weight decay.")] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Width of the network.")] = None,
    num_layers: Annotated[int | None, typer.Option(help="Stacked layers.")] = None,
    stock_embedding_dim: Annotated[
        int | None, typer.Option(help="Width of the symbol embedding; 0: no identity.")
    ] = None,
    id_dropout: Annotated[
        float | None, typer.Option(help='How often a training sample is shown as "never seen" (0.6).')
    ] = None,
    static: Annotated[
        str | None, typer.Option(help="Attributes with an embedding each: industry,board,exchange.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout.")] = None,
    gradient_accumulation_steps: Annotated[
        int | None, typer.Option(help="Parts a batch is computed in.")
    ] = None,
    jitter: Annotated[
        float | None, typer.Option(help="Noise on training inputs, in standard deviations.")
    ] = None,
    time_warp: Annotated[int | None, typer.Option(help="Most bars that training inputs may lag.")] = None,
    feature_dropout: Annotated[
        float | None, typer.Option(help="How often a training sample misses a feature.")
    ] = None,
    amp: Annotated[str | None, typer.Option(help="auto, bf16, fp16 or off.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of a step on a CPU; 0: measured once, then kept.")
    ] = None,
    checkpoint_seconds: Annotated[float | None, typer.Option(help="Time between checkpoints.")] = None,
    panel_memory_gib: Annotated[
        float | None, typer.Option(help="Most GiB of the panel on the device; beyond it comes in shards.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    num_seeds: Annotated[
        int | None, typer.Option("--seeds", help="Networks of one run, their outputs averaged.")
    ] = None,
    warm_start: Annotated[
        str | None, typer.Option(metavar="RUN", help="Start from this finished run's weights, or `champion`.")
    ] = None,
    hold_out_fold: Annotated[
        int | None, typer.Option(help="0..19: keep this twentieth of the symbols out of training.")
    ] = None,
) -> None:
    """Declare the options; never called."""


#: How what was typed becomes values, where it is not the value itself.
_READERS: dict[str, Callable[[str | None], Any]] = {
    "horizons": lambda typed: numbers(typed, "--horizon"),
    "segments": words,
    "symbols": words,
    "static": words,
}


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a run; it receives ``model``, ``config`` and ``flags``.

    Its own keyword-only options stand in the help beside them.
    """
    shared = parameters_of(_declared)
    own = [each for each in parameters_of(command) if each.name not in ("model", "config", "flags")]
    names = [parameter.name for parameter in shared]

    def wrapper(**typed: Any) -> None:
        given = {name: typed.pop(name) for name in names}
        model = _one_model(given.pop("model"), given.pop("model_type"))
        config = given.pop("config")
        flags = {name: read(name, value) for name, value in given.items()}
        command(model=model, config=config, flags=flags, **typed)

    return with_signature(wrapper, command, [*shared, *own])


def shared_parameters(*names: str) -> list[inspect.Parameter]:
    """Return some of the options that shape a run, for a command that takes no others."""
    return [each for each in parameters_of(_declared) if each.name in names]


def parameters_of(declared: Callable[..., None]) -> list[inspect.Parameter]:
    """Return the options that a function declares."""
    return list(inspect.signature(declared, eval_str=True).parameters.values())


def as_typed(command: Callable[..., None], given: Mapping[str, Any]) -> list[str]:
    """Return options as words of a command line; None stands for one that is not given.

    What the command does not take is left out.
    """
    words: list[str] = []
    for each in parameters_of(command):
        if (value := given.get(each.name)) is not None:
            told = value if isinstance(value, (list, tuple)) else (value,)
            words += [flag_of(each), ",".join(map(str, told))]
    return words


def changed(options: Any) -> dict[str, Any]:
    """Return the options of a dataclass that are not as they are by default."""
    usual = type(options)()
    pairs = {each.name: (getattr(options, each.name), getattr(usual, each.name)) for each in fields(options)}
    return {name: value for name, (value, default) in pairs.items() if value != default}


def flag_of(parameter: inspect.Parameter) -> str:
    """Return how an option is typed, by its first name."""
    (told,) = parameter.annotation.__metadata__
    first = told.default  # typer takes the first name for a default until it has read the annotation
    return first if isinstance(first, str) else f"--{parameter.name.replace('_', '-')}"


def with_signature(
    wrapper: Callable[..., None], named: Callable[..., None], parameters: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """Give a wrapper the name and help of a function, and these options by keyword."""
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    wrapper.__name__, wrapper.__doc__ = named.__name__, named.__doc__
    wrapper.__module__ = named.__module__
    wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return wrapper


def read(name: str, typed: Any) -> Any:
    """Return the value of an option as the settings take it."""
    return _READERS[name](typed) if name in _READERS else typed


def _one_model(model: str | None, model_type: str | None) -> str:
    from barcast.core.errors import UsageError

    if model and model_type and model != model_type:
        raise UsageError(f"two models were named: `{model}` and --model-type {model_type}", "name one")
    return model or model_type or ""
