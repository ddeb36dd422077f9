"""Two operations of stacked nets that are slow under vmap, written for the whole stack at once.

vmap splits a linear layer into a product and a separate sum. For log-softmax over a short last axis (the classes),
torch processes one number at a time.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.overrides import TorchFunctionMode

from upweight.training.plain_cross_entropy import IGNORED, is_plain


class StackedOperations(TorchFunctionMode):
    """Inside this mode, linear layers and plain cross-entropies under vmap run for the whole stack at once."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace calls that give the same numbers in the faster form; all other calls run unchanged."""
        kwargs = kwargs or {}
        if func is F.linear and len(args) == 3 and not kwargs and args[2] is not None and args[0].ndim >= 2:
            return _Linear.apply(*args)  # type: ignore[no-untyped-call]
        if func is F.cross_entropy and is_plain(*args, **kwargs):
            return _cross_entropy(args[0], args[1])
        return func(*args, **kwargs)


class _Linear(torch.autograd.Function):
    """x Wᵀ + b, under vmap one batched product with the sum included."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing: autograd differentiates the operations of `vmap`."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, int]:
        x, weight, bias = (
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip((x, weight, bias), in_dims, strict=True)
        )
        outputs: Tensor = _BatchedLinear.apply(x.flatten(1, -2), weight, bias)  # type: ignore[no-untyped-call]
        return outputs.view(*x.shape[:-1], -1), 0


class _BatchedLinear(torch.autograd.Function):
    """x Wᵀ + b of a stack, (M, n, in), (M, out, in), (M, out). Gradients have the memory layout of their tensors."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.bmm(x, weight.transpose(1, 2)).add_(bias[:, None])  # baddbmm takes twice as long

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, output_gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        x_gradient = torch.bmm(output_gradient, weight) if ctx.needs_input_grad[0] else None
        return x_gradient, torch.bmm(output_gradient.transpose(1, 2), x), output_gradient.sum(dim=1)


def _cross_entropy(outputs: Tensor, classes: Tensor) -> Tensor:
    ignored = classes == IGNORED
    label_output = outputs.gather(1, torch.where(ignored, 0, classes).long()[:, None])[:, 0]
    losses = torch.logsumexp(outputs, dim=1) - label_output
    return torch.where(ignored, torch.zeros_like(losses), losses)
