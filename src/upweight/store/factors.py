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
SMALLEST = 1e-300
SHARE_OF_SQUARES = 1 / 3  # in the mixed weights of terms


@dataclass(frozen=True, eq=False)
class Factors:
    """Factors of the numbers of a row, and the separable terms that make them up, computed once.

    Attributes:
        values: (p, q), finite and above 0.
        tolerances: share of the factors that may be left out in each of the norms, the first and all others.
        weights: how much the factors of the left and of the right side count, all above 0: roots of eigenvalues.
        sizes: (p, q), what products of all rows add up to in each direction, up to a factor; None if they are the
            products of squared weights.
        is_dense: whether all rows have numbers in all directions. If few rows have all that is in a direction, as in
            that of a word, it counts little among all rows and much in these: then no factor is left out of `flat`.
    """

    values: Array
    tolerances: tuple[float, float]
    weights: tuple[Array, Array]
    is_dense: bool = True
    sizes: Array | None = None

    @cached_property
    def norms(self) -> list[Array]:
        """How much each factor counts, (p, q) for each norm: by the weights, by their squares, and by the sizes.

        With the weights alone, an inverse is small in the directions of the largest eigenvalues, where scores of most
        rows come from: the less the damping, the more of its norm is that of directions in which rows have next to
        nothing. With sizes alone, those would not count that one row has alone.
        """
        weights = np.outer(*self.weights)
        return [weights, weights**2] if self.sizes is None else [weights, weights**2, self.sizes]

    @cached_property
    def flat(self) -> Floats:
        """(p·q,); the smallest are 0 as far as the tolerances allow, so that products can leave them out."""
        flat = self.values.ravel().astype(np.float32)
        if self.is_dense:
            counted = [(self.values / self.values.max() * norm).ravel() ** 2 for norm in self.norms]
            squares = np.max([of_norm / max(of_norm.sum(), SMALLEST) for of_norm in counted], axis=0)
            ascending = np.argsort(squares, kind="stable")
            flat[ascending[np.cumsum(squares[ascending]) <= min(self.tolerances) ** 2]] = 0.0
        return flat

    @cached_property
    def terms(self) -> tuple[Floats, Floats]:
        """(u (r, p), v (r, q)) with factors ≈ Σ_j u_j v_jᵀ; some are 0 in part of the directions.

        Their weights are those by which factors that count in one of the first two norms count in the mixed one.
        """
        relative = self.values / self.values.max()
        by_weights, by_squares = (np.linalg.norm(relative * norm) for norm in self.norms[:2])
        share = SHARE_OF_SQUARES * np.sqrt(by_weights / by_squares)
        left, right = (side + share * side**2 for side in self.weights)
        first, others = self.tolerances
        limits = [first] + [others] * (len(self.norms) - 1)
        return separable_terms(self.values, limits, (left, right), self.norms)

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
