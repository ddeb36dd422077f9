"""The retraining of a linear model by Newton steps from the optimum of its training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import ExactCurvature, NewtonSteps

Array = NDArray[np.float64]
MAX_STEPS = 100  # Newton steps of one retraining
TOLERANCE = 1e-11  # largest gradient norm after a retraining, relative to gradients of random signs


def retrained_parameters(optimum: ExactCurvature, weights: Array) -> Array:
    """The parameters (K·d,) under these factors (n,) of the training weights.

    If, without l2, some directions are undetermined under these weights, those of smallest norm.
    """
    return retrained_optimum(optimum, weights)[0]


def retrained_optimum(optimum: ExactCurvature, weights: Array) -> tuple[Array, NewtonSteps]:
    """The same parameters, and how near to the optimum the Newton steps ended."""
    steps = optimum.newton_steps(weights[None], None, MAX_STEPS, TOLERANCE)
    parameters = optimum.parameters + steps.shifts[0]
    directions = optimum.undetermined_without(weights == 0)
    return (optimum.smallest(parameters, directions) if len(directions) else parameters), steps
