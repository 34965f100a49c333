"""Symbols as users spell them, found among those of a store."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from barcast.core.errors import SymbolError
from barcast.core.symbols import read_symbols
from barcast.core.texts import some


def resolve_names(texts: Iterable[str], stored: tuple[str, ...], market: str) -> tuple[str, ...]:
    """Read symbols as a user may spell them; each is given back once, in the order given.

    Parameters
    ----------
    texts : iterable of str
        ``600519``, ``sh.600519``, ``aapl``, ``BTC/USDT``, or names as the store has them.
    stored : tuple of str
        The symbols there are.
    market : str
        Whose rules of spelling hold.

    Raises
    ------
    SymbolError
        When some are no symbols, or not in the store, with the nearest names.
    """
    return tuple(dict.fromkeys(read_names(texts, stored, market).values()))


def read_names(texts: Iterable[str], stored: tuple[str, ...], market: str) -> dict[str, str]:
    """Return the symbol that each spelling means, in the order given; otherwise as `resolve_names`."""
    given = tuple(dict.fromkeys(texts))
    known = set(stored)
    readings, reasons = read_symbols([text for text in given if text not in known], market)
    found = {text: readings[text].symbol if text in readings else text for text in given}
    absent = [text for text in given if found[text] not in known]
    if absent:
        words = [reasons.get(text) or _with_nearest(text, found[text], stored) for text in absent]
        raise SymbolError(
            f"not in the store: {some(words)}", "`barcast data info --symbols` lists what there is"
        )
    return found


def _with_nearest(text: str, symbol: str, stored: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(symbol, stored, n=3, cutoff=0.7)
    read = "" if text == symbol else f" (read as {symbol})"
    return f"{text}{read}" + (f", did you mean {' or '.join(near)}?" if near else "")
