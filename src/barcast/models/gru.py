"""Universal GRU: gated recurrent unit (Cho et al. 2014), one network for every symbol.

The reset gate acts after the recurrent product, as in cuDNN.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from barcast.models.network import masked_mse
from barcast.models.recurrent import RecurrentConfig, UniversalRecurrent
from barcast.models.registry import register


@dataclass(frozen=True, kw_only=True)
class GRUConfig(RecurrentConfig):
    """Options of the universal GRU."""


@register(
    "gru",
    "network",
    GRUConfig,
    summary="universal GRU with a symbol embedding, trained on stretches",
    loss=masked_mse,
    supports_stretches=True,
    sizes={
        "small": {"hidden_size": 208, "num_layers": 2},
        "balanced": {"hidden_size": 656, "num_layers": 2},
        "large": {"hidden_size": 928, "num_layers": 2},
    },
)
class UniversalGRU(UniversalRecurrent):
    """Three gates a step: a quarter less work than an LSTM of the same width."""

    cell = nn.GRU
