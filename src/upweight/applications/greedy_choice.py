"""Greedy choices of examples by a kernel: prototypes, criticisms, and the points of a quadrature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.applications.example_kernels import ExampleKernel

Array = NDArray[np.float64]
Positions = NDArray[np.intp]
TINY = 1e-300
NEGLIGIBLE_GAIN = 1e-12  # share of what is spanned below which another example adds nothing
NEGLIGIBLE = 1e-10  # share of k(i, i) below which an example is a combination of those chosen before
INDEFINITE, ROUNDING = 1e-2, 1e-6  # of k(i, i), and of the largest k: a residual so far below 0 is no rounding


@dataclass(frozen=True)
class Choice:
    """Examples in the order in which they were chosen.

    Attributes:
        positions: (k,).
        values: the objective with each of them and those before, (k,).
        weights: of the chosen examples in the mean that they represent, (k,).
        covered: Σ weights k(·, chosen): the mean that they represent, at every example, (n,).
    """

    positions: Positions
    values: Array
    weights: Array
    covered: Array


def choose_prototypes(kernel: ExampleKernel, mean: Array, k: int, allowed: NDArray[np.bool_]) -> Choice:
    """The k examples whose mean is nearest to that of all examples in the space of the kernel (Kim et al. 2016, MMD).

    Each step takes the example that raises J(S) = 2/|S| Σ_s μ_s − 1/|S|² Σ_{s,t} k(s, t) most, with μ = `mean`, the
    mean of k(·, i) over all examples. MMD² is the mean of all k minus J.
    """
    chosen, values = list[int](), list[float]()
    to_chosen, diagonal, free = np.zeros(len(mean)), kernel.diagonal, allowed.copy()
    total_mean = total_pairs = 0.0
    for size in range(1, k + 1):
        gain = 2.0 * mean - (2.0 * to_chosen + diagonal) / size
        i = int(np.where(free, gain, -np.inf).argmax())
        total_mean += mean[i]
        total_pairs += 2.0 * to_chosen[i] + diagonal[i]
        column = np.asarray(kernel.column(i), dtype=np.float64)
        require_semidefinite(kernel, kernel.diagonal - column**2 / max(float(kernel.diagonal[i]), TINY))
        to_chosen += column
        free[i] = False
        chosen.append(i)
        values.append(2.0 * total_mean / size - total_pairs / size**2)
    return Choice(np.array(chosen, dtype=np.intp), np.array(values), np.full(k, 1.0 / k), to_chosen / k)


def choose_criticisms(kernel: ExampleKernel, witness: Array, k: int, allowed: NDArray[np.bool_]) -> Choice:
    """The k examples that the prototypes represent worst (Kim et al. 2016, with the log-determinant regulariser).

    Each step takes the example with the largest |wᵢ| + log(k(i, i) − k(i, C) K_CC⁻¹ k(C, i)), where the witness
    wᵢ = μᵢ − mean over prototypes of k(i, ·), and C are the criticisms so far. Values are the witness of each.
    """
    free, residual = allowed.copy(), _Residual(kernel)
    chosen = list[int]()
    for _ in range(k):
        independent = free & (residual.diagonal > NEGLIGIBLE * kernel.diagonal)
        if not independent.any():
            break
        value = np.abs(witness) + np.log(np.where(independent, residual.diagonal, 1.0))
        i = int(np.where(independent, value, -np.inf).argmax())
        residual.add(i)
        free[i] = False
        chosen.append(i)
    positions = np.array(chosen, dtype=np.intp)
    return Choice(positions, witness[positions], np.full(len(chosen), 1.0), np.zeros(len(witness)))


def choose_quadrature(kernel: ExampleKernel, target: Array, k: int, allowed: NDArray[np.bool_]) -> Choice:
    """The k or fewer examples that span a target best: sequential Bayesian quadrature (Khanna et al. 2019).

    Each step takes the example that raises z_Sᵀ K_SS⁻¹ z_S most, with z = `target`, the mean of k(·, q) over what the
    examples are to represent. Their weights are K_SS⁻¹ z_S. The first example has the largest zᵢ² / k(i, i).
    """
    free, rest = allowed.copy(), target.copy()
    residual, chosen, values, total = _Residual(kernel), list[int](), list[float](), 0.0
    coefficients = list[float]()
    for _ in range(k):
        independent = free & (residual.diagonal > NEGLIGIBLE * kernel.diagonal)
        if not independent.any():
            break
        gain = rest**2 / np.where(independent, residual.diagonal, 1.0)
        i = int(np.where(independent, gain, -np.inf).argmax())
        if gain[i] <= NEGLIGIBLE_GAIN * total:
            break
        total += float(gain[i])
        factor = residual.add(i)
        coefficient = float(rest[i]) / factor[i]
        rest = rest - coefficient * factor
        free[i] = False
        chosen.append(i)
        coefficients.append(coefficient)
        values.append(total)
    positions = np.array(chosen, dtype=np.intp)
    weights = residual.solve_upper(positions, np.array(coefficients))
    return Choice(positions, np.array(values), weights, target - rest)


def require_semidefinite(kernel: ExampleKernel, residual: Array) -> None:
    """Raise ValueError if the part of the kernel (n,) that chosen examples do not explain is negative."""
    allowed = INDEFINITE * kernel.diagonal + ROUNDING * np.abs(kernel.diagonal).max()
    if (residual < -allowed).any():
        share = float((residual / np.maximum(kernel.diagonal, allowed)).min())
        raise ValueError(
            "expected a kernel that is positive semi-definite, got one in which the chosen examples explain more of "
            f"another example than there is of it (what remains is {share:.2g} of k(i, i)). If it is a Fisher kernel, "
            "its curvature has negative directions: pass FisherKernel(curvature=GaussNewton()), or more damping"
        )


class _Residual:
    """The part of the kernel that the chosen examples do not explain: an incremental, pivoted Cholesky factorisation.

    Attributes:
        diagonal: k(i, i) − k(i, C) K_CC⁻¹ k(C, i), (n,).
    """

    def __init__(self, kernel: ExampleKernel) -> None:
        self.kernel, self.diagonal = kernel, kernel.diagonal.copy()
        self._factors = list[Array]()  # columns of L, each (n,)

    def add(self, i: int) -> Array:
        """Choose an example; returns its column of L, (n,)."""
        column = np.asarray(self.kernel.column(i), dtype=np.float64)
        for factor in self._factors:
            column = column - factor[i] * factor
        column /= np.sqrt(max(self.diagonal[i], TINY))
        self._factors.append(column)
        rest = self.diagonal - column**2
        require_semidefinite(self.kernel, rest)
        self.diagonal = np.maximum(rest, 0.0)
        return column

    def solve_upper(self, positions: Positions, coefficients: Array) -> Array:
        """L_C⁻ᵀ times the coefficients, (k,)."""
        from scipy.linalg import solve_triangular

        if not len(positions):
            return np.zeros(0)
        lower = np.array([factor[positions] for factor in self._factors]).T
        return np.asarray(solve_triangular(lower, coefficients, trans="T", lower=True))
