"""How well one Newton step describes the removal of an example from a net that is not linear in its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import Solved
from upweight.core.rows import Rows
from upweight.curvature.linear_head import is_linear_head
from upweight.curvature.summed_objective import SummedObjective
from upweight.curvature.total_gradient import total_gradient
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]
Solve = Callable[[Rows], Solved]
SAMPLED_EXAMPLES = 256  # examples of which those with the largest steps are taken
MAX_STEP_NUMBERS = 1 << 24  # of their steps
FOLLOWED = 8  # examples with the largest steps, for which the objective is differentiated again


def second_step(summed: SummedObjective, solve: Solve, plain: CapturedRows, rows: Rows) -> float | None:
    """The Newton decrement after the step of a removal, relative to that before it.

    The second largest ratio of a few examples with large steps. It is 0 for an objective that is quadratic that far,
    and above 1 where Newton's method moves away from its optimum. Decrements √(∇J₋ᵢᵀ H⁻¹ ∇J₋ᵢ) do not depend on
    the scale of the parameters. None for a net that is too large, and if fewer than two examples have a step.

    Args:
        summed: the objective, near its optimum.
        solve: (H + shift)⁻¹.
        plain: gradients of the training losses.
        rows: of which `solve` makes the Newton steps.

    Cost: one solve per sampled example, and nine passes over the training set.
    """
    counted, network = np.flatnonzero(plain.weights), summed.network
    sampled = min(SAMPLED_EXAMPLES, MAX_STEP_NUMBERS // network.size, len(counted))
    if sampled < 2 or is_linear_head(summed):
        return None
    places = np.unique(np.linspace(0, len(counted) - 1, sampled).astype(np.intp))
    steps = solve(rows.take(counted[places])).rows.dense()
    before = (steps * plain.take(counted[places]).dense()).sum(axis=1)
    largest = np.argsort(-before)[:FOLLOWED]
    largest = largest[before[largest] > 0]
    if len(largest) < 2:
        return None
    left = _gradients_after(summed, plain, places[largest], steps[largest])
    again = solve(TensorRows(network, network.split(left))).rows.dense()
    after = np.maximum((again * left).sum(axis=1), 0.0)
    return float(np.sort(np.sqrt(after / before[largest]))[-2])


def _gradients_after(summed: SummedObjective, plain: CapturedRows, places: NDArray[np.intp], steps: Array) -> Array:
    """The gradient of the objective without each of these examples, at the parameters moved by its step."""
    network, start, at_start = summed.network.writable_copy(), summed.network.vector(), total_gradient(summed)
    share = np.zeros(len(start))
    if plain.share is not None:
        share = network.join({name: block[None] for name, block in plain.share.items()})[0]
    left = []
    for place, step in zip(places, steps, strict=True):
        network.write(start + step)
        weights = np.where(np.arange(len(summed.weights)) == place, 0.0, summed.weights)
        moved = total_gradient(replace(summed, network=network, weights=weights), summed.network)
        left.append(moved - at_start - summed.weights[place] * share)
    return np.array(left)
