"""``barcast fleet export``: one symbol's model taken out of a fleet, as files that other programs read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barcast.core.atomic import atomic_path, refuse_folder
from barcast.core.config import to_plain
from barcast.core.errors import UsageError
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.fleet.ledger import LEDGER, Ledger, StoredModel
from barcast.pipeline.fleet_decay import serving_fleet, stored_fleet
from barcast.pipeline.fleet_origins import model_taught_until
from barcast.pipeline.fleet_universal import refuse_residual
from barcast.pipeline.settings import RunConfig, from_run
from barcast.store import MarketStore

#: Formats, and how their files end.
FORMATS = {"native": ".zip", "safetensors": ".safetensors", "onnx": ".onnx"}
#: How a file is loaded, by its ending.
_LOADED = {
    ".ubj": "xgboost.Booster(model_file=NAME).predict(xgboost.DMatrix(inputs))",
    ".txt": "lightgbm.Booster(model_file=NAME).predict(inputs)",
    ".npz": "numpy.load(NAME): sizes, feature, threshold, skip, value, base, scale of all its trees",
    ".safetensors": "safetensors.numpy.load_file(NAME): HORIZON.MEMBER.ARRAY; its metadata says the rule",
    ".onnx": 'onnxruntime.InferenceSession(NAME).run(None, {"inputs": inputs}): score and y_hat; '
    "its metadata says what they are",
}
_LOADED_NETWORK = "safetensors.torch.load_file(NAME): named as torch.nn.LSTM and GRU name them"


@dataclass(frozen=True)
class Exported:
    """A model that was taken out.

    Attributes
    ----------
    run, symbol : str
    taught_until : str
        When the last label became known that taught the model.
    served_by : str
        The run that `barcast predict` serves by: another one where a newer refit serves for this fleet.
    path : Path
    files : tuple of str
        What is in it: the names inside an archive, or its own.
    inputs : tuple of str
        Columns that the model reads, in order, normalised as the run did.
    booster_inputs : tuple of str
        Those of the libraries' own files: fewer where the symbol has features of its own.
    loaded : tuple of str
        How each kind of file is loaded.
    """

    run: str
    symbol: str
    taught_until: str
    served_by: str
    path: Path
    files: tuple[str, ...]
    inputs: tuple[str, ...]
    booster_inputs: tuple[str, ...]
    loaded: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def check_export(path: Path, kind: str = "") -> str:
    """Return the format of a file, by its ending unless it is said.

    Raises
    ------
    UsageError
        On a folder, a format that there is not, or a file that does not end as its format does.
    """
    refuse_folder(path)
    if kind and kind not in FORMATS:
        raise UsageError(f"--format {kind}: no such format", f"choose one of {', '.join(FORMATS)}")
    found = {ending: name for name, ending in FORMATS.items()}.get(path.suffix.lower(), "")
    if not found or kind not in ("", found):
        endings = ", ".join(f"{name} in {ending}" for name, ending in FORMATS.items() if kind in ("", name))
        raise UsageError(
            f"{path}: an exported model ends {endings}", f"--to {path.stem}{FORMATS[kind or 'native']}"
        )
    return found


def fleet_export(workspace: Workspace, symbol: str, to: Path, name: str = "", kind: str = "") -> Exported:
    """Write one symbol's model to a file.

    Parameters
    ----------
    symbol : str
        In any spelling.
    to : Path
        ``.zip``: each member of an ensemble in its library's own format; ``.safetensors``: all trees, or a
        network, as arrays; ``.onnx``: the final forecast.
    name : str
        A fleet; by default the newest, or its refit where it serves by one.
    kind : str
        ``native``, ``safetensors`` or ``onnx``; by default as the file ends.

    Raises
    ------
    UsageError
        As :func:`check_export`; when the symbol has no model of its own, a network is asked for its
        library's format, or the package onnx is not installed.
    RunError
        When the fleet is not finished.
    """
    wanted, run = check_export(to, kind), stored_fleet(workspace, name)
    refuse_residual(run, "export a model of a plain fleet: --run RUN")
    config = from_run(run.read("config.json"))
    (canonical,) = MarketStore.open(workspace.market).resolve((symbol,))
    names = _write(run, config, wanted, canonical, to)
    loaded = tuple(how for ending, how in _LOADED.items() if any(file.endswith(ending) for file in names))
    if wanted == "safetensors" and config.model != "fleet-trees":
        loaded = (_LOADED_NETWORK,)
    inputs = (*run.read("state.json")["features"], "validity")
    own = config.options.symbol_options.get(canonical, {}) if config.model == "fleet-trees" else {}
    return Exported(
        run.name, canonical, model_taught_until(run, canonical), serving_fleet(workspace, run).name, to,
        names, inputs, tuple(own.get("features") or inputs), loaded,
    )  # fmt: skip


def _write(run: RunFolder, config: RunConfig, kind: str, symbol: str, to: Path) -> tuple[str, ...]:
    """Write the file and return what is in it."""
    if kind == "onnx":
        from barcast.pipeline.fleet_onnx import write_onnx

        write_onnx(run, config, symbol, to)
        return (to.name,)
    with Ledger.open(run.fleet / LEDGER) as ledger:
        stored = ledger.model(symbol)
    if config.model == "fleet-trees":
        return _write_trees(stored, kind, symbol, to)
    if kind == "native":
        raise UsageError(
            f"`{run.name}` is no fleet of trees: safetensors is how its networks are kept",
            f"--to {to.stem}.safetensors, or --to {to.stem}.onnx",
        )
    with atomic_path(to) as temporary:
        temporary.write_bytes(stored.model)
    return (to.name,)


def _write_trees(stored: StoredModel, kind: str, symbol: str, to: Path) -> tuple[str, ...]:
    from barcast.fleet.trees.export import native_files, to_safetensors
    from barcast.fleet.trees.native import zipped

    if kind == "safetensors":
        to_safetensors(stored.model, to, symbol)
        return (to.name,)
    files = native_files(stored.model, stored.native, symbol)
    with atomic_path(to) as temporary:
        temporary.write_bytes(zipped(files))
    return tuple(files)
