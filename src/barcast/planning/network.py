"""Parameters, arithmetic and activations of a network, found by looking at it: nothing is guessed by name.

Letters: B pieces of a batch, T bars of a piece, K predictions of a piece, F inputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from barcast.models.network import Sizes
from barcast.models.registry import ModelEntry
from barcast.planning.workload import Workload
from barcast.training.limits import count_flops
from barcast.training.precision import arithmetic, autocast
from barcast.windows.gather import Batch


def parameters_by_component(entry: ModelEntry, options: Any, sizes: Sizes) -> dict[str, int]:
    """Count the parameters of each top-level module, without memory for any of them.

    What belongs to who a symbol is (the embeddings) is the component ``identity``.
    """
    network = _on_meta(entry, options, sizes)
    counts = {name: _count(child) for name, child in network.named_children()}
    counts["(own)"] = sum(p.numel() for p in network.parameters(recurse=False))
    return {name: number for name, number in counts.items() if number}


def beside_embeddings(entry: ModelEntry, options: Any, sizes: Sizes) -> int:
    """Count the parameters that every symbol shares: all but those of embeddings."""
    modules = modules_of(entry, options, sizes)
    tables = sum(_count(module) for module in modules if isinstance(module, nn.Embedding))
    return _count(modules[0]) - tables


def flops_of_piece(work: Workload) -> float:
    """Return multiplications and additions of matrix products, forward and backward, for one piece."""
    with torch.device("meta"):
        inputs, symbol = _batch(work.sizes, 1, work.piece_bars)
    network = _on_meta(work.entry, work.options, work.sizes)
    return count_flops(network, Batch(inputs, symbol, work.train.stretch_length))


def activation_bytes(work: Workload, pieces: int) -> int:
    """Return what the backward pass keeps of a batch of so many pieces, each storage once, parameters never.

    Measured by running the forward pass of a small batch in training mode. What fused kernels keep inside is
    not seen here; the step that the probe measures has it.
    """
    network = work.entry.build(work.options, work.sizes).train()
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            # the tensor is held so that its address cannot be given away again
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    inputs, symbol = _batch(work.sizes, pieces, work.piece_bars)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        arithmetic(work.train),
        autocast(work.train),
        torch.random.fork_rng(devices=[]),
    ):
        network(inputs, symbol, work.train.stretch_length)
    return sum(size for size, _ in kept.values())


def modules_of(entry: ModelEntry, options: Any, sizes: Sizes) -> list[nn.Module]:
    """Return every module of the network, without memory for any of them; the network itself comes first."""
    return list(_on_meta(entry, options, sizes).modules())


def _on_meta(entry: ModelEntry, options: Any, sizes: Sizes) -> nn.Module:
    with torch.device("meta"):
        network: nn.Module = entry.build(options, sizes)
    return network


def _batch(sizes: Sizes, pieces: int, steps: int) -> tuple[Tensor, Tensor]:
    """Return inputs (B, T, F) and who they are, (B,) or (B, 1 + A)."""
    who = (pieces, 1 + len(sizes.attributes)) if sizes.attributes else (pieces,)
    return torch.ones(pieces, steps, sizes.num_inputs), torch.zeros(who, dtype=torch.long)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
