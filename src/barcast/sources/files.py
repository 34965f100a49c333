"""CSV and Parquet: one file or a folder of them, long or one file a symbol."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import polars as pl

from barcast.core.errors import BarcastError, DataError, SymbolError, UsageError, explained
from barcast.core.symbols import read_symbol
from barcast.sources.base import Piece, Unit, failure
from barcast.sources.cells import Misfit
from barcast.sources.headers import basis_word, missing_roles, read_header
from barcast.sources.options import ImportOptions
from barcast.sources.text import read_text_table

TEXT_SUFFIXES = (".csv", ".txt", ".tsv", ".csv.gz", ".txt.gz", ".tsv.gz")
PARQUET_SUFFIXES = (".parquet", ".pq")
_CN_CODE = re.compile(
    r"(?<![0-9A-Z])((?:SH|SZ|BJ)[.#_-]?\d{6}|\d{6}[._-](?:SH|SZ|BJ|SS|XSHG|XSHE)|\d{6})(?![0-9])",
    re.IGNORECASE,
)
#: What exports append to a coin's name: BTCUSDT-1h-2024-01.
_INTERVAL = re.compile(r"[-_ ](?:\d+[a-z]{1,3}|daily|hourly|spot)(?:[-_ ].*)?$", re.IGNORECASE)


@dataclass(frozen=True)
class FileSource:
    """Files named one by one or by their folder.

    Parameters
    ----------
    paths : tuple of Path
        Files are read whatever their suffix; of a folder (subfolders included) those with a known one.
    """

    paths: tuple[Path, ...]

    def units(self) -> tuple[Unit, ...]:
        """List the files, sorted within each folder.

        Raises
        ------
        DataError
            When a path does not exist or a folder holds nothing to read.
        """
        found: dict[str, Unit] = {}
        for path in self.paths:
            for file in _files_of(path.expanduser()):
                stat = file.stat()
                found[str(file)] = Unit(str(file), stat.st_size, f"{file}|{stat.st_size}|{stat.st_mtime_ns}")
        return tuple(found.values())

    def pieces(
        self, units: Sequence[Unit], options: ImportOptions
    ) -> tuple[list[Piece], list[dict[str, object]]]:
        """Read files side by side; one that cannot be read becomes a failure row."""
        if options.symbol and len(self.units()) > 1:
            raise UsageError("--symbol names one security, but there are several files", "leave --symbol out")
        if len(units) == 1:
            results = [_read(units[0], options)]
        else:
            with ThreadPoolExecutor(max_workers=4) as pool:
                results = list(pool.map(lambda unit: _read(unit, options), units))
        pieces = [piece for piece, _ in results if piece is not None]
        return pieces, [row for _, failures in results for row in failures]


def _files_of(path: Path) -> list[Path]:
    with explained("reading", path):
        if path.is_file():
            return [path]
        if not path.is_dir():
            raise DataError(f"{path} does not exist", "name a file or a folder of CSV or Parquet files")
        known = (*TEXT_SUFFIXES, *PARQUET_SUFFIXES)
        files = sorted(
            file
            for file in path.rglob("*")
            if file.name.lower().endswith(known) and not file.name.startswith((".", "_")) and file.is_file()
        )
    if not files:
        raise DataError(f"{path} holds no file to read", f"known endings are {', '.join(known)}")
    return files


#: A file, where anything of it could be read, and its failure rows.
_Read: TypeAlias = tuple[Piece | None, list[dict[str, object]]]


def _read(unit: Unit, options: ImportOptions) -> _Read:
    path = Path(unit.name)
    try:
        with explained("reading", path):
            if path.name.lower().endswith(PARQUET_SUFFIXES):
                return _read_parquet(path, options), []
            return _read_text(path, options)
    except UsageError:
        raise
    except (BarcastError, OSError, EOFError, pl.exceptions.PolarsError) as error:
        return None, [failure("file", str(error).splitlines()[0], file=unit.name)]


def _read_parquet(path: Path, options: ImportOptions) -> Piece:
    header = read_header(list(pl.read_parquet_schema(path)), options.columns)
    frame = pl.read_parquet(path, columns=list(header.roles.values()), use_pyarrow=False)
    return Piece(str(path), frame, header, symbol=_symbol_of(path, "", options))


def _read_text(path: Path, options: ImportOptions) -> _Read:
    table = read_text_table(path, options.encoding, options.columns)
    header = table.header
    notes = []
    if table.footers:
        notes.append("footer lines without columns left out")
    if (basis := basis_word(table.title)) and header.basis is None:
        header = type(header)(**{**vars(header), "basis": basis})
    symbol = None if "symbol" in header.roles else _symbol_of(path, table.title, options)
    piece = Piece(str(path), table.frame, header, table.first_line, symbol, tuple(notes))
    if not table.misfits or missing_roles(header):  # then the header is what is wrong
        return piece, []
    nothing = table.frame.select(pl.all_horizontal(pl.all().is_null()).all()).item()
    return None if nothing else piece, _misfit_failures(piece, table.misfits)


def _misfit_failures(piece: Piece, misfits: Sequence[Misfit]) -> list[dict[str, object]]:
    where = {"file": piece.name, "symbol": piece.symbol}
    return [
        failure("cells", row.reason, line=row.line, column="row", value=row.text, **where)
        if row.num_rows == 1
        else failure("more", row.reason, line=row.line, column="rows", value=str(row.num_rows), **where)
        for row in misfits
    ]


def _symbol_of(path: Path, title: str, options: ImportOptions) -> str | None:
    """Find the symbol that a file's columns do not give: the option, the file name, then the title line.

    Raises
    ------
    SymbolError
        When name and title tell two different codes.
    """
    if options.symbol:
        return options.symbol
    stem = path.name
    for suffix in (*TEXT_SUFFIXES, *PARQUET_SUFFIXES):
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
            break
    if options.market != "cn":
        cut = _INTERVAL.sub("", stem) if options.market == "crypto" else re.split(r"[_ ]", stem)[0]
        return cut or None
    by_name, by_title = _CN_CODE.search(stem), _CN_CODE.search(title)
    if by_name and by_title and _digits(by_name[1]) != _digits(by_title[1]):
        raise SymbolError(f"the file's name says {by_name[1]}, its title says {by_title[1]}")
    found = by_name or by_title
    return found[1] if found else (stem if _is_symbol(stem, "cn") else None)


def _digits(code: str) -> str:
    return re.sub(r"\D", "", code)


def _is_symbol(text: str, market: str) -> bool:
    try:
        read_symbol(text, market)
    except SymbolError:
        return False
    return True
