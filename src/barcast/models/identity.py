"""Who a symbol is, for networks that serve all of them: an embedding whose row 0 means "unknown".

Rows are replaced by "unknown" at random while training (id-dropout): that is what trains row 0 and lets a
symbol that nobody has seen be predicted. Letters: B batch, T steps, F inputs, E embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SymbolIdentity(nn.Module):
    """Append the symbol's embedding to every step; with width 0 every symbol is the same.

    Parameters
    ----------
    num_symbols : int
        Rows beside "unknown".
    width : int
        E; 0 leaves inputs as they are.
    id_dropout : float
        Probability that a training sample is shown as "unknown".
    """

    def __init__(self, num_symbols: int, width: int, id_dropout: float) -> None:
        super().__init__()
        self.id_dropout = id_dropout
        self.embedding = nn.Embedding(num_symbols + 1, width) if width else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=0.01)  # a fresh model treats symbols alike

    def forward(self, inputs: Tensor, symbol: Tensor) -> Tensor:
        """Map inputs (B, T, F) and symbol (B,) to (B, T, F + E)."""
        if self.embedding is None:
            return inputs
        if self.training and self.id_dropout:
            hidden = torch.rand(symbol.shape, device=symbol.device) < self.id_dropout
            symbol = symbol.masked_fill(hidden, 0)
        identity = self.embedding(symbol)[:, None].expand(-1, inputs.shape[1], -1)
        return torch.cat([inputs, identity], dim=-1)
