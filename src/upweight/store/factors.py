"""Factors by which the numbers of a row are multiplied, exact or cut down to what is cheap to multiply with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from upweight.store.separable_terms import separable_terms

Floats = NDArray[np.float32]
Array = NDArray[np.float64]
Span = tuple[slice, slice]  # of left and right numbers


@dataclass(frozen=True, eq=False)
class Factors:
    """Factors of the numbers of a row, and the separable terms that make them up, computed once.

    Attributes:
        values: (p, q).
        tolerance: share of the factors that may be left out, in the norm that `weights` define.
        weights: how much the factors of the left and of the right side count, all above 0.
        is_dense: whether all rows have numbers in all directions. If few rows have all that is in a direction, as in
            that of a word, it counts little among all rows and much in these: then no factor is left out of `flat`.
    """

    values: Array
    tolerance: float
    weights: tuple[Array, Array]
    is_dense: bool = True

    @cached_property
    def flat(self) -> Floats:
        """(p·q,); the smallest are 0 as far as the tolerance allows, so that products can leave them out.

        Those are left out that are small with the weights and with their squares: with the weights alone, which are
        roots of eigenvalues, an inverse is small in the directions of the largest eigenvalues, where scores come from.
        """
        flat = self.values.ravel().astype(np.float32)
        if self.is_dense:
            weights = np.outer(*self.weights)
            norms = ((self.values * weights**power).ravel() ** 2 for power in (1, 2))
            squares = np.max([norm / norm.sum() for norm in norms], axis=0)
            ascending = np.argsort(squares, kind="stable")
            summed = np.cumsum(squares[ascending])
            flat[ascending[summed <= self.tolerance**2]] = 0.0
        return flat

    @cached_property
    def terms(self) -> tuple[Floats, Floats]:
        """(u (r, p), v (r, q)) with factors ≈ Σ_j u_j v_jᵀ; some are 0 in part of the directions."""
        return separable_terms(self.values, self.tolerance, self.weights)

    @cached_property
    def spans(self) -> list[Span]:
        """For each term the parts of its left and right numbers outside of which it is 0."""
        return [(_span(left), _span(right)) for left, right in zip(*self.terms, strict=True)]

    @property
    def multiplications(self) -> int:
        """Those of numbers in an inner product of rows by the terms."""
        return sum(side.stop - side.start for span in self.spans for side in span)


def _span(numbers: Floats) -> slice:
    """From the first to the last number that is not 0."""
    used = np.flatnonzero(numbers)
    return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
