"""Several networks that differ by their seed alone, as one: the mean of their outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SeedEnsemble(nn.Module):
    """Average the outputs of networks of one shape: scores, log odds, or each quantile by itself.

    Parameters
    ----------
    members : sequence of Module
        In the order of their seeds.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, inputs: Tensor, symbol: Tensor, num_predictions: int = 1) -> Tensor:
        """Map inputs (B, T, F) and symbol (B,) to the mean output (B, num_predictions, H)."""
        return torch.stack([member(inputs, symbol, num_predictions) for member in self.members]).mean(dim=0)


def members_of(network: nn.Module) -> list[nn.Module]:
    """Return the networks of an ensemble, or the one that a single network is."""
    return list(network.members) if isinstance(network, SeedEnsemble) else [network]
