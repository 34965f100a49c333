"""What commands print: tables on stdout for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from barcast.core.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console

    from barcast.core.runs import RunFolder
    from barcast.pipeline.compare import Compared
    from barcast.pipeline.predict import Forecasts


def print_json(value: Any) -> None:
    """Print plain values as JSON; NaN becomes null."""
    from barcast.evaluation.results import without_nan

    typer.echo(json.dumps(without_nan(value), indent=2, ensure_ascii=False, default=str))


def echo_config(config: dict[str, Any], progress: Progress) -> None:
    """Echo the resolved config, one line a section, so that nothing is chosen silently."""
    for section in ("data", "options", "train"):
        values = config.get(section)
        if values:
            line = "  ".join(f"{key}={_short(value)}" for key, value in values.items())
            progress.note(f"{section:8}{line}")


def print_models(json_output: bool) -> None:
    """List the registered models."""
    from barcast.models.registry import model_entries

    rows = [
        {"name": e.name, "kind": e.kind, "stretches": e.supports_stretches, "summary": e.summary}
        for e in model_entries()
    ]
    if json_output:
        print_json(rows)
        return
    table("Models", [("name", "left"), ("kind", "left"), ("summary", "left")],
          [(r["name"], r["kind"], r["summary"]) for r in rows])  # fmt: skip


def print_description(found: dict[str, Any]) -> None:
    """Print what a training would do."""
    typer.echo(
        f"{found['model']}: {found['symbols']} symbols, {found['bars']} bars, {found['sessions']} sessions"
    )
    if found["small_universe"]:
        typer.echo("a small universe: scores through time instead of RankIC")
    rows = [
        (name, values["first"], values["last"], str(values["labelled_rows"]))
        for name, values in found["segments"].items()
    ]
    columns = [("segment", "left"), ("first", "left"), ("last", "left"), ("labelled rows", "right")]
    table("Segments", columns, rows)
    for horizon, counts in found["labels"].items():
        typer.echo(f"labels at horizon {horizon}: " + ", ".join(f"{k} {v}" for k, v in counts.items() if v))


def print_compared(compared: Compared, lang: str = "en") -> None:
    """Print every comparison with its verdict."""
    from barcast.evaluation.render import to_rich

    console = _console()
    for comparison in compared.comparisons:
        console.print(to_rich(comparison, "zh" if lang == "zh" else "en"))


def print_forecasts(forecasts: Forecasts, limit: int) -> None:
    """Print the best and worst forecasts and why the others are missing."""
    for horizon in forecasts.table["horizon"].unique().sort():
        _print_horizon(forecasts, horizon, limit)
    if len(forecasts.reasons):
        typer.echo(f"{len(forecasts.reasons)} symbols without a forecast:")
        for symbol, reason in forecasts.reasons.head(limit).iter_rows():
            typer.echo(f"  {symbol}: {reason}")
        if len(forecasts.reasons) > limit:
            typer.echo(f"  ... and {len(forecasts.reasons) - limit} more (--json lists all)")
    for warning in forecasts.warnings:
        typer.echo(f"warning: {warning}")


def _print_horizon(forecasts: Forecasts, horizon: int, limit: int) -> None:
    frame = forecasts.table.filter(horizon=horizon).sort("score", descending=True)
    columns = [
        ("symbol", "left"), ("score", "right"), ("expected", "right"), ("sigma", "right"), ("P(up)", "right"),
    ]  # fmt: skip
    shown = frame if len(frame) <= 2 * limit else frame.head(limit).vstack(frame.tail(limit))
    rows = [
        (r["symbol"], f"{r['score']:.3f}", _percent(r["y_hat"]), f"{r['sigma']:.2%}", f"{r['p_up']:.1%}")
        for r in shown.iter_rows(named=True)
    ]
    table(f"{forecasts.run}: as of {forecasts.asof}, {horizon} sessions ahead", columns, rows)
    if len(frame) and (frame["y_hat"] == 0).all():
        typer.echo("no size could be calibrated on `weigh`: only the order of the scores is a forecast")
    if len(shown) < len(frame):
        typer.echo(f"the {limit} highest and lowest of {len(frame)}; --all or --output shows the rest")


def _percent(value: float) -> str:
    return f"{value:+.2%}" if abs(value) >= 5e-5 else "0.00%"


def print_runs(runs: list[RunFolder]) -> None:
    """List runs, oldest first."""
    rows = []
    for run in runs:
        info = run.info
        score = info.get("best_score")
        shown = "-" if score is None else f"{score:.4f}"
        created, cutoff = info["created"][:16].replace("T", " "), str(info.get("cutoff", ""))[:10]
        rows.append(
            (run.name, info["status"], created, cutoff, shown, f"{info.get('total_seconds', 0):.0f} s")
        )
    columns = ("run", "status", "created (UTC)", "data up to", "stop score", "time")
    table("Runs", [(c, "left" if i < 4 else "right") for i, c in enumerate(columns)], rows)


def table(title: str, columns: list[tuple[str, str]], rows: Sequence[tuple[Any, ...]]) -> None:
    """Print a table; plain text when stdout is not a terminal."""
    from rich.table import Table

    drawn = Table(title=title, title_justify="left", header_style="bold")
    for name, justify in columns:
        drawn.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        drawn.add_row(*map(str, row))
    _console().print(drawn)


def _console() -> Console:
    """Return a console; a pipe has no width of its own, and tables want room."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value[:6])) + (f",... ({len(value)})" if len(value) > 6 else "") or "-"
    return str(value) if value not in ("", {}) else "-"
