"""From scores to forecasts: the linear map, the standard deviation, and rows of the predictions table."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I32, I64
from barcast.core.bars import Bars
from barcast.core.predictions import LIVE, QUANTILE_LEVELS, SEGMENTS, conform
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
    odds: float = 0.0
    """Of a direction: the log odds of a rise are ``odds * score``; 0: normal around ``y_hat``."""
    shifts: tuple[float, ...] = ()
    """What each quantile is moved by, in multiples of ``scale``; empty: none were asked for."""

    def scale(self, volatility: F64) -> F64:
        """Return what a horizon moved of late, ``volatility * sqrt(horizon)``, fractions."""
        own = np.where(np.isfinite(volatility) & (volatility > 0), volatility, self.volatility)
        return np.asarray(own * np.sqrt(self.horizon), np.float64)

    def y_hat(self, score: F64) -> F64:
        """Return expected log returns, fractions."""
        return self.slope * score

    def sigma(self, volatility: F64) -> F64:
        """Return standard deviations of the outcome, fractions."""
        return self.width * self.scale(volatility)

    def p_up(self, score: F64, y_hat: F64, sigma: F64) -> F64:
        """Return the probability that the return is above 0."""
        from scipy.special import expit, ndtr  # local: two functions of a large library

        return np.asarray(expit(self.odds * score) if self.odds else ndtr(y_hat / sigma), np.float64)

    def quantiles(self, base: F64, volatility: F64) -> F64:
        """Return quantiles of the return (n, Q), fractions, in order.

        ``base`` (n, Q) holds a network's own, in multiples of ``scale``, or (n, 1) a point forecast's.
        """
        moved = (base + np.array(self.shifts)) * self.scale(volatility)[:, None]
        return np.sort(moved, axis=1)


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


def fit_maps(
    market: Market, rows: I64, scores: F64, target: str, quantiles: F64 | None = None
) -> tuple[ScoreMap, ...]:
    """Fit the map of each horizon on rows of `weigh` (n,).

    Parameters
    ----------
    scores : F64, shape (n, H)
    target : str
        What was learned: a direction gets odds, quantiles get shifts.
    quantiles : F64, shape (n, H, Q), optional
        A network's own, in multiples of the map's ``scale``.
    """
    volatility, session, y = market.volatility[rows], market.bars.session[rows], market.labels.y[rows]
    maps = []
    for h, horizon in enumerate(market.labels.spec.horizons):
        found = fit_target_map(scores[:, h], y[:, h], volatility, session, horizon, target)
        if target == "quantiles" and quantiles is not None:
            found = fit_quantiles(found, y[:, h], quantiles[:, h], volatility)
        maps.append(found)
    return tuple(maps)


def fit_target_map(score: F64, y: F64, volatility: F64, session: I32, horizon: int, target: str) -> ScoreMap:
    """Fit the map of one horizon from scores (n,): odds of a direction, quantiles around a point forecast."""
    found = fit_score_map(score, y, volatility, session, horizon)
    if target == "direction":
        return fit_odds(found, score, y)
    if target == "quantiles":
        point = (found.y_hat(score) / found.scale(volatility))[:, None]
        return fit_quantiles(found, y, point, volatility)
    return found


def fit_odds(score_map: ScoreMap, score: F64, y: F64) -> ScoreMap:
    """Let scores of a direction (n,) give probabilities: ``log odds = odds * score``, likeliest on `weigh`.

    No intercept, as for the slope; and where the slope says that scores mean nothing, they give no odds.
    """
    known = np.isfinite(score) & np.isfinite(y) & (y != 0)
    signed = np.where(y[known] > 0, 1.0, -1.0) * score[known]
    if not score_map.slope or not len(signed):
        return score_map
    from scipy.optimize import minimize_scalar  # local: one function of a large library

    most = 20.0 / max(float(np.abs(signed).max()), 1e-12)
    found = minimize_scalar(lambda odds: np.logaddexp(0, -odds * signed).mean(), bounds=(0, most))
    return replace(score_map, odds=float(found.x))


def fit_quantiles(score_map: ScoreMap, y: F64, base: F64, volatility: F64) -> ScoreMap:
    """Move every quantile so that its share of outcomes on `weigh` lies below it (split conformal).

    Parameters
    ----------
    y, volatility : F64, shape (n,)
    base : F64, shape (n, Q) or (n, 1)
        A network's own quantiles, or a point forecast, in multiples of the map's ``scale``.

    Notes
    -----
    Conformalised quantile regression (Romano, Patterson and Candes 2019), one level at a time.
    """
    known = np.isfinite(y) & np.isfinite(base).all(axis=1)
    left = (y / score_map.scale(volatility))[known, None] - base[known]
    left = np.broadcast_to(left, (len(left), len(QUANTILE_LEVELS)))
    shifts = tuple(
        float(np.quantile(left[:, q], level)) if len(left) else 0.0 for q, level in enumerate(QUANTILE_LEVELS)
    )
    return replace(score_map, shifts=shifts)


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
    quantiles: F64 | None = None,
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
    quantiles : F64, shape (n, H, Q), optional
        A network's own, in multiples of the map's ``scale``.

    Notes
    -----
    ``y`` stays null on `test` rows: the segment is sealed until it is opened.
    """
    frames = []
    for h, score_map in enumerate(maps):
        keep = np.isfinite(scores[:, h])
        stated = None if forecasts is None else forecasts[keep, h]
        own = None if quantiles is None else quantiles[keep, h]
        base, volatility = base_rows(market, rows[keep], h), market.volatility[rows[keep]]
        frames.append(_with_forecast(base, score_map, scores[keep, h], volatility, stated, own))
    return _said_by(pl.concat(frames), run=run, model=model, seed=seed, route=route)


def live_rows(
    bars: Bars, rows: I64, scores: F64, volatility: F64, maps: tuple[ScoreMap, ...], *,
    delay: int, run: str, model: str, seed: int, route: str, quantiles: F64 | None = None,
) -> pl.DataFrame:  # fmt: skip
    """Make rows whose outcome lies beyond the data, best score first within each horizon; ``y`` is null.

    Parameters
    ----------
    rows : I64, shape (n,)
        Last rows of the symbols.
    scores : F64, shape (n, H)
    volatility : F64, shape (n,)
        A fraction a bar.
    quantiles : F64, shape (n, H, Q), optional
        A network's own, in multiples of the map's ``scale``.
    """
    frames = []
    for h, score_map in enumerate(maps):
        own = None if quantiles is None else quantiles[:, h]
        base = _key_columns(bars, rows, score_map.horizon, delay).with_columns(segment=pl.lit(LIVE))
        frame = _with_forecast(base, score_map, scores[:, h], volatility, None, own)
        frames.append(frame.sort("score", descending=True))
    return _said_by(pl.concat(frames), run=run, model=model, seed=seed, route=route)


def _with_forecast(
    base: pl.DataFrame, score_map: ScoreMap, score: F64, volatility: F64, stated: F64 | None = None,
    quantiles: F64 | None = None,
) -> pl.DataFrame:  # fmt: skip
    y_hat = score_map.y_hat(score) if stated is None else stated
    sigma = score_map.sigma(volatility)
    columns = {"score": score, "y_hat": y_hat, "sigma": sigma, "p_up": score_map.p_up(score, y_hat, sigma)}
    frame = base.with_columns(pl.Series(name, values, pl.Float64) for name, values in columns.items())
    if not score_map.shifts:
        return frame
    point = (y_hat / score_map.scale(volatility))[:, None]
    found = score_map.quantiles(point if quantiles is None else quantiles, volatility)
    return frame.with_columns(quantiles=pl.Series(found.tolist(), dtype=pl.List(pl.Float64)))


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
        score_map = fit_score_map(forecast.score[weigh], y, volatility, sessions, horizon, slope=slope)
        if market.config.target == "quantiles":
            point = score_map.y_hat(forecast.score[weigh]) / score_map.scale(volatility)
            score_map = fit_quantiles(score_map, y, point[:, None], volatility)
        maps.append(score_map)
        if forecast.y_hat is not None:
            stated = np.full_like(scores, np.nan) if stated is None else stated
            stated[:, h] = forecast.y_hat[rows]
    return prediction_rows(
        market, rows, scores, tuple(maps), run="naive", model=name, route="naive", forecasts=stated
    )
