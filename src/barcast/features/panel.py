"""The panel: one flat float32 matrix of features, row for row with the bars, in a cache that checks itself.

A cache entry is one file in the safetensors format (a JSON header, then the matrix), named by the hash of
all that shaped it, written beside its place and renamed. It is mapped, not read: opening a gigabyte takes the
time to add it up once, and the checksum in the header finds a torn or flipped entry, which is built again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

import numpy as np

from barcast.core.arrays import F32, I32
from barcast.core.atomic import temporary_beside
from barcast.core.bars import Bars
from barcast.core.cache import evict, touch
from barcast.core.config import digest
from barcast.core.errors import ResourceError, explained, is_not_allowed
from barcast.features.engine import compute_features
from barcast.features.registry import FeatureSet, feature_set

#: What the cache may hold unless told otherwise; the newest entry is always kept.
CACHE_BYTES = 8 << 30

_FOLDER = "panels"
_SUFFIX = ".safetensors"
_FORMAT = 1
_CHUNK_WORDS = 1 << 17

_log = logging.getLogger("barcast.features")


@dataclass(frozen=True)
class Panel:
    """Features of every bar.

    Attributes
    ----------
    values : F32, shape (R, F)
        Row i belongs to row i of the bars. Read-only, and mapped from the cache where there is one. NaN in
        the first ``warmup`` rows of each life and where an input is missing; never infinite, never filled.
    names : tuple of str
        The F columns.
    feature_set : str
        Name of the set.
    warmup : I32, shape (F,)
        Leading rows of each life without a value.
    digest : str
        Hash of everything that shaped the values.
    """

    values: F32
    names: tuple[str, ...]
    feature_set: str
    warmup: I32
    digest: str

    def __len__(self) -> int:
        return len(self.values)

    def column(self, name: str) -> F32:
        """Return one feature, shape (R,), a view."""
        return self.values[:, self.names.index(name)]


def build_panel(
    bars: Bars,
    chosen: str | FeatureSet,
    *,
    cache: Path | None = None,
    key: Mapping[str, object] | None = None,
    num_threads: int | None = None,
) -> Panel:
    """Compute a feature set on every bar, or map it from the cache.

    .. warning::
       Row t holds what was known at the close of bar t: it uses bars of the same life up to t and no other.
       A decision that acts before that close must not use row t.

    Parameters
    ----------
    bars : Bars
        R rows; adjusted prices.
    chosen : str or FeatureSet
        A set, or the name of a built-in one (``tech48``), or several joined (``adv11+core12``).
    cache : Path, optional
        The workspace's cache folder. Without it the panel lives in memory only.
    key : mapping, optional
        What shaped the bars, as plain values: store version, quality policy, price view, universe. With
        ``data`` in it (a digest of the rows) the bars themselves need not be hashed.
    num_threads : int, optional
        Cores to use, all by default.

    Returns
    -------
    Panel
        The same bits whether computed or mapped, and for any number of threads.

    Raises
    ------
    UsageError
        On an unknown set, or a user's feature that fails.
    ResourceError
        When the disk is full. A cache that may not be written is said once and left as it is.
    """
    made = feature_set(chosen) if isinstance(chosen, str) else chosen
    name = _digest(bars, made, key or {})
    shape = (len(bars), len(made.features))
    if cache is None or not len(bars):
        values = compute_features(bars, made, num_threads=num_threads)
        values.flags.writeable = False
    else:
        path = cache / _FOLDER / f"{name}{_SUFFIX}"
        kept = _open(path, shape, made.names)
        if kept is None and _write(path, bars, made, num_threads):
            kept = _open(path, shape, made.names)
            evict(cache / _FOLDER, _SUFFIX, CACHE_BYTES, keep=path)
        if kept is None:  # read-only, evicted by another process, or the disk lies: memory still works
            kept = compute_features(bars, made, num_threads=num_threads)
        values = kept
    return Panel(values, made.names, made.name, made.warmup, name)


def _digest(bars: Bars, made: FeatureSet, key: Mapping[str, object]) -> str:
    return digest({
        "format": _FORMAT,
        "features": made.names,
        "code": made.code_digest(),
        "data": key["data"] if "data" in key else bars.content_digest(),
        "rows": len(bars),
        "key": key,
    })  # fmt: skip


def _write(path: Path, bars: Bars, made: FeatureSet, num_threads: int | None) -> bool:
    """Write an entry; False, with a note, where that is not allowed."""
    try:
        _compute_into(path, bars, made, num_threads)
    except ResourceError as error:
        if not is_not_allowed(error.__cause__):
            raise
        _note_read_only(path.parent)
        return False
    return True


@once
def _note_read_only(folder: Path) -> None:
    _log.warning("features are computed in memory and not kept: no permission to write %s", folder)


def _compute_into(path: Path, bars: Bars, made: FeatureSet, num_threads: int | None) -> None:
    """Compute into a mapped file beside ``path``, then rename it; the header comes last."""
    shape = (len(bars), len(made.features))
    room = len(_header(shape, made.names, "0" * 32))
    temporary = temporary_beside(path)
    with explained("writing", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                _reserve(file.fileno(), room + 4 * shape[0] * shape[1])
            values = np.memmap(temporary, np.float32, "r+", offset=room, shape=shape)
            compute_features(bars, made, out=values, num_threads=num_threads)
            header = _header(shape, made.names, _checksum(values))
            del values
            with temporary.open("r+b") as file:
                file.write(header)
            temporary.replace(path)  # not flushed to disk first: the checksum finds what a crash tears
        finally:
            temporary.unlink(missing_ok=True)


def _reserve(descriptor: int, size: int) -> None:
    """Claim the space before the file is mapped: a full disk must be an error, not a killed process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def _header(shape: tuple[int, int], names: tuple[str, ...], checksum: str) -> bytes:
    text = json.dumps({
        "__metadata__": {"names": json.dumps(names), "checksum": checksum},
        "values": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * shape[0] * shape[1]]},
    })  # fmt: skip
    body = text.encode()
    body += b" " * (-(len(body) + 8) % 64)  # the matrix starts on a cache line
    return len(body).to_bytes(8, "little") + body


def _open(path: Path, shape: tuple[int, int], names: tuple[str, ...]) -> F32 | None:
    """Map an entry; None where there is none, or a damaged one (which is removed)."""
    room = len(_header(shape, names, "0" * 32))
    try:
        with path.open("rb") as file:
            header = file.read(room)
            size = file.seek(0, os.SEEK_END)
        values: F32 = np.memmap(path, np.float32, "r", offset=room, shape=shape).view(np.ndarray)
        if size == room + values.nbytes and header == _header(shape, names, _checksum(values)):
            touch(path)
            return values
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warning("cannot read the cached panel %s: %s", path, error)
    _log.warning("the cached panel %s is damaged: building it again", path)
    with suppress(OSError):  # where it may not be removed, it may not be written either, and that is said
        path.unlink(missing_ok=True)
    return None


def _checksum(values: F32) -> str:
    """Hash the sums of chunks of 1 MiB: any flipped bit, torn page or swapped chunk changes it."""
    flat = values.reshape(-1)
    words = flat[: flat.size // 2 * 2].view(np.uint64)
    starts = np.arange(0, len(words), _CHUNK_WORDS)
    state = hashlib.blake2b(digest_size=16)
    if len(starts):
        state.update(np.add.reduceat(words, starts).tobytes())
    state.update(flat[words.size * 2 :].tobytes())
    return state.hexdigest()
