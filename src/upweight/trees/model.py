"""TreeModel: a boosted ensemble or a forest of any library, with the capabilities that trees allow."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.data_cache import DataCache
from upweight.core.estimator_model import EstimatorModel
from upweight.core.examples import Examples
from upweight.core.forgettable import Unlearned
from upweight.core.identity import digests
from upweight.core.labels import require_labels
from upweight.core.measurement import Measurement, TrainingLoss
from upweight.core.model import Measurable, Predictions
from upweight.core.picklable import require_picklable
from upweight.core.tree_based import Averaged, Boosted
from upweight.core.weights import checked_weights, require_any_weight, require_classes, sample_weights
from upweight.trees.boosting import Boosting
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.ensemble import Indices, TreeEnsemble
from upweight.trees.forest import Forest

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class TreeModel(Boosted, Averaged, EstimatorModel):
    """A trained sum of trees.

    Attributes:
        name: the class of the estimator, for messages.
        predictor: the estimator itself, which is never changed.
        ensemble: its leaf values.
        loss: the training loss.
        measurement_of: the measurement of a query.
        numbers: inputs as `Examples.x` → the local number of each example's leaf in every tree, (n, trees).
        grow: (leaves, targets, weights) → the `Boosting` or `Forest` of these training examples.
        retrain_on: (examples with their weights, seed) → the same estimator retrained on them, as a TreeModel.
        outputs_on: the same as a model that measures and predicts alone; None if the library has no raw predictions.
        whole: the pipeline that ends in the estimator, or the estimator itself.
        forgetting: (model, train, remaining, seed, refit) → the estimator without the other examples.
        read_again: makes the model anew from its estimator, for pickle and copy.deepcopy, which cannot take closures.
        is_boosted: whether each tree was fitted to what those before it left over; otherwise they are a forest.
        notes: warnings for the reader of scores.
        threads: whether the library trains with threads of its own.
        settings: the training settings, and the steps before the estimator in a pipeline.
        splits: the splits in the library's own form; they are part of the model's identity.
    """

    converges = False  # boosting stops after a fixed number of rounds

    name: str
    predictor: Any
    ensemble: TreeEnsemble
    loss: BoostingLoss
    measurement_of: Measurement
    numbers: Callable[[Any], NDArray[np.integer]]
    grow: Callable[[Indices, Array, Array], Boosting | Forest]
    retrain_on: Callable[[Examples, int], TreeModel]
    outputs_on: Callable[[Examples, int], Measurable | None]
    whole: Any
    forgetting: Callable[[TreeModel, Examples, NDArray[np.bool_], int, bool], Unlearned]
    read_again: Callable[[], TreeModel]
    is_boosted: bool = True
    notes: tuple[str, ...] = ()
    threads: bool = False
    settings: Any = None
    splits: Any = None
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.read_again, self.measurement_of, self.notes)
        require_picklable(self.name, {"loss": self.loss, "measurement": self.measurement_of, "reading": parts})
        return _read_again, parts

    def __deepcopy__(self, memo: dict[int, Any]) -> TreeModel:
        return _read_again(*copy.deepcopy((self.read_again, self.measurement_of, self.notes), memo))

    @property
    def training_loss(self) -> TrainingLoss:
        """The loss of the outputs."""
        return self.loss

    def identity(self) -> dict[str, str]:
        """Digests of leaves and splits, the loss, the measurement, and the training settings."""
        return digests(
            parameters=(self.ensemble, self.splits),
            objective=None,
            loss=self.loss,
            measurement=self.measurement_of,
            training=(self.name, self.settings),
        )

    def lacks(self, capability: type) -> str | None:
        """A forest is not Boosted, and boosted trees are not Averaged."""
        if capability is Boosted and not self.is_boosted:
            return f"the trees of this {self.name} are a forest, which has no boosting steps; use ForestWeights"
        if capability is Averaged and self.is_boosted:
            return f"the trees of this {self.name} were boosted; use LeafRefit or BoostIn"
        return None

    def trees(self) -> TreeEnsemble:
        """The ensemble with all leaf values."""
        return self.ensemble

    def leaves(self, examples: Examples) -> Indices:
        """The global number of each example's leaf in every tree, (n, trees); cached for the last two sets."""
        cache: DataCache[Indices] = self._cache.setdefault("leaves", DataCache(2))
        return cache.get_or_make(examples, lambda: self.ensemble.global_leaves(self.numbers(examples.x)))

    def embed(self, examples: Examples) -> Any:
        """Sparse (n, leaves) with 1/√trees in each leaf of an example: inner products are shares of common leaves.

        The squared distance of two examples is twice the share of trees in which their leaves differ.
        """
        leaves = self.leaves(examples)
        return self.ensemble.membership(leaves, np.full(leaves.shape, 1.0 / np.sqrt(self.ensemble.trees)))

    def margins(self, examples: Examples) -> Array:
        """The raw prediction F of every example, (n, K)."""
        return self.ensemble.margins(self.leaves(examples))

    def measure(self, queries: Examples) -> Array:
        """The measurement of every query."""
        return self.measure_margins(queries, self.margins(queries))

    def measure_margins(self, queries: Examples, margins: Array) -> Array:
        """The measurement of every query at these margins."""
        return self.measurement_of.value(self.loss, margins, queries.y)

    def measure_slopes(self, queries: Examples, margins: Array) -> Array:
        """∂measurement/∂margins, (m, K)."""
        return self.measurement_of.gradient(self.loss, margins, queries.y)

    def predict(self, examples: Examples) -> Predictions:
        """Predictions from the margins, with readable labels."""
        return self.predictions_at(examples, self.margins(examples))

    def predictions_at(self, examples: Examples, margins: Array) -> Predictions:
        """Predictions at these margins, with readable labels."""
        label_names = examples.labels
        readable = tuple(label_names.get(value, value) for value in self.loss.predict(margins))
        if self.loss.classes is None:
            return Predictions(readable)
        classes = tuple(label_names.get(value, value) for value in self.loss.classes.tolist())
        return Predictions(readable, classes, self.loss.probabilities(margins))

    def grown(self, train: Examples) -> Boosting | Forest:
        """The training examples with the rule by which leaf values follow from them."""
        labels = require_labels(train)
        require_any_weight(train)
        targets, weights = self.loss.encode(labels).T, sample_weights(train)
        cache: DataCache[Boosting | Forest] = self._cache.setdefault("grown", DataCache(1))
        return cache.get_or_make(train, lambda: self.grow(self.leaves(train), np.ascontiguousarray(targets), weights))

    @property
    def estimator(self) -> Any:
        """The estimator, or the pipeline that ends in it."""
        return self.whole

    def forget(self, train: Examples, remaining: NDArray[np.bool_], seed: int = 0, refit: bool = False) -> Unlearned:
        """The estimator with its leaf values on the remaining examples and its splits as they were; or a refit."""
        return self.forgetting(self, train, remaining, seed, refit)

    def retrain(self, train: Examples, weights: Array, seed: int = 0) -> TreeModel:
        """The estimator retrained with these weights times the examples' own; examples of weight 0 are left out.

        `seed` is used if the estimator has no seed of its own. The number of trees stays the same.
        """
        return self.retrain_on(self._weighted(train, weights), seed)

    def retrain_roughly(self, train: Examples, weights: Array, seed: int = 0) -> Measurable:
        """As `retrain`, for measurements and predictions alone: the new trees are not read."""
        remaining = self._weighted(train, weights)
        outputs = self.outputs_on(remaining, seed)
        return self.retrain_on(remaining, seed) if outputs is None else outputs

    def _weighted(self, train: Examples, weights: Array) -> Examples:
        """The examples of weight above 0, with these weights times their own."""
        weights = checked_weights(train, weights)
        require_classes(train, weights, self.loss)
        remaining = train.take(np.flatnonzero(weights))
        total = weights[weights > 0] * (1.0 if remaining.weights is None else remaining.weights)
        if remaining.weights is not None or (total != 1).any():
            remaining = remaining.replaced(weights=total)
        return remaining


def _read_again(read: Callable[[], TreeModel], measure: Measurement, notes: tuple[str, ...]) -> TreeModel:
    return replace(read(), measurement_of=measure, notes=notes)
