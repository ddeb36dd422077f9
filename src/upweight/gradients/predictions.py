"""What a network says of examples, in passes without gradients: measurements, classes, outputs."""

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
    """The likeliest class with softmax probabilities for outputs (n, C), else the output.

    Where no output of one number or one row per example is to be seen, the measurement stands for it.
    """
    try:
        batches = list(_outputs(network, examples))
    except NoOutputsError:
        batches = []
    readable = bool(batches) and all(z.ndim <= 2 for z in batches)
    said = np.concatenate(batches) if readable else measurements(network, examples)
    if said.ndim == 2 and said.shape[1] > 1 and _are_classes(examples.y):
        spread = np.exp(said - said.max(axis=1, keepdims=True))
        classes = tuple(examples.labels.get(c, c) for c in range(said.shape[1]))
        likeliest = tuple(classes[c] for c in said.argmax(axis=1))
        return Predictions(likeliest, classes, spread / spread.sum(axis=1, keepdims=True))
    flat = said[:, 0] if said.ndim == 2 and said.shape[1] == 1 else said
    return Predictions(tuple(flat.tolist()))


def _outputs(network: Network, examples: Examples) -> Iterator[NDArray[Any]]:
    for part in examples.batches(BATCH_EXAMPLES):
        with network.preserved(), torch.no_grad():
            said = outputs(network, network.batch(part), part.ids).values.double().cpu().numpy()
        yield said


def _are_classes(y: Any) -> bool:
    return y is None or (y.ndim == 1 and y.dtype.kind in "iub")
