"""Outputs of dedicated networks on plain windows, many symbols at once.

Every row of the table comes from its own window of L bars, left-padded with zeros where its life is shorter,
whatever the network was trained on.

Letters: G networks, L look-back, B windows of each, n rows, F inputs, H horizons.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from barcast.core.arrays import F32, I64
from barcast.fleet.data import SymbolData
from barcast.fleet.networks.packing import Packed, stack, unpack
from barcast.fleet.networks.seats import indices, padded
from barcast.fleet.networks.stacked import forward
from barcast.windows.index import Stretches

#: Windows computed at once: few enough to stay in a core's cache, many enough to keep it busy.
CHUNK_WINDOWS = 512


def predict_packed(models: Sequence[bytes], data: Sequence[SymbolData], rows: Sequence[I64]) -> list[F32]:
    """Return outputs as :func:`predict_rows` does, from packed networks."""
    return predict_rows([unpack(model) for model in models], data, rows)


def predict_rows(networks: Sequence[Packed], data: Sequence[SymbolData], rows: Sequence[I64]) -> list[F32]:
    """Return outputs (n, H) of each symbol's rows, in the units of its target.

    Parameters
    ----------
    networks : sequence of Packed
        One a symbol; those of one shape and look-back are computed together.
    data : sequence of SymbolData
        The rows of each symbol, finite inputs.
    rows : sequence of I64
        Rows (n,) of each symbol that are wanted; n may differ and may be 0.
    """
    found: list[F32] = [np.zeros((len(own), net.shape.num_horizons), np.float32) for own, net in
                        zip(rows, networks, strict=True)]  # fmt: skip
    for group in _groups(networks, rows):
        outputs = _group([networks[i] for i in group], [data[i] for i in group], [rows[i] for i in group])
        for i, output in zip(group, outputs, strict=True):
            found[i] = output
    return found


def _groups(networks: Sequence[Packed], rows: Sequence[I64]) -> list[list[int]]:
    """Put symbols of one shape and of about as many rows together, as many as fill a chunk."""
    order = sorted(
        (i for i in range(len(networks)) if len(rows[i])),
        key=lambda i: (repr((networks[i].shape, networks[i].look_back)), len(rows[i])),
    )
    groups: list[list[int]] = []
    for i in order:
        last = groups[-1] if groups else []
        same = bool(last) and (networks[i].shape, networks[i].look_back) == (
            networks[last[0]].shape, networks[last[0]].look_back,
        )  # fmt: skip
        if same and (len(last) + 1) * min(len(rows[i]), CHUNK_WINDOWS) <= CHUNK_WINDOWS:
            last.append(i)
        else:
            groups.append([i])
    return groups


@torch.no_grad()
def _group(networks: Sequence[Packed], data: Sequence[SymbolData], rows: Sequence[I64]) -> list[F32]:
    """Compute symbols of one shape side by side."""
    shape, look_back = networks[0].shape, networks[0].look_back
    weights = shape.views(stack(networks))
    cut = [_needed(wanted, look_back) for own, wanted in zip(data, rows, strict=True)]
    inputs = [
        net.scaler.inputs(np.asarray(own.inputs[part]))
        for net, own, part in zip(networks, data, cut, strict=True)
    ]
    room = max(map(len, inputs)) + 1
    flat = torch.from_numpy(padded(inputs, room)).flatten(0, 1)
    seats = (np.arange(len(networks)) * room)[:, None, None]
    most, parts = max(map(len, rows)), []
    size = max(CHUNK_WINDOWS // len(networks), 1)
    for first in range(0, most, size):
        count = min(size, most - first)
        windows = [
            _windows(own.life_start, wanted[first : first + count], part.start)
            for own, wanted, part in zip(data, rows, cut, strict=True)
        ]
        index = indices(windows, look_back, 1, count, padding=room - 1) + seats
        parts.append(forward(shape, weights, flat[torch.from_numpy(index)], 1)[:, 0].numpy())
    whole = np.concatenate(parts, axis=1)
    return [
        whole[i, : len(wanted)] * net.scaler.target
        for i, (net, wanted) in enumerate(zip(networks, rows, strict=True))
    ]


def _needed(rows: I64, look_back: int) -> slice:
    """Return the rows that the windows may read."""
    return slice(max(int(rows.min()) - look_back + 1, 0), int(rows.max()) + 1)


def _windows(life_start: I64, rows: I64, first: int) -> Stretches:
    """Return windows as stretches of one prediction, in rows counted from ``first``."""
    return Stretches(rows - first, np.maximum(life_start[rows] - first, 0), rows - first + 1)
