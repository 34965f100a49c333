"""One security under two symbols: the same bars, again and again, while prices move."""

from __future__ import annotations

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I64
from barcast.quality.table import Table, row_numbers

#: Sessions with equal bars that cannot be chance.
SHARED_SESSIONS = 20
#: What must be equal; a bar that did not move, or without volume, is equal too easily to count.
_BAR = ("time", "open", "high", "low", "close", "volume")


def copy_findings(table: Table) -> list[pl.DataFrame]:
    """Name pairs of symbols that share at least 20 bars; ``value`` counts them.

    Of several symbols that are all equal each is paired with the first one only, so the work grows with the
    rows and not with the pairs.
    """
    first, second = _equal_rows(table)
    if not len(first):
        return []
    pair = table.symbol_of_row[first].astype(np.int64) * len(table.symbols) + table.symbol_of_row[second]
    order = np.argsort(pair, kind="stable")  # rows stay in order of time within a pair
    starts = np.flatnonzero(np.diff(pair[order], prepend=-1))
    counts = np.diff(np.append(starts, len(order)))
    starts, counts = starts[counts >= SHARED_SESSIONS], counts[counts >= SHARED_SESSIONS]
    rows, until = second[order[starts]], second[order[starts + counts - 1]]
    originals = first[order[starts]]
    return [_named(table, originals, rows, until, counts.astype(np.float64))]


def _named(table: Table, originals: I64, rows: I64, until: I64, counts: F64) -> pl.DataFrame:
    words = [
        f"the same bars as {table.symbols[table.symbol_of_row[original]]} on {count:.0f} sessions"
        for original, count in zip(originals, counts, strict=True)
    ]
    return table.findings("identical_symbols", rows, counts, words, until)


def _equal_rows(table: Table) -> tuple[I64, I64]:
    """Return pairs of rows with equal bars: the first symbol's row, and that of each other, in row order."""
    rows = row_numbers((table.column("high") > table.column("low")) & (table.volume > 0))
    digests = table.frame.select(_BAR).hash_rows().to_numpy()[rows]  # 64 bits: chance meetings stay single
    in_order = np.sort(digests)
    twice = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
    if not len(twice):
        return rows[:0], rows[:0]
    copied = twice[np.minimum(np.searchsorted(twice, digests), len(twice) - 1)] == digests
    rows = rows[copied]
    _, first, group = np.unique(digests[copied], return_index=True, return_inverse=True)
    original = rows[first[group]]
    other = original != rows
    return original[other], rows[other]
