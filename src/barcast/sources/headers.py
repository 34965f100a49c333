"""Column names, English and Chinese, to the roles they play.

A name is compared without case, blanks and punctuation. What stands in brackets is a unit or an adjustment,
which counts as declared: 成交量(手) is in lots, 收盘价(不复权) is raw.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from barcast.core.errors import DataError, UsageError
from barcast.sources.options import LOT_SHARES

_NAMES = {
    "symbol": "symbol ticker code stockcode seccode secucode tscode instrument windcode thscode secid pair "
    "代码 股票代码 证券代码 交易代码 合约代码 股票 证券 品种",
    "stamp": "datetime timestamp opentime unix unixtime epoch candletime bartime 日期时间 时间戳",
    "date": "date tradedate tradingdate day tradingday session 日期 交易日期 交易日",
    "clock": "time tradetime 时间 交易时间",
    "open": "open openprice o 开盘 开盘价 今开",
    "high": "high highprice h 最高 最高价",
    "low": "low lowprice l 最低 最低价",
    "close": "close closeprice c 收盘 收盘价 今收",
    "volume": "volume vol v 成交量 总手 成交股数",
    "amount": "amount money turnovervalue quotevolume quoteassetvolume dollarvolume 成交额 成交金额 金额",
    "adj_close": "adjclose adjustedclose adjustclose closeadj 复权收盘 复权收盘价 后复权收盘价 前复权收盘价",
    "factor": "factor adjfactor adjustfactor totalfactor 复权因子 后复权因子 前复权因子",
    "split_factor": "splitfactor 拆股因子",
    "close_raw": "closeraw rawclose unadjustedclose 不复权收盘 不复权收盘价",
    "basis": "basis",
}  # fmt: skip
#: What is told about symbols in tables beside the bars.
_FACTS = {
    "name": "名称 股票名称 证券名称 股票简称 证券简称 简称",
    "industry": "行业 所属行业 行业名称",
    "board": "板块 上市板块",
    "exchange": "交易所 上市交易所",
    "area": "地域 地区 所属地域",
}
ROLES = tuple(_NAMES)
_ROLE_OF = {name: role for role, names in _NAMES.items() for name in names.split()}
_FACT_OF = {name: fact for fact, names in _FACTS.items() for name in names.split()}
#: A file without these is not a file of bars; times are checked on their own.
REQUIRED = ("open", "high", "low", "close")
PRICES = ("open", "high", "low", "close", "adj_close", "close_raw")

_VOLUME_UNITS = {"手": LOT_SHARES, "lot": LOT_SHARES, "lots": LOT_SHARES, "股": 1, "share": 1, "shares": 1,
                 "万股": 10_000, "万手": 10_000 * LOT_SHARES}  # fmt: skip
_AMOUNT_UNITS = {"元": 1, "千元": 1_000, "万元": 10_000, "百万元": 1_000_000, "亿元": 100_000_000,
                 "万": 10_000, "亿": 100_000_000, "usd": 1, "cny": 1, "usdt": 1}  # fmt: skip
_BASIS_WORDS = (("不复权", "raw"), ("复权", "adjusted"), ("qfq", "adjusted"), ("hfq", "adjusted"))


@dataclass(frozen=True)
class Header:
    """What a file's columns are.

    Attributes
    ----------
    roles : dict of str
        Role to column name as the file writes it.
    ignored : tuple of str
        Columns without a role.
    volume_scale : int or None
        Shares in one unit of volume where the header says it.
    amount_scale : int
        Currency in one unit of turnover.
    basis : str or None
        ``raw`` or ``adjusted`` where a header or title says it.
    """

    roles: dict[str, str]
    ignored: tuple[str, ...] = ()
    volume_scale: int | None = None
    amount_scale: int = 1
    basis: str | None = None

    @property
    def has_bars(self) -> bool:
        """Whether there is a time and a close, so that this line can be the header."""
        return "close" in self.roles and bool({"stamp", "date", "clock"} & self.roles.keys())


@dataclass
class _Found:
    roles: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    basis: set[str] = field(default_factory=set)


def read_header(names: Sequence[str], overrides: Sequence[str] = ()) -> Header:
    """Find the role of each column.

    Parameters
    ----------
    names : sequence of str
        As the file writes them.
    overrides : sequence of str
        ``NAME=ROLE`` pairs; they win, and the name they replace in that role is ignored.

    Raises
    ------
    DataError
        When two columns claim one role.
    UsageError
        On an override with an unknown role.
    """
    chosen = parse_overrides(overrides)
    taken = {role for name, role in chosen.items() if name in names}
    found = _Found()
    for name in names:
        if name in chosen:
            found.roles[chosen[name]] = name
        else:
            _place(name, found, taken)
    unit = found.units.get("volume", "")
    return Header(
        roles=found.roles,
        ignored=tuple(found.ignored),
        volume_scale=_VOLUME_UNITS.get(unit),
        amount_scale=_AMOUNT_UNITS.get(found.units.get("amount", ""), 1),
        basis=found.basis.pop() if len(found.basis) == 1 else None,
    )


def _place(name: str, found: _Found, taken: set[str]) -> None:
    base, unit = _split_unit(name)
    role = _role_of(name)
    if role is None or role in taken:
        found.ignored.append(name)
        return
    if role in found.roles:
        raise DataError(
            f"columns `{found.roles[role]}` and `{name}` both look like {role}",
            f"choose one, for example --column '{name}={role}'",
        )
    found.roles[role] = name
    found.units[role] = "手" if base == "总手" else unit
    if role in ("open", "high", "low", "close") and (word := basis_word(unit)):
        found.basis.add(word)


def _role_of(name: str) -> str | None:
    return _ROLE_OF.get(_squeezed(name)) or _ROLE_OF.get(_split_unit(name)[0])


def fact_columns(names: Sequence[str]) -> dict[str, str]:
    """Return what each column of a table about symbols is called: ``symbol``, ``name``, ``industry``, ...

    A column that is called ``symbol`` is it, whatever else could be; names that are not known stay, in lower
    case.

    Raises
    ------
    DataError
        When two columns would be called the same.
    """
    given = {name: name.strip().lower() for name in names}
    if "symbol" not in given.values():
        given |= {name: "symbol" for name in names if _role_of(name) == "symbol"}
    given |= {name: fact for name in names if (fact := _FACT_OF.get(_squeezed(name)))}
    for role in given.values():
        claimed = [name for name in names if given[name] == role]
        if len(claimed) > 1:
            raise DataError(
                f"columns {', '.join(f'`{name}`' for name in claimed)} are all {role}", "keep one of them"
            )
    return given


def parse_overrides(pairs: Sequence[str]) -> dict[str, str]:
    """Turn ``NAME=ROLE`` pairs into a mapping.

    Raises
    ------
    UsageError
        On an unknown role.
    """
    chosen = {}
    for pair in pairs:
        name, _, role = pair.rpartition("=")
        if role not in _NAMES:
            raise UsageError(f"column `{name}`: unknown role `{role}`", f"choose one of {', '.join(ROLES)}")
        chosen[name] = role
    return chosen


def basis_word(text: str) -> str | None:
    """Return ``raw`` or ``adjusted`` where a title or header names its adjustment."""
    lowered = text.lower()
    return next((basis for word, basis in _BASIS_WORDS if word in lowered), None)


def missing_roles(header: Header) -> list[str]:
    """Return what a file of bars lacks, as words for a message."""
    missing = [role for role in REQUIRED if role not in header.roles]
    return missing if {"stamp", "date", "clock"} & header.roles.keys() else ["date", *missing]


def _split_unit(name: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.*?)[(\[【](.*?)[)\]】]\s*", _narrow(name).strip())
    return (_squeezed(match[1]), match[2].strip().lower()) if match else (_squeezed(name), "")


def _squeezed(name: str) -> str:
    return re.sub(r"[\s_.\-/()\[\]【】]+", "", _narrow(name)).lower()


def _narrow(name: str) -> str:
    """Write full-width letters, digits and brackets in their plain forms."""
    return unicodedata.normalize("NFKC", name)
