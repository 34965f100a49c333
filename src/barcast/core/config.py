"""Config is typed Python: frozen dataclasses, filled by a TOML file or flags, saved with every run."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Set
from datetime import date, datetime
from pathlib import Path
from typing import Any, TypeVar

from barcast.core.errors import UsageError, explained

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Turn configs, tuples, dates and paths into what JSON and TOML can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    return value


def from_plain(kind: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Build the frozen dataclass ``kind`` from plain values.

    Raises
    ------
    UsageError
        On an unknown key (with the nearest known one) or a value of the wrong kind.
    """
    return kind(**read_values(kind, values, where))


def read_values(kind: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Convert plain values to what the fields of the dataclass ``kind`` hold; fields may be missing.

    Raises
    ------
    UsageError
        As :func:`from_plain`, naming ``where`` the values came from.
    """
    names = [f.name for f in dataclasses.fields(kind)]
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in names:
            raise UsageError(f"{where}: unknown key `{key}`", also_called(kind, key) or nearest(key, names))
    return {key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()}


def also_called(kind: type, name: str) -> str:
    """Return, as a question, the field of ``kind`` that flags or others call ``name``; empty where none is.

    Such names are the dataclass's ``ALSO_CALLED``, where it has one.
    """
    known: Mapping[str, str] = getattr(kind, "ALSO_CALLED", {})
    return f"did you mean `{known[name]}`?" if name in known else ""


def takes_several(kind: type, name: str) -> bool:
    """Return whether a field of the dataclass ``kind`` is a list."""
    return typing.get_origin(typing.get_type_hints(kind).get(name)) is tuple


def items(given: Any, where: str, kind: type | None = None) -> tuple[Any, ...]:
    """Return what was given in Python for a list; a single word or number is a list of one.

    A word is a sequence too, of letters: nobody means those. None is an empty list; a set, which has no
    order, is sorted.

    Raises
    ------
    UsageError
        Naming ``where``, on anything but a list or its single item, and on items that are no ``kind``.
    """
    if given is None:
        return ()
    if isinstance(given, str | int | float):
        given = (given,)
    elif isinstance(given, Mapping | bytes) or not isinstance(given, Iterable):
        raise UsageError(f"{where}: expected a list, found `{given!r}`", _A_LIST)
    found = tuple(sorted(given, key=str) if isinstance(given, Set) else given)
    return found if kind is None else tuple(_convert(kind, item, where) for item in found)


def some_items(given: Any, where: str, kind: type | None = None) -> tuple[Any, ...]:
    """Return as `items` what is to be chosen from many: None alone stands for all of them.

    Raises
    ------
    UsageError
        As `items`, and on a list that came out empty: taken for left out, it would choose everything.
    """
    found = items(given, where, kind)
    if given is not None and not found:
        raise UsageError(f"{where}: a list with nothing in it", "name at least one, or leave it out")
    return found


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that was probably meant, as a question, or all of them."""
    names = list(known)
    return meant(name, names) or f"known: {', '.join(names)}"


def meant(name: str, known: Iterable[str]) -> str:
    """Return the known name that was probably meant, as a question; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean `{near[0]}`?" if near else ""


_A_LIST = 'write a list, as in [1, 5] or ["AAPL", "MSFT"]'
#: How a value of each kind is written, for errors.
EXAMPLES = {
    int: "write a whole number, as in 3",
    float: "write a number, as in 0.5",
    str: "write words in quotation marks",
    bool: "write true or false",
    date: "write a day as in 2024-01-31",
}


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise UsageError(
                f"{where}: `{value}` is not one of {', '.join(map(str, arguments))}",
                meant(str(value), arguments) or "write one of them, or leave it out: the default is taken",
            )
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UsageError(f"{where}: expected a list, found `{value!r}`", _A_LIST)
        return tuple(_convert(arguments[0], item, where) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UsageError(f"{where}: expected a table, found `{value!r}`", "write NAME = VALUE lines")
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return from_plain(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is date and isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError as error:
            raise UsageError(f"{where}: `{value}` is not a day", EXAMPLES[date]) from error
    wrong = hint is not Any and isinstance(hint, type) and not isinstance(value, hint)
    if wrong or (hint is int and isinstance(value, bool)):
        raise UsageError(f"{where}: expected {hint.__name__}, found `{value!r}`", EXAMPLES.get(hint, ""))
    if hint is float and not math.isfinite(value):
        raise UsageError(f"{where}: `{value}` is no finite number", EXAMPLES[float])
    return value


def to_toml(value: Any) -> str:
    """Write a plain value (text, number, truth, list or table of them) as TOML."""
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key} = {to_toml(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)


def digest(value: Any) -> str:
    """Return a 16-character hash of any config or plain value; equal values hash equal everywhere."""
    text = json.dumps(to_plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    UsageError
        When there is no such file; with file and line when the text is not TOML.
    """
    try:
        with explained("reading", path):
            return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise UsageError(f"no config file at {path}", "name a TOML file that exists") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}", "mend the line named above") from error
