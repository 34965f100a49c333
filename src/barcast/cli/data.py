"""``barcast data``: import, update, status, info, failures, conflicts, export, compact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli.app_options import JsonOption, QuietOption, WorkspaceOption, words
from barcast.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from datetime import date

    import polars as pl

    from barcast.pipeline.data_results import ImportPlan, ImportResult
    from barcast.store import StoreInfo

app = typer.Typer(
    help="Bring bars into the market store, keep them current, look at them.", no_args_is_help=True
)

_SAID = "What the columns do not say"
PathsArgument = Annotated[list[Path], typer.Argument(help="CSV or Parquet files, or folders of them.")]
MarketOption = Annotated[
    str | None, typer.Option("--market", help="cn, us, crypto or other.", rich_help_panel=_SAID)
]
FrequencyOption = Annotated[
    str | None,
    typer.Option("--frequency", help="1d (default), 4h, 2h, 1h, 30m, 15m, 5m, 1m.", rich_help_panel=_SAID),
]
CalendarOption = Annotated[
    str | None,
    typer.Option(
        "--calendar",
        help="XSHG, XNYS, XHKG, XLON, XJPX, XKRX, 24x7, observed (default: the market's).",
        rich_help_panel=_SAID,
    ),
]
BasisOption = Annotated[
    str | None,
    typer.Option(
        "--basis",
        help="Prices are raw (as traded), split (adjusted for splits) or adjusted (dividends too).",
        rich_help_panel=_SAID,
    ),
]
VolumeUnitOption = Annotated[
    str | None,
    typer.Option("--volume-unit", help="share or lot (手, 100 shares).", rich_help_panel=_SAID),
]
VolumeAdjustedOption = Annotated[
    bool,
    typer.Option(
        "--volume-adjusted",
        help="Volume is adjusted for splits although prices are raw (older Yahoo files).",
        rich_help_panel=_SAID,
    ),
]
ZoneOption = Annotated[
    str | None,
    typer.Option("--tz", help="Zone of the stamps, as in Asia/Shanghai.", rich_help_panel=_SAID),
]
StampOption = Annotated[
    str | None,
    typer.Option("--stamp", help="Intraday stamps are the start or the end of a bar.", rich_help_panel=_SAID),
]
DateOrderOption = Annotated[
    str | None,
    typer.Option("--date-order", help="mdy or dmy, for dates such as 03/04/2020.", rich_help_panel=_SAID),
]
DecimalOption = Annotated[
    str | None,
    typer.Option("--decimal", help="The decimal sign: . (default) or a comma.", rich_help_panel=_SAID),
]
EncodingOption = Annotated[
    str,
    typer.Option("--encoding", help="auto (file by file), utf-8, gb18030, ...", rich_help_panel=_SAID),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", help="NAME=ROLE for an unknown header; repeatable.", rich_help_panel=_SAID),
]
SymbolOption = Annotated[
    str | None,
    typer.Option("--symbol", help="Symbol of a single file that does not name it.", rich_help_panel=_SAID),
]
StatusOption = Annotated[
    Path | None,
    typer.Option("--status", help="Table of listings, delistings, suspensions and ST spells."),
]
VersionOption = Annotated[int | None, typer.Option("--version", help="Of the store; default: the last.")]


@app.command("import")
def import_(
    paths: PathsArgument,
    market: MarketOption = None,
    basis: BasisOption = None,
    volume_unit: VolumeUnitOption = None,
    frequency: FrequencyOption = None,
    calendar: CalendarOption = None,
    tz: ZoneOption = None,
    stamp: StampOption = None,
    date_order: DateOrderOption = None,
    decimal: DecimalOption = None,
    volume_adjusted: VolumeAdjustedOption = False,
    encoding: EncodingOption = "auto",
    column: ColumnOption = None,
    symbol: SymbolOption = None,
    status: StatusOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace what is there; old versions stay readable.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be read, and stop.")] = False,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fill the market store from files.

    A folder may hold one file a symbol or long files, in any mix of encodings. Whatever was interrupted goes
    on where it stopped. What cannot be read is listed, with file and line; the rest is imported.
    """
    from barcast.core.progress import Progress
    from barcast.pipeline.data import import_data, plan_import
    from barcast.sources import ImportOptions

    said = ImportOptions(
        market=market, frequency=frequency, calendar=calendar, basis=basis, volume_unit=volume_unit,
        volume_adjusted=volume_adjusted, tz=tz, stamp=stamp, date_order=date_order, decimal=decimal,
        encoding=encoding, columns=tuple(column or ()), symbol=symbol,
    )  # fmt: skip
    if dry_run:
        _show_plan(plan_import(workspace, paths, said), json_output)
        return
    progress = Progress(enabled=not quiet)
    result = import_data(workspace, paths, said, replace_all=replace, status=status, progress=progress)
    _show_result(result, json_output)


@app.command()
def update(
    paths: PathsArgument,
    basis: BasisOption = None,
    volume_unit: VolumeUnitOption = None,
    tz: ZoneOption = None,
    stamp: StampOption = None,
    date_order: DateOrderOption = None,
    decimal: DecimalOption = None,
    volume_adjusted: VolumeAdjustedOption = False,
    encoding: EncodingOption = "auto",
    column: ColumnOption = None,
    symbol: SymbolOption = None,
    same_anchor: Annotated[
        bool,
        typer.Option(
            "--same-anchor",
            help="This source never re-scales its adjusted prices: join them without a session in common.",
            rich_help_panel=_SAID,
        ),
    ] = False,
    status: StatusOption = None,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Merge newer files into the store: append sessions, take over corrections, replace moved anchors.

    Let the files reach back over some sessions that the store has, at least three, better five: adjusted
    prices without any are refused. What was said at the import need not be said again.
    """
    from barcast.core.progress import Progress
    from barcast.pipeline.data import update_data
    from barcast.sources import ImportOptions

    said = ImportOptions(
        basis=basis, volume_unit=volume_unit, volume_adjusted=volume_adjusted, tz=tz, stamp=stamp,
        date_order=date_order, decimal=decimal, encoding=encoding, columns=tuple(column or ()), symbol=symbol,
    )  # fmt: skip
    result = update_data(
        workspace, paths, said, same_anchor=same_anchor, status=status, progress=Progress(enabled=not quiet)
    )
    _show_result(result, json_output)
    if _all_refused(result):  # a job at night must notice
        raise DataError(
            f"nothing could be added: {result.num_failures} failures", "barcast data failures lists them"
        )


@app.command()
def status(
    table: Annotated[
        Path | None, typer.Argument(help="CSV or Parquet: symbol, kind, start[, end, known_at].")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="This table takes the place of what the store has.")
    ] = False,
    version: VersionOption = None,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Add listings, delistings, suspensions and ST spells to the store; without a table, list what it has."""
    from barcast.cli.show import print_added
    from barcast.pipeline.beside import add_status
    from barcast.pipeline.data import store_status

    if table is None and replace:
        raise UsageError("--replace without a table", "barcast data status TABLE --replace")
    if table is None:
        show_rows(store_status(workspace, version), json_output)
        return
    print_added(add_status(workspace, table, replace_all=replace), json_output)


@app.command()
def info(
    symbols: Annotated[bool, typer.Option("--symbols", help="List the symbols.")] = False,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Describe the store: what it holds, since when, in which versions."""
    from barcast.cli.show import print_json
    from barcast.core.config import to_plain
    from barcast.pipeline.data import store_info, store_symbols

    if symbols:
        names = store_symbols(workspace)
        print_json(list(names)) if json_output else typer.echo("\n".join(names))
    else:
        found = store_info(workspace)
        print_json(to_plain(found)) if json_output else _show_info(found)


@app.command()
def failures(
    version: VersionOption = None, workspace: WorkspaceOption = None, json_output: JsonOption = False
) -> None:
    """List what the last import or update could not use, with file, line and reason."""
    from barcast.cli.show import print_json
    from barcast.pipeline.data import store_failures

    rows = store_failures(workspace, version).to_dicts()
    print_json(rows) if json_output else _show_failures(rows)


@app.command()
def conflicts(
    version: VersionOption = None, workspace: WorkspaceOption = None, json_output: JsonOption = False
) -> None:
    """List the rows that disagree about a bar; the one marked as kept is stored."""
    from barcast.pipeline.data import store_conflicts

    show_rows(store_conflicts(workspace, version), json_output)


@app.command()
def compact(
    keep_hours: Annotated[
        int, typer.Option("--keep-hours", help="Keep versions replaced so lately, for whoever reads them.")
    ] = 24,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Merge small files and drop old versions that no run cites; the last and the cited ones stay."""
    from barcast.cli.show import print_json
    from barcast.core.config import to_plain
    from barcast.pipeline.data import compact_store

    done = compact_store(workspace, keep_hours=keep_hours)
    if json_output:
        print_json(to_plain(done))
        return
    before, after = done.size_before / 1e6, done.size_bytes / 1e6
    typer.echo(f"{done.num_files:,} files removed, {before:,.1f} MB before, {after:,.1f} MB now")
    typer.echo(f"{len(done.dropped):,} versions dropped; readable: {', '.join(map(str, done.kept))}")
    if done.made:
        typer.echo(f"new, by the upkeep itself, with the same bars: {', '.join(map(str, done.made))}")


@app.command()
def export(
    target: Annotated[Path, typer.Argument(help="File to write, or folder with --per-symbol.")],
    form: Annotated[
        str | None,
        typer.Option("--format", help="With --per-symbol: parquet (default) or csv."),
    ] = None,
    per_symbol: Annotated[bool, typer.Option("--per-symbol", help="One file a symbol.")] = False,
    symbols: Annotated[str | None, typer.Option("--symbols", help="Only these, separated by commas.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="First day, as in 2024-01-31.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last day.")] = None,
    version: VersionOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Write stored bars, as given and with their factors, to Parquet or CSV."""
    from barcast.cli.show import print_json
    from barcast.core.config import to_plain
    from barcast.pipeline.data import export_data

    done = export_data(
        workspace, target, form=form, per_symbol=per_symbol, symbols=words(symbols),
        start=_day(start, "--from"), end=_day(end, "--to"), version=version, force=force,
    )  # fmt: skip
    if json_output:
        print_json(to_plain(done))
        return
    typer.echo(
        f"{done.num_rows:,} bars of {done.num_symbols:,} symbols (version {done.version}) "
        f"in {done.num_files:,} file{'s' * (done.num_files > 1)}: {done.path}"
    )


def _day(text: str | None, flag: str) -> date | None:
    from datetime import date

    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{flag}: `{text}` is not a day", f"write it as in {flag} 2024-01-31") from error


def _all_refused(result: ImportResult) -> bool:
    """Tell whether there was something to add, and none of it could be."""
    return bool(result.num_failures and not result.num_rows and not result.changes.get("unchanged"))


def _show_result(result: ImportResult, json_output: bool) -> None:
    from barcast.cli.show import print_json
    from barcast.core.config import to_plain

    if json_output:
        print_json(to_plain(result))
        return
    if result.published:
        typer.echo(
            f"version {result.version}: {result.num_rows:,} bars of {result.num_symbols:,} symbols, "
            f"{result.first} to {result.last}, in {result.seconds:.1f} s"
        )
    else:
        why = "nothing could be added" if _all_refused(result) else "nothing new"
        typer.echo(f"{why}; the store stays at version {result.version}")
    typer.echo(f"taken for granted: {_said(result.declared)}")
    if result.changes:
        typer.echo(", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in result.changes.items()))
    for line in (*result.examples, *result.notes):
        typer.echo(f"  {line}")
    if result.num_conflicts:
        typer.echo(
            f"{result.num_conflicts} rows disagree about a bar (`barcast data conflicts`): the store keeps "
            "the last one given; training leaves the bar out where prices differ, unless the policy of "
            "`duplicate_conflict` says otherwise"
        )
    if result.num_failures:
        typer.echo(f"{result.num_failures} failures, all of them by `barcast data failures`:")
        _show_failures(list(result.failures[:5]))
    typer.echo("next: barcast data check")
    if refused := result.changes.get("refused_symbols"):
        typer.echo(f"{refused:,} symbols were refused and stay as they were: barcast data failures")


def _show_plan(plan: ImportPlan, json_output: bool) -> None:
    from barcast.cli.show import print_json
    from barcast.core.config import to_plain

    if json_output:
        print_json(to_plain(plan))
        return
    some = f", looked into the first {plan.num_looked_at}" if plan.num_looked_at < plan.num_files else ""
    typer.echo(f"{plan.num_files:,} files, {plan.num_bytes / 1e6:,.1f} MB{some}; nothing was imported")
    typer.echo(f"taken for granted: {_said(plan.declared)}")
    for look in plan.looked_at:
        span = f", {look['num_symbols']} symbols, {look['first']} to {look['last']}" if look["rows"] else ""
        typer.echo(f"{look['name']}: {look['rows']:,} rows{span}")
        typer.echo("  " + ", ".join(f"{role}={name}" for role, name in look["roles"].items()))
        if look["rows"]:
            values = {name: value for name, value in look["first_row"].items() if value is not None}
            typer.echo("  first row: " + ", ".join(f"{name} {value}" for name, value in values.items()))
        if look["unused"]:
            typer.echo(f"  not used: {', '.join(look['unused'])}")
    for note in plan.notes:
        typer.echo(f"  {note}")
    _show_failures(list(plan.failures))


def _show_info(found: StoreInfo) -> None:
    from barcast.cli.show import table

    rows = [
        ("store", found.path),
        ("version", str(found.version)),
        ("market", f"{found.market}, {found.frequency}, calendar {found.calendar}"),
        ("bars", f"{found.num_rows:,} of {found.num_symbols:,} symbols"),
        ("sessions", f"{found.num_sessions:,}, {found.first} to {found.last}"),
        ("basis", ", ".join(f"{basis} ({n:,} symbols)" for basis, n in found.bases.items())),
        ("declared", _said(found.declared)),
        ("conflicts, failures", f"{found.num_conflicts:,} rows, {found.num_failures:,} rows"),
        ("on disk", f"{found.size_bytes / 1e6:,.1f} MB, {found.num_files:,} files in this version"),
    ]
    table("Market store", [("what", "left"), ("found", "left")], rows)
    versions = [
        (str(v.version), f"{v.time:%Y-%m-%d %H:%M}", v.note.get("verb", "upkeep"), _changes(v.note))
        for v in found.history[:10]
    ]
    columns = [("version", "right"), ("time", "left"), ("by", "left"), ("what", "left")]
    table("Versions, newest first", columns, versions)


def _changes(note: dict[str, Any]) -> str:
    changes = {name: n for name, n in note.get("changes", {}).items() if n and name != "unchanged"}
    read = [f"{note['num_read']:,} rows read"] if "num_read" in note else []
    return ", ".join([*read, *(f"{name.replace('_', ' ')} {n:,}" for name, n in changes.items())])


def _show_failures(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        where = ":".join(str(row[name]) for name in ("file", "line") if row[name] is not None)
        what = f" {row['column']} `{row['value']}`" if row["value"] is not None else ""
        typer.echo(f"  {where} {row['symbol'] or ''}{what}: {row['reason']}")


def show_rows(rows: pl.DataFrame, json_output: bool) -> None:
    """Print a table: JSON, or lines of comma-separated values that other programs read too."""
    from barcast.cli.show import print_json

    if json_output:
        print_json(rows.to_dicts())
    else:
        typer.echo(rows.write_csv().rstrip() if len(rows) else "none")


def _said(declared: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in declared.items() if value)
