"""Functions of a matrix that is known only through its products, by Chebyshev series with one recurrence for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.polynomial.chebyshev import chebinterpolate
from torch import Tensor

from upweight.core.forecast import counted
from upweight.curvature.mean_gauss_newton import Blocks, Function, MeanGaussNewton, Spectrum
from upweight.curvature.solvers.algebra import norms, standard_normal, to_blocks

TAIL_SHARE = 1e-6  # the series ends where coefficients fall below this share of the largest one
MAX_TERMS = 1000
PROBE_VECTORS = 4  # vectors of the power method for the largest eigenvalue
POWER_ITERATIONS = 20
EIGENVALUE_MARGIN = 1.1  # the interval ends at this multiple of the estimated largest eigenvalue
MAX_GROWTH = 1.05  # a vector that grows by more under e^{−τA} shows that the interval was too short


@final
class ChebyshevSeries(Spectrum):
    """f(A) v = Σ_k c_k T_k(2A/b − 1) v on [0, b], b above the largest eigenvalue (Clenshaw's series, forward).

    Cost: about √(τ b) products for e^{−τA} and every other function evaluated with it; three blocks of vectors.
    """

    def __init__(self, mean_matrix: MeanGaussNewton) -> None:
        self.mean_matrix = mean_matrix
        self.bound = EIGENVALUE_MARGIN * self._largest_eigenvalue()
        self.terms = 0
        self.tail = 0.0

    def functions(self, blocks: Blocks, functions: Sequence[Function]) -> list[Blocks]:
        """All functions from the same products; if the series diverges, a wider interval is tried."""
        before = norms(blocks)
        for _ in range(6):
            images = self._series(blocks, functions)
            largest = [float(np.abs(f(np.linspace(0, self.bound, 64))).max()) for f in functions]
            bounded = [norms(out) <= MAX_GROWTH * size * before for out, size in zip(images, largest, strict=True)]
            if all(bool(each.all()) for each in bounded):  # a NaN is not bounded
                return images
            self.bound *= 2.0
        raise RuntimeError(
            f"the Gauss–Newton matrix has eigenvalues above {self.bound:.3g}, where products with it are no longer "
            "finite or not symmetric; use curvature=EKFAC()"
        )

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Interval and length of the last series."""
        diagnostics: dict[str, Any] = {
            "exponential": "Chebyshev series",
            "largest": self.bound / EIGENVALUE_MARGIN,
            "terms": self.terms,
        }
        if self.tail > TAIL_SHARE:
            diagnostics["warnings"] = [
                f"The series of the exponential was cut at {self.terms} terms with a tail of {self.tail:.2g}: use "
                "more segments, or EKFAC()."
            ]
        return diagnostics

    def _series(self, blocks: Blocks, functions: Sequence[Function]) -> list[Blocks]:
        coefficients = np.array([self._coefficients(f) for f in functions])
        size = np.abs(coefficients) / np.abs(coefficients).max(axis=1, keepdims=True)
        self.terms = int(np.flatnonzero((size > TAIL_SHARE).any(axis=0))[-1]) + 1
        self.tail = float(size[:, -1].max())
        older, old = dict(blocks), self._mapped_product(blocks)
        sums = [{name: float(c[0]) * older[name] + float(c[1]) * old[name] for name in older} for c in coefficients]
        for k in counted(range(2, self.terms), self.terms - 2):
            product = self._mapped_product(old)
            older, old = old, {name: 2.0 * product[name] - older[name] for name in old}
            for c, total in zip(coefficients, sums, strict=True):
                for name, block in total.items():
                    block.add_(old[name], alpha=float(c[k]))
        return list(sums)

    def _coefficients(self, function: Function) -> np.ndarray:
        def on_unit_interval(t: Any) -> Any:
            return function(self.bound * (t + 1.0) / 2.0)

        return np.asarray(chebinterpolate(on_unit_interval, MAX_TERMS))

    def _mapped_product(self, blocks: Blocks) -> dict[str, Tensor]:
        """(2A/b − 1) v."""
        return {
            name: block.mul_(2.0 / self.bound).sub_(blocks[name])
            for name, block in self.mean_matrix.product(blocks).items()
        }

    def _largest_eigenvalue(self) -> float:
        """The largest eigenvalue by the power method."""
        network = self.mean_matrix.network
        vectors: Blocks = to_blocks(network, standard_normal(network, PROBE_VECTORS, torch.Generator().manual_seed(0)))
        size = 1.0
        for _ in range(POWER_ITERATIONS):
            length = norms(vectors).clamp_min(1e-300)
            scaled = {
                name: block / length.to(block).view(-1, *[1] * (block.ndim - 1)) for name, block in vectors.items()
            }
            vectors = self.mean_matrix.product(scaled)
            size = float(norms(vectors).max())
        return max(size, 1e-12)
