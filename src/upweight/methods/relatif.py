"""RelatIF: influence relative to how far the example moves the model, so that outliers do not rank first everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive import stored_array
from upweight.core.attributor import Attributor, Promises
from upweight.core.blocks import blocks
from upweight.core.capability_checks import require
from upweight.core.checkpoints import Layered
from upweight.core.choices import require_auto_or_number, require_choice
from upweight.core.curvature import PAIR_BLOCK, Curvature
from upweight.core.curvature_recipes import EKFAC, CurvatureRecipe
from upweight.core.examples import Examples
from upweight.core.model import Differentiable
from upweight.core.modules import Modules, as_parts
from upweight.core.rows import Rows, reciprocal_roots
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.core.scores import Unit
from upweight.core.token_scoring import LinearScores, ScoreDirection, Span, measuring
from upweight.core.weights import example_counts, sample_weights

Array = NDArray[np.float64]
TRAIN_BLOCK = 1024  # training examples whose scores are held in memory at once
NEGLIGIBLE = 1e-12  # share of the largest movement below which a movement is rounding, and the score is 0


@dataclass(frozen=True, kw_only=True)
class RelatIF(Attributor):
    """Barshan, Brunet & Dziugaite (2020): first-order influence divided by how far the example moves the model. RANK.

    Args:
        relative: "loss" divides by √(∇ℓᵢᵀ H⁻¹ ∇ℓᵢ), which approximates the change of the model's predictions
            (ℓ-relative); "parameters" divides by ‖H⁻¹∇ℓᵢ‖, the change of the parameters (θ-relative). An example that
            counts for k copies is divided by what one copy moves, so that its score is the sum of theirs.
        curvature: as for Influence; None for the one that suits the model best.
        damping: λ on the scale of the mean loss; "auto" leaves it to the model.
        modules: the part of a network that the scores are about, as for Influence; None for all of it.
    """

    summary = "Influence relative to how far the example moves the model, so that outliers do not rank first everywhere"
    paper = "Barshan, Brunet & Dziugaite (2020)"
    cost = "that of Influence without correction, and a solve for each training example"
    needs = (Differentiable,)
    answers_from_store = True
    solves_train = True
    variants: ClassVar = {"parameters": {"relative": "parameters"}, "EK-FAC": {"curvature": EKFAC()}}

    relative: Literal["loss", "parameters"] = "loss"
    curvature: CurvatureRecipe | None = None
    damping: float | Literal["auto"] = "auto"
    modules: Modules | None = None

    def __post_init__(self) -> None:
        require_choice("relative", self.relative, "loss", "parameters")
        require_auto_or_number("damping", self.damping)
        if self.modules is not None:
            object.__setattr__(self, "modules", as_parts(self.modules))

    @property
    def promises(self) -> Promises:
        """A low correlation with retraining: the division changes the order of effects."""
        return Promises(correlation=0.3)

    def fit(self, model: Any, train: Examples, store: Any = None) -> FittedRelatIF:
        """Compute the curvature, and how far every training example moves the model.

        With `store=uw.Store(folder)` training gradients are read from there, and built first if they are missing.
        """
        narrowed, curvature, rows = self._prepare(model, train)
        squared = curvature.paired(rows, rows) if self.relative == "loss" else _squared_steps(curvature, rows)
        counts = example_counts(sample_weights(train))
        squared = squared / np.maximum(counts, 1.0) ** 2  # for one of the copies that a row stands for
        squared = np.where(squared > NEGLIGIBLE**2 * squared.max(), squared, 0.0)
        return FittedRelatIF(self, (narrowed, model), train, curvature, rows, reciprocal_roots(squared))

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedRelatIF:
        """Take norms and curvature from the saved state; a curvature that it does not hold is computed again."""
        scale = stored_array(state, "scale", (len(train),))
        saved = SavedState(state, facts).part("curvature")
        narrowed, curvature, rows = self._prepare(model, train, saved)
        return FittedRelatIF(self, (narrowed, model), train, curvature, rows, scale)

    def _prepare(self, model: Any, train: Examples, saved: SavedState = NOTHING_SAVED) -> tuple[Any, Curvature, Rows]:
        """The model whose gradients count, its curvature and its rows."""
        if self.modules is not None:
            require(model, [Layered], "RelatIF(modules=…)")
            model = model.narrowed(self.modules)
        damping = None if self.damping == "auto" else float(self.damping)
        curvature = model.restored_curvature(train, self.curvature, damping, saved)
        return model, curvature, model.loss_rows(train)


class FittedRelatIF(LinearScores[RelatIF, Differentiable]):
    """RelatIF, ready to answer."""

    def __init__(
        self,
        recipe: RelatIF,
        models: tuple[Differentiable, Differentiable],  # the one whose gradients count, and the original one
        train: Examples,
        curvature: Curvature,
        rows: Rows,
        scale: Array,
    ) -> None:
        super().__init__(recipe, models[0], train, Unit.RANK, models[1])
        self.curvature, self.rows = curvature, rows
        self.scale = scale  # (n,) what influences are multiplied by

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """−∇m_qᵀ (H + λ)⁻¹ rowᵢ, scaled."""
        solved = self.curvature.solve(self.model.measure_rows(queries)).rows
        for block in blocks(len(self.train), TRAIN_BLOCK):
            rows = self.rows.take(np.arange(block.start, block.stop))
            yield block, -solved.dot(rows) * self.scale[block]

    def score_directions(self, queries: Examples, tokens: Span | None = None) -> list[ScoreDirection]:
        """(H + λ)⁻¹ ∇m of every query."""
        model = measuring(self.model, tokens)
        return [ScoreDirection(model, self.curvature.solve(model.measure_rows(queries)).rows.dense())]

    def row_scales(self, positions: NDArray[np.intp]) -> Array:
        """The reciprocal of how far each example moves the model."""
        return self.scale[positions]

    def self_values(self) -> Array:
        """Each example's influence on itself, scaled."""
        return -self.curvature.paired(self.model.measure_rows(self.train), self.rows) * self.scale

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """The diagnostics of the curvature, and the notes of the model."""
        facts = dict(self.curvature.diagnostics)
        return {**facts, "warnings": [*self.model.notes, *facts.get("warnings", ())]}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The curvature, and the scale, which takes a solve per training example."""
        saved = SavedState.joined({"curvature": self.curvature.state()})
        return {**saved.arrays, "scale": self.scale}, dict(saved.facts)


def _squared_steps(curvature: Curvature, rows: Rows) -> Array:
    """‖H⁻¹ rowᵢ‖², (n,), one block of rows after another."""
    squares = np.empty(len(rows))
    for block in blocks(len(rows), PAIR_BLOCK):
        squares[block] = curvature.solve(rows.take(np.arange(block.start, block.stop))).rows.squares()
    return squares
