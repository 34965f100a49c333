"""Which sessions there are: the ruler on which every horizon, hole and segment is counted.

A calendar is a sorted array of bar times. For daily bars these are session dates of an exchange; for
intraday bars they are UTC bar starts. "Session" in the rest of the code means one entry of this array; a
*day* is the date an intraday entry belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from barcast.core.arrays import I32, Times
from barcast.core.errors import UsageError

#: The calendars known by name: ours -> code of the `holidays` library.
EXCHANGES = {"XSHG": "XSHG", "XNYS": "XNYS", "XHKG": "XHKG", "XLON": "XLON", "XJPX": "XJPX", "XKRX": "XKRX"}
#: Where their hours are kept.
ZONES = {
    "XSHG": "Asia/Shanghai", "XNYS": "America/New_York", "XHKG": "Asia/Hong_Kong", "XLON": "Europe/London",
    "XJPX": "Asia/Tokyo", "XKRX": "Asia/Seoul",
}  # fmt: skip
ROUND_THE_CLOCK = "24x7"
OBSERVED = "observed"
FREQUENCIES = {
    "1d": 86400, "4h": 14400, "2h": 7200, "1h": 3600, "30m": 1800, "15m": 900, "5m": 300, "1m": 60,
}  # fmt: skip
#: Days that show how many intraday bars a day has; not more than the days of a long hole (`core.bars`).
USUAL_DAYS = 20


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
        """Entries of a usual day: 1 for daily bars, the whole grid round the clock, else the most in a day.

        Only the first 20 days are looked at, so that later ones (longer hours, say) change nothing earlier.
        Within these days the number cannot look ahead either: it measures holes and waits of 20 days, and
        these cannot be over by then, whatever a day is found to have.
        """
        if self.is_daily or not len(self.times):
            return 1
        if self.name == ROUND_THE_CLOCK:
            return 86400 // FREQUENCIES[self.frequency]
        return int(np.unique(self.days, return_counts=True)[1][:USUAL_DAYS].max())

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
        return _extend_within_days(calendar, last, steps)
    start = last.astype("datetime64[D]").item() + timedelta(days=1)
    days = exchange_days(calendar.name, start, start + timedelta(days=steps * 2 + 30))
    return np.datetime64(days[steps - 1])


def _extend_within_days(calendar: Calendar, last: np.datetime64, steps: int) -> np.datetime64:
    """Step through the hours of the last usual day, on its own day and on the exchange's next ones."""
    if calendar.name == ROUND_THE_CLOCK or not len(calendar):
        return np.datetime64(last + np.timedelta64(FREQUENCIES[calendar.frequency] * steps, "s"))
    zone = ZoneInfo(ZONES.get(calendar.name, "UTC"))
    recent = _to_local(calendar.times[calendar.days >= np.unique(calendar.days)[-USUAL_DAYS:][0]], zone)
    days, counts = np.unique(recent.astype("datetime64[D]"), return_counts=True)
    usual = days[counts == counts.max()][-1]  # the last day itself may be unfinished, or a half day
    hours = recent[recent.astype("datetime64[D]") == usual] - usual
    today = _to_local(np.array([last]), zone)[0].astype("datetime64[D]").item()
    ahead = exchange_days(calendar.name, today, today + timedelta(days=steps // len(hours) * 2 + 30))
    times = _to_utc((ahead[:, None] + hours).ravel(), zone)
    return np.datetime64(times[times > last][steps - 1])


def _to_local(times: Times, zone: ZoneInfo) -> Times:
    """Turn UTC into wall-clock times: what an exchange keeps its hours in, summer and winter."""
    aware = [t.replace(tzinfo=UTC) for t in times.astype("datetime64[s]").tolist()]
    return np.array([t.astimezone(zone).replace(tzinfo=None) for t in aware], "datetime64[s]")


def _to_utc(times: Times, zone: ZoneInfo) -> Times:
    aware = [t.replace(tzinfo=zone) for t in times.astype("datetime64[s]").tolist()]
    return np.array([t.astimezone(UTC).replace(tzinfo=None) for t in aware], "datetime64[s]")


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
