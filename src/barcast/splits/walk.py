"""Many cuts instead of one: walk-forward, and purged blocks for cross-validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from barcast.core.arrays import I32, I64, Bools
from barcast.core.calendar import Calendar
from barcast.core.errors import UsageError
from barcast.splits.segments import (
    DEFAULT_SHARES,
    SegmentPlan,
    cut_positions,
    day_ends,
    len_of,
    percent,
)

#: Share of all sessions that a purged block keeps as embargo at least.
EMBARGO_SHARE = 0.01


def walk_forward(
    sessions: Calendar | int,
    num_folds: int,
    shares: tuple[float, ...] = DEFAULT_SHARES,
    *,
    expanding: bool = True,
    label_sessions: int = 0,
    embargo: int = 0,
) -> tuple[SegmentPlan, ...]:
    """Repeat the whole cut, each fold later by the length of a test segment.

    The test segments follow one another without a gap, and the last one ends with the calendar.

    Parameters
    ----------
    sessions : Calendar or int
        The calendar, cut at ends of days, or how many daily sessions there are.
    num_folds : int
        How many cuts; 1 gives ``SegmentPlan.by_share``.
    shares : tuple of float
        The cut within a fold's own span of sessions.
    expanding : bool
        Whether ``fit`` always begins with the calendar, or moves along with a constant length.
    label_sessions, embargo : int
        See ``SegmentPlan.by_share``.

    Raises
    ------
    UsageError
        Where a segment of a fold would be left without a label.
    """
    if num_folds < 1:
        raise UsageError(f"`num_folds` must be at least 1, got {num_folds}")
    ends = day_ends(sessions)
    cut = _fold_cut(len(ends), num_folds, shares)
    shift = int(cut[-1] - cut[-2])
    slack = len(ends) - int(cut[-1]) - (num_folds - 1) * shift
    shortest = np.diff(np.r_[0, cut]).min() * len_of(sessions) // max(len(ends), 1)
    if shortest <= label_sessions + embargo:
        raise UsageError(
            f"{len_of(sessions)} sessions are too few for {num_folds} folds cut {percent(shares)}: the "
            f"shortest segment would have {shortest}, and a label takes {label_sessions + embargo}",
            "ask for fewer folds, a shorter horizon, or give more history",
        )
    plans = []
    for fold in range(num_folds):
        offset = slack + fold * shift
        first = 0 if expanding or not offset else int(ends[offset - 1]) + 1
        plans.append(SegmentPlan(tuple(ends[offset + cut - 1].tolist()), first, embargo))
    return tuple(plans)


def _fold_cut(num_days: int, num_folds: int, shares: tuple[float, ...]) -> I64:
    """Return the cut of the longest fold of which ``num_folds`` fit, each later by its test segment."""
    span = int(num_days / (1 + (num_folds - 1) * shares[-1]))
    while True:  # rounding may make the first guess too long by a few days; no days at all always fit
        cut = cut_positions(span, shares)
        if cut[-1] + (num_folds - 1) * (cut[-1] - cut[-2]) <= num_days:
            return cut
        span -= 1


@dataclass(frozen=True, kw_only=True)
class PurgedBlocks:
    """K blocks of consecutive sessions; each is the test once, the rest trains, purged and embargoed.

    Attributes
    ----------
    num_sessions : int
        Calendar entries.
    num_blocks : int
        K.
    label_sessions : int
        Delay + longest horizon.
    input_sessions : int
        How far back inputs of a training row *after* the block reach (look-back plus warm-up); give it where
        those inputs must not contain the outcomes that the block is scored on.

    Warnings
    --------
    Blocks train on later data as well as on earlier data. That is fine for comparing settings, and says
    nothing about what a forecaster could have earned: use ``walk_forward`` for that.
    """

    num_sessions: int
    num_blocks: int
    label_sessions: int
    input_sessions: int = 0

    def __post_init__(self) -> None:
        if self.num_blocks < 2 or self.label_sessions < 1 or self.input_sessions < 0:
            raise UsageError(
                f"blocks need `num_blocks` >= 2, `label_sessions` >= 1 and `input_sessions` >= 0, got "
                f"{self.num_blocks}, {self.label_sessions} and {self.input_sessions}"
            )
        each = self.num_sessions // self.num_blocks
        if each <= self.label_sessions:
            raise UsageError(
                f"{self.num_sessions} sessions in {self.num_blocks} blocks are {each} each, not more than "
                f"the {self.label_sessions} that a label takes",
                "ask for fewer blocks or a shorter horizon",
            )

    @property
    def embargo(self) -> int:
        """Entries after a block that no training row is decided in: max(h + d, 1 % of the sessions)."""
        return max(self.label_sessions, int(np.ceil(EMBARGO_SHARE * self.num_sessions)))

    @property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """First and last entry of each block."""
        borders = np.round(np.linspace(0, self.num_sessions, self.num_blocks + 1)).astype(int).tolist()
        return tuple((first, stop - 1) for first, stop in pairwise(borders))

    def split(self, session: I32, known_at: I32) -> Iterator[tuple[Bools, Bools]]:
        """Yield training and test rows of each block.

        A test row whose label takes longer than the embargo (an exit that waited, an end known only with the
        data's last session) is left out of both; a training row's interval from decision to ``known_at``
        meets no test row's.

        Parameters
        ----------
        session, known_at : I32, shape (R,)
            Decision session, and when the label is known (-1 never).
        """
        known = known_at >= 0
        for first, last in self.blocks:
            reach = last + self.embargo
            test = known & (session >= first) & (session <= last) & (known_at <= reach)
            train = known & ((known_at < first) | (session > reach + self.input_sessions))
            yield train, test
