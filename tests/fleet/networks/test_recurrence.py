"""The recurrences against finite differences and against torch's own layers."""

import pytest
import torch

from barcast.fleet.networks.recurrence import GRU, LSTM, NUM_GATES
from barcast.fleet.networks.stacked import Shape, draw_masks, forward

KINDS = pytest.mark.parametrize("kind", ["lstm", "gru"])


@KINDS
def test_gradients_are_those_of_finite_differences(kind):
    torch.manual_seed(0)
    gates = NUM_GATES[kind]
    given = torch.randn(2, 4, 3, gates * 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, gates * 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, 1, gates * 3, dtype=torch.float64, requires_grad=True)
    arguments = (given, weights) if kind == "lstm" else (given, weights, bias)
    assert torch.autograd.gradcheck((LSTM if kind == "lstm" else GRU).apply, arguments)


def _reference(shape, weights, inputs, num_predictions):
    """Each network through torch's layers, one after the other."""
    found = []
    for g in range(len(inputs)):
        kind = torch.nn.LSTM if shape.kind == "lstm" else torch.nn.GRU
        layers = kind(shape.num_inputs, shape.hidden_size, shape.num_layers).to(inputs.dtype)
        own = {n: w[g] for n, w in weights.items() if "head" not in n}
        for depth in range(shape.num_layers):
            own.setdefault(f"bias_hh_l{depth}", torch.zeros_like(own[f"bias_ih_l{depth}"]))
        states = torch.func.functional_call(layers, own, (inputs[g],))[0][-num_predictions:]
        states = torch.nn.functional.layer_norm(states, (shape.hidden_size,))
        found.append(torch.nn.functional.linear(states, weights["head.weight"][g], weights["head.bias"][g]))
    return torch.stack(found)


@KINDS
@pytest.mark.parametrize(
    ("width", "layers", "dtype"), [(5, 2, torch.float64), (40, 1, torch.float64), (40, 2, torch.float32)]
)
def test_a_stack_is_torchs_layers_one_by_one(kind, width, layers, dtype):
    shape = Shape(kind, width, layers, 4, 2)
    stack = torch.stack([shape.initial(seed) for seed in range(3)]).to(dtype)
    stack += 0.1 * torch.randn(stack.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    inputs = torch.randn(3, 9, 5, 4, generator=torch.Generator().manual_seed(2)).to(dtype)
    gradients = []
    for run in (forward, _reference):
        leaves = {name: view.detach().clone().requires_grad_() for name, view in shape.views(stack).items()}
        outputs = run(shape, leaves, inputs, 3)
        gradients.append((outputs, *torch.autograd.grad(outputs.square().sum(), list(leaves.values()))))
    exact = {"rtol": 1e-9, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 2e-4, "atol": 2e-4}
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, **exact)


def test_what_is_dropped_depends_on_the_own_seed_alone():
    shape = Shape("lstm", 6, 2, 4, 1)
    alone = draw_masks(shape, [5], 0.4, 9, 3, 2)
    among = draw_masks(shape, [1, 2, 5], 0.4, 9, 3, 2)
    assert torch.equal(alone.head[0], among.head[2]) and torch.equal(alone.between[0][0], among.between[0][2])
    assert not torch.equal(among.head[0], among.head[1])
    assert 0.4 < float((alone.between[0] > 0).float().mean()) < 0.8


def test_an_lstm_starts_with_open_forget_gates_and_the_number_of_weights_is_torchs_without_a_bias():
    shape = Shape("lstm", 6, 2, 4, 1)
    own = shape.views(shape.initial(3)[None])
    assert own["bias_ih_l1"][0].tolist() == [0.0] * 6 + [1.0] * 6 + [0.0] * 12
    torchs = sum(p.numel() for p in torch.nn.LSTM(4, 6, 2).parameters())
    assert shape.size == torchs - 2 * 24 + 7
