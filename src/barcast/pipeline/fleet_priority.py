"""Who comes first in a fleet where not all can be served: by what is traded, by length, or as a file says."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from barcast.core.arrays import F64
from barcast.core.errors import UsageError, explained
from barcast.core.progress import Progress
from barcast.core.symbols import read_symbols
from barcast.core.texts import counted, some
from barcast.pipeline.dataset import Dataset
from barcast.pipeline.fleet_rows import TURNOVER_BARS

#: What symbols may be ordered by; anything else is a file.
PRIORITIES = ("turnover", "length")
_COLUMNS = ("symbol", "value")
_TODO = "a CSV file with the header symbol,value and a line a symbol"


def values_of(dataset: Dataset, priority: str, progress: Progress | None = None) -> F64:
    """Return what each symbol is worth, shape (S,); NaN comes last.

    Parameters
    ----------
    priority : str
        ``turnover``: mean close times volume of the last 60 bars that may teach; ``length``: rows that teach;
        or a CSV file with the columns ``symbol`` (in any spelling) and ``value``.
    progress : Progress, optional
        Is told how many lines of the file are of no symbol that is here.

    Raises
    ------
    UsageError
        On a file that cannot be read so, or names a symbol twice.
    """
    bars = dataset.market.bars
    if priority == "length":
        counts = np.bincount(bars.symbol_of_row[dataset.teach], minlength=bars.num_symbols)
        return np.asarray(counts, np.float64)
    if priority != "turnover":
        told = _of_symbols(Path(priority), bars.symbols, bars.market, progress or Progress(enabled=False))
        return np.array([told.get(symbol, np.nan) for symbol in bars.symbols])
    values = np.full(bars.num_symbols, np.nan)
    traded = np.nan_to_num(bars.close * bars.volume)
    for position in range(bars.num_symbols):
        rows = np.flatnonzero(dataset.teach[bars.offsets[position] : bars.offsets[position + 1]])
        if len(rows):
            values[position] = traded[bars.offsets[position] + rows[-TURNOVER_BARS:]].mean()
    return values


def check_priority(priority: str) -> None:
    """Refuse what symbols cannot be ordered by, before anything is computed (`UsageError`)."""
    if priority not in PRIORITIES:
        _told_values(Path(priority))


def _of_symbols(path: Path, symbols: tuple[str, ...], market: str, progress: Progress) -> dict[str, float]:
    """Return the values of a file by the names of symbols that are here."""
    told, here = _told_values(path), set(symbols)
    readings, _ = read_symbols([name for name in told if name not in here], market)
    meant = {name: readings[name].symbol if name in readings else name for name in told}
    strange = [name for name, symbol in meant.items() if symbol not in here]
    spelled: dict[str, list[str]] = {}
    for name, symbol in meant.items():
        spelled.setdefault(symbol, []).append(name)
    if twice := [" and ".join(names) for names in spelled.values() if len(names) > 1]:
        raise UsageError(f"{path}: {some(twice, '; ')} are one symbol", "one line a symbol")
    if strange:
        progress.note(
            f"{path}: {len(strange):,} of {counted(len(told), 'line')} are of no symbol of this fleet, "
            f"e.g. {some(strange, most=3)}"
        )
    return {meant[name]: value for name, value in told.items()}


def _told_values(path: Path) -> dict[str, float]:
    """Read a file as it is spelled there."""
    if not path.is_file():
        raise UsageError(f"--priority {path}: neither {', '.join(PRIORITIES)} nor a file", _TODO)
    told: dict[str, float] = {}
    try:
        with explained("reading", path), path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = [name.strip() for name in next(lines, [])]
            if missing := [name for name in _COLUMNS if name not in header]:
                there = f"it begins with `{','.join(header)}`" if header else "it is empty"
                raise UsageError(f"{path} has no column {' and '.join(missing)}: {there}", _TODO)
            for cells in filter(any, lines):
                line = dict(zip(header, map(str.strip, cells), strict=False))
                name, value = _read_line(line, f"{path}, line {lines.line_num}")
                if name in told:
                    raise UsageError(
                        f"{path}, line {lines.line_num}: {name} is there already", "one line a symbol"
                    )
                told[name] = value
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is no CSV file in UTF-8: {error}", _TODO) from error
    if not told:
        raise UsageError(f"{path} has no line below its header", _TODO)
    return told


def _read_line(line: dict[str, str], where: str) -> tuple[str, float]:
    name, text = (line.get(column, "") for column in _COLUMNS)
    if not name:
        raise UsageError(f"{where}: no symbol", "a symbol and its value a line")
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise UsageError(
            f"{where}: the value of {name} is {text or 'missing'}, no number",
            "give it a number, or leave the line out: who has none comes last",
        )
    return name, value
