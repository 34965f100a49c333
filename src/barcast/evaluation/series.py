"""What a report draws of one model: skill by month, deciles, calibration, symbols.

Every function takes rows aligned by `barcast.evaluation.align.align` and a model's name; several seeds of a
model are averaged.

Letters: R rows, T sessions, S symbols, M months.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from barcast.core.arrays import F64
from barcast.evaluation.align import CommonRows
from barcast.evaluation.grouped import Groups, Sorted
from barcast.evaluation.intervals import Blocks, Bootstrap, interval, plan_blocks, resample
from barcast.evaluation.metrics import calibration, calibration_bins, decile_returns, rank_ic_of, ratio
from barcast.evaluation.results import CONSTANT, FEW_SESSIONS, Score
from barcast.evaluation.scoring import Scored, score_model, with_interval
from barcast.evaluation.sums import METRICS

#: Rows a symbol needs for a rank correlation over time.
MIN_ROWS_OVER_TIME = 20
#: Scores by month where sessions hold too few symbols for RankIC.
TIME_SERIES_METRICS = ("r2", "auc", "direction")


@dataclass(frozen=True)
class Month:
    """Scores of one calendar month (UTC).

    Attributes
    ----------
    month : str
        Such as ``2024-03``.
    num_sessions, num_rows : int
        Sessions and rows in it.
    scores : dict of str to Score
        ``rank_ic``, or the time-series scores. The width of an interval is that of the whole segment, scaled
        by the root of the number of sessions: a month alone is too short to know its own.
    """

    month: str
    num_sessions: int
    num_rows: int
    scores: dict[str, Score]


@dataclass(frozen=True)
class Deciles:
    """Mean outcome per tenth of the score, lowest first.

    Attributes
    ----------
    returns : tuple of Score, length 10
        Mean log return of each bin, a fraction, averaged over sessions.
    spread : Score
        Highest bin minus lowest, session by session.
    num_sessions : int
        Sessions with at least 10 symbols and a score that varies.
    """

    returns: tuple[Score, ...]
    spread: Score
    num_sessions: int


@dataclass(frozen=True)
class CalibrationCurve:
    """Mean outcome by size of the expected return.

    Attributes
    ----------
    y_hat : tuple of float
        Mean forecast of each bin, a fraction.
    y : tuple of Score
        Mean outcome of each bin, a fraction.
    count : tuple of int
        Rows in each bin (of all seeds).
    slope : Score
        Least squares of outcome on forecast; 1 when calibrated, NaN for a constant forecast.
    intercept : float
        Its intercept, a fraction.
    """

    y_hat: tuple[float, ...]
    y: tuple[Score, ...]
    count: tuple[int, ...]
    slope: Score
    intercept: float


@dataclass(frozen=True)
class ModelSeries:
    """All drawings of one model; the cross-sectional ones are None in a small universe.

    Attributes
    ----------
    model : str
        Its name.
    months : tuple of Month
        Skill by month.
    deciles : Deciles or None
        Mean outcome per tenth of the score.
    calibration : CalibrationCurve or None
        None where the model gives no expected return.
    symbols : pl.DataFrame
        One row a symbol, see `by_symbol`.
    """

    model: str
    months: tuple[Month, ...]
    deciles: Deciles | None
    calibration: CalibrationCurve | None
    symbols: pl.DataFrame


def model_series(
    rows: CommonRows, model: str, *, cross_sectional: bool, bootstrap: Bootstrap | None = None
) -> ModelSeries:
    """Return everything a report draws of one model."""
    blocks = plan_blocks(rows.num_sessions, rows.horizon, rows.delay, bootstrap or Bootstrap())
    return ModelSeries(
        model=model,
        months=by_month(rows, model, blocks, cross_sectional=cross_sectional),
        deciles=deciles(rows, model, blocks) if cross_sectional else None,
        calibration=calibration_curve(rows, model, blocks),
        symbols=by_symbol(rows, model),
    )


def by_month(rows: CommonRows, model: str, blocks: Blocks, *, cross_sectional: bool) -> tuple[Month, ...]:
    """Return RankIC by month, or R squared against zero, AUC and direction accuracy in a small universe."""
    names, month_of_session = np.unique(rows.times.astype("datetime64[M]"), return_inverse=True)
    months = Groups(month_of_session.astype(np.int32), len(names))
    scored = score_model(rows, model, blocks, cross_sectional=cross_sectional)
    metrics = ("rank_ic",) if cross_sectional else TIME_SERIES_METRICS
    values = {name: _monthly_values(rows, model, scored, name, months) for name in metrics}
    whole = {name: with_interval(name, scored, blocks) for name in metrics}
    num_rows = months.sums(np.bincount(rows.session, minlength=rows.num_sessions).astype(np.float64))
    return tuple(
        Month(
            month=str(names[m]),
            num_sessions=int(months.sizes[m]),
            num_rows=int(num_rows[m]),
            scores={
                name: _scaled(float(values[name][m]), whole[name], rows.num_sessions / months.sizes[m])
                for name in metrics
            },
        )
        for m in range(len(names))
    )


def _monthly_values(rows: CommonRows, model: str, scored: Scored, metric: str, months: Groups) -> F64:
    if metric == "auc":  # no function of sums: each month compares its own rows
        by_row = Groups(months.index[rows.session], months.num)
        up, down = rows.y > 0, rows.y < 0
        by_seed = [Sorted.by(f.outputs.score, by_row).auc(up, down) for f in rows.of(model)]
    else:
        definition = METRICS[metric]
        if metric not in scored.values:
            return np.full(months.num, np.nan)
        by_seed = [
            definition.value({part: months.sums(own[part]) for part in definition.parts})
            for own in scored.sums
        ]
    mean: F64 = np.mean(by_seed, axis=0)
    return mean


def _scaled(value: float, whole: Score, times_shorter: float) -> Score:
    """Put the interval of the whole segment round the value of a part of it."""
    if math.isnan(value):
        return Score(math.nan, math.nan, math.nan, flag=CONSTANT)
    grow = math.sqrt(times_shorter)
    low, high = value + grow * (whole.low - whole.value), value + grow * (whole.high - whole.value)
    return Score(value, low, high, flag=FEW_SESSIONS if math.isnan(low) else "")


def deciles(rows: CommonRows, model: str, blocks: Blocks, num_bins: int = 10) -> Deciles:
    """Return the mean outcome per tenth of the score, averaged over sessions, with intervals."""
    by_seed = [
        decile_returns(rows.y, f.outputs.score, rows.session, rows.num_sessions, num_bins)
        for f in rows.of(model)
    ]
    matrix = np.mean(by_seed, axis=0)
    columns = np.column_stack([matrix, matrix[:, -1] - matrix[:, 0]])
    means = _session_means(columns, blocks)
    return Deciles(tuple(means[:-1]), means[-1], int(np.isfinite(matrix).any(axis=1).sum()))


def _session_means(columns: F64, blocks: Blocks) -> list[Score]:
    """Return the mean of each column over the sessions in which it is defined, with intervals."""
    defined = np.isfinite(columns)
    sums = np.where(defined, columns, 0.0)
    return _ratios(sums, defined.astype(np.float64), blocks)


def _ratios(top: F64, bottom: F64, blocks: Blocks) -> list[Score]:
    values = ratio(top.sum(axis=0), bottom.sum(axis=0))
    draws = ratio(resample(top, blocks), resample(bottom, blocks))
    return [_score(float(value), draws[:, column], blocks) for column, value in enumerate(values)]


def _score(value: float, draws: F64, blocks: Blocks) -> Score:
    low, high = interval(value, draws, blocks)
    flag = CONSTANT if math.isnan(value) else FEW_SESSIONS if math.isnan(low) else ""
    return Score(value, low, high, flag=flag)


def calibration_curve(
    rows: CommonRows, model: str, blocks: Blocks, num_bins: int = 10
) -> CalibrationCurve | None:
    """Return the mean outcome per bin of the expected return; None where the model gives none."""
    forecasts = [f.outputs.y_hat for f in rows.of(model) if f.outputs.y_hat is not None]
    if not forecasts:
        return None
    y_hat, y = np.concatenate(forecasts), np.tile(rows.y, len(forecasts))
    session = np.tile(rows.session, len(forecasts))
    table = calibration(y, y_hat, num_bins)
    cell = session.astype(np.int64) * num_bins + calibration_bins(y_hat, num_bins)
    shape, cells = (rows.num_sessions, num_bins), rows.num_sessions * num_bins
    total: F64 = np.bincount(cell, weights=y, minlength=cells).astype(np.float64).reshape(shape)
    count: F64 = np.bincount(cell, minlength=cells).astype(np.float64).reshape(shape)
    filled = count.any(axis=0)
    return CalibrationCurve(
        y_hat=tuple(table.y_hat.tolist()),
        y=tuple(_ratios(total[:, filled], count[:, filled], blocks)),
        count=tuple(table.count.tolist()),
        slope=_slope(table.slope, y, y_hat, Groups(session, rows.num_sessions), blocks),
        intercept=table.intercept,
    )


def _slope(value: float, y: F64, y_hat: F64, sessions: Groups, blocks: Blocks) -> Score:
    # Centred first: the slope does not mind, and the sums of squares keep their digits.
    x, z = y_hat - y_hat.mean(), y - y.mean()
    parts = [sessions.sizes.astype(np.float64), *(sessions.sums(part) for part in (x, z, x * z, x * x))]
    count, sum_x, sum_z, sum_xz, sum_xx = resample(np.column_stack(parts), blocks).T
    draws = ratio(sum_xz - sum_x * sum_z / count, sum_xx - sum_x**2 / count)
    return _score(value, draws, blocks)


def by_symbol(rows: CommonRows, model: str) -> pl.DataFrame:
    """Return one row a symbol: num_rows, mae, direction, r2, rank_ic_over_time.

    Means over seeds. Null where undefined: ``mae`` and ``r2`` without an expected return, ``direction`` where
    no row moved or every forecast is zero, ``rank_ic_over_time`` (Spearman of score and outcome over the
    symbol's own sessions) below 20 rows or where one side is constant.
    """
    groups = Groups(rows.symbol, len(rows.symbols))
    by_y = Sorted.by(rows.y, groups)
    columns: dict[str, list[F64]] = {"mae": [], "direction": [], "r2": [], "rank_ic_over_time": []}
    for forecast in rows.of(model):
        outputs = forecast.outputs
        y_hat = np.full(len(rows), np.nan) if outputs.y_hat is None else outputs.y_hat
        error = rows.y - y_hat
        called = outputs.score if outputs.y_hat is None else y_hat
        right = ((rows.y > 0) & (called > 0)) | ((rows.y < 0) & (called <= 0))
        columns["mae"].append(ratio(groups.sums(np.abs(error)), groups.sizes))
        calls = groups.sums(called != 0) > 0  # a zero calls no direction; the share of falls is no score
        columns["direction"].append(
            np.where(calls, ratio(groups.sums(right), groups.sums(rows.y != 0)), np.nan)
        )
        columns["r2"].append(1 - ratio(groups.sums(error**2), groups.sums(rows.y**2)))
        by_score = Sorted.by(outputs.score, groups)
        columns["rank_ic_over_time"].append(rank_ic_of(by_y, by_score, MIN_ROWS_OVER_TIME))
    frame = pl.DataFrame(
        {"symbol": rows.symbols, "num_rows": groups.sizes}
        | {name: np.mean(by_seed, axis=0) for name, by_seed in columns.items()}
    )
    return frame.filter(pl.col("num_rows") > 0).with_columns(pl.col(pl.Float64).fill_nan(None))
