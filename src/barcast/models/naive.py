"""Forecasts that need no training: what every table starts with, because any model must beat them.

Each rule reads bars up to the decision session only. ``y_hat`` is a log return as a fraction; a rule that
gives only a score gets its ``y_hat`` by the same linear map on `weigh` as a model does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from barcast.core.arrays import F64
from barcast.core.bars import Bars
from barcast.models.registry import register


@dataclass(frozen=True, kw_only=True)
class NaiveConfig:
    """Naive rules have no options."""


@dataclass(frozen=True)
class NaiveForecast:
    """A rule's output on every row.

    Attributes
    ----------
    score : F64, shape (R,)
        NaN where the rule has too little history.
    y_hat : F64 or None
        The forecast itself, where the rule states one.
    """

    score: F64
    y_hat: F64 | None


@register("zero", "naive", NaiveConfig, summary="no change at all")
def zero(bars: Bars, horizon: int) -> NaiveForecast:
    """Forecast a return of zero for every symbol."""
    return NaiveForecast(np.zeros(len(bars)), np.zeros(len(bars)))


@register("historical_mean", "naive", NaiveConfig, summary="the symbol's own mean return so far")
def historical_mean(bars: Bars, horizon: int) -> NaiveForecast:
    """Forecast the mean one-bar return of the symbol's history so far, times the horizon."""
    first = np.repeat(bars.offsets[:-1], np.diff(bars.offsets))
    steps = np.arange(len(bars)) - first
    log_close = np.log(bars.close)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(steps > 0, (log_close - log_close[first]) / steps, 0.0) * horizon
    return NaiveForecast(value, value)


@register("always_up", "naive", NaiveConfig, summary="up, for every symbol on every day")
def always_up(bars: Bars, horizon: int) -> NaiveForecast:
    """Forecast the mean absolute return of the whole market so far: the same positive number for all."""
    change = np.abs(_past_return(bars, 1))
    known = np.isfinite(change)
    size = len(bars.calendar)
    total = np.cumsum(np.bincount(bars.session[known], weights=change[known], minlength=size))
    count = np.cumsum(np.bincount(bars.session[known], minlength=size))
    by_session = np.maximum(total / np.maximum(count, 1), 1e-6) * np.sqrt(horizon)
    value = by_session[bars.session]
    return NaiveForecast(value, value)


@register("reversal", "naive", NaiveConfig, summary="what rose over the horizon falls, and the reverse")
def reversal(bars: Bars, horizon: int) -> NaiveForecast:
    """Score a symbol by minus its return over the past ``horizon`` bars (Jegadeesh 1990)."""
    return NaiveForecast(-_past_return(bars, horizon), None)


@register("persistence", "naive", NaiveConfig, summary="the last return comes again")
def persistence(bars: Bars, horizon: int) -> NaiveForecast:
    """Forecast the return over the past ``horizon`` bars again."""
    value = _past_return(bars, horizon)
    return NaiveForecast(value, value)


def _past_return(bars: Bars, horizon: int) -> F64:
    """Return ln(close / close ``horizon`` own bars ago), NaN where the life is shorter."""
    value = np.full(len(bars), np.nan)
    log_close = np.log(bars.close)
    value[horizon:] = log_close[horizon:] - log_close[:-horizon]
    value[np.arange(len(bars)) - bars.life_start < horizon] = np.nan
    return value
