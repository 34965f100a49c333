"""What a device can do and what a training step asks of it, both measured on the spot.

Arithmetic is counted on the meta device, where nothing is computed; bytes are those that the operators of one
real step read and write. What a fused kernel moves inside is not seen, so bytes are a lower bound.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from barcast.training.config import TrainConfig
from barcast.training.precision import training_dtype
from barcast.windows.gather import Batch

#: Side of the matrices and bytes of the copy that measure the peaks: far beyond caches, done in an instant.
SIDE = {"cpu": 1024, "cuda": 8192}
COPY_BYTES = {"cpu": 128 << 20, "cuda": 1 << 30}
#: Repetitions; the fastest counts.
REPEATS = 5


@dataclass(frozen=True)
class Peaks:
    """What the device reaches on work that it likes best.

    Attributes
    ----------
    flops : float
        Operations a second of a large matrix product, in the precision of a training step.
    bytes : float
        Bytes a second, read and written, of a large copy.
    """

    flops: float
    bytes: float


def measure_peaks(config: TrainConfig, num_threads: int) -> Peaks:
    """Time a large matrix product and a large copy with as many threads as a step has."""
    kind = config.device.split(":")[0]
    dtype, side = training_dtype(config) or torch.float32, SIDE[kind]
    before = torch.get_num_threads()
    if num_threads:
        torch.set_num_threads(num_threads)
    try:
        a, b = (torch.randn(side, side, device=config.device).to(dtype) for _ in range(2))
        product = _fastest(lambda: a @ b, config.device)
        source = torch.ones(COPY_BYTES[kind] // 4, device=config.device)
        target = torch.empty_like(source)
        copied = _fastest(lambda: target.copy_(source), config.device)
    finally:
        torch.set_num_threads(before)
    return Peaks(flops=2.0 * side**3 / product, bytes=2.0 * COPY_BYTES[kind] / copied)


def _fastest(action: Callable[[], object], device: str) -> float:
    return min(timed(action, device) for _ in range(REPEATS))


def timed(action: Callable[[], object], device: str) -> float:
    """Return the seconds of an action, its work on the device included."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    action()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def count_flops(network: nn.Module, batch: Batch) -> float:
    """Return multiplications and additions of the matrix products of one forward and backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    shadow = copy.deepcopy(network).to("meta").eval()
    recurrent = [module for module in shadow.modules() if isinstance(module, nn.RNNBase)]
    by_formula = [_replaced(module) for module in recurrent]
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        inputs, symbol = batch.inputs.to("meta"), batch.symbol.to("meta")
        shadow(inputs, symbol, batch.num_predictions).float().sum().backward()
    return float(counter.get_total_flops()) + sum(total[0] for total in by_formula)


def _replaced(module: nn.RNNBase) -> list[float]:
    """Let a recurrent module count itself: run step by step on the meta device it would take seconds.

    Each step multiplies with every weight matrix once forward and twice backward.
    """
    weights = sum(weight.numel() for weight in module.parameters() if weight.ndim == 2)
    width = (module.proj_size or module.hidden_size) * (2 if module.bidirectional else 1)
    total = [0.0]

    def forward(inputs: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        total[0] += 6.0 * weights * math.prod(inputs.shape[:-1])
        return inputs.sum(dim=-1, keepdim=True).expand(*inputs.shape[:-1], width), state

    module.forward = forward
    return total


class ByteCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes that operators read and write while it is entered; views move nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read = _storages((args, kwargs))
        written = {place: size for place, size in _storages(out).items() if place not in read}
        if written or func._schema.is_mutable:
            self.total += sum(read.values()) + sum(written.values())
        return out


def _storages(values: Any) -> dict[int, int]:
    """Return each tensor's bytes by the place of its storage; an expanded one is as large as stored."""
    tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
    return {
        t.untyped_storage().data_ptr(): min(t.numel() * t.element_size(), t.untyped_storage().nbytes())
        for t in tensors
    }
