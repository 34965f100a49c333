"""From split columns to canonical rows: declared things settled, values read, symbols and times made ours.

Work is done on many small files at once: pieces of equal shape are stacked first, so that three thousand
files cost about as much as one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from barcast.core.bars import BASES
from barcast.core.errors import DataError, SymbolError, UsageError
from barcast.core.symbols import Reading, read_symbols
from barcast.sources.base import (
    FAILURE_SCHEMA,
    VALUE_COLUMNS,
    Chunk,
    Piece,
    failure,
    failure_table,
    row_schema,
)
from barcast.sources.headers import PRICES, missing_roles
from barcast.sources.numbers import to_floats, why_no_number
from barcast.sources.options import LOT_SHARES, ImportOptions
from barcast.sources.times import add_clock, bar_starts, read_moments, session_dates, zone_and_stamp

_TIMES = ("stamp", "date", "clock")
_NUMBERS = (*PRICES, "volume", "amount", "factor", "split_factor")


@dataclass(frozen=True)
class _Settled:
    """One piece after everything that had to be declared is known."""

    frame: pl.DataFrame
    volume_scale: int
    amount_scale: int
    basis: str | None
    ignored: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def shape(self) -> tuple[object, ...]:
        """Pieces of equal shape can be stacked."""
        return (tuple(self.frame.schema.items()), self.volume_scale, self.amount_scale, self.basis)


def understand(pieces: Sequence[Piece], options: ImportOptions) -> Chunk:
    """Turn pieces into a chunk.

    Parameters
    ----------
    pieces : sequence of Piece
        Files or frames.
    options : ImportOptions
        Resolved.

    Returns
    -------
    Chunk
        What could be read, and a failure row for each file and cell that could not.

    Raises
    ------
    UsageError
        When basis, volume unit, date order, zone or frequency would have to be guessed.
    """
    failures: list[dict[str, object]] = []
    stacks: dict[tuple[object, ...], list[_Settled]] = defaultdict(list)
    for number, piece in enumerate(pieces):
        try:
            settled = _settle(piece, number, options)
        except DataError as error:
            kind = "symbol" if isinstance(error, SymbolError) else "columns"
            failures.append(failure(kind, str(error), file=piece.name))
            continue
        if settled.frame.is_empty():
            failures.append(failure("empty", "a header and no rows", file=piece.name))
        stacks[settled.shape].append(settled)
    files = tuple(piece.name for piece in pieces)
    parts = [_read_stack(stack, files, options) for stack in stacks.values()]
    empty = pl.DataFrame(schema=row_schema(intraday=options.intraday))
    rows = pl.concat([empty, *(part.rows.select(empty.columns) for part in parts)])
    pieces_read = [settled for stack in stacks.values() for settled in stack]
    return Chunk(
        rows=rows,
        failures=pl.concat([failure_table(failures), *(part.failures for part in parts)]),
        files=files,
        readings={spelling: reading for part in parts for spelling, reading in part.readings.items()},
        ignored=tuple(dict.fromkeys(name for settled in pieces_read for name in settled.ignored)),
        notes=tuple(dict.fromkeys(note for settled in pieces_read for note in settled.notes)),
        num_read=sum(part.num_read for part in parts),
        num_without_prices=sum(part.num_without_prices for part in parts),
    )


def _settle(piece: Piece, number: int, options: ImportOptions) -> _Settled:
    """Name columns by their role and settle what numbers cannot say."""
    header = piece.header
    if missing := missing_roles(header):
        raise DataError(
            f"no column for {', '.join(missing)}; columns: {', '.join(piece.frame.columns) or 'none'}",
            f"name them, for example --column NAME={missing[0]}",
        )
    if "symbol" not in header.roles and piece.symbol is None:
        raise SymbolError(
            f"no column, title or file name gives the symbol: `{Path(piece.name).name}` names none of market "
            f"{options.market}",
            "rename the file, or --symbol NAME for a single one; another market needs another --workspace",
        )
    try:
        basis, basis_notes = _settle_basis(piece, options)
        scale, volume_notes = _settle_volume(piece, options)
    except UsageError as error:
        raise _all_questions(piece, options) from error
    roles = dict(header.roles)
    unused = ["adj_close", "factor"] if basis == "adjusted" else ["close_raw"] if basis == "raw" else []
    ignored = [roles.pop(role) for role in unused if role in roles]
    frame = piece.frame.select(pl.col(name).alias(role) for role, name in roles.items())
    extra = [pl.lit(number, pl.UInt32).alias("file"), _lines(piece.first_line)]
    if "symbol" not in roles:
        extra.append(pl.lit(piece.symbol, pl.String).alias("symbol"))
    frame = frame.with_columns(extra).filter(~pl.all_horizontal(pl.col(sorted(roles)).is_null()))
    return _Settled(
        frame=frame.select(sorted(frame.columns)),
        volume_scale=scale,
        amount_scale=header.amount_scale,
        basis=basis,
        ignored=(*header.ignored, *ignored),
        notes=(*piece.notes, *basis_notes, *volume_notes),
    )


def _all_questions(piece: Piece, options: ImportOptions) -> UsageError:
    """Ask at once for everything about a piece that is not known."""
    asked: list[UsageError] = []
    for settle in (_settle_basis, _settle_volume, _settle_times):
        try:
            settle(piece, options)
        except UsageError as error:
            asked.append(error)
    found = "; ".join(error.found for error in asked)
    return UsageError(
        f"{piece.name}: {found}", f"add {', '.join(e.todo.removeprefix('add ') for e in asked)}"
    )


def _lines(first: int) -> pl.Expr:
    return pl.int_range(first, pl.len() + first, dtype=pl.Int64).alias("line")


def _settle_basis(piece: Piece, options: ImportOptions) -> tuple[str | None, list[str]]:
    """Return the basis, None where a column of the file gives it for each row."""
    header, declared = piece.header, options.basis
    if "basis" in header.roles:
        return None, ["basis as the file's own column says"]
    if header.basis and declared and (header.basis == "raw") != (declared == "raw"):
        raise DataError(f"the file says its prices are {header.basis}, the command says {declared}")
    if declared:
        return declared, []
    if header.basis:
        return header.basis, [f"basis {header.basis}: the file's title or header says so"]
    if "close_raw" in header.roles:
        return "adjusted", ["basis adjusted: the raw close stands beside the close"]
    raise UsageError(
        "whether its prices are adjusted is not known",
        "add --basis raw|split|adjusted (as traded; adjusted for splits only; for dividends too)",
    )


def _settle_volume(piece: Piece, options: ImportOptions) -> tuple[int, list[str]]:
    """Return the shares in one unit of the volume column."""
    header = piece.header
    if "volume" not in header.roles:
        return 1, ["some files have no volume"]
    declared = {"lot": LOT_SHARES, "share": 1}.get(options.volume_unit or "")
    said = header.volume_scale
    if said and declared and (said % LOT_SHARES == 0) != (declared == LOT_SHARES):
        raise DataError(f"header `{header.roles['volume']}` contradicts --volume-unit {options.volume_unit}")
    if said:
        return said, [f"volume unit: {said} shares, as header `{header.roles['volume']}` says"]
    if declared is None:
        raise UsageError(
            f"the unit of `{header.roles['volume']}` is not known",
            "add --volume-unit share|lot (lot: 手, 100 shares)",
        )
    return declared, []


def _settle_times(piece: Piece, options: ImportOptions) -> pl.Series:
    """Read a piece's times."""
    times = {role: name for role, name in piece.header.roles.items() if role in _TIMES}
    return _read_times(piece.frame.select(pl.col(name).alias(role) for role, name in times.items()), options)


@dataclass(frozen=True)
class _Part:
    rows: pl.DataFrame
    failures: pl.DataFrame
    readings: dict[str, Reading]
    num_read: int
    num_without_prices: int


def _read_stack(stack: list[_Settled], files: tuple[str, ...], options: ImportOptions) -> _Part:
    """Understand the values of pieces of equal shape."""
    first = stack[0]
    raw = pl.concat([settled.frame for settled in stack])
    where = raw.select("file", "line", spelling=pl.col("symbol").cast(pl.String).str.strip_chars())
    columns, bad = {}, []
    for role in _NUMBERS:
        if role in raw.columns:
            columns[role], wrong = to_floats(raw[role], options.decimal or ".")
            if wrong.any():
                why = why_no_number(options.decimal or ".")
                bad.append(_bad_cells(raw, where, role, wrong, "value", why))
    time = _read_times(raw, options)
    if time.null_count():
        given = next(role for role in _TIMES if role in raw.columns)
        why = pl.lit("not a time that can be read")
        bad.append(_bad_cells(raw, where, given, time.is_null(), "time", why))
    spellings = where["spelling"].drop_nulls().unique().sort()
    readings, reasons = read_symbols(spellings, options.market or "other")
    rows = _assembled(first, columns, time, where, raw)
    rows, unknown = _with_symbols(rows, readings, reasons)
    no_prices = pl.all_horizontal(pl.col("open", "high", "low", "close").is_null())
    failures = pl.concat([*bad, unknown]) if bad or len(unknown) else None
    if bad:
        rows = rows.join(pl.concat(bad).select("file", "line"), on=["file", "line"], how="anti")
    num_without = rows.select(no_prices.sum()).item()
    return _Part(
        rows=rows.filter(~no_prices) if num_without else rows,
        failures=_named_files(failures, files),
        readings=readings,
        num_read=len(raw),
        num_without_prices=num_without,
    )


def _read_times(raw: pl.DataFrame, options: ImportOptions) -> pl.Series:
    """Session dates, or UTC bar starts."""
    role = next(role for role in _TIMES if role in raw.columns)
    moments = read_moments(raw[role], options.date_order)
    if role == "date" and "clock" in raw.columns:
        moments = add_clock(moments, raw["clock"])
    if not options.intraday:
        return session_dates(moments, options.tz)
    if options.tz is None or options.stamp is None:
        raise UsageError(
            f"bars of {options.frequency} need more to be said", f"add {zone_and_stamp(moments, options.tz)}"
        )
    return bar_starts(moments, options.tz, options.stamp, options.step_seconds)


def _assembled(
    first: _Settled, columns: dict[str, pl.Series], time: pl.Series, where: pl.DataFrame, raw: pl.DataFrame
) -> pl.DataFrame:
    """Give the rows their canonical columns; ``factor`` is adjusted over given price, to any anchor."""
    rows = where.with_columns(time.alias("time"), *(s.alias(name) for name, s in columns.items()))
    level = pl.lit(None, pl.Float64)
    if "factor" in columns:
        level = pl.col("factor")
    elif "adj_close" in columns:
        level = pl.col("adj_close") / pl.col("close")
    if first.volume_scale != 1:
        rows = rows.with_columns(pl.col("volume") * first.volume_scale)
    if first.amount_scale != 1:
        rows = rows.with_columns(pl.col("amount") * first.amount_scale)
    absent = [pl.lit(None, pl.Float64).alias(n) for n in VALUE_COLUMNS if n not in rows.columns]
    basis = pl.lit(first.basis, pl.String) if first.basis else raw["basis"].cast(pl.String)
    rows = rows.with_columns(*absent, basis.alias("basis") if isinstance(basis, pl.Expr) else basis)
    usable = level.is_finite() & (level > 0) & (pl.col("basis") != "adjusted")
    return rows.with_columns(pl.when(usable).then(level).alias("factor"))


def _with_symbols(
    rows: pl.DataFrame, readings: dict[str, Reading], reasons: dict[str, str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Add canonical symbols; rows whose symbol or basis cannot be read become failures."""
    names = pl.DataFrame(
        {"spelling": list(readings), "symbol": [r.symbol for r in readings.values()]},
        schema={"spelling": pl.String, "symbol": pl.String},
    )
    rows = rows.join(names, on="spelling", how="left", maintain_order="left")
    known = pl.col("symbol").is_not_null() & pl.col("basis").is_in(BASES)
    if rows.select(known.all()).item():
        return rows, _no_cells()
    lost = rows.filter(~known.fill_null(False))
    why = pl.col("spelling").replace_strict(
        list(reasons), list(reasons.values()), default="the symbol is empty", return_dtype=pl.String
    )
    told = lost.select(
        kind=pl.when(pl.col("symbol").is_null()).then(pl.lit("symbol")).otherwise(pl.lit("basis")),
        file="file",
        line="line",
        symbol=pl.coalesce("symbol", "spelling"),
        column=pl.when(pl.col("symbol").is_null()).then(pl.lit("symbol")).otherwise(pl.lit("basis")),
        value=pl.when(pl.col("symbol").is_null()).then("spelling").otherwise("basis"),
        reason=pl.when(pl.col("symbol").is_null()).then(why).otherwise(pl.lit("not a basis")),
    )
    return rows.filter(known.fill_null(False)), told.cast({"line": pl.Int64})


def _bad_cells(
    raw: pl.DataFrame, where: pl.DataFrame, column: str, wrong: pl.Series, kind: str, reason: pl.Expr
) -> pl.DataFrame:
    cells = where.with_columns(raw[column].cast(pl.String).alias("value")).filter(wrong)
    return cells.select(
        kind=pl.lit(kind),
        file="file",
        line="line",
        symbol="spelling",
        column=pl.lit(column),
        value="value",
        reason=reason,
    )


def _no_cells() -> pl.DataFrame:
    return pl.DataFrame(schema={**FAILURE_SCHEMA, "file": pl.UInt32})


def _named_files(failures: pl.DataFrame | None, files: tuple[str, ...]) -> pl.DataFrame:
    if failures is None:
        return failure_table([])
    names = pl.Series("file", files).gather(failures["file"])
    return failures.with_columns(names).select(list(FAILURE_SCHEMA))
