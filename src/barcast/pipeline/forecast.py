"""From scores to forecasts: the linear map, the standard deviation, and rows of the predictions table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I32, I64
from barcast.core.bars import Bars
from barcast.core.predictions import LIVE, SEGMENTS, conform
from barcast.models.naive import NaiveForecast
from barcast.pipeline.market import Market, session_times


@dataclass(frozen=True, kw_only=True)
class ScoreMap:
    """Score to expected log return and its standard deviation, for one horizon.

    ``y_hat = slope * score``. No intercept: four months of market drift are not evidence of tomorrow's, and
    a map through the origin keeps "no opinion" at zero. ``sigma = width * volatility * sqrt(horizon)``.
    """

    horizon: int
    slope: float
    width: float
    volatility: float
    """Typical volatility a bar, for rows without their own."""

    def y_hat(self, score: F64) -> F64:
        """Return expected log returns, fractions."""
        return self.slope * score

    def sigma(self, volatility: F64) -> F64:
        """Return standard deviations of the outcome, fractions."""
        own = np.where(np.isfinite(volatility) & (volatility > 0), volatility, self.volatility)
        return np.asarray(self.width * own * np.sqrt(self.horizon), np.float64)


def fit_score_map(
    score: F64, y: F64, volatility: F64, session: I32, horizon: int, *, slope: float | None = None
) -> ScoreMap:
    """Fit on rows of `weigh` (n,): least squares through the origin, shrunk by what its own error allows.

    Parameters
    ----------
    score, y, volatility : F64, shape (n,)
        NaN rows are left out.
    session : I32, shape (n,)
        Decision sessions; errors of one block of sessions are taken to move together.
    slope : float, optional
        Given for forecasts that state a return themselves (1.0): only the width is fitted.
    """
    known = np.isfinite(score) & np.isfinite(y)
    score, y, volatility, session = score[known], y[known], volatility[known], session[known]
    if slope is None:
        slope = shrunken_slope(score, y, session // (2 * horizon))
    own = np.isfinite(volatility) & (volatility > 0)
    typical = (
        float(np.median(volatility[own]))
        if own.any()
        else float(np.std(y) if len(y) else 0.01) / np.sqrt(horizon)
    )
    scale = np.where(own, volatility, typical) * np.sqrt(horizon)
    ratio = (y - slope * score) / scale
    # Limit moves and broken splices own a plain mean square: the widest thousandth counts as its border.
    border = np.quantile(np.abs(ratio), 0.999) if len(ratio) else 1.0
    width = float(np.sqrt(np.square(np.clip(ratio, -border, border)).mean())) if len(ratio) else 1.0
    return ScoreMap(horizon=horizon, slope=float(slope), width=width or 1.0, volatility=typical)


def shrunken_slope(score: F64, y: F64, block: I32) -> float:
    """Return the slope through the origin times ``max(0, 1 - se^2 / slope^2)`` (positive-part James-Stein).

    The standard error takes rows of one block as one observation (Liang and Zeger 1986). A slope that a few
    months cannot tell from zero becomes zero, and one below zero says "the opposite of what it learned":
    noise, so no opinion.
    """
    square = float(np.square(score).sum())
    if square <= 0:
        return 0.0
    slope = float((score * y).sum()) / square
    if slope <= 0:
        return 0.0
    by_block = np.bincount(block - block.min(), weights=score * (y - slope * score))
    variance = float(np.square(by_block).sum()) / square**2
    return slope * max(0.0, 1.0 - variance / slope**2)


def prediction_rows(
    market: Market,
    rows: I64,
    scores: F64,
    maps: tuple[ScoreMap, ...],
    *,
    run: str,
    model: str,
    seed: int = 0,
    route: str = "universal",
    forecasts: F64 | None = None,
) -> pl.DataFrame:
    """Make rows of the predictions table, one block a horizon.

    Parameters
    ----------
    rows : I64, shape (n,)
        Rows of the market.
    scores : F64, shape (n, H)
        Raw outputs; rows with NaN are left out.
    forecasts : F64, shape (n, H), optional
        Expected returns where the rule states them; otherwise the map gives them.

    Notes
    -----
    ``y`` stays null on `test` rows: the segment is sealed until it is opened.
    """
    frames = []
    for h, score_map in enumerate(maps):
        keep = np.isfinite(scores[:, h])
        stated = None if forecasts is None else forecasts[keep, h]
        base, volatility = base_rows(market, rows[keep], h), market.volatility[rows[keep]]
        frames.append(_with_forecast(base, score_map, scores[keep, h], volatility, stated))
    return _said_by(pl.concat(frames), run=run, model=model, seed=seed, route=route)


def live_rows(
    bars: Bars, rows: I64, scores: F64, volatility: F64, maps: tuple[ScoreMap, ...], *,
    delay: int, run: str, model: str, seed: int,
) -> pl.DataFrame:  # fmt: skip
    """Make rows whose outcome lies beyond the data, best score first within each horizon; ``y`` is null.

    Parameters
    ----------
    rows : I64, shape (n,)
        Last rows of the symbols.
    scores : F64, shape (n, H)
    volatility : F64, shape (n,)
        A fraction a bar.
    """
    frames = []
    for h, score_map in enumerate(maps):
        base = _key_columns(bars, rows, score_map.horizon, delay).with_columns(segment=pl.lit(LIVE))
        frame = _with_forecast(base, score_map, scores[:, h], volatility)
        frames.append(frame.sort("score", descending=True))
    return _said_by(pl.concat(frames), run=run, model=model, seed=seed, route="universal")


def _with_forecast(
    base: pl.DataFrame, score_map: ScoreMap, score: F64, volatility: F64, stated: F64 | None = None
) -> pl.DataFrame:
    from scipy.special import ndtr  # local: one function of a large library

    y_hat = score_map.y_hat(score) if stated is None else stated
    sigma = score_map.sigma(volatility)
    columns = {"score": score, "y_hat": y_hat, "sigma": sigma, "p_up": ndtr(y_hat / sigma)}
    return base.with_columns(pl.Series(name, values, pl.Float64) for name, values in columns.items())


def _said_by(frame: pl.DataFrame, *, run: str, model: str, seed: int, route: str) -> pl.DataFrame:
    said = {"run": run, "model": model, "seed": seed, "route": route}
    return conform(frame.with_columns(pl.lit(value).alias(name) for name, value in said.items()))


def _key_columns(bars: Bars, rows: I64, horizon: int, delay: int) -> pl.DataFrame:
    symbols = np.array(bars.symbols, dtype=object)[bars.symbol_of_row[rows]]
    return pl.DataFrame(
        {"symbol": pl.Series(symbols, dtype=pl.String), "time": session_times(bars, bars.session[rows])}
    ).with_columns(horizon=pl.lit(horizon), delay=pl.lit(delay), target=pl.lit("return"))


def base_rows(market: Market, rows: I64, h: int, *, opened: bool = False) -> pl.DataFrame:
    """Return what a prediction row says apart from the prediction; y is null on sealed rows."""
    bars, labels = market.bars, market.labels
    names = np.array([*SEGMENTS, ""])
    y = labels.y[rows, h]
    sealed = (market.segment[rows] == SEGMENTS.index("test")) & (not opened)
    return _key_columns(bars, rows, labels.spec.horizons[h], labels.spec.delay).with_columns(
        segment=pl.Series(names[market.segment[rows]].tolist(), dtype=pl.String),
        known_at=session_times(bars, labels.known_at[rows, h]),
        y=pl.Series(y).set(pl.Series(~np.isfinite(y) | sealed), None),
        tradable=pl.Series(labels.tradable[rows]),
    )


def naive_rows(market: Market, rows: I64, name: str, rule: object) -> pl.DataFrame:
    """Make the rows of one naive rule, its map fitted on `weigh` like a model's."""
    weigh = np.flatnonzero(market.rows_of("weigh"))
    scores = np.full((len(rows), len(market.labels.spec.horizons)), np.nan)
    stated: F64 | None = None
    maps = []
    for h, horizon in enumerate(market.labels.spec.horizons):
        forecast: NaiveForecast = rule(market.bars, horizon)  # type: ignore[operator]
        scores[:, h] = forecast.score[rows]
        slope = None if forecast.y_hat is None else 1.0
        y, volatility = market.labels.y[weigh, h], market.volatility[weigh]
        sessions = market.bars.session[weigh]
        maps.append(fit_score_map(forecast.score[weigh], y, volatility, sessions, horizon, slope=slope))
        if forecast.y_hat is not None:
            stated = np.full_like(scores, np.nan) if stated is None else stated
            stated[:, h] = forecast.y_hat[rows]
    return prediction_rows(
        market, rows, scores, tuple(maps), run="naive", model=name, route="naive", forecasts=stated
    )
