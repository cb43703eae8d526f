"""Values of an ensemble of ReLU networks at many inputs, faster on a processor than layer by layer.

The same function and gradient as batched products of whole layers give, but for rounding. With thousands of rows the
layers' outputs do not fit into the cache, and half of the time goes into moving them; here a block of rows passes
through all layers before the next one begins, forwards and backwards, and ReLU works in place. What the backward pass
needs is kept in memory that the caller owns: fresh memory of that size costs a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_ROWS = 512
"""Rows of a block: with 256 columns of float32 half a MB, a quarter of a usual second-level cache. A GPU takes all."""


class _EnsembleValues(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, block: int, hidden: list[Tensor], *parameters: Tensor) -> Tensor:
        depth = len(parameters) // 2
        weights, biases = parameters[:depth], parameters[depth:]
        members, rows = weights[0].shape[0], inputs.shape[0]
        outputs = [*hidden, inputs.new_empty(members, rows, 1)]
        for member in range(members):
            for first in range(0, rows, block):
                part = slice(first, first + block)
                x = inputs[part]
                for layer in range(depth):
                    out = outputs[layer][member, part]
                    torch.addmm(biases[layer][member], x, weights[layer][member], out=out)
                    x = out.relu_() if layer < depth - 1 else out
        ctx.save_for_backward(inputs, *weights, *hidden)
        ctx.depth, ctx.block = depth, block
        return outputs[-1][..., 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        depth, block = ctx.depth, ctx.block
        inputs, *saved = ctx.saved_tensors
        weights, hidden = saved[:depth], saved[depth:]
        by_weight = [torch.zeros_like(weight) for weight in weights]
        by_bias = [weight.new_zeros(weight.shape[0], 1, weight.shape[2]) for weight in weights]
        for member in range(slope.shape[0]):
            for first in range(0, slope.shape[1], block):
                part = slice(first, first + block)
                by_out = slope[member, part, None]
                for layer in reversed(range(depth)):
                    x = hidden[layer - 1][member, part] if layer else inputs[part]
                    by_weight[layer][member].addmm_(x.t(), by_out)
                    by_bias[layer][member, 0].add_(by_out.sum(dim=0))
                    if layer:
                        by_in = by_out @ weights[layer][member].t()
                        by_out = torch.ops.aten.threshold_backward.grad_input(by_in, x, 0.0, grad_input=by_in)
        return (None, None, None, *by_weight, *by_bias)


def ensemble_values(
    inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], memory: list[Tensor] | None = None
) -> Tensor:
    """Return the values (E, B) of E ReLU networks with one output at ``inputs`` (B, in).

    Differentiable once, in weights and biases, not in the inputs, and with ``memory`` before the next call with it:
    later, autograd raises a RuntimeError.

    Args:
        inputs: shared by the members.
        weights: per layer (E, in, out); the last layer is linear, with out = 1.
        biases: per layer (E, 1, out).
        memory: a list that the caller keeps and passes again, empty at first; none: fresh memory.

    Raises:
        ValueError: the inputs require a gradient, or there is more than one output.
    """
    if inputs.requires_grad and torch.is_grad_enabled():
        raise ValueError("the inputs require a gradient, expected inputs that are given")
    if weights[-1].shape[2] != 1:
        raise ValueError(f"the last layer has {weights[-1].shape[2]} outputs, expected 1")
    block = max(inputs.shape[0], 1) if inputs.is_cuda else BLOCK_ROWS
    kept = [] if memory is None else memory
    shapes = [(weight.shape[0], inputs.shape[0], weight.shape[2]) for weight in weights[:-1]]
    if [(each.shape, each.dtype, each.device) for each in kept] != [(s, inputs.dtype, inputs.device) for s in shapes]:
        kept[:] = [inputs.new_empty(shape) for shape in shapes]
    values = _EnsembleValues.apply(inputs, block, list(kept), *weights, *biases)  # type: ignore[no-untyped-call]
    return torch.as_tensor(values)
