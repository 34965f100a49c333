"""Cells to numbers, and the cells that are none."""

from __future__ import annotations

import numpy as np
import polars as pl

#: What exports write where there is no value.
_NOTHING = ("", "-", "--", "---", "—", "na", "n/a", "nan", "null", "none", "停牌")
#: Thousands set off by commas.
_GROUPED = r"^[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?$"
#: Decimal sign -> the sign that may set off thousands.
_THOUSANDS = {".": ",", ",": "."}


def to_floats(values: pl.Series, decimal: str = ".") -> tuple[pl.Series, pl.Series]:
    """Read numbers.

    Parameters
    ----------
    values : pl.Series, shape (R,)
        Numbers or text. Full-width digits and signs count as their plain forms.
    decimal : str
        ``.`` or ``,``; the other one may set off thousands, before groups of exactly three digits.

    Returns
    -------
    tuple of pl.Series
        ``Float64`` (missing and NaN are null), and whether the cell holds text that is no number.
    """
    if values.dtype == pl.Float32:
        return _shortest(values).fill_nan(None), pl.repeat(False, len(values), eager=True)
    if values.dtype.is_numeric():
        return values.cast(pl.Float64).fill_nan(None), pl.repeat(False, len(values), eager=True)
    text = values.cast(pl.String)
    if decimal == ",":
        text = text.str.normalize("NFKC").str.replace_many(_THOUSANDS)
    numbers = text.cast(pl.Float64, strict=False)
    doubtful = numbers.is_null() & text.is_not_null()
    if not doubtful.any():
        return numbers.fill_nan(None), doubtful
    left = text.filter(doubtful).str.normalize("NFKC").str.strip_chars()
    read = left.str.replace_all(",", "").zip_with(left.str.contains(_GROUPED), left)
    read = read.cast(pl.Float64, strict=False)
    bad = read.is_null() & ~left.str.to_lowercase().is_in(_NOTHING)
    where = doubtful.arg_true()
    numbers = numbers.scatter(where, read)
    return numbers.fill_nan(None), doubtful.scatter(where, bad)


def why_no_number(decimal: str = ".") -> pl.Expr:
    """Say why the text in column ``value`` is no number."""
    sign = _THOUSANDS[decimal]
    cell = pl.col("value").str.normalize("NFKC")
    misplaced = cell.str.contains(r"^\s*[+-]?[.,]*\d[\d.,]*\s*$") & cell.str.contains(sign, literal=True)
    return (
        pl.when(misplaced)
        .then(
            pl.lit(
                f"`{sign}` is read before groups of three digits only (1{sign}234{decimal}5): "
                f"add --decimal {sign} if it is the decimal sign"
            )
        )
        .otherwise(pl.lit("text where a number belongs"))
    )


def _shortest(values: pl.Series) -> pl.Series:
    """Widen float32 to the decimal it stands for (9.19, not 9.18999958) where four decimals tell it apart."""
    wide = values.cast(pl.Float64)
    # numpy: polars multiplies by 1e-4 instead of dividing, which is another number
    decimal = pl.Series(values.name, np.rint(wide.to_numpy() * 1e4) / 1e4)
    return decimal.zip_with((decimal.cast(pl.Float32) == values).fill_null(True), wide)
