"""Which of the times seen in a store are sessions of its calendar."""

from __future__ import annotations

from collections import deque
from statistics import median

import numpy as np
import polars as pl

from barcast.core.arrays import I64, Times
from barcast.core.calendar import OBSERVED, Calendar, build_calendar

#: An observed day counts as a session when so many of the usual symbols trade.
QUORUM = 0.05
#: "Usual" is the median over so many earlier sessions.
QUORUM_SESSIONS = 20


def calendar_of(counts: pl.DataFrame, name: str, frequency: str) -> Calendar:
    """Build the calendar from the bars seen.

    Parameters
    ----------
    counts : pl.DataFrame
        ``time`` (sorted, unique) and ``num`` (how many symbols have a bar).
    name, frequency : str
        As in the store's description.
    """
    times = counts["time"].to_numpy()
    if name == OBSERVED and frequency == "1d":
        times = times[has_quorum(counts["num"].to_numpy().astype(np.int64))]
    return build_calendar(name, frequency, _typed(times, frequency))


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
