"""What a fleet is fitted on: rows of all symbols in one folder, who may get a model, what each is worth."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast.core.arrays import F32, F64, I8, I64
from barcast.core.bars import Bars
from barcast.core.errors import UsageError
from barcast.core.predictions import SEGMENTS
from barcast.core.texts import some
from barcast.fleet.budget import Candidates
from barcast.fleet.data import FleetData, SymbolData
from barcast.fleet.floor import DIED
from barcast.fleet.ledger import Ledger
from barcast.pipeline.dataset import Dataset

#: Sessions at the end of `fit` whose turnover says what a symbol is worth.
TURNOVER_BARS = 60
TOO_SHORT = "too short"
NOT_EVALUATED = "no model in the evaluation that this refits"
#: How the reasons begin that another call would not change, and those of failures that it may.
SETTLED = (TOO_SHORT, NOT_EVALUATED)
PASSING = (DIED, "MemoryError", "ResourceError")
_FIT, _STOP, _WEIGH = (SEGMENTS.index(name) for name in ("fit", "stop", "weigh"))


def fleet_data(dataset: Dataset) -> FleetData:
    """Return the rows of a dataset as a fleet reads them: whatever may teach is `fit`."""
    market = dataset.market
    bars = market.bars
    segment: I8 = np.where(market.segment == _FIT, np.int8(-1), market.segment).astype(np.int8)
    judging = np.zeros(len(bars), bool)
    judging[dataset.rows_to_judge(*SEGMENTS[1:])] = True
    segment[~judging] = -1
    segment[dataset.teach] = _FIT
    return FleetData(
        bars.symbols, bars.offsets, dataset.inputs, dataset.target, bars.session.astype(np.int32), segment,
        bars.life_start,
    )  # fmt: skip


def rows_to_serve(bars: Bars, inputs: F32, num_horizons: int) -> FleetData:
    """Return rows that are predicted and nothing else, as a fleet reads them: none has a label."""
    nothing = np.broadcast_to(np.float32(np.nan), (len(bars), num_horizons))
    return FleetData(
        bars.symbols, bars.offsets, inputs, nothing, bars.session.astype(np.int32),
        np.full(len(bars), -1, np.int8), bars.life_start,
    )  # fmt: skip


def owners_of(data: FleetData, rows: I64) -> I64:
    """Return the position of the symbol that each row (n,) belongs to."""
    return np.asarray(np.searchsorted(data.offsets, rows, side="right") - 1, np.int64)


def rows_of_table(bars: Bars, table: pl.DataFrame) -> I64:
    """Return the row of each line's symbol and time, -1 where the bars have none."""
    times, num = bars.calendar.times.astype("datetime64[us]"), len(bars.calendar)
    place = {symbol: position for position, symbol in enumerate(bars.symbols)}
    symbol = np.array([place.get(name, -1) for name in table["symbol"]], np.int64)
    time = table["time"].to_numpy()
    session = np.minimum(np.searchsorted(times, time), num - 1)
    key, wanted = bars.symbol_of_row.astype(np.int64) * num + bars.session, symbol * num + session
    row = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    return np.where((symbol >= 0) & (times[session] == time) & (key[row] == wanted), row, -1)


def who_waits(ledger: Ledger) -> list[str]:
    """Return the symbols that wait for another call: left out by a limit, or to be tried again."""
    rows = ledger.rows(status=["pending", "running", "left_out"])
    return [row.symbol for row in rows if row.status != "left_out" or not row.reason.startswith(SETTLED)]


def failed_in_passing(ledger: Ledger) -> list[str]:
    """Return the symbols whose failure says nothing of them: a worker died, or memory was short."""
    return [row.symbol for row in ledger.rows(status=["failed"]) if row.reason.startswith(PASSING)]


@contextmanager
def rows_for_workers(data: FleetData, folder: Path) -> Iterator[Path]:
    """Keep the rows in a folder that workers map, for as long as the block lasts."""
    shutil.rmtree(folder, ignore_errors=True)
    data.save(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rows_digests(data: FleetData, *, windows: bool) -> list[str]:
    """Return a digest a symbol of all that its fit reads of its rows.

    Parameters
    ----------
    windows : bool
        Whether a row is read with those before it, as networks do: then inputs count up to the last row that
        teaches or stops, and so does where lives begin. Else the rows of `fit` and `stop` count alone, and
        those of `weigh`, on which the errors of trees are measured.
    """
    found = []
    for position in range(len(data.symbols)):
        told = hashlib.blake2b(digest_size=8)
        for array in (_read_by_windows if windows else _read_by_rows)(data.one(position)):
            told.update(np.ascontiguousarray(array).data)
        found.append(told.hexdigest())
    return found


def _read_by_rows(own: SymbolData) -> list[Any]:
    read = np.isin(own.segment, (_FIT, _STOP, _WEIGH))
    return [own.inputs[read], own.target[read], own.segment[read]]


def _read_by_windows(own: SymbolData) -> list[Any]:
    read = np.flatnonzero(np.isin(own.segment, (_FIT, _STOP)))
    until = slice(int(read.max(initial=-1)) + 1)
    return [read, own.target[read], own.segment[read], own.inputs[until], own.life_start[until]]


def teaching_counts(data: FleetData) -> I64:
    """Return the rows that teach each symbol, the fewest of its horizons, shape (S,)."""
    owner = np.repeat(np.arange(len(data.symbols)), np.diff(data.offsets))
    teach = (data.segment == _FIT)[:, None] & np.isfinite(data.target)
    counts = [np.bincount(owner[column], minlength=len(data.symbols)) for column in teach.T]
    return np.asarray(np.min(counts, axis=0), np.int64)


def candidates_of(data: FleetData, value: F64, wanted: Mapping[str, int]) -> Candidates:
    """Return the symbols that are to be fitted, by position in ``data``."""
    positions = np.array(sorted(wanted.values()), np.int64)
    rows = teaching_counts(data)[positions]
    return Candidates(tuple(data.symbols[p] for p in positions), positions, rows, value[positions])


def too_short(data: FleetData, min_rows: int, least: Mapping[str, int]) -> dict[str, str]:
    """Say of each symbol with too few rows to teach that it has; ``least`` differs for single symbols."""
    counts = teaching_counts(data).tolist()
    asked = [least.get(symbol, min_rows) for symbol in data.symbols]
    return {
        symbol: f"{TOO_SHORT}: {count:,} of {need:,} training rows"
        for symbol, count, need in zip(data.symbols, counts, asked, strict=True)
        if count < need
    }


def check_symbols(symbols: Sequence[str], named: Mapping[str, object], where: str) -> None:
    """Refuse options for symbols that are not here.

    Raises
    ------
    UsageError
        With their names.
    """
    if strange := sorted(set(named) - set(symbols)):
        raise UsageError(f"{where} names symbols that are not here: {some(strange)}", "barcast data info")
