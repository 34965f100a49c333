"""What a training would do, in numbers: everything a plan needs to know of the data and the options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from barcast.models.heads import Head, head_of
from barcast.models.network import Sizes
from barcast.models.registry import ModelEntry, model_entry
from barcast.training.config import TrainConfig


@dataclass(frozen=True)
class Workload:
    """One training of a network.

    Attributes
    ----------
    model : str
        Registered name of a network.
    options : object
        The model's own options.
    train : TrainConfig
        Options of the loop; ``stretch_length`` is 1 where the model or the features train on plain windows.
    sizes : Sizes
        Inputs (features and validity), symbols, outputs, attributes.
    num_rows : int
        R, bars of the panel.
    num_sessions, num_symbols : int
    life_lengths : tuple of int
        Bars of each unbroken life.
    num_labels : int
        Known labels that teach in one epoch: rows times horizons.
    num_teaching_rows : int
    num_pieces : int
        Stretches (windows, with a stretch length of 1) that an epoch computes.
    num_stop_pieces : int
        Those of one look at `stop`.
    num_scored_rows : int
        Rows of `weigh`, `route` and `test` that are forecast from plain windows after training.
    anchored : bool
        Whether the features are measured within a window.
    target : str
        What is learned, ``auto`` resolved: it decides the outputs a horizon and the loss.
    """

    model: str
    options: Any
    train: TrainConfig
    sizes: Sizes
    num_rows: int
    num_sessions: int
    num_symbols: int
    life_lengths: tuple[int, ...]
    num_labels: int
    num_teaching_rows: int
    num_pieces: int
    num_stop_pieces: int
    num_scored_rows: int
    anchored: bool = False
    target: str = "rank"

    @property
    def entry(self) -> ModelEntry:
        """The registered model."""
        return model_entry(self.model)

    @property
    def head(self) -> Head:
        """Outputs a horizon and their loss."""
        return head_of(self.target)

    @property
    def num_targets(self) -> int:
        """H, labels of a row; the network has as many outputs of each as the head is wide."""
        return self.sizes.num_horizons // self.head.width

    @property
    def batch_pieces(self) -> int:
        """Stretches (or windows) of one batch, as the loop cuts it."""
        return max(self.train.batch_size // self.train.stretch_length, 1)

    @property
    def part_pieces(self) -> int:
        """Stretches (or windows) that are computed at once."""
        return -(-self.batch_pieces // min(self.train.gradient_accumulation_steps, self.batch_pieces))

    @property
    def num_steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.num_pieces // self.batch_pieces)

    @property
    def piece_bars(self) -> int:
        """Bars that one stretch (or window) reads."""
        return self.train.look_back_window - 1 + self.train.stretch_length

    @property
    def looks(self) -> int:
        """How often an epoch is judged on `stop`."""
        return min(self.train.evaluations_per_epoch, self.num_steps)
