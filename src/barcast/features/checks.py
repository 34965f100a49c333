"""Whether a feature keeps the promises that everything else rests on: no future, and a finite memory.

Users run this on features of their own before they believe them; the tests run it on every built-in set.
"""

from __future__ import annotations

import numpy as np

from barcast.core.arrays import F32, Bools
from barcast.core.bars import Bars
from barcast.core.calendar import ROUND_THE_CLOCK, Calendar
from barcast.core.errors import LeakError, UsageError
from barcast.features.engine import compute_features
from barcast.features.registry import FeatureSet

#: Symbols looked at: a feature is computed symbol by symbol, so a sample tells.
MAX_SYMBOLS = 50
NUM_CUTS = 5
#: Values may differ by rounding where an array's length changes how a library vectorises.
TOLERANCE = 1e-6


def check_causal(feature_set: FeatureSet, bars: Bars, *, seed: int = 0, num_cuts: int = NUM_CUTS) -> None:
    """Recompute the features on cut histories and compare.

    .. warning::
       A value that changes when *later* bars are removed has seen its future: whatever is trained on it looks
       better than it is. A value that changes when bars *older than its warm-up* are removed differs between
       the whole history and the last few hundred bars, so served predictions would differ from tested ones.

    Parameters
    ----------
    feature_set : FeatureSet
        What to check.
    bars : Bars
        What to check it on; a sample of 50 symbols is used.
    seed : int
        Chooses the sample and the sessions at which history is cut.
    num_cuts : int
        How many sessions, besides the middle one.

    Raises
    ------
    LeakError
        Naming the first feature, symbol and session whose value changes when later bars are removed.
    UsageError
        Naming the first whose value changes when bars older than its warm-up are removed.
    """
    rng = np.random.default_rng(seed)
    sample = _sample(bars, rng)
    if not len(sample):
        return
    full = compute_features(sample, feature_set, num_threads=1)
    sessions = np.unique(sample.session)
    cuts = np.unique(np.append(rng.choice(sessions, num_cuts), sessions[len(sessions) // 2]))
    for cut in cuts:
        known = sample.session <= cut
        values = compute_features(sample.until(int(cut)), feature_set, num_threads=1)
        changed = _first_difference(values, full[known])
        if changed:
            raise LeakError(
                f"feature {_described(feature_set, sample, known, changed)} when the bars after "
                f"{sample.calendar.times[cut]} are removed: {full[known][changed]} becomes {values[changed]}",
                "use the row itself and older ones: lag(x, n) and windows, never x[::-1] or a column's mean",
            )
    for cut in cuts:
        _check_memory(feature_set, sample, full, int(cut))


def _check_memory(feature_set: FeatureSet, sample: Bars, full: F32, cut: int) -> None:
    kept = sample.session >= cut
    later = sample.take(kept)
    values = compute_features(later, feature_set, num_threads=1)
    age = np.arange(len(later)) - later.life_start
    warm = age[:, None] >= feature_set.warmup
    changed = _first_difference(np.where(warm, values, np.nan), np.where(warm, full[kept], np.nan))
    if changed:
        warmup = feature_set.warmup[changed[1]]
        raise UsageError(
            f"feature {_described(feature_set, sample, kept, changed)} when the bars before "
            f"{sample.calendar.times[cut]} are removed: it reaches back further than its warm-up ({warmup})",
            "declare @feature(warmup=...) with the bars it needs, and use windows instead of cumulative sums",
        )


def _first_difference(found: F32, expected: F32) -> tuple[int, int] | None:
    same = np.isclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    if same.all():
        return None
    row, column = np.argwhere(~same)[0]
    return int(row), int(column)


def _described(feature_set: FeatureSet, sample: Bars, kept: Bools, changed: tuple[int, int]) -> str:
    row = np.flatnonzero(kept)[changed[0]]
    symbol = sample.symbols[sample.symbol_of_row[row]]
    return f"`{feature_set.names[changed[1]]}` of {symbol} at {sample.times[row]} changes"


def _sample(bars: Bars, rng: np.random.Generator) -> Bars:
    if bars.num_symbols <= MAX_SYMBOLS:
        return bars
    chosen = rng.choice(bars.num_symbols, MAX_SYMBOLS, replace=False)
    return bars.take(np.isin(bars.symbol_of_row, chosen))


def made_up_bars(lengths: tuple[int, ...], *, seed: int = 0) -> Bars:
    """Return random-walk bars to try features on: one symbol a length, all with the same last day."""
    rng = np.random.default_rng(seed)
    last = np.datetime64("2020-01-01")
    days = last - np.arange(max(lengths))[::-1]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = int(offsets[-1])
    close = 20 * np.exp(np.cumsum(rng.normal(0, 0.02, rows)))
    open_ = close * np.exp(rng.normal(0, 0.008, rows))
    return Bars(
        symbols=tuple(f"S{i:03d}" for i in range(len(lengths))),
        offsets=offsets,
        session=np.concatenate([np.arange(len(days) - n, len(days)) for n in lengths]).astype(np.int32),
        open=open_,
        high=np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, 0.006, rows))),
        low=np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, 0.006, rows))),
        close=close,
        volume=np.exp(rng.normal(13, 0.7, rows)).round(),
        amount=close * 1e6,
        close_traded=close.copy(),
        calendar=Calendar(ROUND_THE_CLOCK, "1d", days),
        market="other",
        delisted=np.full(len(lengths), -1, np.int32),
    )
