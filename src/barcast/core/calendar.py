"""Which sessions there are: the ruler on which every horizon, hole and segment is counted.

A calendar is a sorted array of bar times. For daily bars these are session dates of an exchange; for
intraday bars they are UTC bar starts. "Session" in the rest of the code means one entry of this array; a
*day* is the date an intraday entry belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from barcast.core.arrays import I32, Times
from barcast.core.errors import UsageError

#: The calendars known by name: ours -> code of the `holidays` library.
EXCHANGES = {"XSHG": "XSHG", "XNYS": "XNYS", "XHKG": "XHKG", "XLON": "XLON", "XJPX": "XJPX", "XKRX": "XKRX"}
ROUND_THE_CLOCK = "24x7"
OBSERVED = "observed"
FREQUENCIES = {
    "1d": 86400, "4h": 14400, "2h": 7200, "1h": 3600, "30m": 1800, "15m": 900, "5m": 300, "1m": 60,
}  # fmt: skip


@dataclass(frozen=True)
class Calendar:
    """Sorted bar times of one market.

    Attributes
    ----------
    name : str
        ``XSHG``, ``XNYS``, ... , ``24x7`` or ``observed`` (times at which the market was seen trading).
    frequency : str
        ``1d`` or an intraday step such as ``1h``.
    times : Times, shape (T,)
        ``datetime64[D]`` for daily bars, ``datetime64[s]`` (UTC) for intraday bars; strictly increasing.
    """

    name: str
    frequency: str
    times: Times

    def __len__(self) -> int:
        return len(self.times)

    @property
    def is_daily(self) -> bool:
        """Whether one entry is one trading day."""
        return self.frequency == "1d"

    @property
    def days(self) -> Times:
        """The date of each entry, ``datetime64[D]``, shape (T,)."""
        return self.times.astype("datetime64[D]")

    @property
    def bars_per_day(self) -> int:
        """Entries a day at the busiest (1 for daily bars)."""
        if self.is_daily or not len(self.times):
            return 1
        return int(np.unique(self.days, return_counts=True)[1].max())

    def index(self, times: Times) -> I32:
        """Return the entry of each time, -1 where it is not on the calendar."""
        wanted = times.astype(self.times.dtype)
        position = np.searchsorted(self.times, wanted)
        inside = position < len(self.times)
        found = np.zeros(len(wanted), bool)
        found[inside] = self.times[position[inside]] == wanted[inside]
        return np.where(found, position, -1).astype(np.int32)

    def next_after(self, time: np.datetime64, steps: int = 1) -> np.datetime64:
        """Return the entry ``steps`` after ``time``, beyond the stored data where needed."""
        later = self.times[self.times > time]
        if len(later) >= steps:
            return np.datetime64(later[steps - 1])
        missing = steps - len(later)
        last = self.times[-1] if len(later) or not len(self.times) else max(self.times[-1], time)
        return _extend(self, last, missing)


def _extend(calendar: Calendar, last: np.datetime64, steps: int) -> np.datetime64:
    if not calendar.is_daily:
        return np.datetime64(last + np.timedelta64(FREQUENCIES[calendar.frequency] * steps, "s"))
    start = last.astype("datetime64[D]").item() + timedelta(days=1)
    days = exchange_days(calendar.name, start, start + timedelta(days=steps * 2 + 30))
    return np.datetime64(days[steps - 1])


def exchange_days(name: str, first: date, last: date) -> Times:
    """Return the trading days of an exchange (weekdays without its holidays), both ends included.

    The rules come from the `holidays` library; ``24x7`` gives every day, ``observed`` every weekday.

    Raises
    ------
    UsageError
        On a calendar that is not known.
    """
    days = np.arange(np.datetime64(first), np.datetime64(last) + 1)
    if name == ROUND_THE_CLOCK:
        return days
    if name != OBSERVED and name not in EXCHANGES:
        known = ", ".join([*EXCHANGES, ROUND_THE_CLOCK, OBSERVED])
        raise UsageError(f"unknown calendar `{name}`", f"choose one of {known}")
    weekday = (days.astype("int64") + 3) % 7  # 1970-01-01 was a Thursday; 0 is Monday
    open_days = days[weekday < 5]
    if name == OBSERVED:
        return open_days
    import holidays  # local: a table of rules that only calendars need

    closed = holidays.financial_holidays(EXCHANGES[name], years=range(first.year, last.year + 1))
    return open_days[~np.isin(open_days, np.array(sorted(closed), dtype="datetime64[D]"))]


def build_calendar(name: str, frequency: str, seen: Times) -> Calendar:
    """Make the calendar that covers the bar times ``seen`` (sorted, unique).

    An exchange gives its own sessions between the first and the last bar seen, so that a session on which
    the whole file is missing is still counted; ``24x7`` gives an even grid; ``observed`` what was seen.
    Intraday bars of an exchange use the times seen: exchanges differ in breaks and half days.
    """
    if frequency not in FREQUENCIES:
        raise UsageError(f"unknown frequency `{frequency}`", f"choose one of {', '.join(FREQUENCIES)}")
    unit = "datetime64[D]" if frequency == "1d" else "datetime64[s]"
    seen = seen.astype(unit)
    if not len(seen) or name == OBSERVED:
        return Calendar(name, frequency, seen)
    if name == ROUND_THE_CLOCK and frequency != "1d":
        step = np.timedelta64(FREQUENCIES[frequency], "s")
        return Calendar(name, frequency, np.arange(seen[0], seen[-1] + step, step))
    if frequency != "1d":
        return Calendar(name, frequency, seen)
    return Calendar(name, frequency, exchange_days(name, seen[0].item(), seen[-1].item()))
