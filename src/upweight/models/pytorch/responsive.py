"""How a network answers a removal if only the removal moves it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.examples import Examples
from upweight.core.objective import Objective
from upweight.core.responsive import Responsive
from upweight.core.weights import sample_weights
from upweight.curvature.operators import GaussNewtonOperator
from upweight.curvature.solvers.direct import strongest_part
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.network import Network
from upweight.training.proximal_response import NetworkResponses, divergences

Array = NDArray[np.float64]
METRIC_SHARE = 0.99  # of the output Hessians' trace; the rest changes the steps to the minimum, not the minimum


class ResponsiveNetwork(Responsive):
    """A network near its trained parameters."""

    network: Network
    objective: Objective

    def response_objective(self, train: Examples) -> NetworkResponses:
        """The response of the net to removals, computed on a copy of the net in float64."""
        weights = sample_weights(train)

        def gauss_newton(network: Network) -> Tensor | None:
            summed = SummedObjective.of(network, train, weights, 0.0)
            matrix = strongest_part(GaussNewtonOperator(summed), METRIC_SHARE)
            return None if matrix is None else matrix / summed.total

        return NetworkResponses(self.network, train, weights, self.objective, gauss_newton)

    def output_divergences(self, reference: Responsive, examples: Examples) -> tuple[Array, Array]:
        """Distances and divergences between the outputs of two networks that the loss takes."""
        if not isinstance(reference, ResponsiveNetwork):
            raise TypeError(f"expected two networks, got {type(self).__name__} and {type(reference).__name__}")
        return divergences(self.network, reference.network, examples)
