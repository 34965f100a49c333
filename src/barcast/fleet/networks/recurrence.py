"""The recurrences of G networks at once, with backward passes of their own.

A library's recurrent layer runs one network; here a step of all networks is one batched product and a few
operations on whole stacks. The hyperbolic tangent is computed as ``2 sigmoid(2 x) - 1``: a vectorised
sigmoid is several times as fast, and the factor of ``x`` rests in the weights (:func:`scaled`), where it is
free.

Sources: Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000 (LSTM); Cho et al. 2014,
reset gate after the recurrent product as in cuDNN (GRU). Gates lie as in torch: ``i f g o`` and ``r z n``.

Letters: G networks, T steps, B sequences of each, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from barcast.fleet.networks.presets import Kind

#: Gates of a step.
NUM_GATES: dict[str, int] = {"lstm": 4, "gru": 3}
#: The one that is a tangent, of either kind.
_TANGENT = 2

_aten: Any = torch.ops.aten


def scaled(kind: Kind, weights: Tensor) -> Tensor:
    """Return weights (G, gates * D, ...) with the tangent's rows doubled, as the recurrences read them."""
    gates = NUM_GATES[kind]
    factor = weights.new_ones(gates)
    factor[_TANGENT] = 2.0
    rows = weights.reshape(len(weights), gates, -1)
    return (rows * factor.unsqueeze(1)).reshape(weights.shape)


class LSTM(torch.autograd.Function):
    """States (G, T, B, D) from what the inputs give (G, T, B, 4D) and weights (G, D, 4D), both scaled."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, weights: Tensor) -> Tensor:
        """Run from zero states."""
        width = weights.shape[1]
        shape = (*given.shape[:3], width)
        gates, total = torch.empty_like(given), given.new_empty(given.shape[0], *given.shape[2:])
        tangent, cell, shown, state = (given.new_empty(shape) for _ in range(4))
        inner, minus = given.new_empty(shape[0], *shape[2:]), given.new_tensor(-1.0)
        forms = gates.chunk(4, dim=-1)
        steps = zip(
            *(each.unbind(1) for each in (given, gates, *forms, tangent, cell, shown, state)), strict=True
        )
        before_cell = before = None
        for x, s, i, f, u, o, g, c, k, h in steps:
            torch.sigmoid(x if before is None else torch.baddbmm(x, before, weights, out=total), out=s)
            torch.add(minus, u, alpha=2, out=g)
            torch.mul(i, g, out=c)
            if before_cell is not None:
                c.addcmul_(f, before_cell)
            torch.sigmoid(torch.add(c, c, out=inner), out=inner)
            torch.add(minus, inner, alpha=2, out=k)
            torch.mul(o, k, out=h)
            before_cell, before = c, h
        ctx.save_for_backward(gates, tangent, cell, shown, state, weights)
        return state

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Go back through time; gradients of what the inputs gave and of the weights."""
        gates, tangent, cell, shown, state, weights = ctx.saved_tensors
        length, taught = gates.shape[1], gradients[0].unbind(1)
        found, towards = torch.empty_like(gates), gates.new_empty(gates.shape[0], *gates.shape[2:])
        to_i, to_f, to_u, to_o = towards.chunk(4, dim=-1)
        back, inner, carried = taught[-1].clone(), torch.empty_like(to_i), torch.zeros_like(taught[-1])
        transposed = weights.transpose(1, 2)
        forms = gates.chunk(4, dim=-1)
        steps = list(zip(*(each.unbind(1) for each in (found, gates, *forms, tangent, shown)), strict=True))
        cells = cell.unbind(1)
        for t in range(length - 1, -1, -1):
            d, s, i, f, _, o, g, k = steps[t]
            torch.mul(back, k, out=to_o)
            _aten.tanh_backward.grad_input(torch.mul(back, o, out=inner), k, grad_input=inner)
            carried.add_(inner)
            torch.mul(carried, g, out=to_i)
            if t:
                torch.mul(carried, cells[t - 1], out=to_f)
            else:
                to_f.zero_()
            torch.mul(carried, i, out=to_u).mul_(2)
            _aten.sigmoid_backward.grad_input(towards, s, grad_input=d)
            if t:
                carried.mul_(f)
                torch.baddbmm(taught[t - 1], d, transposed, out=back)
        return found, _weight_gradient(state, found)


class GRU(torch.autograd.Function):
    """States (G, T, B, D) from what the inputs give (G, T, B, 3D), weights (G, D, 3D) and bias (G, 1, 3D).

    All are scaled; the bias is that of the recurrent product, of which only ``n`` is not redundant.
    """

    @staticmethod
    def forward(ctx: Any, given: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
        """Run from zero states."""
        width = weights.shape[1]
        shape = (*given.shape[:3], width)
        num, _, count, _ = given.shape
        gates, products = given.new_empty(*shape[:3], 2 * width), given.new_empty(shape)
        fresh, state = given.new_empty(shape), given.new_empty(shape)
        total, minus = given.new_empty(num, count, 3 * width), given.new_tensor(-1.0)
        start = bias.expand(num, count, 3 * width)
        of_rz, of_n = torch.split(total, [2 * width, width], dim=-1)
        parts = (
            *torch.split(given, [2 * width, width], dim=-1),
            gates,
            *gates.chunk(2, dim=-1),
            products,
            fresh,
            state,
        )
        before = given.new_zeros(num, count, width)
        for x_rz, x_n, s, r, z, p, n, h in zip(*(each.unbind(1) for each in parts), strict=True):
            torch.baddbmm(start, before, weights, out=total)
            torch.sigmoid(torch.add(of_rz, x_rz, out=s), out=s)
            p.copy_(of_n)
            torch.addcmul(x_n, r, p, out=n)
            torch.add(minus, n.sigmoid_(), alpha=2, out=n)
            torch.lerp(n, before, z, out=h)
            before = h
        ctx.save_for_backward(gates, products, fresh, state, weights)
        return state

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Go back through time; gradients of what the inputs gave, of the weights and of the bias."""
        gates, products, fresh, state, weights = ctx.saved_tensors
        width, length = weights.shape[1], gates.shape[1]
        taught, states = gradients[0].unbind(1), state.unbind(1)
        found, recurrent = (gates.new_empty(*gates.shape[:3], 3 * width) for _ in range(2))
        towards = torch.empty_like(gates[:, 0])
        to_r, to_z = towards.chunk(2, dim=-1)
        back, inner = taught[-1].clone(), torch.empty_like(taught[-1])
        transposed, nothing = weights.transpose(1, 2), torch.zeros_like(back)
        parts = (
            found, *torch.split(recurrent, [2 * width, width], dim=-1), recurrent,
            gates, *gates.chunk(2, dim=-1), products, fresh,
        )  # fmt: skip
        steps = list(zip(*(each.unbind(1) for each in parts), strict=True))
        for t in range(length - 1, -1, -1):
            d, d_rz, d_p, d_all, s, r, z, p, n = steps[t]
            before = states[t - 1] if t else nothing
            torch.mul(back, torch.sub(before, n, out=inner), out=to_z)
            torch.sub(back, torch.mul(back, z, out=inner), out=to_r)
            d_n = d[..., 2 * width :]
            # n = tanh(y / 2) of the doubled y, whose derivative is half of (1 - n^2)
            torch.mul(_aten.tanh_backward(to_r, n), 0.5, out=d_n)
            torch.mul(d_n, r, out=d_p)
            torch.mul(d_n, p, out=to_r)
            _aten.sigmoid_backward.grad_input(towards, s, grad_input=d_rz)
            d[..., : 2 * width].copy_(d_rz)
            if t:
                torch.baddbmm(inner.add_(taught[t - 1]), d_all, transposed, out=back)
        return found, _weight_gradient(state, recurrent), recurrent.sum(dim=(1, 2)).unsqueeze(1)


def _weight_gradient(state: Tensor, found: Tensor) -> Tensor:
    """Sum states x gradients of the next step over steps and sequences, as one product."""
    num, width = state.shape[0], state.shape[-1]
    before = state[:, :-1].reshape(num, -1, width)
    return torch.bmm(before.transpose(1, 2), found[:, 1:].reshape(num, -1, found.shape[-1]))
