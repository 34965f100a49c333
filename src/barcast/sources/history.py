"""From canonical rows to a history fit for the store: one row a bar, factors anchored, nothing of the future.

Factors: the level ``adj_close / close`` (or the file's factor column), divided by its first value, is
``total_factor``. A step of it outside [0.8, 1.25] between two bars is taken for a split, the rest for
dividends; ``split_factor`` is the running product of the split steps. A bar without a level keeps the level
before it. ``split_factor`` is 1 where the volume is adjusted already: with basis ``split``, or ``raw`` and
``volume_adjusted``. With basis ``adjusted`` both are 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from barcast.core.bars import STORE_COLUMNS
from barcast.core.errors import SymbolError
from barcast.core.symbols import check_collisions, describe_prefixes
from barcast.core.texts import some
from barcast.sources.base import VALUE_COLUMNS, Chunk, failure_table
from barcast.sources.options import CLOSES, ImportOptions

#: A factor step outside these bounds counts as a split.
SPLIT_STEP = (0.8, 1.25)


@dataclass(frozen=True)
class History:
    """What one import or update brings.

    Attributes
    ----------
    rows : pl.DataFrame
        Columns of ``STORE_COLUMNS``, sorted by symbol and time, unique; factors anchored at the first bar of
        each symbol *in these rows*.
    linked : tuple of str
        Symbols whose source gave factors; the others' factors are 1 because nothing was said.
    conflicts : pl.DataFrame
        All rows of each (symbol, time) that was given more than once with different values; ``kept`` marks
        the last one, which is in ``rows``.
    failures : pl.DataFrame
        As ``FAILURE_SCHEMA``.
    notes : tuple of str
        For people.
    num_read, num_repeated, num_unfinished, num_without_prices : int
        Rows read; identical repeats, unfinished bars and rows without a price left out.
    """

    rows: pl.DataFrame
    linked: tuple[str, ...]
    conflicts: pl.DataFrame
    failures: pl.DataFrame
    notes: tuple[str, ...]
    num_read: int
    num_repeated: int
    num_unfinished: int
    num_without_prices: int


def assemble(
    chunks: Sequence[Chunk], options: ImportOptions, stored: Sequence[str] = (), now: datetime | None = None
) -> History:
    """Join chunks into one history.

    Parameters
    ----------
    chunks : sequence of Chunk
        In the order of their files.
    options : ImportOptions
        Resolved.
    stored : sequence of str
        Symbols the store has already.
    now : datetime, optional
        The present, aware.

    Raises
    ------
    SymbolError
        When a code could mean two securities, or two spellings of one symbol carry different data.
    """
    readings = {spelling: reading for chunk in chunks for spelling, reading in chunk.readings.items()}
    check_collisions(readings, stored)
    files = [name for chunk in chunks for name in chunk.files]
    rows, failures = _stacked(chunks), pl.concat([chunk.failures for chunk in chunks])
    rows, future, unfinished = _finished(rows, options, now or datetime.now(UTC))
    rows, conflicts, repeated = _deduplicated(rows)
    conflicts = _named(conflicts, files).sort("symbol", "time", "file", "line")
    _check_spellings(conflicts)
    if len(future):
        failures = pl.concat([failures, _future_failures(_named(future, files))])
    store_rows, linked, carried = _with_factors(rows, volume_adjusted=options.volume_adjusted)
    without = sum(chunk.num_without_prices for chunk in chunks)
    notes = [*describe_prefixes(readings), *(note for chunk in chunks for note in chunk.notes)]
    ignored = dict.fromkeys(name for chunk in chunks for name in chunk.ignored)
    notes += [f"columns not used: {', '.join(ignored)}"] if ignored else []
    notes += [f"{without} rows without any price left out"] if without else []
    notes += [f"{repeated} identical repeats left out"] if repeated else []
    notes += [f"{carried} bars without a factor keep the one before"] if carried else []
    notes += [_describe_unfinished(unfinished)] if len(unfinished) else []
    return History(
        rows=store_rows,
        linked=linked,
        conflicts=conflicts,
        failures=failures,
        notes=tuple(dict.fromkeys(notes)),
        num_read=sum(chunk.num_read for chunk in chunks),
        num_repeated=repeated,
        num_unfinished=len(unfinished),
        num_without_prices=without,
    )


def _stacked(chunks: Sequence[Chunk]) -> pl.DataFrame:
    """All rows, sorted by symbol, time and the order in which they were given."""
    frames, offset = [], 0
    for chunk in chunks:
        frames.append(
            chunk.rows.with_columns((pl.col("file") + offset).cast(pl.UInt32)) if offset else chunk.rows
        )
        offset += len(chunk.files)
    rows = pl.concat(frames)
    symbol, before = pl.col("symbol"), pl.col("symbol").shift(1)
    in_order = (symbol > before) | ((symbol == before) & (pl.col("time") > pl.col("time").shift(1)))
    if rows.select(in_order.all()).item():
        return rows
    # numbers sort several times faster than names
    ranks = rows.select(symbol.unique().sort()).with_row_index("rank")
    ranked = rows.join(ranks, on="symbol", how="left", maintain_order="left")
    return ranked.sort("rank", "time", "file", "line", maintain_order=True).drop("rank")


def _finished(
    rows: pl.DataFrame, options: ImportOptions, now: datetime
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Split off bars of the future and bars that have not ended yet."""
    present = now.astimezone(UTC).replace(tzinfo=None)
    if options.intraday:
        future = pl.col("time") > present
        unfinished = ~future & (pl.col("time") > present - timedelta(seconds=options.step_seconds))
    else:
        zone, close = CLOSES.get(options.calendar or "", (options.tz or "UTC", time.max))
        local = now.astimezone(ZoneInfo(zone))
        future = pl.col("time") > local.date()
        unfinished = (pl.col("time") == local.date()) & pl.lit(local.time() < close)
    late = rows.select((future | unfinished).any()).item()
    if not late:
        return rows, rows.clear(), rows.clear()
    return rows.filter(~(future | unfinished)), rows.filter(future), rows.filter(unfinished)


def _deduplicated(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Keep the last row of each (symbol, time); return rows, conflicts and the count of identical repeats."""
    key = ["symbol", "time"]
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in key).fill_null(False)
    repeat = rows.select(same)[:, 0]
    if not repeat.any():
        return rows, rows.clear().with_columns(kept=pl.lit(None, pl.Boolean)), 0
    last = ~repeat.shift(-1).fill_null(False)
    involved = rows.with_columns(kept=last).filter(repeat | ~last)
    values = [*VALUE_COLUMNS, "basis"]
    distinct = involved.unique([*key, *values], keep="last", maintain_order=True)
    differing = distinct.filter(pl.len().over(key) > 1)
    return rows.filter(last), differing, len(involved) - len(distinct)


def _check_spellings(conflicts: pl.DataFrame) -> None:
    """Refuse two spellings of one symbol that carry different data."""
    several = (
        conflicts.group_by("symbol", "time", maintain_order=True)
        .agg(pl.col("spelling").unique().sort(), pl.col("file").unique().sort())
        .filter(pl.col("spelling").list.len() > 1)
    )
    if several.is_empty():
        return
    found: dict[str, str] = {}
    for symbol, moment, spellings, files in several.iter_rows():
        where = f"{moment} in {', '.join(files[:2])}"
        found.setdefault(symbol, f"{' and '.join(spellings)} both mean {symbol} but differ, first on {where}")
    raise SymbolError(
        some(list(found.values()), "; "),
        "keep one of the files, or write the exchange if they are two securities",
    )


def _future_failures(rows: pl.DataFrame) -> pl.DataFrame:
    told = rows.with_columns(
        kind=pl.lit("future"),
        column=pl.lit("time"),
        value=pl.col("time").cast(pl.String),
        reason=pl.lit("lies in the future"),
    )
    return told.select(failure_table([]).columns)


def _named(rows: pl.DataFrame, files: list[str]) -> pl.DataFrame:
    return rows.with_columns(pl.Series("file", files, pl.String).gather(rows["file"]).alias("file"))


def _with_factors(rows: pl.DataFrame, *, volume_adjusted: bool) -> tuple[pl.DataFrame, tuple[str, ...], int]:
    """Turn levels into cumulative factors; return rows, symbols with levels, and how many were carried."""
    if not rows["factor"].count():
        one = pl.lit(1.0)
        return rows.with_columns(total_factor=one, split_factor=one).select(STORE_COLUMNS), (), 0
    linked = rows.filter(pl.col("factor").is_not_null())["symbol"].unique().sort()
    has_level = pl.col("symbol").is_in(linked.implode())
    carried = rows.select((has_level & pl.col("factor").is_null()).sum()).item()
    level = pl.col("factor").forward_fill().backward_fill().over("symbol")
    total = (pl.col("level") / pl.col("level").first().over("symbol")).fill_null(1.0)
    step = pl.col("total_factor") / pl.col("total_factor").shift(1).over("symbol")
    is_split = ~step.is_between(*SPLIT_STEP) & (pl.col("basis") == "raw") & pl.lit(not volume_adjusted)
    told = pl.col("split_factor") / pl.col("split_factor").first().over("symbol")
    by_steps = pl.when(is_split).then(step).otherwise(1.0).cum_prod().over("symbol")
    done = (
        rows.with_columns(level=level)
        .with_columns(total_factor=total)
        .with_columns(split_factor=pl.coalesce(told, by_steps))
    )
    return done.select(STORE_COLUMNS), tuple(linked), carried


def _describe_unfinished(rows: pl.DataFrame) -> str:
    first = rows.row(0, named=True)
    return f"{len(rows)} bars that have not ended yet left out, e.g. {first['symbol']} {first['time']}"
