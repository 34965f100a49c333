"""Stamps in any of the usual forms to session dates or UTC bar starts.

Read: dates and datetimes of a frame; 2024-01-31, 2024/1/31, 2024.1.31, 2024年1月31日, 20240131, 31-Jan-2024,
Jan 31, 2024, with or without a time and an offset; 12-, 14- and 17-digit stamps; seconds, milli-, micro- and
nanoseconds since 1970 (which are UTC). 01/31/2024 is read where some date of the batch decides which number
is the month, or ``date_order`` says it.

.. warning::
   An intraday stamp that marks the *end* of its bar and is read as the start makes later work believe that
   the bar ends later than it did, and the other way round lets it see the future. The numbers do not show it,
   so ``stamp`` has to be declared; end stamps are moved back by one bar.
"""

from __future__ import annotations

import polars as pl

from barcast.core.calendar import FREQUENCIES
from barcast.core.errors import UsageError

_YMD = (
    r"^(?<y>\d{4})[-/.年](?<m>\d{1,2})[-/.月](?<d>\d{1,2})日?"
    r"(?:[T ]+(?<clock>\d{1,2}:\d{2}(?::\d{2})?)(?:[.,]\d+)? ?(?<zone>Z|UTC|[+-]\d{2}:?\d{2})?)?$"
)
_TWO_NUMBERS = (
    r"^(?<a>\d{1,2})[-/.](?<b>\d{1,2})[-/.](?<y>\d{4})(?:[T ]+(?<clock>\d{1,2}:\d{2}(?::\d{2})?))?$"
)
_NAMED_MONTHS = ("%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%b %d %Y", "%d-%b-%y")
#: Calendar stamps written as one number: digits -> what completes them. Their size tells them from epochs.
_DIGIT_STAMPS = {8: "000000", 12: "00", 14: "", 17: ""}
_MOMENT = pl.Datetime("us")


def read_moments(values: pl.Series, date_order: str | None = None) -> pl.DataFrame:
    """Understand stamps.

    Parameters
    ----------
    values : pl.Series, shape (R,)
        Dates, datetimes, numbers or text.
    date_order : str, optional
        ``mdy`` or ``dmy``.

    Returns
    -------
    pl.DataFrame
        ``moment`` (naive ``Datetime("us")``, null where the stamp cannot be read) and ``utc`` (whether it is
        in UTC; else it is in the zone of the source).

    Raises
    ------
    UsageError
        When dates such as 03/04/2020 can be read two ways and nothing decides.
    """
    kind = values.dtype
    if kind == pl.Date:
        return _moments(values.cast(_MOMENT), utc=False)
    if isinstance(kind, pl.Datetime):
        aware = kind.time_zone is not None
        plain = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if aware else values
        return _moments(plain.cast(_MOMENT), utc=aware)
    if kind.is_numeric():
        return _from_numbers(values.cast(pl.Int64, strict=False))
    unique = values.unique(maintain_order=True)  # thousands of symbols share their dates
    known = _from_text(_plain(unique), date_order)
    table = known.with_columns(value=unique)
    rows = values.to_frame("value")
    found = rows.join(table, on="value", how="left", maintain_order="left", nulls_equal=True)
    return found.select("moment", "utc")


def add_clock(moments: pl.DataFrame, clock: pl.Series) -> pl.DataFrame:
    """Put times of day (09:35, 0935, 93500, 09:35:00) beside dates; full stamps replace the dates."""
    if clock.dtype == pl.Time:
        text = clock.cast(pl.String).str.slice(0, 8)
    else:
        text = _plain(clock).str.replace(r"\.0*$", "")
    if text.str.len_chars().max() in (None, 0):
        return moments
    if (text.str.len_chars() > 8).all():
        return read_moments(text)
    digits = text.str.replace_all(":", "")
    padded = (
        pl.when(pl.col("d").str.len_chars() <= 4)
        .then(pl.col("d").str.zfill(4) + "00")
        .otherwise(pl.col("d").str.zfill(6))
    )
    time = digits.to_frame("d").select(padded.str.to_time("%H%M%S", strict=False).alias("t"))["t"]
    since_midnight = (time.cast(pl.Int64) // 1000).cast(pl.Duration("us"))
    return moments.with_columns(moment=pl.col("moment") + since_midnight)


def session_dates(moments: pl.DataFrame, tz: str | None) -> pl.Series:
    """Return the session date of daily bars, null where the stamp could not be read.

    UTC stamps that are all midnights are dates already; others are taken to ``tz`` first.

    Raises
    ------
    UsageError
        When UTC stamps lie within the day and no zone is known, or when the times of day show intraday bars,
        with the frequency that the usual step between them suggests.
    """
    utc = moments["utc"].fill_null(False)
    moment = moments["moment"]
    inside = moment.filter(utc).drop_nulls()
    step = None
    if _off_midnight(inside):
        if tz is None and (step := usual_step(moment)) is None:
            raise UsageError(
                f"daily stamps such as {inside[0]} UTC lie within the day: their session is not known",
                "add --tz with the exchange's zone, for example --tz America/New_York",
            )
        local = moment.dt.replace_time_zone("UTC").dt.convert_time_zone(tz or "UTC")
        moment = local.dt.replace_time_zone(None).zip_with(utc, moment)
    clocks = moment.dt.time().drop_nulls().unique()
    if step or len(clocks) > 2:
        step = step or usual_step(moment)
        raise UsageError(
            f"{len(clocks)} different times of day in bars said to be daily, such as {clocks.sort()[1]}"
            + (f": they look like bars of {step}" if step else ""),
            f"add --frequency {step or '|'.join(FREQUENCIES)} {zone_and_stamp(moments, tz)} "
            "(a store of daily bars takes none of these: choose another --workspace)",
        )
    return moment.dt.date()


def usual_step(moment: pl.Series) -> str | None:
    """Name the frequency that the usual step between stamps has; None for daily bars and unknown steps."""
    stamps = moment.drop_nulls().unique().sort()
    if len(stamps) < 2 * max(stamps.dt.date().n_unique(), 1):
        return None
    step = stamps.diff().drop_nulls().dt.total_seconds().mode().min()
    return next((name for name, seconds in FREQUENCIES.items() if seconds == step), None)


def zone_and_stamp(moments: pl.DataFrame, tz: str | None) -> str:
    """Write the flags that intraday bars need beside their frequency, as far as ``moments`` tell them."""
    zone = tz or ("UTC" if moments["utc"].all() else "ZONE (theirs, as in Asia/Shanghai)")
    return f"--tz {zone} --stamp start|end"


def bar_starts(moments: pl.DataFrame, tz: str, stamp: str, step_seconds: int) -> pl.Series:
    """Return the UTC start of intraday bars (naive ``Datetime("us")``), null where it cannot be known.

    A local time that a change of clocks skips or repeats is null. End stamps are moved back by a full bar,
    also where the session's last bar is shorter.
    """
    local = pl.col("moment").dt.replace_time_zone(tz, ambiguous="null", non_existent="null")
    universal = local.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    start = pl.when("utc").then("moment").otherwise(universal)
    shift = pl.duration(seconds=step_seconds if stamp == "end" else 0)
    return moments.select((start - shift).cast(_MOMENT).alias("time"))["time"]


def _plain(values: pl.Series) -> pl.Series:
    """Return text without full-width forms and outer blanks."""
    return values.cast(pl.String).str.normalize("NFKC").str.strip_chars()


def _with_full_year(form: str) -> pl.Expr:
    """Read one form; a year of two digits that a four-digit form took for the first century is not it."""
    moment = pl.col("text").str.to_datetime(form, strict=False, time_unit="us")
    return pl.when(moment.dt.year() >= 1000).then(moment)


def _moments(moment: pl.Series, *, utc: bool) -> pl.DataFrame:
    return pl.DataFrame({"moment": moment}).with_columns(utc=pl.lit(utc))


def _off_midnight(moment: pl.Series) -> bool:
    return bool((moment.dt.truncate("1d") != moment).any())


def _from_numbers(values: pl.Series) -> pl.DataFrame:
    n, size = pl.col("n"), pl.col("n").abs()
    text = n.cast(pl.String)
    whole = pl.coalesce(
        pl.when(text.str.len_chars() == digits).then((text + rest).str.slice(0, 14))
        for digits, rest in _DIGIT_STAMPS.items()
    ).str.to_datetime("%Y%m%d%H%M%S", strict=False, time_unit="us")
    calendar = pl.when(whole.dt.year().is_between(1900, 2100)).then(whole)
    micros = (
        pl.when((size < 10**6) | (text.str.len_chars() == 8)).then(None)  # 20241301 is a mistyped day
        .when(size < 10**11).then(n * 10**6)
        .when(size < 10**14).then(n * 10**3)
        .when(size < 10**17).then(n)
        .otherwise(n // 10**3)
    )  # fmt: skip
    return (
        values.to_frame("n")
        .with_columns(calendar=calendar, epoch=micros.cast(_MOMENT))
        .with_columns(epoch=pl.when(pl.col("epoch").dt.year().is_between(1900, 2100)).then("epoch"))
        .select(moment=pl.coalesce("calendar", "epoch"), utc=pl.col("calendar").is_null())
    )


def _from_text(text: pl.Series, date_order: str | None) -> pl.DataFrame:
    """As ``read_moments`` for unique strings."""
    numbers = pl.col("text").str.extract(r"^(-?\d+)(?:\.0*)?$").cast(pl.Int64, strict=False)
    frame = text.to_frame("text").with_columns(number=numbers)
    digits = _from_numbers(frame["number"])
    ymd = frame.select(pl.col("text").str.extract_groups(_YMD).alias("g")).unnest("g")
    year_first = ymd.select(_compose("y", "m", "d") - _offset("zone"))
    named = frame.select(pl.coalesce(_with_full_year(f) for f in _NAMED_MONTHS))
    moment = pl.coalesce("ymd", "digits", "named", "two")
    return pl.DataFrame(
        {
            "ymd": year_first.to_series(),
            "zoned": ymd["zone"].is_not_null(),
            "digits": digits["moment"],
            "epoch": digits["utc"] & frame["number"].is_not_null(),
            "named": named.to_series(),
            "two": _two_numbers(frame["text"], date_order),
        }
    ).select(moment=moment, utc=pl.col("zoned") | pl.col("epoch"))


def _compose(year: str, month: str, day: str) -> pl.Expr:
    """Datetime of textual parts; ``clock`` may be null."""
    clock = pl.col("clock").fill_null("0:00")
    full = pl.when(clock.str.count_matches(":") == 1).then(clock + ":00").otherwise(clock)
    text = pl.concat_str([year, pl.lit("-"), month, pl.lit("-"), day, pl.lit(" "), full])
    return text.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us")


def _offset(zone: str) -> pl.Expr:
    hours = pl.col(zone).str.slice(1, 2).cast(pl.Int64, strict=False)
    minutes = pl.col(zone).str.slice(-2).cast(pl.Int64, strict=False)
    size = pl.when(pl.col(zone).str.contains(r"^[+-]")).then(hours * 60 + minutes).otherwise(0)
    signed = pl.when(pl.col(zone).str.starts_with("-")).then(-size).otherwise(size)
    return pl.duration(minutes=signed.fill_null(0))


def _two_numbers(text: pl.Series, date_order: str | None) -> pl.Series:
    """Dates that begin with two small numbers: the batch or the user decides which one is the month."""
    parts = text.to_frame("t").select(pl.col("t").str.extract_groups(_TWO_NUMBERS).alias("g")).unnest("g")
    seen = parts.drop_nulls("y")
    if seen.is_empty():
        return pl.repeat(None, len(text), dtype=_MOMENT, eager=True)
    if date_order is None:
        first = seen["a"].cast(pl.Int64).max() > 12  # type: ignore[operator]
        second = seen["b"].cast(pl.Int64).max() > 12  # type: ignore[operator]
        if first == second:
            raise UsageError(
                f"dates such as {seen['a'][0]}/{seen['b'][0]}/{seen['y'][0]} can be read two ways",
                "add --date-order mdy or --date-order dmy",
            )
        date_order = "dmy" if first else "mdy"
    month, day = ("a", "b") if date_order == "mdy" else ("b", "a")
    return parts.select(_compose("y", month, day)).to_series()
