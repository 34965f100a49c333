"""What every fit of a fleet reads: the rows of all symbols, flat, in one folder that every worker maps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from barcast.core.arrays import F32, F64, I8, I32, I64
from barcast.core.atomic import write_json
from barcast.core.predictions import SEGMENTS

_ARRAYS = ("offsets", "inputs", "target", "session", "segment", "life_start")


@dataclass(frozen=True)
class FleetData:
    """Rows sorted by symbol, then session; R rows of S symbols.

    Attributes
    ----------
    symbols : tuple of str
        S names, sorted.
    offsets : I64, shape (S + 1,)
        Symbol ``s`` owns rows ``offsets[s]:offsets[s + 1]``.
    inputs : F32, shape (R, F)
        What a model reads at a row; finite (a missing input is 0, as its validity says).
    target : F32, shape (R, H)
        What is learned; NaN where the label is not known. Zero is "no opinion".
    session : I32, shape (R,)
        Position of the decision session in the calendar.
    segment : I8, shape (R,)
        Position in ``SEGMENTS``; -1 where a row teaches and judges nothing.
    life_start : I64, shape (R,)
        Row at which the current life began (windows do not reach before it).
    """

    symbols: tuple[str, ...]
    offsets: I64
    inputs: F32
    target: F32
    session: I32
    segment: I8
    life_start: I64

    def rows_of(self, position: int) -> slice:
        """Return the rows of one symbol."""
        return slice(int(self.offsets[position]), int(self.offsets[position + 1]))

    def one(self, position: int) -> SymbolData:
        """Return the rows of one symbol, as views."""
        rows = self.rows_of(position)
        return SymbolData(
            self.symbols[position], self.inputs[rows], self.target[rows], self.session[rows],
            self.segment[rows], self.life_start[rows] - rows.start,
        )  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write the arrays so that other processes can map them; the names come last, as the seal."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        write_json(folder / "symbols.json", list(self.symbols))

    @classmethod
    def map(cls, folder: Path) -> FleetData:
        """Map what :meth:`save` wrote; nothing is read before it is used."""
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        return cls(tuple(json.loads((folder / "symbols.json").read_text(encoding="utf-8"))), **arrays)


@dataclass(frozen=True)
class SymbolData:
    """The rows of one symbol, n of them, in order; fields as in :class:`FleetData`."""

    symbol: str
    inputs: F32
    target: F32
    session: I32
    segment: I8
    life_start: I64

    def labelled(self, name: str, horizon: int = 0) -> I64:
        """Return the rows of a segment whose label of a horizon (by position) is known."""
        own = self.segment == SEGMENTS.index(name)
        return np.flatnonzero(own & np.isfinite(self.target[:, horizon]))

    def y(self, rows: I64, horizon: int = 0) -> F64:
        """Return targets of rows, shape (n,)."""
        return np.asarray(self.target[rows, horizon], np.float64)
