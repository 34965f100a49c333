"""``barcast fleet cv``: purged cross-validation of a fleet, in order of time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption
from barcast.cli.run_options import parameters_of, read, shared_parameters, with_signature

if TYPE_CHECKING:
    from barcast.pipeline.fleet_folds import CrossValidation, FoldScores

#: Options of a run that say what is learned, and those of the fleet's own that may be said here.
_DATA = ("features", "horizons", "delay", "segments", "asof", "target", "seed")
_OWN = ("preset", "min_rows")


def _declared(
    symbols: Annotated[
        list[str] | None, typer.Argument(help="Who is fitted, in any spelling; nobody named: everybody.")
    ] = None,
    kind: Annotated[str, typer.Option(help="trees, lstm or gru.")] = "trees",
    preset: Annotated[str | None, typer.Option(help="As of `barcast fleet trees` (or lstm, gru).")] = None,
    min_rows: Annotated[int | None, typer.Option(help="Fewest training rows of a model.")] = None,
    folds: Annotated[int, typer.Option(help="How many.")] = 5,
    scheme: Annotated[
        str, typer.Option(help="expanding: from all that came before; rolling: from as many days each.")
    ] = "expanding",
    embargo: Annotated[
        int, typer.Option(help="Sessions left out between what teaches and what judges, beyond the purge.")
    ] = 0,
    train_share: Annotated[
        float, typer.Option(help="Share of the sessions before the first that is judged.")
    ] = 0.5,
    limit: Annotated[int, typer.Option(help="Only so many symbols, drawn by the seed; 0: all.")] = 0,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file with tables data and the model's own.")
    ] = None,
    max_memory: Annotated[str | None, typer.Option(help="Of all processes together: 8G, 800M.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that fit (one a core).")] = None,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Judge a preset by purged folds of the sessions before `route`; a call that was killed goes on."""


def _command(**typed: Any) -> None:
    from barcast.cli.show import print_json
    from barcast.core.interruption import signals_taken
    from barcast.core.progress import Progress
    from barcast.core.workspace import Workspace
    from barcast.pipeline.fleet_cv import CvOptions, fleet_cross_validation
    from barcast.pipeline.fleet_options import fleet_how, fleet_model
    from barcast.pipeline.settings import resolve

    place = Workspace.find(typed["workspace"])
    flags = {name: read(name, typed[name]) for name in (*_DATA, *_OWN)}
    resolved = resolve(place, fleet_model(typed["kind"]), flags, typed["config"])
    options = CvOptions(
        folds=typed["folds"], scheme=typed["scheme"], embargo=typed["embargo"],
        train_share=typed["train_share"],
    )  # fmt: skip
    with signals_taken():
        found = fleet_cross_validation(
            place, resolved, options, symbols=tuple(typed["symbols"] or ()), limit=typed["limit"],
            how=fleet_how(workers=typed["workers"], max_memory=typed["max_memory"]),
            progress=Progress(enabled=not typed["quiet"]),
        )  # fmt: skip
    print_json(found.plain()) if typed["json_output"] else _print(found)


def _print(found: CrossValidation) -> None:
    from barcast.cli.show import table
    from barcast.evaluation.words import METRIC_NAMES

    columns = [("fold", "left"), ("learned from", "left"), ("judged on", "left"), ("symbols", "right"),
               ("rows", "right"), *((METRIC_NAMES[name].en, "right") for name in found.metrics)]  # fmt: skip
    for horizon, overall in found.overall.items():
        lines = [_line(fold, horizon, found.metrics) for fold in found.folds]
        table(
            f"{found.model} {found.preset}, {found.scheme}, horizon {horizon}",
            columns,
            [*lines, ("all", "", "", "", "", *_scores(overall, found.metrics))],
        )
    _print_failures(found)


def _line(fold: FoldScores, horizon: int, metrics: tuple[str, ...]) -> tuple[str, ...]:
    spans = [" to ".join(day[:10] for day in span) for span in (fold.train, fold.validation)]
    counts = f"{fold.num_symbols:,}", f"{fold.num_rows:,}"
    return str(fold.fold), *spans, *counts, *_scores(fold.scores.get(horizon, {}), metrics)


def _scores(scores: Mapping[str, Any], metrics: tuple[str, ...]) -> list[str]:
    from barcast.evaluation.words import with_range

    return [with_range(name, scores[name], sign=name != "auc") if name in scores else "-" for name in metrics]


def _print_failures(found: CrossValidation) -> None:
    from barcast.core.texts import counted

    reasons: dict[str, dict[str, set[int]]] = {}
    for symbol, told in found.failures.items():
        for reason, folds in told.items():
            kind = reasons.setdefault(reason.partition(":")[0], {})
            kind.setdefault(symbol, set()).update(folds)
    for kind_of_reason, symbols in sorted(reasons.items(), key=lambda item: -len(item[1])):
        several = sum(len(folds) == len(found.folds) for folds in symbols.values())
        typer.echo(
            f"  {counted(len(symbols), 'symbol')} without a model in some folds, {several:,} in all: "
            f"{kind_of_reason}, e.g. {', '.join(list(symbols)[:3])}"
        )


def _with_options() -> Callable[..., None]:
    return with_signature(_command, _declared, [*parameters_of(_declared), *shared_parameters(*_DATA)])


#: Commands by name.
COMMANDS: dict[str, Callable[..., None]] = {"cv": _with_options()}
