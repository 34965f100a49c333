"""``barcast fleet export``: one symbol's model taken out of a fleet, as files that other programs read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barcast.core.atomic import atomic_path, refuse_folder
from barcast.core.config import to_plain
from barcast.core.errors import UsageError
from barcast.core.workspace import Workspace
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.pipeline.fleet_verbs import fleet_run
from barcast.pipeline.settings import from_run
from barcast.pipeline.unfinished import check_done
from barcast.store import MarketStore

#: Formats, and how their files end.
FORMATS = {"native": ".zip", "safetensors": ".safetensors"}
#: How a file is loaded, by its ending.
_LOADED = {
    ".ubj": "xgboost.Booster(model_file=NAME).predict(xgboost.DMatrix(inputs))",
    ".txt": "lightgbm.Booster(model_file=NAME).predict(inputs)",
    ".npz": "numpy.load(NAME): sizes, feature, threshold, skip, value, base, scale of all its trees",
    ".safetensors": "safetensors.numpy.load_file(NAME): HORIZON.MEMBER.ARRAY; its metadata says the rule",
}


@dataclass(frozen=True)
class Exported:
    """A model that was taken out.

    Attributes
    ----------
    run, symbol : str
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
        ``.zip``: each member in its library's own format; ``.safetensors``: all trees as flat arrays.
    name : str
        A fleet; by default the newest.
    kind : str
        ``native`` or ``safetensors``; by default as the file ends.

    Raises
    ------
    UsageError
        As :func:`check_export`; when the symbol has no model of its own, or the fleet is none of trees.
    RunError
        When the fleet is not finished.
    """
    from barcast.fleet.trees.export import native_files, to_safetensors
    from barcast.fleet.trees.native import zipped

    wanted, run = check_export(to, kind), fleet_run(workspace, name)
    check_done(run)
    if run.info["model"] != "fleet-trees":
        raise UsageError(
            f"`{run.name}` is no fleet of trees: its models have no such formats",
            "name one: barcast fleet export SYMBOL --to FILE.zip --run RUN",
        )
    (canonical,) = MarketStore.open(workspace.market).resolve((symbol,))
    with Ledger.open(run.fleet / LEDGER) as ledger:
        stored = ledger.model(canonical)
    if wanted == "safetensors":
        to_safetensors(stored.model, to, canonical)
        names: tuple[str, ...] = (to.name,)
    else:
        files = native_files(stored.model, stored.native, canonical)
        with atomic_path(to) as temporary:
            temporary.write_bytes(zipped(files))
        names = tuple(files)
    loaded = tuple(how for ending, how in _LOADED.items() if any(file.endswith(ending) for file in names))
    inputs = (*run.read("state.json")["features"], "validity")
    own = from_run(run.read("config.json")).options.symbol_options.get(canonical, {})
    return Exported(run.name, canonical, to, names, inputs, tuple(own.get("features") or inputs), loaded)
