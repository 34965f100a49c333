"""Universal MLP: a control that reads the last bar's features only, so that history has to earn its place."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from barcast.models.draws import Dropout
from barcast.models.identity import SymbolIdentity
from barcast.models.network import Sizes, check_options, masked_mse
from barcast.models.registry import register


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """Options of the universal MLP."""

    hidden_size: int = 128
    """Width D of each inner layer."""
    num_layers: int = 2
    """Inner layers."""
    stock_embedding_dim: int = 8
    """Width E of the symbol embedding; 0 removes identity from the model."""
    dropout: float = 0.1
    id_dropout: float = 0.6
    """Probability that a training sample is shown as "unknown"."""
    static: tuple[str, ...] = ()
    """Fixed attributes (industry, board, exchange) with embeddings of their own beside the symbol's."""

    def __post_init__(self) -> None:
        check_options(self, hidden_size=1, num_layers=1, stock_embedding_dim=0)


@register(
    "mlp",
    "network",
    MLPConfig,
    summary="multilayer perceptron on the last bar alone: what history adds is the difference to it",
    loss=masked_mse,
    supports_stretches=True,
    sizes={
        "small": {"hidden_size": 592, "num_layers": 2},
        "balanced": {"hidden_size": 1152, "num_layers": 4},
        "large": {"hidden_size": 1600, "num_layers": 4},
    },
)
class UniversalMLP(nn.Module):
    """Linear, layer norm, GELU, dropout; ``num_layers`` times, then a linear head."""

    def __init__(self, config: MLPConfig, sizes: Sizes) -> None:
        super().__init__()
        self.identity = SymbolIdentity(config, sizes)
        width = sizes.num_inputs + self.identity.width
        layers: list[nn.Module] = []
        for _ in range(config.num_layers):
            layers += [nn.Linear(width, config.hidden_size), nn.LayerNorm(config.hidden_size), nn.GELU()]
            layers.append(Dropout(config.dropout))
            width = config.hidden_size
        self.layers = nn.Sequential(*layers, nn.Linear(width, sizes.num_horizons))

    def forward(self, inputs: Tensor, symbol: Tensor, num_predictions: int = 1) -> Tensor:
        """Map inputs (B, T, F) and symbol (B,) to (B, num_predictions, H)."""
        out: Tensor = self.layers(self.identity(inputs[:, -num_predictions:], symbol))
        return out
