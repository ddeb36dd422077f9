"""EstimatorFamily: a small problem for an estimator that `upweight.explainable` reads."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.testing.copies import WeightedExamples, WeightedModels
from upweight.testing.family import Family

SHUFFLE_SEED = 7  # of the order in which training examples and queries are drawn from the data


@dataclass(frozen=True, repr=False, eq=False)
class EstimatorFamily(Family):
    """An estimator of scikit-learn, of a booster library, or of any kind that an installed plugin reads.

    Attributes:
        data: returns (x, y), from which training examples and queries are drawn.
        estimator: makes the unfitted estimator.
        other: settings of its last step that give a different model.
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
    retrained_in_order: str = ""
    other: Mapping[str, Any] = field(default_factory=dict)

    def examples(self) -> tuple[Examples, Examples]:
        """Return training set and queries, with ids that are not positions."""
        x, y = self.data()
        order = np.random.default_rng(SHUFFLE_SEED).permutation(len(y))
        n, m = self.train_size, self.query_size
        whole = Examples(x, y, ids=[f"e{i}" for i in range(len(y))])
        return whole.take(order[:n]), whole.take(order[n : n + m])

    def fitted(self, train: Examples, **settings: Any) -> Any:
        """Fit a new estimator with the examples' weights; the settings go to its last step."""
        estimator = self.estimator()
        last = estimator.steps[-1] if hasattr(estimator, "steps") else ("", estimator)
        last[1].set_params(**settings)
        if train.weights is None:
            return estimator.fit(train.x, train.y)
        return estimator.fit(train.x, train.y, **{f"{last[0]}__sample_weight".lstrip("_"): train.weights})

    @cached_property
    def _made(self) -> list[tuple[Any, Any]]:
        """(model, its estimator) for every model made so far: a model need not hold its estimator."""
        return []

    def explained(self, estimator: Any, train: Examples, **options: Any) -> Any:
        """Return the fitted estimator as a model, by `explainable` with these options."""
        from upweight.models.registry import explainable

        model = explainable(estimator, train, **options)
        self._made.append((model, estimator))
        return model

    def estimator_of(self, model: Any) -> Any:
        """Return the estimator from which this family made the model; raise ValueError if it did not make it."""
        for made, estimator in self._made:
            if made is model:
                return estimator
        raise ValueError(f"expected a model that the family {self.name!r} made, got {model!r}; see `explained`")

    def model(self, train: Examples) -> Any:
        """Fit the estimator on these examples and return it as a model."""
        return self.explained(self.fitted(train), train)

    def belongings(self, model: Any) -> bytes:
        """The bytes of the estimator."""
        return pickle.dumps(self.estimator_of(model))

    def weighted_models(self, both: WeightedExamples) -> WeightedModels:
        """Explain one estimator, fitted with weights, by both sets: its parameters are the optimum of either."""
        estimator = self.fitted(both.weighted)
        return WeightedModels(self.explained(estimator, both.weighted), self.explained(estimator, both.expanded))

    def others(self, model: Any) -> Mapping[str, Any]:
        """Return models with other measurements (two share one name), another objective, and other settings.

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
        for difference, option in options.items():
            try:
                others[difference] = self.explained(estimator, train, **option)
            except (TypeError, ValueError):
                continue
        if self.other:
            others["settings"] = self.explained(self.fitted(train, **self.other), train)
        return others

    def ranked_classes(self, model: Any, query: Examples) -> list[Any]:
        """Rank the classes by decision values if the estimator has them; else as the model's probabilities do."""
        classes = np.unique(np.asarray(self.train.y))
        estimator = self.estimator_of(model)
        if not hasattr(estimator, "decision_function") or hasattr(model, "ensemble"):
            return super().ranked_classes(model, query)
        outputs = np.asarray(estimator.decision_function(query.x))
        return list(classes if outputs.ndim == 1 else classes[np.argsort(-outputs[0])])
