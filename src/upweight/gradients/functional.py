"""Gradients and second-order products by torch's own differentiation: the oracle, and what hooks cannot see.

Second-order products need attention in its plain form: the fused kernels have no second derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from upweight.core.examples import Examples
from upweight.gradients.batches import map_tensors
from upweight.gradients.network import Network, Quantity

Blocks = Mapping[str, Tensor]


class LossModule(nn.Module):
    """Loss and net as one module, so that parameters can be replaced however the loss uses the net."""

    def __init__(self, network: Network, quantity: Quantity) -> None:
        super().__init__()
        self.net = network.net
        function = network.loss if quantity == "loss" or network.measure is None else network.measure
        self._evaluate = function
        self._sign = -1.0 if quantity == "measure" and network.measure is None else 1.0

    def forward(self, batch: Any) -> Tensor:
        """Loss or measurement of every example of a batch, (n,)."""
        return self._sign * self._evaluate(self.net, batch)


def gradient_rows(
    network: Network, quantity: Quantity, examples: Examples, names: Sequence[str], sliced: Sequence[bool] | None
) -> dict[str, Tensor]:
    """Per-example gradients of these parameters, name → (n, *shape), formed one by one.

    By vmap(grad) where the net allows it, by one backward pass per example where it does not. Call it inside
    `network.preserved()`.

    Args:
        sliced: which tensors of the batch hold one entry per example; None when that is not known.
    """
    if sliced is not None:
        try:
            return _by_vmap(network, quantity, network.batch(examples), names, sliced)
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            pass  # data-dependent branches, in-place writes, operators without a batching rule: no vmap
    rows = [single_gradient(network, quantity, one, names) for one in examples.batches(1)]
    return {name: torch.stack([row[name] for row in rows]) for name in names}


def single_gradient(network: Network, quantity: Quantity, one: Examples, names: Sequence[str]) -> dict[str, Tensor]:
    """The gradient of a single example in a batch of its own, name → shape."""
    value = network.values(quantity, network.batch(one), one.ids)
    held = network.parameters()
    return gradient(value.sum(), [held[name] for name in names], names)


def gradient(
    value: Tensor, parameters: Sequence[Tensor], names: Sequence[str], keep: bool = False
) -> dict[str, Tensor]:
    """∂value/∂parameters by autograd, zero where it does not depend on them; float32 or better."""
    if not value.requires_grad:
        found: Sequence[Tensor | None] = [None] * len(names)
    else:
        found = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=keep)
    out = {}
    for name, p, g in zip(names, parameters, found, strict=True):
        dense = torch.zeros_like(p) if g is None else g.to_dense() if g.layout != torch.strided else g
        out[name] = dense.detach().to(torch.promote_types(p.dtype, torch.float32))
    return out


def batch_tensors(batch: Any) -> list[Tensor]:
    """The tensors of a batch, in a fixed order. Raises TypeError for a batch of unknown structure."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(note, batch)
    return found


def _by_vmap(
    network: Network, quantity: Quantity, batch: Any, names: Sequence[str], sliced: Sequence[bool]
) -> dict[str, Tensor]:
    whole = LossModule(network, quantity)
    held = {f"net.{name}": p.detach() for name, p in network.parameters().items()}
    chosen = {f"net.{name}": held.pop(f"net.{name}") for name in names}

    def value(parameters: dict[str, Tensor], tensors: Sequence[Tensor]) -> Tensor:
        waiting = iter(t[None] if each else t for t, each in zip(tensors, sliced, strict=True))
        one = map_tensors(lambda _: next(waiting), batch)
        values: Tensor = torch.func.functional_call(whole, {**held, **parameters}, (one,))
        return values.sum()

    axes = [0 if each else None for each in sliced]
    with sdpa_kernel(SDPBackend.MATH):
        rows = torch.func.vmap(torch.func.grad(value), in_dims=(None, axes))(chosen, batch_tensors(batch))
    wide = network.precision
    return {name: rows[f"net.{name}"].to(wide) for name in names}


def hvp(values: Callable[[], Tensor], parameters: Mapping[str, Tensor], vectors: Blocks) -> dict[str, Tensor]:
    """∇²(Σ values) v for k vectors by double backward.

    Args:
        values: computes what is summed, e.g. `lambda: network.values("loss", batch, ids)`; called once.
        parameters: `network.parameters()`.
        vectors: name → (k, *shape).

    Returns: name → (k, *shape). Call it inside `network.preserved()`.
    """
    names, held = list(parameters), list(parameters.values())
    with sdpa_kernel(SDPBackend.MATH):
        slopes = torch.autograd.grad(values().sum(), held, create_graph=True, allow_unused=True)
        seen = [s for s in slopes if s is not None and s.requires_grad]
        out = {name: torch.zeros_like(vectors[name]) for name in names}
        for k in range(len(vectors[names[0]])):
            along = [
                vectors[n][k].to(s) for n, s in zip(names, slopes, strict=True) if s is not None and s.requires_grad
            ]
            if not seen:
                break
            found = torch.autograd.grad(seen, held, along, retain_graph=True, allow_unused=True)
            for name, h in zip(names, found, strict=True):
                if h is not None:
                    out[name][k] = h
    return out


def ggn_vp(
    outputs: Tensor, hessian_product: Callable[[Tensor], Tensor], parameters: Mapping[str, Tensor], vectors: Blocks
) -> dict[str, Tensor]:
    """Σᵢ Jᵢᵀ Λᵢ Jᵢ v for k vectors (Schraudolph 2002), J the outputs' Jacobian.

    J v comes from differentiating u ↦ Jᵀu (two backward passes), which every operator with a second derivative allows;
    forward mode does not pass through fused attention.

    Args:
        outputs: (B, …) with their graph, made inside `network.preserved()` and `plain_attention()`.
        bend: u ↦ Λ u on tensors of the outputs' shape.
        vectors: name → (k, *shape).

    Returns: name → (k, *shape).
    """
    names, held = list(parameters), list(parameters.values())
    dummy = torch.zeros_like(outputs, requires_grad=True)
    slopes = torch.autograd.grad(outputs, held, dummy, create_graph=True, allow_unused=True)
    used = [place for place, s in enumerate(slopes) if s is not None]
    out = {name: torch.zeros_like(vectors[name]) for name in names}
    for k in range(len(vectors[names[0]])):
        along = [vectors[names[place]][k].to(outputs) for place in used]
        (pushed,) = torch.autograd.grad([slopes[place] for place in used], dummy, along, retain_graph=True)
        pulled = torch.autograd.grad(outputs, [held[p] for p in used], hessian_product(pushed), retain_graph=True)
        for place, g in zip(used, pulled, strict=True):
            out[names[place]][k] = g
    return out


def plain_attention() -> Any:
    """A context in which attention has second derivatives."""
    return sdpa_kernel(SDPBackend.MATH)
