"""Features: what enters the last layer of a network, for every example."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.core.examples import Examples
from upweight.gradients.network import Network

BATCH_EXAMPLES = 256  # examples per forward pass
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def features(network: Network, examples: Examples) -> NDArray[np.float64]:
    """The inputs of the layer that is called last (the penultimate activations), (n, d), in passes without gradients.

    A layer is a module with a weight matrix of its own. Positions of a sequence or of a picture are averaged.

    Raises:
        TypeError: no such module is called with one row per example.
    """
    parts = []
    for part in examples.batches(BATCH_EXAMPLES):
        with network.preserved(), torch.no_grad(), _entering(network.net, len(part)) as entered:
            network.values("loss" if part.y is not None else "measure", network.batch(part), part.ids)
        if not entered:
            raise TypeError(
                "the net calls no module that has a weight matrix with one row per example, so it has no last layer "
                "whose inputs could stand for the examples; methods that compare features cannot be used with it"
            )
        parts.append(_averaged(*entered[-1]).flatten(1).double().cpu().numpy())
    return np.concatenate(parts)


@contextmanager
def _entering(net: nn.Module, count: int) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """(layer, its input) of the last layer that was called for so many examples."""
    entered: list[tuple[nn.Module, Tensor]] = []

    def look(module: nn.Module, given: tuple[Any, ...]) -> None:
        if given and isinstance(given[0], Tensor) and given[0].ndim and len(given[0]) == count:
            entered[:] = [(module, given[0])]

    layers = [m for m in net.modules() if any(p.ndim > 1 for p in m.parameters(recurse=False))]
    handles = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        yield entered
    finally:
        for handle in handles:
            handle.remove()


def _averaged(layer: nn.Module, values: Tensor) -> Tensor:
    """The mean over positions: all axes but the first and that of the features."""
    if values.ndim <= 2:
        return values.reshape(len(values), -1)
    axes = range(2, values.ndim) if isinstance(layer, CONVOLUTIONS) else range(1, values.ndim - 1)
    return values.mean(dim=tuple(axes)) if values.is_floating_point() else values.flatten(1)
