"""Numba, set up so that kernels compile on first use and rest in a folder that only their user can write.

A cache of compiled code is code: whoever can write it can run as you. So it rests in a private folder
(``$XDG_CACHE_HOME/barcast/numba``, mode 0700) unless ``NUMBA_CACHE_DIR`` says otherwise, and where no such
folder can be had the kernels are compiled anew in each process (about ten seconds, said in the log).
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

ENVIRONMENT_VARIABLE = "NUMBA_CACHE_DIR"

_log = logging.getLogger("barcast.features")

P = ParamSpec("P")
T = TypeVar("T")


def private_folder(path: Path) -> Path | None:
    """Make ``path`` a folder that we own, can write, and nobody else can; None where that cannot be had."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "geteuid"):  # not on Windows, where a user's folders are private by default
            found = path.stat()
            if found.st_uid != os.geteuid():
                return None
            if stat.S_IMODE(found.st_mode) != 0o700:
                path.chmod(0o700)
    except OSError:
        return None
    return path if _is_writable(path) else None


def _is_writable(path: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"\0" * 65536)  # a full disk refuses this, not the opening
    except OSError:
        return False
    return True


def _default_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or (Path("~").expanduser() / ".cache")
    return Path(base) / "barcast" / "numba"


def _prepare() -> bool:
    """Point numba at its folder before it is imported; return whether kernels can be cached."""
    given = os.environ.get(ENVIRONMENT_VARIABLE)
    if given:
        path = Path(given)
        usable = (path.is_dir() and _is_writable(path)) or private_folder(path) is not None
    else:
        folder = private_folder(_default_folder())
        usable = folder is not None
        if folder is not None:
            os.environ[ENVIRONMENT_VARIABLE] = str(folder)
    if not usable:
        _log.warning(
            "no private folder for compiled kernels at %s: they are compiled anew in each process "
            "(set NUMBA_CACHE_DIR to a folder you can write)",
            given or _default_folder(),
        )
    return usable


CACHED = _prepare()

import numba  # noqa: E402  (its configuration is read at import)

if "numba" in sys.modules:  # somebody may have imported it before us
    numba.core.config.reload_config()


def kernel(function: Callable[P, T]) -> Callable[P, T]:
    """Compile ``function`` on first use: without the GIL, dividing as numpy does so that loops vectorise."""
    return cast(Callable[P, T], numba.njit(nogil=True, cache=CACHED, error_model="numpy")(function))
