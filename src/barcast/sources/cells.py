"""Delimited rows to columns; a row whose cells are not those of the header is named and left out.

A comma too many moves every cell behind it, and a line cut short may end in half a number: whatever such a
row seems to say, nothing in it can be believed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from barcast.core.errors import DataError

#: So much of a row is shown.
_SHOWN = 60


@dataclass(frozen=True)
class Misfit:
    """A row that was left out.

    Attributes
    ----------
    line : int
        Its first line in the file, from 1.
    text : str
        What stands there, up to 60 characters.
    reason : str
        What is wrong with it.
    """

    line: int
    text: str
    reason: str


def read_cells(
    body: str, separator: str, names: Sequence[str], header_line: int = 1
) -> tuple[pl.DataFrame, tuple[Misfit, ...]]:
    """Split a header and the rows below it.

    A row fits when it has a cell for each named column and nothing but empty cells behind them, as a
    separator at the end of every line leaves them. A row without content fits whatever its separators.

    Parameters
    ----------
    body : str
        From the header on.
    separator : str
        One character.
    names : sequence of str
        The header's columns; empty ones at its end stand for no column.
    header_line : int
        Line number of the header, from 1.

    Returns
    -------
    tuple
        A column of strings for each name (empty cells are null, quoted empty ones empty), empty lines and
        misfits being rows of nulls so that rows count as lines do; and the misfits in their order.

    Raises
    ------
    DataError
        When quotes do not close, so that nothing says where rows end.
    """
    width = max((position for position, name in enumerate(names, 1) if name), default=len(names))
    frame = _fitting(body, separator, width)
    if frame is None:  # every line but the header may end in a separator
        head, end, rest = body.partition("\n")
        frame = _fitting("".join((head.rstrip("\r"), separator, end, rest)), separator, width)
    if frame is not None:
        return frame[:, : len(names)], ()
    body, misfits = _without_misfits(body, separator, width, header_line)
    return _split(body, separator, lenient=True), misfits


def _fitting(body: str, separator: str, width: int) -> pl.DataFrame | None:
    """Read strictly; None where a row does not fit, or where only counting can tell."""
    try:
        frame = _split(body, separator, lenient=False)
    except pl.exceptions.ComputeError:  # cells too many, or worse: then the lenient reading fails as well
        return None
    return frame if _all_fit(frame, body, separator, width) else None


def _split(body: str, separator: str, *, lenient: bool) -> pl.DataFrame:
    # polars overlooks an empty cell too many where the last line has no end
    return pl.read_csv(
        io.BytesIO(body.encode() + b"\n"),
        separator=separator,
        infer_schema=False,
        truncate_ragged_lines=lenient,
    )


def _all_fit(frame: pl.DataFrame, body: str, separator: str, width: int) -> bool:
    """Whether no row of a strict reading lacks cells or fills unnamed ones; False where only counting tells.

    Going by columns costs next to nothing; a row with too few cells has none in the last named column.
    """
    if any(column.str.contains(r"\S").any() for column in frame.get_columns()[width:]):
        return False
    if not frame.to_series(width - 1).null_count():
        return True
    # no row has too many: if there are as many separators as full rows would have, each row is full
    return '"' not in body and body.count(separator) == (body.count("\n") + 1) * (frame.width - 1)


def _without_misfits(
    body: str, separator: str, width: int, header_line: int
) -> tuple[str, tuple[Misfit, ...]]:
    """Empty the lines of misfits and of rows without content."""
    lines = body.split("\n")
    misfits = []
    for start, end, cells in _rows(lines, separator, header_line):
        if len(cells) == width and cells[-1]:  # nearly all
            continue
        filled = next((count for count in range(len(cells), 0, -1) if cells[count - 1].strip()), 0)
        if len(cells) >= width >= filled > 0:
            continue
        if filled:
            text = " ".join(lines[start:end]).strip()
            reason = _reason(filled if filled > width else len(cells), width, separator)
            misfits.append(Misfit(header_line + start, text[:_SHOWN], reason))
        lines[start:end] = [""] * (end - start)
    return "\n".join(lines), tuple(misfits)


def _rows(lines: list[str], separator: str, header_line: int) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the lines of each row, from and until, and its cells."""
    # carriage returns are ends of lines or, inside one, nothing that polars would split at
    reader = csv.reader((line.replace("\r", "") + "\n" for line in lines), delimiter=separator, strict=True)
    start = 0
    try:
        for cells in reader:
            yield start, reader.line_num, cells
            start = reader.line_num
    except csv.Error as error:
        raise DataError(
            f"not readable as separated columns: the row of line {header_line + start}: {error}",
            "close its quotes, or take them out",
        ) from error


def _reason(found: int, width: int, separator: str) -> str:
    reason = f"{found} cells where the header has {width}"
    if found < width:
        return f"{reason}; is the line cut off?"
    return f"{reason}; a comma inside a number needs quotes" if separator == "," else reason
