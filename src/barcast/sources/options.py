"""What the user declares about a source, because columns of numbers do not say it."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import time
from typing import Any

from barcast.core.bars import BASES
from barcast.core.calendar import EXCHANGES, FREQUENCIES, OBSERVED, ROUND_THE_CLOCK, ZONES
from barcast.core.errors import UsageError
from barcast.core.symbols import MARKETS

#: Shares in one lot (手) of the A-share market.
LOT_SHARES = 100
VOLUME_UNITS = ("share", "lot")
STAMPS = ("start", "end")
DATE_ORDERS = ("mdy", "dmy")
DECIMALS = (".", ",")
DEFAULT_CALENDARS = {"cn": "XSHG", "us": "XNYS", "crypto": ROUND_THE_CLOCK, "other": OBSERVED}
#: When a session's bar is finished: zone and local time of the close (the latest of recent rules).
CLOSES = {
    "XSHG": (ZONES["XSHG"], time(15, 0)),
    "XNYS": (ZONES["XNYS"], time(16, 0)),
    "XHKG": (ZONES["XHKG"], time(16, 10)),
    "XLON": (ZONES["XLON"], time(16, 35)),
    "XJPX": (ZONES["XJPX"], time(15, 30)),
    "XKRX": (ZONES["XKRX"], time(15, 30)),
}
_REMEMBERED = (
    "market", "frequency", "calendar", "basis", "volume_unit", "volume_adjusted", "tz", "stamp", "date_order",
    "decimal", "columns",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What is known about the input beyond its columns. ``None`` means: not said.

    Attributes
    ----------
    market : str
        ``cn``, ``us``, ``crypto`` or ``other``: how symbols are read, and the default calendar.
    frequency : str
        ``1d`` (default), ``4h``, ``2h``, ``1h``, ``30m``, ``15m``, ``5m``, ``1m``.
    calendar : str
        ``XSHG``, ``XNYS``, ``XHKG``, ``XLON``, ``XJPX``, ``XKRX``, ``24x7`` or ``observed``; by default the
        market's.
    basis : str
        What the price columns are: ``raw`` (as traded), ``split`` (adjusted for splits, volume too) or
        ``adjusted`` (for splits and dividends). Coins are always raw.
    volume_unit : str
        ``share`` (or coin) or ``lot`` (手, 100 shares). Only market ``cn`` knows lots; ``us`` and ``crypto``
        are in shares and coins without saying so.
    volume_adjusted : bool
        That volume is adjusted for splits although prices are raw, as in Yahoo's files of before 2017.
    tz : str
        Zone of stamps that carry none, as in ``Asia/Shanghai``. Needed for intraday bars.
    stamp : str
        Whether an intraday stamp is the ``start`` or the ``end`` of its bar. Needed for intraday bars.
    date_order : str
        ``mdy`` or ``dmy``, for dates such as 03/04/2020.
    decimal : str
        The decimal sign: ``.`` (also where nothing is said) or ``,``. The other one may set off thousands.
    encoding : str
        ``auto`` (each file on its own: UTF-8, UTF-16 with its mark, else GB18030) or a codec's name.
    columns : tuple of str
        ``NAME=ROLE`` pairs for headers that are not known.
    symbol : str
        The symbol of a single file that does not name it.
    """

    market: str | None = None
    frequency: str | None = None
    calendar: str | None = None
    basis: str | None = None
    volume_unit: str | None = None
    volume_adjusted: bool = False
    tz: str | None = None
    stamp: str | None = None
    date_order: str | None = None
    decimal: str | None = None
    encoding: str = "auto"
    columns: tuple[str, ...] = ()
    symbol: str | None = None

    def __post_init__(self) -> None:
        _one_of("market", self.market, MARKETS)
        _one_of("frequency", self.frequency, tuple(FREQUENCIES))
        _one_of("calendar", self.calendar, (*EXCHANGES, ROUND_THE_CLOCK, OBSERVED))
        _one_of("basis", self.basis, BASES)
        _one_of("volume-unit", self.volume_unit, VOLUME_UNITS)
        _one_of("stamp", self.stamp, STAMPS)
        _one_of("date-order", self.date_order, DATE_ORDERS)
        _one_of("decimal", self.decimal, DECIMALS)
        if self.tz is not None and self.tz not in zoneinfo.available_timezones():
            raise UsageError(f"unknown time zone `{self.tz}`", "write it as in --tz Asia/Shanghai")
        for pair in self.columns:
            if "=" not in pair:
                raise UsageError(f"column `{pair}` is not NAME=ROLE", "write it as in --column Schluss=close")

    def resolved(self, remembered: Mapping[str, Any] | None = None) -> ImportOptions:
        """Fill what was not said from the store's memory, then from what the market implies.

        Parameters
        ----------
        remembered : Mapping, optional
            ``declared()`` of an earlier import into the same store.

        Raises
        ------
        UsageError
            Without a market, or on a market, frequency or calendar that contradicts the store.
        """
        options = self._with_memory(remembered or {})
        if options.market is None:
            raise UsageError(
                "the market is not known",
                f"add --market {'|'.join(MARKETS)}; stocks need --basis too, cn and other --volume-unit, "
                "where the file does not say them",
            )
        implied: dict[str, Any] = {"calendar": DEFAULT_CALENDARS[options.market], "frequency": "1d"}
        if options.market in ("us", "crypto"):
            implied["volume_unit"] = "share"
        if options.market == "crypto":
            implied["basis"] = "raw"
        options = replace(options, **{k: v for k, v in implied.items() if getattr(options, k) is None})
        if options.volume_unit == "lot" and options.market != "cn":
            raise UsageError(f"market {options.market} has no lots", "use --volume-unit share")
        return options

    def _with_memory(self, remembered: Mapping[str, Any]) -> ImportOptions:
        for name in ("market", "frequency", "calendar"):
            given, kept = getattr(self, name), remembered.get(name)
            if given is not None and kept is not None and given != kept:
                raise UsageError(
                    f"--{name} {given}, but this store holds {kept}",
                    f"leave --{name} out, or choose another --workspace: a store has one {name}",
                )
        unsaid = {n: v for n, v in remembered.items() if n in _REMEMBERED and not getattr(self, n)}
        if isinstance(unsaid.get("columns"), list):
            unsaid["columns"] = tuple(unsaid["columns"])
        return replace(self, **unsaid)

    def declared(self) -> dict[str, Any]:
        """Return what a store remembers for the next import."""
        return {name: getattr(self, name) for name in _REMEMBERED}

    @property
    def intraday(self) -> bool:
        """Whether a bar is shorter than a session."""
        return self.frequency not in (None, "1d")

    @property
    def step_seconds(self) -> int:
        """Length of a bar."""
        return FREQUENCIES[self.frequency or "1d"]

    def describe(self) -> str:
        """One line for people: what will be taken for granted."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("columns", "encoding")}
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in said.items() if value)


def _one_of(flag: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise UsageError(f"--{flag} `{value}` is not known", f"choose one of {', '.join(choices)}")
