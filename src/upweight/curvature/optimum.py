"""Whether a net is at a well-conditioned minimum of its objective, where influence needs no damping."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.curvature.linear_head import linear_head_matrix
from upweight.curvature.operators import HessianOperator
from upweight.curvature.smallest_eigenvalue import is_bounded_below
from upweight.curvature.solvers.direct import assemble
from upweight.curvature.summed_objective import SummedObjective
from upweight.curvature.total_gradient import total_gradient
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.functional import SecondDerivativeError

Array = NDArray[np.float64]
MAX_GRADIENT_NORM = 1e-3  # relative to that of gradients with random signs
MAX_CONDITION = 1e6
SAMPLED_EXAMPLES = 32  # examples from which the norm of single gradients is estimated
POWER_STEPS = 100
NONE_AT_OPTIMUM = "none: the net is at an optimum, where the exact Hessian is positive definite and well conditioned"


def is_at_optimum(summed: SummedObjective) -> bool:
    """Whether the gradient vanishes and the exact Hessian, ridge included, is well conditioned.

    The gradient is checked first, by one ordinary backward pass. The Hessian of a net with more than
    `limits.dense_parameters` is not assembled; its smallest eigenvalue is bounded by Lanczos iterations.
    """
    if not _gradient_norm(summed) <= MAX_GRADIENT_NORM:
        return False
    try:
        if summed.network.size > summed.limits.dense_parameters:
            return is_bounded_below(HessianOperator(summed), summed.ridge, MAX_CONDITION)
        matrix = linear_head_matrix(summed)
        matrix = assemble(HessianOperator(summed)) if matrix is None else matrix
    except (RuntimeError, SecondDerivativeError):
        return False
    return is_well_conditioned(matrix, summed.ridge, summed.network.precision)


def is_well_conditioned(matrix: Tensor, ridge: float, precision: torch.dtype) -> bool:
    """Whether matrix + ridge is positive definite, with a condition number below `MAX_CONDITION`.

    The largest eigenvalue comes from power iterations, and the smallest is compared with it by a factorisation. It also
    has to be above the rounding of the net's precision.
    """
    shifted = matrix.clone()
    shifted.diagonal().add_(ridge)
    vector = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(matrix)
    largest = 0.0
    for _ in range(POWER_STEPS):
        vector = shifted @ (vector / vector.norm())
        largest = float(vector.norm())
        if not largest > 0:
            return False
    floor = 10 * torch.finfo(precision).eps * float(matrix.norm())
    shifted.diagonal().sub_(max(largest / MAX_CONDITION, floor))
    return int(torch.linalg.cholesky_ex(shifted)[1]) == 0


def _gradient_norm(summed: SummedObjective) -> float:
    """‖Σ wᵢ∇ℓᵢ + ridge θ‖ / √Σ wᵢ²‖∇ℓᵢ‖²/copies, the denominator estimated from a few examples."""
    network, train = summed.network, summed.train
    chosen = np.unique(np.linspace(0, len(train) - 1, SAMPLED_EXAMPLES).astype(np.intp))
    weights_chosen, copies = summed.weights[chosen], np.maximum(summed.copies[chosen], 1.0)
    rows = CapturedRows(network, train.take(chosen), "loss", weights_chosen / np.sqrt(copies))
    squares = sum(float(batch.squares().double().sum()) for _, batch in rows.passes())
    squares *= float(summed.copies.sum()) / float(summed.copies[chosen].sum())
    return float(np.linalg.norm(total_gradient(summed)) / max(np.sqrt(squares), 1e-300))
