"""Defects of a symbol's life or of the panel: holes, dead prices, thin sessions, lost factors, survivors."""

from __future__ import annotations

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I32, Bools
from barcast.core.bars import LONG_HOLE_SESSIONS
from barcast.quality.table import WHOLE_PANEL, Table, row_numbers

#: A symbol whose close does not change on more than this share of its bars, counted from this many bars on.
STALE_SHARE, STALE_BARS = 0.5, 10
#: A session with fewer bars than this share of the median of the 20 before.
THIN_SHARE, THIN_LOOKBACK, THIN_LEAST = 0.9, 20, 10
#: Delistings a year, as a share of the symbols, below which a panel holds survivors only; panels of fewer
#: symbols may have none by chance of size, so for them one ended symbol is enough.
DELISTED_A_YEAR, LARGE_PANEL = 0.002, 500
#: Shortest panel, in years, of which survival can be judged.
LEAST_YEARS = 1.0
#: As-traded prices without any factor for this many years have lost their splits and dividends.
FACTORLESS_YEARS = 1.0


def panel_findings(table: Table) -> list[pl.DataFrame]:
    """Name holes, stale and ended symbols, thin sessions, panels of survivors, raw prices without factors."""
    since = table.session.max() - np.maximum.reduceat(table.session, table.offsets[:-1])
    return [
        *_holes(table),
        _stale(table),
        _ended(table, since),
        _thin_sessions(table),
        *_survivors(table, since),
        *_factorless(table),
    ]


def _holes(table: Table) -> list[pl.DataFrame]:
    """Name the first bar after each hole; ``value`` counts the missing sessions."""
    on = row_numbers(table.session >= 0)
    session = table.session[on]
    same = np.diff(table.symbol_of_row[on], prepend=-1) == 0
    missing = np.where(same, np.diff(session, prepend=0) - 1, 0)
    hole = missing > 0
    rows, length = on[hole], missing[hole].astype(np.float64)
    words = _missing_range(table, session[hole], missing[hole])
    long = length > LONG_HOLE_SESSIONS * table.calendar.bars_per_day
    return [
        table.findings(kind, rows[which], length[which], [words[i] for i in np.flatnonzero(which)])
        for kind, which in (("hole", ~long), ("long_hole", long))
    ]


def _missing_range(table: Table, session: I32, missing: I32) -> list[str]:
    first, last = table.calendar.times[session - missing], table.calendar.times[session - 1]
    return [f"no bars {a} .. {b}" if a != b else f"no bar {a}" for a, b in zip(first, last, strict=True)]


def _stale(table: Table) -> pl.DataFrame:
    moved = np.isfinite(table.raw_return)
    returns = _by_symbol(table, moved)
    unchanged = _by_symbol(table, moved & (table.raw_return == 0) & (table.factor_step == 0))
    share = unchanged / np.maximum(returns, 1)
    which = np.flatnonzero((share > STALE_SHARE) & (np.diff(table.offsets) >= STALE_BARS))
    words = [f"{unchanged[s]:.0f} of {returns[s]:.0f} returns are exactly 0" for s in which]
    first, last = table.offsets[which], table.offsets[which + 1] - 1
    return table.findings("stale_symbol", first, share[which], words, last)


def _by_symbol(table: Table, condition: Bools) -> F64:
    counts = np.bincount(table.symbol_of_row[condition], minlength=len(table.symbols))
    return counts.astype(np.float64)


def _thin_sessions(table: Table) -> pl.DataFrame:
    """Name sessions with far fewer bars than those before them."""
    on = table.session[table.session >= 0]
    counts = np.bincount(on, minlength=len(table.calendar))
    usual = pl.Series(counts).shift(1).rolling_median(THIN_LOOKBACK, min_samples=5).to_numpy()
    with np.errstate(invalid="ignore"):
        thin = np.flatnonzero((counts < THIN_SHARE * usual) & (usual >= THIN_LEAST))
    times = pl.Series("time", table.calendar.times[thin].astype("datetime64[us]"))
    times = times.cast(table.frame.schema["time"])
    return pl.DataFrame(
        {
            "kind": pl.Series(["thin_session"] * len(thin), dtype=pl.String),
            "symbol": pl.Series([WHOLE_PANEL] * len(thin), dtype=pl.String),
            "time": times,
            "until": times,
            "value": counts[thin] / usual[thin],
            "detail": pl.Series([f"{counts[t]} bars, usually {usual[t]:.0f}" for t in thin], dtype=pl.String),
            "file": pl.Series([None] * len(thin), dtype=pl.String),
        }
    )


def _years(table: Table) -> float:
    times = table.frame["time"].to_numpy()
    return float((times.max() - times.min()) / np.timedelta64(1, "D")) / 365.25


def _ended(table: Table, since: I32) -> pl.DataFrame:
    which = np.flatnonzero(since > 0)
    return table.findings("ended_symbol", table.offsets[which + 1] - 1, since[which].astype(np.float64))


def _survivors(table: Table, since: I32) -> list[pl.DataFrame]:
    """Say when hardly any symbol ends before the panel does."""
    years, total = _years(table), len(table.symbols)
    if years < LEAST_YEARS or total < 2:
        return []
    ended = int((since > LONG_HOLE_SESSIONS * table.calendar.bars_per_day).sum())
    if ended and (total < LARGE_PANEL or ended / total / years >= DELISTED_A_YEAR):
        return []
    words = (
        f"{ended} of {total} symbols end before the last {LONG_HOLE_SESSIONS} sessions of {years:.1f} years"
    )
    return [table.panel_finding("no_delisted_symbol", ended / total, words)]


def _factorless(table: Table) -> list[pl.DataFrame]:
    """Say when as-traded prices come without any factor."""
    raw = (table.frame["basis"] == "raw").to_numpy() & (table.market != "crypto")
    if _years(table) < FACTORLESS_YEARS or not raw.any() or (table.column("total_factor")[raw] != 1).any():
        return []
    words = f"{len(np.unique(table.symbol_of_row[raw]))} symbols with prices as traded, and every factor is 1"
    return [table.panel_finding("no_factors", float(raw.mean()), words)]
