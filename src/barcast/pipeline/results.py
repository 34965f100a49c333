"""What ``--output-dir`` gets: a copy of a finished run's results."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from barcast.core.atomic import atomic_path
from barcast.core.errors import ResourceError, UsageError
from barcast.core.runs import RunFolder

#: What is work in progress, or a lock, is of no use elsewhere.
_LEFT_OUT = (".lock", "checkpoint.safetensors")


def check_output_dir(folder: Path) -> None:
    """Refuse a place that results cannot be copied to, before anything is computed; nothing is left there.

    Raises
    ------
    UsageError
        When it is a file, or holds something that is no run.
    ResourceError
        When it cannot be made or written.
    """
    try:
        _check_kind(folder)
        _try_out(folder.absolute())
    except OSError as error:
        raise ResourceError(
            f"--output-dir {folder} cannot be written: {error.strerror or error}",
            "name a folder that you may make and write, as in --output-dir results",
        ) from error


def _check_kind(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output-dir {folder} is a file", "name a folder, new or of an earlier run")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "run.json").is_file():
        raise UsageError(f"--output-dir {folder} holds other things", "name a new or empty folder")


def _try_out(folder: Path) -> None:
    """Make the folder and a file in it, and take away what was made; rights alone do not say that it can."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()


def copy_results(run: RunFolder, folder: Path) -> None:
    """Copy a run's files, each of them whole or not at all; run.json comes last."""
    check_output_dir(folder)
    files = [path for path in sorted(run.path.rglob("*")) if path.is_file()]
    files = [path for path in files if not path.name.endswith(_LEFT_OUT)]
    for path in sorted(files, key=lambda path: path.name == "run.json"):
        with atomic_path(folder / path.relative_to(run.path)) as temporary:
            shutil.copyfile(path, temporary)
