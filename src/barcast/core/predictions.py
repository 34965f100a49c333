"""The predictions table: the one thing that comparison, report, router and backtest read.

A model is anything that fills it. One row is one forecast of one target for one symbol at one decision time.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from barcast.core.atomic import atomic_path
from barcast.core.errors import DataError

SEGMENTS = ("fit", "stop", "weigh", "route", "test")
#: Segment of a forecast whose outcome lies beyond the data.
LIVE = "live"
#: Levels of the column ``quantiles``, in its order.
QUANTILE_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "run": pl.String,
    "model": pl.String,
    "seed": pl.Int64,
    "symbol": pl.String,
    "time": pl.Datetime("us"),      # decision time: session date at midnight, or UTC bar start
    "segment": pl.String,           # fit, stop, weigh, route, test, live
    "fold": pl.Int32,
    "horizon": pl.Int32,            # sessions from entry to exit
    "delay": pl.Int32,              # sessions from decision to entry
    "target": pl.String,            # what the label is: "return"
    "score": pl.Float64,            # raw output; RankIC reads it
    "y_hat": pl.Float64,            # expected forward log return, a fraction
    "sigma": pl.Float64,            # its standard deviation, a fraction
    "p_up": pl.Float64,             # probability that y > 0; null where the model has none
    "quantiles": pl.List(pl.Float64),  # of y at QUANTILE_LEVELS; null where they were not asked for
    "known_at": pl.Datetime("us"),  # when y becomes known; null beyond the data
    "y": pl.Float64,                # realised log return; null until known, and while test is sealed
    "tradable": pl.Boolean,         # whether the entry could be traded
    "route": pl.String,             # who serves: universal, dedicated, naive, ...
}  # fmt: skip


def conform(frame: pl.DataFrame) -> pl.DataFrame:
    """Give ``frame`` the table's columns and types; missing columns become null.

    Raises
    ------
    DataError
        On a column that is not part of the table, or values that do not fit its type.
    """
    unknown = [name for name in frame.columns if name not in SCHEMA]
    if unknown:
        raise DataError(f"not columns of the predictions table: {', '.join(unknown)}")
    columns = [
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in SCHEMA.items()
    ]
    try:
        return frame.select(columns)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"values that do not fit the predictions table: {error}") from error


def write_predictions(path: Path, frame: pl.DataFrame) -> None:
    """Write the table atomically as Parquet."""
    with atomic_path(path) as temporary:
        conform(frame).write_parquet(temporary, compression="zstd", compression_level=3)


def read_predictions(path: Path, **chosen: object) -> pl.DataFrame:
    """Read the table, or only the rows with the chosen values: ``segment="route", horizon=5``."""
    if not chosen:
        return pl.read_parquet(path)
    wanted = [pl.col(name) == value for name, value in chosen.items()]
    return pl.scan_parquet(path).filter(*wanted).collect(engine="in-memory")
