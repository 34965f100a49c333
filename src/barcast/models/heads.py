"""What a network's outputs mean for each target: their number, the loss that teaches them, the score in them.

Nothing here brings torch along before a loss is computed. Letters: B batch, K predictions of a stretch,
H horizons, Q quantile levels, W outputs a horizon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from barcast.core.arrays import F32, F64
from barcast.core.predictions import QUANTILE_LEVELS

if TYPE_CHECKING:
    from torch import Tensor

A = TypeVar("A", F32, F64)


@dataclass(frozen=True)
class Head:
    """Outputs of one target.

    Attributes
    ----------
    width : int
        W, outputs a horizon.
    loss : callable or None
        Of prediction (B, K, H * W), target (B, K, H) with NaN where unknown and the labels of the global
        batch; None: the model's own.
    score : int
        Which of the W outputs is the score.
    """

    width: int = 1
    loss: Callable[[Tensor, Tensor, int], Tensor] | None = None
    score: int = 0

    def scores(self, outputs: A) -> A:
        """Return the score of each horizon (n, H) from outputs (n, H * W)."""
        chosen: A = outputs[:, self.score :: self.width]
        return chosen

    def quantiles(self, outputs: F64) -> F64 | None:
        """Return the quantiles of each horizon (n, H, Q), None where the outputs are none."""
        return None if self.width == 1 else outputs.reshape(len(outputs), -1, self.width)


def masked_log_loss(prediction: Tensor, target: Tensor, num_labels: int) -> Tensor:
    """Return the negative log likelihood of rises (targets above 0) under the sigmoid of the outputs.

    Summed over known labels, over ``num_labels``.
    """
    import torch

    known = torch.isfinite(target)
    rose = (target > 0).float()
    losses = torch.nn.functional.binary_cross_entropy_with_logits(prediction.float(), rose, reduction="none")
    return torch.where(known, losses, 0.0).sum() / num_labels


def masked_pinball(prediction: Tensor, target: Tensor, num_labels: int) -> Tensor:
    """Return the pinball loss (Koenker and Bassett 1978), a mean over levels.

    Summed over known labels, over ``num_labels``.
    """
    import torch

    known = torch.isfinite(target)
    levels = torch.tensor(QUANTILE_LEVELS, device=prediction.device)
    quantiles = prediction.float().view(*target.shape, len(QUANTILE_LEVELS))
    error = target.nan_to_num()[..., None] - quantiles
    losses = torch.maximum(levels * error, (levels - 1) * error).mean(dim=-1)
    return torch.where(known, losses, 0.0).sum() / num_labels


#: One output a horizon, taught by the model's own loss.
PLAIN = Head()
_HEADS = {
    "direction": Head(loss=masked_log_loss),
    "quantiles": Head(len(QUANTILE_LEVELS), masked_pinball, QUANTILE_LEVELS.index(0.5)),
}


def head_of(target: str) -> Head:
    """Return the head that a target asks for: one output a horizon and the model's own loss for most."""
    return _HEADS.get(target, PLAIN)
