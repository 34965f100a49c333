"""What a dedicated network is, by name: a ladder of widths, and what may differ from symbol to symbol.

Options are called as the universal models' flags are. Those of :data:`SHAPES` decide what one step of a
batch looks like: symbols that differ in them train in batches of their own. All others differ freely inside
a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from barcast.core.config import meant
from barcast.core.errors import UsageError

Kind = Literal["lstm", "gru"]

#: Options that symbols of one batch share.
SHAPES = (
    "kind", "hidden_size", "num_layers", "dropout", "look_back_window", "stretch_length", "batch_size",
)  # fmt: skip
_TODO = "mend the flag, or the symbol's table of --symbol-config; without it the preset's value is taken"


@dataclass(frozen=True, kw_only=True)
class NetworkPreset:
    """Options of one symbol's network and of its training."""

    kind: Kind = "lstm"
    hidden_size: int = 64
    """Width D of the recurrent state."""
    num_layers: int = 1
    """Stacked layers."""
    dropout: float = 0.1
    """Between layers and before the head; what is dropped follows from the symbol's seed and step alone."""
    look_back_window: int = 60
    """L, own bars a prediction reads."""
    stretch_length: int = 120
    """K, predictions of one pass; 1 trains on plain windows."""
    batch_size: int = 480
    """Labels a step, ``batch_size // stretch_length`` stretches."""
    epochs: int = 30
    """Most epochs; early stopping usually ends sooner."""
    patience: int = 6
    """Epochs without a better score on `stop` before training ends."""
    fixed_epochs: int = 0
    """End after so many epochs of the schedule and keep what is there, as a refit does, which has no `stop`;
    0: early stopping."""
    lr: float = 0.0
    """Highest learning rate, after warm-up; 0: 3e-3 up to width 64, beyond in inverse proportion."""
    weight_decay: float = 1e-2
    warmup: float = 0.05
    """Share of all steps."""
    clip: float = 1.0
    """Largest gradient norm."""
    normalise: Literal["symbol", "none"] = "symbol"
    """Z-scores as fitted on the symbol's `fit` rows, or inputs as they are."""
    features: tuple[int, ...] = ()
    """Inputs the network sees, by position; empty: all. The others read as 0."""
    min_rows: int = 250
    """Fewer known labels in `fit` than this are too few for a network of one's own."""

    def __post_init__(self) -> None:
        whole = ("hidden_size", "num_layers", "look_back_window", "stretch_length", "epochs", "patience",
                 "min_rows")  # fmt: skip
        least_zero = ("lr", "weight_decay", "fixed_epochs")
        fits = {
            **{name: (getattr(self, name) >= 1, "at least 1") for name in whole},
            **{name: (0 <= getattr(self, name) < 1, "in [0, 1)") for name in ("dropout", "warmup")},
            **{name: (getattr(self, name) >= 0, "0 or more") for name in least_zero},
            "batch_size": (self.batch_size >= self.stretch_length, "at least one stretch, `stretch_length`"),
            "clip": (self.clip > 0, "positive"),
            "kind": (self.kind in ("lstm", "gru"), "lstm or gru"),
            "normalise": (self.normalise in ("symbol", "none"), "symbol or none"),
        }
        for name, (fine, wanted) in fits.items():
            if not fine:
                raise UsageError(f"`{name}` must be {wanted}, got {getattr(self, name)}", _TODO)

    @property
    def num_stretches(self) -> int:
        """Stretches of a step, B."""
        return self.batch_size // self.stretch_length

    @property
    def shape(self) -> tuple[Any, ...]:
        """What symbols of one batch have in common."""
        return tuple(getattr(self, name) for name in SHAPES)


def presets(kind: Kind) -> dict[str, NetworkPreset]:
    """Return the ladder of a kind, narrow to wide: ``lstm-16``, ``-32``, ``-64``, ``-128x2``, ``-256x3``."""
    ladder: dict[str, dict[str, Any]] = {
        "16": {"hidden_size": 16},
        "32": {"hidden_size": 32},
        "64": {"hidden_size": 64},
        "128x2": {"hidden_size": 128, "num_layers": 2},
        "256x3": {"hidden_size": 256, "num_layers": 3},
    }
    return {f"{kind}-{rung}": NetworkPreset(kind=kind, **options) for rung, options in ladder.items()}


def resolve(kind: Kind, name: str, *overrides: Mapping[str, Any]) -> NetworkPreset:
    """Return a preset with options replaced, later mappings over earlier ones.

    Raises
    ------
    UsageError
        For an unknown preset or option, or a value out of range.
    """
    known = presets(kind)
    if name not in known:
        raise UsageError(f"no preset called `{name}`", f"choose one of {', '.join(known)}")
    options = {key: value for mapping in overrides for key, value in mapping.items()}
    names = [field.name for field in fields(NetworkPreset) if field.name != "kind"]
    for key in options:
        if key not in names:
            hint = f"{meant(key, names)} known are {', '.join(names)}"
            raise UsageError(f"dedicated networks have no option `{key}`", hint.strip())
    if "features" in options:
        options["features"] = tuple(int(position) for position in options["features"])
    return replace(known[name], **options)
