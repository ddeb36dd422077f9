"""Contests: values of which the highest decides what a reader sees, such as the class of a prediction.

A removal flips a contest if another value is the highest without it. The kinds of flips differ only in their values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor
from upweight.core.examples import Examples
from upweight.core.input_kinds import take_rows
from upweight.core.parameter_measurement import Coefficient
from upweight.core.scores import Unit
from upweight.linear.coefficient_tests import coefficient_test, critical_value, statistics_without_each
from upweight.linear.model import LinearModel

Array = NDArray[np.float64]


class Contest(ABC):
    """Values with names.

    Class variables:
        flipped_text: what a reader would see: {after} and {before} are names, {was} and {now} measurements.
        unchanged_text: what a reader sees if nothing flips the contest.

    Attributes:
        names: of the values, in their order.
        queries: what is measured.
    """

    flipped_text: ClassVar[str]
    unchanged_text: ClassVar[str]
    names: tuple[Any, ...]
    queries: Examples

    @abstractmethod
    def values(self, model: Any, train: Examples) -> Array:
        """The values (V,) of a model that was trained on `train`."""

    @abstractmethod
    def effects(self, model: Any, train: Examples, recipe: Attributor) -> tuple[Array, Unit, list[str]]:
        """(Each value with a training example minus without it, (V, n); their unit; warnings)."""

    @property
    def number_text(self) -> str:
        """The number that measurements are compared with; empty if there is none."""
        return ""

    def shown(self, values: Array) -> str:
        """The number that a reader knows, from the values: the highest one."""
        return f"{values.max():.4g}"


@dataclass(frozen=True, eq=False)
class Measured(Contest):
    """The measurements of several queries, such as the items that a recommender ranks."""

    names: tuple[Any, ...]
    queries: Examples
    flipped_text: ClassVar[str] = "you would see {after} in place of {before}"
    unchanged_text: ClassVar[str] = "{before} stays first"

    def values(self, model: Any, train: Examples) -> Array:
        """The measurements."""
        return np.asarray(model.measure(self.queries))

    def effects(self, model: Any, train: Examples, recipe: Attributor) -> tuple[Array, Unit, list[str]]:
        """The scores of the queries."""
        scores = recipe.fit(model, train).attribute(self.queries)
        return scores.values, scores.unit, list(scores.diagnostics.get("warnings", ()))


@dataclass(frozen=True, eq=False)
class Classes(Measured):
    """One query with the label of each class."""

    query: Any = None
    flipped_text: ClassVar[str] = "the prediction for query {query} would be {after} in place of {before}"
    unchanged_text: ClassVar[str] = "the prediction for query {query} stays {before}"


@dataclass(frozen=True, eq=False)
class Threshold(Measured):
    """One measurement and a number."""

    number: float = 0.0
    flipped_text: ClassVar[str] = "the {measurement} would be {now}, {after} {number}, in place of {was}"
    unchanged_text: ClassVar[str] = "the {measurement} stays {before} {number}"

    def values(self, model: Any, train: Examples) -> Array:
        """The measurement and the number."""
        return np.array([float(model.measure(self.queries)[0]), self.number])

    def effects(self, model: Any, train: Examples, recipe: Attributor) -> tuple[Array, Unit, list[str]]:
        """The scores of the query, and zeros."""
        values, unit, warnings = super().effects(model, train, recipe)
        return np.vstack([values, np.zeros_like(values)]), unit, warnings

    @property
    def number_text(self) -> str:
        """The number."""
        return f"{self.number:g}"

    def shown(self, values: Array) -> str:
        """The measurement."""
        return f"{values[0]:.4g}"


@dataclass(frozen=True)
class Significance:
    """A level of significance, with which `flip_set` compares a coefficient.

    Args:
        level: of the two-sided test of the coefficient against zero.
    """

    level: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"expected a level between 0 and 1, e.g. 0.05, got {self.level}")

    def tested(self, model: Any) -> Tested:
        """The contest. Raises TypeError for a measurement that is not a coefficient of a linear model."""
        query = model.parameter_query()
        if not isinstance(model, LinearModel) or not isinstance(model.measurement_of, Coefficient) or query is None:
            raise TypeError(
                "expected a linear model that measures a coefficient, explainable(estimator, train, "
                f"uw.Coefficient(…)), got one that measures {model.measurement}"
            )
        return Tested(("significant", "not significant"), query, model.measure_rows(query).dense()[0], self.level)


@dataclass(frozen=True, eq=False)
class Tested(Contest):
    """|t| of a coefficient, and its critical value, which depends on the number of examples."""

    names: tuple[Any, ...]
    queries: Examples
    gradient: Array  # of the coefficient in the parameters
    level: float
    flipped_text: ClassVar[str] = (
        "the {measurement} would be {after} at the level {number}: |t| would be {now} of its critical value, not {was}"
    )

    unchanged_text: ClassVar[str] = "the {measurement} stays {before} at the level {number}"

    @property
    def number_text(self) -> str:
        """The level."""
        return f"{self.level:g}"

    def values(self, model: Any, train: Examples) -> Array:
        """|t| and its critical value."""
        test = coefficient_test(model, train, self.gradient)
        return np.array([abs(test.statistic), test.critical(self.level)])

    def effects(self, model: Any, train: Examples, recipe: Attributor) -> tuple[Array, Unit, list[str]]:
        """By one Newton step without each example, whatever the recipe."""
        test = coefficient_test(model, train, self.gradient)
        without = np.abs(statistics_without_each(model, train, self.gradient))
        critical = test.critical(self.level) - critical_value(max(test.freedom - 1, 1), self.level)
        change = np.nan_to_num(abs(test.statistic) - without)
        return np.vstack([change, np.full(len(train), critical)]), Unit.EFFECT, []

    def shown(self, values: Array) -> str:
        """|t| in its critical value."""
        return f"{values[0] / values[1]:.2f}"


def labelled_with_each_class(model: Any, train: Examples, query: Examples) -> Classes:
    """The contest of the classes of one query.

    Raises ValueError if the measurement is not highest for the predicted class.
    """
    predictions = model.predict(query if query.labels else query.replaced(labels=train.labels))
    by_name = {str(name): value for value, name in train.labels.items()}
    labels = [by_name.get(str(name), name) for name in predictions.classes]
    x = take_rows(query.x, np.zeros(len(labels), dtype=np.intp))
    queries = Examples(x, np.asarray(labels), list(range(len(labels))), query.names, labels=train.labels)
    best = predictions.classes[int(np.argmax(model.measure(queries)))]
    if best != predictions.predicted[0]:
        raise ValueError(
            f"expected a measurement that is highest for the predicted class {predictions.predicted[0]!r}, got "
            f"{model.measurement}, which is highest for {best!r}; measure the loss or the margin of the label"
        )
    return Classes(tuple(predictions.classes), queries, query.ids[0])
