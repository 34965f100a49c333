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
from barcast.training.precision import autocast


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
    """Return multiplications and additions of matrix products, forward and backward, for one piece.

    Counted by torch's own counter on the meta device. Recurrent networks run step by step there, which is
    slow, and their arithmetic is linear in T and in K, so three short pieces give it.
    """
    network = _on_meta(work.entry, work.options, work.sizes).eval()
    steps, length = work.piece_bars, work.train.stretch_length
    if not any(isinstance(module, nn.RNNBase) for module in network.modules()):
        return _flops(network, work.sizes, steps, length)
    least, longer, more = (_flops(network, work.sizes, t, k) for t, k in ((4, 1), (6, 1), (6, 3)))
    of_step, of_prediction = (longer - least) / 2, (more - longer) / 2
    return least + of_step * (steps - 4) + of_prediction * (length - 1)


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
        autocast(work.train),
        torch.random.fork_rng(devices=[]),
    ):
        network(inputs, symbol, work.train.stretch_length)
    return sum(size for size, _ in kept.values())


def modules_of(entry: ModelEntry, options: Any, sizes: Sizes) -> list[nn.Module]:
    """Return every module of the network, without memory for any of them; the network itself comes first."""
    return list(_on_meta(entry, options, sizes).modules())


def _flops(network: nn.Module, sizes: Sizes, steps: int, length: int) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        with torch.device("meta"):
            inputs, symbol = _batch(sizes, 1, steps)
        network(inputs, symbol, length).float().square().sum().backward()
    return float(counter.get_total_flops())


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
