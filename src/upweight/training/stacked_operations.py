"""Batched: the two operations of stacked nets that vmap does slowly, written for a whole stack at once.

vmap splits a linear layer in a product and a sum of its own, and torch's log-softmax over a short last axis, as classes
are, takes one number at a time.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.overrides import TorchFunctionMode

PLAIN = {"ignore_index": -100, "reduction": "none", "label_smoothing": 0.0}  # of cross-entropies; all else is None


class Batched(TorchFunctionMode):
    """Inside, linear layers and plain cross-entropies under vmap are done for the stack at once."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Take over what is known to be the same; everything else goes its way."""
        kwargs = kwargs or {}
        if func is F.linear and len(args) == 3 and not kwargs and args[2] is not None and args[0].ndim >= 2:
            return _Linear.apply(*args)  # type: ignore[no-untyped-call]
        if func is F.cross_entropy and _is_plain(*args, **kwargs):
            return _cross_entropy(args[0], args[1])
        return func(*args, **kwargs)


class _Linear(torch.autograd.Function):
    """x Wᵀ + b, which under vmap is one batched product with its sum."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: autograd sees through to the operations of `vmap`."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, int]:
        x, weight, bias = (
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip((x, weight, bias), in_dims, strict=True)
        )
        found: Tensor = _Product.apply(x.flatten(1, -2), weight, bias)  # type: ignore[no-untyped-call]
        return found.view(*x.shape[:-1], -1), 0


class _Product(torch.autograd.Function):
    """x Wᵀ + b of a stack, (M, n, in), (M, out, in), (M, out), whose gradients lie in memory as what they are of."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.bmm(x, weight.transpose(1, 2)).add_(bias[:, None])  # baddbmm takes twice as long

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        below = torch.bmm(above, weight) if ctx.needs_input_grad[0] else None
        return below, torch.bmm(above.transpose(1, 2), x), above.sum(dim=1)


def _is_plain(input: Any, target: Any, *more: Any, **settings: Any) -> bool:
    """Classes as numbers, one loss per example, nothing else asked for; torch hands every setting on by its name."""
    others = any(value is not None and (name not in PLAIN or value != PLAIN[name]) for name, value in settings.items())
    plain = not more and not others and settings.get("reduction") == "none"
    return plain and input.ndim == 2 and target.ndim == 1 and not target.is_floating_point()


def _cross_entropy(outputs: Tensor, classes: Tensor) -> Tensor:
    ignored = classes == -100  # torch's own mark
    of_class = outputs.gather(1, torch.where(ignored, 0, classes)[:, None])[:, 0]
    found = torch.logsumexp(outputs, dim=1) - of_class
    return torch.where(ignored, torch.zeros_like(found), found)
