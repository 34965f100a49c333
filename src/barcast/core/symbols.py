"""Canonical symbols: one spelling for each security, whatever the file calls it.

``600519.SH``, ``AAPL``, ``BTCUSDT`` are canonical. Read as well: ``600519``, ``sh.600519``, ``SH600519``,
``SH#600519``, ``600519.SS``, ``600519.XSHG``, ``BTC/USDT``, ``BTC-USDT``, and A-share codes whose leading
zeros were lost in a spreadsheet. Only market ``cn`` reads digits as A-shares.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from barcast.core.errors import SymbolError, UsageError
from barcast.core.texts import some

MARKETS = ("cn", "us", "crypto", "other")

_CN_EXCHANGES = {
    "SH": "SH", "SS": "SH", "SSE": "SH", "XSHG": "SH",
    "SZ": "SZ", "SZSE": "SZ", "XSHE": "SZ",
    "BJ": "BJ", "BSE": "BJ", "XBEI": "BJ", "XBSE": "BJ",
}  # fmt: skip
#: First digits of a bare code -> exchange; the longest match wins. Stocks, B shares, funds and bonds.
_CN_PREFIXES = {
    "60": "SH", "68": "SH", "90": "SH",
    "50": "SH", "51": "SH", "52": "SH", "53": "SH", "56": "SH", "58": "SH",
    "110": "SH", "111": "SH", "113": "SH", "118": "SH",
    "00": "SZ", "30": "SZ", "20": "SZ", "15": "SZ", "16": "SZ", "18": "SZ", "39": "SZ",
    "123": "SZ", "127": "SZ", "128": "SZ",
    "43": "BJ", "82": "BJ", "83": "BJ", "87": "BJ", "88": "BJ", "92": "BJ",
}  # fmt: skip
_CN_SUFFIXED = re.compile(r"(\d{1,6})[.#_-]?([A-Z]{2,4})")
_CN_PREFIXED = re.compile(r"([A-Z]{2,4})[.#_-]?(\d{1,6})")
_CN_BARE = re.compile(r"(\d{1,6})(?:\.0)?")
_PLAIN = re.compile(r"[A-Z0-9^$][A-Z0-9.^=$&-]*")


@dataclass(frozen=True)
class Reading:
    """One spelling, understood.

    Attributes
    ----------
    symbol : str
        The canonical name.
    by_prefix : bool
        Whether the exchange was added because of the code's first digits.
    """

    symbol: str
    by_prefix: bool = False


def read_symbol(spelling: str, market: str) -> Reading:
    """Read one spelling.

    Raises
    ------
    SymbolError
        When it is empty, holds characters no symbol has, or is an A-share code of no known exchange.
    UsageError
        On a market that is not known.

    Examples
    --------
    >>> read_symbol("sh.600519", "cn").symbol
    '600519.SH'
    >>> read_symbol("btc/usdt", "crypto").symbol
    'BTCUSDT'
    """
    text = unicodedata.normalize("NFKC", spelling).strip().upper()  # full-width forms count as plain ones
    if market == "cn":
        return _read_cn(spelling, text)
    if market == "us":
        text = re.sub(r"[/ ]", "-", text.removesuffix(".US"))
        text = re.sub(r"\.([A-Z])$", r"-\1", text)  # classes of shares: BRK.B and BRK-B are the same
    elif market == "crypto":
        text = re.sub(r"[/_ -]", "", text)
    elif market != "other":
        raise UsageError(f"unknown market `{market}`", f"choose one of {', '.join(MARKETS)}")
    if not _PLAIN.fullmatch(text):
        raise SymbolError(f"`{spelling}` is not a symbol", "letters, digits and . - ^ = & are read")
    return Reading(text)


def _read_cn(spelling: str, text: str) -> Reading:
    if match := _CN_BARE.fullmatch(text):
        code = match[1].zfill(6)
        exchange = _CN_PREFIXES.get(code[:3]) or _CN_PREFIXES.get(code[:2])
        if exchange is None:
            raise SymbolError(
                f"`{spelling}`: no exchange lists A-share codes that begin with {code[:2]}",
                f"write the exchange, for example {code}.SH, or choose --market other",
            )
        return Reading(f"{code}.{exchange}", by_prefix=True)
    if match := _CN_SUFFIXED.fullmatch(text):
        code, exchange = match[1], _CN_EXCHANGES.get(match[2])
    elif match := _CN_PREFIXED.fullmatch(text):
        code, exchange = match[2], _CN_EXCHANGES.get(match[1])
    else:
        code, exchange = "", None
    if exchange is None:
        raise SymbolError(f"`{spelling}` is not an A-share symbol", "write 600519 or 600519.SH")
    return Reading(f"{code.zfill(6)}.{exchange}")


def read_symbols(spellings: Iterable[str], market: str) -> tuple[dict[str, Reading], dict[str, str]]:
    """Read many spellings; those that cannot be read do not stop the others.

    Returns
    -------
    tuple of dict
        Spelling to reading, and spelling to the reason why it could not be read.
    """
    readings: dict[str, Reading] = {}
    reasons: dict[str, str] = {}
    for spelling in spellings:
        try:
            readings[spelling] = read_symbol(spelling, market)
        except SymbolError as error:
            reasons[spelling] = error.found
    return readings, reasons


def check_collisions(readings: Mapping[str, Reading], stored: Collection[str] = ()) -> None:
    """Refuse bare codes that could mean either of two securities.

    ``000001`` alone is a stock in Shenzhen; beside ``SH000001``, an index, nobody can say which one it is.

    Parameters
    ----------
    readings : Mapping
        Every spelling of one import.
    stored : Collection of str
        Canonical symbols the store has: a bare code that it knows under the same exchange is settled.

    Raises
    ------
    SymbolError
        Naming each pair.
    """
    written = defaultdict(set)
    for spelling, reading in readings.items():
        if not reading.by_prefix:
            written[reading.symbol.partition(".")[0]].add((reading.symbol, spelling))
    for symbol in stored:
        written[symbol.partition(".")[0]].add((symbol, symbol))
    known = set(stored)
    pairs = [
        f"`{spelling}` (by its prefix {reading.symbol}) beside `{other_spelling}`"
        for spelling, reading in readings.items()
        if reading.by_prefix and reading.symbol not in known
        for other, other_spelling in sorted(written[reading.symbol.partition(".")[0]])
        if other != reading.symbol
    ]
    if pairs:
        raise SymbolError(
            f"codes that could mean two securities: {some(pairs)}",
            "write the exchange of each, for example 000001.SZ and 000001.SH",
        )


def describe_prefixes(readings: Mapping[str, Reading]) -> tuple[str, ...]:
    """Say which exchanges were added by prefix, one line an exchange."""
    added = {spelling: r.symbol for spelling, r in readings.items() if r.by_prefix}
    counts = Counter(symbol.partition(".")[2] for symbol in added.values())
    return tuple(
        f"exchange {exchange} added by prefix to {count} bare codes, "
        f"e.g. {next(f'{s} -> {c}' for s, c in sorted(added.items()) if c.endswith(exchange))}"
        for exchange, count in sorted(counts.items())
    )
