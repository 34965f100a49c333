"""Forward returns, counted on the calendar, with the session at which each becomes known.

A decision at the close of session ``t`` enters at the close of ``t + d`` and leaves at the close of
``t + d + h``. Sessions are counted on the calendar, never on a symbol's own bars: a suspension makes a
holding longer, it does not move the goal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from barcast.core.arrays import F64, I32, I64, U8, Bools
from barcast.core.bars import LONG_HOLE_SESSIONS, Bars
from barcast.core.errors import UsageError
from barcast.labels.limits import tradable_closes

#: What the codes in ``Labels.reason`` mean; every code above 0 is an unknown label.
REASONS = ("ok", "no_entry_bar", "no_exit_bar", "waiting", "beyond_data")
OK, NO_ENTRY_BAR, NO_EXIT_BAR, WAITING, BEYOND_DATA = range(len(REASONS))


@dataclass(frozen=True, kw_only=True)
class LabelSpec:
    """Which returns to look forward to."""

    horizons: tuple[int, ...] = (5,)
    """Calendar entries from entry to exit, H of them."""
    delay: int = 1
    """Calendar entries from decision to entry; 0 pretends to trade at the close that was just seen."""
    max_wait: int = LONG_HOLE_SESSIONS
    """Days that an exit waits for the next traded close; after them a symbol counts as gone."""

    def __post_init__(self) -> None:
        if not self.horizons or min(self.horizons) < 1 or len(set(self.horizons)) < len(self.horizons):
            raise UsageError(
                f"`horizons` must be different whole numbers from 1 on, got "
                f"{', '.join(map(str, self.horizons)) or 'none'}",
                "--horizon 5 or --horizon 1,5; in a file: horizons = [1, 5]",
            )
        if self.delay < 0:
            raise UsageError(
                f"`delay` must not be negative, got {self.delay}",
                "1 enters at the next close, 0 at the one just seen",
            )
        if self.max_wait < 0:
            raise UsageError(f"`max_wait` must not be negative, got {self.max_wait}", "0 waits for no bar")

    @property
    def label_sessions(self) -> int:
        """Calendar entries from a decision until its longest label is known, where nothing is late."""
        return self.delay + max(self.horizons)


@dataclass(frozen=True)
class Labels:
    """Labels of R rows for H horizons.

    Attributes
    ----------
    spec : LabelSpec
        What was asked for.
    y : F64, shape (R, H)
        Forward log return as a fraction (0.01 is about one percent); NaN where unknown.
    known_at : I32, shape (R, H)
        Calendar entry at whose close the label is known; -1 where unknown.
    reason : U8, shape (R, H)
        Position in ``REASONS``: 0 where known, else why not.
    late : Bools, shape (R, H)
        Known, but the exit waited for the next traded close.
    terminal : Bools, shape (R, H)
        Known, and the exit price is the last one the symbol ever had.
    tradable : Bools, shape (R,)
        Whether the entry could be traded at the close of ``t + d``; false where there is no such bar yet.
    """

    spec: LabelSpec
    y: F64
    known_at: I32
    reason: U8
    late: Bools
    terminal: Bools
    tradable: Bools

    @property
    def known(self) -> Bools:
        """Where there is a label, shape (R, H)."""
        return self.known_at >= 0

    @property
    def last_known_at(self) -> I32:
        """When the last of a row's known labels is known, -1 where none is, shape (R,)."""
        return np.asarray(self.known_at.max(axis=1), np.int32)

    def counts(self) -> dict[int, dict[str, int]]:
        """Count labels by horizon and reason; ``late`` and ``terminal`` are parts of ``ok``."""
        table = {}
        for column, horizon in enumerate(self.spec.horizons):
            found = np.bincount(self.reason[:, column], minlength=len(REASONS)).tolist()
            table[horizon] = dict(zip(REASONS, found, strict=True)) | {
                "late": int(self.late[:, column].sum()),
                "terminal": int(self.terminal[:, column].sum()),
            }
        return table


def forward_labels(bars: Bars, spec: LabelSpec | None = None) -> Labels:
    """Look forward from every row.

    Parameters
    ----------
    bars : Bars, R rows
        Adjusted bars; returns are ratios of ``close``.
    spec : LabelSpec, optional
        Horizons, delay and patience.

    Returns
    -------
    Labels
        NaN, -1 and a reason where a label is not known.

    Warnings
    --------
    **What may look ahead, and until when.** A label is the one thing that may read later bars, so it carries
    ``known_at``, and splits purge by it. The promise: every label with ``known_at <= c`` is the same, bit for
    bit, when computed from the history that ends at ``c``.

    * No bar at the entry session: no label. Nobody could have bought.
    * No bar at the exit session: the next traded close within ``max_wait`` days, known when it trades. A
      symbol that comes back later than that has no label: its holder was locked in, and the jump on the
      day of return belongs to no horizon.
    * A symbol that ends takes its last close, ``terminal``. Where the delisting is on record, the label is
      known at the exit session or when the delisting had happened and was known, whichever is later.
    * Without a record nobody can tell a long suspension from an end before the data itself ends. A symbol
      without a bar in more than the last ``max_wait`` days of the calendar is taken as ended, and its labels
      are known at the *last session of the calendar*. Purging thus keeps them out of every earlier segment,
      as it must: on the day, the symbol was just suspended. Data cut while a long suspension lasts takes that
      symbol as ended, with ``known_at`` at the cut; such a label never comes from longer data with an earlier
      date, so nothing that the full data calls known differs.
    """
    spec = spec or LabelSpec()
    shape = (len(bars), len(spec.horizons))
    labels = Labels(
        spec,
        y=np.full(shape, np.nan),
        known_at=np.full(shape, -1, np.int32),
        reason=np.zeros(shape, np.uint8),
        late=np.zeros(shape, bool),
        terminal=np.zeros(shape, bool),
        tradable=np.zeros(len(bars), bool),
    )
    if not len(bars):
        return labels
    entry = _first_row_from(bars, spec.delay)
    entered = (entry >= 0) & (bars.session[entry] == bars.session + spec.delay)
    entry = np.where(entered, entry, -1)
    labels.tradable[entered] = tradable_closes(bars)[entry[entered]]
    log_close, ends = np.log(bars.close), _ends_known_at(bars, spec)
    for column in range(len(spec.horizons)):
        _fill(labels, column, bars, entry, log_close, ends)
    return labels


def _first_row_from(bars: Bars, steps: int) -> I64:
    """Return the symbol's first row at or after ``steps`` sessions from each row, -1 where there is none.

    Sessions rise by at least one a row, so the row wanted is at most ``steps`` away and, without holes,
    exactly that far: only rows near a hole or near the symbol's end need a search.
    """
    rows = len(bars)
    stop = np.repeat(bars.offsets[1:], np.diff(bars.offsets))
    found = np.arange(steps, rows + steps, dtype=np.int64)
    wanted = bars.session + np.int32(steps)
    direct = (found < stop) & (bars.session[np.minimum(found, rows - 1)] == wanted)
    rest = np.flatnonzero(~direct)
    # one sorted key for all symbols; wide enough that no target runs into the next symbol's keys
    span = len(bars.calendar) + steps + 1
    base = bars.symbol_of_row.astype(np.int64) * span
    found[rest] = np.searchsorted(base + bars.session, base[rest] + wanted[rest])
    found[found >= stop] = -1
    return found


def _ends_known_at(bars: Bars, spec: LabelSpec) -> I32:
    """Return the session at which the end of each row's symbol is known, -1 while it lives, shape (R,).

    A bar after the end on record shows that the symbol trades again: from then on the record says nothing.
    """
    last = len(bars.calendar) - 1
    wait = spec.max_wait * bars.calendar.bars_per_day
    lengths = np.diff(bars.offsets)
    final, recorded = bars.session[bars.offsets[1:] - 1], bars.delisted
    final, recorded = np.repeat(final, lengths), np.repeat(recorded, lengths)
    dated = (recorded >= bars.session) & (recorded <= last)
    return np.where(dated, recorded, np.where(last - final > wait, last, -1)).astype(np.int32)


def _fill(labels: Labels, column: int, bars: Bars, entry: I64, log_close: F64, ends: I32) -> None:
    """Write one horizon's labels."""
    spec = labels.spec
    steps = spec.delay + spec.horizons[column]
    last = len(bars.calendar) - 1
    wait = spec.max_wait * bars.calendar.bars_per_day
    due = bars.session + np.int32(steps)
    found = _first_row_from(bars, steps)
    traded = np.where(found >= 0, bars.session[found], -1)
    lengths = np.diff(bars.offsets)
    settled = np.maximum(due, ends)
    # later bars contradict an end on record; who stood at that end could not know, so neither may the label
    gone = (ends >= 0) & (due <= last) & ((found < 0) | (traded > settled))
    delayed = (found >= 0) & (traded > due) & ~gone
    late = delayed & (traded - due <= wait)
    known = (entry >= 0) & (((found >= 0) & ~delayed) | late | gone)
    leave = np.where(gone, np.where(found >= 0, found, np.repeat(bars.offsets[1:], lengths)) - 1, found)

    labels.y[known, column] = log_close[leave[known]] - log_close[entry[known]]
    labels.known_at[known, column] = np.where(gone, settled, traded)[known]
    labels.late[:, column] = known & late
    labels.terminal[:, column] = known & gone
    no_entry = (entry < 0) & (bars.session + spec.delay <= last)
    labels.reason[:, column] = np.select(
        [known, no_entry, due > last, delayed], [OK, NO_ENTRY_BAR, BEYOND_DATA, NO_EXIT_BAR], WAITING
    )
