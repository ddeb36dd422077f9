"""The capability of models to show the activations of their neurons."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Measurable

Activations = NDArray[np.float64]


class LayerActivations(Measurable):
    """A network that can return the activations of its layers."""

    @abstractmethod
    def layer_names(self) -> Sequence[str]:
        """The names of the layers, in the order of the net."""

    @abstractmethod
    def activations(
        self, examples: Examples, layer: str
    ) -> Iterator[tuple[Activations, NDArray[np.intp], tuple[int, ...]]]:
        """For every batch: activations (b, neurons), where each was largest, and the shape of a neuron's map.

        A neuron of a convolution is a channel, and one of a sequence a feature; their activation is the largest over
        the positions, and the second array has its flat position. Without positions it is 0, and the shape ().
        """
