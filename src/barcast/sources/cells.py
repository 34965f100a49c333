"""Delimited rows to columns; a row whose cells are not those of the header is named and left out.

A comma too many moves every cell behind it, and a line cut short may end in half a number: whatever such a
row seems to say, nothing in it can be believed.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from barcast.core.errors import DataError

#: So much of a row is shown.
_SHOWN = 60
#: So many misfits of a file are listed. The rest is counted, or a file of nothing else would fill the memory.
_LISTED = 1000
#: Characters encoded at a time, so that a large text is not held once more for it.
_BLOCK = 1 << 22
_BLANK = re.compile(r"\n(?=\r?(?:\n|\Z))")


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
    num_rows : int
        How many rows it stands for: the last misfit of a file stands for all that are not listed.
    """

    line: int
    text: str
    reason: str
    num_rows: int = 1


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
        misfits being rows of nulls so that rows count as lines do; and the misfits in their order, the
        first 1,000 one by one.

    Raises
    ------
    DataError
        When quotes do not close, so that nothing says where rows end.
    """
    if body.count('"', 0, body.find("\n") + 1 or len(body)) % 2:
        raise _left_open(header_line, "a quote too many")  # polars takes all rows for a part of the header
    width = max((position for position, name in enumerate(names, 1) if name), default=len(names))
    frame = _fitting(body, separator, width)
    if frame is not None:
        return frame[:, : len(names)], ()
    kept, misfits = _without_misfits(body, separator, width, header_line)
    return _split(kept, separator, lenient=True), misfits


def _fitting(body: str, separator: str, width: int) -> pl.DataFrame | None:
    """Read strictly; None where a row does not fit, or where only counting cells can tell."""
    frame = _strict(_encoded(body), separator)
    if frame is None:  # every line but the header may end in a separator
        end_of_header = len(body[: body.find("\n")].rstrip("\r"))
        frame = _strict(_encoded(body, end_of_header, separator), separator)
    return frame if frame is not None and _all_fit(frame, body, separator, width) else None


def _strict(data: io.BytesIO, separator: str) -> pl.DataFrame | None:
    """Split; None where a row has more cells than the header, or quotes that do not enclose its cells."""
    try:
        return _split(data, separator, lenient=False)
    except pl.exceptions.ComputeError:
        return None


def _split(data: io.BytesIO, separator: str, *, lenient: bool) -> pl.DataFrame:
    data.seek(0)
    return pl.read_csv(data, separator=separator, infer_schema=False, truncate_ragged_lines=lenient)


def _encoded(body: str, position: int = 0, inserted: str = "") -> io.BytesIO:
    """Encode text, with something inserted and the last line ended."""
    data = io.BytesIO()
    _append(data, body, 0, position)
    data.write(inserted.encode())
    _append(data, body, position, len(body))
    data.write(b"\n")  # polars overlooks an empty cell too many where the last line has no end
    return data


def _append(data: io.BytesIO, body: str, start: int, end: int) -> None:
    for block in range(start, end, _BLOCK):
        data.write(body[block : min(block + _BLOCK, end)].encode())


def _all_fit(frame: pl.DataFrame, body: str, separator: str, width: int) -> bool:
    """Whether no row of a strict reading lacks cells or fills unnamed ones; False where only counting tells.

    Going by columns costs next to nothing; a row with too few cells has none in the last named column.
    """
    if any(column.str.contains(r"\S").any() for column in frame.get_columns()[width:]):
        return False
    if not frame.to_series(width - 1).null_count():
        return True
    below = body.find("\n") + 1
    if body.find('"', below) >= 0 and not _hide_nothing(frame, body, separator, below):
        return False
    # no row has too many: if there are as many separators as full rows would have, each row is full
    num_rows = body.count("\n", below) + 1 - _num_blank(frame, body, below)
    return body.count(separator, below) == num_rows * (frame.width - 1)


def _hide_nothing(frame: pl.DataFrame, body: str, separator: str, below: int) -> bool:
    """Whether quotes enclose no separator, line end or quote: each character is in a cell or between two."""
    in_cells: int = frame.select(pl.sum_horizontal(pl.all().str.len_chars().sum())).item()
    between = sum(body.count(mark, below) for mark in (separator, "\n", "\r", '"'))
    return in_cells + between == len(body) - below


def _num_blank(frame: pl.DataFrame, body: str, below: int) -> int:
    """Count the empty lines from a position on, which stands behind a line end."""
    if not all(column.null_count() for column in frame.get_columns()):
        return 0
    return sum(1 for _ in _BLANK.finditer(body, below - 1))


def _without_misfits(
    body: str, separator: str, width: int, header_line: int
) -> tuple[io.BytesIO, tuple[Misfit, ...]]:
    """Encode text, the lines of misfits and of rows without content emptied."""
    kept, done = io.BytesIO(), 0
    misfits: list[Misfit] = []
    num_misfits = 0
    for line, start, end, cells in _rows(body, separator, header_line):
        if not start:  # whatever the header is, it is read as such
            continue
        if cells is None:
            last = line + body.count("\n", start, end - 1)
            lines = f" in lines {line} to {last}" if last > line else ""
            fault: str | None = f"quotes that do not enclose a whole cell{lines}; inside a cell, double them"
        else:
            fault = _fault(cells, width, separator)
        if fault is None:
            continue
        if fault:
            num_misfits += 1
            if num_misfits <= _LISTED + 1:
                text = " ".join(body[start:end].splitlines()).strip()
                misfits.append(Misfit(line, text[:_SHOWN], fault))
        _append(kept, body, done, start)
        kept.write(b"\n" * body.count("\n", start, end))
        done = end
    _append(kept, body, done, len(body))
    kept.write(b"\n")
    return kept, _told(misfits, num_misfits)


def _told(misfits: list[Misfit], num_misfits: int) -> tuple[Misfit, ...]:
    """Let one misfit stand for those that are not listed."""
    if num_misfits == len(misfits):
        return tuple(misfits)
    more = num_misfits - _LISTED
    rest = Misfit(misfits[_LISTED].line, "", f"{more:,} rows more like these, from this line on", more)
    return (*misfits[:_LISTED], rest)


def _rows(body: str, separator: str, header_line: int) -> Iterator[tuple[int, int, int, list[str] | None]]:
    """Yield each row's first line, where its text begins and ends, and its cells.

    None for cells where a row's quotes do not tell them; the next line begins another row then.
    """
    at = 0

    def lines() -> Iterator[str]:
        nonlocal at
        while at < len(body):
            begin, at = at, body.find("\n", at) + 1 or len(body)
            # carriage returns are ends of lines or, inside one, nothing that polars would split at
            yield body[begin:at].replace("\r", "")

    quoted = body.find('"', body.find("\n") + 1) >= 0
    reader = csv.reader(lines(), delimiter=separator, strict=True)
    start, line = 0, header_line
    while True:
        try:
            for cells in reader:
                # polars reads no file with a quote left over, such as the one of `5" pipe`
                odd = quoted and body.count('"', start, at) % 2
                yield line, start, at, None if odd else cells
                start, line = at, header_line + reader.line_num
            return
        except csv.Error as error:
            # all other errors come of quotes left open, and so does a header of several lines
            if " expected after " not in str(error) or (not start and reader.line_num > 1):
                raise _left_open(line, str(error)) from error
        yield line, start, at, None
        start, line = at, header_line + reader.line_num


def _left_open(line: int, why: str) -> DataError:
    return DataError(
        f"not readable as separated columns: the row of line {line}: {why}",
        "close its quotes, or take them out",
    )


def _fault(cells: list[str], width: int, separator: str) -> str | None:
    """Say what is wrong with a row: nothing where it has no content, None where it fits."""
    if len(cells) == width and cells[-1]:  # nearly all
        return None
    filled = next((count for count in range(len(cells), 0, -1) if cells[count - 1].strip()), 0)
    if not filled:
        return ""
    if len(cells) >= width >= filled:
        return None
    found = filled if filled > width else len(cells)
    fault = f"{found} cells where the header has {width}"
    if found < width:
        return f"{fault}; is the line cut off?"
    return f"{fault}; a comma inside a number needs quotes" if separator == "," else fault
