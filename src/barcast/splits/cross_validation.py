"""Purged cross-validation over time: every fold trains on the past of what it validates on.

::

    expanding  train.......|purge|valid|               rolling  train.......|purge|valid|
               train.............|purge|valid|                        train.......|purge|valid|
               train...................|purge|valid|                        train.......|purge|valid|

`walk_forward` repeats the whole cut of five segments, one full run a fold. A fold here has two spans, inside
any stretch of sessions (such as the `fit` segment), for settings that are chosen symbol by symbol and for
out-of-fold forecasts. `PurgedBlocks` trains on what comes after a block as well; these folds never do, so
purging what is not known in time is enough, and an embargo is a further margin that may be asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from barcast.core.arrays import I8, I32, I64, Bools
from barcast.core.calendar import Calendar
from barcast.core.errors import UsageError
from barcast.core.predictions import SEGMENTS
from barcast.splits.segments import PURGED, day_ends, len_of

Scheme = Literal["expanding", "rolling"]
#: Shares of a fold's training days that fit, stop and weigh.
TRAIN_SHARES = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class Fold:
    """One fold: what may teach, and what it is judged on.

    Attributes
    ----------
    train : tuple of int
        First and last calendar entry. A row teaches if its decision and the end of its label lie within;
        the embargo lies between here and ``validation``.
    validation : tuple of int
        First and last entry of the decisions that are judged.
    known_by : int
        Last entry by which a judged label must be known: the end of the stretch that was cut.
    """

    train: tuple[int, int]
    validation: tuple[int, int]
    known_by: int

    def rows(self, session: I32, known_at: I32) -> tuple[I64, I64]:
        """Return the rows that teach and the rows that are judged, ascending.

        Parameters
        ----------
        session, known_at : I32, shape (R,)
            Decision session, and when the label is known (-1 never: such a row serves neither). A row of
            several horizons is judged by the last of them.
        """
        train = _within(session, self.train) & (known_at >= 0) & (known_at <= self.train[1])
        judged = _within(session, self.validation) & (known_at >= 0) & (known_at <= self.known_by)
        return np.flatnonzero(train), np.flatnonzero(judged)

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def purged_folds(
    sessions: Calendar | int,
    num_folds: int,
    *,
    label_sessions: int,
    scheme: Scheme = "expanding",
    embargo: int = 0,
    train_share: float | None = None,
    span: tuple[int, int] | None = None,
) -> tuple[Fold, ...]:
    """Cut a stretch of sessions into folds; the validation spans follow one another to its end.

    Parameters
    ----------
    sessions : Calendar or int
        The calendar, cut at ends of days, or how many daily sessions there are.
    num_folds : int
        How many; each session after the first training span is validated on once.
    label_sessions : int
        Entries from a decision until its label is known (delay + horizon).
    scheme : {"expanding", "rolling"}
        Whether a fold trains from the beginning, or on as many days as the first fold.
    embargo : int
        Entries between the last label that teaches and the first decision that is judged, beyond the purge.
    train_share : float, optional
        Share of the days before the first validation; by default that of one fold, ``1 / (num_folds + 1)``.
    span : tuple of int, optional
        First and last entry of the stretch; by default all. Labels known only after it judge nothing.

    Returns
    -------
    tuple of Fold
        In order of time.

    Raises
    ------
    UsageError
        On settings that make no sense, or where a span would be left without a label.
    """
    _require_sense(scheme, num_folds, embargo, label_sessions)
    share = 1 / (num_folds + 1) if train_share is None else train_share
    if not 0 < share < 1:
        raise UsageError(f"`train_share` is {share}: some days must train, and some validate")
    first, last = span or (0, len_of(sessions) - 1)
    starts = _day_starts(sessions, first, last)
    num_days = len(starts) - 1
    train_days = round(share * num_days)
    borders = np.round(np.linspace(train_days, num_days, num_folds + 1)).astype(np.int64)
    begins = borders[:-1] - train_days if scheme == "rolling" else np.zeros(num_folds, np.int64)
    folds = tuple(
        Fold((int(starts[a]), int(starts[b]) - 1 - embargo), (int(starts[b]), int(starts[c]) - 1), last)
        for a, b, c in zip(begins, borders[:-1], borders[1:], strict=True)
    )
    _require_labels(folds, label_sessions, last - first + 1)
    return folds


def fold_segments(sessions: Calendar | int, fold: Fold, session: I32, known_at: I32) -> I8:
    """Cut the training span of a fold into `fit`, `stop` and `weigh`, purged; what is judged is `route`.

    Parameters
    ----------
    sessions : Calendar or int
        As of :func:`purged_folds`.
    session, known_at : I32, shape (R,)
        As of :meth:`Fold.rows`.

    Returns
    -------
    I8, shape (R,)
        Position in ``SEGMENTS``; -1 where the label is not known within its part, or the row serves none.

    Raises
    ------
    UsageError
        When a part is left without a label.
    """
    starts = _day_starts(sessions, *fold.train)
    borders = starts[np.round(np.cumsum((0.0, *TRAIN_SHARES)) * (len(starts) - 1)).astype(np.int64)].tolist()
    code = np.full(len(session), PURGED, np.int8)
    for name, (first, stop) in zip(("fit", "stop", "weigh"), pairwise(borders), strict=True):
        inside = _within(session, (first, stop - 1)) & (known_at >= 0) & (known_at < stop)
        code[inside] = SEGMENTS.index(name)
    code[fold.rows(session, known_at)[1]] = SEGMENTS.index("route")
    counts = {name: int((code == SEGMENTS.index(name)).sum()) for name in SEGMENTS[:4]}
    if not all(counts.values()):
        found = ", ".join(f"{'judged' if name == 'route' else name} {num}" for name, num in counts.items())
        raise UsageError(
            f"the fold that is judged on sessions {fold.validation[0]} to {fold.validation[1]} has a part "
            f"without a label (rows: {found})",
            "ask for fewer folds, a shorter label, or give more history",
        )
    return code


def _require_sense(scheme: str, num_folds: int, embargo: int, label_sessions: int) -> None:
    if scheme not in ("expanding", "rolling"):
        raise UsageError(f"there is no scheme {scheme!r}", "take `expanding` or `rolling`")
    if num_folds < 1 or embargo < 0 or label_sessions < 0:
        raise UsageError(
            "folds need `num_folds` >= 1, `embargo` >= 0 and `label_sessions` >= 0, got "
            f"{num_folds}, {embargo} and {label_sessions}"
        )


def _within(session: I32, span: tuple[int, int]) -> Bools:
    inside: Bools = (session >= span[0]) & (session <= span[1])
    return inside


def _day_starts(sessions: Calendar | int, first: int, last: int) -> I64:
    """Return the first entry of every day of a stretch, and the entry after its last."""
    if not 0 <= first <= last < len_of(sessions):
        raise UsageError(
            f"`span` {first} to {last} does not lie within the {len_of(sessions)} entries of the calendar"
        )
    ends = day_ends(sessions)
    starts: I64 = np.r_[first, ends[(ends >= first) & (ends < last)] + 1, last + 1]
    return starts


def _require_labels(folds: Sequence[Fold], label_sessions: int, num_sessions: int) -> None:
    """Refuse folds of which a training span, or the validation span, is no longer than a label."""
    spans = [span for fold in folds for span in (fold.train, fold.validation)]
    shortest = min(last - first + 1 for first, last in spans)
    if shortest <= label_sessions:
        raise UsageError(
            f"{num_sessions} sessions are too few for {len(folds)} folds: the shortest span would have "
            f"{max(shortest, 0)}, and a label takes {label_sessions}",
            "ask for fewer folds, a shorter horizon or embargo, or give more history",
        )
