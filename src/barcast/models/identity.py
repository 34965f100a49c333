"""Who a symbol is, for networks that serve all: a vector for "unknown", and how each symbol differs from it.

The embedding of a symbol is "unknown" plus a row of its own, so that every label teaches what all symbols
share; row 0 is zero for good. Rows are
replaced by row 0 at random while training (id-dropout): that lets a symbol that nobody has seen be predicted
as well as a model without identity would. Attributes that are fixed for a symbol (industry, board, exchange)
may have small embeddings beside it: a symbol that nobody has seen has a known industry all the same, so each
is hidden on its own. Letters: B batch, T steps, F inputs, E embedding, A attributes.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from barcast.models.draws import generator_for
from barcast.models.network import Sizes

#: Standard deviation of a fresh row: small, so that a fresh model treats symbols alike.
INITIAL_STD = 0.01
#: Names of the embedding tables among a network's weights: the symbols' one, and the attributes' by number.
OWN_TABLE, ATTRIBUTE_TABLES = "identity.embedding.weight", "identity.attribute_embeddings"
#: Width of an attribute's embedding: it tells tens of industries apart, not thousands of symbols.
ATTRIBUTE_WIDTH = 4


class IdentityOptions(Protocol):
    """What a network's options say about identity."""

    @property
    def stock_embedding_dim(self) -> int:
        """Width of the symbol embedding; 0 for none."""

    @property
    def id_dropout(self) -> float:
        """Probability that a training sample is shown as "unknown"."""

    @property
    def static(self) -> tuple[str, ...]:
        """Names of the attributes that get an embedding of their own."""


class SymbolIdentity(nn.Module):
    """Append the embeddings of the symbol and of its attributes to every step.

    With width 0 and no attribute every symbol is the same. ``width`` is what is appended in all.

    Parameters
    ----------
    options : IdentityOptions
    sizes : Sizes
        Symbols beside "unknown", and values beside "unknown" of each attribute.
    """

    def __init__(self, options: IdentityOptions, sizes: Sizes) -> None:
        super().__init__()
        assert len(options.static) == len(sizes.attributes), "a vocabulary for each attribute"
        own = options.stock_embedding_dim
        self.id_dropout = options.id_dropout
        self.width = own + ATTRIBUTE_WIDTH * len(sizes.attributes)
        self.embedding = _embedding(sizes.num_symbols, own) if own else None
        self.attribute_embeddings = nn.ModuleList(
            _embedding(num_values, ATTRIBUTE_WIDTH) for num_values in sizes.attributes
        )
        self.unknown = nn.Parameter(INITIAL_STD * torch.randn(self.width)) if self.width else None

    def forward(self, inputs: Tensor, symbol: Tensor) -> Tensor:
        """Map inputs (B, T, F) and symbol (B,), or with attributes (B, 1 + A), to (B, T, F + width)."""
        if self.unknown is None:
            return inputs
        codes = symbol if symbol.ndim == 2 else symbol[:, None]
        if self.training and self.id_dropout:
            drawn = torch.rand(codes.shape, device=codes.device, generator=generator_for(codes.device))
            hidden = drawn < self.id_dropout
            codes = codes.masked_fill(hidden, 0)
        tables = [self.embedding, *self.attribute_embeddings]
        found = [table(codes[:, column]) for column, table in enumerate(tables) if table is not None]
        identity = (self.unknown + torch.cat(found, dim=-1))[:, None].expand(-1, inputs.shape[1], -1)
        return torch.cat([inputs, identity], dim=-1)


def _embedding(num_known: int, width: int) -> nn.Embedding:
    table = nn.Embedding(num_known + 1, width, padding_idx=0)
    nn.init.normal_(table.weight, std=INITIAL_STD)
    with torch.no_grad():
        table.weight[0].zero_()
    return table
