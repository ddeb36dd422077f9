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
        flat = x.flatten(1, -2)
        found = torch.baddbmm(bias[:, None], flat, weight.transpose(1, 2))
        return found.view(*x.shape[:-1], -1), 0


def _is_plain(input: Any, target: Any, *more: Any, **settings: Any) -> bool:
    """Classes as numbers, one loss per example, nothing else asked for."""
    plain = not more and set(settings) == {"reduction"} and settings["reduction"] == "none"
    return plain and input.ndim == 2 and target.ndim == 1 and not target.is_floating_point()


def _cross_entropy(outputs: Tensor, classes: Tensor) -> Tensor:
    ignored = classes == -100  # torch's own mark
    of_class = outputs.gather(1, torch.where(ignored, 0, classes)[:, None])[:, 0]
    found = torch.logsumexp(outputs, dim=1) - of_class
    return torch.where(ignored, torch.zeros_like(found), found)
