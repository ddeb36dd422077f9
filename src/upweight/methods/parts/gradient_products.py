"""Sums of inner products or cosines of gradients over checkpoints: what TracIn, GAS, GradDot and GradCos share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor
from upweight.core.blocks import blocks
from upweight.core.capability_checks import require
from upweight.core.checkpoints import Checkpoint, Checkpointed, Layered
from upweight.core.choices import require_choice
from upweight.core.deprecation import RenamedAttribute
from upweight.core.examples import Examples
from upweight.core.forecast import counted
from upweight.core.model import Differentiable
from upweight.core.modules import Modules, Part, as_parts, as_settings
from upweight.core.rows import Rows
from upweight.core.scores import Unit
from upweight.core.token_scoring import LinearScores, ScoreDirection, Span, measuring
from upweight.core.weights import example_counts, sample_weights
from upweight.methods.parts.checkpoint_state import checkpoint_state

Array = NDArray[np.float64]
TRAIN_BLOCK = 4096  # training examples whose scores are held in memory at once
SELF_BLOCK = 64  # training examples whose self-influence is computed at once


@dataclass(frozen=True, kw_only=True)
class Cosines(Attributor):
    """Settings of the methods that compare the directions of gradients.

    Args:
        by: divide by the norm over "all" parameters, or in each "layer" by its own norm, so that no layer dominates.
        modules: the part of the model whose gradients count: patterns of modules, or pattern → rows of embeddings (see
            `Influence`); "last" is the last layer. None for all of it.
    """

    normalises_gradients = True

    by: Literal["all", "layer"] = "all"
    modules: Modules | None = None
    layers = RenamedAttribute("modules")

    def __post_init__(self) -> None:
        require_choice("by", self.by, "all", "layer")


class FittedProducts(LinearScores[Attributor, Differentiable]):
    """score[q, i] = −Σ_c τ_c ⟨∇m_q, ∇ℓ_i⟩ at the parameters of checkpoint c. RANK.

    Args:
        checkpoints: the checkpoints, with their effective learning rates τ.
        modules: whose gradients count; None for all.
        normalised_by: divide gradients by their norm, over "all" parameters or in each "layer"; None to leave them.
    """

    def __init__(
        self,
        recipe: Attributor,
        model: Differentiable,
        train: Examples,
        checkpoints: Sequence[Checkpoint],
        modules: Modules | None = None,
        normalised_by: Literal["all", "layer"] | None = None,
    ) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.checkpoints, self.normalised_by = checkpoints, normalised_by
        # Loss gradients contain the example's weight. Normalising removes it, so that copies are counted again here.
        self._factors = np.ones(len(train)) if normalised_by is None else example_counts(sample_weights(train))
        self.modules = chosen_parts(model, modules, type(recipe).__name__)
        if normalised_by == "layer":
            require(model, [Layered], f'{type(recipe).__name__}(by="layer")')

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """The sum over all checkpoints, for one block of training examples after another."""
        for block in blocks(len(self.train), TRAIN_BLOCK):
            positions = np.arange(block.start, block.stop)
            scores = np.zeros((len(queries), len(positions)))
            for checkpoint, measure_rows, loss_rows in self._gradients(queries, positions):
                scores -= checkpoint.learning_rate_sum * measure_rows.dot(loss_rows)
            yield block, scores * self._factors[block]

    def score_directions(self, queries: Examples, tokens: Span | None = None) -> list[ScoreDirection]:
        """τ ∇m of every query at every checkpoint. Raises TypeError for normalised gradients."""
        if self.normalised_by is not None:
            raise TypeError(
                f"{type(self.recipe).__name__} divides gradients by their norms, so that its scores are not sums over "
                "tokens; use GradDot(), TracIn() or Influence(…)"
            )
        directions = []
        for checkpoint in self.checkpoints:
            if checkpoint.learning_rate_sum == 0.0:
                continue
            model = measuring(self._narrowed(checkpoint.model()), tokens)
            directions.append(ScoreDirection(model, checkpoint.learning_rate_sum * model.measure_rows(queries).dense()))
        return directions

    def joint_directions(self, positions: NDArray[np.intp]) -> list[ScoreDirection]:
        """τ Σ ∇ℓᵢ at every checkpoint."""
        directions, examples, ones = [], self.train.take(positions), np.ones((1, len(positions)))
        for checkpoint in self.checkpoints:
            if checkpoint.learning_rate_sum > 0:
                model = self._narrowed(checkpoint.model())
                total = model.loss_rows(examples).sums(ones).dense()
                directions.append(ScoreDirection(model, checkpoint.learning_rate_sum * total))
        return directions

    def self_values(self) -> Array:
        """−Σ τ ⟨∇m_i, ∇ℓ_i⟩; if −loss is measured, this is the self-influence of TracIn."""
        values = np.zeros(len(self.train))
        for checkpoint, measure_rows, loss_rows in self._gradients(self.train, np.arange(len(self.train))):
            for block in blocks(len(values), SELF_BLOCK):
                positions = np.arange(block.start, block.stop)
                products = measure_rows.take(positions).dot(loss_rows.take(positions))
                values[block] -= checkpoint.learning_rate_sum * np.diagonal(products)
        return values * self._factors

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """Which checkpoints and layers the scores are made of."""
        steps = [checkpoint.step for checkpoint in self.checkpoints if checkpoint.step is not None]
        facts: dict[str, Any] = {"checkpoints": steps} if steps else {}
        if self.modules is not None:
            facts["modules"] = as_settings(self.modules)
        rates = self.model.rate_notes if steps and isinstance(self.model, Checkpointed) else ()
        return {**facts, "warnings": [*self.model.notes, *rates]}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """No arrays; the identities of the checkpoints, so that loading refuses other checkpoints."""
        return checkpoint_state(self.checkpoints)

    def _gradients(self, queries: Examples, positions: NDArray[np.intp]) -> Iterator[tuple[Checkpoint, Rows, Rows]]:
        """(checkpoint, ∇m of the queries, ∇ℓ of the training examples there) at every checkpoint that counts."""
        for checkpoint in counted(self.checkpoints, len(self.checkpoints)):
            if checkpoint.learning_rate_sum == 0.0:
                continue
            model = self._narrowed(checkpoint.model())
            measure_rows, loss_rows = model.measure_rows(queries), model.loss_rows(self.train).take(positions)
            if self.normalised_by is not None:
                by_layer = self.normalised_by == "layer"
                measure_rows, loss_rows = measure_rows.normalised(by_layer), loss_rows.normalised(by_layer)
            yield checkpoint, measure_rows, loss_rows

    def _narrowed(self, model: Differentiable) -> Any:
        return model.narrowed(self.modules) if self.modules is not None and isinstance(model, Layered) else model


def final_checkpoint(model: Differentiable) -> tuple[Checkpoint]:
    """The model as the only checkpoint, with an effective learning rate of 1."""
    return (Checkpoint(None, 1.0, "as handed in", partial(_same, model)),)


def _same(model: Differentiable) -> Differentiable:
    return model


def chosen_parts(model: Any, modules: Modules | None, wanted_by: str) -> tuple[Part, ...] | None:
    """The modules whose gradients count; None for all. Raises ValueError for a pattern that matches none."""
    if modules is None:
        return None
    require(model, [Layered], f"{wanted_by}(modules=…)")
    parts = as_parts(model.layers[-1:] if modules == "last" else modules)
    model.narrowed(parts)  # raises an error for an unknown name
    return parts
