"""Banded attention against the plain definition."""

import pytest
import torch

from barcast.models.attention import band_bias, banded_attention, rotate, rotation


def naive(query, key, value, real, look_back):
    num_queries, steps = query.shape[2], key.shape[2]
    out = torch.zeros_like(query)
    for b in range(len(query)):
        for i in range(num_queries):
            last = steps - num_queries + i
            keys = [s for s in range(max(0, last - look_back + 1), last + 1) if real[b, s]]
            if keys:
                scores = (query[b, :, i, None] * key[b][:, keys]).sum(-1) / query.shape[-1] ** 0.5
                out[b, :, i] = (scores.softmax(-1)[..., None] * value[b][:, keys]).sum(1)
    return out


@pytest.mark.parametrize(
    ("steps", "queries", "look_back"), [(7, 1, 7), (40, 40, 5), (100, 70, 31), (95, 95, 60), (9, 9, 9)]
)
def test_equals_the_definition(steps, queries, look_back):
    torch.manual_seed(steps)
    query = torch.randn(3, 2, queries, 4)
    key, value = torch.randn(3, 2, steps, 4), torch.randn(3, 2, steps, 4)
    real = torch.ones(3, steps, dtype=torch.bool)
    real[1, : steps // 2] = False
    mixed = banded_attention(query, key, value, band_bias(real, look_back, queries))
    wanted = naive(query, key, value, real, look_back)
    answered = real[:, None, -queries:, None].expand_as(wanted)
    torch.testing.assert_close(mixed[answered], wanted[answered], atol=1e-5, rtol=1e-5)
    assert torch.isfinite(mixed).all()


def test_scores_depend_on_distance_only():
    turn = rotation(50, 8, torch.device("cpu"))
    torch.manual_seed(0)
    query, key = torch.randn(8), torch.randn(8)

    def score(i, j):
        a = rotate(query.expand(1, 1, 50, 8), turn)[0, 0, i]
        return (a * rotate(key.expand(1, 1, 50, 8), turn)[0, 0, j]).sum()

    torch.testing.assert_close(score(10, 4), score(46, 40), atol=1e-5, rtol=1e-5)
    assert not torch.isclose(score(10, 4), score(10, 9))
