"""Whether intraday bars carry the time they say they carry: the start of the bar, in UTC.

A bar stamped at its end and read as its start looks like any other: all bars move together, so features and
labels agree with themselves. It leaks as soon as anything else has a time: news of 12:30 is then traded at a
price of 12:00. Two things can give it away. On an exchange no bar starts at the close, and one starts at the
open. Anywhere, a second source of the same market ends its bars at the same prices at the same moments.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from barcast.audit.findings import Finding
from barcast.core.arrays import I64
from barcast.core.bars import Bars
from barcast.core.calendar import FREQUENCIES, ROUND_THE_CLOCK, Calendar
from barcast.sources.options import CLOSES

#: Local time at which regular trading begins.
OPENS = {
    "XSHG": "09:30", "XNYS": "09:30", "XHKG": "09:30", "XLON": "08:00", "XJPX": "09:00", "XKRX": "09:00",
}  # fmt: skip
#: Share of days that must agree before a pattern counts.
MOST_DAYS = 0.8
#: Bars that two sources must share before their times can be compared.
MIN_SHARED = 100
#: The right alignment is at least this many times closer than the one in use.
CLEARLY_CLOSER = 2.0


def check_session_hours(calendar: Calendar) -> tuple[list[Finding], str]:
    """Compare the first and last bar of each day with the exchange's hours.

    Returns
    -------
    tuple
        The finding, if any; and a note where nothing can be said.
    """
    if calendar.is_daily:
        return [], ""
    if calendar.name not in OPENS or not len(calendar):
        return [], (
            f"intraday stamps cannot be checked on calendar `{calendar.name}`, which has no opening hours: "
            "compare with a second source (--against WORKSPACE)"
        )
    step = FREQUENCIES[calendar.frequency] // 60
    zone, close = CLOSES[calendar.name]
    first, last = _daily_ends(calendar, zone)
    opens = _minutes(OPENS[calendar.name])
    closes = close.hour * 60 + close.minute
    starts_at_close = float(np.mean(last >= closes))
    starts_by_open = float(np.mean(first <= opens))
    if starts_at_close >= MOST_DAYS and starts_by_open <= 1 - MOST_DAYS:
        return [_hours_finding(calendar, int(last.max()), "end", closes, starts_at_close)], ""
    ends_early = float(np.mean(last <= closes - 2 * step))
    starts_before = float(np.mean((first < opens) & (first >= opens - step)))
    if starts_before >= MOST_DAYS and ends_early >= MOST_DAYS:
        return [_hours_finding(calendar, int(first.min()), "start", opens, starts_before)], ""
    return [], ""


def _daily_ends(calendar: Calendar, zone: str) -> tuple[I64, I64]:
    """Return the local minute of the first and last bar start of each local day."""
    local = pl.Series(calendar.times.astype("datetime64[us]")).dt.replace_time_zone("UTC")
    local = local.dt.convert_time_zone(zone)
    minute = (local.dt.hour().cast(pl.Int64) * 60 + local.dt.minute()).alias("minute")
    days = pl.DataFrame({"day": local.dt.date(), "minute": minute}).group_by("day")
    ends = days.agg(pl.col("minute").min().alias("first"), pl.col("minute").max().alias("last"))
    return ends["first"].to_numpy(), ends["last"].to_numpy()


def _minutes(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def _hours_finding(calendar: Calendar, minute: int, truly: str, border: int, share: float) -> Finding:
    hours = "starts at or after the close" if truly == "end" else "starts before the open"
    other = "start" if truly == "end" else "end"
    return Finding(
        check="intraday stamp", stage="stamps", column="time", time=str(calendar.times[0]),
        found=f"a bar starting {_clock(minute)}", expected=f"{_clock(border)} is the border",
        detail=f"on {share:.0%} of the days of {calendar.name} a bar {hours}: stamps of the {truly} of "
        f"bars were read as their {other}; import again with --stamp {truly}",
        num_values=len(calendar), columns=("time",),
    )  # fmt: skip


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d} local"


def check_against(bars: Bars, other: Bars) -> tuple[list[Finding], int, str]:
    """Compare the moments at which bars end with those of a second source, of this or another resolution.

    Two bars that end at the same moment close at the same price. If prices agree better when the bars are
    moved by one bar, their stamps were misread.

    Returns
    -------
    tuple
        The finding, if any; how many bars were compared; and a note where too few are shared.
    """
    seconds = _seconds(bars.calendar)
    if seconds != _seconds(other.calendar):
        return [], 0, "daily sessions of an exchange were not compared with intraday bars: their ends differ"
    ours, theirs = _ends(bars, seconds), _ends(other, seconds)
    steps = {_step(bars.calendar, seconds), _step(other.calendar, seconds)}
    shifts = [0, *(sign * step for step in steps for sign in (-1, 1))]
    distances = {shift: _distance(ours, theirs, shift) for shift in shifts}
    now, shared = distances[0]
    usable = {shift: d for shift, (d, n) in distances.items() if n >= MIN_SHARED}
    if not usable:
        return (
            [],
            shared,
            "the second source shares too few symbols and bars: stamps were not compared with it",
        )
    best = min(usable, key=lambda shift: (usable[shift], abs(shift)))
    if best == 0 or (shared >= MIN_SHARED and now <= CLEARLY_CLOSER * usable[best] + 1e-9):
        return [], shared, ""
    unit = "seconds" if seconds else "days"
    finding = Finding(
        check="second source", stage="stamps", column="time", time=str(bars.calendar.times[0]),
        found=f"closes {now:.2%} apart", expected=f"{usable[best]:.2%} apart when moved by {best:+d} {unit}",
        detail=f"{distances[best][1]} bars agree with the second source only when their stamps are moved by "
        f"{best:+d} {unit}: one of the two was imported with the wrong --stamp (or the wrong --tz)",
        num_values=distances[best][1], columns=("time",),
    )  # fmt: skip
    return [finding], distances[best][1], ""


def _seconds(calendar: Calendar) -> bool:
    """Return whether bars end at a moment that seconds can name; an exchange's day ends when it closes."""
    return not calendar.is_daily or calendar.name == ROUND_THE_CLOCK


def _step(calendar: Calendar, seconds: bool) -> int:
    return FREQUENCIES[calendar.frequency] if seconds else 1


def _ends(bars: Bars, seconds: bool) -> pl.DataFrame:
    """Return symbol, end of bar (in seconds, or the day) and log close."""
    start = bars.times.astype("datetime64[s]" if seconds else "datetime64[D]").astype(np.int64)
    return pl.DataFrame(
        {
            "symbol": pl.Series(bars.symbols).gather(bars.symbol_of_row),
            "end": start + (_step(bars.calendar, seconds) if seconds else 0),
            "close": np.log(bars.close),
        }
    )


def _distance(ours: pl.DataFrame, theirs: pl.DataFrame, shift: int) -> tuple[float, int]:
    """Return the median difference of log closes when our ends are moved by ``shift``, and of how many bars.

    A constant per symbol is taken out first: two sources may adjust prices differently.
    """
    moved = ours.with_columns(pl.col("end") + shift)
    both = moved.join(theirs, on=["symbol", "end"], how="inner")
    if both.is_empty():
        return float("inf"), 0
    gap = both.select((pl.col("close") - pl.col("close_right")).alias("gap"), "symbol")
    apart = gap.select((pl.col("gap") - pl.col("gap").median().over("symbol")).abs().median()).item()
    return float(apart), len(both)
