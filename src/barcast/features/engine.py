"""From bars to the matrix: columns first, in blocks of whole lives that fit a core's cache, then transposed.

Writing each feature straight into a row-major matrix would cost more than computing it. So a block's features
are computed as columns, rest in a small buffer, and go into their rows together.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from barcast.core.arrays import F32, F64, I64
from barcast.core.bars import Bars
from barcast.core.cores import available_cores
from barcast.core.errors import BarcastError, UsageError
from barcast.features.columns import BAR_COLUMNS
from barcast.features.primitives import lives
from barcast.features.registry import Compute, FeatureSet, inputs_of

#: Rows computed together: a dozen columns of them fit the second-level cache of a core.
BLOCK_ROWS = 12288
#: Features transposed together: a cache line of float32.
GROUP = 16
_CACHE_LINE_BYTES = 64


@dataclass(frozen=True)
class _Step:
    """A column to compute."""

    name: str
    compute: Compute
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class _Turn:
    """A feature's turn: what is still to be computed for it, and which columns nobody needs after it."""

    name: str
    steps: tuple[_Step, ...]
    done_with: tuple[str, ...]


def compute_features(
    bars: Bars, feature_set: FeatureSet, *, out: F32 | None = None, num_threads: int | None = None
) -> F32:
    """Compute every feature of a set on every row.

    Parameters
    ----------
    bars : Bars
        R rows.
    feature_set : FeatureSet
        F features.
    out : F32, shape (R, F), optional
        Where to write; made when not given.
    num_threads : int, optional
        Cores to use, all of them by default. The values do not depend on it.

    Returns
    -------
    F32, shape (R, F)
        NaN in the first ``warmup`` rows of each life, and where an input is missing; never infinite.

    Raises
    ------
    UsageError
        When a feature fails, or returns something else than one number a row.
    """
    result = _aligned_empty(len(bars), len(feature_set.features)) if out is None else out
    _calm_allocator()
    blocks = list(_blocks(bars.lives))
    work = _BlockWork(bars, feature_set, result)
    for block in blocks[:1]:
        work(block)  # in this thread: kernels compile once
    threads = min(num_threads or available_cores(), len(blocks))
    if threads <= 1:
        for block in blocks[1:]:
            work(block)
        return result
    with ThreadPoolExecutor(threads, thread_name_prefix="features") as pool:
        try:
            list(pool.map(work, blocks[1:]))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return result


def _aligned_empty(num_rows: int, num_features: int) -> F32:
    """Allocate so that a group of features in a row is one cache line, not the parts of two."""
    spare = _CACHE_LINE_BYTES // 4
    flat = np.empty(num_rows * num_features + spare, np.float32)
    skipped = -flat.ctypes.data % _CACHE_LINE_BYTES // 4
    return flat[skipped : skipped + num_rows * num_features].reshape(num_rows, num_features)


def _calm_allocator() -> None:
    """Let a large block come and go.

    Until glibc has seen one freed, it hands the memory of each temporary column back at once, and
    the next column pays for it in page faults: up to a third of the time.
    """
    np.empty(24 << 20, np.uint8)


def _blocks(borders: I64) -> Iterator[I64]:
    """Group lives to blocks of at most BLOCK_ROWS rows, or of a single life; yield the borders in each."""
    first = 0
    while first < len(borders) - 1:
        last = int(np.searchsorted(borders, borders[first] + BLOCK_ROWS, side="right")) - 1
        last = max(last, first + 1)
        yield borders[first : last + 1]
        first = last


class _BlockWork:
    """Computes one block; each thread keeps a buffer of its own."""

    def __init__(self, bars: Bars, feature_set: FeatureSet, result: F32) -> None:
        self.bars = bars
        self.feature_set = feature_set
        self.result = result
        self.turns = _plan(feature_set)
        self.local = threading.local()

    def __call__(self, borders: I64) -> None:
        from barcast.features import kernels  # local: numba is imported when something is computed

        start, stop = int(borders[0]), int(borders[-1])
        buffer = self._buffer(stop - start)
        columns: dict[str, F64] = {
            name: _writable(getattr(self.bars, name)[start:stop]) for name in BAR_COLUMNS
        }
        warmup = self.feature_set.warmup
        with lives(borders - start):
            for first in range(0, len(self.turns), GROUP):
                group = self.turns[first : first + GROUP]
                for row, turn in zip(buffer, group, strict=False):
                    row[:] = self._compute(turn, columns, stop - start)
                kernels.write_rows(
                    buffer[: len(group)],
                    borders - start,
                    warmup[first : first + GROUP],
                    self.result,
                    start,
                    first,
                )

    def _compute(self, turn: _Turn, columns: dict[str, F64], rows: int) -> F64:
        own: dict[str, F64] = {}
        for step in turn.steps:
            value = self._evaluate(step, columns)
            # a feature may show a bar column under its own name: others still mean the bars' column
            (own if step.name in BAR_COLUMNS else columns)[step.name] = value
        value = own[turn.name] if turn.name in own else columns[turn.name]
        for name in turn.done_with:
            del columns[name]
        return self._checked(turn.name, value, rows)

    def _buffer(self, rows: int) -> F32:
        if not hasattr(self.local, "buffer") or self.local.buffer.size < GROUP * rows:
            self.local.buffer = np.empty(GROUP * max(rows, BLOCK_ROWS), np.float32)
        kept: F32 = self.local.buffer
        return kept[: GROUP * rows].reshape(GROUP, rows)

    def _evaluate(self, step: _Step, columns: dict[str, F64]) -> F64:
        try:
            value: F64 = step.compute(*[columns[name] for name in step.inputs])
        except BarcastError as error:
            raise type(error)(f"{self._where(step.name)}: {error.found}", error.todo) from error
        except Exception as error:
            if Path(step.compute.__code__.co_filename).parent == Path(__file__).parent:
                raise  # a bug of ours, not of the user
            raise UsageError(f"{self._where(step.name)} failed: {type(error).__name__}: {error}") from error
        return value

    def _checked(self, name: str, value: F64, rows: int) -> F64:
        if isinstance(value, np.ndarray) and value.shape == (rows,) and value.dtype == np.float64:
            return value
        found = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else f"`{value!r}`"
        raise UsageError(
            f"{self._where(name)} returned {found}, not one float64 a row",
            "return a column of the same length as the inputs (true or false: `.astype(float)`)",
        )

    def _where(self, name: str) -> str:
        file = self.feature_set.maker(name).__code__.co_filename
        return f"feature `{name}` in {file}"


def _writable(column: F64) -> F64:
    """Copy a read-only column: for those numba would compile every kernel a second time."""
    return column if column.flags.writeable else column.copy()


def _plan(feature_set: FeatureSet) -> tuple[_Turn, ...]:
    """Order what is to be computed so that inputs come first and columns are dropped after their last use."""
    order: list[str] = []
    new_names = []
    for name in feature_set.names:
        before = len(order)
        _visit(feature_set, name, order, ())
        new_names.append(order[before:])
    steps = {name: _Step(name, feature_set.maker(name), inputs_of(feature_set.maker(name))) for name in order}
    last_use: dict[str, str] = {}
    for feature, names in zip(feature_set.names, new_names, strict=True):
        for name in names:
            last_use.update(dict.fromkeys((name, *steps[name].inputs), feature))
        last_use[feature] = feature
    return tuple(
        _Turn(
            feature,
            tuple(steps[name] for name in names),
            tuple(used for used, last in last_use.items() if last == feature and used not in BAR_COLUMNS),
        )
        for feature, names in zip(feature_set.names, new_names, strict=True)
    )


def _visit(feature_set: FeatureSet, name: str, order: list[str], above: tuple[str, ...]) -> None:
    if name in order:
        return
    if name in above:
        raise UsageError(f"feature set `{feature_set.name}`: {' -> '.join([*above, name])} is a circle")
    for used in inputs_of(feature_set.maker(name)):
        if used not in BAR_COLUMNS:
            _visit(feature_set, used, order, (*above, name))
    order.append(name)
