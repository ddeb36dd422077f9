"""KFAC and EK-FAC in the coordinates of a store, where they are diagonal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import Curvature, Solved
from upweight.core.curvature_recipes import EKFAC, CurvatureRecipe
from upweight.core.rows import Rows
from upweight.curvature.ekfac import FittedEKFAC
from upweight.curvature.registry import objective_of
from upweight.store.build import Builder
from upweight.store.codes import Code
from upweight.store.coordinate_rows import LazyRows, QueryRows, StoredRows
from upweight.store.factors import Factors
from upweight.store.quantisation import SEPARATION

Array = NDArray[np.float64]
SMALLEST_WEIGHT = 1e-6
EXPONENT = 0.5  # of weights, between 1, for directions of all rows, and 0, for those of one row alone


@final
class CoordinateCurvature(Curvature):
    """KFAC, EK-FAC or the identity, which are diagonal in the coordinates of a store.

    Args:
        codes: of the rows that are solved for.
        builder: of the finished store.
        fitted: the curvature with all eigenvalues and dampings.
        share: the regulariser's share of every training gradient; None for nothing.
        is_identity: whether the identity is asked instead.
    """

    def __init__(
        self, codes: Sequence[Code], builder: Builder, fitted: FittedEKFAC, share: QueryRows | None, is_identity: bool
    ) -> None:
        self.codes, self.header, self.fitted = codes, builder.header, fitted
        self._share, self._total_weight, self._is_identity = share, float(builder.weights.sum()), is_identity
        self._shifted = {name: values.double() for name, values in fitted.shifted()}
        self._values = {name: values.double() for name, values in fitted.eigenvalues()}
        self._diagonal = {
            code.name: np.ones((code.layout.left, code.layout.right))
            if is_identity
            else code.leading_values(self._shifted[code.name])
            for code in self.codes
        }

    def matvec(self, vectors: Array) -> Array:
        """(C + λ) v in the coordinates of the store."""
        return np.asarray(vectors * np.concatenate([self._diagonal[code.name].ravel() for code in self.codes]))

    def solve(self, rows: Rows) -> Solved:
        """(C + λ)⁻¹ rows by division."""
        if isinstance(rows, LazyRows):
            rows = rows.rows
        elif isinstance(rows, StoredRows):
            rows = rows.in_memory()
        if not isinstance(rows, QueryRows):
            raise TypeError(f"expected rows of the same store, got {type(rows).__name__}")
        if self._is_identity:
            return Solved(rows, 0.0, 0, True)
        return Solved(rows.times(self._inverse), 0.0, 0, True)

    @cached_property
    def _inverse(self) -> dict[str, Factors]:
        """1/(Λ + λ) of every block, for scores that are right to its tolerances.

        A factor counts as much as the root of what products of all rows in its direction add up to, Λ + n share². With
        what they add up to itself, directions that one row has alone (a word or a feature that occurs once) would be
        left out, and with them most of what such a row and its copies score.
        """
        tolerances = SEPARATION[self.header.encoding.precision]
        factors = {}
        for code in self.codes:
            sizes = code.leading_values(self._values[code.name])
            if self._share is not None:
                share = self._share.blocks()[code.name].matrix().reshape(sizes.shape)
                sizes = sizes + self._total_weight * share**2
            left, right = (_relative(sizes.mean(axis=axis) ** EXPONENT) for axis in (1, 0))
            inverse = 1.0 / self._invertible(code.name)
            relative = sizes / (sizes.max() or 1.0)
            factors[code.name] = Factors(inverse, tolerances, (left, right), all(code.rotated), relative)
        return factors

    def _invertible(self, name: str) -> Array:
        """Λ + λ of a block. Raises ValueError if single precision does not hold its inverse."""
        shifted, most = self._diagonal[name], float(np.finfo(np.float32).max)
        if not (np.isfinite(shifted).all() and shifted.min() > 1 / most):
            raise ValueError(
                f"expected eigenvalues whose inverse single precision holds, got {shifted.min():.3g} to "
                f"{shifted.max():.3g} in the block of {name!r}, damping included; give another damping"
            )
        return shifted

    @property
    def calibrated(self) -> bool:
        """False: this approximates the curvature, and rows are rounded."""
        return False

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Diagnostics of the curvature, the store's encoding and coverage, and the share of scores that it keeps."""
        facts: dict[str, Any] = {"curvature": "identity", "solver": "none", "damping": 0.0, "warnings": []}
        if not self._is_identity:
            facts = {**self.fitted.diagnostics, "kept_share": dict(self._kept_share)}
            unresolved = self._unresolved()
            if unresolved:
                facts["warnings"] = [
                    *facts["warnings"],
                    f"The damping is below what single precision resolves of {len(unresolved)} layers (e.g. "
                    f"{unresolved[0]}): rounding may be most of these scores. Give a larger one.",
                ]
        if self.fitted.summed.time_matched and not self._is_identity:
            facts["warnings"] = [
                *facts["warnings"],
                "Without a store, scores of this training would count how gradients changed in its later half; a store "
                "has those of the end alone.",
            ]
        return {**facts, "store": self.header.encoding.described, "coverage": self.header.coverage}

    def _unresolved(self) -> list[str]:
        """Blocks with directions where the square of what rounding leaves of a gradient is more than Λ + λ."""
        rounding = float(np.finfo(np.float32).eps) ** 2
        largest = {code.name: self._diagonal[code.name].max() for code in self.codes}
        return [name for name, value in largest.items() if self._diagonal[name].min() < rounding * value]

    @cached_property
    def _kept_share(self) -> dict[str, float]:
        """For each block the share Σ h² (h = Λ/(Λ + λ)) of all directions that lies in the directions of the store.

        It is the share of the squared scores among examples like the training examples.
        """
        return _kept_shares(self.codes, self._values, self._shifted)


def fitted_from(builder: Builder, recipe: CurvatureRecipe, damping: float | None) -> FittedEKFAC:
    """KFAC or EK-FAC with the factors of a finished store (EK-FAC for `EKFAC()`); no pass is made."""
    summed = objective_of(builder.model, builder.train, recipe, damping)
    summed = replace(summed, losses=float(builder.basis_facts["losses"]))
    is_refined = isinstance(recipe, EKFAC)
    return FittedEKFAC(summed, is_refined, factors=builder.basis.factors(is_refined))


def kept_share_of(builder: Builder) -> dict[str, float]:
    """As in the diagnostics of EK-FAC with its own damping, as soon as the basis of a store is finished."""
    fitted = fitted_from(builder, EKFAC(), None)
    values, shifted = (dict(part) for part in (fitted.eigenvalues(), fitted.shifted()))
    return _kept_shares(builder.codes, values, shifted)


def _kept_shares(codes: Sequence[Code], values: Mapping[str, Any], shifted: Mapping[str, Any]) -> dict[str, float]:
    shares = {}
    for code in codes:
        squares = (values[code.name].double() / shifted[code.name].double()) ** 2
        whole = float(squares.sum())
        shares[code.name] = float(code.leading_values(squares).sum()) / whole if whole > 0 else 1.0
    return shares


def _relative(values: Array) -> Array:
    """Over the largest of them; none is below `SMALLEST_WEIGHT`, so that no direction is without weight."""
    relative: Array = np.maximum(values / (values.max() or 1.0), SMALLEST_WEIGHT)
    return relative
