"""Per-example gradients of a net's output along given directions, for the parameters that hooks miss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from upweight.gradients.batches import map_tensors
from upweight.gradients.functional import (
    LossModule,
    as_constant,
    batch_tensors,
    call_with,
    gradient,
    no_word_of_slow_operators,
)
from upweight.gradients.matrices import flatten_each
from upweight.gradients.network import Network
from upweight.gradients.recurrent_states import batched_states


def output_rows(
    network: Network,
    batch: Any,
    values: Tensor,
    cotangents: Sequence[Tensor],
    names: Sequence[str],
    sliced: Sequence[bool] | None,
) -> list[dict[str, Tensor]]:
    """Jᵢᵀ cotangentᵢ of every example, materialised, for each of the cotangents: name → (B, *shape).

    By vmap for the examples of a batch together if the net allows it, else by a backward pass per example. Call it
    inside `network.preserved()`.

    Args:
        values: the output of the net on this batch, (B, …), with its graph.
        cotangents: each of the shape of `values`.
        sliced: which tensors of the batch hold one entry per example; None if that is not known.
    """
    if sliced is not None:
        try:
            return [_by_vmap(network, batch, cotangent.to(values), names, sliced) for cotangent in cotangents]
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            pass  # see `gradient_rows`
    parameters = network.parameters()
    tensors = [parameters[name] for name in names]
    found = []
    for cotangent in cotangents:
        products = flatten_each(values * as_constant(cotangent)).sum(1)
        rows = [gradient(product, tensors, names, keep=True) for product in products]
        found.append({name: torch.stack([row[name] for row in rows]) for name in names})
    return found


def _by_vmap(
    network: Network, batch: Any, cotangent: Tensor, names: Sequence[str], sliced: Sequence[bool]
) -> dict[str, Tensor]:
    module, outputs = LossModule(network, "loss"), list[Any]()
    fixed = {f"net.{name}": p.detach() for name, p in network.parameters().items()}
    chosen = {f"net.{name}": fixed.pop(f"net.{name}") for name in names}

    def product(parameters: dict[str, Tensor], tensors: Sequence[Tensor], along: Tensor) -> Tensor:
        remaining = iter(t[None] if is_sliced else t for t, is_sliced in zip(tensors, sliced, strict=True))
        outputs.clear()
        call_with(module, {**fixed, **parameters}, map_tensors(lambda _: next(remaining), batch))
        output = outputs.pop()
        return ((output if isinstance(output, Tensor) else output.logits)[0] * along).sum()

    axes = [0 if is_sliced else None for is_sliced in sliced]
    handle = network.net.register_forward_hook(lambda net, args, value: outputs.append(value))
    try:
        with sdpa_kernel(SDPBackend.MATH), no_word_of_slow_operators(), batched_states(network.net):
            gradients = torch.func.vmap(torch.func.grad(product), in_dims=(None, axes, 0))
            rows = gradients(chosen, batch_tensors(batch), cotangent)
    finally:
        handle.remove()
    return {name: rows[f"net.{name}"].to(network.precision) for name in names}
