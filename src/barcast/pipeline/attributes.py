"""Attributes of symbols for models: exchange and board by an A-share's code, others from the store's facts.

A vocabulary holds the values of the symbols that taught, so that a value nobody taught is index 0 like one
that nobody knows. Letters: S symbols, A attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from barcast.core.arrays import I64, Bools
from barcast.core.errors import SymbolError, UsageError
from barcast.core.limits import BEIJING, CHINEXT, MAIN, STAR, board_of
from barcast.core.symbols import read_symbol
from barcast.core.workspace import Workspace
from barcast.pipeline.market import Market
from barcast.pipeline.settings import RunConfig
from barcast.store import MarketStore

#: Attributes that the code of an A-share says.
BY_CODE = ("exchange", "board")
_BOARD_NAMES = {MAIN: "main", CHINEXT: "chinext", STAR: "star", BEIJING: "beijing"}

#: Values by attribute, one for each symbol; empty where unknown.
Values = Mapping[str, tuple[str, ...]]


def attribute_values(
    store: MarketStore, names: Sequence[str], symbols: tuple[str, ...], version: int | None = None
) -> Values:
    """Return each attribute's value for each symbol, from the facts of a version of the store (the last).

    Raises
    ------
    UsageError
        On an attribute that neither the code of a symbol nor a fact says.
    """
    return values_of(store.facts(version), store.meta.market, names, symbols) if names else {}


def attributes_of(workspace: Workspace, config: RunConfig, market: Market) -> Values:
    """Return what a run's model is told about symbols, as of the version of the store that it learns from.

    Raises
    ------
    UsageError
        As for `attribute_values`.
    """
    names = getattr(config.options, "static", ())
    store = MarketStore.open(workspace.market)
    return attribute_values(store, names, market.bars.symbols, market.store_version)


def values_of(facts: pl.DataFrame, market: str, names: Sequence[str], symbols: tuple[str, ...]) -> Values:
    """Return values as `attribute_values` does, from a table of facts."""
    known = known_attributes(facts, market)
    if absent := [name for name in names if name not in known]:
        found = f"; on record: {', '.join(known)}" if known else "; nothing is on record"
        raise UsageError(
            f"no symbol here has a known `{absent[0]}`{found}",
            f"barcast data facts FILE.csv with the columns symbol and {absent[0]}",
        )
    return {name: _values(facts, market, name, symbols) for name in names}


def known_attributes(facts: pl.DataFrame, market: str) -> tuple[str, ...]:
    """Return the attributes that are known of some symbol."""
    by_code = BY_CODE if market == "cn" else ()
    return tuple(dict.fromkeys([*(name for name in facts.columns if name != "symbol"), *by_code]))


def vocabularies(values: Values, taught: Bools) -> dict[str, tuple[str, ...]]:
    """Return each attribute's known values among the symbols (S,) that taught, sorted."""
    rows = np.flatnonzero(taught)
    return {name: tuple(sorted({column[row] for row in rows} - {""})) for name, column in values.items()}


def sizes_of(known: Mapping[str, Sequence[str]]) -> tuple[int, ...]:
    """Return how many values each vocabulary has, as a network's sizes say it."""
    return tuple(len(vocabulary) for vocabulary in known.values())


def identity_codes(own: I64, values: Values, known: Mapping[str, Sequence[str]]) -> I64:
    """Put the codes of the attributes, 0 where unknown, beside the embedding index of the symbols.

    Parameters
    ----------
    own : I64, shape (S,)
        Embedding index of each symbol.
    values : mapping
        Of the same symbols.
    known : mapping
        Vocabulary of each attribute, in the order of the model's options.

    Returns
    -------
    I64, shape (S, 1 + A)
        Without attributes ``own`` as it is.
    """
    if not known:
        return own
    columns = [own]
    for name, vocabulary in known.items():
        place = {value: code for code, value in enumerate(vocabulary, 1)}
        columns.append(np.array([place.get(value, 0) for value in values[name]], np.int64))
    return np.column_stack(columns)


def _values(facts: pl.DataFrame, market: str, name: str, symbols: tuple[str, ...]) -> tuple[str, ...]:
    if market == "cn" and name in BY_CODE:
        return tuple(_exchange(symbol) if name == "exchange" else _board(symbol) for symbol in symbols)
    told = dict(facts.select("symbol", pl.col(name).fill_null("")).iter_rows())
    return tuple(told.get(symbol, "") for symbol in symbols)


def _board(symbol: str) -> str:
    return _BOARD_NAMES.get(board_of(symbol), "")


def _exchange(symbol: str) -> str:
    try:
        return read_symbol(symbol, "cn").symbol.partition(".")[2]
    except SymbolError:
        return ""
