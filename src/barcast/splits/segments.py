"""Five segments in order of time: fit, stop, weigh, route, test. No label serves two of them.

::

    sessions   0 ........................ 971 | 972 .... 1100 | ...            | ... 1620
    segment    fit                             | stop           | weigh, route  | test
    a label    decided t----entry=========exit, known           |               |
    purged                          t----entry===|=====exit     |  its outcome reaches into `stop`

A row belongs to the segment of its decision session and stays there only if its label is known inside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

import numpy as np

from barcast.core.arrays import I8, I32, I64, Bools, Times
from barcast.core.calendar import Calendar
from barcast.core.errors import LeakError, UsageError
from barcast.core.predictions import SEGMENTS

#: Shares of the sessions, in the order of ``SEGMENTS``.
DEFAULT_SHARES = (0.60, 0.08, 0.08, 0.08, 0.16)
#: What the first rows of a young market are spent on before one of them may teach.
_FIRST_BARS = 20
#: Segment code of a row that serves none.
PURGED = -1


@dataclass(frozen=True)
class SegmentPlan:
    """Borders of the five segments.

    Attributes
    ----------
    last : tuple of int
        Calendar entry of each segment's last session, in the order of ``SEGMENTS``, strictly increasing.
    first : int
        Calendar entry at which ``fit`` begins.
    embargo : int
        Entries that must lie between the end of a label and the next segment, beyond the purge.

    Warnings
    --------
    Purging is enough to keep *labels* apart. Inputs may reach back across a border (a look-back window is
    history, not a label), but statistics used for normalisation may not be fitted across one.
    """

    last: tuple[int, ...]
    first: int = 0
    embargo: int = 0

    def __post_init__(self) -> None:
        if len(self.last) != len(SEGMENTS):
            raise UsageError(
                f"a plan has {len(SEGMENTS)} borders ({', '.join(SEGMENTS)}), got {len(self.last)}"
            )
        if self.first < 0 or self.embargo < 0:
            raise UsageError(
                f"`first` and `embargo` must not be negative, got {self.first} and {self.embargo}"
            )
        for name, count in self.num_sessions.items():
            if count < 1:
                raise UsageError(
                    f"segment `{name}` would be empty: its last session must come after the one before "
                    f"(first session {self.first}, last sessions {', '.join(map(str, self.last))})",
                    "give the borders in order of time, or more history",
                )

    @classmethod
    def by_share(
        cls,
        sessions: Calendar | int,
        shares: tuple[float, ...] = DEFAULT_SHARES,
        *,
        label_sessions: int = 0,
        embargo: int = 0,
        horizon: int = 0,
    ) -> SegmentPlan:
        """Cut by shares of the days.

        Parameters
        ----------
        sessions : Calendar or int
            The calendar, cut at ends of days, or how many daily sessions there are.
        shares : tuple of float
            Five positive shares that sum to 1.
        label_sessions : int
            Entries from a decision until its label is known (delay + horizon); every segment must be longer.
        embargo : int
            See the class.
        horizon : int
            The longest horizon within ``label_sessions``, so that an error can say which one would do; 0
            where the caller has none.

        Raises
        ------
        UsageError
            Where a segment would be left without a label, with the horizon or the number of sessions that
            would do.
        """
        ends = day_ends(sessions)
        last = np.r_[-1, ends][cut_positions(len(ends), shares)]
        longest = label_sessions + embargo
        counts = np.diff(np.r_[-1, last])
        if counts.min() <= longest:
            short = SEGMENTS[int(counts.argmin())]
            daily = len(ends) == len_of(sessions)
            per_day = len_of(sessions) / max(len(ends), 1)
            enough = math.ceil((longest + 2) / min(shares) / max(per_day, 1))
            needed = (
                f"{enough} sessions of history" if daily else f"{enough} days of history, not {len(ends)}"
            )
            raise UsageError(
                f"{len_of(sessions)} sessions, cut {percent(shares)} into {', '.join(SEGMENTS)}, leave "
                f"segment `{short}` with {counts.min()}; a label takes {longest}, so it would have none",
                _remedy(counts, len_of(sessions), longest, needed, horizon, daily=daily),
            )
        return cls(tuple(last.tolist()), embargo=embargo)

    @classmethod
    def by_dates(
        cls,
        calendar: Calendar,
        *,
        fit: str | date,
        stop: str | date,
        weigh: str | date,
        route: str | date,
        test: str | date | None = None,
        start: str | date | None = None,
        label_sessions: int = 0,
        embargo: int = 0,
    ) -> SegmentPlan:
        """Cut by the last day of each segment.

        A year or a month (``2022-12``) means its last session, a day the last session up to it. ``test`` ends
        with the calendar and ``fit`` starts with it where not said.

        Raises
        ------
        UsageError
            On a border that is no date, lies beyond the calendar, or leaves a segment without a label.
        """
        days = calendar.days
        given = dict(zip(SEGMENTS, (fit, stop, weigh, route, test), strict=True))
        last = [
            len(calendar) - 1 if border is None else _last_entry(days, name, border)
            for name, border in given.items()
        ]
        first = 0 if start is None else int(np.searchsorted(days, _period("start", start)[0]))
        plan = cls(tuple(last), first, embargo)
        for name, count in plan.num_sessions.items():
            if count <= label_sessions + embargo:
                raise UsageError(
                    f"segment `{name}` has {count} sessions up to {given[name] or days[-1]}; a label takes "
                    f"{label_sessions + embargo}, so none would be left in it",
                    f"move the border `{name}` to a later date, or shorten the horizon",
                )
        return plan

    @property
    def spans(self) -> dict[str, tuple[int, int]]:
        """First and last entry of each segment."""
        starts = (self.first, *(border + 1 for border in self.last[:-1]))
        return dict(zip(SEGMENTS, zip(starts, self.last, strict=True), strict=True))

    @property
    def num_sessions(self) -> dict[str, int]:
        """Calendar entries in each segment."""
        return {name: last - first + 1 for name, (first, last) in self.spans.items()}

    def segment_of(self, session: I32) -> I8:
        """Return the segment of each decision session, -1 outside the plan; nothing is purged."""
        code = np.searchsorted(np.array(self.last), session)
        inside = (session >= self.first) & (session <= self.last[-1])
        return np.where(inside, code, PURGED).astype(np.int8)

    def assign(self, session: I32, known_at: I32) -> I8:
        """Give every row its segment, or -1.

        Parameters
        ----------
        session : I32, shape (R,)
            Decision session.
        known_at : I32, shape (R,) or (R, H)
            When the label is known, -1 for never. A row with several horizons that must stay together is
            judged by its last one; given all H columns, each is judged alone.

        Returns
        -------
        I8, shape of ``known_at``
            Position in ``SEGMENTS``; -1 where the label is unknown, is not known by the last session of its
            segment (less the embargo; the last segment needs none), or the session lies outside the plan.
        """
        code = self.segment_of(session)
        deadline = np.array(self.last) - self.embargo
        deadline[-1] = self.last[-1]
        code, due = (a.reshape(a.shape + (1,) * (known_at.ndim - 1)) for a in (code, deadline[code]))
        return np.where((known_at >= 0) & (known_at <= due), code, PURGED).astype(np.int8)

    def require_rows(self, segment: I8) -> None:
        """Refuse rows that leave a segment without any.

        Raises
        ------
        UsageError
            With the rows of every segment.
        """
        counts = {name: int((segment == code).sum()) for code, name in enumerate(SEGMENTS)}
        empty = [name for name, count in counts.items() if not count]
        if empty:
            found = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise UsageError(
                f"no label is left in segment {', '.join(f'`{name}`' for name in empty)} (rows: {found})",
                "give more history, a shorter horizon, or other borders",
            )


def check_disjoint(session: I32, known_at: I32, segment: I8) -> None:
    """Assert that no label interval serves two segments.

    The interval of a row runs from its decision to the session at which its label is known. This reads rows
    only and knows no plan, so it also checks splits that were made elsewhere.

    Raises
    ------
    LeakError
        With a row of each of two segments whose intervals meet.
    """
    used = np.flatnonzero(segment >= 0)
    for later in np.unique(segment[used])[1:].tolist():
        earlier_rows = used[segment[used] < later]
        later_rows = used[segment[used] == later]
        ends = earlier_rows[known_at[earlier_rows].argmax()]
        starts = later_rows[session[later_rows].argmin()]
        if known_at[ends] >= session[starts]:
            raise LeakError(
                f"row {ends} of segment `{SEGMENTS[segment[ends]]}` (decided at session {session[ends]}) has "
                f"a label known at session {known_at[ends]}, but segment `{SEGMENTS[later]}` begins at "
                f"session {session[starts]} (row {starts})",
                "purge rows by `known_at` before they are used",
            )


def day_ends(sessions: Calendar | int) -> I64:
    """Return the last entry of every day."""
    if isinstance(sessions, int):
        return np.arange(sessions, dtype=np.int64)
    days = sessions.days
    changes: Bools = np.r_[days[1:] != days[:-1], True][: len(days)]
    return np.flatnonzero(changes).astype(np.int64)


def len_of(sessions: Calendar | int) -> int:
    """How many calendar entries there are."""
    return sessions if isinstance(sessions, int) else len(sessions)


def cut_positions(count: int, shares: tuple[float, ...]) -> I64:
    """Return how many of ``count`` days lie up to the end of each segment.

    Raises
    ------
    UsageError
        On shares that are not five positive numbers with sum 1.
    """
    if len(shares) != len(SEGMENTS) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise UsageError(
            f"`shares` must be {len(SEGMENTS)} positive numbers with sum 1, got {shares}",
            f"for example {', '.join(map(str, DEFAULT_SHARES))}",
        )
    return np.round(np.cumsum(shares) * count).astype(np.int64)


def _remedy(counts: I64, num_sessions: int, longest: int, needed: str, horizon: int, *, daily: bool) -> str:
    """Say which history, shorter horizon or other shares would leave a label in every segment."""
    choices = [f"give at least {needed}"]
    too_long = longest + 2 - int(counts.min())
    if too_long <= longest - 2 and horizon > too_long:  # one session to entry and one to exit are the least
        choices = [f"a horizon of at most {horizon - too_long}", f"at least {needed}"]
    elif too_long <= longest - 2 and not horizon:
        choices.append(f"a horizon shorter by {too_long} sessions")
    least = np.maximum(counts[1:], longest + 2)
    fit = num_sessions - int(least.sum())
    if daily and fit >= longest + 2 + _FIRST_BARS:  # the last share is what is left, so that the sum is 1
        shares = [math.floor(100 * fit / num_sessions) / 100, *np.ceil(100 * least[:-1] / num_sessions) / 100]
        shares.append(1 - sum(shares))
        if np.diff(np.r_[0, cut_positions(num_sessions, tuple(shares))]).min() > longest:
            choices.append(f"shares = [{', '.join(f'{share:.2f}' for share in shares)}] under [data]")
    return ", or ".join(choices)


def percent(shares: tuple[float, ...]) -> str:
    """Write shares as ``60/8/8/8/16``."""
    return "/".join(f"{100 * share:.4g}" for share in shares)


def _last_entry(days: Times, name: str, border: str | date) -> int:
    begins, ends = _period(name, border)
    if not len(days):
        raise UsageError("the calendar has no session", "import some bars first")
    if begins > days[-1] or ends < days[0]:
        raise UsageError(
            f"border `{name}` = {border} lies outside the calendar, which runs from {days[0]} to {days[-1]}",
            "choose a date between them",
        )
    return int(np.searchsorted(days, ends, side="right")) - 1


def begins_after(border: str, day: str) -> bool:
    """Return whether a border (a year, a month or a day) begins after a day, or after a time of it."""
    return bool(_period("test", border)[0] > np.datetime64(day).astype("datetime64[D]"))


def _period(name: str, border: str | date) -> tuple[np.datetime64, np.datetime64]:
    """Return the first and the last day of a year, a month or a day."""
    try:
        value = np.datetime64(border)
        begins, ends = value.astype("datetime64[D]"), (value + 1).astype("datetime64[D]") - 1
    except ValueError:
        begins = ends = np.datetime64("NaT")
    if np.isnat(begins):
        raise UsageError(f"border `{name}` = {border!r} is no date", "write 2022-12-30, 2022-12 or 2022")
    return begins, ends
