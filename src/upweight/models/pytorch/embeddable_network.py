"""A network whose features are the inputs of its last layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.head_objective import HeadObjective
from upweight.core.model import Embeddable
from upweight.core.objective import Objective
from upweight.core.weights import sample_weights
from upweight.gradients.features import features
from upweight.gradients.network import Network

Array = NDArray[np.float64]


class EmbeddableNetwork(Embeddable):
    """The penultimate activations, and what training minimised as a function of the last layer."""

    network: Network
    objective: Objective

    def embed(self, examples: Examples) -> Array:
        """The inputs of the last layer (penultimate activations), (n, d); positions of a sequence are averaged."""
        return features(self.network, examples)

    def head_objective(self, train: Examples) -> HeadObjective | None:
        """The weights of the examples and the objective's l2; None if it has none."""
        weights = sample_weights(train)
        ridge = self.objective.ridge(weights)
        return HeadObjective(weights, ridge / float(weights.sum())) if ridge > 0 else None
