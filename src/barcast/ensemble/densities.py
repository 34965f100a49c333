"""Predictive densities of a symbol's members, and the mixture they make.

Members share one volatility model: the scale of a row is its ``sigma`` times one width per symbol. So a
member is better for what it expects, never for how wide it calls the outcome.

Letters: R rows sorted by symbol, S symbols, K members.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from barcast.core.arrays import F64
from barcast.ensemble.hierarchy import symbol_of_row

Family = Literal["normal", "student"]
#: Degrees of freedom of the ``student`` family.
DEGREES = 5.0
#: Rows' worth of the market's width in each symbol's.
_WIDTH_PRIOR_ROWS = 20.0
_NUM_WIDTH_STEPS = 40
#: Log densities at 0 of scale 1: student with 5 degrees of freedom, normal.
_STUDENT_PEAK = float(np.log(8 / (3 * np.pi * np.sqrt(DEGREES))))
_NORMAL_PEAK = -0.5 * float(np.log(2 * np.pi))


def fit_widths(y: F64, sigma: F64, offsets: npt.NDArray[np.integer], family: Family = "student") -> F64:
    """Fit the one factor per symbol by which ``sigma`` becomes the scale of the density.

    Parameters
    ----------
    y, sigma : F64, shape (R,)
        Outcomes, and their standard deviations by the volatility model, on rows *before* those that weigh
        (`stop`). Rows with a value that is not finite, or a sigma not above 0, are left out.
    offsets : shape (S + 1,)
        Rows of each symbol.
    family : str
        ``normal``, or ``student`` with 5 degrees of freedom.

    Returns
    -------
    F64, shape (S,)
        Likeliest widths about zero, each with 20 rows' worth of the whole market's; 1 without any row.
    """
    symbol, num = symbol_of_row(offsets, len(y)), len(offsets) - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        square = np.square(y / np.where(sigma > 0, sigma, np.nan))
    known = np.isfinite(square)
    square, symbol = square[known], symbol[known]
    if not square.any():
        return np.ones(num)
    rows = np.bincount(symbol, minlength=num)
    market, width = float(square.mean()), np.full(num, float(square.mean()))
    # Expectation-maximisation: a row far out counts for less. The normal is there after one step.
    for _ in range(_NUM_WIDTH_STEPS if family == "student" else 1):
        market = float((_pull(square, market, family) * square).mean())
        own = np.bincount(symbol, _pull(square, width[symbol], family) * square, num)
        width = (own + _WIDTH_PRIOR_ROWS * market) / (rows + _WIDTH_PRIOR_ROWS)
    return np.asarray(np.sqrt(width))


def _pull(square: F64, width: F64 | float, family: Family) -> F64 | float:
    return 1.0 if family == "normal" else (DEGREES + 1) / (DEGREES + square / width)


def log_densities(y: F64, y_hat: F64, scale: F64, family: Family = "student") -> F64:
    """Return the log density of each outcome under each member, shape (R, K).

    Parameters
    ----------
    y, scale : F64, shape (R,)
        Outcomes, and scales: ``sigma`` of the row times the symbol's width.
    y_hat : F64, shape (R, K)
        What the members expect. Zeros belong among them and, for returns, the pooled mean.
    family : str
        As the widths were fitted.

    Returns
    -------
    F64, shape (R, K)
        In nats; NaN where an input is not finite or the scale not above 0.
    """
    safe = np.where(np.isfinite(scale) & (scale > 0), scale, np.nan)[:, None]
    square = np.square((y[:, None] - y_hat) / safe)
    square = np.where(np.isfinite(square), square, np.nan)
    if family == "normal":
        return np.asarray(_NORMAL_PEAK - 0.5 * square - np.log(safe))
    return np.asarray(_STUDENT_PEAK - 0.5 * (DEGREES + 1) * np.log1p(square / DEGREES) - np.log(safe))


def mixture_log_score(log_density: F64, weights: F64) -> F64:
    """Return the log density of each outcome under its mixture, shape (R,).

    Parameters
    ----------
    log_density : F64, shape (R, K)
        From :func:`log_densities`. Members that are not finite on a row leave their weight to the others.
    weights : F64, shape (R, K)
        Weights of the row's symbol.

    Returns
    -------
    F64, shape (R,)
        In nats; NaN where no member with a weight has a finite log density.
    """
    share = np.where(np.isfinite(log_density), weights, 0.0)
    counts = share > 0
    peak = np.where(counts, log_density, -np.inf).max(axis=1, initial=-np.inf)
    known = np.isfinite(peak)
    peak = np.where(known, peak, 0.0)
    density = np.where(counts, share * np.exp(np.where(counts, log_density - peak[:, None], 0.0)), 0.0)
    total = np.where(known, density.sum(axis=1) / np.where(known, share.sum(axis=1), 1.0), np.nan)
    return np.asarray(peak + np.log(total))
