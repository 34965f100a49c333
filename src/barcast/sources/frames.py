"""Frames from Python: one long frame, or a dict of frames by symbol; polars or pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from barcast.core.errors import DataError, UsageError
from barcast.sources.base import Piece, Unit, failure
from barcast.sources.headers import read_header
from barcast.sources.options import ImportOptions

if TYPE_CHECKING:
    import pandas as pd

    Frame: TypeAlias = pl.DataFrame | pd.DataFrame
    Frames: TypeAlias = Frame | Mapping[str, Frame]

#: What messages call a single long frame.
LONG = "frame"


@dataclass(frozen=True)
class FrameSource:
    """Bars that are already in memory.

    Parameters
    ----------
    frames : Mapping
        Symbol to frame; a pandas index that is named or holds dates becomes a column.
    long : bool
        Whether the one frame names its symbols itself.
    """

    frames: Mapping[str, Frame]
    long: bool = False

    @classmethod
    def of(cls, given: Frames) -> FrameSource:
        """Take one long frame or a dict of frames."""
        if isinstance(given, Mapping):
            if not given:
                raise DataError("the dict of frames is empty")
            return cls({str(symbol): frame for symbol, frame in given.items()})
        return cls({LONG: given}, long=True)

    def units(self) -> tuple[Unit, ...]:
        """One unit a frame."""
        return tuple(Unit(name, len(frame)) for name, frame in self.frames.items())

    def pieces(
        self, units: Sequence[Unit], options: ImportOptions
    ) -> tuple[list[Piece], list[dict[str, object]]]:
        """Hand the frames on; one whose header cannot be read becomes a failure row."""
        pieces, failures = [], []
        for unit in units:
            frame = _to_polars(self.frames[unit.name])
            try:
                header = read_header(frame.columns, options.columns)
            except UsageError:
                raise
            except DataError as error:
                failures.append(failure("columns", str(error), file=unit.name))
                continue
            symbol = options.symbol if self.long else unit.name
            pieces.append(Piece(unit.name, frame, header, symbol=symbol))
        return pieces, failures


def _to_polars(frame: Frame) -> pl.DataFrame:
    if isinstance(frame, pl.DataFrame):
        return frame
    import pandas as pd  # the user brought it

    if not isinstance(frame, pd.DataFrame):
        raise UsageError(f"expected a polars or pandas frame, found {type(frame).__name__}")
    if isinstance(frame.index, pd.DatetimeIndex | pd.MultiIndex) or frame.index.name is not None:
        names = [name or "date" for name in frame.index.names]
        frame = frame.rename_axis(names).reset_index()
    frame.columns = [str(name) for name in frame.columns]
    return pl.from_pandas(frame)
