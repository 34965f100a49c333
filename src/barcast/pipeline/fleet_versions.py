"""What decides the bytes of a fit beside rows, options and seed: machine, versions and own sources."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from barcast.fleet.ledger import Ledger

#: Name among a ledger's plain values: what computed its fits, an entry for each set of versions that did.
_COMPUTED_BY = "computed_by"
#: Packages whose versions decide what comes out of a fit.
_FIT_WITH = ("barcast", "numpy", "numba", "lightgbm", "xgboost", "xgboost-cpu", "torch")
#: Own sources that a fit runs, below the package: between releases they change and its version does not.
SOURCES = (
    "core/compilation.py", "fleet/data.py", "fleet/networks/*.py", "fleet/trees/*.py", "models/draws.py",
    "training/config.py", "training/step.py", "windows/index.py", "windows/normalise.py",
)  # fmt: skip


def computed_by() -> dict[str, str]:
    """Return what computes the fits of this process."""
    found = {"system": platform.system(), "machine": platform.machine(), "sources": _sources_digest()}
    for package in _FIT_WITH:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


@cache
def _sources_digest() -> str:
    told, package = hashlib.blake2b(digest_size=8), Path(__file__).parent.parent
    for pattern in SOURCES:
        for file in sorted(package.glob(pattern)):
            told.update(f"{file.relative_to(package).as_posix()}\0{file.read_text('utf-8')}\0".encode())
    return told.hexdigest()


def note_versions(ledger: Ledger) -> None:
    """Write down, before any fit, what computes the fits of this call."""
    told, here = ledger.meta().get(_COMPUTED_BY, []), computed_by()
    if here not in told:
        ledger.set_meta({_COMPUTED_BY: [*told, here]})


def only_these_versions(meta: Mapping[str, Any]) -> bool:
    """Return whether all fits of a ledger, by its plain values, were computed as they would be here."""
    return bool(meta.get(_COMPUTED_BY) == [computed_by()])
