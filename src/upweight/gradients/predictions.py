"""Measurements, classes and outputs of a network on examples, in passes without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.examples import Examples
from upweight.core.model import Predictions
from upweight.gradients.network import Network
from upweight.gradients.outputs import NoOutputsError, losses_and_outputs, output_values
from upweight.gradients.preserve_model import without_graph

Array = NDArray[np.float64]
T = TypeVar("T")
BATCH_EXAMPLES = 256  # examples per forward pass


def measurements(network: Network, queries: Examples, batch_examples: int = BATCH_EXAMPLES) -> Array:
    """The measurement of every query, (m,), in forward passes of this many examples."""

    def measure(part: Examples) -> Array:
        return _array(network.values("measure", network.batch(part), part.ids))

    return np.concatenate(list(_without_graph(network, queries, measure, batch_examples)))


def shifted_measurements(network: Network, queries: Examples, shifts: Array) -> Array:
    """The measurement at θ + shift, for every shift (g, parameters): (m, g), on a copy of the net.

    Half precision would round off a small shift, and most of a small change: the change is measured in float32.
    """
    parameters, wide = network.vector(), network.widened()
    shifted = wide.writable_copy()
    rounding = 0.0 if wide is network else measurements(network, queries) - measurements(wide, queries)
    columns = []
    for shift in shifts:
        shifted.write(parameters + shift)
        columns.append(measurements(shifted, queries) + rounding)
    return np.stack(columns, axis=1) if columns else np.empty((len(queries), 0))


def predictions(network: Network, examples: Examples, batch_examples: int = BATCH_EXAMPLES) -> Predictions:
    """The most likely class with softmax probabilities for outputs (n, C), else the output itself.

    If the net has no output of one number or one row per example, or if the loss needs labels that the examples lack,
    every prediction is None.
    """

    def read_outputs(part: Examples) -> Array | None:
        return _readable(output_values(network, network.batch(part), part.ids))

    try:
        batches = list(_without_graph(network, examples, read_outputs, batch_examples))
    except NoOutputsError:
        batches = []
    except TypeError:  # the loss needs labels, which queries of another measurement may lack
        if examples.y is not None or network.measure is None:
            raise
        batches = []
    return _predictions_of(batches, examples)


def measurements_and_predictions(
    network: Network, queries: Examples, batch_examples: int = BATCH_EXAMPLES
) -> tuple[Array, Predictions]:
    """Both, in one pass if the loss is measured and calls the net once."""

    def read_both(part: Examples) -> tuple[Array, Array | None]:
        losses, output = losses_and_outputs(network, network.batch(part), part.ids)
        return -_array(losses), _readable(output)

    if network.measure is None:
        try:
            batches = list(_without_graph(network, queries, read_both, batch_examples))
        except NoOutputsError:
            pass
        else:
            measured, outputs = zip(*batches, strict=True)
            return np.concatenate(measured), _predictions_of(outputs, queries)
    return measurements(network, queries, batch_examples), predictions(network, queries, batch_examples)


class Observed:
    """Measurements and predictions of queries, from the passes that capture their gradients.

    Args:
        queries: all that will be passed, once and in their order.
    """

    def __init__(self, queries: Examples) -> None:
        self.queries = queries
        self._measured = list[Array]()
        self._outputs = list[Array | None]()

    def __call__(self, values: Tensor, output: Tensor) -> None:
        """Take the values and outputs of a batch."""
        self._measured.append(_array(values))
        self._outputs.append(_readable(output))

    def both(self) -> tuple[Array, Predictions]:
        """As `measurements_and_predictions` has them."""
        return np.concatenate(self._measured), _predictions_of(self._outputs, self.queries)


def _predictions_of(batches: Sequence[Array | None], examples: Examples) -> Predictions:
    """The predictions that the outputs of all batches stand for; None for each if one of the batches has none."""
    readable = [batch for batch in batches if batch is not None]
    if not readable or len(readable) < len(batches):
        return Predictions((None,) * len(examples))
    values = np.concatenate(readable)
    if values.ndim == 2 and values.shape[1] > 1 and _are_classes(examples.y):
        odds = np.exp(values - values.max(axis=1, keepdims=True))
        classes = tuple(examples.labels.get(c, c) for c in range(values.shape[1]))
        predicted = tuple(classes[c] for c in values.argmax(axis=1))
        return Predictions(predicted, classes, odds / odds.sum(axis=1, keepdims=True))
    flat = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    return Predictions(tuple(flat.tolist()))


def _without_graph(
    network: Network, examples: Examples, compute: Callable[[Examples], T], batch_examples: int
) -> Iterator[T]:
    """What `compute` returns for each batch of the examples."""
    for part in examples.batches(batch_examples):
        with network.preserved():
            values = without_graph(partial(compute, part))
        yield values


def _readable(output: Tensor) -> Array | None:
    """Numbers of one example as one row; None for outputs of more dimensions, such as those of every token."""
    return None if output.ndim > 2 else _array(output)


def _array(values: Tensor) -> Array:
    return np.asarray(values.detach().double().cpu().numpy())


def _are_classes(y: Any) -> bool:
    return y is None or (y.ndim == 1 and y.dtype.kind in "iub")
