"""Features and the named sets of them that a model is trained on."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from barcast.core.arrays import I32
from barcast.core.config import meant
from barcast.core.errors import UsageError
from barcast.features.columns import BAR_COLUMNS, SHARED

#: Gives a column, shape (R,), from the columns that its arguments name; one with a default is a constant.
Compute = Callable[..., Any]


@dataclass(frozen=True)
class Feature:
    """A number known at the close of each bar.

    Attributes
    ----------
    name : str
        Its column in the panel.
    formula : str
        For people; O H L C V are the bar's columns, ``C[-5]`` the close five bars ago.
    warmup : int
        How many of the first bars of a life have no value (NaN).
    source : str
        Who described it, or where to read about it.
    compute : Compute
        The formula as code; the names of its arguments say what it needs.
    """

    name: str
    formula: str
    warmup: int
    source: str
    compute: Compute = field(repr=False)


@dataclass(frozen=True)
class SourceFile:
    """The text a user's features were made of, so that a run can keep a copy."""

    path: Path
    text: str


@dataclass(frozen=True)
class FeatureSet:
    """Features that are computed together, in the order of the panel's columns.

    Attributes
    ----------
    name : str
        What ``--features`` takes.
    features : tuple of Feature
        In the order of the columns.
    description : str
        One line for people.
    steps : mapping of str to Compute
        Columns that several features share and that are not features themselves.
    scale_free : bool
        Whether multiplying all prices and all volumes by constants changes nothing (but the +1 in logs).
    window_normalised : bool
        Whether the columns are logarithms that mean something only after each window has been shifted by its
        own last close and mean volume.
    files : tuple of SourceFile
        User files these features come from.
    """

    name: str
    features: tuple[Feature, ...]
    description: str
    steps: Mapping[str, Compute] = field(default_factory=dict, repr=False)
    scale_free: bool = True
    window_normalised: bool = False
    files: tuple[SourceFile, ...] = ()

    def __post_init__(self) -> None:
        seen = {*SHARED, *self.steps}
        if not self.window_normalised:  # such a set shows the bars themselves, and keeps their names
            seen |= {*BAR_COLUMNS}
        for feature in self.features:
            if feature.name in seen:
                raise UsageError(f"feature set `{self.name}`: the name `{feature.name}` is taken")
            seen.add(feature.name)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The panel's columns."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def warmup(self) -> I32:
        """Leading rows of a life without a value, shape (F,)."""
        return np.array([feature.warmup for feature in self.features], np.int32)

    @property
    def max_warmup(self) -> int:
        """Bars a life needs before every feature has a value, less one."""
        return int(self.warmup.max(initial=0))

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """The bar columns these features are made of."""
        return _in_order(self._reached(self.features))

    def needs_of(self, feature: Feature) -> tuple[str, ...]:
        """Return the bar columns that ``feature`` is made of."""
        return _in_order(self._reached([feature]))

    def _reached(self, features: Iterable[Feature]) -> set[str]:
        """Return the names of all that the features are made of, down to the bars."""
        found: set[str] = set()
        left = [name for feature in features for name in inputs_of(feature.compute)]
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                left += () if name in BAR_COLUMNS else inputs_of(self.maker(name))
        return found

    def maker(self, name: str) -> Compute:
        """Return what computes the column ``name`` (a feature, a step or a shared column).

        Raises
        ------
        UsageError
            On a name that none of them has.
        """
        for feature in self.features:
            if feature.name == name:
                return feature.compute
        for table in (self.steps, SHARED):
            if name in table:
                return table[name]
        known = [*BAR_COLUMNS, *SHARED, *self.steps, *self.names]
        hint = meant(name, known) or f"there are {', '.join([*BAR_COLUMNS, *SHARED])}"
        raise UsageError(f"feature set `{self.name}`: no column is called `{name}`", hint)

    def subset(self, name: str, names: Iterable[str], description: str) -> FeatureSet:
        """Return a set of some of these features, in the order given."""
        by_name = {feature.name: feature for feature in self.features}
        chosen = tuple(by_name[wanted] for wanted in names)
        reached = self._reached(chosen)  # may hold features that are left out: they become steps
        left_out = {key: f.compute for key, f in by_name.items() if f not in chosen}
        steps = {key: compute for key, compute in {**left_out, **self.steps}.items() if key in reached}
        return replace(self, name=name, features=chosen, description=description, steps=steps)

    def code_digest(self) -> str:
        """Return a hash of the source code that these features run, and of what it runs on."""
        state = hashlib.blake2b(np.__version__.encode(), digest_size=16)
        here = Path(__file__).parent
        files = {str(here / name) for name in ("kernels.py", "primitives.py", "columns.py", "engine.py")}
        for feature in self.features:
            state.update(f"{feature.name}\0{feature.warmup}\0".encode())
        for compute in (*(feature.compute for feature in self.features), *self.steps.values()):
            files.add(compute.__code__.co_filename)
            state.update(_constants(compute).encode())
        texts = {str(file.path): file.text for file in self.files}
        for file in sorted(files):
            # text that was typed into an interpreter is in no file: there the constants must do
            if file in texts or Path(file).is_file():
                text = texts[file] if file in texts else Path(file).read_text(encoding="utf-8")
                state.update(f"{Path(file).name}\0{text}\0".encode())
        return state.hexdigest()


def _constants(compute: Compute) -> str:
    """Tell functions from the same lines of a file apart: by their constants and what they close over."""
    code = compute.__code__
    enclosed = [cell.cell_contents for cell in compute.__closure__ or ()]
    values = (*code.co_consts, *(compute.__defaults__ or ()), *enclosed)
    plain = [value for value in values if isinstance(value, int | float | str | tuple | None)]
    return f"{code.co_code.hex()} {code.co_names} {plain}"


def inputs_of(compute: Compute) -> tuple[str, ...]:
    """Return the columns that ``compute`` asks for: its arguments that have no default."""
    parameters = inspect.signature(compute).parameters.values()
    return tuple(p.name for p in parameters if p.default is inspect.Parameter.empty)


def _in_order(needs: set[str]) -> tuple[str, ...]:
    return tuple(column for column in BAR_COLUMNS if column in needs)


_SETS: dict[str, FeatureSet] = {}


def register(made: FeatureSet) -> FeatureSet:
    """Add a set to those found by name.

    Raises
    ------
    UsageError
        On a name that is taken.
    """
    if made.name in _SETS:
        raise UsageError(f"there is already a feature set called `{made.name}`")
    _SETS[made.name] = made
    return made


def feature_sets() -> tuple[FeatureSet, ...]:
    """Return the built-in sets."""
    return tuple(_SETS.values())


def feature_set(name: str, user_sets: Sequence[FeatureSet] = ()) -> FeatureSet:
    """Return a set by name; ``tech48+my_features`` joins several.

    Parameters
    ----------
    name : str
        A set's name, or several joined by ``+``.
    user_sets : sequence of FeatureSet
        What ``load_user_features`` returned.

    Raises
    ------
    UsageError
        On an unknown set, a feature name in two joined sets, or a window-normalised set joined to others.
    """
    known = {**_SETS, **{made.name: made for made in user_sets}}
    parts = [_known_set(part.strip(), known) for part in name.split("+")]
    return parts[0] if len(parts) == 1 else _join(parts)


def _known_set(name: str, known: Mapping[str, FeatureSet]) -> FeatureSet:
    if name in known:
        return known[name]
    hint = f"{meant(name, known)} there are {', '.join(known)}; see `barcast features list`"
    raise UsageError(f"no feature set `{name}`", hint.strip())


def _join(parts: Sequence[FeatureSet]) -> FeatureSet:
    alone = [part.name for part in parts if part.window_normalised]
    if alone:
        raise UsageError(
            f"`{alone[0]}` cannot be joined to other sets: its windows are normalised by themselves"
        )
    features = tuple(feature for part in parts for feature in part.features)
    makers = {feature.name: feature.compute for feature in features}
    for part in parts:
        for name, compute in part.steps.items():
            if makers.setdefault(name, compute) is not compute:
                raise UsageError(
                    f"`{part.name}` uses a column `{name}`, which another of the joined sets has too"
                )
    return FeatureSet(
        name="+".join(part.name for part in parts),
        features=features,
        description="; ".join(part.description for part in parts),
        steps={name: compute for name, compute in makers.items() if name not in {f.name for f in features}},
        scale_free=all(part.scale_free for part in parts),
        files=tuple(file for part in parts for file in part.files),
    )
