"""What the outputs of a target mean, and that its loss teaches just that."""

import numpy as np
import pytest
import torch

from barcast.core.predictions import QUANTILE_LEVELS
from barcast.models.heads import PLAIN, head_of, masked_log_loss, masked_pinball


def minimised(loss, target, width):
    """The constant outputs that a loss likes best for targets (n,)."""
    outputs = torch.zeros(width, requires_grad=True)
    optimizer = torch.optim.LBFGS([outputs], max_iter=200, line_search_fn="strong_wolfe")
    labels = torch.tensor(target, dtype=torch.float32)[:, None, None]
    known = int(np.isfinite(target).sum())

    def closure():
        optimizer.zero_grad()
        value = loss(outputs.expand(len(target), 1, width), labels, known)
        value.backward()
        return value

    for _ in range(20):
        optimizer.step(closure)
    return outputs.detach().numpy()


def test_the_log_loss_is_least_at_the_log_odds_of_a_rise():
    target = np.array([1.0] * 30 + [-1.0] * 10 + [np.nan] * 60)
    assert minimised(masked_log_loss, target, 1)[0] == pytest.approx(np.log(3), abs=1e-3)


def test_the_pinball_loss_is_least_at_the_quantiles():
    target = np.random.default_rng(0).standard_t(4, 4001)
    target[::10] = np.nan
    found = minimised(masked_pinball, target, len(QUANTILE_LEVELS))
    assert found == pytest.approx(np.nanquantile(target, QUANTILE_LEVELS), abs=0.05)


@pytest.mark.parametrize("name", ["direction", "quantiles"])
def test_parts_of_a_batch_add_up_and_unknown_labels_weigh_nothing(name):
    torch.manual_seed(0)
    head = head_of(name)
    outputs, target = torch.randn(6, 4, 2 * head.width), torch.randn(6, 4, 2).sign()
    target[1, :, 0] = float("nan")
    num_labels = int(torch.isfinite(target).sum())
    whole = head.loss(outputs, target, num_labels)
    parts = sum(head.loss(outputs[i : i + 2], target[i : i + 2], num_labels) for i in (0, 2, 4))
    assert whole.item() == pytest.approx(parts.item(), rel=1e-6)
    changed = outputs.clone()
    changed[1, :, : head.width] += 100.0
    assert head.loss(changed, target, num_labels).item() == pytest.approx(whole.item(), rel=1e-6)


def test_outputs_are_read_by_horizon():
    head, outputs = head_of("quantiles"), np.arange(20.0).reshape(2, 10)
    assert head.scores(outputs).tolist() == [[2.0, 7.0], [12.0, 17.0]]
    assert head.quantiles(outputs)[1, 0].tolist() == [10, 11, 12, 13, 14]
    assert head_of("rank") is PLAIN
    assert PLAIN.quantiles(outputs) is None
    assert PLAIN.scores(outputs).shape == (2, 10)
