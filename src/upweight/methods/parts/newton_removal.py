"""Newton steps to the new optimum after a removal, with an exact curvature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import ExactCurvature
from upweight.core.rows import DenseRows, Rows
from upweight.core.weights import example_counts

Array = NDArray[np.float64]
FREE_OPERATIONS = 2e10  # floating-point operations that Newton steps may always take (about a second)
SHARE_OF_FIT = 0.05  # share of the operations of the fit that Newton steps may take beyond that
EXPECTED_STEPS = 3  # assumed number of Newton steps per example when the budget is divided; enough for a smooth loss
AT_OPTIMUM = 1e-6  # gradient norm, relative to that of random data, below which a group is at its new optimum
MAX_GROUP_STEPS = 20  # Newton steps of a group at most


def follow_largest_removals(
    curvature: ExactCurvature, rows: Rows, weights: Array, max_steps: int
) -> tuple[NDArray[np.intp], Array]:
    """Take Newton steps for the single removals that move the model most, for as many examples as the budget allows.

    Args:
        curvature: at the optimum with all examples.
        rows: the corrected loss gradients, whose solves are the first Newton steps.
        weights: of the training examples, (n,).
        max_steps: Newton steps per example at most.

    Returns:
        Positions of the examples in ascending order, and the shifts of the parameters, (examples, parameters).
    """
    fit_cost, step_cost = curvature.step_cost
    budget = max(FREE_OPERATIONS, SHARE_OF_FIT * fit_cost)
    count = int(min((weights > 0).sum(), budget // (min(max_steps, EXPECTED_STEPS) * step_cost)))
    if count == 0:
        return np.empty(0, dtype=np.intp), np.empty((0, 0))
    effect = np.where(weights > 0, np.abs(curvature.paired(rows, rows)), -1.0)
    largest = np.argsort(-effect, kind="stable")[:count]
    first_steps = curvature.solve(rows.take(largest)).rows.dense()
    remaining = np.ones((count, len(weights)))
    remaining[np.arange(count), largest] = 0.0
    tolerance = 1e-4 / float(np.sqrt(example_counts(weights).sum()))
    shifts = curvature.newton_steps(remaining, first_steps, max_steps, tolerance).shifts
    ascending = np.argsort(largest)
    return largest[ascending], shifts[ascending]


def smallest_norm_shifts(curvature: ExactCurvature, undetermined: Mapping[int, Array], examples: int) -> Array:
    """Shifts without each of these examples of leverage 1, to the optimum of smallest norm: (undetermined, parameters).

    Args:
        curvature: at the optimum with all examples.
        undetermined: position → directions that no other example determines.
        examples: number of training examples.
    """
    remaining = np.ones((len(undetermined), examples))
    remaining[np.arange(len(undetermined)), list(undetermined)] = 0.0
    shifts = curvature.newton_steps(remaining, None, MAX_GROUP_STEPS).shifts
    trained = curvature.parameters
    for shift, directions in zip(shifts, undetermined.values(), strict=True):
        shift[:] = curvature.smallest(trained + shift, directions) - trained
    return shifts


def follow_groups(curvature: ExactCurvature, membership: NDArray[np.bool_], steps: int) -> tuple[Array, dict[str, Any]]:
    """Take Newton steps without each group; `membership` (groups, n) says which examples are in it.

    Returns the shifts of the parameters, and how near to the new optima the steps end.
    """
    moved = curvature.newton_steps(1.0 - membership.astype(np.float64), None, steps)
    facts: dict[str, Any] = {
        "residual": float(moved.residual.max()),
        "converged": bool((moved.residual <= AT_OPTIMUM).all()),
    }
    shifts, trained, undetermined = moved.shifts, curvature.parameters, 0
    for group, shift in zip(membership, shifts, strict=True):
        directions = curvature.undetermined_without(group)
        if len(directions):
            undetermined += 1
            shift[:] = curvature.smallest(trained + shift, directions) - trained
    if undetermined:
        facts["warnings"] = [
            f"Without {undetermined} of {len(membership)} groups the data do not determine the model: their effects "
            "are those of the parameters of smallest norm then."
        ]
    return shifts, facts


def second_order_shifts(curvature: ExactCurvature, membership: Array, first_order: Array) -> Array:
    """The first two terms of (H − H_U)⁻¹ g_U, H⁻¹g_U + H⁻¹H_U H⁻¹g_U, from the first one, for groups U (groups, n)."""
    second_term = curvature.solve(DenseRows(curvature.part_matvec(membership, first_order))).rows.dense()
    return first_order + second_term
