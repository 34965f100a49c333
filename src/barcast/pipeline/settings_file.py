"""What a file of ``--config`` says: TOML, or the config.json of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from barcast.core.config import load_toml, to_plain
from barcast.core.errors import UsageError
from barcast.core.runs import RunFolder

#: What a run was asked, in its folder.
RECORDED = "config.json"


def load_settings(file: Path) -> dict[str, Any]:
    """Read the tables of a file, and what stands above them.

    A run's config.json names every option, so nothing of the workspace's settings is left to shape what is
    trained by it; with the options comes the search that had chosen them.

    Raises
    ------
    UsageError
        When there is no such file, or it is neither TOML nor a run's.
    RunError
        When a run's is damaged.
    """
    return _of_a_run(file) if file.suffix == ".json" else load_toml(file)


def _of_a_run(file: Path) -> dict[str, Any]:
    from barcast.pipeline.searched import with_search  # local: both read files themselves
    from barcast.pipeline.settings import from_run

    run = RunFolder(file.parent)
    if file.name != RECORDED or not file.is_file() or not run.recorded:
        raise UsageError(f"{file} is no {RECORDED} of a run", f"name a TOML file, or runs/RUN/{RECORDED}")
    config = with_search(from_run(run.read(RECORDED)), run)
    plain = config.plain()
    tables = {"seed": plain["seed"], "data": plain["data"], config.model: plain["options"]}
    if config.train is not None:
        tables["train"] = {name: value for name, value in plain["train"].items() if name != "seed"}
    if config.tuned is not None:
        tables["tuned"] = to_plain(config.tuned)
    return tables
