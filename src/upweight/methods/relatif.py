"""RelatIF: influence per unit of what the example moves, so that outliers do not explain everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.curvature import PAIR_BLOCK, Curvature
from upweight.core.curvature_recipes import EKFAC, CurvatureRecipe
from upweight.core.examples import Examples
from upweight.core.model import Differentiable
from upweight.core.rows import Rows, reciprocal_roots
from upweight.core.scores import Unit
from upweight.core.weights import example_counts, sample_weights

Array = NDArray[np.float64]
BLOCK = 1024  # training examples whose scores are held at a time
NEGLIGIBLE = 1e-12  # of the largest movement: what moves less is rounding, and has no influence to be relative to


@dataclass(frozen=True, kw_only=True)
class RelatIF(Attributor):
    """Barshan, Brunet & Dziugaite (2020): first-order influence divided by what the example moves. RANK.

    Args:
        relative: "loss" divides by √(∇ℓᵢᵀ H⁻¹ ∇ℓᵢ), about the change in the model's predictions (ℓ-relative);
            "parameters" by ‖H⁻¹∇ℓᵢ‖, the change of the parameters (θ-relative). An example that counts for k copies is
            relative to what one of them moves, so that it scores as they do together.
        curvature: as for Influence; None for the model's own best.
        damping: λ on the scale of the mean loss; "auto" leaves it to the model.
    """

    summary = "Influence per unit of what the example moves, so that outliers do not explain everything"
    paper = "Barshan, Brunet & Dziugaite (2020)"
    cost = "that of Influence without correction, and a solve for each training example"
    needs = (Differentiable,)
    variants: ClassVar = {"parameters": {"relative": "parameters"}, "EK-FAC": {"curvature": EKFAC()}}

    relative: Literal["loss", "parameters"] = "loss"
    curvature: CurvatureRecipe | None = None
    damping: float | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.relative not in ("loss", "parameters"):
            raise ValueError(f'expected relative="loss" or "parameters", got {self.relative!r}')
        if self.damping != "auto" and not (isinstance(self.damping, int | float) and 0 <= self.damping < np.inf):
            raise ValueError(f'expected damping="auto" or a number ≥ 0, got {self.damping!r}')

    @property
    def promises(self) -> Promises:
        """The order of effects, but for what is divided away."""
        return Promises(correlation=0.3)

    def fit(self, model: Any, train: Examples) -> FittedRelatIF:
        """The curvature, and what every training example moves."""
        curvature, rows = self._prepared(model, train)
        moved = curvature.paired(rows, rows) if self.relative == "loss" else _squared_steps(curvature, rows)
        counts = example_counts(sample_weights(train))
        moved = moved / np.maximum(counts, 1.0) ** 2  # by one of the copies that a row stands for
        moved = np.where(moved > NEGLIGIBLE**2 * moved.max(), moved, 0.0)
        return FittedRelatIF(self, model, train, curvature, rows, reciprocal_roots(moved))

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedRelatIF:
        """The norms from disk, the curvature built again."""
        return FittedRelatIF(self, model, train, *self._prepared(model, train), state["scale"])

    def _prepared(self, model: Any, train: Examples) -> tuple[Curvature, Rows]:
        curvature = model.curvature(train, self.curvature, None if self.damping == "auto" else float(self.damping))
        return curvature, model.loss_rows(train)


class FittedRelatIF(Fitted[RelatIF, Differentiable]):
    """RelatIF, ready to answer."""

    def __init__(
        self,
        recipe: RelatIF,
        model: Differentiable,
        train: Examples,
        curvature: Curvature,
        rows: Rows,
        scale: Array,
    ) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.curvature, self.rows = curvature, rows
        self.scale = scale  # (n,) what influences are multiplied by

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """−∇m_qᵀ (H + λ)⁻¹ rowᵢ, scaled."""
        solved, n = self.curvature.solve(self.model.measure_rows(queries)).rows, len(self.train)
        for start in range(0, n, BLOCK):
            where = np.arange(start, min(start + BLOCK, n))
            yield slice(start, int(where[-1]) + 1), -solved.dot(self.rows.take(where)) * self.scale[where]

    def self_values(self) -> Array:
        """Each example's influence on itself, scaled."""
        return -self.curvature.paired(self.model.measure_rows(self.train), self.rows) * self.scale

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """The curvature's."""
        news = dict(self.curvature.diagnostics)
        return {**news, "warnings": [*self.model.notes, *news.get("warnings", ())]}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """What takes a solve per example."""
        return {"scale": self.scale}, {}


def _squared_steps(curvature: Curvature, rows: Rows) -> Array:
    """‖H⁻¹ rowᵢ‖², (n,), some rows at a time."""
    out = np.empty(len(rows))
    for start in range(0, len(rows), PAIR_BLOCK):
        where = np.arange(start, min(start + PAIR_BLOCK, len(rows)))
        out[where] = curvature.solve(rows.take(where)).rows.squares()
    return out
