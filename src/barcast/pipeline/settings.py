"""What a run is asked: data, model and training options, from defaults, ``barcast.toml``, a file and flags.

Later sources win, key by key. The resolved config is echoed at the start and saved with the run; no class is
named by import path anywhere in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from barcast.core.config import (
    also_called,
    from_plain,
    items,
    meant,
    nearest,
    read_values,
    some_items,
    takes_several,
    to_plain,
)
from barcast.core.durations import moment_of
from barcast.core.errors import UsageError
from barcast.core.workspace import Workspace
from barcast.labels import LabelSpec
from barcast.pipeline.chosen import Sized, Tuned
from barcast.pipeline.settings_file import load_settings
from barcast.planning.machine import is_target
from barcast.tracking.config import track_settings
from barcast.training.config import LATER_OPTIONS, TrainConfig, check_no_slip, lr_for

if TYPE_CHECKING:
    from barcast.core.progress import Progress
    from barcast.models.registry import ModelEntry

#: What a run reads of any settings file, besides one table a model; and what only ``barcast.toml`` may hold.
TABLES, WORKSPACE_TABLES = ("seed", "data", "train", "tuned"), ("quality", "features", "track")
#: Lists whose being empty means everything; of the others it means nothing.
_CHOOSES = ("symbols",)


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
    target: Literal["auto", "rank", "return", "volatility_scaled", "direction", "quantiles"] = "auto"
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
        LabelSpec(horizons=self.horizons, delay=self.delay)  # refuses what labels could not be made of
        moment_of(self.asof)
        if self.segments and len(self.segments) != 5:
            raise UsageError(
                f"`segments` takes five dates (fit, stop, weigh, route, test), got {len(self.segments)}",
                "--segments 2022-12,2023-04,2023-08,2023-12,2025-08-22",
            )
        if not -1 <= self.hold_out_fold < 20:
            raise UsageError(
                f"[data] `hold_out_fold` must be -1 or 0 .. 19, got {self.hold_out_fold}",
                "without it nothing is held out",
            )
        if self.limit < 0:
            raise UsageError(
                f"[data] `limit` must be 0 or more, got {self.limit}", "without it nothing is limited"
            )


#: Tables that every model shares.
_SHARED: dict[str, type] = {"data": DataConfig, "train": TrainConfig}


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
    tuned : Tuned or None
        The search that chose the options.
    sized : Sized or None
        How the size was chosen, where nobody named one.
    """

    model: str
    seed: int
    data: DataConfig
    options: Any
    train: TrainConfig | None
    tuned: Tuned | None = None
    sized: Sized | None = None

    @property
    def num_seeds(self) -> int:
        """Networks of the run."""
        return 1 if self.train is None else self.train.num_seeds

    @property
    def row_name(self) -> str:
        """How the model is called in the predictions table: an ensemble is no single network."""
        return self.model if self.num_seeds == 1 else f"{self.model}, mean of {self.num_seeds} seeds"

    def plain(self) -> dict[str, Any]:
        """Return the config as plain values, as saved in config.json."""
        found: dict[str, Any] = to_plain(replace(self, tuned=None, sized=None))
        del found["tuned"], found["sized"]
        return found

    def identity(self) -> dict[str, Any]:
        """Return the part of ``plain()`` that shapes the result: how often it is saved does not.

        A number of threads that is measured is none that was asked for.
        """
        found = self.plain()
        if found["options"].get("on") == "target":  # fleets of before there were others keep their names
            del found["options"]["on"], found["options"]["universal"]
        if self.train is not None:
            found["train"]["checkpoint_seconds"] = TrainConfig.checkpoint_seconds
            if not self.train.threads:
                del found["train"]["threads"]
            del found["train"]["warm_start"]  # what shapes the result are that run's weights, not its name
            for name in LATER_OPTIONS:
                if found["train"][name] == getattr(TrainConfig, name):
                    del found["train"][name]
            if not found["options"].get("static", True):
                del found["options"]["static"]  # runs of before there were attributes keep their names
        return found


def server_of(config: RunConfig) -> str:
    """Return what the predictions table calls a run's model in its column ``route``."""
    from barcast.models.registry import model_entry

    return "dedicated" if model_entry(config.model).kind == "fleet" else "universal"


def resolve(
    workspace: Workspace, model: str, flags: Mapping[str, Any] | None = None, file: Path | None = None,
    *, compare_sizes: bool = False, progress: Progress | None = None,
) -> RunConfig:  # fmt: skip
    """Merge defaults, ``barcast.toml``, ``--config FILE`` and flags (flat names; None means not given).

    The size ``auto`` is chosen here, so that the config holds widths and not the word; ``progress`` says why.
    A plan alone chooses it, and nothing is trained, unless ``compare_sizes`` lets `stop` choose among those
    that the plan lets through.

    Raises
    ------
    UsageError
        On an unknown table or key or a value of the wrong kind, with the file or flag it came from; on an
        option that the model would ignore; on a device that this machine does not have.
    """
    from barcast.models.registry import model_entry  # local: brings torch along

    entry = model_entry(model)
    if entry.kind == "naive":
        raise UsageError(
            f"`{model}` is a rule: there is nothing to train", "every comparison holds it already"
        )
    if entry.kind == "routed":
        raise UsageError("a routed run is made of two that are finished", "barcast route UNIVERSAL FLEET")
    kinds = {**_SHARED, model: entry.config}
    merged = _from_files(workspace, file, {**kinds, "tuned": Tuned})
    merged["data"] = {**entry.data_defaults, **merged["data"]}
    tuned = _tuned(merged.pop("tuned"), model, file)
    flags = dict(flags or {})
    size, minutes, sized = flags.pop("size", None), flags.pop("time_budget", None), None
    if size == "auto":
        from barcast.pipeline.size import choose_size  # local: it resolves configs itself

        sized = choose_size(
            workspace, model, flags, file, minutes=minutes, compare=compare_sizes, progress=progress
        )
        merged[model].update(sized.options)
        tuned = sized.beside(tuned, model)
    elif minutes is not None:
        raise UsageError("`time_budget` is read by --size auto alone", "--size auto --time-budget 60")
    else:
        merged[model].update(_preset(entry, size))
    for name, value in flags.items():
        if value is not None:
            owner, read = _read_flag(entry, kinds, name, value)
            merged[owner].update(read)
    seed = _whole(merged[""].get("seed", 0), "seed")
    if own := merged[model].get("symbol_options"):
        from barcast.pipeline.searched import without_searches  # local: it reads configs itself

        preset = merged[model].get("preset", vars(entry.config)["preset"])
        merged[model]["symbol_options"], tuned = without_searches(own, model, preset, tuned)
    options = entry.config(**merged[model])
    train = _loop(options, merged["train"], seed) if entry.kind == "network" else None
    return RunConfig(model, seed, DataConfig(**merged["data"]), options, train, tuned, sized)


def _loop(options: Any, given: Mapping[str, Any], seed: int) -> TrainConfig:
    """Return the options of the loop for a network; refuse slips, and a device that is not there."""
    from barcast.training.networks import check_device  # local: brings torch along

    train = TrainConfig(**{"lr": lr_for(options.hidden_size), **given}, seed=seed)
    check_no_slip(train)
    check_device(train.device)
    return train


def _read_flag(
    entry: ModelEntry, kinds: Mapping[str, type], name: str, value: Any
) -> tuple[str, dict[str, Any]]:
    """Return the table that an option belongs to ('' for none) and its value as that table holds it.

    Raises
    ------
    UsageError
        On an option that the model does not have, or a value of the wrong kind.
    """
    if name == "seed":
        return "", {name: value}
    read = [part for part in kinds if part != "train" or entry.kind == "network"]
    owner = next((part for part in read if name in _names(kinds[part])), None)
    if owner is None:
        raise UsageError(f"`{name}` is not an option of model `{entry.name}`", _options_meant(name, entry))
    if name == "target" and is_target(value):
        raise UsageError(
            f"--target {value}: that is a machine to plan for, not what to train on",
            f"barcast plan train {entry.name} --target {value}",
        )
    if takes_several(kinds[owner], name):
        value = (some_items if name in _CHOOSES else items)(value, f"{owner}.{name}")
    return owner, read_values(kinds[owner], {name: value}, owner)


def _tuned(told: Mapping[str, Any], model: str, file: Path | None) -> Tuned | None:
    """Return the search that chose the options; what it chose for another model is none of this one's.

    Raises
    ------
    UsageError
        When a file was named for this run that holds the options of another model.
    """
    if not told:
        return None
    tuned = Tuned(**told)
    if tuned.model == model:
        return tuned
    if file is not None and "tuned" in load_settings(file):
        raise UsageError(
            f"{file}: `{tuned.run}` chose these options for {tuned.model}, not {model}",
            f"barcast train {tuned.model} --config {file}",
        )
    return None


def _preset(entry: ModelEntry, size: str | None) -> Mapping[str, Any]:
    """Return the options that a size stands for; options that are given beside it win."""
    if size is None:
        return {}
    if size not in entry.sizes:
        known = (
            f"--size {', '.join(entry.sizes)} or auto"
            if entry.sizes
            else f"leave --size out for {entry.name}"
        )
        raise UsageError(f"model `{entry.name}` has no size `{size}`", known)
    return entry.sizes[size]


def _from_files(
    workspace: Workspace, file: Path | None, kinds: Mapping[str, type]
) -> dict[str, dict[str, Any]]:
    """Merge ``barcast.toml`` and ``file`` by table; what stands above the tables goes by the name ''."""
    check_workspace(workspace)
    sources = [(workspace.settings_file, workspace.settings)]
    if file is not None:
        sources.append((file, load_settings(file)))
        _check_names(*sources[-1], allowed=TABLES)
    merged: dict[str, dict[str, Any]] = {name: {} for name in ("", *kinds)}
    for path, source in sources:
        if "seed" in source:
            merged[""]["seed"] = _whole(source["seed"], f"{path}: seed")
        for table, kind in kinds.items():
            values, where = source.get(table, {}), f"{path}: {table}"
            if not isinstance(values, Mapping):
                raise UsageError(f"{where}: expected a table of options, found `{values!r}`")
            if kind is TrainConfig and "seed" in values:
                raise UsageError(f"{where}: `seed` is of the whole run", "put it above the tables: seed = 1")
            merged[table].update(read_values(kind, values, where))
    return merged


def check_workspace(workspace: Workspace) -> None:
    """Refuse what nothing would read in the workspace's ``barcast.toml``.

    Raises
    ------
    UsageError
        With the file and the nearest name.
    """
    path, source = workspace.settings_file, workspace.settings
    _check_names(path, source, allowed=(*TABLES, *WORKSPACE_TABLES))
    if not isinstance(source.get("quality", {}), Mapping):
        raise UsageError(f"{path}: quality: expected a table, found `{source['quality']!r}`")
    features = source.get("features", {})
    for name in features if isinstance(features, Mapping) else ():
        if name != "files":
            raise UsageError(f"{path}: features: unknown key `{name}`", nearest(name, ["files"]))
    track_settings(workspace)


def _check_names(path: Path, source: Mapping[str, Any], *, allowed: tuple[str, ...]) -> None:
    unknown = [name for name in source if name not in allowed]
    if not unknown:
        return
    from barcast.models.registry import model_entries  # local: brings torch along

    models = [entry.name for entry in model_entries() if entry.kind != "naive"]
    for name in unknown:
        if name in models:
            continue
        owner = next((table for table, kind in _SHARED.items() if name in _names(kind)), None)
        if name in WORKSPACE_TABLES:
            todo = "it is of the whole workspace: put it into its barcast.toml"
        elif owner:
            todo = f"it is a key of the table [{owner}]"
        else:
            todo = nearest(name, [*allowed, *models])
        raise UsageError(f"{path}: nothing reads `{name}`", todo)


def _names(kind: type) -> set[str]:
    return {f.name for f in fields(kind)}


def _options_meant(name: str, entry: ModelEntry) -> str:
    """Say which option of a model was meant, which models have it, or where all options are listed."""
    from barcast.models.registry import model_entries

    own = [DataConfig, entry.config, *[TrainConfig] * (entry.kind == "network")]
    if known := next(filter(None, (also_called(kind, name) for kind in own)), ""):
        return known
    takers = [
        entry.name
        for entry in model_entries()
        if name in _names(entry.config) or (entry.kind == "network" and name in _names(TrainConfig))
    ]
    if takers:
        return f"models that take it: {', '.join(takers)}"
    return meant(name, sorted({"seed", "size"}.union(*map(_names, own)))) or "barcast train --help"


def from_run(plain: Mapping[str, Any]) -> RunConfig:
    """Build the config again from a run's config.json."""
    from barcast.models.registry import model_entry

    entry = model_entry(plain["model"])
    return RunConfig(
        plain["model"],
        plain["seed"],
        from_plain(DataConfig, plain["data"], "data"),
        from_plain(entry.config, plain["options"], plain["model"]),
        from_plain(TrainConfig, plain["train"], "train") if plain["train"] else None,
    )


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        wanted = "a whole number of 0 or more" if isinstance(value, int) else "a whole number"
        raise UsageError(
            f"{where}: expected {wanted}, found `{value!r}`", "0 or more, as in seed = 7 or --seed 7"
        )
    return value
