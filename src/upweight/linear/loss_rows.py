"""Gradients of the training losses of a linear model, and their derivatives in the inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Movable
from upweight.linear.design import Design
from upweight.linear.problem import Problem
from upweight.linear.rows import FactoredRows

Array = NDArray[np.float64]


def loss_rows(problem: Problem) -> FactoredRows:
    """wᵢ(∇ℓᵢ + the example's share of the l2 gradient); the share is zero if the objective sums losses."""
    slopes = problem.weights[:, None] * problem.derivatives.gradient
    if problem.each == 0 and problem.l1_each == 0:
        return FactoredRows(problem.features, slopes)
    return FactoredRows(problem.features, slopes, problem.carried, problem.share_gradient)


def column_gradients(problem: Problem, design: Design, vectors: Array) -> Array:
    """∂⟨rowᵢ, v⟩/∂xᵢ = wᵢ (Vᵀrᵢ + ΘᵀAᵢVxᵢ) in the columns, for vectors v (k, K·d): (k, n, columns).

    Source: Koh & Liang (2017), §2.2: ∇ₓ∇θ of the loss, contracted with v.
    """
    derivatives, thetas = problem.derivatives, vectors.reshape(-1, *problem.theta.shape)
    columns = design.columns_of(problem.theta)
    gradients = np.empty((len(thetas), len(problem.weights), columns.shape[1]))
    for k, v in enumerate(thetas):
        curved = derivatives.apply(problem.features.times(v.T))
        gradients[k] = derivatives.gradient @ design.columns_of(v) + curved @ columns
    gradients *= problem.weights[:, None]
    return gradients


def input_gradients(problem: Problem, design: Design, name: str, x: Any, vectors: Array) -> Array:
    """`column_gradients` at inputs x, backpropagated through the pipeline to the raw inputs if that is possible."""
    if design.coordinates is not None:
        raise TypeError(
            f"the parameters of {name} belong to its training inputs; use model.hypothetical(new_inputs=True)"
        )
    gradients = column_gradients(problem, design, vectors)
    gradients = gradients if design.scale is None else gradients * design.scale
    return design.inputs.pull_back(x, gradients) if design.inputs.has_pullback else gradients


def movable_columns(design: Design, name: str, examples: Examples) -> Movable:
    """The raw inputs if gradients can be backpropagated through the steps; else the columns of the last step."""
    inputs = design.inputs
    if inputs.has_pullback:
        names = None if examples.names is None else tuple(examples.names)
        return Movable(np.asarray(inputs.raw(examples.x), dtype=np.float64), names, "inputs", True)
    description = f"columns that enter {name}, which the steps before it make of the inputs"
    return Movable(np.asarray(inputs.raw(inputs(examples.x))), inputs.names, description, False)
