"""Measurements, classes and outputs of a network on examples, in passes without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Predictions
from upweight.gradients.network import Network
from upweight.gradients.outputs import NoOutputsError, outputs

Array = NDArray[np.float64]
BATCH_EXAMPLES = 256  # examples per forward pass


def measurements(network: Network, queries: Examples) -> Array:
    """The measurement of every query, (m,)."""
    out = []
    for part in queries.batches(BATCH_EXAMPLES):
        with network.preserved(), torch.no_grad():
            out.append(network.values("measure", network.batch(part), part.ids).double().cpu().numpy())
    return np.concatenate(out)


def predictions(network: Network, examples: Examples) -> Predictions:
    """The most likely class with softmax probabilities for outputs (n, C), else the output itself.

    If the net has no output of one number or one row per example, every prediction is None.
    """
    try:
        batches = list(_outputs(network, examples))
    except NoOutputsError:
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


def _outputs(network: Network, examples: Examples) -> Iterator[NDArray[Any]]:
    for part in examples.batches(BATCH_EXAMPLES):
        with network.preserved(), torch.no_grad():
            values = outputs(network, network.batch(part), part.ids).values.double().cpu().numpy()
        yield values


def _are_classes(y: Any) -> bool:
    return y is None or (y.ndim == 1 and y.dtype.kind in "iub")
