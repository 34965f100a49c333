"""A shorter cold start for processes that do nothing but serve; imports neither numpy nor numba itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_scipy() -> Iterator[None]:
    """Import numba, and load its first kernel, without its search for SciPy: a quarter of a cold start.

    Numba asks SciPy for BLAS once, so kernels compiled in the process afterwards cannot call ``np.dot``:
    this is for processes of our own. SciPy itself can be imported again at the end.
    """
    if "scipy" in sys.modules:  # paid for already
        yield
        return
    sys.modules["scipy"] = None  # type: ignore[assignment]  # how Python spells "cannot be imported"
    try:
        yield
    finally:
        del sys.modules["scipy"]
