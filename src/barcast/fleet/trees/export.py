"""Takes one symbol's ensemble out of the fleet: in each library's own format, or as flat arrays."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from barcast.core.atomic import atomic_path
from barcast.core.errors import DataError
from barcast.fleet.trees.native import unzipped
from barcast.fleet.trees.packed import Packed, Trees, unpack

_FIELDS = ("sizes", "feature", "threshold", "skip", "value")
_RULE = (
    "Trees in preorder: a row goes left where its feature is below the threshold; the left child of node i "
    "is i + 1, the right one i + 1 + skip[i]; a subtree without inner nodes is the next leaf from the left. "
    "A member's output is base + scale * sum of leaves."
)


def native_files(model: bytes, native: bytes, owner: str = "") -> dict[str, bytes]:
    """Return each member of each horizon in a format of its own, by file name.

    ``xgboost_0.ubj`` and ``lightgbm_0.txt`` are read by their libraries, ``forest_0.npz`` by ``numpy.load``
    (arrays of :class:`Trees`).

    Raises
    ------
    DataError
        When a model is damaged, or was stored without native formats.
    """
    if not native:
        raise DataError(
            f"no native formats are stored{f' for {owner}' if owner else ''}",
            "export it as safetensors, or train it again with native formats kept",
        )
    packed = unpack(model, owner)
    files = unzipped(native, owner)
    for h in range(packed.num_horizons):
        forest = packed.trees(h).get("forest")
        if forest is not None:
            files[f"forest_{h}.npz"] = _npz(forest)
    return files


def to_safetensors(model: bytes, path: Path, owner: str = "") -> None:
    """Write all members' flat arrays, named ``horizon.member.array``, and as metadata how to follow them.

    Raises
    ------
    DataError
        When the ensemble is damaged.
    """
    from safetensors.numpy import save_file

    packed = unpack(model, owner)
    with atomic_path(path) as temporary:
        save_file(_arrays(packed), temporary, {"rule": _RULE, "num_inputs": str(packed.num_inputs)})


def _arrays(packed: Packed) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for h in range(packed.num_horizons):
        for name, trees in packed.trees(h).items():
            for field in _FIELDS:
                found[f"{h}.{name}.{field}"] = np.ascontiguousarray(getattr(trees, field))
            found[f"{h}.{name}.base_scale"] = np.array([trees.base, trees.scale])
    return found


def _npz(trees: Trees) -> bytes:
    target = io.BytesIO()
    arrays = {field: getattr(trees, field) for field in _FIELDS}
    np.savez_compressed(target, base=trees.base, scale=trees.scale, **arrays)
    return target.getvalue()
