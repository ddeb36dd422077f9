"""Family: a small problem of one model family, on which the laws are tried."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.identity import digest
from upweight.core.model import Retrainable, can
from upweight.testing.copies import Pair, Weighted, with_copies, with_weights

Array = NDArray[np.float64]
EVERY = 3  # of the training examples so many apart are really left out


class Family(ABC):
    """Data and a way to train, small enough for hundreds of fits. What is made of them is made once.

    A family of your own gives `name`, `examples` and `model`; the rest has a default.

    Attributes:
        name: in a few words.
        is_regression: whether labels are numbers instead of classes.
        permuted: what scores may differ by, of the largest, where the training examples come in another order.
        not_permuted: why scores may be others then, in a sentence; empty where they may not.
        weighted: what scores may differ by, of the largest, where copies are weights.
        not_weighted: why its training takes sample weights otherwise than as copies; empty where it does not.
        counts_rows: why training again does, though the model itself knows weights as copies.
    """

    name: str
    is_regression: bool = False
    permuted: float = 1e-4
    not_permuted: str = ""
    weighted: float = 1e-6
    not_weighted: str = ""
    counts_rows: str = ""

    @abstractmethod
    def examples(self) -> tuple[Examples, Examples]:
        """Training set and queries; at most a hundred, labelled, with ids that are no positions."""

    @abstractmethod
    def model(self, train: Examples) -> Any:
        """The model that training on these examples (with their weights) gives."""

    def belongings(self, model: Any) -> bytes:
        """Everything of the user's that a model holds, to notice that something was changed."""
        return digest(model).encode()

    def others(self, model: Any) -> Mapping[str, Any]:
        """Models of the same training set that are not this one: what differs → the model."""
        return {}

    def weighted_models(self, both: Weighted) -> Pair:
        """The model of the examples with weights, and that of the same written out."""
        return Pair(self.model(both.weighted), self.model(both.written))

    def ranked_classes(self, model: Any, query: Examples) -> list[Any]:
        """The classes, those first that the model takes this one query for."""
        predictions = model.predict(query)
        if predictions.probabilities is None:
            return list(predictions.classes)
        return [predictions.classes[place] for place in np.argsort(-predictions.probabilities[0])]

    @property
    def not_retrained_as_copies(self) -> str:
        """Why training again takes weights otherwise than as copies; empty where it does not."""
        return self.not_weighted or self.not_permuted or self.counts_rows

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
        """What `others` gives."""
        return self.others(self.trained)

    @cached_property
    def copied(self) -> tuple[Examples, Examples, Any]:
        """(the training set with a copy of one query and one with another label, that query, the model of both)."""
        bigger, query = with_copies(self)
        return bigger, query, self.model(bigger)

    @cached_property
    def shuffled(self) -> tuple[NDArray[np.intp], NDArray[np.intp], Any]:
        """(an order of the training set, one of the queries, the model of the training set in that order)."""
        rng = np.random.default_rng(1)
        order, query_order = rng.permutation(len(self.train)), rng.permutation(len(self.queries))
        return order, query_order, self.model(self.train.take(order))

    @cached_property
    def weights(self) -> tuple[Weighted, Pair]:
        """(examples with weights of 0, 1 and more, and the same written out; the models of both)."""
        both = with_weights(self.train)
        return both, self.weighted_models(both)

    @cached_property
    def truth(self) -> tuple[NDArray[np.intp], Array]:
        """(positions of some training examples, the effect (m, removals) of each on the queries by real retraining)."""
        model, n = self.trained, len(self.train)
        assert can(model, Retrainable)
        left_out = np.arange(0, n, EVERY)
        whole = model.retrain(self.train, np.ones(n)).measure(self.queries)
        without = [model.retrain(self.train, (np.arange(n) != i).astype(float)) for i in left_out]
        return left_out, whole[:, None] - np.stack([one.measure(self.queries) for one in without], axis=1)


@dataclass(frozen=True, repr=False, eq=False)
class EstimatorFamily(Family):
    """An estimator of scikit-learn, of a booster library, or of any kind that an installed plugin reads.

    Attributes:
        data: (x, y), of which some are drawn.
        estimator: makes it, not fitted.
        other: settings of its last step that give another model.
    """

    name: str
    data: Callable[[], tuple[Any, NDArray[Any]]]
    estimator: Callable[[], Any]
    is_regression: bool = False
    train_size: int = 60
    query_size: int = 12
    permuted: float = 1e-4
    not_permuted: str = ""
    weighted: float = 1e-6
    not_weighted: str = ""
    counts_rows: str = ""
    other: Mapping[str, Any] = field(default_factory=dict)

    def examples(self) -> tuple[Examples, Examples]:
        """Training set and queries, ids that are no positions."""
        x, y = self.data()
        order = np.random.default_rng(7).permutation(len(y))
        n, m = self.train_size, self.query_size
        whole = Examples(x, y, ids=[f"e{i}" for i in range(len(y))])
        return whole.take(order[:n]), whole.take(order[n : n + m])

    def fitted(self, train: Examples, **settings: Any) -> Any:
        """The estimator, fitted with the examples' weights."""
        estimator = self.estimator()
        last = estimator.steps[-1] if hasattr(estimator, "steps") else ("", estimator)
        last[1].set_params(**settings)
        if train.weights is None:
            return estimator.fit(train.x, train.y)
        return estimator.fit(train.x, train.y, **{f"{last[0]}__sample_weight".lstrip("_"): train.weights})

    @cached_property
    def _made(self) -> list[tuple[Any, Any]]:
        """Every model that was made of an estimator, and that estimator: models need not name theirs."""
        return []

    def explained(self, estimator: Any, train: Examples, **options: Any) -> Any:
        """The fitted estimator as a model, by `explainable` with these options."""
        from upweight.models.registry import explainable

        model = explainable(estimator, train, **options)
        self._made.append((model, estimator))
        return model

    def estimator_of(self, model: Any) -> Any:
        """The estimator of which this family made the model. Raises ValueError for a model that it did not make."""
        for made, estimator in self._made:
            if made is model:
                return estimator
        raise ValueError(f"expected a model that the family {self.name!r} made, got {model!r}; see `explained`")

    def model(self, train: Examples) -> Any:
        """The estimator fitted on these, ready to be explained."""
        return self.explained(self.fitted(train), train)

    def belongings(self, model: Any) -> bytes:
        """The estimator."""
        return pickle.dumps(self.estimator_of(model))

    def weighted_models(self, both: Weighted) -> Pair:
        """One estimator, fitted with weights, is explained by both sets: its parameters are the optimum of either."""
        estimator = self.fitted(both.weighted)
        return Pair(self.explained(estimator, both.weighted), self.explained(estimator, both.written))

    def others(self, model: Any) -> Mapping[str, Any]:
        """Two measurements that have one name, another way to put losses together, and other settings.

        Options that the reader of such estimators refuses are left out.
        """
        options: dict[str, dict[str, Any]] = {
            "measurement": {"measure": lambda outputs, labels: outputs[:, 0]},
            "measurement of the same name": {"measure": lambda outputs, labels: outputs[:, -1] / 2},
        }
        objective = getattr(model, "objective", None)
        if objective is not None and objective.l2 > 0:
            options["objective"] = {"objective": "mean" if objective.reduction == "sum" else "sum"}
        train, estimator, others = self.train, self.estimator_of(model), dict[str, Any]()
        for what, option in options.items():
            try:
                others[what] = self.explained(estimator, train, **option)
            except (TypeError, ValueError):
                continue
        if self.other:
            others["settings"] = self.explained(self.fitted(train, **self.other), train)
        return others

    def ranked_classes(self, model: Any, query: Examples) -> list[Any]:
        """By decision values, where the model gives no probabilities."""
        classes = np.unique(np.asarray(self.train.y))
        estimator = self.estimator_of(model)
        if not hasattr(estimator, "decision_function") or hasattr(model, "ensemble"):
            return super().ranked_classes(model, query)
        outputs = np.asarray(estimator.decision_function(query.x))
        return list(classes if outputs.ndim == 1 else classes[np.argsort(-outputs[0])])
