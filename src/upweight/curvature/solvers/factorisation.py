"""Cholesky factors in float64: by SciPy's LAPACK on processors, by torch elsewhere.

torch copies the matrix, and the factor in every solve; with few columns, copying takes most of the time.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor


def cholesky(matrix: Tensor) -> Tensor | None:
    """L of a symmetric float64 matrix = L Lᵀ, whose array is overwritten; None if it is not positive definite."""
    if matrix.device.type != "cpu":
        factor, failed = torch.linalg.cholesky_ex(matrix)
        return None if int(failed) else factor
    # Read by columns, the array is the transpose, whose upper factor is Lᵀ.
    factor, failed = lapack.dpotrf(matrix.numpy().T, lower=0, overwrite_a=1, clean=1)
    if failed or not np.isfinite(factor.diagonal()).all():  # some builds of LAPACK pass over NaN
        return None
    return torch.from_numpy(factor.T)


def cholesky_solve(right: Tensor, factor: Tensor) -> Tensor:
    """The solutions x of L Lᵀ x = b for every row b, (k, p) in float64."""
    if factor.device.type != "cpu":
        return torch.cholesky_solve(right.T, factor).T
    solved, _ = lapack.dpotrs(factor.numpy().T, right.numpy().T, lower=0)
    return torch.from_numpy(solved.T)
