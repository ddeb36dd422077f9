"""Dropout that draws inside torch's function transforms what it draws outside of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.overrides import TorchFunctionMode


class PlainDropout(TorchFunctionMode):
    """Inside this mode, dropout on the CPU fills its mask in the order of the memory of its input.

    Torch does so in training; inside `torch.func` it fills in the order of the axes, which is another mask where axes
    were permuted (as after an attention layer).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace active dropout; all other calls run unchanged."""
        if func is F.dropout:
            return _dropout(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    is_drawn = training and 0.0 < p < 1.0 and not inplace
    if not is_drawn or input.is_contiguous() or input.device.type != "cpu":
        return F.dropout(input, p, training, inplace)
    layout = torch.empty_strided(input.shape, input.stride(), dtype=input.dtype, device=input.device)
    return input * torch.empty_like(layout).bernoulli_(1.0 - p).div_(1.0 - p)
