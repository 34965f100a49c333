"""Scores of a forecast against what came: numpy arrays in, numbers out.

Letters: R rows, T sessions, Q quantiles. ``y`` and ``y_hat`` are forward log returns as fractions; ``score``
is the raw output, of which only the order counts; ``session`` is the session of each row, 0 .. T-1, in any
order. Rows in which an input is not finite are left out; a score that is not defined is NaN, never an error.

Two conventions hold everywhere. *Up* means ``> 0``: a forecast of exactly 0 is a call of "down", and rows
with ``y == 0`` have no direction, so they count in no direction score. A session enters the IC family with
at least 5 symbols and with neither side constant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from barcast.core.arrays import F64, I32, I64, Bools
from barcast.evaluation.grouped import Groups, Sorted, auc_placements, group_correlation

#: A session with fewer symbols has no cross-sectional correlation worth averaging.
MIN_SYMBOLS = 5
_TINY = 1e-15


@dataclass(frozen=True)
class Confusion:
    """Counts of calls and outcomes over rows with ``y != 0``; floats or arrays of one shape.

    Attributes
    ----------
    tp, tn, fp, fn : F64
        Up called and came, down called and came, up called in vain, down called in vain.
    """

    tp: F64
    tn: F64
    fp: F64
    fn: F64

    @property
    def num_rows(self) -> F64:
        """How many rows have a direction."""
        return self.tp + self.tn + self.fp + self.fn

    @property
    def accuracy(self) -> F64:
        """Share of right calls; NaN without rows."""
        return ratio(self.tp + self.tn, self.num_rows)

    @property
    def up_share(self) -> F64:
        """Share of rows called up. Together with accuracy it fixes MCC: print both."""
        return ratio(self.tp + self.fp, self.num_rows)

    @property
    def base_rate(self) -> F64:
        """Share of rows that went up: what "always up" scores."""
        return ratio(self.tp + self.fn, self.num_rows)

    @property
    def mcc(self) -> F64:
        """Matthews correlation; 0 where a margin is empty (one class called or seen), NaN without rows."""
        called_up, called_down = self.tp + self.fp, self.tn + self.fn
        was_up, was_down = self.tp + self.fn, self.tn + self.fp
        # The root of each margin: products of four large counts would lose digits.
        margins = np.sqrt(called_up) * np.sqrt(called_down) * np.sqrt(was_up) * np.sqrt(was_down)
        value = ratio(self.tp * self.tn - self.fp * self.fn, margins)
        return np.where((margins == 0) & (self.num_rows > 0), 0.0, value)


@dataclass(frozen=True)
class Calibration:
    """Mean outcome by size of forecast, in bins of equal numbers of rows.

    Attributes
    ----------
    y_hat, y : F64, shape (bins,)
        Mean forecast and mean outcome of each bin, log returns as fractions.
    count : I64, shape (bins,)
        Rows in each bin; equal forecasts share a bin, empty bins are dropped.
    slope, intercept : float
        Least squares of ``y`` on ``y_hat``: 1 and 0 when calibrated, slope below 1 when overconfident;
        NaN for a constant forecast.
    """

    y_hat: F64
    y: F64
    count: I64
    slope: float
    intercept: float


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> F64:
    """Divide element by element, NaN where the denominator is not positive."""
    positive = np.asarray(denominator) > 0
    return np.where(positive, np.asarray(numerator) / np.where(positive, denominator, 1.0), np.nan)


def mae(y: F64, y_hat: F64) -> float:
    """Return ``mean |y - y_hat|``, a fraction."""
    y, y_hat = _finite(y, y_hat)
    return _mean(np.abs(y - y_hat))


def rmse(y: F64, y_hat: F64) -> float:
    """Return ``sqrt(mean (y - y_hat)^2)``, a fraction."""
    y, y_hat = _finite(y, y_hat)
    return math.sqrt(_mean((y - y_hat) ** 2))


def r2(y: F64, y_hat: F64, benchmark: F64 | float = 0.0) -> float:
    """Return ``1 - sum (y - y_hat)^2 / sum (y - benchmark)^2``.

    The benchmark must itself be a forecast known in time (0, an expanding mean, the last value); the mean of
    the rows being scored is not one. NaN where the benchmark makes no error.
    """
    y, y_hat, benchmark = _finite(y, y_hat, np.broadcast_to(np.asarray(benchmark, np.float64), np.shape(y)))
    return float(1 - ratio(((y - y_hat) ** 2).sum(), ((y - benchmark) ** 2).sum()))


def confusion(y: F64, y_hat: F64) -> Confusion:
    """Count calls (up when ``y_hat > 0``) against outcomes over rows with ``y != 0``."""
    y, y_hat = _finite(y, y_hat)
    moved = y != 0
    up, called = y[moved] > 0, y_hat[moved] > 0
    counts = [
        np.float64(np.count_nonzero(x)) for x in (up & called, ~up & ~called, ~up & called, up & ~called)
    ]
    return Confusion(*(np.asarray(count) for count in counts))


def direction_accuracy(y: F64, y_hat: F64) -> float:
    """Return the share of rows with ``y != 0`` whose direction was called rightly.

    Means nothing without the share of rows that went up: see `Confusion.base_rate`.
    """
    return float(confusion(y, y_hat).accuracy)


def mcc(y: F64, y_hat: F64) -> float:
    """Return the Matthews correlation of calls and outcomes; 0 for a forecast that always calls the same."""
    return float(confusion(y, y_hat).mcc)


def auc(y: F64, score: F64) -> float:
    """Return the chance that a row that rose scores above one that fell (ties 1/2); NaN for one class."""
    y, score = _finite(y, score)
    up, down = y > 0, y < 0
    if not up.any() or not down.any():
        return math.nan
    return float(auc_placements(up, down, score)[up].mean())


def session_auc(y: F64, score: F64, session: I32, num_sessions: int) -> F64:
    """Return the area under the curve of each session, shape (T,): skill across symbols, market apart.

    NaN for sessions with fewer than 5 rows that moved, in which all moved the same way, or whose scores are
    all equal.
    """
    return session_auc_of(*_by_session(y, score, session, num_sessions))


def ic(y: F64, score: F64, session: I32, num_sessions: int) -> F64:
    """Return the Pearson correlation of score and outcome of each session, shape (T,), NaN if undefined."""
    return ic_of(*_by_session(y, score, session, num_sessions))


def rank_ic(y: F64, score: F64, session: I32, num_sessions: int, *, min_size: int = MIN_SYMBOLS) -> F64:
    """Return the Spearman correlation of score and outcome of each session, shape (T,), NaN if undefined."""
    return rank_ic_of(*_by_session(y, score, session, num_sessions), min_size)


def session_auc_of(by_y: Sorted, by_score: Sorted) -> F64:
    """Return `session_auc` of rows that are sorted already."""
    area = by_score.auc(by_y.values > 0, by_y.values < 0, MIN_SYMBOLS)
    return np.where(by_score.varies, area, np.nan)


def ic_of(by_y: Sorted, by_score: Sorted) -> F64:
    """Return `ic` of rows that are sorted already."""
    defined = _is_correlated(by_y, by_score, MIN_SYMBOLS)
    return group_correlation(by_score.values, by_y.values, by_y.groups, defined)


def rank_ic_of(by_y: Sorted, by_score: Sorted, min_size: int = MIN_SYMBOLS) -> F64:
    """Return `rank_ic` of rows that are sorted already."""
    defined = _is_correlated(by_y, by_score, min_size)
    return group_correlation(by_score.ranks, by_y.ranks, by_y.groups, defined)


def _is_correlated(by_y: Sorted, by_score: Sorted, min_size: int) -> Bools:
    defined: Bools = (by_y.groups.sizes >= min_size) & by_y.varies & by_score.varies
    return defined


def _by_session(y: F64, score: F64, session: I32, num_sessions: int) -> tuple[Sorted, Sorted]:
    keep = np.isfinite(y) & np.isfinite(score)
    groups = Groups(session[keep], num_sessions)
    return Sorted.by(y[keep], groups), Sorted.by(score[keep], groups)


def icir(ic_by_session: F64) -> float:
    """Return mean over standard deviation (ddof 1) of an IC series; not annualised; NaN below 2 sessions."""
    series = ic_by_session[np.isfinite(ic_by_session)]
    moments = [np.asarray(x) for x in (series.sum(), (series**2).sum(), np.float64(len(series)))]
    return float(icir_of_sums(*moments))


def icir_of_sums(total: F64, total_squares: F64, count: F64) -> F64:
    """Return the ICIR of series given by sum, sum of squares and length (arrays of one shape)."""
    mean = ratio(total, count)
    variance = ratio(total_squares - count * mean**2, count - 1)
    # Of equal values only rounding is left over: that is no spread to divide by.
    spread = np.where(variance > 1e-12 * mean**2, variance, np.nan)
    return mean / np.sqrt(spread)


def newey_west_t(series: F64, lag: int | None = None) -> float:
    """Return the t statistic of the mean of a serially correlated series (Newey and West 1987).

    Parameters
    ----------
    series : F64, shape (T,)
        One value a session; NaN sessions are left out.
    lag : int, optional
        Autocovariances counted, at least horizon - 1 where labels overlap; by default
        ``floor(4 (T / 100)^(2/9))``.
    """
    series = series[np.isfinite(series)]
    length = len(series)
    if length < 2 or np.ptp(series) == 0:
        return math.nan
    lag = min(automatic_lag(length) if lag is None else lag, length - 1)
    apart = series - series.mean()
    variance = float(apart @ apart)
    for step in range(1, lag + 1):
        variance += 2 * (1 - step / (lag + 1)) * float(apart[step:] @ apart[:-step])
    return float(series.mean() / np.sqrt(variance) * length) if variance > 0 else math.nan


def automatic_lag(num_sessions: int) -> int:
    """Return the usual lag for a series of this length."""
    return int(4 * (num_sessions / 100) ** (2 / 9))


def decile_returns(y: F64, score: F64, session: I32, num_sessions: int, num_bins: int = 10) -> F64:
    """Return the mean outcome of each bin of the score in each session, shape (T, num_bins).

    Bin 0 holds the lowest scores; equal scores share a bin. A session with fewer symbols than bins, or with
    a constant score, is NaN throughout; a bin left empty by ties is NaN.
    """
    by_y, by_score = _by_session(y, score, session, num_sessions)
    groups = by_score.groups
    usable = (groups.sizes >= num_bins) & by_score.varies
    place = (by_score.ranks - 0.5) / groups.sizes[groups.index] * num_bins
    cell = groups.index.astype(np.int64) * num_bins + np.minimum(place, num_bins - 1).astype(np.int64)
    cells = num_sessions * num_bins
    total = np.bincount(cell, weights=by_y.values, minlength=cells)
    mean = ratio(total, np.bincount(cell, minlength=cells)).reshape(num_sessions, num_bins)
    return np.where(usable[:, None], mean, np.nan)


def calibration_bins(y_hat: F64, num_bins: int = 10) -> I32:
    """Return the bin of each forecast, 0 for the lowest, equal numbers of rows, equal forecasts together."""
    rank = Sorted.by(y_hat, Groups(np.zeros(len(y_hat), np.int32), 1)).ranks
    return np.minimum((rank - 0.5) * num_bins / max(len(y_hat), 1), num_bins - 1).astype(np.int32)


def calibration(y: F64, y_hat: F64, num_bins: int = 10) -> Calibration:
    """Return the calibration table: mean outcome per bin of the forecast, and the slope over all rows."""
    y, y_hat = _finite(y, y_hat)
    bins = Groups(calibration_bins(y_hat, num_bins), num_bins)
    filled = bins.sizes > 0
    slope, intercept = _line(y_hat, y)
    return Calibration(
        y_hat=bins.sums(y_hat)[filled] / bins.sizes[filled],
        y=bins.sums(y)[filled] / bins.sizes[filled],
        count=bins.sizes[filled],
        slope=slope,
        intercept=intercept,
    )


def log_loss(y: F64, p_up: F64) -> float:
    """Return the mean negative log likelihood of ``y > 0`` under ``p_up`` (kept 1e-15 away from 0 and 1)."""
    y, p_up = _finite(y, p_up)
    return _mean(log_losses(y, p_up))


def log_losses(y: F64, p_up: F64) -> F64:
    """Return the negative log likelihood of each row."""
    p_up = np.clip(p_up, _TINY, 1 - _TINY)
    return -np.log(np.where(y > 0, p_up, 1 - p_up))


def brier(y: F64, p_up: F64) -> float:
    """Return ``mean (p_up - [y > 0])^2``."""
    y, p_up = _finite(y, p_up)
    return _mean((p_up - (y > 0)) ** 2)


def pinball(y: F64, quantiles: F64, levels: F64) -> float:
    """Return the mean pinball loss over rows and levels, a fraction.

    Parameters
    ----------
    y : F64, shape (R,)
        Outcomes.
    quantiles : F64, shape (R, Q)
        Forecast quantiles.
    levels : F64, shape (Q,)
        Their levels, such as 0.1, 0.5, 0.9.
    """
    keep = np.isfinite(y) & np.isfinite(quantiles).all(axis=1)
    return _mean(pinball_losses(y[keep], quantiles[keep], levels))


def pinball_losses(y: F64, quantiles: F64, levels: F64) -> F64:
    """Return the pinball loss of each row, averaged over levels, shape (R,)."""
    error = y[:, None] - quantiles
    losses: F64 = np.maximum(levels * error, (levels - 1) * error).mean(axis=1)
    return losses


def quantile_coverage(y: F64, quantiles: F64) -> float:
    """Return the share of outcomes between the lowest and the highest quantile, both ends included."""
    keep = np.isfinite(y) & np.isfinite(quantiles).all(axis=1)
    return _mean(inside(y[keep], quantiles[keep]).astype(np.float64))


def inside(y: F64, quantiles: F64) -> Bools:
    """Return whether each outcome lies between the outer quantiles of its row."""
    between: Bools = (y >= quantiles.min(axis=1)) & (y <= quantiles.max(axis=1))
    return between


def _mean(values: F64) -> float:
    return float(values.mean()) if len(values) else math.nan


def _finite(*arrays: F64) -> tuple[F64, ...]:
    columns = [np.asarray(array, np.float64) for array in arrays]
    keep = np.logical_and.reduce([np.isfinite(column) for column in columns])
    return tuple(column[keep] for column in columns)


def _line(x: F64, y: F64) -> tuple[float, float]:
    if len(x) < 2 or np.ptp(x) == 0:
        return math.nan, math.nan
    apart = x - x.mean()
    slope = float(apart @ (y - y.mean()) / (apart @ apart))
    return slope, float(y.mean() - slope * x.mean())
