r"""Stored rows as they could be: the real ones, their past alone, or a future that never happened.

A pipeline that looks at the past only gives the same values for session ``t`` in all of these. They are made
from *stored* rows (prices as the source gave them, with their factors), so that adjustment is under test too.

::

    rows as stored --roughen--> base --cut(t)-----> nothing after t exists
                                 \----alter(t)----> everything after t is different
    rows as stored --reanchor--> the same history, downloaded at another time
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I32, I64, Bools, Times
from barcast.core.calendar import Calendar

#: Columns that hold prices as the source gave them.
PRICES = ("open", "high", "low", "close", "close_raw")
#: Every n-th symbol gets a hole around the cut, a listing shortly before it, after it, or lost volumes.
ROUGHENED = 8
#: Sessions before and after the cut that a punched hole covers.
HOLE_REACH = 3
#: Sessions before the cut at which a made-young symbol is listed.
YOUNG_SESSIONS = 12
#: Part of the symbols that are copied to list new ones after the cut.
NEWCOMER_SHARE = 0.1
#: Every n-th symbol is told, after the cut, to have been under special treatment (ST) all the time.
SPECIAL = 3
#: Most sessions in a row that an altered symbol closes at its limit.
LIMIT_SESSIONS = 4
#: How the names of newcomers end.
NEWCOMER_MARK = "~new"
#: What becomes of a symbol in an altered future; the rest just moves.
ENDED, SPARSE, AT_LIMIT, SILENT, SPLIT = range(5)
NUM_FATES = 7


@dataclass(frozen=True)
class World:
    """One version of the data that a pipeline starts from.

    Attributes
    ----------
    frame : pl.DataFrame, R rows
        ``STORE_COLUMNS``, sorted by symbol and time.
    calendar : Calendar
        The sessions known.
    market : str
        ``cn``, ``us``, ``crypto`` or ``other``.
    status : pl.DataFrame or None
        Status table.
    conflicts : pl.DataFrame or None
        Rows that a source gave in several versions.
    changes : mapping of str to str
        What was done to a symbol, in words, for whoever reads a finding about it.
    """

    frame: pl.DataFrame
    calendar: Calendar
    market: str
    status: pl.DataFrame | None = None
    conflicts: pl.DataFrame | None = None
    changes: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def times(self) -> Times:
        """Bar time of each row in the calendar's unit, shape (R,)."""
        return self.frame["time"].to_numpy().astype(self.calendar.times.dtype)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Names in the order of the rows."""
        return tuple(self.frame["symbol"].rle().struct.field("value").to_list())

    @cached_property
    def lengths(self) -> I64:
        """Rows of each symbol, shape (S,)."""
        return self.frame["symbol"].rle().struct.field("len").to_numpy().astype(np.int64)

    @cached_property
    def owner(self) -> I32:
        """Position in ``symbols`` of each row, shape (R,)."""
        return np.repeat(np.arange(len(self.lengths), dtype=np.int32), self.lengths)

    def keep(self, rows: Bools) -> World:
        """Return the world with only those rows."""
        return replace(self, frame=self.frame.filter(pl.Series(rows)))

    def only(self, symbols: tuple[str, ...]) -> World:
        """Return the world with only those symbols."""
        return self.keep(np.isin(np.array(self.symbols), np.array(symbols))[self.owner])

    def after(self, session: int) -> Bools:
        """Return which rows lie after a session, shape (R,)."""
        return np.asarray(self.times > self.calendar.times[session])


def cut(world: World, session: int) -> World:
    """Return what was known after ``session`` closed: later rows, sessions and statuses are gone."""
    last = world.calendar.times[session]
    return replace(
        world,
        frame=world.frame.filter(pl.Series(~world.after(session))),
        calendar=replace(world.calendar, times=world.calendar.times[: session + 1]),
        status=_known(world.status, "known_at", last),
        conflicts=_known(world.conflicts, "time", last),
    )


def _known(table: pl.DataFrame | None, column: str, last: np.datetime64) -> pl.DataFrame | None:
    if table is None or table.is_empty():
        return table
    return table.filter(pl.Series(table[column].to_numpy() <= last))


def roughen(world: World, session: int, turn: int) -> World:
    """Give some symbols what makes leaks visible at ``session``, whatever the data happens to hold.

    By turns, symbols get a hole around the session (what is interpolated or filled back shows), a listing
    shortly before it (what is filled back into a warm-up shows), a listing after it (statistics over symbols
    not yet listed show), or lost volumes. Half of the symbols stay as they are.
    """
    role = (np.arange(len(world.symbols)) + turn) % ROUGHENED
    times, owner = world.times, role[world.owner]
    around = _between(world, session - HOLE_REACH, session + HOLE_REACH)
    young = times < world.calendar.times[max(session - YOUNG_SESSIONS, 0)]
    drop = (owner == 1) & around | (owner == 3) & young | (owner == 5) & ~world.after(session)
    lost = pl.Series((owner == 7) & around)
    words = {
        1: "bars around the cut left out for the test",
        3: f"listed {YOUNG_SESSIONS} sessions before the cut for the test",
        5: "listed after the cut for the test",
        7: "volume around the cut left out for the test",
    }
    changes = {s: words[r] for s, r in zip(world.symbols, role.tolist(), strict=True) if r in words}
    blank = [pl.when(lost).then(None).otherwise(pl.col(name)).alias(name) for name in ("volume", "amount")]
    frame = world.frame.with_columns(blank).filter(pl.Series(~drop))
    return replace(world, frame=_anchored_at_first(frame), changes=changes)


def _between(world: World, first: int, last: int) -> Bools:
    times = world.calendar.times
    low, high = times[max(first, 0)], times[min(last, len(times) - 1)]
    return np.asarray((world.times >= low) & (world.times <= high))


def _anchored_at_first(frame: pl.DataFrame) -> pl.DataFrame:
    """Divide factors by their first value: a symbol listed later has never heard of earlier ones."""
    ratios = [pl.col(name) / pl.col(name).first().over("symbol") for name in ("split_factor", "total_factor")]
    return frame.with_columns(ratios)


def alter(world: World, session: int, seed: int, *, within: bool = False) -> World:
    """Replace everything after ``session`` by a future that never happened.

    Every later bar gets other prices and another volume; by symbol, the future ends at once (with or without
    a delisting on record), loses bars, sits at its price limit, trades nothing, splits, or just moves; and
    symbols are listed that the real history never had.

    Parameters
    ----------
    within : bool
        Also change what the bars of ``session`` itself say beyond their open, for decisions at the open.
    """
    rng = np.random.default_rng([seed, session])
    start = session - 1 if within else session
    later = world.after(start)
    head, tail = world.keep(~later), world.keep(later)
    seen = tail.times <= world.calendar.times[session]
    fate = (np.arange(len(tail.symbols)) + int(rng.integers(NUM_FATES))) % NUM_FATES
    fated = fate[tail.owner]
    own = _moved(tail, rng, pl.Series(seen))
    own = _at_limits(own, head, start, fated == AT_LIMIT)
    own = _silent(own, pl.Series(fated == SILENT))
    own = _split(own, pl.Series((fated == SPLIT) & ~seen))
    lost = (fated == ENDED) | (fated == SPARSE) & (rng.random(len(fated)) < 0.5)
    ended = tuple(s for s, f in zip(tail.symbols, fate.tolist(), strict=True) if f == ENDED)
    frame = pl.concat([head.frame, own.filter(pl.Series(seen | ~lost)), _newcomers(tail.keep(~seen))])
    return replace(
        world,
        frame=frame.sort("symbol", "time", maintain_order=True),
        status=_with_later_facts(world, ended[::2], session),
    )


def _moved(tail: World, rng: np.random.Generator, seen: pl.Series) -> pl.DataFrame:
    """Give every bar other prices and another volume; the opens of ``seen`` bars stay."""
    rows = len(tail.times)
    level = np.exp(rng.normal(0, 0.3, len(tail.symbols)))[tail.owner]
    move = pl.Series(level * np.exp(rng.normal(0, 0.05, rows)))
    ratio = move * np.exp(rng.normal(0, 0.02, rows))
    reach = np.exp(np.abs(rng.normal(0, 0.01, (2, rows))))
    open_, close = pl.col("open"), pl.col("close")
    turned = pl.Series(np.exp(rng.normal(0, 1, rows)))
    changed = tail.frame.with_columns(
        pl.when(seen).then(open_).otherwise(open_ * move).alias("open"),
        *((pl.col(name) * ratio).alias(name) for name in ("close", "close_raw", "amount")),
        ((pl.col("volume") * turned).round() + 7).alias("volume"),
    ).with_columns(
        (pl.max_horizontal(open_, close) * pl.Series(reach[0])).alias("high"),
        (pl.min_horizontal(open_, close) / pl.Series(reach[1])).alias("low"),
    )
    return _as_before(changed, tail.frame)


def _at_limits(frame: pl.DataFrame, head: World, start: int, chosen: Bools) -> pl.DataFrame:
    """Let the chosen rows of the first sessions close ten percent up, to the cent, at their high."""
    last = dict(zip(head.symbols, np.cumsum(head.lengths) - 1, strict=True))
    closes = head.frame["close"].cast(pl.Float64).to_numpy()
    day = head.calendar.index(frame["time"].to_numpy()) - start
    prices = np.full(len(frame), np.nan)
    wanted = np.flatnonzero(chosen & (day >= 1) & (day <= LIMIT_SESSIONS))
    for row, name in zip(wanted.tolist(), frame["symbol"].gather(wanted).to_list(), strict=True):
        if name in last:
            prices[row] = closes[last[name]]
            for _ in range(int(day[row])):
                prices[row] = np.floor(prices[row] * 1.1 * 100 + 0.5) / 100
    limit = pl.Series(prices).fill_nan(None)
    changed = frame.with_columns(pl.coalesce(limit, name).alias(name) for name in ("high", "low", "close"))
    changed = changed.with_columns(
        pl.max_horizontal("high", "open").alias("high"), pl.min_horizontal("low", "open").alias("low")
    )
    return _as_before(changed, frame)


def _silent(frame: pl.DataFrame, chosen: pl.Series) -> pl.DataFrame:
    """Let nothing trade."""
    zero = pl.when(chosen).then(0.0)
    changed = frame.with_columns(zero.otherwise(pl.col(name)).alias(name) for name in ("volume", "amount"))
    return _as_before(changed, frame)


def _as_before(frame: pl.DataFrame, like: pl.DataFrame) -> pl.DataFrame:
    return frame.cast(dict(like.schema))  # type: ignore[arg-type]


def _split(frame: pl.DataFrame, chosen: pl.Series) -> pl.DataFrame:
    """Split shares as traded two for one, with a dividend; other bases hold adjusted prices already."""
    raw = chosen & (frame["basis"] == "raw")
    factors = {"total_factor": 2.1, "split_factor": 2.0}
    changed = [
        pl.when(raw).then(pl.col(name) * by).otherwise(pl.col(name)).alias(name)
        for name, by in factors.items()
    ]
    changed += [pl.when(raw).then(pl.col(name) / 2).otherwise(pl.col(name)).alias(name) for name in PRICES]
    return _as_before(frame.with_columns(changed), frame)


def _newcomers(tail: World) -> pl.DataFrame:
    """Copy some symbols' later rows under names that did not exist before."""
    step = max(round(1 / NEWCOMER_SHARE), 1)
    rows = tail.frame.filter(pl.Series(tail.owner % step == 0))
    return _anchored_at_first(rows.with_columns(pl.col("symbol") + NEWCOMER_MARK))


def _with_later_facts(world: World, ended: tuple[str, ...], session: int) -> pl.DataFrame | None:
    """Record delistings, and special treatment since the first day, that became known after the session."""
    days = world.calendar.days
    known = days[min(session + 2, len(days) - 1)]
    if known <= days[session]:
        return world.status
    special = world.symbols[::SPECIAL]
    told = pl.DataFrame(
        {
            "symbol": [*ended, *special],
            "kind": ["delisted"] * len(ended) + ["st"] * len(special),
            "start": [known.item()] * len(ended) + [days[0].item()] * len(special),
            "end": pl.Series([None] * (len(ended) + len(special)), dtype=pl.Date),
        }
    ).with_columns(pl.lit(known.item()).alias("known_at"))
    if world.status is None or world.status.is_empty():
        return told
    return pl.concat([world.status, told], how="diagonal")


def reanchor(world: World) -> tuple[World, F64]:
    """Return the history as a download with another anchor would give it, and each symbol's new scale.

    Prices that the source adjusted itself are only known up to a constant that later splits and dividends
    set. Powers of two change no rounding. Symbols with prices as traded keep them (scale 1).
    """
    starts = np.cumsum(world.lengths) - world.lengths
    adjusted = (world.frame["basis"].gather(starts) != "raw").to_numpy()
    scale = np.where(adjusted, np.where(np.arange(len(adjusted)) % 2, 0.5, 2.0), 1.0)
    by = pl.Series(scale[world.owner])
    columns = [(pl.col(name) * by).alias(name) for name in ("open", "high", "low", "close")]
    return replace(world, frame=_as_before(world.frame.with_columns(columns), world.frame)), scale
