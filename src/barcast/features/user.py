"""Features of your own, in files of your own: ``[features] files = ["my_features.py"]`` in ``barcast.toml``.

A file is plain Python::

    from barcast.features import feature
    from barcast.features.primitives import highest, mean

    @feature
    def over_mean_20(close):
        return close / mean(close, 20) - 1

    @feature(formula="C / max(C, 250) - 1", source="52-week high")
    def from_high_250(close):
        return close / highest(close, 250) - 1

It becomes the feature set ``my_features``, to be used alone or joined: ``--features tech48+my_features``. The
warm-up is measured; each feature is tried on made-up bars for look-ahead before it is used on real ones. The
file's text is kept with the set, so that a run can copy it: a helper belongs into the same file.
"""

from __future__ import annotations

import ast
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from barcast.core.errors import BarcastError, DataError, UsageError
from barcast.core.workspace import Workspace
from barcast.features.checks import check_causal, made_up_bars
from barcast.features.columns import BAR_COLUMNS
from barcast.features.engine import compute_features
from barcast.features.registry import Compute, Feature, FeatureSet, SourceFile, feature_sets

F = TypeVar("F", bound=Callable[..., Any])

_COLLECTED = "__barcast_features__"
#: Bars on which a user's feature is tried; a longer warm-up must be declared.
TRIAL_BARS = 1500


@dataclass(frozen=True)
class _Declared:
    name: str
    formula: str
    warmup: int | None
    source: str
    compute: Compute


@overload
def feature(function: F) -> F: ...


@overload
def feature(*, formula: str = "", warmup: int | None = None, source: str = "") -> Callable[[F], F]: ...


def feature(
    function: F | None = None, *, formula: str = "", warmup: int | None = None, source: str = ""
) -> F | Callable[[F], F]:
    """Declare a function in a file of user features to be a feature.

    The function's name is the feature's; its arguments name the columns it gets (``open``, ``high``, ``low``,
    ``close``, ``volume``, ``amount``, ``close_traded``, ``log_close``, ``log_return``, ..., or another
    feature of the file), each float64 of shape (R,). It returns one float64 a row.

    Parameters
    ----------
    function : callable
        When used without brackets.
    formula : str
        For people; the returned expression when not given.
    warmup : int, optional
        Bars of a life without a value; measured when not given.
    source : str
        Where it comes from.
    """

    def declare(wanted: F) -> F:
        # in the file's own namespace: no state of ours remembers files that were loaded before
        found = wanted.__globals__.setdefault(_COLLECTED, [])
        found.append(_Declared(wanted.__name__, formula, warmup, source, wanted))
        return wanted

    return declare if function is None else declare(function)


def user_feature_sets(workspace: Workspace) -> tuple[FeatureSet, ...]:
    """Load the files that ``[features] files`` in the workspace's ``barcast.toml`` lists."""
    settings = workspace.settings.get("features", {})
    files = settings.get("files", []) if isinstance(settings, dict) else settings
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise UsageError(
            f"{workspace.root / 'barcast.toml'}: `features.files` is `{files!r}`",
            'give a list of files, as in [features] files = ["my_features.py"]',
        )
    return load_user_features([workspace.root / file for file in files])


def load_user_features(files: Iterable[Path]) -> tuple[FeatureSet, ...]:
    """Load files of user features; each becomes the set named like its file.

    Parameters
    ----------
    files : iterable of Path
        Python files. They are executed.

    Returns
    -------
    tuple of FeatureSet
        With the text of each file in ``files``; what was executed is that text.

    Raises
    ------
    UsageError
        On a file that cannot be run, a name that is taken, a function that fails or changes its input.
    LeakError
        On a feature that changes when later bars are removed.
    """
    sets: list[FeatureSet] = []
    for file in files:
        made = _load(file, {known.name for known in (*feature_sets(), *sets)})
        sets.append(made)
    return tuple(sets)


def _load(file: Path, taken: set[str]) -> FeatureSet:
    if file.stem in taken:
        raise UsageError(f"{file}: there is already a feature set called `{file.stem}`", "rename the file")
    text = _read(file)
    declared = _execute(file, text)
    _refuse_duplicates(file, declared)
    formulas = _returned_expressions(text)
    features = tuple(
        Feature(
            d.name,
            d.formula or formulas.get(d.name, ""),
            d.warmup or 0,
            d.source or str(file.name),
            d.compute,
        )
        for d in declared
    )
    try:
        made = FeatureSet(
            name=file.stem,
            features=features,
            description=f"{len(features)} features of {file.name}",
            scale_free=False,  # not claimed for code that we do not know
            files=(SourceFile(file, text),),
        )
        made = _with_warmups(made, declared)
        check_causal(made, made_up_bars((400 + made.max_warmup, 200 + made.max_warmup)))
    except BarcastError as error:
        raise type(error)(f"{file}: {error.found}", error.todo) from error
    return made


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"no file {file}", "mend [features] files in barcast.toml") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}", "save it as UTF-8 text") from error


def _execute(file: Path, text: str) -> Sequence[_Declared]:
    namespace: dict[str, Any] = {"__name__": f"barcast_user_features.{file.stem}", "__file__": str(file)}
    try:
        exec(compile(text, str(file), "exec"), namespace)
    except SyntaxError as error:
        raise UsageError(f"{file}, line {error.lineno}: {error.msg}", "mend the line named above") from error
    except Exception as error:
        line = next(
            (
                f.lineno
                for f in reversed(traceback.extract_tb(error.__traceback__))
                if f.filename == str(file)
            ),
            0,
        )
        hint = "put helpers into the same file: only its own text is kept with a run"
        raise UsageError(f"{file}, line {line}: {type(error).__name__}: {error}", hint) from error
    declared: Sequence[_Declared] = namespace.get(_COLLECTED, [])
    if not declared:
        raise UsageError(f"{file} declares no feature", "put @feature above a function")
    return declared


def _refuse_duplicates(file: Path, declared: Sequence[_Declared]) -> None:
    seen: dict[str, int] = {}
    for d in declared:
        line = d.compute.__code__.co_firstlineno
        if d.name in seen:
            raise UsageError(
                f"{file}, line {line}: the name `{d.name}` is taken in line {seen[d.name]}", "rename one"
            )
        seen[d.name] = line


def _returned_expressions(text: str) -> dict[str, str]:
    """Return each function's last returned expression as text: the formula of a one-liner."""
    found = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            returns = [part.value for part in ast.walk(node) if isinstance(part, ast.Return) and part.value]
            if returns:
                found[node.name] = ast.unparse(returns[-1])
    return found


def _with_warmups(made: FeatureSet, declared: Sequence[_Declared]) -> FeatureSet:
    """Measure the leading rows without a value; a declared warm-up may be longer, not shorter."""
    bars = made_up_bars((TRIAL_BARS + 2 * max((d.warmup or 0) for d in declared),))
    before = {name: getattr(bars, name).copy() for name in BAR_COLUMNS}
    values = compute_features(bars, made, num_threads=1)
    for name, column in before.items():
        if not np.array_equal(column, getattr(bars, name)):
            raise UsageError(
                f"a feature changes the column `{name}` it was given", "compute a new column instead"
            )
    features = []
    for made_feature, d, column in zip(made.features, declared, values.T, strict=True):
        known = np.flatnonzero(~np.isnan(column))
        if not len(known):
            raise UsageError(
                f"feature `{d.name}` has no value on {len(bars)} bars",
                "declare @feature(warmup=...) if it needs more bars than that",
            )
        features.append(replace(made_feature, warmup=max(int(known[0]), d.warmup or 0)))
    return replace(made, features=tuple(features))
