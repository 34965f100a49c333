"""What features are written with: `close / mean(close, 20) - 1` is a whole feature.

Every primitive takes float64 columns of shape (R,) and gives columns of shape (R,). Row t of a window of n
holds what follows from rows t-n+1 .. t (itself included), and nothing else.

.. warning::
   No primitive looks ahead, and none reaches across a *life*: the panel computes many symbols in one array,
   and the first rows of each symbol, and of each restart after a long hole, are NaN until the window is
   filled by rows of that life alone. Outside the panel an array counts as one life.

NaN policy: a window that holds a NaN is NaN, and is well again when the NaN has left it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from barcast.core.arrays import F64, I64
from barcast.core.errors import UsageError

__all__ = [
    "change",
    "correlation",
    "exponential_mean",
    "highest",
    "lag",
    "linear_fit",
    "log_ratio",
    "lowest",
    "mean",
    "mean_deviation",
    "rank",
    "ratio",
    "rows_since_highest",
    "rows_since_lowest",
    "skew",
    "std",
    "total",
    "zscore",
]


class _Lives(threading.local):
    """The borders of the lives in the arrays that this thread is computing on; None outside the panel."""

    borders: I64 | None = None


_current = _Lives()


@contextmanager
def lives(borders: I64) -> Iterator[None]:
    """Tell the primitives of this thread where lives begin and end in the arrays they get.

    Parameters
    ----------
    borders : I64, shape (num_lives + 1,)
        First row of each life, then the number of rows.
    """
    before, _current.borders = _current.borders, borders
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _current.borders = before


def lag(x: F64, n: int) -> F64:
    """Value ``n`` rows ago; NaN in the first n rows."""
    return np.asarray(_kernels().lag(x, n, _check(x, n, 0)))


def change(x: F64, n: int = 1) -> F64:
    """``x - lag(x, n)``; NaN in the first n rows."""
    return np.asarray(_kernels().change(x, n, _check(x, n, 0)))


def total(x: F64, n: int) -> F64:
    """Sum of ``n`` rows."""
    return _rolling(_kernels().TOTAL, x, n)[0]


def mean(x: F64, n: int) -> F64:
    """Mean of ``n`` rows."""
    return _rolling(_kernels().MEAN, x, n)[0]


def exponential_mean(x: F64, n: int) -> F64:
    """Finite exponential mean: weights ``(1 - 2 / (n + 1))**j`` for ages j = 0 .. 4n-1, normalised.

    The weights cut off hold 0.03 % of the endless mean's, and the value needs 4n rows instead of all history.
    """
    _check(x, n, 1)
    decay = 1 - 2 / (n + 1)
    weights = (1 - decay ** (4 * n)) / (1 - decay)
    return _rolling(_kernels().EXPONENTIAL, x, 4 * n, decay=decay)[0] / weights


def std(x: F64, n: int) -> F64:
    """Sample deviation (ddof 1) of ``n`` rows; exactly 0 on a constant window."""
    return np.sqrt(_rolling(_kernels().SPREAD, x, n, carried=2, least=2)[1] / (n - 1))


def zscore(x: F64, n: int) -> F64:
    """``(x - mean(x, n)) / std(x, n)``; 0 on a constant window."""
    centre, squares = _rolling(_kernels().SPREAD, x, n, carried=2, least=2)
    return ratio(x - centre, np.sqrt(squares / (n - 1)))


def skew(x: F64, n: int) -> F64:
    """Sample skewness of ``n`` rows, bias-corrected (G1, as in pandas); 0 on a constant window."""
    _, squares, cubes = _rolling(_kernels().SKEW, x, n, carried=3, least=3)
    spread = np.sqrt(squares / n)
    return ratio(cubes / n, spread * spread * spread) * (math.sqrt(n * (n - 1)) / (n - 2))


def linear_fit(x: F64, n: int) -> tuple[F64, F64]:
    """Slope (per row) and R² of the least-squares line through ``n`` rows; R² is 0 on a constant window."""
    _, squares, trend = _rolling(_kernels().FIT, x, n, carried=3, least=2)
    slope = trend / (n * (n * n - 1) / 12)
    return slope, np.minimum(ratio(slope * trend, squares), 1.0)


def correlation(x: F64, y: F64, n: int) -> F64:
    """Pearson correlation of ``n`` rows; 0 where either is constant."""
    _check(y, n, 2)
    state = _rolling(_kernels().CORRELATION, x, n, y, carried=5, least=2)
    return np.clip(ratio(state[4], np.sqrt(state[2]) * np.sqrt(state[3])), -1.0, 1.0)


def highest(x: F64, n: int) -> F64:
    """Largest of ``n`` rows."""
    return _rolling(_kernels().HIGHEST, x, n)[0]


def lowest(x: F64, n: int) -> F64:
    """Smallest of ``n`` rows."""
    return -highest(-x, n)


def rows_since_highest(x: F64, n: int) -> F64:
    """How many rows ago the largest of ``n`` rows was, 0 .. n-1; of equal ones the newest."""
    return _rolling(_kernels().LAST_HIGHEST, x, n, carried=2)[1]


def rows_since_lowest(x: F64, n: int) -> F64:
    """How many rows ago the smallest of ``n`` rows was, 0 .. n-1; of equal ones the newest."""
    return rows_since_highest(-x, n)


def rank(x: F64, n: int) -> F64:
    """Percentile rank of the row among the last ``n``, in (0, 1], ties by their average rank."""
    return np.asarray(_kernels().rank(x, n, _check(x, n, 1)))


def mean_deviation(x: F64, n: int) -> F64:
    """Mean absolute deviation of ``n`` rows from their mean; exactly 0 on a constant window."""
    borders = _check(x, n, 1)
    return np.asarray(_kernels().mean_deviation(x, mean(x, n), n, borders))


def ratio(above: F64, below: F64) -> F64:
    """``above / below``, and 0 where ``below`` is 0 (never infinite; NaN stays NaN)."""
    return np.asarray(_kernels().ratio(above, below))


def log_ratio(above: F64, below: F64) -> F64:
    """``ln(above / below)``, and 0 where either is 0."""
    value = ratio(above, below)
    with np.errstate(invalid="ignore"):
        return np.log(np.where(value == 0, 1.0, value))


def _rolling(
    kind: int, x: F64, n: int, y: F64 | None = None, *, carried: int = 1, least: int = 1, decay: float = 1.0
) -> tuple[F64, ...]:
    borders = _check(x, n, least)
    return tuple(_kernels().rolling(x, x if y is None else y, n, kind, carried, decay, borders))


def _check(x: Any, n: Any, least: int) -> I64:
    """Refuse what is no column or no window; return the borders of the lives in the column."""
    if type(n) is not int or n < least:
        raise UsageError(f"a window of `{n}` rows", f"give a whole number of at least {least}")
    if not isinstance(x, np.ndarray) or x.ndim != 1 or x.dtype != np.float64:
        raise UsageError(
            f"a primitive takes a float64 column, found {_describe(x)}",
            "compute on the columns that the feature asks for by the names of its arguments",
        )
    borders = _current.borders
    if borders is None:
        return np.array([0, len(x)])
    if len(x) != borders[-1]:
        raise UsageError(
            f"a column of {len(x)} rows where the others have {borders[-1]}",
            "use lag(x, n) instead of slicing: a column must keep all its rows",
        )
    return borders


def _describe(x: Any) -> str:
    if isinstance(x, np.ndarray):
        return f"an array of {x.dtype} with shape {x.shape}"
    return f"`{x!r}`"


@cache
def _kernels() -> ModuleType:
    from barcast.features import kernels  # local: numba takes a third of a second, a list of names needs none

    return kernels
