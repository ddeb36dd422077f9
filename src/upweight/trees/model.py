"""TreeModel: a boosted ensemble or a forest of any library, with every capability that trees allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.data_cache import DataCache
from upweight.core.examples import Examples
from upweight.core.fitted_state import FittedState
from upweight.core.identity import digests
from upweight.core.measurement import Measurement
from upweight.core.model import Averaged, Boosted, Embeddable, Predictions, Retrainable
from upweight.core.weights import require_any_weight, require_classes, sample_weights
from upweight.trees.boosting import Boosting
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.ensemble import Indices, TreeEnsemble
from upweight.trees.forest import Forest

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class TreeModel(Boosted, Averaged, Retrainable, Embeddable):
    """A trained sum of trees.

    Attributes:
        name: the estimator, for people.
        predictor: the estimator itself, never changed.
        ensemble: its leaves.
        loss: what it was trained on.
        measurement_of: what is asked of a query.
        numbers: inputs as `Examples.x` → the leaf number of each example within every tree, (n, trees).
        grow: (places, targets, weights) → how leaf values came about.
        train_again: (examples with their weights, seed) → the same estimator trained on them, read again.
        is_boosted: whether trees were grown one after the other; else they are a forest.
        notes: what a reader should know, as warnings.
        threads: the library trains with threads of its own.
        settings: what training was told, and the steps before it in a pipeline.
        splits: what sends an example to a leaf, in the library's own form.
    """

    converges = False  # trees stop after so many rounds

    name: str
    predictor: Any
    ensemble: TreeEnsemble
    loss: BoostingLoss
    measurement_of: Measurement
    numbers: Callable[[Any], NDArray[np.integer]]
    grow: Callable[[Indices, Array, Array], Boosting | Forest]
    train_again: Callable[[Examples, int], TreeModel]
    is_boosted: bool = True
    notes: tuple[str, ...] = ()
    threads: bool = False
    settings: Any = None
    splits: Any = None
    _seen: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def measurement(self) -> str:
        """What is measured, in words."""
        return self.measurement_of.described(self.loss)

    def version(self) -> FittedState:
        """What the estimator and its steps hold: another, once they were fitted again."""
        return FittedState(self.predictor)

    def identity(self) -> dict[str, str]:
        """The leaves, the loss, the measurement, and what training was told."""
        return digests(
            parameters=(self.ensemble, self.splits),
            objective=None,
            loss=self.loss,
            measurement=self.measurement_of,
            training=(self.name, self.settings),
        )

    def lacks(self, capability: type) -> str | None:
        """Boosting steps in a forest, a mean of trees where they were boosted."""
        if capability is Boosted and not self.is_boosted:
            return (
                f"the trees of this {self.name} are a forest, which has no boosting steps; ForestWeights is for forests"
            )
        if capability is Averaged and self.is_boosted:
            return f"the trees of this {self.name} were boosted; LeafRefit and BoostIn are made for boosting"
        return None

    def trees(self) -> TreeEnsemble:
        """The leaves."""
        return self.ensemble

    def leaves(self, examples: Examples) -> Indices:
        """The leaf of each example in every tree, (n, trees); the last sets asked for are remembered."""
        known: DataCache[Indices] = self._seen.setdefault("leaves", DataCache(2))
        return known.get_or_make(examples, lambda: self.ensemble.global_leaves(self.numbers(examples.x)))

    def embed(self, examples: Examples) -> Any:
        """Which leaves each example falls into, sparse (n, leaves): 1/√trees there, so that products count shared ones.

        The squared distance of two examples is twice the share of the trees in which their leaves differ.
        """
        at = self.leaves(examples)
        return self.ensemble.membership(at, np.full(at.shape, 1.0 / np.sqrt(self.ensemble.trees)))

    def margins(self, examples: Examples) -> Array:
        """F of every example, (n, K)."""
        return self.ensemble.margins(self.leaves(examples))

    def measure(self, queries: Examples) -> Array:
        """The measurement of every query."""
        return self.measure_margins(queries, self.margins(queries))

    def measure_margins(self, queries: Examples, margins: Array) -> Array:
        """The measurement at other margins."""
        return self.measurement_of.value(self.loss, margins, queries.y)

    def measure_slopes(self, queries: Examples, margins: Array) -> Array:
        """∂measurement/∂margins."""
        return self.measurement_of.gradient(self.loss, margins, queries.y)

    def predict(self, examples: Examples) -> Predictions:
        """What the margins say, as readable labels."""
        margins, names = self.margins(examples), examples.labels
        readable = tuple(names.get(value, value) for value in self.loss.predict(margins))
        if self.loss.classes is None:
            return Predictions(readable)
        classes = tuple(names.get(value, value) for value in self.loss.classes.tolist())
        return Predictions(readable, classes, self.loss.probabilities(margins))

    def grown(self, train: Examples) -> Boosting | Forest:
        """How the leaf values came about on these examples."""
        if train.y is None:
            raise ValueError("the training set has no labels; pass Examples(x, y) with the y it was fitted on")
        require_any_weight(train)
        targets, weights = self.loss.encode(train.y).T, sample_weights(train)
        known: DataCache[Boosting | Forest] = self._seen.setdefault("grown", DataCache(1))
        return known.get_or_make(train, lambda: self.grow(self.leaves(train), np.ascontiguousarray(targets), weights))

    def retrain(self, train: Examples, weights: Array, seed: int = 0) -> TreeModel:
        """The estimator trained again with these weights on top of its own; examples of weight 0 are left out.

        `seed` is used where the estimator has none of its own. The number of trees stays as it is.
        """
        weights = np.asarray(weights, dtype=np.float64)
        if weights.shape != (len(train),):
            raise ValueError(f"expected one weight per training example ({len(train)},), got shape {weights.shape}")
        if not np.isfinite(weights).all() or (weights < 0).any() or not (weights * sample_weights(train)).any():
            raise ValueError("expected finite weights ≥ 0 that are not all zero: nothing would be left to train on")
        require_classes(train, weights, self.loss)
        kept = train.take(np.flatnonzero(weights))
        own = weights[weights > 0] * (1.0 if kept.weights is None else kept.weights)
        if kept.weights is not None or (own != 1).any():
            kept = kept.replaced(weights=own)
        return self.train_again(kept, seed)
