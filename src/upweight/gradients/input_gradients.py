"""Inputs: how the inner product of an example's gradient with a vector changes with the example's own inputs."""

from __future__ import annotations

from copy import copy
from dataclasses import is_dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.examples import Examples
from upweight.gradients.functional import plain_attention
from upweight.gradients.network import Network

Array = NDArray[np.float64]
BATCH_EXAMPLES = 64  # examples whose graph of the gradient is held at a time


def input_gradients(network: Network, examples: Examples, vectors: Array) -> Array:
    """∂⟨∇θℓᵢ, v⟩/∂xᵢ by double backward through the whole net, frozen layers included: (k, n, …).

    Args:
        network: left untouched.
        examples: whose gradients.
        vectors: (k, parameters), over the trainable parameters.

    Raises:
        TypeError: a batch without real numbers `x` that are one entry per example.

    Source: Koh & Liang (2017), §2.2.
    """
    blocks = network.split(vectors)
    parts = []
    for part in examples.batches(BATCH_EXAMPLES):
        with network.preserved(), plain_attention():
            batch, x = with_differentiable_x(network.batch(part), len(part))
            losses = network.values("loss", batch, part.ids).sum()
            parts.append(_second(network, losses, x, blocks, len(vectors)))
    return np.concatenate(parts, axis=1)


def inputs(network: Network, examples: Examples) -> Array:
    """What `input_gradients` differentiates by: the batch's own `x`, (n, …)."""
    with network.preserved():
        found = [
            with_differentiable_x(network.batch(p), len(p))[1].detach().double().cpu()
            for p in examples.batches(BATCH_EXAMPLES)
        ]
    return torch.cat(found).numpy()


def with_differentiable_x(batch: Any, n: int) -> tuple[Any, Tensor]:
    """The same batch with an `x` that gradients are taken by, and that `x`."""
    x = batch.get("x") if isinstance(batch, dict) else getattr(batch, "x", None)
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim == 0 or len(x) != n:
        found = "none" if x is None else f"{type(x).__name__} {getattr(x, 'dtype', '')}".strip()
        raise TypeError(
            f"expected the batch to have a tensor `x` of real numbers, one entry per example, got {found}: words and "
            "whole numbers cannot be moved a little; embed them first, or ask which examples instead (uw.explain)"
        )
    x = x.detach().clone().requires_grad_(True)
    if isinstance(batch, dict):
        return {**batch, "x": x}, x
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, x=x), x
    other = copy(batch)
    other.x = x
    return other, x


def _second(network: Network, losses: Tensor, x: Tensor, blocks: dict[str, Tensor], count: int) -> Array:
    """∂⟨∇θ Σℓ, v⟩/∂x for every v: examples do not mix, so each gets the derivative of its own row."""
    parameters = network.parameters()
    slopes = torch.autograd.grad(losses, list(parameters.values()), create_graph=True, allow_unused=True)
    used = {name: s for name, s in zip(parameters, slopes, strict=True) if s is not None and s.requires_grad}
    out = np.zeros((count, *x.shape))
    for k in range(count if used else 0):
        along = sum((slope * blocks[name][k].to(slope)).sum() for name, slope in used.items())
        (found,) = torch.autograd.grad(along, x, retain_graph=True, allow_unused=True)  # type: ignore[arg-type]
        if found is not None:
            out[k] = found.detach().double().cpu().numpy()
    return out
