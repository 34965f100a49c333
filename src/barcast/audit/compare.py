"""Two worlds that agree up to a session: every value said to be known by then must agree too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from barcast.audit.findings import Finding, Value
from barcast.audit.workings import Array, Block, Moment, Snapshot
from barcast.core.arrays import F64, I32, I64, Bools
from barcast.core.bars import Bars

#: Rows from which a column's typical size is taken.
SCALE_ROWS = 20_000


@dataclass(frozen=True)
class Comparison:
    """What two snapshots were compared on.

    Attributes
    ----------
    findings : tuple of Finding
        At most one a stage, in the order of the blocks.
    num_values : int
        How many values were compared.
    """

    findings: tuple[Finding, ...]
    num_values: int


@dataclass(frozen=True)
class Difference:
    """A check in words: its name, what the other world lacks, and what was done to symbols for the test."""

    check: str
    meaning: str
    changes: dict[str, str]


def compare(
    base: Snapshot, other: Snapshot, session: int, difference: Difference, *,
    moment: Moment = "close", stages: tuple[str, ...] = (), tolerance: float = 0.0,
) -> Comparison:  # fmt: skip
    """Compare what both worlds know.

    Parameters
    ----------
    base : Snapshot
        The whole history.
    other : Snapshot
        The same up to ``session``, something else (or nothing) after it.
    session : int
        Calendar entry.
    moment : str
        ``close``: the worlds agree on the whole bar of ``session``. ``open``: only on its open, so of that
        session's values only those said to be known at the open are compared.
    stages : tuple of str
        Compare only these; empty means all.
    tolerance : float
        Allow at least this relative difference.
    """
    ours, theirs, findings = _align(base.bars, other.bars, session, moment, difference)
    num_values = len(ours)
    twins = {block.stage: block for block in other.blocks}
    for block in base.blocks:
        twin = twins.get(block.stage)
        if twin is None or (stages and block.stage not in stages):
            continue
        last = session - 1 if moment == "open" and block.moment == "close" else session
        known = _wide(block, ours)
        compared = (known >= 0) & (known <= last)
        num_values += int(compared.sum())
        a, b = block.values[ours], twin.values[theirs]
        differs = _differs(a, b, compared, max(block.tolerance, tolerance))
        if differs is not None:
            findings.append(_finding(base.bars, session, block, ours, (a, b, differs), difference))
    return Comparison(tuple(findings), num_values)


def _wide(block: Block, rows: I64) -> I32:
    known = block.known_at[rows]
    return known if known.ndim == 2 else np.broadcast_to(known[:, None], (len(rows), block.values.shape[1]))


def _align(
    base: Bars, other: Bars, session: int, moment: Moment, difference: Difference
) -> tuple[I64, I64, list[Finding]]:
    """Pair the rows up to ``session``; a row that only one world has is a finding."""
    position = {symbol: index for index, symbol in enumerate(base.symbols)}
    names = np.array([position.get(symbol, -1) for symbol in other.symbols], np.int64)
    mine, yours = np.flatnonzero(base.session <= session), np.flatnonzero(other.session <= session)
    width = session + 1
    key = base.symbol_of_row[mine].astype(np.int64) * width + base.session[mine]
    other_key = names[other.symbol_of_row[yours]] * width + other.session[yours]
    if np.array_equal(key, other_key):
        return mine, yours, []
    shared = np.isin(key, other_key)
    ours, theirs = mine[shared], yours[np.isin(other_key, key)]
    extra = mine[~shared]
    if len(extra):
        text, where = "this bar is there only because of later ones", (base, extra)
    else:
        text, where = (
            "this bar is missing only because of later ones",
            (other, yours[~np.isin(other_key, key)]),
        )
    symbol, time = _name(where[0], _first(*where, difference))
    finding = Finding(
        check=difference.check, stage="bars", column="row", symbol=symbol, time=time,
        found="a bar" if len(extra) else "no bar", expected="no bar" if len(extra) else "a bar",
        cut=str(base.calendar.times[session]), detail=text + _aside(difference, symbol),
        num_values=len(mine) + len(yours) - 2 * len(ours),
    )  # fmt: skip
    return ours, theirs, [finding]


def _differs(a: Array, b: Array, compared: Bools, tolerance: float) -> Bools | None:
    """Return where compared values differ by more than rounding, None where they do not."""
    if _same_bits(a, b):  # the usual case, and a fifth of the time of comparing numbers
        return None
    scale = _scale(a)
    with np.errstate(invalid="ignore"):
        size = np.maximum(np.maximum(np.abs(a), np.abs(b)), scale)
        close = np.abs(a - b) <= tolerance * size
    same = close | (np.isnan(a) & np.isnan(b)) | (a == b)
    differs: Bools = compared & ~same
    return differs if differs.any() else None


def _same_bits(a: Array, b: Array) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    whole = f"i{a.dtype.itemsize}"
    return bool(np.array_equal(np.ascontiguousarray(a).view(whole), np.ascontiguousarray(b).view(whole)))


def _scale(values: Array) -> F64:
    """Return each column's typical size, so that values near zero are judged by what rounds there."""
    step = max(len(values) // SCALE_ROWS, 1)
    some = np.abs(values[::step].astype(np.float64))
    known = np.isfinite(some)
    total: F64 = np.where(known, some, 0.0).sum(axis=0)
    return np.asarray(total / np.maximum(known.sum(axis=0), 1), np.float64)


def _finding(
    bars: Bars, session: int, block: Block, rows: I64, values: tuple[Array, Array, Bools],
    difference: Difference,
) -> Finding:  # fmt: skip
    """Name the first column, and in it the earliest value of a symbol that the test left alone."""
    found, expected, differs = values
    columns = np.flatnonzero(differs.any(axis=0))
    first = int(columns[0])
    changed = np.flatnonzero(differs[:, first])
    place = _first(bars, rows[changed], difference)
    row = int(changed[np.flatnonzero(rows[changed] == place)[0]])
    symbol, time = _name(bars, place)
    return Finding(
        check=difference.check, stage=block.stage, column=block.names[first], symbol=symbol, time=time,
        found=_value(found[row, first]), expected=_value(expected[row, first]),
        cut=str(bars.calendar.times[session]), detail=difference.meaning + _aside(difference, symbol),
        num_values=int(differs.sum()), columns=tuple(block.names[c] for c in columns),
    )  # fmt: skip


def _first(bars: Bars, rows: I64, difference: Difference) -> int:
    """Return the earliest row, of a symbol that the test left alone where there is one."""
    touched = np.array([symbol in difference.changes for symbol in bars.symbols])
    return int(rows[np.lexsort((bars.session[rows], touched[bars.symbol_of_row[rows]]))[0]])


def _aside(difference: Difference, symbol: str) -> str:
    return f" ({difference.changes[symbol]})" if symbol in difference.changes else ""


def _name(bars: Bars, row: int) -> tuple[str, str]:
    return bars.symbols[bars.symbol_of_row[row]], str(bars.times[row])


def _value(value: float) -> Value:
    return float(value) if np.isfinite(value) else None
