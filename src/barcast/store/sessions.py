"""Which of the times seen in a store are sessions of its calendar."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from statistics import median

import numpy as np
import polars as pl

from barcast.core.arrays import I32, I64, Times
from barcast.core.bars import LONG_HOLE_SESSIONS
from barcast.core.calendar import OBSERVED, Calendar, build_calendar

#: An observed day counts as a session when so many of the usual symbols trade.
QUORUM = 0.05
#: "Usual" is the median over so many earlier sessions.
QUORUM_SESSIONS = 20
#: Fewer sessions than this at either end, apart from the rest, serve no window: stray dates.
LEAST_SESSIONS = 20


def calendar_of(counts: pl.DataFrame, name: str, frequency: str) -> Calendar:
    """Build the calendar from the bars seen, without stray dates before and after the market's own.

    A calendar begins with the first stretch of 20 sessions that no hole of more than 20 breaks: what lies
    before such a hole is no history of what follows. It ends with the last day that has a quorum, unless 20
    days or more came since. Days between are those of the calendar's kind.

    Parameters
    ----------
    counts : pl.DataFrame
        ``time`` (sorted, unique) and ``num`` (how many symbols have a bar).
    name, frequency : str
        As in the store's description.
    """
    times = counts["time"].to_numpy()
    if frequency == "1d" and len(times):
        session = has_quorum(counts["num"].to_numpy().astype(np.int64))
        stop = int(np.flatnonzero(session)[-1]) + 1
        if name == OBSERVED:
            times = times[session]
        elif len(times) - stop < LEAST_SESSIONS:
            times = times[:stop]
    seen = _typed(times, frequency)
    calendar = build_calendar(name, frequency, seen)
    entries = calendar.index(seen)
    return replace(calendar, times=calendar.times[_first_entry(calendar, entries[entries >= 0]) :])


def _first_entry(calendar: Calendar, entries: I32) -> int:
    """Return where the first unbroken stretch of enough entries begins; where there is none, the first."""
    if not len(entries):
        return 0
    broken = np.diff(entries) > LONG_HOLE_SESSIONS * calendar.bars_per_day + 1
    starts = np.r_[0, np.flatnonzero(broken) + 1]
    usable = np.diff(np.r_[starts, len(entries)]) >= LEAST_SESSIONS
    return int(entries[starts[usable][0] if usable.any() else 0])


def has_quorum(counts: I64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Tell which days are sessions: at least 5 % of the median count of the 20 sessions before, at least 1.

    A stray row on a holiday so makes no session. Each day is judged by earlier ones only.

    Parameters
    ----------
    counts : I64, shape (T,)
        Symbols with a bar on each day seen, in order.

    Returns
    -------
    array of bool, shape (T,)
    """
    recent: deque[int] = deque(maxlen=QUORUM_SESSIONS)
    session = np.zeros(len(counts), bool)
    for day, count in enumerate(counts.tolist()):
        session[day] = count >= max(1.0, QUORUM * median(recent) if recent else 1.0)
        if session[day]:
            recent.append(count)
    return session


def _typed(times: Times, frequency: str) -> Times:
    return times.astype("datetime64[D]" if frequency == "1d" else "datetime64[s]")
