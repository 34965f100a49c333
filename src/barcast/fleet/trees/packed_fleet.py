"""All packed ensembles of a fleet in one file that is mapped, not read.

The file is derived from the ledger and carries the digest of what it was made from; where that differs, it
is made anew and takes the old one's place in one move.

Layout, little-endian: a header of 128 bytes; the packed ensembles as the ledger keeps them; then where
their parts are (I64, S x H x 11), the members' weights (F64, S x H x K), the constants (F64, S x H), and
the symbols' names, a line each.
"""

from __future__ import annotations

import itertools
import mmap
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from barcast.core.arrays import F32, F64, I64
from barcast.core.atomic import atomic_path
from barcast.core.cores import available_cores
from barcast.core.errors import DataError, UsageError, explained
from barcast.fleet.trees.packed import (
    D_BOUNDS,
    D_CUTS,
    D_INPUTS,
    D_LEAVES,
    D_MEMBERS,
    D_NODES,
    D_NUM_CUTS,
    D_NUM_NODES,
    D_SIZES,
    D_TREES,
    D_WIDE,
    DIRECTORY,
    U32,
    Packed,
    combine,
    unpack,
)
from barcast.fleet.trees.predict import NUM_MEMBERS, check_width, predict_rows

_MAGIC, _VERSION = b"BREFLEET", 1
_LONGEST_DIGEST = 64
_HEADER = np.dtype(
    [
        ("magic", "S8"), ("version", "<u4"), ("checksum", "<u4"), ("digest", f"S{_LONGEST_DIGEST}"),
        ("num_symbols", "<u8"), ("num_horizons", "<u8"), ("num_inputs", "<u8"), ("footer", "<u8"),
        ("end", "<u8"), ("spare", "S8"),
    ]
)  # fmt: skip
#: Parts of an ensemble: where they begin, and how long they are, as columns of the directory.
_PARTS = (
    (D_BOUNDS, lambda d: d[..., D_INPUTS] + 1), (D_CUTS, lambda d: d[..., D_NUM_CUTS]),
    (D_SIZES, lambda d: d[..., D_TREES]), (D_NODES, lambda d: d[..., D_NUM_NODES] * d[..., D_WIDE]),
    (D_LEAVES, lambda d: d[..., D_NUM_NODES] + d[..., D_TREES]),
    (D_MEMBERS, lambda d: np.full(d.shape[:-1], 3 * NUM_MEMBERS)),
)  # fmt: skip
_STARTS = [start for start, _ in _PARTS]
#: A share of rows that is worth a thread.
_LEAST_ROWS = 500
_REBUILD = "build the file of packed models again: the ledger has all of them"


@dataclass(frozen=True)
class FleetEntry:
    """One symbol of a file.

    Attributes
    ----------
    symbol : str
    model : bytes
        The packed ensemble.
    weights : F64, shape (H, K)
        Of the members in the score, in the order of ``MEMBERS``; 0 where one is absent.
    constant : F64, shape (H,)
        What the score adds to them: weights times outputs of members that are constants.
    """

    symbol: str
    model: bytes
    weights: F64
    constant: F64


def write_fleet(path: Path, digest: str, entries: Iterable[FleetEntry]) -> None:
    """Write the file, one ensemble at a time, and put it in the old one's place.

    Parameters
    ----------
    path : Path
    digest : str
        At most 64 ASCII characters that say what the entries are made from.
    entries : iterable of FleetEntry
        In any order; predictions take theirs from it.

    Raises
    ------
    UsageError
        On a digest that does not fit.
    DataError
        On a damaged ensemble, entries of different widths or horizons, a weight of an absent member, none
        at all.
    """
    if len(digest) > _LONGEST_DIGEST or not digest.isascii():
        raise UsageError(
            f"a digest of {len(digest)} characters: `{digest}`", f"give at most {_LONGEST_DIGEST}, ASCII"
        )
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(bytes(_HEADER.itemsize))
        written = _Written()
        for entry in entries:
            written.add(entry, _HEADER.itemsize + written.size)
            file.write(entry.model)
        _seal(file, digest, written)


class _Written:
    """What the footer says of the entries written so far."""

    def __init__(self) -> None:
        self.size = 0
        self.symbols: list[str] = []
        self.directory: list[I64] = []
        self.weights: list[F64] = []
        self.constants: list[F64] = []

    def add(self, entry: FleetEntry, position: int) -> None:
        packed = unpack(entry.model, entry.symbol)
        _check_entry(entry, packed, self.directory)
        directory = packed.directory.copy()
        directory[:, _STARTS] += position // 4
        self.symbols.append(entry.symbol)
        self.directory.append(directory)
        self.weights.append(np.asarray(entry.weights, "<f8"))
        self.constants.append(np.asarray(entry.constant, "<f8"))
        self.size += len(entry.model)


def _check_entry(entry: FleetEntry, packed: Packed, before: list[I64]) -> None:
    shape = (packed.num_horizons, NUM_MEMBERS)
    if np.shape(entry.weights) != shape or np.shape(entry.constant) != shape[:1]:
        raise DataError(
            f"{entry.symbol}: weights of shape {np.shape(entry.weights)} and constants of shape "
            f"{np.shape(entry.constant)} for {shape[0]} horizons and {shape[1]} members",
            "give one weight a horizon and member, and one constant a horizon",
        )
    if before and (len(before[0]), before[0][0, D_INPUTS]) != (packed.num_horizons, packed.num_inputs):
        raise DataError(
            f"{entry.symbol} has {packed.num_horizons} horizons of {packed.num_inputs} features, the symbols "
            f"before it {len(before[0])} of {before[0][0, D_INPUTS]}",
            "train the fleet anew on one set of features and horizons",
        )
    weights = np.asarray(entry.weights)
    if not np.isfinite(weights).all() or np.any(~packed.present & (weights != 0)):
        raise DataError(
            f"{entry.symbol}: weights {weights.tolist()}, members that are there: {packed.present.tolist()}",
            "weights must be finite, and 0 where a member is absent",
        )


def _seal(file: BinaryIO, digest: str, written: _Written) -> None:
    if not written.symbols:
        raise DataError("a fleet without a single finished symbol", "train the fleet first")
    padding = -(_HEADER.itemsize + written.size) % 8  # what follows holds words of 64 bits
    parts = (written.directory, written.weights, written.constants)
    names = "\n".join(written.symbols).encode()
    footer = b"".join(np.stack(part).tobytes() for part in parts) + names
    file.write(bytes(padding) + footer)
    start = _HEADER.itemsize + written.size + padding
    header = np.array(
        (_MAGIC, _VERSION, zlib.crc32(footer), digest.encode("ascii"), len(written.symbols),
         len(written.directory[0]), written.directory[0][0, D_INPUTS], start, start + len(footer), b""),
        _HEADER,
    )  # fmt: skip
    file.seek(0)
    file.write(header.tobytes())


@dataclass(frozen=True)
class PackedFleet:
    """The mapped file: S symbols, H horizons, F inputs, K members.

    Attributes
    ----------
    symbols : tuple of str
    digest : str
        Of what the file was made from.
    words, floats, directory
        As in :class:`Packed`; the directory has shape (S, H, 11).
    weights : F64, shape (S, H, K)
    constant : F64, shape (S, H)
    """

    symbols: tuple[str, ...]
    digest: str
    words: U32
    floats: F32
    directory: I64
    weights: F64
    constant: F64

    @property
    def num_inputs(self) -> int:
        """F."""
        return int(self.directory[0, 0, D_INPUTS])

    def members(self, inputs: F32, which: I64 | None = None) -> F64:
        """Predict rows by every member.

        Parameters
        ----------
        inputs : F32, shape (R, F)
        which : I64, shape (R,), optional
            The symbol of each row, by position; by default row s belongs to symbol s. Rows of one symbol are
            fastest side by side.

        Returns
        -------
        F64, shape (R, H, K)
            In units of the training target; NaN where a member is absent or an input of the row is not
            finite.

        Raises
        ------
        DataError
            When the rows do not fit the fleet, or an ensemble is damaged (it is named).
        """
        check_width(inputs, self.num_inputs)
        own = np.arange(len(inputs)) if which is None else np.array(which, np.int64)
        num_symbols = len(self.symbols)
        if len(own) != len(inputs) or (which is None and len(own) != num_symbols) or (
            len(own) and (own.min() < 0 or own.max() >= num_symbols)
        ):  # fmt: skip
            raise DataError(
                f"{len(inputs)} rows for {len(own) if which is not None else num_symbols} positions among "
                f"{num_symbols} symbols",
                "give one row a symbol, in the order of `symbols`, or say whose each row is",
            )
        out = np.empty((len(inputs), self.directory.shape[1], NUM_MEMBERS))
        damaged = self._fill(own, np.array(inputs), out)
        if damaged >= 0:
            raise DataError(
                f"the packed ensemble of {self.symbols[damaged]} is damaged: a node leads nowhere", _REBUILD
            )
        return out

    def _fill(self, own: I64, inputs: F32, out: F64) -> int:
        """Predict a share of the rows on each core; return the position of a damaged ensemble, or -1."""
        from concurrent.futures import ThreadPoolExecutor

        num = min(available_cores(), 1 + len(own) // _LEAST_ROWS)
        borders = np.linspace(0, len(own), num + 1).astype(int).tolist()
        parts = [slice(first, last) for first, last in itertools.pairwise(borders)]

        def fill(part: slice) -> int:
            return predict_rows(self.words, self.floats, self.directory, own[part], inputs[part], out[part])

        if num == 1:
            return fill(parts[0])
        with ThreadPoolExecutor(num) as pool:  # the kernel runs without the interpreter's lock
            return max(pool.map(fill, parts))

    def scores(self, inputs: F32, which: I64 | None = None) -> F64:
        """Predict rows by the weighted members, shape (R, H); parameters and errors as :meth:`members`."""
        members = self.members(inputs, which)
        own = slice(None) if which is None else which
        return combine(members, self.weights[own], self.constant[own])


def open_fleet(path: Path, digest: str, entries: Callable[[], Iterable[FleetEntry]]) -> PackedFleet:
    """Map the file if it was made from what ``digest`` says, else make it first.

    Raises
    ------
    DataError
        As :func:`write_fleet`.
    """
    try:
        found = map_fleet(path)
        if found.digest == digest:
            return found
    except (DataError, FileNotFoundError):
        pass  # a derived file: whatever is wrong with it, the ledger has what it takes to make it
    write_fleet(path, digest, entries())
    return map_fleet(path)


def map_fleet(path: Path) -> PackedFleet:
    """Map a file of packed ensembles; their own pages are read when they predict.

    Raises
    ------
    DataError
        When the file is none of these, damaged, or of another version.
    FileNotFoundError
        When there is none.
    """
    with explained("reading", path), path.open("rb") as file:
        head = file.read(_HEADER.itemsize)
        if len(head) < _HEADER.itemsize or not head.startswith(_MAGIC):
            raise DataError(f"{path} is no file of packed models", _REBUILD)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header = np.frombuffer(head, _HEADER)[0]
    if header["version"] != _VERSION:
        raise DataError(f"{path} has version {header['version']}, known is {_VERSION}", _REBUILD)
    start, end = int(header["footer"]), int(header["end"])
    if end != len(mapped) or not _HEADER.itemsize <= start <= end or start % 8:
        raise DataError(f"{path} has {len(mapped)} bytes of {end}", _REBUILD)
    if zlib.crc32(memoryview(mapped)[start:end]) != header["checksum"]:
        raise DataError(f"{path} is damaged: its checksum differs", _REBUILD)
    return _parse(path, header, mapped, start)


def _parse(path: Path, header: np.void, mapped: mmap.mmap, start: int) -> PackedFleet:
    shape = int(header["num_symbols"]), int(header["num_horizons"])
    lengths = [8 * int(np.prod([*shape, last])) for last in (len(DIRECTORY), NUM_MEMBERS, 1)]
    names = memoryview(mapped)[start + sum(lengths) :].tobytes().decode()
    symbols = tuple(names.split("\n"))
    if start + sum(lengths) > len(mapped) or len(symbols) != shape[0]:
        raise DataError(f"{path} names {len(symbols)} symbols of {shape[0]}", _REBUILD)
    offsets = np.cumsum([start, *lengths])
    directory = np.frombuffer(mapped, "<i8", lengths[0] // 8, offsets[0]).reshape(*shape, -1)
    weights = np.frombuffer(mapped, "<f8", lengths[1] // 8, offsets[1]).reshape(*shape, -1)
    constant = np.frombuffer(mapped, "<f8", lengths[2] // 8, offsets[2]).reshape(*shape)
    words = np.frombuffer(mapped, "<u4", start // 4)
    if not _is_inside(directory, len(words), int(header["num_inputs"])):
        raise DataError(f"{path} is damaged: an ensemble lies outside the file", _REBUILD)
    return PackedFleet(
        symbols,
        bytes(header["digest"]).decode("ascii"),
        words,
        words.view("<f4"),
        directory,
        weights,
        constant,
    )


def _is_inside(directory: I64, num_words: int, num_inputs: int) -> bool:
    """Whether every part of every ensemble lies in the file: the kernel follows the directory unasked."""
    if (
        num_inputs < 1
        or np.any(directory < 0)
        or np.any(directory > num_words)
        or np.any(directory[..., D_INPUTS] != num_inputs)
    ):
        return False
    if not np.isin(directory[..., D_WIDE], (1, 2)).all():
        return False
    return all(np.all(directory[..., at] + length(directory) <= num_words) for at, length in _PARTS)
