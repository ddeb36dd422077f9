"""Leverages of the training examples of a linear model, and the Newton steps of removals that follow from them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import blocks
from upweight.core.rows import Rows
from upweight.linear.hessian_solver import HessianSolver
from upweight.linear.rows import FactoredRows
from upweight.linear.undetermined import only_determined_by

Array = NDArray[np.float64]
MAX_LEVERAGE_ENTRIES = 10_000_000  # leverage entries (examples × K × K) in memory at a time
MAX_LEVERAGE = 1 - 1e-9  # at leverage 1 the model passes through the point: its removal has no first-order effect
SUSPECT_LEVERAGE = 1 - 1e-3  # leverage from which an example is checked for being 1 within rounding


class Leverages:
    """S_i = X̃ᵢ H⁻¹ X̃ᵢᵀ, (K, K), for every training example; its leverage is h_i = tr(wᵢ Aᵢ Sᵢ).

    Args:
        solver: H of the training objective.
        max_entries: leverage entries (examples × K × K) in memory at a time.

    Attributes:
        suspects: position → S_i, of examples whose leverage may be 1. Known after `corrected`.
    """

    def __init__(self, solver: HessianSolver, max_entries: int) -> None:
        self.solver = solver
        self.problem = solver.problem
        self.max_entries = max_entries
        self.suspects: dict[int, Array] = {}
        self._cached: Array | None = None

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """S_i for blocks of examples: (slice, (b, K, K)). Cached after the first pass if they fit."""
        n, outputs = len(self.problem.features), self.problem.family.outputs
        pieces = list(blocks(n, max(1, self.max_entries // outputs**2)))
        if self._cached is not None:
            yield pieces[0], self._cached
            return
        for where, s in zip(pieces, self.solver.leverages(pieces), strict=True):
            full = s if s.ndim == 3 else s[:, :, None] * np.eye(outputs)
            if len(pieces) == 1:
                self._cached = full
            yield where, full

    @cached_property
    def per_example(self) -> Array:
        """h_i, (n,)."""
        h = np.empty(len(self.problem.features))
        for where, s in self.blocks():
            h[where] = np.einsum("nck,nkc->n", self.problem.second_derivatives(where), s)
        return h

    def corrected(self, rows: Rows) -> FactoredRows:
        """Slopes r̃ᵢ = (I − wᵢAᵢSᵢ)⁻¹ (rᵢ + regulariser share): H⁻¹ row is then the Newton step of removing one.

        Source: Pregibon (1981) for one output; Rad & Maleki (2020), ALO, for the matrix form. An objective that
        averages also loses 1/n of its regulariser's curvature with an example; that part is ignored.
        """
        rows = _as_factored(rows)
        slopes = rows.slopes.copy()
        if rows.common is not None and rows.share is not None:
            slopes += (
                self.problem.derivatives.apply(self._outputs_of(rows.common))
                * (self.problem.weights * rows.share)[:, None]
            )
        self.suspects = {}
        for where, s in self.blocks():
            remainder = np.eye(s.shape[1]) - self.problem.second_derivatives(where) @ s
            determinant = np.abs(np.linalg.det(remainder))
            singular = determinant < 1 - MAX_LEVERAGE
            for i in np.flatnonzero(determinant < 1 - SUSPECT_LEVERAGE):
                self.suspects[where.start + int(i)] = s[i].copy()
            remainder[singular] += (1 - MAX_LEVERAGE) * np.eye(s.shape[1])
            slopes[where] = np.linalg.solve(remainder, slopes[where][..., None])[..., 0]
        return FactoredRows(rows.features, slopes, rows.share, rows.common)

    def undetermined(self) -> dict[int, Array]:
        """For examples of leverage 1: the directions (r, K·d) that no other example determines."""
        undetermined = {}
        for i, s in self.suspects.items():
            second = self.problem.second_derivatives(slice(i, i + 1))[0]
            left, singular, _ = np.linalg.svd(np.eye(len(s)) - second @ s)
            directions = left[:, singular < 1 - SUSPECT_LEVERAGE].T @ second
            if not len(directions):  # many outputs of moderate leverage have a small determinant together
                continue
            x = self.problem.features.take(slice(i, i + 1)).dense()[0]
            alone = only_determined_by(self.solver, [i], self.solver.solve(directions[:, :, None] * x))
            if len(alone):
                undetermined[i] = alone
        return undetermined

    def paired(self, left: Rows, right: Rows) -> Array:
        """leftᵢᵀ H⁻¹ rightᵢ, for rows of the training examples themselves."""
        left, right = _as_factored(left), _as_factored(right)
        out = np.empty(len(right))
        for where, s in self.blocks():
            out[where] = np.einsum("nc,nck,nk->n", left.slopes[where], s, right.slopes[where])
        if right.common is not None and right.share is not None:
            out += right.share * np.einsum("nc,nc->n", left.slopes, self._outputs_of(right.common))
        if left.common is not None and left.share is not None:
            out += left.share * np.einsum("nc,nc->n", right.slopes, self._outputs_of(left.common))
            if right.common is not None and right.share is not None:
                both = float((left.common * self.solver.solve(right.common[None])[0]).sum())
                out += left.share * right.share * both
        return out

    def _outputs_of(self, vector: Array) -> Array:
        """X H⁻¹ v for one v (K, d): (n, K)."""
        return self.problem.features.times(self.solver.solve(vector[None])[0].T)


def _as_factored(rows: Rows) -> FactoredRows:
    if not isinstance(rows, FactoredRows):
        raise TypeError(f"expected the rows of this model's training examples, got {type(rows).__name__}")
    return rows
