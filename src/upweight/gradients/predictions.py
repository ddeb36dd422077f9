"""Measurements, classes and outputs of a network on examples, in passes without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.examples import Examples
from upweight.core.model import Predictions
from upweight.gradients.network import Network
from upweight.gradients.outputs import NoOutputsError, output_values
from upweight.gradients.preserve_model import without_graph

Array = NDArray[np.float64]
BATCH_EXAMPLES = 256  # examples per forward pass


def measurements(network: Network, queries: Examples, batch_examples: int = BATCH_EXAMPLES) -> Array:
    """The measurement of every query, (m,), in forward passes of this many examples."""

    def measure(part: Examples) -> Tensor:
        return network.values("measure", network.batch(part), part.ids)

    return np.concatenate(list(_without_graph(network, queries, measure, batch_examples)))


def predictions(network: Network, examples: Examples, batch_examples: int = BATCH_EXAMPLES) -> Predictions:
    """The most likely class with softmax probabilities for outputs (n, C), else the output itself.

    If the net has no output of one number or one row per example, or if the loss needs labels that the examples lack,
    every prediction is None.
    """

    def read_outputs(part: Examples) -> Tensor:
        return output_values(network, network.batch(part), part.ids)

    try:
        batches = list(_without_graph(network, examples, read_outputs, batch_examples))
    except NoOutputsError:
        batches = []
    except TypeError:  # the loss needs labels, which queries of another measurement may lack
        if examples.y is not None or network.measure is None:
            raise
        batches = []
    if not batches or any(z.ndim > 2 for z in batches):
        return Predictions((None,) * len(examples))
    values = np.concatenate(batches)
    if values.ndim == 2 and values.shape[1] > 1 and _are_classes(examples.y):
        odds = np.exp(values - values.max(axis=1, keepdims=True))
        classes = tuple(examples.labels.get(c, c) for c in range(values.shape[1]))
        predicted = tuple(classes[c] for c in values.argmax(axis=1))
        return Predictions(predicted, classes, odds / odds.sum(axis=1, keepdims=True))
    flat = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    return Predictions(tuple(flat.tolist()))


def _without_graph(
    network: Network, examples: Examples, compute: Callable[[Examples], Tensor], batch_examples: int
) -> Iterator[NDArray[Any]]:
    """What `compute` returns for each batch of the examples."""
    for part in examples.batches(batch_examples):
        with network.preserved():
            values = without_graph(partial(compute, part))
        yield np.asarray(values.detach().double().cpu().numpy())


def _are_classes(y: Any) -> bool:
    return y is None or (y.ndim == 1 and y.dtype.kind in "iub")
