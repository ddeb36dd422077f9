"""Family: a small problem of one model family, on which the laws are tried."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.capability_checks import can
from upweight.core.examples import Examples
from upweight.core.identity import digest
from upweight.core.model import Retrainable
from upweight.testing.copies import WeightedExamples, WeightedModels, with_copies, with_weights

Array = NDArray[np.float64]
REMOVAL_STRIDE = 3  # the truth of the laws leaves out every third training example


class Family(ABC):
    """Data and a way to train a model on them, small enough for hundreds of fits. All of it is made only once.

    A family of your own gives `name`, `examples` and `model`; everything else has a default.

    Attributes:
        name: a few words.
        is_regression: whether labels are numbers instead of classes.
        permuted: the share of the largest score by which scores may differ if the training examples are reordered.
        not_permuted: why scores may depend on the order of the training examples, in a sentence; empty if they may not.
        weighted: the share of the largest score by which scores may differ if weights are replaced by copies.
        not_weighted: why its training does not treat a sample weight k as k copies; empty if it does.
        counts_rows: why retraining does not, though the model itself treats weights as copies.
        retrained_in_order: why retraining depends on the order and copies of examples, though the model does not.
    """

    name: str
    is_regression: bool = False
    permuted: float = 1e-4
    not_permuted: str = ""
    weighted: float = 1e-6
    not_weighted: str = ""
    counts_rows: str = ""
    retrained_in_order: str = ""

    @abstractmethod
    def examples(self) -> tuple[Examples, Examples]:
        """Return training set and queries: at most a hundred, labelled, with ids that are not positions."""

    @abstractmethod
    def model(self, train: Examples) -> Any:
        """Train a model on these examples, with their weights."""

    def belongings(self, model: Any) -> bytes:
        """Return everything of the user's that a model holds, as bytes, so that a change is noticed."""
        return digest(model).encode()

    def others(self, model: Any) -> Mapping[str, Any]:
        """Return models of the same training set that differ from this one: what differs → the model."""
        return {}

    def weighted_models(self, both: WeightedExamples) -> WeightedModels:
        """Return the model of the weighted examples, and that of the same examples expanded into copies."""
        return WeightedModels(self.model(both.weighted), self.model(both.expanded))

    def ranked_classes(self, model: Any, query: Examples) -> list[Any]:
        """Return the classes in the order in which the model prefers them for this one query, the best first."""
        predictions = model.predict(query)
        if predictions.probabilities is None:
            return list(predictions.classes)
        return [predictions.classes[position] for position in np.argsort(-predictions.probabilities[0])]

    @property
    def not_retrained_as_copies(self) -> str:
        """Why retraining does not treat a weight k as k copies; empty if it does."""
        return self.not_weighted or self.not_permuted or self.counts_rows or self.retrained_in_order

    def __repr__(self) -> str:
        return self.name

    @cached_property
    def _examples(self) -> tuple[Examples, Examples]:
        return self.examples()

    @property
    def train(self) -> Examples:
        """The training set."""
        return self._examples[0]

    @property
    def queries(self) -> Examples:
        """The queries."""
        return self._examples[1]

    @cached_property
    def trained(self) -> Any:
        """The model of the training set."""
        return self.model(self.train)

    @cached_property
    def other_models(self) -> Mapping[str, Any]:
        """The models that `others` returns."""
        return self.others(self.trained)

    @cached_property
    def copied(self) -> tuple[Examples, Examples, Any]:
        """(the training set with a copy of one query and one with another label, that query, the model of the set).

        The query is the one with the lowest measurement.
        """
        query = self.queries.take([int(np.argmin(self.trained.measure(self.queries)))])
        train = with_copies(self.train, query, self._other_label(query))
        return train, query, self.model(train)

    def _other_label(self, query: Examples) -> Any:
        """A wrong label for this query: the best-ranked other class, or a number beyond the prediction."""
        assert query.y is not None
        label = query.y[0]
        if not self.is_regression:
            return next(c for c in self.ranked_classes(self.trained, query) if c != label)
        predicted = float(self.trained.predict(query).predicted[0])
        return max(label + 2 * (predicted - label), 0.1) if abs(predicted - label) > 0.3 else label + 1.0

    @cached_property
    def shuffled(self) -> tuple[NDArray[np.intp], NDArray[np.intp], Any]:
        """(an order of the training set, an order of the queries, the model of the training set in that order)."""
        rng = np.random.default_rng(1)
        order, query_order = rng.permutation(len(self.train)), rng.permutation(len(self.queries))
        return order, query_order, self.model(self.train.take(order))

    @cached_property
    def weights(self) -> tuple[WeightedExamples, WeightedModels]:
        """(examples with weights of 0, 1 and more, with the same expanded into copies; the models of both)."""
        both = with_weights(self.train)
        return both, self.weighted_models(both)

    @cached_property
    def truth(self) -> tuple[NDArray[np.intp], Array]:
        """(positions of some training examples, the effect (m, removals) of each on the queries by real retraining)."""
        model, n = self.trained, len(self.train)
        assert can(model, Retrainable)
        left_out = np.arange(0, n, REMOVAL_STRIDE)
        whole = model.retrain(self.train, np.ones(n)).measure(self.queries)
        retrained = [model.retrain(self.train, (np.arange(n) != i).astype(float)) for i in left_out]
        return left_out, whole[:, None] - np.stack([without.measure(self.queries) for without in retrained], axis=1)
