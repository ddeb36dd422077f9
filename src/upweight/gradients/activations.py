"""The activations of a layer, with the position at which each neuron is most active."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.core.examples import Examples
from upweight.gradients.net_call import layer_of
from upweight.gradients.network import Network, Quantity
from upweight.gradients.preserve_model import without_graph

BATCH_EXAMPLES = 256  # examples per forward pass
SPATIAL = 3  # outputs of more axes have their channels first, as after a convolution or a pooling


Batch = tuple[NDArray[np.float64], NDArray[np.intp], tuple[int, ...]]


def activations(network: Network, examples: Examples, layer: str) -> Iterator[Batch]:
    """For every batch: activations (b, neurons), where each was largest, and the shape of a neuron's map.

    Raises:
        ValueError: an unknown layer.
        TypeError: a layer that is not called once per batch, or does not return one tensor with one row per example.
    """
    module = layer_of(network.net, layer)
    for part in examples.batches(BATCH_EXAMPLES):
        recorded: list[object] = []
        quantity: Quantity = "loss" if part.y is not None else "measure"
        with network.preserved():
            handle = module.register_forward_hook(lambda _, inputs, output: recorded.append(output))  # noqa: B023
            try:
                without_graph(partial(network.values, quantity, network.batch(part), part.ids))
            finally:
                handle.remove()
        if len(recorded) != 1:
            raise TypeError(
                f"expected the net to call layer {layer!r} once per batch, but it did {len(recorded)} times"
            )
        output = recorded[0]
        if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != len(part):
            form = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise TypeError(f"expected layer {layer!r} to return one row per example ({len(part)}), got {form}")
        yield _largest(output, module)


def _largest(output: Tensor, module: nn.Module) -> Batch:
    """Maxima over positions: (b, neurons), their positions, and the shape of the positions."""
    values = output.detach().double().cpu()
    if values.ndim == 2:
        return values.numpy(), np.zeros(tuple(values.shape), dtype=np.intp), ()
    channels_first = values.ndim > SPATIAL or isinstance(module, nn.Conv1d | nn.MaxPool1d | nn.AvgPool1d)
    maps = values if channels_first else values.movedim(-1, 1)
    largest, positions = maps.flatten(2).max(dim=2)
    return largest.numpy(), positions.numpy().astype(np.intp), tuple(maps.shape[2:])
