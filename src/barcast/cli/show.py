"""What commands print: tables on stdout for people, JSON for programs."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from barcast.core.errors import BarcastError
from barcast.core.progress import Progress
from barcast.core.texts import counted

if TYPE_CHECKING:
    from rich.console import Console

    from barcast.core.texts import Language
    from barcast.pipeline.compare import Compared
    from barcast.pipeline.data_results import StatusResult
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


def print_added(done: StatusResult, json_output: bool) -> None:
    """Say what a table beside the bars became."""
    from barcast.core.config import to_plain

    if json_output:
        print_json(to_plain(done))
        return
    what = f"version {done.version}" if done.published else f"nothing new; still version {done.version}"
    typer.echo(f"{what}: {done.num_given:,} rows given, {done.num_facts:,} in the store")
    if done.not_stored:
        typer.echo(
            f"  {len(done.not_stored):,} symbols have no bar here, e.g. {', '.join(done.not_stored[:5])}"
        )
    if done.left_out:
        typer.echo(f"  {len(done.left_out):,} left out, e.g. {'; '.join(done.left_out[:3])}")


def print_models(json_output: bool) -> None:
    """List the registered models."""
    from barcast.models.registry import model_entries

    rows: list[dict[str, Any]] = [
        {
            "name": e.name,
            "kind": e.kind,
            "stretches": e.supports_stretches,
            "sizes": list(e.sizes),
            "summary": e.summary,
        }
        for e in model_entries()
        if e.kind != "routed"  # made of two runs, not trained
    ]
    if json_output:
        print_json(rows)
        return
    table("Models", [("name", "left"), ("kind", "left"), ("sizes", "left"), ("summary", "left")],
          [(r["name"], r["kind"], " ".join(r["sizes"]), r["summary"]) for r in rows])  # fmt: skip


def print_description(found: dict[str, Any]) -> None:
    """Print what a training would do."""
    typer.echo(
        f"{found['model']}: {counted(found['symbols'], 'symbol')}, {counted(found['bars'], 'bar')}, "
        f"{counted(found['sessions'], 'session')}"
    )
    if found["small_universe"]:
        typer.echo("a small universe: scores through time instead of RankIC")
    rows = [(name, *map(str, values.values())) for name, values in found["segments"].items()]
    columns = [("segment", "left"), ("first", "left"), ("last", "left"), ("labelled rows", "right"),
               ("of ended symbols", "right"), ("purged", "right"), ("of ended symbols", "right"),
               ("unknown", "right")]  # fmt: skip
    table("Segments", columns, rows)
    for horizon, counts in found["labels"].items():
        typer.echo(f"labels at horizon {horizon}: " + ", ".join(f"{k} {v}" for k, v in counts.items() if v))
    for note in found["notes"]:
        typer.echo(f"note: {note}")
    without = list(found["without_bars"].items())
    for symbol, reason in without[:10]:
        typer.echo(f"{symbol}: {reason}")
    if len(without) > 10:
        typer.echo(f"... and {counted(len(without) - 10, 'more symbol')} without a bar")


def print_compared(compared: Compared, language: Language = "en") -> None:
    """Print every comparison with its verdict."""
    from barcast.evaluation.render import to_rich

    console = _console()
    for comparison in compared.comparisons:
        console.print(to_rich(comparison, language))


def print_forecasts(forecasts: Forecasts | BarcastError, limit: int) -> None:
    """Print the best and worst forecasts, who made them, and why the others, or all, are missing."""
    if isinstance(forecasts, BarcastError):
        typer.echo(f"no forecasts: {forecasts}")
        return
    for horizon, end in forecasts.for_sessions.items():
        _print_horizon(forecasts, horizon, end, limit)
    mixed = forecasts.oldest_taught_until < forecasts.taught_until
    if "routed" in forecasts.table["model"]:
        kind = "each symbol by the run that serves it"
    elif mixed:
        kind = f"of {forecasts.parent}, some of whose symbols were fitted again"
    else:
        kind = f"the refit of {forecasts.parent} on everything known" if forecasts.parent else "not refitted"
    known = f"taught by labels known until {forecasts.taught_until}"
    if mixed:
        known += f", its oldest models until {forecasts.oldest_taught_until} only"
    if forecasts.chosen_until > forecasts.taught_until:
        known += f", chosen and calibrated by labels known until {forecasts.chosen_until}"
    typer.echo(f"served by {forecasts.run} ({kind}), {known}")
    if len(forecasts.reasons):
        typer.echo(f"{counted(len(forecasts.reasons), 'symbol')} without a forecast:")
        for symbol, reason, _ in forecasts.reasons.head(limit).iter_rows():
            typer.echo(f"  {symbol}: {reason}")
        if len(forecasts.reasons) > limit:
            typer.echo(f"  ... and {len(forecasts.reasons) - limit} more (--json lists all)")
    for warning in forecasts.warnings:
        typer.echo(f"warning: {warning.en}")


def _print_horizon(forecasts: Forecasts, horizon: int, end: str, limit: int) -> None:
    from barcast.pipeline.predict import NO_SIZE

    frame = forecasts.table.filter(horizon=horizon).sort("score", descending=True)
    columns = [
        ("symbol", "left"), ("score", "right"), ("log return", "right"), ("± sd", "right"),
        ("P(up)", "right"),
    ]  # fmt: skip
    shown = frame if len(frame) <= 2 * limit else frame.head(limit).vstack(frame.tail(limit))
    rows = [
        (r["symbol"], f"{r['score']:.3f}", _percent(r["y_hat"]), f"{r['sigma']:.2%}", f"{r['p_up']:.1%}")
        for r in shown.iter_rows(named=True)
    ]
    ahead = counted(horizon, "bar" if "T" in forecasts.asof else "session")
    table(f"Forecasts as of {forecasts.asof}: {ahead} ahead, to the close of {end}", columns, rows)
    if len(frame) and not forecasts.has_size(horizon):
        typer.echo(NO_SIZE.en)
    if len(shown) < len(frame):
        typer.echo(f"the {limit} highest and lowest of {len(frame)}; --all or --output shows the rest")


def _percent(value: float) -> str:
    return f"{value:+.2%}" if abs(value) >= 5e-5 else "0.00%"


def table(title: str, columns: list[tuple[str, str]], rows: Sequence[tuple[Any, ...]]) -> None:
    """Print a table; plain text when stdout is not a terminal."""
    from rich.table import Table

    drawn = Table(header_style="bold")
    for name, justify in columns:
        drawn.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        drawn.add_row(*map(str, row))
    console = _console()
    console.print(title, style="bold", markup=False, soft_wrap=True)
    console.print(drawn)


def _console() -> Console:
    """Return a console; a pipe has no width of its own, and tables want room."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


def program() -> str:
    """Return what a user types to call this program again: its name, or where it was called."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return shlex.join([sys.executable, "-m", "barcast"])
    found = shutil.which("barcast")
    if called.name != "barcast" or (found and Path(found).resolve() == called.resolve()):
        return "barcast"
    return shlex.quote(str(called))


def print_next(steps: Sequence[tuple[Sequence[str], str]]) -> None:
    """Print the commands to type next, each with what it does."""
    lines = [(f"{program()} {shlex.join(words)}", what) for words, what in steps]
    width = max(len(command) for command, _ in lines)
    typer.echo("next:")
    for command, what in lines:
        typer.echo(f"  {command:{width}}   # {what}")


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value[:6])) + (f",... ({len(value)})" if len(value) > 6 else "") or "-"
    return str(value) if value not in ("", {}, None) else "-"
