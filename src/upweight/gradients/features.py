"""Features of examples: the inputs of the last layer of a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.core.examples import Examples
from upweight.gradients.network import Network, Quantity
from upweight.gradients.preserve_model import without_graph

BATCH_EXAMPLES = 256  # examples per forward pass
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def features(network: Network, examples: Examples) -> NDArray[np.float64]:
    """Penultimate activations (n, d): the inputs of the layer that is called last, in passes without gradients.

    A layer is a module with a weight matrix that is not part of a submodule. Positions of a sequence or an image are
    averaged.

    Raises:
        TypeError: no layer is called with one row per example.
    """
    parts = []
    for part in examples.batches(BATCH_EXAMPLES):
        quantity: Quantity = "loss" if part.y is not None else "measure"
        with network.preserved(), _recorded_inputs(network.net, len(part)) as last_input:
            without_graph(partial(network.values, quantity, network.batch(part), part.ids))
        if not last_input:
            raise TypeError(
                "expected the net to call a module with a weight matrix on one row per example, but it calls none: "
                "without a last layer, examples have no features; use a method that does not compare features"
            )
        parts.append(_average_positions(*last_input[-1]).flatten(1).double().cpu().numpy())
    return np.concatenate(parts)


@contextmanager
def _recorded_inputs(net: nn.Module, count: int) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """(layer, its input) of the last layer called with `count` rows, as a list of at most one pair."""
    last_input: list[tuple[nn.Module, Tensor]] = []

    def record(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim and len(inputs[0]) == count:
            last_input[:] = [(module, inputs[0])]

    layers = [m for m in net.modules() if any(p.ndim > 1 for p in m.parameters(recurse=False))]
    handles = [layer.register_forward_pre_hook(record) for layer in layers]
    try:
        yield last_input
    finally:
        for handle in handles:
            handle.remove()


def _average_positions(layer: nn.Module, values: Tensor) -> Tensor:
    """The mean over positions, which are all axes except the first and that of the features."""
    if values.ndim <= 2:
        return values.reshape(len(values), -1)
    axes = range(2, values.ndim) if isinstance(layer, CONVOLUTIONS) else range(1, values.ndim - 1)
    return values.mean(dim=tuple(axes)) if values.is_floating_point() else values.flatten(1)
