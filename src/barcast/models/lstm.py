"""Universal LSTM: long short-term memory (Hochreiter and Schmidhuber 1997), one network for every symbol."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from barcast.models.network import Sizes, masked_mse
from barcast.models.recurrent import RecurrentConfig, UniversalRecurrent
from barcast.models.registry import register


@dataclass(frozen=True, kw_only=True)
class LSTMConfig(RecurrentConfig):
    """Options of the universal LSTM."""


@register(
    "lstm",
    "network",
    LSTMConfig,
    summary="universal LSTM with a symbol embedding, trained on stretches",
    loss=masked_mse,
    supports_stretches=True,
    sizes={
        "small": {"hidden_size": 176, "num_layers": 2},
        "balanced": {"hidden_size": 568, "num_layers": 2},
        "large": {"hidden_size": 800, "num_layers": 2},
    },
)
class UniversalLSTM(UniversalRecurrent):
    """Four gates a step; starts with open forget gates (their biases add up to 1)."""

    cell = nn.LSTM

    def __init__(self, config: LSTMConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        hidden = config.hidden_size
        for name, parameter in self.recurrent.named_parameters():
            if "bias_ih" in name:
                parameter.data[hidden : 2 * hidden] = 1.0
