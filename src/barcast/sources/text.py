"""Delimited text to columns of strings: encoding, title line, separator, header and footer, file by file."""

from __future__ import annotations

import codecs
import csv
import gzip
import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from barcast.core.errors import DataError, UsageError
from barcast.sources.cells import Misfit, read_cells
from barcast.sources.headers import Header, read_header

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_SEPARATORS = (",", "\t", ";", "|")
#: The header is looked for in so many first lines: exports put a title or a licence above it.
_HEADER_WITHIN = 20


@dataclass(frozen=True)
class Table:
    """A text file, split but not understood.

    Attributes
    ----------
    frame : pl.DataFrame
        All columns as strings, named as in the file; empty lines and misfits are rows of nulls.
    header : Header
        The role of each column.
    first_line : int
        Line number of the first data row, counted from 1.
    title : str
        What stood above the header.
    footers : int
        Trailing lines left out because they hold no columns.
    encoding : str
        How the bytes were read.
    misfits : tuple of Misfit
        Rows left out because their cells are not those of the header; of very many the last one counts
        those that are not listed.
    """

    frame: pl.DataFrame
    header: Header
    first_line: int
    title: str
    footers: int
    encoding: str
    misfits: tuple[Misfit, ...] = ()


def read_text_table(path: Path, encoding: str = "auto", overrides: tuple[str, ...] = ()) -> Table:
    """Read a delimited text file, gzipped or not.

    Raises
    ------
    DataError
        When it is empty, not text, or none of its first lines names a time and a close.
    """
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    return parse_text_table(data, encoding, overrides)


def parse_text_table(data: bytes, encoding: str = "auto", overrides: tuple[str, ...] = ()) -> Table:
    """As ``read_text_table``, from bytes."""
    if not data.strip():
        raise DataError("the file is empty")
    text, used = decode(data, encoding)
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines = text.split("\n", _HEADER_WITHIN + 1)
    position, separator, names, header = _find_header(lines[: _HEADER_WITHIN + 1], overrides)
    body = text[sum(len(line) + 1 for line in lines[:position]) :]
    body, footers = _without_footer(body, separator)
    if separator == " ":
        body, separator = re.sub(r"[ \t]+", "\t", re.sub(r"(?m)^[ \t]+|[ \t\r]+$", "", body)), "\t"
    try:
        frame, misfits = read_cells(body, separator, names, position + 1)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"not readable as separated columns: {str(error).splitlines()[0]}") from error
    # trimmed names; of repeated ones only the first can have a role
    frame.columns = [name if names.index(name) == i else f"{name} #{i + 1}" for i, name in enumerate(names)]
    title = " ".join(line.strip() for line in lines[:position])
    return Table(frame, header, position + 2, title.strip(), footers, used, misfits)


def decode(data: bytes, encoding: str = "auto") -> tuple[str, str]:
    """Decode one file's bytes; ``auto`` takes a byte-order mark, then UTF-8, then GB18030 (which holds GBK).

    Raises
    ------
    DataError
        When the bytes are none of these.
    """
    if encoding != "auto":
        try:
            return data.decode(encoding).removeprefix("\ufeff"), encoding
        except LookupError as error:
            raise UsageError(f"unknown encoding `{encoding}`", "use auto, utf-8, gb18030, ...") from error
        except UnicodeDecodeError as error:
            raise DataError(f"byte {error.start} is not {encoding}", "try --encoding auto") from error
    for mark, name in _MARKS:
        if data.startswith(mark):
            candidates: tuple[str, ...] = (name,)
            break
    else:
        candidates = ("utf-8", "gb18030")
    where = 0
    for name in candidates:
        try:
            return data.decode(name).removeprefix("\ufeff"), name
        except UnicodeDecodeError as error:
            where = error.start
    raise DataError(f"byte {where} is neither UTF-8 nor GB18030", "say the file's --encoding")


def _find_header(lines: list[str], overrides: tuple[str, ...]) -> tuple[int, str, list[str], Header]:
    """Return the line's position, its separator, its names and their roles.

    The first line that names a time and a close wins. Without one, the first line that has columns at all is
    described, so that the message can say which are missing.
    """
    best: tuple[int, str, list[str], Header] | None = None
    for position, line in enumerate(lines):
        for separator in (*_SEPARATORS, " "):
            names = _split(line, separator)
            if len(names) < 3:
                continue
            header = read_header(names, overrides)
            if header.has_bars:
                return position, separator, names, header
            if best is None or len(header.roles) > len(best[3].roles):
                best = (position, separator, names, header)
    if best is None:
        first = next((line.strip() for line in lines if line.strip()), "")
        raise DataError(f"no header line with columns; the first line is `{first[:60]}`")
    return best


def _split(line: str, separator: str) -> list[str]:
    if separator == " ":
        return line.split()
    try:
        return [name.strip() for name in next(csv.reader([line.strip("\r\n")], delimiter=separator), [])]
    except csv.Error:  # a line of a title or of no table at all
        return []


def _without_footer(body: str, separator: str) -> tuple[str, int]:
    """Cut trailing lines that hold no separator, such as 数据来源:通达信."""
    footers, mark = 0, None if separator == " " else separator
    body = body.rstrip("\r\n\x1a ")
    while "\n" in body:
        head, _, last = body.rpartition("\n")
        if len(last.split(mark)) > 1:
            break
        footers += bool(last.strip())
        body = head.rstrip("\r\n ")
    return body, footers
