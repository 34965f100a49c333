"""Options of the training loop, which every neural model shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from barcast.core.errors import UsageError

_DEFAULTS = "mend the flag, or the table [train] of the settings file; left out, the default is taken"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of the loop."""

    epochs: int = 4
    """Most epochs; early stopping usually ends sooner."""
    batch_size: int = 15360
    """Labels a step, whether they come as windows or as stretches."""
    lr: float = 1e-3
    """Highest learning rate, after warm-up."""
    weight_decay: float = 1e-2
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """AdamW, Adam (the decay is part of the gradient), or SGD with Nesterov momentum 0.9."""
    warmup: float = 0.05
    """Share of all steps."""
    clip: float = 1.0
    """Largest gradient norm."""
    gradient_accumulation_steps: int = 1
    """Parts a batch is computed in; the gradient differs by rounding and dropout's draws only."""
    look_back_window: int = 60
    """L, own bars a prediction reads."""
    stretch_length: int = 120
    """K, predictions of one pass; 1 trains on plain windows."""
    evaluations_per_epoch: int = 4
    patience: int = 6
    """Evaluations without a better `stop` score before training ends."""
    amp: Literal["auto", "bf16", "off"] = "auto"
    """bf16 where the processor has it; evaluation is always float32."""
    seed: int = 0
    device: str = "cpu"
    threads: int = 0
    """Processor threads of a step; 0 measures once which number is fastest, and the run keeps it."""
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        whole = (
            "epochs", "batch_size", "gradient_accumulation_steps", "look_back_window", "stretch_length",
            "evaluations_per_epoch", "patience",
        )  # fmt: skip
        for name in whole:
            if getattr(self, name) < 1:
                raise UsageError(f"`{name}` must be at least 1, got {getattr(self, name)}", _DEFAULTS)
        if not (self.lr > 0 and self.clip > 0 and 0 <= self.warmup < 1):
            raise UsageError("`lr` and `clip` must be positive and `warmup` in [0, 1)", _DEFAULTS)
        if not (self.weight_decay >= 0 and self.checkpoint_seconds >= 0 and self.threads >= 0):
            raise UsageError(
                "`weight_decay`, `checkpoint_seconds` and `threads` must not be negative", _DEFAULTS
            )
