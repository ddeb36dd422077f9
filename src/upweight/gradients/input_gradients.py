"""Input gradients: how the inner product of an example's gradient with a vector changes with the example's inputs."""

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
BATCH_EXAMPLES = 64  # per batch; the graph of their gradients is held in memory


def input_gradients(network: Network, examples: Examples, vectors: Array) -> Array:
    """∂⟨∇θℓᵢ, v⟩/∂xᵢ by double backward through the whole net, frozen layers included: (k, n, …).

    Args:
        network: the network, which is left unchanged.
        examples: the examples i.
        vectors: (k, parameters), over the trainable parameters.

    Raises:
        TypeError: the batch has no real-valued tensor `x` with one entry per example.

    Source: Koh & Liang (2017), §2.2.
    """
    blocks = network.split(vectors)
    parts = []
    for part in examples.batches(BATCH_EXAMPLES):
        with network.preserved(), plain_attention():
            batch, x = with_differentiable_x(network.batch(part), len(part))
            losses = network.values("loss", batch, part.ids).sum()
            parts.append(_mixed_derivatives(network, losses, x, blocks, len(vectors)))
    return np.concatenate(parts, axis=1)


def inputs(network: Network, examples: Examples) -> Array:
    """The inputs with respect to which `input_gradients` differentiates: `x` of the batches, (n, …)."""
    with network.preserved():
        values = [
            with_differentiable_x(network.batch(p), len(p))[1].detach().double().cpu()
            for p in examples.batches(BATCH_EXAMPLES)
        ]
    return torch.cat(values).numpy()


def with_differentiable_x(batch: Any, n: int) -> tuple[Any, Tensor]:
    """A copy of the batch whose `x` can be differentiated, and this `x`."""
    x = batch.get("x") if isinstance(batch, dict) else getattr(batch, "x", None)
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim == 0 or len(x) != n:
        received = "none" if x is None else f"{type(x).__name__} {getattr(x, 'dtype', '')}".strip()
        raise TypeError(
            f"expected the batch to have a tensor `x` of real numbers, one entry per example, got {received}: texts "
            "and integers cannot be perturbed; embed them first, or find influential examples instead (uw.explain)"
        )
    x = x.detach().clone().requires_grad_(True)
    return replace_x(batch, x), x


def replace_x(batch: Any, x: Tensor) -> Any:
    """A copy of the batch with another `x`."""
    if isinstance(batch, dict):
        return {**batch, "x": x}
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, x=x)
    replaced = copy(batch)
    replaced.x = x
    return replaced


def _mixed_derivatives(network: Network, losses: Tensor, x: Tensor, blocks: dict[str, Tensor], count: int) -> Array:
    """∂⟨∇θ Σℓ, v⟩/∂x for every v; examples do not interact, so row i is the derivative for example i."""
    parameters = network.parameters()
    gradients = torch.autograd.grad(losses, list(parameters.values()), create_graph=True, allow_unused=True)
    used = {name: g for name, g in zip(parameters, gradients, strict=True) if g is not None and g.requires_grad}
    out = np.zeros((count, *x.shape))
    for k in range(count if used else 0):
        product = sum((g * blocks[name][k].to(g)).sum() for name, g in used.items())
        (derivative,) = torch.autograd.grad(product, x, retain_graph=True, allow_unused=True)  # type: ignore[arg-type]
        if derivative is not None:
            out[k] = derivative.detach().double().cpu().numpy()
    return out
