"""What a search may vary: ranges and choices by option name, from a table here or from the user's TOML file.

::

    lr = { low = 1e-4, high = 1e-2, log = true }
    hidden_size = [32, 64, 128]

An option whose value is a list of numbers may be given a range too: each trial then holds a list of one.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from barcast.core.config import from_plain, load_toml, nearest, read_values, to_toml
from barcast.core.errors import UsageError

#: Options that decide where and how often something is computed or saved, or by what luck, not how well.
_NOT_OPTIONS = ("seed", "num_seeds", "warm_start", "device", "threads", "num_threads", "checkpoint_seconds")
_NETWORK: dict[str, Any] = {
    "lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "weight_decay": {"low": 1e-3, "high": 0.3, "log": True},
    "batch_size": [7680, 15360, 30720],
    "look_back_window": [20, 40, 60],
    "hidden_size": [32, 64, 128],
    "num_layers": [1, 2, 3],
    "stock_embedding_dim": [0, 4, 8, 16],
    "dropout": {"low": 0.0, "high": 0.4},
    "id_dropout": {"low": 0.1, "high": 0.8},
}
#: What varies where the user names no space; networks without a row of their own share one.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "ridge": {"penalties": {"low": 1e-6, "high": 1e2, "log": True}},
    "lightgbm": {
        "learning_rate": {"low": 0.01, "high": 0.2, "log": True},
        "num_leaves": {"low": 15, "high": 255, "log": True},
        "min_data_in_leaf": {"low": 100, "high": 5000, "log": True},
        "feature_fraction": {"low": 0.3, "high": 1.0},
        "bagging_fraction": {"low": 0.3, "high": 1.0},
        "lambda_l2": {"low": 0.01, "high": 100.0, "log": True},
    },
    "mlp": {name: values for name, values in _NETWORK.items() if name != "look_back_window"},
}


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; ``step`` and ``log`` exclude each other."""

    low: float
    high: float
    log: bool = False
    step: float = 0.0
    """0: any number between (any whole number for an option that is one)."""


@dataclass(frozen=True)
class Parameter:
    """One option that varies.

    Attributes
    ----------
    name : str
    owner : str
        Table of the settings that holds it.
    values : Range or tuple
        A range, or the choices.
    whole : bool
        Whether a range holds whole numbers.
    listed : bool
        Whether the option is a list, so that a number of the range stands in a list of one.
    """

    name: str
    owner: str
    values: Range | tuple[Any, ...]
    whole: bool = False
    listed: bool = False

    def stored(self, value: Any) -> Any:
        """Return what the study keeps for an option's value: a number, a word, or JSON text of a list."""
        if isinstance(self.values, Range):
            return value[0] if self.listed else value
        return json.dumps(value) if isinstance(value, list | tuple) else value

    def value(self, stored: Any) -> Any:
        """Return the option's value for what the study keeps."""
        if isinstance(self.values, Range):
            return [stored] if self.listed else stored
        return next(value for value in self.values if self.stored(value) == stored)

    def holds(self, value: Any) -> bool:
        """Return whether a value lies within."""
        if isinstance(self.values, tuple):
            return any(self.stored(value) == self.stored(choice) for choice in self.values)
        if self.listed and len(value) != 1:
            return False
        number, within = self.stored(value), self.values
        if not within.low <= number <= within.high:
            return False
        steps = (number - within.low) / within.step if within.step else 0.0
        return bool(abs(steps - round(steps)) < 1e-9)

    def ends(self) -> tuple[Any, ...]:
        """Return the values that show whether all of them make sense: choices, or both ends."""
        if isinstance(self.values, tuple):
            return self.values
        return self.value(self.values.low), self.value(self.values.high)

    def plain(self) -> Any:
        """Return it as a settings file says it."""
        if isinstance(self.values, tuple):
            return list(self.values)
        found: dict[str, Any] = {"low": self.values.low, "high": self.values.high}
        if self.values.log:
            found["log"] = True
        if self.values.step:
            found["step"] = self.values.step
        return found


@dataclass(frozen=True)
class Space:
    """Every option that varies, by name."""

    parameters: tuple[Parameter, ...]

    def __len__(self) -> int:
        return len(self.parameters)

    def plain(self) -> dict[str, Any]:
        """Return it as a settings file says it."""
        return {each.name: each.plain() for each in self.parameters}

    def to_toml(self) -> str:
        """Return it as the text of a file that `make_space` reads."""
        return "".join(f"{name} = {to_toml(told)}\n" for name, told in self.plain().items())

    def values(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return options by name for what the study keeps of a trial."""
        return {each.name: each.value(stored[each.name]) for each in self.parameters if each.name in stored}

    def by_owner(self, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Sort options by the settings table that holds them."""
        found: dict[str, dict[str, Any]] = {}
        for each in self.parameters:
            if each.name in values:
                found.setdefault(each.owner, {})[each.name] = values[each.name]
        return found

    def start(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return, as the study keeps them, those of the values that lie within."""
        return {
            each.name: each.stored(values[each.name])
            for each in self.parameters
            if each.holds(values[each.name])
        }


def make_space(
    model: str,
    kinds: Mapping[str, type],
    fixed: set[str],
    file: Path | None = None,
    data: tuple[str, ...] = (),
) -> Space:
    """Return the user's space, or the model's own, without the options that are fixed.

    Parameters
    ----------
    model : str
        Registered name.
    kinds : mapping of str to type
        Settings tables by name, each a frozen dataclass: ``data``, ``train`` for networks, and the model's.
    fixed : set of str
        Options given on the command line.
    file : Path, optional
        TOML file with one line an option; it takes the place of the whole default space.
    data : tuple of str
        Options of ``data`` that may vary; others change what is asked, so that scores could not be compared.

    Raises
    ------
    UsageError
        On a name that is no option of the model, a value that the option does not take, or nothing left.
    """
    tables, where = (load_toml(file), str(file)) if file else (_default(model, kinds), f"space of {model}")
    owners = _owners(kinds, data)
    for name in tables:
        if name not in owners:
            raise UsageError(f"{where}: `{name}` cannot be tuned", _why_not(name, kinds, owners))
    parameters = [
        read_parameter(name, owners[name], kinds, told, f"{where}: {name}")
        for name, told in tables.items()
        if name not in fixed
    ]
    if not parameters:
        raise UsageError(
            f"{where}: nothing is left to vary: {', '.join(tables) or 'it is empty'}",
            "leave an option out of the command, or name a space: --space FILE.toml",
        )
    return Space(tuple(parameters))


def _default(model: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    if model in _DEFAULTS:
        return _DEFAULTS[model]
    if "train" not in kinds:
        raise UsageError(f"model `{model}` has no space of its own", "name one: --space FILE.toml")
    known = {f.name for kind in kinds.values() for f in fields(kind)}
    return {name: told for name, told in _NETWORK.items() if name in known}


def _owners(kinds: Mapping[str, type], data: tuple[str, ...]) -> dict[str, str]:
    return {
        f.name: table
        for table, kind in kinds.items()
        for f in fields(kind)
        if f.name not in _NOT_OPTIONS and (table != "data" or f.name in data)
    }


def _why_not(name: str, kinds: Mapping[str, type], owners: Mapping[str, str]) -> str:
    if any(name == f.name for f in fields(kinds["data"])):
        return "it changes what is asked, so trials could not be compared: give it as an option"
    if name in _NOT_OPTIONS:
        return "it decides where, how often or by what luck, not how well: give it as an option"
    return nearest(name, owners)


def read_parameter(name: str, owner: str, kinds: Mapping[str, type], told: Any, where: str) -> Parameter:
    """Return what may vary of one option of the table ``owner``, from choices or a range.

    Raises
    ------
    UsageError
        On a value that the option does not take, or nothing to choose from.
    """
    hint = typing.get_type_hints(kinds[owner])[name]
    if isinstance(told, list):
        if len(told) < 2:
            raise UsageError(f"{where}: one choice is no choice: {told}", f"give it as an option, not {told}")
        choices = tuple(read_values(kinds[owner], {name: one}, where)[name] for one in told)
        plain = [list(one) if isinstance(one, tuple) else one for one in choices]
        if any(one in plain[:place] for place, one in enumerate(plain)):
            raise UsageError(f"{where}: a choice stands there twice: {told}", "name each once")
        return Parameter(name, owner, tuple(plain))
    listed = typing.get_origin(hint) is tuple
    number = typing.get_args(hint)[0] if listed else hint
    if not isinstance(told, Mapping):
        raise UsageError(
            f"{where}: expected choices or a range, found `{told!r}`",
            f"{name} = [A, B], or {name} = {{ low = A, high = B, log = true }}",
        )
    if number not in (int, float):
        raise UsageError(f"{where}: a range is for numbers", f"list the choices: {name} = [A, B]")
    return Parameter(name, owner, _range(told, number is int, where), number is int, listed)


def _range(told: Mapping[str, Any], whole: bool, where: str) -> Range:
    for key in ("low", "high"):
        if key not in told:
            raise UsageError(f"{where}: a range without `{key}`", "{ low = A, high = B, log = true }")
    found = from_plain(Range, told, where)
    if whole:
        if any(number != round(number) for number in (found.low, found.high, found.step)):
            raise UsageError(f"{where}: the option takes whole numbers, found {dict(told)}")
        found = replace(found, low=int(found.low), high=int(found.high), step=int(found.step))
    if not found.low < found.high or found.step < 0 or (found.log and (found.low <= 0 or found.step)):
        raise UsageError(
            f"{where}: expected low < high, step not negative, and with log low above 0 and no step",
            f"found {dict(told)}",
        )
    return found
