"""A bound from below on the smallest eigenvalue of a matrix too large to be assembled, by Lanczos iterations."""

from __future__ import annotations

from math import ceil, inf, log, sqrt

import torch
from torch import Tensor

from upweight.curvature.operators import Operator
from upweight.curvature.solvers.algebra import standard_normal, to_blocks, to_matrix

MAX_STEPS = 500  # products with the matrix; they suffice for condition numbers of up to about 5,000
CHECKED_STEPS = 10  # steps after which eigenvalues are computed again
FAILURE = 1e-3  # probability, over the random start, that the smallest eigenvalue is below its bound


def is_bounded_below(operator: Operator, ridge: float, max_condition: float) -> bool:
    """Whether A + ridge is positive definite with a condition number below `max_condition`.

    Lanczos from a random start overestimates the smallest eigenvalue of a matrix between 0 and c by more than ε c with
    a probability of at most 1.648 √p exp(−√ε (2k − 1)) after k steps (Kuczyński & Woźniakowski 1992, theorem 4.2).
    False if the matrix is not, or if the iterations cannot tell.
    """
    network, floor_share = operator.network, 10 * torch.finfo(operator.network.precision).eps
    generator = torch.Generator().manual_seed(0)
    vector = standard_normal(network, 1, generator)[0].double()
    vector, before = vector / vector.norm(), torch.zeros_like(vector)
    diagonal, beside = list[float](), list[float]()
    for step in range(1, MAX_STEPS + 1):
        product = to_matrix(network, operator.product(to_blocks(network, vector[None].to(network.precision))))[0]
        product = product.double() + ridge * vector - (beside[-1] if beside else 0.0) * before
        diagonal.append(float(product @ vector))
        product -= diagonal[-1] * vector
        beside.append(float(product.norm()))
        is_invariant = not beside[-1] > floor_share * max(map(abs, diagonal))
        if step % CHECKED_STEPS == 0 or is_invariant:
            smallest, largest = _extremes(diagonal, beside[:-1])
            floor = max(largest / max_condition, floor_share * largest)
            needed = _steps_needed((smallest - floor) / largest, operator.size) if largest > 0 else inf
            if needed > MAX_STEPS:
                return False
            if step >= needed or is_invariant:
                return True
        before, vector = vector, product / beside[-1]
    return False


def _steps_needed(share: float, size: int) -> float:
    """Steps after which the smallest eigenvalue is at most this share of the largest below its estimate."""
    return ceil((1 + log(1.648 * sqrt(size) / FAILURE) / sqrt(share)) / 2) if share > 0 else inf


def _extremes(diagonal: list[float], beside: list[float]) -> tuple[float, float]:
    """The smallest and the largest eigenvalue of a symmetric tridiagonal matrix."""
    matrix: Tensor = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        matrix = matrix + torch.diag(torch.tensor(beside, dtype=torch.float64), 1)
    values = torch.linalg.eigvalsh(matrix, UPLO="U")
    return float(values[0]), float(values[-1])
