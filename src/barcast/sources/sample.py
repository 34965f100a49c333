"""Five US stocks, 2000 to 2013, from the `bokeh-sampledata` package: enough to see everything work.

AAPL, FB, GOOG, IBM and MSFT with splits and unequal listing dates. Prices and volume are as traded (AAPL's
132.5 million shares of 2000-09-29 carry no later split); ``Adj Close`` gives the factors.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from barcast.core.errors import DataError
from barcast.sources.files import FileSource
from barcast.sources.options import ImportOptions

SAMPLE_OPTIONS = ImportOptions(market="us", basis="raw", volume_unit="share")


def sample_source() -> FileSource:
    """Return the sample as a source; read it with ``SAMPLE_OPTIONS``.

    Raises
    ------
    DataError
        When the package is not installed.
    """
    try:
        folder = resources.files("bokeh_sampledata")
    except ModuleNotFoundError as error:
        raise DataError(
            "the sample needs the package bokeh-sampledata", "pip install 'barcast[sample]'"
        ) from error
    return FileSource((Path(str(folder / "_data" / "stocks.csv.gz")),))
