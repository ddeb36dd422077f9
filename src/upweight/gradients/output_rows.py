"""Per-example gradients of a net's output along given directions, for the parameters that hooks miss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from upweight.gradients.batches import as_constant
from upweight.gradients.functional import gradient, vmapped_gradients
from upweight.gradients.matrices import flatten_each
from upweight.gradients.network import Network


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
    outputs: list[Any] = []

    def product(losses: Tensor, along: Tensor) -> Tensor:
        output = outputs.pop()  # of the call that made the losses
        return ((output if isinstance(output, Tensor) else output.logits)[0] * along).sum()

    handle = network.net.register_forward_hook(lambda net, args, value: outputs.append(value))
    try:
        return vmapped_gradients(network, "loss", batch, names, sliced, product, cotangent)
    finally:
        handle.remove()
