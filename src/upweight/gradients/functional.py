"""Gradients and second-order products by autograd: the reference for hooks, and the fallback where hooks fail.

Second-order products need attention in its plain form, because the fused kernels have no second derivative.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from upweight.core.examples import Examples
from upweight.gradients.batches import collate, map_tensors
from upweight.gradients.network import Network, Quantity
from upweight.gradients.recurrent_states import batched_states

Blocks = Mapping[str, Tensor]
SYMBOLIC_SHAPES = "torch.fx.experimental.symbolic_shapes"  # imports sympy; torch needs it for a class loss under vmap


class SecondDerivativeError(TypeError):
    """An operator of the net or of the loss has no second derivative."""


class LossModule(nn.Module):
    """Loss and net as one module, so that parameters can be replaced no matter how the loss uses the net."""

    def __init__(self, network: Network, quantity: Quantity) -> None:
        super().__init__()
        self.net = network.net
        self._function = network.loss if quantity == "loss" or network.measure is None else network.measure
        self._is_negated = quantity == "measure" and network.measure is None

    def forward(self, batch: Any) -> Tensor:
        """Loss or measurement of every example of a batch, (n,)."""
        values: Tensor = self._function(self.net, batch)
        return -values if self._is_negated else values


def call_with(module: nn.Module, tensors: Mapping[str, Tensor], batch: Any) -> Any:
    """`module(batch)` with these parameters and buffers, by the names of `named_parameters` and `named_buffers`.

    `torch.func.functional_call` alone puts tensors in place of the parameters of a module that is registered twice, and
    leaves them there. So every tensor is replaced once in each module that has it.
    """
    places: dict[int, list[str]] = {}
    for prefix, part in module.named_modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                places.setdefault(id(tensor), []).append(f"{prefix}.{name}" if prefix else name)
    same = {names[0]: names for names in places.values()}
    replaced = {place: tensor for name, tensor in tensors.items() for place in same.get(name, [name])}
    return torch.func.functional_call(module, replaced, (batch,), tie_weights=False)


def gradient_rows(
    network: Network, quantity: Quantity, examples: Examples, names: Sequence[str], sliced: Sequence[bool] | None
) -> dict[str, Tensor]:
    """Per-example gradients of these parameters, materialised: name → (n, *shape).

    By vmap(grad) if the net allows it, else by one backward pass per example. Call it inside `network.preserved()`.

    Args:
        sliced: which tensors of the batch hold one entry per example; None if that is not known.
    """
    if sliced is not None:
        try:
            return vmapped_gradients(network, quantity, network.batch(examples), names, sliced)
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            pass  # vmap fails for data-dependent branches, in-place writes and operators without a batching rule
    rows = [single_gradient(network, quantity, example, names) for example in examples.batches(1)]
    return {name: torch.stack([row[name] for row in rows]) for name in names}


def values_alone(network: Network, quantity: Quantity, examples: Examples) -> Tensor | None:
    """The values of examples in batches of one, (n,), in one pass by vmap and without a graph; None if that fails.

    It fails for batches that are not stacked example by example, which may be padded to the longest of them, and for
    what vmap does not allow: random numbers, data-dependent branches, in-place writes. None as well where torch would
    import sympy for it, which takes longer than a few passes. Call it inside `network.preserved()`.
    """
    if network.collate is not collate or sys.modules.get(SYMBOLIC_SHAPES) is None:
        return None
    batch, module = network.batch(examples), LossModule(network, quantity)

    def value(tensors: Sequence[Tensor]) -> Tensor:
        remaining = iter(tensors)
        values: Tensor = module(map_tensors(lambda _: next(remaining)[None], batch))
        return values.reshape(())

    try:
        tensors = batch_tensors(batch)
        with torch.no_grad(), no_word_of_slow_operators(), batched_states(network.net):
            return torch.func.vmap(value)(tensors)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return None


def single_gradient(network: Network, quantity: Quantity, example: Examples, names: Sequence[str]) -> dict[str, Tensor]:
    """The gradient of a single example in a batch of one, name → shape."""
    value = network.values(quantity, network.batch(example), example.ids)
    parameters = network.parameters()
    return gradient(value.sum(), [parameters[name] for name in names], names)


def gradient(
    value: Tensor, parameters: Sequence[Tensor], names: Sequence[str], keep: bool = False
) -> dict[str, Tensor]:
    """∂value/∂parameters by autograd, zero for parameters without influence; in float32 or better."""
    if not value.requires_grad:
        gradients: Sequence[Tensor | None] = [None] * len(names)
    else:
        gradients = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=keep)
    out = {}
    for name, p, g in zip(names, parameters, gradients, strict=True):
        dense = torch.zeros_like(p) if g is None else g.to_dense() if g.layout != torch.strided else g
        out[name] = dense.detach().to(torch.promote_types(p.dtype, torch.float32))
    return out


def batch_tensors(batch: Any) -> list[Tensor]:
    """The tensors of a batch, in a fixed order. Raises TypeError for a batch of unknown structure."""
    tensors: list[Tensor] = []

    def collect(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    map_tensors(collect, batch)
    return tensors


def vmapped_gradients(
    network: Network,
    quantity: Quantity,
    batch: Any,
    names: Sequence[str],
    sliced: Sequence[bool],
    value: Callable[..., Tensor] = torch.sum,
    *along: Tensor,
) -> dict[str, Tensor]:
    """Gradients of `value(values, *parts)` of every example, by vmap: name → (n, *shape).

    Args:
        sliced: as for `gradient_rows`.
        value: takes the loss or measurement of an example, (1,), and the example's parts of the tensors `along`.
    """
    module = LossModule(network, quantity)
    fixed = {f"net.{name}": p.detach() for name, p in network.parameters().items()}
    chosen = {f"net.{name}": fixed.pop(f"net.{name}") for name in names}

    def of_example(parameters: dict[str, Tensor], tensors: Sequence[Tensor], *parts: Tensor) -> Tensor:
        remaining = iter(t[None] if is_sliced else t for t, is_sliced in zip(tensors, sliced, strict=True))
        example = map_tensors(lambda _: next(remaining), batch)
        return value(call_with(module, {**fixed, **parameters}, example), *parts)

    axes = [0 if is_sliced else None for is_sliced in sliced]
    with sdpa_kernel(SDPBackend.MATH), no_word_of_slow_operators(), batched_states(network.net):
        gradients = torch.func.vmap(torch.func.grad(of_example), in_dims=(None, axes, *(0 for _ in along)))
        rows = gradients(chosen, batch_tensors(batch), *along)
    return {name: rows[f"net.{name}"].to(network.precision) for name in names}


@contextmanager
def no_word_of_slow_operators() -> Iterator[None]:
    """Silence torch's warning that vmap is slow for an operator, about which a user of this package can do nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield


def hvp(values: Callable[[], Tensor], parameters: Mapping[str, Tensor], vectors: Blocks) -> dict[str, Tensor]:
    """∇²(Σ values) v for k vectors by double backward.

    Args:
        values: computes the values to sum, e.g. `lambda: network.values("loss", batch, ids)`; called once.
        parameters: `network.parameters()`.
        vectors: name → (k, *shape).

    Returns: name → (k, *shape). Call it inside `network.preserved()`.
    """
    names, tensors = list(parameters), list(parameters.values())
    with sdpa_kernel(SDPBackend.MATH):
        total = values().sum()
        with _second_derivatives():
            gradients = torch.autograd.grad(total, tensors, create_graph=True, allow_unused=True)
        differentiable = [g for g in gradients if g is not None and g.requires_grad]
        out = {name: torch.zeros_like(vectors[name]) for name in names}
        for k in range(len(vectors[names[0]])):
            direction = [
                vectors[n][k].to(g) for n, g in zip(names, gradients, strict=True) if g is not None and g.requires_grad
            ]
            if not differentiable:
                break
            with _second_derivatives():
                products = torch.autograd.grad(differentiable, tensors, direction, retain_graph=True, allow_unused=True)
            for name, h in zip(names, products, strict=True):
                if h is not None:
                    out[name][k] = h
    return out


def ggn_vp(
    outputs: Tensor, hessian_product: Callable[[Tensor], Tensor], parameters: Mapping[str, Tensor], vectors: Blocks
) -> dict[str, Tensor]:
    """Σᵢ Jᵢᵀ Λᵢ Jᵢ v for k vectors (Schraudolph 2002), with J the Jacobian of the outputs.

    J v is the derivative of u ↦ Jᵀu (two backward passes), which every operator with a second derivative allows;
    forward mode does not work through fused attention.

    Args:
        outputs: (B, …) with their graph, computed inside `network.preserved()` and `plain_attention()`.
        hessian_product: u ↦ Λ u on tensors of the outputs' shape.
        vectors: name → (k, *shape).

    Returns: name → (k, *shape).
    """
    names, tensors = list(parameters), list(parameters.values())
    dummy = torch.zeros_like(outputs, requires_grad=True)
    with _second_derivatives():
        transposed = torch.autograd.grad(outputs, tensors, dummy, create_graph=True, allow_unused=True)  # Jᵀ dummy
    used = [i for i, gradient in enumerate(transposed) if gradient is not None]
    out = {name: torch.zeros_like(vectors[name]) for name in names}
    for k in range(len(vectors[names[0]])):
        direction = [vectors[names[i]][k].to(outputs) for i in used]
        with _second_derivatives():
            (jvp,) = torch.autograd.grad([transposed[i] for i in used], dummy, direction, retain_graph=True)
        products = torch.autograd.grad(
            outputs, [tensors[i] for i in used], hessian_product(jvp).to(outputs), retain_graph=True
        )
        for i, product in zip(used, products, strict=True):
            out[names[i]][k] = product
    return out


@contextmanager
def _second_derivatives() -> Iterator[None]:
    """A context in which an operator without a second derivative raises SecondDerivativeError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SecondDerivativeError(
            f"expected a net and a loss with second derivatives, which an operator among them lacks ({reason}); "
            "use a curvature that needs first derivatives only: EKFAC(), KFAC(), EmpiricalFisher(), DataInf(), "
            "Diagonal() or Identity()"
        ) from error


def plain_attention() -> Any:
    """A context in which attention has second derivatives."""
    return sdpa_kernel(SDPBackend.MATH)
