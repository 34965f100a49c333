"""Rules, with their reasons: which scheme suits a market, and how large a network its labels support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from barcast.core.bars import MIN_SYMBOLS

#: Labels a symbol below which a model of its own would fit noise: two years of sessions.
FEW_LABELS = 500
#: Labels a symbol from which some symbols may deserve their own model: four years of sessions.
MANY_LABELS = 1000


@dataclass(frozen=True)
class Scheme:
    """Which models suit: ``universal``, ``dedicated`` or ``both``, and why."""

    choice: Literal["universal", "dedicated", "both"]
    reasons: tuple[str, ...]


def suiting_scheme(num_symbols: int, labels_a_symbol: float, num_sessions: int) -> Scheme:
    """Choose by number of symbols, teaching labels a symbol and sessions.

    ==================  ==================  =============================================================
    symbols             labels a symbol     scheme
    ==================  ==================  =============================================================
    1                   any                 dedicated: there is nothing to share
    2 or more           below 500           universal: too little for a model a symbol
    2 to 29             500 or more         both: few enough to judge each, too few to trust sharing alone
    30 or more          500 to 999          universal: sharing is worth more than a history this short
    30 or more          1,000 or more       both: universal for all, dedicated where `route` shows a gain
    ==================  ==================  =============================================================
    """
    facts = (
        f"{num_symbols:,} symbols, {labels_a_symbol:,.0f} teaching labels a symbol, {num_sessions:,} sessions"
    )
    if num_symbols == 1:
        return Scheme("dedicated", (facts, "one symbol: there is nothing to share"))
    if labels_a_symbol < FEW_LABELS:
        why = f"fewer than {FEW_LABELS} labels a symbol: a model of its own would fit noise"
        return Scheme("universal", (facts, why))
    if num_symbols < MIN_SYMBOLS:
        why = f"fewer than {MIN_SYMBOLS} symbols: little to share, and few enough to judge each"
        return Scheme("both", (facts, why))
    if labels_a_symbol < MANY_LABELS:
        why = f"fewer than {MANY_LABELS:,} labels a symbol: sharing is worth more than a history this short"
        return Scheme("universal", (facts, why))
    why = "long histories: train the universal model first, then dedicated ones where `route` shows a gain"
    return Scheme("both", (facts, why))


def independent_labels(num_teaching_rows: int, horizons: tuple[int, ...]) -> int:
    """Return about how many labels of these rows do not overlap: rows over the shortest horizon.

    Neighbouring labels share all but one of their h sessions; horizons of one row overlap too, so the
    shortest one counts.
    """
    return num_teaching_rows // max(min(horizons), 1)
