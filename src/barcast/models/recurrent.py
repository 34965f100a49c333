"""What the universal recurrent networks share: options, identity, head. Only the cell differs.

A stack of recurrent layers reads the symbol's own bars left to right; input of a step are the normalised
features, validity and the symbol's embedding. The head is layer norm, dropout, one linear map to the
horizons; never batch norm, which mixes samples.

Letters: B batch, T steps, F inputs, E embedding, D width, H horizons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from barcast.models.draws import Dropout
from barcast.models.identity import SymbolIdentity
from barcast.models.network import Sizes, check_options


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """Options of a universal recurrent network."""

    hidden_size: int = 64
    """Width D of the recurrent state."""
    num_layers: int = 2
    """Stacked layers."""
    stock_embedding_dim: int = 8
    """Width E of the symbol embedding; 0 removes identity from the model."""
    dropout: float = 0.1
    """Between layers and before the head."""
    id_dropout: float = 0.6
    """Probability that a training sample is shown as "unknown"."""
    static: tuple[str, ...] = ()
    """Fixed attributes (industry, board, exchange) with embeddings of their own beside the symbol's."""

    def __post_init__(self) -> None:
        check_options(self, hidden_size=1, num_layers=1, stock_embedding_dim=0)


class UniversalRecurrent(nn.Module):
    """Causal recurrent network; ``forward`` gives the last ``num_predictions`` steps' outputs."""

    cell: ClassVar[type[nn.LSTM | nn.GRU]]

    def __init__(self, config: RecurrentConfig, sizes: Sizes) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.identity = SymbolIdentity(config, sizes)
        widths = [sizes.num_inputs + self.identity.width, *[hidden] * (config.num_layers - 1)]
        self.recurrent = nn.ModuleList(self.cell(width, hidden, batch_first=True) for width in widths)
        self.norm = nn.LayerNorm(hidden)
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(hidden, sizes.num_horizons)
        for name, parameter in self.recurrent.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)

    def forward(self, inputs: Tensor, symbol: Tensor, num_predictions: int = 1) -> Tensor:
        """Map inputs (B, T, F) and symbol (B,) to (B, num_predictions, H)."""
        states = self.identity(inputs, symbol)
        for depth, layer in enumerate(self.recurrent):
            states = layer(self.dropout(states) if depth else states)[0]
        out: Tensor = self.head(self.dropout(self.norm(states[:, -num_predictions:])))
        return out
