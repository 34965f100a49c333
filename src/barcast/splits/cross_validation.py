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
from typing import Any, Literal

import numpy as np

from barcast.core.arrays import I32, I64, Bools
from barcast.core.calendar import Calendar
from barcast.core.errors import UsageError
from barcast.splits.segments import day_ends, len_of

Scheme = Literal["expanding", "rolling"]


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


@dataclass(frozen=True)
class SymbolFold:
    """One symbol's rows in one fold.

    Attributes
    ----------
    fold : int
        Position of the fold.
    train, validation : I64
        Rows among the symbol's own, ascending; none where the fold is skipped.
    skipped : str
        Why the symbol has no part in this fold; empty where it has.
    """

    fold: int
    train: I64
    validation: I64
    skipped: str = ""

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON: counts, not rows."""
        return {
            "fold": self.fold,
            "num_train": len(self.train),
            "num_validation": len(self.validation),
            "skipped": self.skipped,
        }


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


def split_symbol(
    folds: Sequence[Fold],
    session: I32,
    known_at: I32,
    *,
    min_train_rows: int,
    min_validation_rows: int = 1,
) -> tuple[SymbolFold, ...]:
    """Give one symbol its rows in every fold; where it is too short it is skipped, with the reason.

    Parameters
    ----------
    folds : sequence of Fold
        From :func:`purged_folds`.
    session, known_at : I32, shape (n,)
        The symbol's decision sessions, and when each label is known (-1 never).
    min_train_rows, min_validation_rows : int
        Fewer rows than this skip the fold.

    Returns
    -------
    tuple of SymbolFold
        One a fold.
    """
    parts = []
    for position, fold in enumerate(folds):
        train, validation = fold.rows(session, known_at)
        reason = _too_few("training", len(train), min_train_rows, fold.train) or _too_few(
            "validation", len(validation), min_validation_rows, fold.validation
        )
        if reason:
            train = validation = np.empty(0, np.int64)
        parts.append(SymbolFold(position, train, validation, reason))
    return tuple(parts)


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


def _too_few(what: str, found: int, needed: int, span: tuple[int, int]) -> str:
    if found >= needed:
        return ""
    return f"{found} {what} rows in sessions {span[0]} to {span[1]}, at least {needed} are needed"
