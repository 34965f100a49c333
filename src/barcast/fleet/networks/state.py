"""State of a half-trained batch as bytes: stacks of weights and moments, who sits where, who is finished.

One safetensors file whose header is JSON; nothing in it is executed when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from barcast.core.errors import RunError
from barcast.fleet.networks.packing import header_of
from barcast.fleet.networks.seats import Standing
from barcast.fleet.work import SymbolResult

_HEADER = "barcast"
_TODO = "the batch trains from its beginning without this state"


@dataclass(frozen=True)
class Saved:
    """What a state holds: stacks (G, P), the standing of each seat, results by position, who comes next."""

    stacks: dict[str, Tensor]
    standings: list[Standing]
    results: dict[int, SymbolResult]
    next_member: int


def pack_state(
    identity: Mapping[str, Any], stacks: Mapping[str, Tensor], standings: Sequence[Standing],
    results: Mapping[int, SymbolResult], next_member: int,
) -> bytes:  # fmt: skip
    """Return the state as safetensors."""
    from safetensors.torch import save

    tensors = dict(stacks)
    plain = {}
    for position, result in results.items():
        values = asdict(result)
        model = values.pop("model")
        del values["native"]  # networks have none
        if model:
            tensors[f"model.{position}"] = torch.frombuffer(bytearray(model), dtype=torch.uint8)
        plain[position] = values
    header = {
        "identity": identity, "standings": [asdict(each) for each in standings], "results": plain,
        "next_member": next_member,
    }  # fmt: skip
    return save(tensors, metadata={_HEADER: json.dumps(header)})


def unpack_state(state: bytes, identity: Mapping[str, Any]) -> Saved:
    """Read what :func:`pack_state` gave.

    Raises
    ------
    RunError
        When the bytes are damaged, or the state is not that of this batch.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(state)
        header = json.loads(header_of(state)[_HEADER])
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"the state of a batch cannot be read: {error}", _TODO) from error
    if header["identity"] != identity:
        raise RunError("the state is of a batch with other symbols, options or rows", _TODO)
    results = {}
    for key, values in header["results"].items():
        model = tensors.pop(f"model.{key}", None)
        packed = model.numpy().tobytes() if model is not None else b""
        results[int(key)] = SymbolResult(**values, model=packed)
    return Saved(tensors, [Standing(**each) for each in header["standings"]], results, header["next_member"])
