"""A run is a folder: what was asked, what it saw, what it learned, how well, and how to make it again.

::

    runs/<model>-<id>/
        run.json               status, identity, command, times, sizes
        config.json            the resolved config
        environment.json       versions and machine
        metrics.jsonl          one line an evaluation
        checkpoint.safetensors only while training
        weights.safetensors    the model; of a fleet fleet/: its ledger, and models.bin
        state.json             universe, vocabulary, scaler, calibration
        predictions.parquet    the predictions table
        comparison.json, report.html, card.md, quality.json
        features/              source of user features

Its identity is the hash of the resolved config, the data cutoff and the digest of the rows up to it: later
bars make a new run, a correction inside makes a changed one.
"""

from __future__ import annotations

import difflib
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from barcast.core.atomic import read_json, write_json, write_text
from barcast.core.champion import ALIAS, champion_name
from barcast.core.config import digest, to_plain
from barcast.core.errors import RunError, explained
from barcast.core.workspace import Workspace

#: Every symbol's fate and model, and all models of a fleet of trees in one file that is derived from it.
FLEET_LEDGER, PACKED_FLEET = "fleet.sqlite", "models.bin"
_PACKAGES = ("barcast", "torch", "numpy", "polars", "numba", "lightgbm", "deltalake", "pyarrow")


@dataclass(frozen=True)
class RunFolder:
    """One run on disk."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name, which users type."""
        return self.path.name

    @property
    def checkpoint(self) -> Path:
        """Where an unfinished training rests."""
        return self.path / "checkpoint.safetensors"

    @property
    def weights(self) -> Path:
        """The trained model; of a fleet its packed models, or else the ledger that holds them."""
        of_fleet = (self.fleet / PACKED_FLEET, self.fleet / FLEET_LEDGER)
        return next((path for path in of_fleet if path.is_file()), self.path / "weights.safetensors")

    @property
    def fleet(self) -> Path:
        """Where a fleet keeps its ledger and its models."""
        return self.path / "fleet"

    @property
    def predictions(self) -> Path:
        """The predictions table."""
        return self.path / "predictions.parquet"

    @property
    def metrics(self) -> Path:
        """One JSON line an evaluation."""
        return self.path / "metrics.jsonl"

    def read(self, name: str) -> Any:
        """Read one of the folder's JSON files.

        Raises
        ------
        RunError
            When it is not there, or damaged.
        """
        path = self.path / name
        if not path.is_file():
            raise RunError(f"run `{self.name}` has no {name}", f"is {self.path} a finished run?")
        try:
            return read_json(path)
        except ValueError as error:
            raise RunError(
                f"{path} is damaged: {error}", "restore it, or remove the folder and train again"
            ) from error

    def write(self, name: str, value: Any) -> None:
        """Write one of the folder's JSON files atomically."""
        write_json(self.path / name, to_plain(value))

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json."""
        found: dict[str, Any] = self.read("run.json")
        return found

    def update(self, **values: Any) -> None:
        """Change entries of run.json."""
        self.write("run.json", {**self.info, **values})

    def complete(self, **values: Any) -> None:
        """Change entries of run.json, and mark the run done as of now."""
        self.update(status="done", finished=_now(), **values)

    @property
    def recorded(self) -> dict[str, Any]:
        """The content of run.json, empty for a bare folder."""
        return self.info if (self.path / "run.json").is_file() else {}

    @property
    def is_done(self) -> bool:
        """Whether training and predictions are complete."""
        return (self.path / "run.json").is_file() and self.info.get("status") == "done"

    def append_metrics(self, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with explained("writing", self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(to_plain(values)) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read every whole line of metrics.jsonl; a line cut by a kill is left out."""
        if not self.metrics.is_file():
            return []
        lines = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return lines

    def keep_metrics(self, until_step: int) -> None:
        """Forget lines later than ``until_step``: a resumed run writes them again."""
        kept = [line for line in self.read_metrics() if line["step"] <= until_step]
        write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))


def open_run(workspace: Workspace, name: str) -> RunFolder:
    """Find a run by its name, a unique beginning of it, or a path; ``champion`` is the run that was promoted.

    Raises
    ------
    RunError
        With the nearest names.
    """
    if name == ALIAS:
        return _champion(workspace)
    given = Path(name)
    if (given / "run.json").is_file():
        return RunFolder(given.resolve())
    runs = list_runs(workspace)
    exact = [run for run in runs if run.name == name]
    found = exact or [run for run in runs if run.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(run.name for run in found)
        raise RunError(f"`{name}` begins the names of several runs: {names}", "give more of the name")
    if search := _search(workspace, name):
        raise RunError(
            f"`{search}` is a search, no run",
            f"{command_to_type(workspace, 'train', '--tuned', search)}   (trains its best)",
        )
    if not runs:
        raise RunError(f"no run called `{name}`: this workspace has none yet", "barcast train lstm")
    near = difflib.get_close_matches(name, [run.name for run in runs], n=3, cutoff=0.3)
    nearest = ", ".join(near or [run.name for run in runs[-3:]])
    raise RunError(f"no run called `{name}`; the nearest: {nearest}", "barcast runs   (lists all of them)")


def _search(workspace: Workspace, name: str) -> str:
    """Return the search that is meant by a name, the beginning of it or a path; empty where none is."""
    if (Path(name) / "tune.json").is_file():
        return Path(name).resolve().name
    names = sorted(path.parent.name for path in workspace.runs.glob("tune-*/tune.json"))
    return next((each for each in names if each.startswith(name)), "")


def _champion(workspace: Workspace) -> RunFolder:
    run = RunFolder(workspace.runs / champion_name(workspace))
    if not run.path.is_dir():
        raise RunError(
            f"the champion `{run.name}` is no longer in {workspace.runs}",
            "barcast rollback, or barcast promote RUN",
        )
    return run


def list_runs(workspace: Workspace) -> list[RunFolder]:
    """Return the runs, oldest first; folders whose run.json cannot be read are left out (`broken_runs`)."""
    infos = {run: info for run in _run_folders(workspace) if (info := _info_or_none(run)) is not None}
    return sorted(infos, key=lambda run: (str(infos[run].get("created", "")), run.name))


def by_activity(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """Return runs in the order in which a command last took them up or finished them, the latest last.

    A folder is made when its run begins: a dry run may be much older than the fleet that it became.
    """

    def last(run: RunFolder) -> str:
        info = run.info
        return max(str(info.get(name, "")) for name in ("created", "started", "finished"))

    return sorted(runs, key=last)


def broken_runs(workspace: Workspace) -> list[RunFolder]:
    """Return the folders whose run.json cannot be read, by name."""
    return [run for run in _run_folders(workspace) if _info_or_none(run) is None]


def _run_folders(workspace: Workspace) -> list[RunFolder]:
    return [RunFolder(path.parent) for path in sorted(workspace.runs.glob("*/run.json"))]


def _info_or_none(run: RunFolder) -> dict[str, Any] | None:
    try:
        info = run.info
    except (RunError, OSError):
        return None
    return info if isinstance(info, dict) else None


def run_identity(config: Mapping[str, Any], cutoff: str, data_digest: str) -> str:
    """Return the run's id: equal inputs give equal ids on every machine."""
    return digest({"config": config, "cutoff": cutoff, "data": data_digest})


def start_run(
    workspace: Workspace, model: str, identity: str, config: Mapping[str, Any], info: Mapping[str, Any]
) -> RunFolder:
    """Make the folder of a run (or take up an unfinished one) and write down what it is before computing."""
    run = run_folder(workspace, model, identity)
    with explained("making", run.path):
        run.path.mkdir(parents=True, exist_ok=True)
    now = _now()
    facts = {"command": command_line(), "status": "running", "started": now, **info}
    if (run.path / "run.json").is_file():
        run.update(**facts, reason=None)
    else:
        run.write("run.json", {"name": run.name, "id": identity, "model": model, "created": now, **facts})
    run.write("config.json", config)
    run.write("environment.json", environment())
    return run


def _now() -> str:
    return datetime.now(UTC).isoformat()


def run_folder(workspace: Workspace, model: str, identity: str) -> RunFolder:
    """Return where the run of this identity rests, whether it is there or not."""
    return RunFolder(workspace.runs / f"{model}-{identity[:12]}")


def command_line(otherwise: str = "Python: see config.json") -> str:
    """Return the command that is running, as a user would type it.

    A host program's own arguments are none of our business and may hold secrets, so only ours are kept, and
    ``otherwise`` stands for those.
    """
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else ""
    if program not in ("barcast", "__main__.py"):
        return otherwise
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        started = ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "1"), "-m", "barcast"]
        return _typed([*started, *sys.argv[1:]])
    return _typed(["barcast", *sys.argv[1:]])


def command_to_type(workspace: Workspace, *words: str) -> str:
    """Return a command of barcast, quoted, that finds this workspace from the current folder."""
    if workspace.root.resolve() != Workspace.find().root:
        words += ("-w", path_to_type(workspace.root))
    return _typed(["barcast", *words])


def path_to_type(path: Path) -> str:
    """Return a path that leads there from the current folder, the shorter one where it lies below."""
    there, here = path.resolve(), Path.cwd()
    return str(there.relative_to(here)) if there.is_relative_to(here) else str(there)


def _typed(words: Sequence[str]) -> str:
    """Quote words for a shell; the user's own folder is not named, and `~` works outside of quotes only."""
    home = f"{Path.home()}/"
    said = [
        f"~/{shlex.quote(word.removeprefix(home))}" if word.startswith(home) else shlex.quote(word)
        for word in words
    ]
    return " ".join(said).replace(str(Path.home()), "~")


def environment() -> dict[str, Any]:
    """Return the versions and the machine a run was made with; nothing that names the user."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": versions,
    }
