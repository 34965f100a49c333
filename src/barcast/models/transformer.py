"""Universal Transformer: causal self-attention over the symbol's own bars, one network for every symbol.

Pre-norm blocks (Vaswani et al. 2017; Xiong et al. 2020) with rotary positions (Su et al. 2021), which are
relative: a bar is told from another by how many bars lie between them, never by where a window starts. A
step attends to itself and the look-back - 1 steps before it, and never to padding, so the first prediction of
a stretch equals its window's and the network trains on stretches.

Letters: B batch, T steps, K predictions, F inputs, E embedding, D width, G heads, H horizons.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import gelu

from barcast.core.errors import UsageError
from barcast.models.attention import band_bias, banded_attention, rotate, rotation
from barcast.models.draws import Dropout
from barcast.models.identity import SymbolIdentity
from barcast.models.network import Sizes, check_options, masked_mse
from barcast.models.registry import register


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Options of the universal Transformer."""

    hidden_size: int = 64
    """Width D of a step."""
    num_layers: int = 2
    num_heads: int = 4
    """Attention heads; D is a multiple of twice their number."""
    feedforward: int = 4
    """Width of the inner layer in multiples of D."""
    stock_embedding_dim: int = 8
    """Width E of the symbol embedding; 0 removes identity from the model."""
    dropout: float = 0.1
    """After attention, in the inner layer and before the head."""
    id_dropout: float = 0.6
    """Probability that a training sample is shown as "unknown"."""
    static: tuple[str, ...] = ()
    """Fixed attributes (industry, board, exchange) with embeddings of their own beside the symbol's."""

    def __post_init__(self) -> None:
        check_options(self, hidden_size=1, num_layers=1, num_heads=1, feedforward=1, stock_embedding_dim=0)
        if self.hidden_size % (unit := 2 * self.num_heads):
            wider = -(-self.hidden_size // unit) * unit
            raise UsageError(
                f"`hidden_size` must be a multiple of twice `num_heads` ({unit}), got {self.hidden_size}",
                " or ".join(f"--hidden-size {width}" for width in (wider - unit, wider) if width),
            )


@register(
    "transformer",
    "network",
    TransformerConfig,
    summary="universal causal Transformer with a symbol embedding, trained on stretches",
    loss=masked_mse,
    supports_stretches=True,
    sizes={
        "small": {"hidden_size": 104, "num_layers": 3, "num_heads": 4},
        "balanced": {"hidden_size": 256, "num_layers": 5, "num_heads": 8},
        "large": {"hidden_size": 336, "num_layers": 6, "num_heads": 8},
        "xl": {"hidden_size": 640, "num_layers": 6, "num_heads": 10},
    },
)
class UniversalTransformer(nn.Module):
    """Causal attention network; ``forward`` gives the last ``num_predictions`` steps' outputs."""

    def __init__(self, config: TransformerConfig, sizes: Sizes) -> None:
        super().__init__()
        self.identity = SymbolIdentity(config, sizes)
        self.project = nn.Linear(sizes.num_inputs + self.identity.width, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(config.hidden_size, sizes.num_horizons)

    def forward(self, inputs: Tensor, symbol: Tensor, num_predictions: int = 1) -> Tensor:
        """Map inputs (B, T, F) and symbol (B,) to (B, num_predictions, H)."""
        steps = inputs.shape[1]
        look_back = steps - num_predictions + 1
        real = (inputs != 0).any(dim=-1)  # a bar's validity is above zero, padding is zeros throughout
        turn = rotation(steps, self.blocks[0].head_width, inputs.device)  # type: ignore[arg-type]
        states = self.project(self.identity(inputs, symbol))
        everywhere = band_bias(real, look_back, steps)
        for block in self.blocks[:-1]:
            states = block(states, everywhere, turn, steps)
        # the last block owes an answer to the predicted steps only
        states = self.blocks[-1](states, band_bias(real, look_back, num_predictions), turn, num_predictions)
        out: Tensor = self.head(self.dropout(self.norm(states)))
        return out


class Block(nn.Module):
    """Attention and an inner layer, each behind a layer norm and beside a shortcut."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads, self.head_width = config.num_heads, width // config.num_heads
        self.norm_attention, self.norm_inner = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.widen = nn.Linear(width, config.feedforward * width)
        self.narrow = nn.Linear(config.feedforward * width, width)
        self.dropout = Dropout(config.dropout)

    def forward(self, states: Tensor, bias: Tensor, turn: Tensor, num_queries: int) -> Tensor:
        """Map states (B, T, D) to the last ``num_queries`` of them; bias comes from `band_bias`."""
        normed = self.norm_attention(states)
        key, value = self.key_value(normed).chunk(2, dim=-1)
        query = rotate(self._heads(self.query(normed[:, -num_queries:])), turn[-num_queries:])
        mixed = banded_attention(query, rotate(self._heads(key), turn), self._heads(value), bias)
        states = states[:, -num_queries:] + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        inner = self.dropout(gelu(self.widen(self.norm_inner(states))))
        result: Tensor = states + self.dropout(self.narrow(inner))
        return result

    def _heads(self, values: Tensor) -> Tensor:
        return values.view(*values.shape[:2], self.num_heads, self.head_width).transpose(1, 2)
