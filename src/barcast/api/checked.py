"""Arguments of verbs against what the verbs declare: a slip is told in words, not by what breaks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from numbers import Integral, Real
from os import PathLike
from typing import Any, ParamSpec, TypeVar

from barcast.core.config import EXAMPLES
from barcast.core.errors import UsageError
from barcast.core.workspace import Workspace

P = ParamSpec("P")
R = TypeVar("R")


def _is_bool(given: object) -> bool:
    return isinstance(given, Integral) or type(given).__name__ in ("bool", "bool_")  # numpy's own is neither


#: Kinds by how they are written; an annotation with any other part is left to the verb itself.
_KINDS: Mapping[str, tuple[type, Callable[[object], bool]]] = {
    "bool": (bool, _is_bool),
    "int": (int, lambda given: isinstance(given, Integral) and not isinstance(given, bool)),
    "float": (float, lambda given: isinstance(given, Real) and not isinstance(given, bool)),
    "str": (str, lambda given: isinstance(given, str | PathLike)),  # runs are named by their folders too
    "Path": (str, lambda given: isinstance(given, str | PathLike)),
    "Place": (str, lambda given: given is None or isinstance(given, str | PathLike | Workspace)),
    "None": (type(None), lambda given: given is None),
}


def checked(verb: Callable[P, R]) -> Callable[P, R]:
    """Let a verb refuse arguments of another kind than it declares, before it does anything.

    Numbers, words, paths and yes or no are checked. Lists, tables and frames are for those that read them,
    and so are ``**options``.
    """
    names = list(signature(verb).parameters)
    kinds = {name: text.split(" | ") for name, text in verb.__annotations__.items() if name != "return"}
    kinds = {name: parts for name, parts in kinds.items() if all(part in _KINDS for part in parts)}

    @wraps(verb)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
        for name in given.keys() & kinds.keys():
            _check(name, given[name], kinds[name])
        return verb(*args, **kwargs)

    return wrapper


def _check(name: str, given: object, parts: list[str]) -> None:
    if any(_KINDS[part][1](given) for part in parts):
        return
    kind = _KINDS[parts[0]][0]
    raise UsageError(f"{name}: expected {kind.__name__}, found `{given!r}`", EXAMPLES[kind])
