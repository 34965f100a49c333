"""How far a small model of what the universal model leaves is believed, symbol by symbol.

A symbol's forecast of a residual is multiplied by a factor in [0, 1]: the slope, through the origin, of what
the residual turned out to be on what was forecast. Few rows give a slope badly, so a symbol's is shrunk to
its industry's, that to the market's and that to 0, each by how much the slopes of its level really differ
(empirical Bayes with the moments of Paule and Mandel 1982). Errors come from blocks of sessions. What a
block gives all symbols alike is compared away before a departure is judged, and luck that symbols share does
not pass for a difference (see `shared_luck`).

The market's slope keeps ``max(0, 1 - se^2 / slope^2)`` of itself (positive-part James-Stein); a departure
``D`` of an industry or a symbol keeps ``tau^2 / (tau^2 + V)``, where ``tau^2`` is the variance of true
departures on its level and ``V`` that of its error.

Letters: R rows sorted by symbol, S symbols, I industries, T blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from barcast.core.arrays import F64, I32, I64
from barcast.core.errors import UsageError
from barcast.ensemble.hierarchy import (
    Cells,
    balanced_blocks,
    between_variance,
    deviations,
    shared_luck,
    strength,
    symbol_of_row,
)
from barcast.evaluation.intervals import MIN_BLOCKS


@dataclass(frozen=True)
class Level:
    """One level of the hierarchy: n = 1 market, I industries or S symbols.

    Attributes
    ----------
    slope : F64, shape (n,)
        Least squares through the origin of realised on forecast residuals; NaN without forecasts.
    standard_error : F64, shape (n,)
        Of the slope (market), or of its departure from the level above; NaN with fewer than 5 blocks.
    strength : F64, shape (n,)
        Share of the slope (market), or of its departure, that is believed, 0 to 1.
    shrunken : F64, shape (n,)
        The slope believed.
    spread : float
        Standard deviation of true departures on this level; of the market, its distance from 0.
    """

    slope: F64
    standard_error: F64
    strength: F64
    shrunken: F64
    spread: float


@dataclass(frozen=True)
class Shrinkage:
    """Factors for the forecasts of S symbols, with the evidence of each level.

    Attributes
    ----------
    factor : F64, shape (S,)
        What a symbol's residual forecast is multiplied by, in [0, 1].
    market, industries, symbols : Level
        Evidence.
    """

    factor: F64
    market: Level
    industries: Level
    symbols: Level


def shrink(
    forecast: F64,
    realised: F64,
    offsets: npt.NDArray[np.integer],
    session: I32 | I64,
    industry: I32 | I64,
    *,
    horizon: int,
    delay: int,
) -> Shrinkage:
    """Return the factor of each symbol's residual forecast.

    Parameters
    ----------
    forecast, realised : F64, shape (R,)
        What a symbol's model expects the universal model to leave, and what it left, in one unit (best
        divided by the row's volatility), on rows on which no model was fitted or stopped. Rows where one is
        not finite are left out.
    offsets : shape (S + 1,)
        Rows of each symbol.
    session : shape (R,)
        Session of each row, a count from 0.
    industry : shape (S,)
        Code of each symbol's industry, 0 .. I-1; -1 where unknown: such a symbol leans on the market.
    horizon, delay : int
        Sessions a label spans, and from decision to entry.

    Raises
    ------
    UsageError
        When shapes do not fit.
    """
    symbol, num_symbols = symbol_of_row(offsets, len(forecast)), len(offsets) - 1
    _check(len(forecast), len(realised), len(session), num_symbols, len(industry))
    known = np.isfinite(forecast) & np.isfinite(realised)
    x = forecast[known]
    block, num_blocks = balanced_blocks(session[known], horizon, delay)
    cells = Cells(symbol[known], block, num_symbols, num_blocks)
    cross, square = cells.sums(x * realised[known]), cells.sums(np.square(x))
    market = _market(cross.sum(axis=0), square.sum(axis=0))
    num_industries = int(industry.max(initial=-1)) + 1
    code = np.where(industry < 0, num_industries, industry)  # the unknown lean on the market, which is last
    above = _slopes(cross.sum(axis=0), square.sum(axis=0))
    own_cross, own_square = (_grouped(values, code, num_industries) for values in (cross, square))
    industries = _level(own_cross, own_square, above, np.repeat(market.shrunken, num_industries))
    own = np.concatenate([_slopes(own_cross, own_square), above[None]])
    base = np.append(industries.shrunken, market.shrunken)
    symbols = _level(cross, square, own[code], base[code])
    return Shrinkage(np.clip(symbols.shrunken, 0.0, 1.0), market, industries, symbols)


def _check(forecasts: int, outcomes: int, sessions: int, symbols: int, industries: int) -> None:
    if not forecasts == outcomes == sessions or industries != symbols:
        raise UsageError(
            f"{forecasts:,} forecasts of {symbols:,} symbols, beside {outcomes:,} outcomes, "
            f"{sessions:,} sessions and {industries:,} industries",
            "give an outcome and a session for each forecast, and an industry for each symbol",
        )


def _market(cross: F64, square: F64) -> Level:
    """Judge the market's slope, from sums of blocks (T,)."""
    filled = square > 0
    num, total = int(np.count_nonzero(filled)), float(square.sum())
    slope = float(cross.sum()) / total if total > 0 else math.nan
    error, believed = math.nan, 0.0
    if num >= MIN_BLOCKS:
        error = math.sqrt(float(np.square(cross - slope * square).sum()) * num / (num - 1)) / total
        believed = max(0.0, 1 - (error / slope) ** 2) if slope else 0.0
    shrunken = believed * slope if believed else 0.0
    spread = math.sqrt(believed) * abs(slope) if believed else 0.0
    return Level(np.array([slope]), np.array([error]), np.array([believed]), np.array([shrunken]), spread)


def _level(cross: F64, square: F64, above: F64, base: F64) -> Level:
    """Shrink slopes to those of the level above.

    Parameters
    ----------
    cross, square : F64, shape (n, T)
        Sums of ``forecast * realised`` and of ``forecast^2`` in each block.
    above : F64, shape (T,) or (n, T)
        Each block's own slope on the level above: what it gave all alike.
    base : F64, shape (n,)
        The slope believed on the level above.
    """
    found = deviations(cross[..., None], square, above[..., None])
    departure = found.mean[:, 0]
    variance = found.variance * shared_luck(found, found.variance)
    between = between_variance(np.square(departure), variance)
    believed = np.where(np.isfinite(variance), strength(between, variance), 0.0)
    return Level(
        slope=np.where(found.size > 0, _slopes(cross.sum(axis=1), square.sum(axis=1)), np.nan),
        standard_error=np.sqrt(np.where(np.isfinite(variance), variance, np.nan)),
        strength=believed,
        shrunken=base + believed * departure,
        spread=math.sqrt(between),
    )


def _slopes(cross: F64, square: F64) -> F64:
    return cross / np.where(square > 0, square, 1.0)


def _grouped(values: F64, code: I32 | I64, num: int) -> F64:
    """Return sums over the symbols of each code below ``num``, shape (num, T)."""
    total = np.zeros((num + 1, values.shape[1]))
    np.add.at(total, code, values)
    return total[:num]
