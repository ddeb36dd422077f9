"""A network whose training inputs can be perturbed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Movable, Perturbable
from upweight.core.weights import sample_weights
from upweight.gradients import input_gradients
from upweight.gradients.network import Network

Array = NDArray[np.float64]


class PerturbableNetwork(Perturbable):
    """Gradients in the inputs that the net receives."""

    network: Network

    def movable(self, examples: Examples) -> Movable:
        """The `x` of the batches that the net receives."""
        values = input_gradients.inputs(self.network, examples)
        has_names = values.ndim == 2 and examples.names is not None and len(examples.names) == values.shape[1]
        is_input = np.shape(examples.x) == values.shape and np.allclose(examples.x, values, atol=1e-6)
        names = tuple(examples.names or ()) if has_names else None
        return Movable(values, names, "inputs" if is_input else "what `collate` made", is_input)

    def input_gradients(self, train: Examples, vectors: Array) -> Array:
        """wᵢ ∂⟨∇ℓᵢ, v⟩/∂xᵢ by double backward through the net, (k, n, …)."""
        gradients = input_gradients.input_gradients(self.network, train, np.atleast_2d(vectors))
        return gradients * sample_weights(train).reshape(-1, *(1,) * (gradients.ndim - 2))
