"""The official ACL18 and KDD17 price sets of Adv-ALSTM (Feng et al., IJCAI 2019), and their exact protocol.

Eleven features in percent and a label in -1, 0, +1 for every symbol and session. Read from one packed Parquet
file, or from the original folder: ``ourpped/TICKER.csv`` beside ``trading_dates.csv``. A missing row is
written as -123321 throughout; here it is NaN from the first moment.

Warnings
--------
The label of row ``t`` is the move *into* ``t``: an instance takes the features of the rows before ``t``.
Flat rows (label 0) are left out of the test set too, so scores by this protocol answer "given a large move
tomorrow, which way?". Nobody can trade that; use it to compare with published tables only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from barcast.core.arrays import F64, I8, I32, Bools, Times
from barcast.core.errors import DataError, UsageError

FEATURES = ("c_open", "c_high", "c_low", "n_close", "n_adj_close", "d5", "d10", "d15", "d20", "d25", "d30")
VALUES = (*FEATURES, "label", "price")
MISSING = -123321.0

SetName = Literal["acl18", "kdd17"]
SplitName = Literal["train", "validation", "test"]
#: First and last label day of each part.
SPLITS: dict[SetName, dict[SplitName, tuple[str, str]]] = {
    "acl18": {
        "train": ("2014-01-02", "2015-07-31"),
        "validation": ("2015-08-03", "2015-09-30"),
        "test": ("2015-10-01", "2015-12-31"),
    },
    "kdd17": {
        "train": ("2007-01-03", "2014-12-31"),
        "validation": ("2015-01-02", "2015-12-31"),
        "test": ("2016-01-04", "2016-12-30"),
    },
}


@dataclass(frozen=True)
class OfficialTable:
    """Features and labels of S symbols on one calendar of T sessions.

    Attributes
    ----------
    symbols : tuple of str
        Sorted.
    dates : Times, shape (T,)
        Session dates.
    features : F64, shape (S, T, 11)
        In percent, in the order of ``FEATURES``; NaN on missing rows.
    label : F64, shape (S, T)
        -1, 0 or +1 for the move into the session; NaN where missing.
    price : F64, shape (S, T)
        Adjusted close in US dollars; NaN where missing.
    """

    symbols: tuple[str, ...]
    dates: Times
    features: F64
    label: F64
    price: F64


@dataclass(frozen=True)
class OfficialInstances:
    """Instances of the protocol, by date, then symbol.

    Attributes
    ----------
    x : F64, shape (N, L, 11)
        Features of the L sessions before the label's, oldest first, in percent.
    y : I8, shape (N,)
        1 up, 0 down.
    symbol : I32, shape (N,)
        Position in ``OfficialTable.symbols``.
    session : I32, shape (N,)
        Position of the label's session in ``OfficialTable.dates``.
    date : Times, shape (N,)
        The label's session.
    """

    x: F64
    y: I8
    symbol: I32
    session: I32
    date: Times


def read_official(path: Path) -> OfficialTable:
    """Read one of the two sets.

    Parameters
    ----------
    path : Path
        A packed Parquet file (``symbol, date``, the eleven features, ``label, price``), or the original
        folder of one headless CSV file a symbol with ``trading_dates.csv`` in it or beside it.

    Raises
    ------
    DataError
        On columns, shapes or dates that are not the set's.
    """
    return _read_folder(path) if path.is_dir() else _read_packed(path)


def official_instances(
    table: OfficialTable, data_set: SetName, split: SplitName, look_back: int
) -> OfficialInstances:
    """Cut the instances of one part, exactly as the official code does.

    A session gives an instance where its label is not flat, ``look_back`` sessions lie before it, and none of
    them is missing.

    Parameters
    ----------
    table : OfficialTable
        The whole set; windows reach back across the parts' borders.
    data_set : str
        ``acl18`` or ``kdd17``, for the dates of the parts.
    split : str
        ``train``, ``validation`` or ``test``.
    look_back : int
        Sessions of features, L.
    """
    if data_set not in SPLITS or split not in SPLITS[data_set]:
        known = ", ".join(SPLITS), ", ".join(SPLITS["acl18"])
        raise UsageError(f"no part `{split}` of `{data_set}`", f"sets: {known[0]}; parts: {known[1]}")
    if look_back < 1:
        raise UsageError(f"`look_back` must be at least 1, got {look_back}")
    first, last = SPLITS[data_set][split]
    labelled = np.isin(table.label, (-1.0, 1.0))
    labelled &= (table.dates >= np.datetime64(first)) & (table.dates <= np.datetime64(last))
    session, symbol = np.nonzero((labelled & _whole_windows(table, look_back)).T)
    window = session[:, None] + np.arange(-look_back, 0)
    return OfficialInstances(
        x=table.features[symbol[:, None], window],
        y=(table.label[symbol, session] > 0).astype(np.int8),
        symbol=symbol.astype(np.int32),
        session=session.astype(np.int32),
        date=table.dates[session],
    )


def _whole_windows(table: OfficialTable, look_back: int) -> Bools:
    """Whether the ``look_back`` sessions before each one are all there, shape (S, T)."""
    missing = np.isnan(table.features).any(axis=2) | np.isnan(table.label) | np.isnan(table.price)
    seen = np.cumsum(np.pad(missing, ((0, 0), (1, 0))), axis=1)  # seen[:, t]: missing before t
    whole = np.zeros(missing.shape, bool)
    whole[:, look_back:] = seen[:, look_back:-1] == seen[:, : -look_back - 1]
    return whole


def _read_packed(path: Path) -> OfficialTable:
    import polars as pl  # local: only this reader needs it

    frame = pl.read_parquet(path)
    absent = [name for name in ("symbol", "date", *VALUES) if name not in frame.columns]
    if absent:
        raise DataError(
            f"{path}: no column {', '.join(absent)}", f"columns needed: symbol, date, {', '.join(VALUES)}"
        )
    frame = frame.sort("symbol", "date")
    symbols, dates = frame["symbol"].unique().sort().to_list(), frame["date"].unique().sort().to_numpy()
    repeated = frame.select("symbol", "date").is_duplicated().sum()
    if repeated or len(frame) != len(symbols) * len(dates):
        raise DataError(
            f"{path}: {len(frame)} rows ({repeated} repeated) for {len(symbols)} symbols, {len(dates)} dates",
            "the set has one row for every symbol and date; missing ones are written as -123321",
        )
    values = frame.select(pl.col(name).cast(pl.Float64) for name in VALUES).to_numpy()
    return _table(symbols, dates, values.reshape(len(symbols), len(dates), len(VALUES)))


def _read_folder(folder: Path) -> OfficialTable:
    """Read the original layout; files in the order of their names, not in the folder's."""
    beside = (folder / "trading_dates.csv", folder.parent / "trading_dates.csv")
    dates_file = next((path for path in beside if path.is_file()), None)
    files = sorted(path for path in folder.glob("*.csv") if path.name != "trading_dates.csv")
    if dates_file is None or not files:
        raise DataError(
            f"{folder}: {len(files)} CSV files, trading_dates.csv {'found' if dates_file else 'not found'}",
            "give the folder `ourpped` of the data set, with trading_dates.csv beside it",
        )
    dates = np.array(dates_file.read_text(encoding="utf-8").split(), dtype="datetime64[D]")
    values = np.empty((len(files), len(dates), len(VALUES)))
    for position, file in enumerate(files):
        rows = np.loadtxt(file, delimiter=",", ndmin=2)
        if rows.shape != values.shape[1:]:
            raise DataError(
                f"{file}: {rows.shape[0]} rows of {rows.shape[1]} values, not {len(dates)} of {len(VALUES)}",
                "every file has one row a trading date: eleven features, label, price",
            )
        values[position] = rows
    return _table([file.stem for file in files], dates, values)


def _table(symbols: list[str], dates: Times, values: F64) -> OfficialTable:
    values = np.where(values <= MISSING + 1, np.nan, values)
    return OfficialTable(
        tuple(symbols),
        dates.astype("datetime64[D]"),
        features=np.ascontiguousarray(values[:, :, : len(FEATURES)]),
        label=values[:, :, len(FEATURES)],
        price=values[:, :, len(FEATURES) + 1],
    )
