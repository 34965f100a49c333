"""The batches of one epoch: each known label once, in an order that (seed, epoch) alone decides."""

from __future__ import annotations

import numpy as np

from barcast.core.arrays import I64
from barcast.training.config import TrainConfig
from barcast.training.networks import TrainingData
from barcast.windows.index import Stretches, cut_stretches, random_phases, shuffled
from barcast.windows.shards import Which


def epoch_batches(data: TrainingData, config: TrainConfig, epoch: int) -> list[Which]:
    """Return an epoch's batches, as rows or stretches of the whole panel.

    Where the panel comes in shards, batches follow shard by shard; each shard is shuffled inside and dealt
    into batches of nearly equal size.
    """
    seed, length = config.seed, config.stretch_length
    whole: Which
    if length == 1:
        whole, size = np.flatnonzero(data.fit), config.batch_size
    else:
        phases = random_phases(len(data.lives) - 1, length, seed=seed, epoch=epoch)
        whole = cut_stretches(data.lives, data.fit, length, phases)
        size = max(config.batch_size // length, 1)
    order = shuffled(len(whole), seed=seed, epoch=epoch)
    if data.shards is None:
        chunks = [order[i : i + size] for i in range(0, len(order), size)]
    else:
        shard = data.shards.shard_of(whole, data.shards.begin(epoch))[order]
        chunks = [chunk for index in np.unique(shard) for chunk in _deal(order[shard == index], size)]
    return [whole.take(chunk) if isinstance(whole, Stretches) else whole[chunk] for chunk in chunks]


def _deal(order: I64, size: int) -> list[I64]:
    return np.array_split(order, -(-len(order) // size))
