"""Defects that one row shows by itself, beside the row before it, or in two versions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from barcast.quality.table import FINDING_COLUMNS, Table, row_numbers, shown

PRICES = ("open", "high", "low", "close")
#: Adjusted prices are products; their last bits may put a close a hair outside its bar.
ROUNDING = 1e-6
#: Clocks differ by less than this, so a bar dated later than now plus it is from the future.
CLOCK_SLACK = timedelta(hours=26)


def _missing(name: str) -> pl.Expr:
    return pl.col(name).is_null() | ~pl.col(name).is_finite()


def _outside(name: str) -> pl.Expr:
    """Whether a price lies above the high or below the low of a bar that is possible in itself."""
    over = pl.col(name) > pl.col("high") * (1 + ROUNDING)
    under = pl.col(name) < pl.col("low") * (1 - ROUNDING)
    sound = pl.all_horizontal(pl.col(PRICES).is_finite(), pl.col(PRICES) > 0)
    return sound & (pl.col("high") >= pl.col("low")) & (over | under)


def _copied() -> pl.Expr:
    """Whether prices and volume equal the row before: a bar that trades twice the same way is a copy."""
    same = [pl.col(name) == pl.col(name).shift(1) for name in ("symbol", *PRICES, "volume")]
    return pl.all_horizontal(*same) & (pl.col("volume") > 0) & (pl.col("high") > pl.col("low"))


_CLOSE_ONLY = pl.all_horizontal(pl.col(name).is_null() for name in PRICES[:3]) & ~_missing("close")
_BAD_FACTOR = pl.any_horizontal(
    _missing(name) | (pl.col(name) <= 0) for name in ("split_factor", "total_factor")
)
_NON_FINITE = (
    (pl.any_horizontal(_missing(name) for name in PRICES) & ~_CLOSE_ONLY)
    | _BAD_FACTOR
    | pl.col("volume").is_infinite().fill_null(value=False)
)
_BAR = pl.format("open {}, high {}, low {}, close {}", *(shown(name) for name in PRICES))
_ALL = pl.concat_str(
    [
        pl.format("{} {}", pl.lit(name), shown(name).cast(pl.String).fill_null("null"))
        for name in (*PRICES, "volume", "total_factor")
    ],
    separator=", ",
)
_NOTHING = pl.lit("")

#: kind -> (which rows, the number that tripped, words). Null in a condition means no.
_RULES: dict[str, tuple[pl.Expr, pl.Expr, pl.Expr]] = {
    "non_finite": (_NON_FINITE, pl.col("close"), _ALL),
    "close_only": (_CLOSE_ONLY, pl.col("close"), _NOTHING),
    "non_positive_price": (
        pl.any_horizontal((pl.col(name) <= 0).fill_null(value=False) for name in PRICES),
        pl.min_horizontal(PRICES),
        _BAR,
    ),
    "impossible_bar": (
        (pl.col("high") < pl.col("low")) & ~pl.col("low").is_nan(),  # NaN counts as above all
        pl.col("high") / pl.col("low"),
        _BAR,
    ),
    "close_outside_bar": (_outside("close"), pl.col("close"), _BAR),
    "open_outside_bar": (_outside("open"), pl.col("open"), _BAR),
    "negative_volume": (pl.col("volume") < 0, pl.col("volume"), _NOTHING),
    "zero_volume": (pl.col("volume") == 0, pl.col("volume"), _NOTHING),
    "repeated_bar": (_copied(), pl.col("volume"), _BAR),
}


def row_findings(table: Table) -> list[pl.DataFrame]:
    """Name the rows that break a rule about single rows; prices as the source gave them."""
    masks = table.frame.select(
        condition.fill_null(value=False).alias(kind) for kind, (condition, _, _) in _RULES.items()
    )
    found = []
    for kind, (_, value, words) in _RULES.items():
        rows = masks[kind].arg_true().to_numpy().astype(np.int64)
        numbers = (
            table.frame[rows].select(value.cast(pl.Float64).fill_null(float("nan"))).to_series().to_numpy()
        )
        found.append(table.findings(kind, rows, numbers, words))
    return found


def time_findings(table: Table, now: datetime | None = None) -> list[pl.DataFrame]:
    """Name rows dated in the future, and rows that are on no session of the calendar."""
    limit = np.datetime64((now or datetime.now(UTC)).replace(tzinfo=None) + CLOCK_SLACK, "us")
    times = table.frame["time"].to_numpy().astype("datetime64[us]")
    future = row_numbers(times > limit)
    off = row_numbers(table.session < 0)
    words = pl.format(
        "{}, not a session of {}", pl.col("time").dt.strftime("%A"), pl.lit(table.calendar.name)
    )
    if len(sessions := table.calendar.times.astype("datetime64[us]")):
        first, last = (pl.lit(sessions[end]).cast(table.frame.schema["time"]) for end in (0, -1))
        words = (
            pl.when(pl.col("time") < first)
            .then(pl.format("stray date before the first session, {}", first))
            .when(pl.col("time") > last)
            .then(pl.format("stray date after the last session, {}", last))
            .otherwise(words)
        )
    return [
        table.findings("future_date", future, (times[future] - limit) / np.timedelta64(1, "D")),
        table.findings("off_calendar", off, detail=words),
    ]


def conflict_findings(frame: pl.DataFrame, conflicts: pl.DataFrame | None) -> list[pl.DataFrame]:
    """Name the rows of ``frame`` of which the source had versions with different prices.

    ``value`` is the largest close over the smallest, less one. Versions that differ in volume alone, and rows
    beyond the frame (other symbols, later sessions), are no conflict.
    """
    if conflicts is None or not len(conflicts):
        return []
    key = ["symbol", "time"]
    close = pl.col("close").cast(pl.Float64)
    differ = pl.any_horizontal(pl.col(name).n_unique() > 1 for name in PRICES)
    return [
        conflicts.with_columns(pl.col("time").cast(frame.schema["time"]))
        .join(frame.select(key), on=key, how="semi", maintain_order="left")
        .group_by(key, maintain_order=True)
        .agg(
            (close.max() / close.min() - 1).alias("value"),
            pl.concat_str(pl.lit("close "), shown("close")).str.join(" / ").alias("detail"),
            pl.col("file").cast(pl.String).unique(maintain_order=True).str.join(", "),
            differ.alias("differ"),
        )
        .filter("differ")
        .with_columns(pl.lit("duplicate_conflict").alias("kind"), pl.col("time").alias("until"))
        .select(FINDING_COLUMNS)
    ]
