"""Skill per session of forecasts that are followed after training, for the whole, a cohort or one symbol.

Two measures. *RankIC* where sessions hold enough symbols: skill at ordering them. Else the *gain* over a zero
forecast, ``|y| - |y - y_hat|``: a loss difference, so a stormier market, in which every error grows, is no
decay; and it never exceeds ``|y_hat|``, so that no single outcome decides.

A session's value must not change once it has been read, or an alarm could come and go. So only *punctual*
rows count, whose label was known exactly when labels of their session are due; the few that waited longer for
their exit would change sessions already read.

Letters: R rows, S symbols, G groups of symbols, T sessions.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from barcast.core.arrays import F64, I32, I64, Bools
from barcast.evaluation.grouped import Groups
from barcast.evaluation.metrics import rank_ic, ratio

#: Where the median session holds fewer symbols, skill is the gain over zero and not RankIC.
MIN_RANKED = 10
#: A block with a smaller share of its sessions says nothing.
_MIN_SHARE = 0.5


@dataclass(frozen=True)
class ForecastRows:
    """Forecasts of stored models and what came, row by row, in any order.

    Attributes
    ----------
    symbol : I32, shape (R,)
        Position of the symbol.
    session : I32, shape (R,)
        Decision session.
    y_hat, y : F64, shape (R,)
        Forecast and outcome in one unit, 0 is "no opinion". NaN on either side counts nowhere.
    known_at : I32, shape (R,)
        Session at which the outcome is known, -1 for never.
    """

    symbol: I32
    session: I32
    y_hat: F64
    y: F64
    known_at: I32

    def take(self, keep: Bools | I64) -> ForecastRows:
        """Return the rows where ``keep`` is true, or at the places it holds."""
        return ForecastRows(
            self.symbol[keep], self.session[keep], self.y_hat[keep], self.y[keep], self.known_at[keep]
        )

    def punctual(self, label_sessions: int) -> ForecastRows:
        """Return the rows with a finite forecast whose outcome was known when it was due."""
        finite = np.isfinite(self.y) & np.isfinite(self.y_hat)
        return self.take(finite & (self.known_at == self.session + label_sessions))

    def known_by(self, asof: int) -> ForecastRows:
        """Return the rows whose outcome is known at a session."""
        return self.take((self.known_at >= 0) & (self.known_at <= asof))

    @property
    def span(self) -> tuple[int, int]:
        """First session, and how many from there to the last; (0, 0) without rows."""
        if not len(self.session):
            return 0, 0
        first = int(self.session.min())
        return first, int(self.session.max()) - first + 1


def ranked_groups(rows: ForecastRows, group: I32, num_groups: int) -> Bools:
    """Return for which groups the median session with rows holds enough symbols for RankIC, shape (G,)."""
    sizes = _by_cell(rows, group, num_groups)
    return np.array([bool(size.any()) and float(np.median(size[size > 0])) >= MIN_RANKED for size in sizes])


def gains(rows: ForecastRows, *, relative: bool) -> F64:
    """Return ``|y| - |y - y_hat|`` of each row, shape (R,), in the unit of the outcome.

    With ``relative`` outcomes and forecasts are taken less their mean over the symbols of the session: what
    the market did to all alike is then no symbol's merit and no symbol's fault.
    """
    y, y_hat = rows.y, rows.y_hat
    if relative and len(y):
        sessions = Groups(rows.session, int(rows.session.max()) + 1)
        y, y_hat = (
            part - (sessions.sums(part) / np.maximum(sessions.sizes, 1))[rows.session] for part in (y, y_hat)
        )
    return np.abs(y) - np.abs(y - y_hat)


def rank_ic_by_group(rows: ForecastRows, group: I32, num_groups: int) -> F64:
    """Return RankIC of each group and session from the first with rows, shape (G, T), NaN where undefined.

    Parameters
    ----------
    rows : ForecastRows
    group : I32, shape (S,)
        The group of each symbol, -1 for none.
    num_groups : int
        G.
    """
    cell, own = _cells(rows, group)
    shape = num_groups, rows.span[1]
    values = rank_ic(rows.y[own], rows.y_hat[own], cell.astype(np.int32), num_groups * shape[1])
    return values.reshape(shape)


def mean_by_group(rows: ForecastRows, values: F64, group: I32, num_groups: int) -> F64:
    """Return the mean of finite values in each group and session, shape (G, T), NaN where there is none.

    Sessions run from the first with rows to the last, whatever the group; ``values`` has shape (R,).
    """
    finite = np.isfinite(values)
    total = _by_cell(rows, group, num_groups, np.where(finite, values, 0.0))
    return ratio(total, _by_cell(rows, group, num_groups, finite))


def _by_cell(rows: ForecastRows, group: I32, num_groups: int, values: F64 | Bools | None = None) -> F64:
    """Return the sum of values (by default the number of rows) of each group and session, shape (G, T)."""
    cell, own = _cells(rows, group)
    shape = num_groups, rows.span[1]
    total = np.bincount(cell, None if values is None else values[own], shape[0] * shape[1])
    return total.astype(np.float64).reshape(shape)


def _cells(rows: ForecastRows, group: I32) -> tuple[I64, I64]:
    """Return the cell of group and session of each row that has a group, and which rows those are."""
    first, num_sessions = rows.span
    own = np.flatnonzero(group[rows.symbol] >= 0)
    return group[rows.symbol[own]].astype(np.int64) * num_sessions + rows.session[own] - first, own


def block_means(series: F64, length: int) -> F64:
    """Return means over consecutive blocks of sessions, shape (G, T // length).

    Labels of neighbouring sessions overlap; means over blocks that outlast a label nearly do not. NaN
    sessions are left out, a block with fewer than half of its sessions is NaN, and the last, unfinished block
    is left for later.
    """
    num_blocks = series.shape[1] // length
    blocks = series[:, : num_blocks * length].reshape(len(series), num_blocks, length)
    enough = np.isfinite(blocks).sum(axis=2) >= _MIN_SHARE * length
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of a block without any session
        means = np.nanmean(blocks, axis=2)
    return np.where(enough, means, np.nan)


def overlap_correlation(label_sessions: int, length: int) -> float:
    """Return the correlation of neighbouring blocks that overlapping labels alone can cause.

    Two labels ``k`` sessions apart share at most ``1 - k / label_sessions`` of their span, and correlate no
    more than that; of means over blocks of ``length`` >= ``label_sessions`` sessions this leaves little.
    """
    lags = np.arange(1, label_sessions)
    shared = 1 - lags / max(label_sessions, 1)
    variance = length + 2 * float(((length - lags) * shared).sum())
    return float((lags * shared).sum()) / variance
