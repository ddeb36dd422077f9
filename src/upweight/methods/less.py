"""LESS: cosines of the query's gradient with the update that the optimiser makes of a training example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.blocks import blocks
from upweight.core.checkpoints import Checkpoint, Checkpointed
from upweight.core.examples import Examples
from upweight.core.forecast import counted
from upweight.core.laws import Law
from upweight.core.modules import Modules, as_settings
from upweight.core.rows import reciprocal_roots
from upweight.core.scores import Unit
from upweight.core.weights import example_counts, sample_weights
from upweight.methods.parts.checkpoint_state import checkpoint_state, require_same_checkpoints
from upweight.methods.parts.gradient_products import chosen_parts

Array = NDArray[np.float64]
TRAIN_BLOCK = 4096  # training examples whose scores are held in memory at once
GRADIENT_NUMBERS = 1 << 21  # of gradients in memory at once: copies of more are new memory each time, which is slow


@dataclass(frozen=True, kw_only=True)
class LESS(Attributor):
    """Xia et al. (2024): −Σ_c τ_c cos(∇m_q(θ_c), Γ_i(θ_c)) over saved checkpoints. RANK.

    Γ_i is the update that the training's optimiser would make at checkpoint c if its next batch were example i alone,
    by its recorded moments m and v. For Adam and AdamW after t steps:

        Γ_i = m'/(√v' + ε),   m' = (β₁m + (1−β₁)∇ℓ_i)/(1 − β₁^{t+1}),   v' = (β₂v + (1−β₂)∇ℓ_i²)/(1 − β₂^{t+1})

    and for SGD μm + ∇ℓ_i. τ_c is the learning rate of checkpoint c, as for `TracIn`. Cosines leave out the length of
    gradients, so that short texts, whose gradients are long, do not rank first. All parameters count: gradients are not
    projected.

    Args:
        momentum: whether m is part of Γ_i, as in the paper. It is the same for all examples: without it scores are
            about the example alone.
        modules: the part of the model whose gradients count: patterns of modules; "last" is the last layer. None for
            all of it.
    """

    summary = "Cosines of gradients with the updates that the optimiser would make of training examples"
    paper = "Xia et al. (2024)"
    cost = "that of GAS, with the gradients of all training examples in memory, a few at a time"
    needs = (Checkpointed,)
    variants: ClassVar = {"without momentum": {"momentum": False}}

    momentum: bool = True
    modules: Modules | None = None

    @property
    def promises(self) -> Promises:
        """A cosine with an update is not an effect."""
        reason = "an update's direction says nothing of its size, which is divided out"
        shared = "the mean of earlier gradients is part of every update, whichever example it is of"
        return Promises(no_floor=reason, waives={Law.COPY: shared} if self.momentum else {})

    def fit(self, model: Any, train: Examples) -> FittedLESS:
        """Check the settings; gradients are computed when queries are attributed."""
        return FittedLESS(self, model, train, Unit.RANK)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedLESS:
        """Fit again, and check that the checkpoints are the same."""
        fitted = self.fit(model, train)
        require_same_checkpoints(facts, fitted.state()[1])
        return fitted


class FittedLESS(Fitted[LESS, Any]):
    """The checkpoints, ready to be compared with queries."""

    def __init__(self, recipe: LESS, model: Any, train: Examples, unit: Unit) -> None:
        super().__init__(recipe, model, train, unit)
        self.checkpoints = [c for c in model.checkpoints() if c.learning_rate_sum != 0.0]
        self.modules = chosen_parts(model, recipe.modules, "LESS")
        # Updates are those of one copy; a row that stands for k copies counts k times.
        self._counts = example_counts(sample_weights(train))

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """The sum over all checkpoints, for one block of training examples after another."""
        for block in blocks(len(self.train), TRAIN_BLOCK):
            scores = np.zeros((len(queries), block.stop - block.start))
            for checkpoint, model in self._models():
                directions = _normalised(model.measure_rows(queries).dense())
                for part, updates in self._updates(checkpoint, model, block, directions.shape[1]):
                    inside = slice(part.start - block.start, part.stop - block.start)
                    scores[:, inside] -= checkpoint.learning_rate_sum * (directions @ updates.T)
            yield block, scores * self._counts[block]

    def self_values(self) -> Array:
        """−Σ τ cos(∇m_i, Γ_i)."""
        values = np.zeros(len(self.train))
        for checkpoint, model in self._models():
            size = model.measure_rows(self.train.take([0])).dense().shape[1]
            for part, updates in self._updates(checkpoint, model, slice(0, len(values)), size):
                rows = model.measure_rows(self.train).take(np.arange(part.start, part.stop))
                values[part] -= checkpoint.learning_rate_sum * (_normalised(rows.dense()) * updates).sum(axis=1)
        return values * self._counts

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """Which checkpoints and modules the scores are made of."""
        facts: dict[str, Any] = {"checkpoints": [checkpoint.step for checkpoint in self.checkpoints]}
        if self.modules is not None:
            facts["modules"] = as_settings(self.modules)
        return {**facts, "warnings": [*self.model.notes, *self.model.rate_notes]}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """No arrays; the identities of the checkpoints, so that loading refuses other checkpoints."""
        return checkpoint_state(self.checkpoints)

    def _models(self) -> Iterator[tuple[Checkpoint, Any]]:
        for checkpoint in counted(self.checkpoints, len(self.checkpoints)):
            model: Any = checkpoint.model()
            yield checkpoint, model if self.modules is None else model.narrowed(self.modules)

    def _updates(
        self, checkpoint: Checkpoint, model: Any, block: slice, parameters: int
    ) -> Iterator[tuple[slice, Array]]:
        """Γ_i/‖Γ_i‖ of the training examples of a block, a few at a time: (which, (examples, parameters))."""
        size = max(1, GRADIENT_NUMBERS // max(1, parameters))
        for part in blocks(block.stop, size, block.start):
            rows = model.loss_rows(self.train).take(np.arange(part.start, part.stop)).dense()
            of_one = rows / np.maximum(self._counts[part], 1.0)[:, None]
            updates = _normalised(checkpoint.updates(model, of_one, momentum=self.recipe.momentum))
            yield part, updates * (self._counts[part] > 0)[:, None]


def _normalised(rows: Array) -> Array:
    return rows * reciprocal_roots(np.einsum("ij,ij->i", rows, rows))[:, None]
