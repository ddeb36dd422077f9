"""Outcomes 0 and 1 that the columns of a design matrix separate: no coefficients are the most likely ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FLAT = 1e-2  # of the curvature of a fit, in some direction: less makes it worth a look whether that direction separates
RANK_TOLERANCE = 1e-10  # singular values below this share of the largest are those of columns that depend on others
LEAST_MARGIN = 1e-7  # of the sum of margins, whose columns have a norm of 1; less is the rounding of the solver


def is_separated(
    design: NDArray[np.float64], outcomes: NDArray[np.float64], probabilities: NDArray[np.float64]
) -> bool:
    """Whether a combination of the columns is ≥ 0 for all outcomes of 1 and ≤ 0 for all of 0, and not 0 for all rows.

    Then the likelihood of a binomial model with a link onto all real numbers grows along it for ever (Albert & Anderson
    1984), however small the last step of a solver was. Found by the linear program of Konis (2007), but only if the fit
    is nearly flat in some direction, as it is after a long way along such a combination.

    Args:
        design: the design matrix, (n, p).
        outcomes: 0 or 1 of every row, (n,).
        probabilities: of 1, by the fit, (n,).
    """
    left, sizes, _ = np.linalg.svd(design / np.maximum(np.linalg.norm(design, axis=0), 1e-300), full_matrices=False)
    basis = left[:, sizes > RANK_TOLERANCE * sizes[0]]
    curvature = basis.T @ (basis * (probabilities * (1 - probabilities))[:, None])
    if np.linalg.eigvalsh(curvature)[0] > FLAT:
        return False
    from scipy.optimize import linprog

    margins = np.where(outcomes > 0, 1.0, -1.0)[:, None] * basis
    found = linprog(-margins.sum(axis=0), A_ub=-margins, b_ub=np.zeros(len(margins)), bounds=(-1, 1))
    return bool(found.success and -found.fun > LEAST_MARGIN)
