"""Which arithmetic a training step uses: bf16 where the processor has it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from barcast.training.config import TrainConfig


def autocast(config: TrainConfig) -> AbstractContextManager[Any]:
    """Return the context of a training step's forward pass."""
    kind = config.device.split(":")[0]
    if config.amp == "off" or (config.amp == "auto" and not has_bf16(kind)):
        return nullcontext()
    return torch.autocast(kind, dtype=torch.bfloat16)


def has_bf16(kind: str) -> bool:
    """Return whether a device of this kind (``cpu``, ``cuda``) computes in bf16."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
