"""Numba, set up so that kernels compile on first use and rest in a folder that only their user can write.

A cache of compiled code is code: whoever can write it can run as you. So it rests in a private folder
(``$XDG_CACHE_HOME/barcast/numba``, mode 0700) unless ``NUMBA_CACHE_DIR`` says otherwise, and where no such
folder can be had the kernels are compiled anew in each process (about ten seconds, said in the log).
"""

from __future__ import annotations

import gc
import logging
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar, cast

ENVIRONMENT_VARIABLE = "NUMBA_CACHE_DIR"

_log = logging.getLogger("barcast.core")

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


def _import_numba() -> ModuleType:
    """Import numba with its array functions, which every kernel loads, and without SciPy, which none needs.

    Numba imports SciPy to see its version and that its BLAS is there; what needs it, ``np.dot`` say, imports
    it when it is compiled. Nothing of an import is garbage, so nothing looks for any meanwhile.
    """
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        with _without_scipy():
            numba = import_module("numba")
        with suppress(ImportError, AttributeError):  # another numba may have its rooms elsewhere
            linalg: Any = import_module("numba.np.linalg")
            found, linalg.ensure_blas = linalg.ensure_blas, lambda: None
            try:
                import_module("numba.np.arraymath")
            finally:
                linalg.ensure_blas = found
        return numba
    finally:
        if was_collecting:
            gc.enable()


@contextmanager
def _without_scipy() -> Iterator[None]:
    """Let nobody import SciPy meanwhile, where nobody else could: in a process of one thread."""
    if "scipy" in sys.modules or threading.active_count() > 1:
        yield
        return
    sys.modules["scipy"] = None  # type: ignore[assignment]  # how Python spells "cannot be imported"
    try:
        yield
    finally:
        del sys.modules["scipy"]


numba: Any = _import_numba()  # here, since its configuration is read at import
numba.core.config.reload_config()  # somebody may have imported it before us


def kernel(function: Callable[P, T]) -> Callable[P, T]:
    """Compile ``function`` on first use: without the GIL, dividing as numpy does so that loops vectorise."""
    return cast(Callable[P, T], numba.njit(nogil=True, cache=CACHED, error_model="numpy")(function))
