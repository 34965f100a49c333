"""The list of models: registering one is enough for the commands to offer it and the tests to run it.

Five kinds: a *network* is trained by the one loop in ``training``; a *tabular* model sees one row of
normalised features at a time; a *fleet* has a model of its own for each symbol; a *routed* one is
made of two runs; a *naive* rule has nothing to train. None of them knows files or frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from barcast.core.config import meant
from barcast.core.errors import UsageError

Kind = Literal["network", "tabular", "fleet", "routed", "naive"]
#: Kinds that read inputs as rows of features, which mean the same in every window.
ROW_MODELS: tuple[Kind, ...] = ("tabular", "fleet")
T = TypeVar("T")


@dataclass(frozen=True)
class ModelEntry:
    """One registered model.

    Attributes
    ----------
    name : str
        What users type.
    kind : str
        ``network``, ``tabular``, ``fleet``, ``routed`` or ``naive``.
    config : type
        Frozen dataclass of its options.
    build : callable
        Network: ``build(config, sizes) -> nn.Module``; tabular: ``build(config, seed)``; naive: the rule.
    loss : callable or None
        Network: ``loss(prediction, target, num_labels)``, the sum over known labels over ``num_labels``.
    supports_stretches : bool
        Whether K predictions of one pass equal K windows in meaning (causal models only).
    summary : str
        One line for ``barcast train --list``.
    sizes : mapping of str to mapping
        Presets, smallest first: options by name. The same names mean about the same number of parameters
        in every model that has them.
    data_defaults : mapping of str to Any
        Options of the data whose default differs for this model.
    """

    name: str
    kind: Kind
    config: type
    build: Callable[..., Any]
    loss: Callable[..., Any] | None
    supports_stretches: bool
    summary: str
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data_defaults: Mapping[str, Any] = field(default_factory=dict)


_ENTRIES: dict[str, ModelEntry] = {}


def register(
    name: str,
    kind: Kind,
    config: type,
    *,
    summary: str,
    loss: Callable[..., Any] | None = None,
    supports_stretches: bool = False,
    sizes: Mapping[str, Mapping[str, Any]] | None = None,
    data_defaults: Mapping[str, Any] | None = None,
) -> Callable[[T], T]:
    """Register the decorated class or function under ``name``; a name taken twice is a bug of ours."""

    def decorate(build: T) -> T:
        assert name not in _ENTRIES, f"model {name} registered twice"
        entry = ModelEntry(
            name, kind, config, build, loss, supports_stretches, summary, sizes or {}, data_defaults or {}  # type: ignore[arg-type]
        )  # fmt: skip
        _ENTRIES[name] = entry
        return build

    return decorate


def model_entries() -> tuple[ModelEntry, ...]:
    """Return every registered model, naive rules first."""
    _import_all()
    order = {"naive": 0, "tabular": 1, "network": 2, "fleet": 3, "routed": 4}
    return tuple(sorted(_ENTRIES.values(), key=lambda entry: (order[entry.kind], entry.name)))


def model_entry(name: str) -> ModelEntry:
    """Return one model.

    Raises
    ------
    UsageError
        With the known names.
    """
    _import_all()
    if name not in _ENTRIES:
        trainable = [entry.name for entry in model_entries() if entry.kind not in ("naive", "routed")]
        hint = f"{meant(name, trainable)} choose one of {', '.join(trainable)}"
        raise UsageError(f"no model called `{name}`", hint.strip())
    return _ENTRIES[name]


def _import_all() -> None:
    """Import every model file; here rather than at import time, because they bring torch along."""
    from barcast.models import dedicated, gru, lightgbm, lstm, mlp, naive, ridge, transformer  # noqa: F401
