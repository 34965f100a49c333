"""What a run is asked: data, model and training options, from defaults, ``barcast.toml``, a file and flags.

Later sources win, key by key. The resolved config is echoed at the start and saved with the run; no class is
named by import path anywhere in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from barcast.core.config import from_plain, load_toml, to_plain
from barcast.core.errors import UsageError
from barcast.core.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which bars, features, labels and segments."""

    symbols: tuple[str, ...] = ()
    """Symbols to use; empty means all of the store."""
    limit: int = 0
    """Use only the first so many symbols; 0 means all."""
    features: str = "tech48"
    horizons: tuple[int, ...] = (5,)
    """Sessions from entry to exit."""
    delay: int = 1
    """Sessions from decision to entry."""
    target: Literal["auto", "rank", "return", "volatility_scaled"] = "auto"
    """``auto``: rank within the session, or volatility-scaled for a small universe."""
    segments: tuple[str, ...] = ()
    """Last day of fit, stop, weigh, route, test (``2022-12`` or ``2022-12-30``); empty: by shares."""
    shares: tuple[float, ...] = (0.60, 0.08, 0.08, 0.08, 0.16)
    """Shares of the sessions where no dates are given."""
    asof: str = ""
    """Last session that may be known; empty means the store's last."""
    quality: dict[str, str] = field(default_factory=dict)
    """Policy by kind of defect where it differs from the default."""
    hold_out_fold: int = -1
    """0 .. 19: keep this twentieth of the symbols out of training; -1 keeps none out."""

    def __post_init__(self) -> None:
        if self.segments and len(self.segments) != 5:
            raise UsageError(
                f"`segments` takes five dates (fit, stop, weigh, route, test), got {len(self.segments)}",
                "--segments 2022-12,2023-04,2023-08,2023-12,2025-08-22",
            )
        if not -1 <= self.hold_out_fold < 20 or self.limit < 0:
            raise UsageError("`hold_out_fold` is -1 or 0 .. 19 and `limit` is not negative")


@dataclass(frozen=True)
class RunConfig:
    """Everything that shapes a run.

    Attributes
    ----------
    model : str
        Registered name.
    seed : int
        Of everything random.
    data : DataConfig
    options : object
        The model's own frozen dataclass.
    train : TrainConfig or None
        Options of the loop; None for models that the loop does not train.
    """

    model: str
    seed: int
    data: DataConfig
    options: Any
    train: Any

    def plain(self) -> dict[str, Any]:
        """Return the config as plain values, as saved in config.json."""
        found: dict[str, Any] = to_plain(self)
        return found


def resolve(
    workspace: Workspace, model: str, flags: Mapping[str, Any] | None = None, file: Path | None = None
) -> RunConfig:
    """Merge defaults, ``barcast.toml``, ``--config FILE`` and flags (flat names; None means not given).

    Raises
    ------
    UsageError
        On an unknown key or a value of the wrong kind, with the file or flag it came from.
    """
    from barcast.models.registry import model_entry  # local: brings torch along
    from barcast.training.loop import TrainConfig

    entry = model_entry(model)
    if entry.kind == "naive":
        raise UsageError(
            f"`{model}` is a rule: there is nothing to train", "every comparison holds it already"
        )
    kinds: dict[str, type] = {"data": DataConfig, "train": TrainConfig, "options": entry.config}
    merged: dict[str, dict[str, Any]] = {name: {} for name in kinds}
    seed = 0
    for where, source in (("barcast.toml", workspace.settings), (str(file), load_toml(file) if file else {})):
        seed = _whole(source.get("seed", seed), f"{where}: seed")
        for section, table in (("data", "data"), ("train", "train"), ("options", model)):
            merged[section].update(_only_tables(source.get(table, {}), f"{where} [{table}]"))
    for name, value in (flags or {}).items():
        if value is None:
            continue
        if name == "seed":
            seed = _whole(value, "seed")
            continue
        owner = next((part for part, kind in kinds.items() if name in {f.name for f in fields(kind)}), None)
        if owner is None:
            raise UsageError(f"`{name}` is not an option of model `{model}`", "barcast train --help")
        merged[owner][name] = value
    data = from_plain(DataConfig, merged["data"], "data")
    options: Any = from_plain(entry.config, merged["options"], model)
    train = None
    if entry.kind == "network":
        train = from_plain(TrainConfig, {**merged["train"], "seed": seed}, "train")
    return RunConfig(model, seed, data, options, train)


def from_run(plain: Mapping[str, Any]) -> RunConfig:
    """Build the config again from a run's config.json."""
    from barcast.models.registry import model_entry
    from barcast.training.loop import TrainConfig

    entry = model_entry(plain["model"])
    return RunConfig(
        plain["model"],
        plain["seed"],
        from_plain(DataConfig, plain["data"], "data"),
        from_plain(entry.config, plain["options"], plain["model"]),
        from_plain(TrainConfig, plain["train"], "train") if plain["train"] else None,
    )


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{where}: expected a whole number, found `{value!r}`")
    return value


def _only_tables(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: expected a table of options, found `{value!r}`")
    return value
