"""Small markets written to disk in the shapes people have them."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from barcast.core.bars import STORE_COLUMNS
from barcast.sources.canonical import understand
from barcast.sources.files import FileSource
from barcast.sources.history import History, assemble
from barcast.sources.options import ImportOptions

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
CN = ImportOptions(market="cn", basis="adjusted", volume_unit="share")
US = ImportOptions(market="us", basis="raw")


def days(count, first=date(2024, 1, 2)):
    """Weekdays from `first` on."""
    found, day = [], first
    while len(found) < count:
        if day.weekday() < 5:
            found.append(day)
        day += timedelta(days=1)
    return found


def bars(count=6, base=10.0, first=date(2024, 1, 2)):
    """Plain daily bars with prices of two decimals."""
    close = [round(base + 0.1 * i, 2) for i in range(count)]
    return pl.DataFrame(
        {
            "date": days(count, first),
            "open": [round(c - 0.05, 2) for c in close],
            "high": [round(c + 0.2, 2) for c in close],
            "low": [round(c - 0.2, 2) for c in close],
            "close": close,
            "volume": [1000.0 + i for i in range(count)],
        }
    )


def read(given, options=US, now=NOW, stored=()) -> History:
    """Everything between a path and the store, in one part."""
    source = given if hasattr(given, "pieces") else FileSource((Path(given),))
    options = options.resolved()
    pieces, lost = source.pieces(source.units(), options)
    chunk = understand(pieces, options)
    history = assemble([chunk], options, stored, now)
    if lost:
        from barcast.sources.base import failure_table

        history = History(**{**vars(history), "failures": pl.concat([failure_table(lost), history.failures])})
    assert history.rows.columns == list(STORE_COLUMNS) or history.rows.is_empty()
    return history
