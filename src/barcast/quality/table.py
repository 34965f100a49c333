"""Stored bars as flat arrays with what every detector asks for: the row before, returns, factor steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I32, I64, Bools
from barcast.core.calendar import Calendar

#: Columns of the findings, in order; `time` and `until` take the type of the checked frame's `time`.
FINDING_COLUMNS = ("kind", "symbol", "time", "until", "value", "detail", "file")
#: Findings about the panel as a whole carry this in place of a symbol.
WHOLE_PANEL = ""


@dataclass(frozen=True)
class Table:
    """Stored bars of S symbols in R rows, sorted by symbol and time, prices as the source gave them.

    Attributes
    ----------
    frame : pl.DataFrame
        The store's rows; details and names of findings are taken from it.
    calendar : Calendar
        The sessions.
    market : str
        ``cn``, ``us``, ``crypto`` or ``other``.
    symbols : tuple of str
        Names in the order of the rows.
    offsets : I64, shape (S + 1,)
        Rows of symbol ``s`` are ``offsets[s]:offsets[s + 1]``.
    """

    frame: pl.DataFrame
    calendar: Calendar
    market: str
    symbols: tuple[str, ...]
    offsets: I64

    @classmethod
    def build(cls, frame: pl.DataFrame, calendar: Calendar, market: str) -> Table:
        """Find where each symbol's rows begin."""
        runs = frame["symbol"].rle().struct.unnest()
        offsets = np.concatenate([[0], np.cumsum(runs["len"].to_numpy().astype(np.int64))])
        return cls(frame, calendar, market, tuple(runs["value"].to_list()), offsets)

    def __len__(self) -> int:
        return len(self.frame)

    def column(self, name: str) -> F64:
        """Return a column as float64; null becomes NaN."""
        return self.frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()

    @cached_property
    def close(self) -> F64:
        """Close as the source gives it, shape (R,)."""
        return self.column("close")

    @cached_property
    def volume(self) -> F64:
        """Volume as the source gives it, NaN where unknown, shape (R,)."""
        return self.column("volume")

    @cached_property
    def turnover(self) -> F64:
        """Close times volume as given, NaN where volume is unknown, shape (R,)."""
        with np.errstate(invalid="ignore"):
            return self.close * self.volume

    @cached_property
    def symbol_of_row(self) -> I32:
        """The symbol's position in ``symbols`` for each row, shape (R,)."""
        return np.repeat(np.arange(len(self.symbols), dtype=np.int32), np.diff(self.offsets))

    @cached_property
    def first_row(self) -> I64:
        """First row of the symbol each row belongs to, shape (R,)."""
        return np.repeat(self.offsets[:-1], np.diff(self.offsets))

    @cached_property
    def session(self) -> I32:
        """Entry of the calendar, -1 where the time is not on it, shape (R,)."""
        return self.calendar.index(self.frame["time"].to_numpy())

    @cached_property
    def usable(self) -> Bools:
        """Whether a return can start or end at the row: a positive, finite close and total factor."""
        factor = self.column("total_factor")
        with np.errstate(invalid="ignore"):
            return np.isfinite(self.close) & (self.close > 0) & np.isfinite(factor) & (factor > 0)

    @cached_property
    def previous(self) -> I64:
        """The symbol's usable row before each row, -1 where there is none, shape (R,)."""
        latest = np.maximum.accumulate(np.where(self.usable, np.arange(len(self)), -1))
        before = np.concatenate([[-1], latest[:-1]]).astype(np.int64)
        return np.where(before >= self.first_row, before, -1)

    def since_previous(self, name: str) -> F64:
        """Return log(value / value at the previous usable row), NaN where either is missing or below 0."""
        value = self.column(name)
        with np.errstate(invalid="ignore", divide="ignore"):
            change = np.log(value / value[self.previous])
        return np.where((self.previous >= 0) & self.usable & np.isfinite(change), change, np.nan)

    @cached_property
    def raw_return(self) -> F64:
        """Log return of the close as the source gives it, shape (R,)."""
        return self.since_previous("close")

    @cached_property
    def factor_step(self) -> F64:
        """Log step of the total factor since the previous usable row, shape (R,)."""
        return self.since_previous("total_factor")

    @cached_property
    def log_return(self) -> F64:
        """Log return of the adjusted close, shape (R,)."""
        return self.raw_return + self.factor_step

    def findings(
        self,
        kind: str,
        rows: I64,
        value: F64 | None = None,
        detail: pl.Expr | list[str] | None = None,
        until: I64 | None = None,
    ) -> pl.DataFrame:
        """Name the given rows.

        Parameters
        ----------
        kind : str
            The kind of defect.
        rows : I64, shape (n,)
            Row numbers.
        value : F64, shape (n,), optional
            The number that tripped the threshold.
        detail : polars expression or list of str, optional
            Words about each row; an expression is evaluated on the store's columns.
        until : I64, shape (n,), optional
            Last row of findings that span several.
        """
        part = self.frame[rows]
        words = pl.Series("detail", detail, dtype=pl.String) if isinstance(detail, list) else detail
        return part.select(
            pl.lit(kind).alias("kind"),
            "symbol",
            "time",
            (part["time"] if until is None else self.frame["time"][until]).alias("until"),
            pl.Series("value", np.full(len(rows), np.nan) if value is None else value, dtype=pl.Float64),
            (pl.lit("") if words is None else words).alias("detail"),
            pl.lit(None, dtype=pl.String).alias("file"),
        )

    def panel_finding(self, kind: str, value: float, detail: str) -> pl.DataFrame:
        """Name a defect of the panel as a whole."""
        times = self.frame["time"]
        return pl.DataFrame(
            {
                "kind": [kind], "symbol": [WHOLE_PANEL],
                "time": times.min(), "until": times.max(),
                "value": [float(value)], "detail": [detail], "file": [None],
            },
            schema_overrides={"file": pl.String, "time": times.dtype, "until": times.dtype},
        )  # fmt: skip


def shown(name: str) -> pl.Expr:
    """Return a column as people write it: six significant figures hide the tail of 32-bit prices."""
    return pl.col(name).cast(pl.Float64).round_sig_figs(6)


def row_numbers(condition: Bools) -> I64:
    """Return the numbers of the rows that meet a condition."""
    return np.flatnonzero(condition).astype(np.int64)
