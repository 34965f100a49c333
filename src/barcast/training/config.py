"""Options of the training loop, which every neural model shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from barcast.core.errors import UsageError

_DEFAULTS = "mend the flag, or the table [train] of the settings file; without it the default is taken"

#: Width up to which the default learning rate holds.
REFERENCE_WIDTH = 64

#: Options that change training inputs at random; 0 leaves them alone.
AUGMENTATIONS = ("jitter", "time_warp", "feature_dropout")
#: Options that change nothing at their defaults: runs of before there were any keep their names.
LATER_OPTIONS = (*AUGMENTATIONS, "num_seeds", "panel_memory_gib")
#: More epochs or threads than any training gains from are slips of the hand.
MOST_EPOCHS, MOST_THREADS = 100_000, 1024
#: A lag that grows by more than one bar a bar would turn time round; lags are drawn anew every so many bars.
LONGEST_LAG = 10


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of the loop."""

    #: What flags, and other libraries, call some of them.
    ALSO_CALLED: ClassVar[dict[str, str]] = {"learning_rate": "lr", "seeds": "num_seeds"}

    epochs: int = 4
    """Most epochs; early stopping usually ends sooner."""
    batch_size: int = 15360
    """Labels a step, whether they come as windows or as stretches."""
    lr: float = 3e-3
    """Highest learning rate, after warm-up; without it a network wider than 64 gets less (`lr_for`)."""
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
    jitter: float = 0.0
    """Standard deviation of the noise that training adds to normalised inputs; 0 adds none."""
    time_warp: int = 0
    """Most bars that a training input may lag behind its own, smoothly and at random; 0: none."""
    feature_dropout: float = 0.0
    """How often a training sample misses a feature altogether."""
    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"
    """bf16 where the device has it, else fp16 with scaled losses on a GPU; evaluation is always float32."""
    seed: int = 0
    num_seeds: int = 1
    """Networks of one run, with the seeds from ``seed`` on; their outputs are averaged."""
    warm_start: str = ""
    """Finished run whose weights training starts from; ``champion`` is the champion's; empty: fresh ones."""
    device: str = "cpu"
    threads: int = 0
    """CPU threads of a step on a CPU; 0 measures once which number is fastest, and the run keeps it."""
    panel_memory_gib: float = 0.0
    """Most memory that the panel takes on the device, in GiB; beyond it comes in shards. 0: what fits."""
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        whole = (
            "epochs", "batch_size", "gradient_accumulation_steps", "look_back_window", "stretch_length",
            "evaluations_per_epoch", "patience", "num_seeds",
        )  # fmt: skip
        for name in whole:
            if getattr(self, name) < 1:
                raise UsageError(f"`{name}` must be at least 1, got {getattr(self, name)}", _DEFAULTS)
        not_negative = ("jitter", "weight_decay", "checkpoint_seconds", "threads", "panel_memory_gib")
        fits = {
            **{name: (getattr(self, name) > 0, "positive") for name in ("lr", "clip")},
            **{name: (0 <= getattr(self, name) < 1, "in [0, 1)") for name in ("warmup", "feature_dropout")},
            "time_warp": (0 <= self.time_warp <= LONGEST_LAG, f"in 0 .. {LONGEST_LAG}"),
            **{name: (getattr(self, name) >= 0, "0 or more") for name in not_negative},
        }
        for name, (fine, wanted) in fits.items():
            if not fine:
                raise UsageError(f"`{name}` must be {wanted}, got {getattr(self, name)}", _DEFAULTS)


def check_no_slip(train: TrainConfig) -> None:
    """Refuse what nobody means who asks for a training; a run on record may have had it all the same.

    Raises
    ------
    UsageError
        With the option and the most that is taken.
    """
    for name, most in (("epochs", MOST_EPOCHS), ("threads", MOST_THREADS)):
        if getattr(train, name) > most:
            raise UsageError(f"`{name}` must be at most {most}, got {getattr(train, name)}", _DEFAULTS)


def lr_for(width: int) -> float:
    """Return the default learning rate of a network so wide: 3e-3 up to 64, beyond in inverse proportion.

    Adam moves every weight by about the rate, so what a unit with more inputs adds up moves further (Yang et
    al. 2022, Tensor Programs V). Two significant digits.
    """
    return float(f"{TrainConfig.lr * min(1.0, REFERENCE_WIDTH / width):.1e}")
