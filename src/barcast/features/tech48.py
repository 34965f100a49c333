"""tech48: forty-eight technical features of daily or intraday bars, and those of them that need closes only.

All are trailing, include the bar they stand on, are free of the price's scale, and remember a finite number
of bars: a value computed from its warm-up alone equals the value computed from the whole history. O H L C V
are the adjusted bar, ``X[-n]`` is n bars ago, r = ln(C / C[-1]); a window of n includes the current bar; std
has ddof 1; a division by 0 gives 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from barcast.core.arrays import F64
from barcast.features.primitives import (
    change,
    correlation,
    exponential_mean,
    highest,
    lag,
    linear_fit,
    log_ratio,
    lowest,
    mean,
    mean_deviation,
    rank,
    ratio,
    rows_since_highest,
    rows_since_lowest,
    skew,
    std,
    total,
    zscore,
)
from barcast.features.registry import Feature, FeatureSet, register

_RETURN = "log return"
_CANDLE = "candlestick shape"
_AVERAGE = "moving average"
_MACD = "Appel, MACD (finite exponential means of 4n bars)"
_TREND = "least-squares trend of the log price"
_STOCHASTIC = "Lane, stochastic oscillator"
_BOLLINGER = "Bollinger bands"
_VOLATILITY = "realised volatility"
_EXTREMES = "distance from a trailing extreme"
_VOLUME = "volume"


def _log_return(n: int) -> Callable[..., F64]:
    return lambda log_close: change(log_close, n)


def _volatility(n: int) -> Callable[..., F64]:
    return lambda log_return: std(log_return, n)


def _directional_movement(high: F64, low: F64) -> tuple[F64, F64]:
    """Wilder's +DM and -DM: the larger of the two outward moves of the bar, if any."""
    up, down = change(high), -change(low)
    # products, not np.where: a missing first row stays missing
    return np.maximum(up, 0) * (up > down), np.maximum(down, 0) * (down > up)


def _directional_index(directional_movement: tuple[F64, F64]) -> F64:
    plus, minus = (total(movement, 14) for movement in directional_movement)
    return ratio(np.abs(plus - minus), plus + minus)


def _commodity_channel(typical_price: F64) -> F64:
    distance = typical_price - mean(typical_price, 20)
    return ratio(distance, 1.5 * mean_deviation(typical_price, 20))  # 0.015 * 100


def _garman_klass(log_open: F64, log_high: F64, log_low: F64, log_close: F64) -> F64:
    daily = 0.5 * np.square(log_high - log_low) - (2 * math.log(2) - 1) * np.square(log_close - log_open)
    return np.sqrt(np.maximum(mean(daily, 20), 0))


def _amihud(log_return: F64, close: F64, volume: F64) -> F64:
    impact = ratio(np.abs(log_return), close * volume)  # 0 where nothing was traded
    traded = np.sign(volume)  # 1, 0, or NaN where the source has no volume
    recent, usual = (ratio(total(impact, n), total(traded, n)) for n in (5, 60))
    return log_ratio(recent, usual)


_STEPS: Mapping[str, Callable[..., Any]] = {
    "mean_20": lambda close: mean(close, 20),
    "std_20": lambda close: std(close, 20),
    "macd_line": lambda close: exponential_mean(close, 12) - exponential_mean(close, 26),
    "trend_20": lambda log_close: linear_fit(log_close, 20),
    "low_14": lambda low: lowest(low, 14),
    "high_14": lambda high: highest(high, 14),
    "move": lambda close: change(close, 1),
    "directional_movement": _directional_movement,
    "directional_index": _directional_index,
    "log_range": lambda log_high, log_low: log_high - log_low,
    "close_location": lambda high, low, close: ratio(2 * close - high - low, high - low),
}

# fmt: off
_FEATURES = (
    *(Feature(f"ret_{n}", f"ln(C / C[-{n}])", n, _RETURN, _log_return(n)) for n in (1, 2, 3, 5, 10, 20, 60)),
    Feature("mom_60_5", "ln(C[-5] / C[-60])", 60, "Jegadeesh & Titman 1993, skips the last week",
            lambda log_close: lag(log_close, 5) - lag(log_close, 60)),
    Feature("gap", "ln(O / C[-1])", 1, "overnight return",
            lambda log_open, log_close: log_open - lag(log_close, 1)),
    Feature("intraday", "ln(C / O)", 0, "open-to-close return",
            lambda log_open, log_close: log_close - log_open),
    Feature("hl_range", "ln(H / L)", 0, "Parkinson 1980, one bar", lambda log_range: log_range),
    Feature("upper_shadow", "(H - max(O, C)) / (H - L)", 0, _CANDLE,
            lambda open, high, low, close: ratio(high - np.maximum(open, close), high - low)),
    Feature("lower_shadow", "(min(O, C) - L) / (H - L)", 0, _CANDLE,
            lambda open, high, low, close: ratio(np.minimum(open, close) - low, high - low)),
    Feature("body", "(C - O) / (H - L)", 0, _CANDLE,
            lambda open, high, low, close: ratio(close - open, high - low)),
    Feature("clv", "(2C - H - L) / (H - L)", 0, "Chaikin, close location value",
            lambda close_location: close_location),
    Feature("sma_5", "C / mean5(C) - 1", 4, _AVERAGE, lambda close: close / mean(close, 5) - 1),
    Feature("sma_10", "C / mean10(C) - 1", 9, _AVERAGE, lambda close: close / mean(close, 10) - 1),
    Feature("sma_20", "C / mean20(C) - 1", 19, _AVERAGE, lambda close, mean_20: close / mean_20 - 1),
    Feature("sma_60", "C / mean60(C) - 1", 59, _AVERAGE, lambda close: close / mean(close, 60) - 1),
    Feature("macd", "(EMA12(C) - EMA26(C)) / C", 103, _MACD, lambda close, macd_line: macd_line / close),
    Feature("macd_hist", "(M - EMA9(M)) / C with M = EMA12(C) - EMA26(C)", 138, _MACD,
            lambda close, macd_line: (macd_line - exponential_mean(macd_line, 9)) / close),
    Feature("slope_20", "least-squares slope of ln C on 1..20", 19, _TREND, lambda trend_20: trend_20[0]),
    Feature("r2_20", "R² of that line, 0 if flat", 19, _TREND, lambda trend_20: trend_20[1]),
    Feature("adx_14", "mean14(|pDI - mDI| / (pDI + mDI)), DI from 14-bar sums of +DM, -DM", 27,
            "Wilder 1978, with plain means", lambda directional_index: mean(directional_index, 14)),
    Feature("rsi_14", "sum14(max(dC, 0)) / sum14(|dC|) - 0.5", 14, "Wilder 1978, Cutler's form",
            lambda move: ratio(total(np.maximum(move, 0), 14), total(np.abs(move), 14)) - 0.5),
    Feature("stoch_k", "(C - min14 L) / (max14 H - min14 L) - 0.5", 13, _STOCHASTIC,
            lambda close, low_14, high_14: ratio(close - low_14, high_14 - low_14) - 0.5),
    Feature("stoch_d", "mean3(stoch_k)", 15, _STOCHASTIC, lambda stoch_k: mean(stoch_k, 3)),
    Feature("cci_20", "(TP - mean20(TP)) / (0.015 MAD20(TP)) / 100 with TP = (H + L + C) / 3", 19,
            "Lambert 1980", _commodity_channel),
    Feature("boll_z", "(C - mean20(C)) / std20(C)", 19, _BOLLINGER,
            lambda close, mean_20, std_20: ratio(close - mean_20, std_20)),
    Feature("boll_w", "4 std20(C) / mean20(C)", 19, _BOLLINGER,
            lambda mean_20, std_20: 4 * std_20 / mean_20),
    Feature("aroon_25", "(bars since lowest L - bars since highest H over 26 bars) / 25, newest of equals",
            25, "Chande 1995",
            lambda high, low: (rows_since_lowest(low, 26) - rows_since_highest(high, 26)) / 25),
    *(Feature(f"vol_{n}", f"std{n}(r)", n, _VOLATILITY, _volatility(n)) for n in (5, 20, 60)),
    Feature("vol_ratio", "ln(vol_5 / vol_60), 0 if either is 0", 60, _VOLATILITY,
            lambda vol_5, vol_60: log_ratio(vol_5, vol_60)),
    Feature("parkinson_20", "sqrt(mean20(ln(H / L)²) / (4 ln 2))", 19, "Parkinson 1980",
            lambda log_range: np.sqrt(mean(np.square(log_range), 20) / (4 * math.log(2)))),
    Feature("gk_20", "sqrt(max(0, mean20(0.5 ln(H / L)² - (2 ln 2 - 1) ln(C / O)²)))", 19,
            "Garman & Klass 1980", _garman_klass),
    Feature("atr_14", "mean14(TR) / C with TR = max(H - L, |H - C[-1]|, |L - C[-1]|)", 14,
            "Wilder 1978, with a plain mean", lambda true_range, close: mean(true_range, 14) / close),
    Feature("skew_20", "sample skewness of r over 20 (bias-corrected), 0 if flat", 20, "realised skewness",
            lambda log_return: skew(log_return, 20)),
    Feature("dd_60", "C / max60(C) - 1", 59, _EXTREMES, lambda close: close / highest(close, 60) - 1),
    Feature("up_60", "C / min60(C) - 1", 59, _EXTREMES, lambda close: close / lowest(close, 60) - 1),
    Feature("rank_20", "percentile rank of C in the last 20, average ties, - 0.5", 19, _EXTREMES,
            lambda close: rank(close, 20) - 0.5),
    Feature("dvol_1", "ln((V + 1) / (V[-1] + 1))", 1, _VOLUME, lambda log_volume: change(log_volume, 1)),
    Feature("relvol_20", "ln((V + 1) / (mean20(V) + 1))", 19, _VOLUME,
            lambda volume, log_volume: log_volume - np.log(mean(volume, 20) + 1)),
    Feature("vol_z20", "(v - mean20(v)) / std20(v) with v = ln(V + 1)", 19, _VOLUME,
            lambda log_volume: zscore(log_volume, 20)),
    Feature("amihud_rel", "ln(mean5(|r| / (C V)) / mean60(|r| / (C V))), bars with V = 0 skipped, "
            "0 if either is 0", 60, "Amihud 2002, against its own past", _amihud),
    Feature("cmf_20", "sum20(clv V) / sum20(V)", 19, "Chaikin money flow",
            lambda close_location, volume: ratio(total(close_location * volume, 20), total(volume, 20))),
    Feature("corr_rv_20", "corr20(r, dvol_1)", 20, "price-volume correlation",
            lambda log_return, dvol_1: correlation(log_return, dvol_1, 20)),
)
# fmt: on

TECH48 = register(
    FeatureSet(
        name="tech48",
        features=_FEATURES,
        description="forty-eight technical features of open, high, low, close and volume",
        steps=_STEPS,
    )
)

TECH_CLOSE = register(
    TECH48.subset(
        "tech_close",
        (feature.name for feature in TECH48.features if TECH48.needs_of(feature) == ("close",)),
        "the features of tech48 that need closes only: for indices, funds and adjusted-only sources",
    )
)
