"""Which arithmetic a training step uses: bf16 where the processor has it, else fp16 with scaled losses.

fp16 has few exponents: small gradients vanish in it, so the loss is multiplied before the backward pass and
the gradients are divided after it (Micikevicius et al. 2018). The factor halves where a gradient overflows,
whose step is skipped, and doubles after many steps without one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from barcast.core.errors import RunError
from barcast.training.config import TrainConfig

#: A step that overflows even without magnification is no matter of scaling.
LOWEST_SCALE = 1.0


class DivergedError(RunError):
    """The loss, or its gradient, is no number any more."""

    def __init__(self, loss: float, step: int) -> None:
        super().__init__(
            f"the loss became {loss} at step {step}",
            "lower --lr, or look for extreme inputs with `barcast data check`",
        )


def training_dtype(config: TrainConfig) -> torch.dtype | None:
    """Return what a training step's matrices are multiplied in; None for float32."""
    if config.amp == "auto":
        if has_bf16(config.device):
            return torch.bfloat16
        return torch.float16 if config.device.startswith("cuda") else None
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[config.amp]


def autocast(config: TrainConfig) -> AbstractContextManager[Any]:
    """Return the context of a training step's forward pass, inside of :func:`arithmetic`."""
    dtype, kind = training_dtype(config), config.device.split(":")[0]
    if dtype is None:
        return nullcontext()
    return torch.autocast(kind, dtype=dtype)


@contextmanager
def arithmetic(config: TrainConfig) -> Iterator[None]:
    """Hold the process's switches as a whole training step needs them, whatever threads compute its parts.

    fp16 on a CPU goes without oneDNN, which has no recurrent layer of that type on most of them.
    """
    dtype, kind = training_dtype(config), config.device.split(":")[0]
    if dtype is None:
        with plain_float32():
            yield
    elif (kind, dtype) == ("cpu", torch.float16):
        with _switched((torch.backends.mkldnn, "enabled", False)):
            yield
    else:
        yield


@contextmanager
def plain_float32() -> Iterator[None]:
    """Keep GPUs from rounding float32 to TF32's 10 bits, as cuDNN's recurrent layers do by default."""
    cudnn: Any = torch.backends.cudnn
    products = torch.backends.cuda.matmul
    try:
        switches = [(place, "allow_tf32", False) for place in (cudnn, products) if place.allow_tf32]
    except RuntimeError:  # the program uses torch's newer switches, with which these may not be mixed
        newer = (cudnn.rnn, cudnn.conv, products)
        with _switched(*((place, "fp32_precision", "ieee") for place in newer)):
            yield
    else:
        with _switched(*switches):
            yield


@contextmanager
def _switched(*switches: tuple[Any, str, Any]) -> Iterator[None]:
    """Give attributes other values inside of the block."""
    before = [getattr(place, name) for place, name, _ in switches]
    for place, name, value in switches:
        setattr(place, name, value)
    try:
        yield
    finally:
        for (place, name, _), value in zip(switches, before, strict=True):
            setattr(place, name, value)


def has_bf16(device: str) -> bool:
    """Return whether a device (``cpu``, ``cuda``, ``cuda:1``) computes in bf16 itself, not by emulation."""
    if device.startswith("cuda"):
        with torch.cuda.device(torch.device(device)):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class LossScaling:
    """The backward pass and the update of a step; plain where the arithmetic is not fp16.

    Parameters
    ----------
    config : TrainConfig

    Attributes
    ----------
    norms : list of Tensor
        Gradient norm before clipping of each step since somebody emptied the list; left on the device, so
        that no step waits for it.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.enabled = training_dtype(config) is torch.float16
        self.clip = config.clip
        self.skipped = 0
        self.norms: list[Tensor] = []
        self._scaler = torch.amp.GradScaler(config.device.split(":")[0], enabled=self.enabled)
        self._scaler.scale(torch.zeros((), device=config.device))  # makes its tensors, before any thread

    @property
    def scale(self) -> float:
        """What the loss is multiplied with."""
        return self._scaler.get_scale()

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss whose gradient is to be taken."""
        return self._scaler.scale(loss)

    def update(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
        """Undo the scaling, clip, step; return False where an overflow has skipped the step.

        The largest norm is one of gradients as they are, so clipping comes after the scaling is undone.
        """
        before = self.scale
        self._scaler.unscale_(optimizer)
        self.norms.append(nn.utils.clip_grad_norm_(network.parameters(), self.clip).detach())
        self._scaler.step(optimizer)
        self._scaler.update()
        is_taken = self.scale >= before
        self.skipped += not is_taken
        return is_taken

    def facts(self) -> dict[str, float]:
        """Return what metrics.jsonl says about it."""
        return {"loss_scale": self.scale, "skipped_steps": self.skipped} if self.enabled else {}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as plain values."""
        return {"skipped": self.skipped, "scaler": self._scaler.state_dict()} if self.enabled else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's :meth:`state`; one made without scaling starts it afresh."""
        if self.enabled and state:
            self.skipped = int(state["skipped"])
            self._scaler.load_state_dict(state["scaler"])
