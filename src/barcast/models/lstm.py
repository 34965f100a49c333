"""Universal LSTM: one recurrent network for every symbol, told apart by an embedding.

Long short-term memory (Hochreiter and Schmidhuber 1997) read left to right over the symbol's own bars:

- input of a step: normalised features, validity, and the symbol's embedding (index 0 is "unknown");
- embedding rows are replaced by "unknown" at random while training (id-dropout), which is what trains row 0
  and lets a symbol that nobody has seen be predicted;
- the head is layer norm, dropout, one linear map to the horizons; never batch norm, which mixes samples.

The network is causal, so it trains on stretches. Letters: B batch, T steps, F inputs, E embedding, D width,
H horizons.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from barcast.core.errors import UsageError
from barcast.models.network import Sizes, masked_mse
from barcast.models.registry import register


@dataclass(frozen=True, kw_only=True)
class LSTMConfig:
    """Options of the universal LSTM."""

    hidden_size: int = 64
    """Width D of the recurrent state."""
    num_layers: int = 2
    """Stacked layers."""
    stock_embedding_dim: int = 8
    """Width E of the symbol embedding; 0 removes identity from the model."""
    dropout: float = 0.1
    """Between layers and before the head."""
    id_dropout: float = 0.1
    """Probability that a training sample is shown as "unknown"."""

    def __post_init__(self) -> None:
        for name, low in (("hidden_size", 1), ("num_layers", 1), ("stock_embedding_dim", 0)):
            if getattr(self, name) < low:
                raise UsageError(f"`{name}` must be at least {low}, got {getattr(self, name)}")
        for name in ("dropout", "id_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"`{name}` must be in [0, 1), got {getattr(self, name)}")


@register(
    "lstm",
    "network",
    LSTMConfig,
    summary="universal LSTM with a symbol embedding, trained on stretches",
    loss=masked_mse,
    supports_stretches=True,
)
class UniversalLSTM(nn.Module):
    """Causal recurrent network; ``forward`` gives the last ``num_predictions`` steps' outputs."""

    def __init__(self, config: LSTMConfig, sizes: Sizes) -> None:
        super().__init__()
        self.config = config
        width = config.stock_embedding_dim
        self.embedding = nn.Embedding(sizes.num_symbols + 1, width) if width else None
        self.lstm = nn.LSTM(
            sizes.num_inputs + width,
            config.hidden_size,
            config.num_layers,
            batch_first=True,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
        )
        self.norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden_size, sizes.num_horizons)
        self._start()

    def _start(self) -> None:
        """Open forget gates (bias 1 in all), small embeddings: a fresh model treats symbols alike."""
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=0.01)
        hidden = self.config.hidden_size
        for name, parameter in self.lstm.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
                if "bias_ih" in name:
                    parameter.data[hidden : 2 * hidden] = 1.0

    def forward(self, inputs: Tensor, symbol: Tensor, num_predictions: int = 1) -> Tensor:
        """Map inputs (B, T, F) and symbol (B,) to (B, num_predictions, H)."""
        if self.embedding is not None:
            if self.training and self.config.id_dropout:
                hidden = torch.rand(symbol.shape, device=symbol.device) < self.config.id_dropout
                symbol = symbol.masked_fill(hidden, 0)
            identity = self.embedding(symbol)[:, None].expand(-1, inputs.shape[1], -1)
            inputs = torch.cat([inputs, identity], dim=-1)
        states: Tensor = self.lstm(inputs)[0][:, -num_predictions:]
        out: Tensor = self.head(self.dropout(self.norm(states)))
        return out


def num_parameters(config: LSTMConfig, sizes: Sizes) -> int:
    """Return the parameter count by formula: embedding, LSTM layers with two biases, norm, head."""

    def layer(inputs: int) -> int:
        return 4 * config.hidden_size * (inputs + config.hidden_size + 2)

    embedding = (sizes.num_symbols + 1) * config.stock_embedding_dim
    recurrent = layer(sizes.num_inputs + config.stock_embedding_dim)
    recurrent += (config.num_layers - 1) * layer(config.hidden_size)
    head = 2 * config.hidden_size + (config.hidden_size + 1) * sizes.num_horizons
    return embedding + recurrent + head
