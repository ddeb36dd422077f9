"""Blocks of tensors as matrices, also if each tensor is a single number."""

from __future__ import annotations

from torch import Tensor


def flatten_each(tensors: Tensor) -> Tensor:
    """Tensors (k, …) as the rows of a matrix (k, numbers).

    `Tensor.flatten(1)` fails for (k,), the block of a parameter without axes or an output of one number.
    """
    return tensors.flatten(1) if tensors.ndim > 1 else tensors[:, None]
