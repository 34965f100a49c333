"""Training inputs changed at random: noise, inputs that lag, features that are missing.

Applied to a gathered batch on its device, in training alone: judging and predicting never come here. Draws
follow from (seed, step) as dropout's do, so that a resumed run repeats them. An option of 0 draws nothing.

The last input is validity, the share of a row's features that were there; every other input that is exactly 0
is a missing value or padding, and stays 0.

Letters: B batch, T bars of a sample, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from barcast.models.draws import generator_for
from barcast.training.config import LONGEST_LAG, TrainConfig


def augment(inputs: Tensor, config: TrainConfig) -> Tensor:
    """Return inputs (B, T, F + 1) as the options want them; the given ones where all of them are 0."""
    if config.time_warp:
        inputs = time_warp(inputs, config.time_warp)
    if config.feature_dropout:
        inputs = feature_dropout(inputs, config.feature_dropout)
    if config.jitter:
        inputs = jitter(inputs, config.jitter)
    return inputs


def jitter(inputs: Tensor, std: float) -> Tensor:
    """Add Gaussian noise to every feature that is there; validity, missing values and padding stay."""
    noise = std * torch.randn(inputs.shape, generator=generator_for(inputs.device), device=inputs.device)
    noise[..., -1] = 0.0
    return inputs + noise * (inputs != 0)


def feature_dropout(inputs: Tensor, probability: float) -> Tensor:
    """Make features missing, each for a whole sample with this probability; validity falls by their share."""
    batch, _, width = inputs.shape
    draws = torch.rand(batch, 1, width, generator=generator_for(inputs.device), device=inputs.device)
    kept = draws >= probability
    kept[..., -1] = True
    lost = ((inputs != 0) & ~kept).sum(-1, dtype=inputs.dtype)
    inputs = inputs * kept
    inputs[..., -1] = (inputs[..., -1] - lost / max(width - 1, 1)).clamp(min=0.0)
    return inputs


def time_warp(inputs: Tensor, longest: int) -> Tensor:
    """Let every step of a sample read the bar of some steps before, 0 to ``longest``, or its own.

    Lags are drawn per sample at every tenth step and change linearly between these, so that no step reads a
    later bar than its own nor, as ``longest`` is 10 at most, an earlier one than the step before it. They are
    rounded to whole bars: a blend of two bars varies less than any bar that a model is served. A step without
    features (padding) stays as it is, and none reads further back than the sample's first bar with features.
    """
    batch, length, width = inputs.shape
    present = inputs[..., -1] > 0
    lag = longest * _smooth_noise(batch, length, inputs.device)
    steps = torch.arange(length, device=inputs.device)
    first = present.int().argmax(dim=1, keepdim=True)
    source = torch.maximum(steps - (lag + 0.5).long(), first.clamp(max=length - 1))
    source = torch.where(present, source, steps)
    return inputs.gather(1, source[..., None].expand(batch, length, width))


def _smooth_noise(batch: int, length: int, device: torch.device) -> Tensor:
    """Return values in [0, 1], shape (B, T): uniform at every tenth step, linear between."""
    knots = torch.rand(batch, length // LONGEST_LAG + 2, generator=generator_for(device), device=device)
    position = torch.arange(length, device=device)
    before, share = position // LONGEST_LAG, (position % LONGEST_LAG) / LONGEST_LAG
    return knots[:, before] * (1 - share) + knots[:, before + 1] * share
