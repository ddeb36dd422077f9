"""The capabilities of models. A model family implements the ones it has; a method names the ones it needs.

`Measurable` is the least that a model can do. `Differentiable`, `Perturbable` and `Parametric` are about derivatives
and parameters, `Retrainable` about training, and `Embeddable` about features. Others have files of their own, such as
`core/stackable.py`, `core/replayable.py` and `core/tree_based.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import Curvature
from upweight.core.examples import Examples
from upweight.core.forecast import Forecast
from upweight.core.head_objective import HeadObjective
from upweight.core.identity import digest
from upweight.core.rows import Rows
from upweight.core.saved_state import SavedState
from upweight.core.weights import only_examples


@dataclass(frozen=True)
class Predictions:
    """Predictions for some examples.

    Attributes:
        predicted: one label or number per example; None if the output is neither.
        classes: readable labels of the classes; empty for regression.
        probabilities: (m, classes); None if the model has none.
    """

    predicted: tuple[Any, ...]
    classes: tuple[Any, ...] = ()
    probabilities: NDArray[np.float64] | None = None


class Measurable(ABC):
    """A model whose behaviour on a query can be measured as a number."""

    @property
    @abstractmethod
    def measurement(self) -> str:
        """The measurement in words, with its unit, e.g. `−loss (nats)`."""

    @abstractmethod
    def measure(self, queries: Examples) -> NDArray[np.float64]:
        """The measurement of every query, shape (m,); higher = more of the behaviour."""

    @abstractmethod
    def predict(self, examples: Examples) -> Predictions:
        """Predictions, for people to read."""

    def measure_and_predict(self, queries: Examples) -> tuple[NDArray[np.float64], Predictions]:
        """`measure` and `predict`; a model that can do both at once does."""
        return self.measure(queries), self.predict(queries)

    @property
    def notes(self) -> Sequence[str]:
        """Sentences that a reader of the scores should know; by default none."""
        return ()

    @property
    def classes(self) -> NDArray[Any] | None:
        """The class labels, if training needs an example of each; None for numeric targets, or if not known."""
        return None

    def only_examples(self, train: Examples) -> Mapping[Any, Any]:
        """Class → id of its only training example of positive weight; none if labels are not classes."""
        return {} if self.classes is None else only_examples(train)

    @property
    def max_queries(self) -> int | None:
        """How many queries memory has room for at a time; None if it does not matter."""
        return None

    def forecast(
        self, recipe: Any, train: Examples, queries: int | None = None, fitted: Curvature | None = None
    ) -> Forecast | None:
        """Time and memory of fitting this method, or of attributing this many queries; None if that is not known.

        `fitted` is the curvature of the fit, if there is one: its shift and its form decide what answers take.
        """
        return None

    def parameter_query(self) -> Examples | None:
        """One query for a measurement that depends on the parameters alone; None if queries are what is measured."""
        return None

    def identity(self) -> Mapping[str, str]:
        """Digests of the parts of this model: parameters, objective, loss, measurement, training.

        Saved fits, truths and retrainings carry these digests and refuse every other model. By default all attributes
        of the object count as its parameters.

        Raises:
            UnidentifiedError: the model holds a value that cannot be compared (see `digest`).
        """
        return {"parameters": digest(self), "measurement": digest(self.measurement)}

    def version(self) -> Any:
        """A cheap value that changes when the model is changed in place; None if that is not detected."""
        return None

    def lacks(self, capability: type) -> str | None:
        """Why this model lacks a capability of its class, as a clause for a message; None if it has it."""
        return None

    def __repr__(self) -> str:
        name = getattr(self, "name", "")
        return f"{type(self).__name__}({name}{', ' * bool(name)}measuring {self.measurement})"


class Differentiable(Measurable):
    """A model with gradients and a curvature."""

    @abstractmethod
    def loss_rows(self, train: Examples) -> Rows:
        """∇θ of every training example's part of the objective, with its weight and its share of the regulariser."""

    @abstractmethod
    def measure_rows(self, queries: Examples) -> Rows:
        """∇θ of every query's measurement."""

    @abstractmethod
    def curvature(self, train: Examples, recipe: Any, damping: float | None) -> Curvature:
        """The curvature on the training set at the model's parameters.

        Args:
            train: the training set.
            recipe: which curvature and solver; None for the best that the model has.
            damping: λ on the scale of the mean loss, added to the objective's l2; None for the model's choice.
        """

    def restored_curvature(self, train: Examples, recipe: Any, damping: float | None, state: SavedState) -> Curvature:
        """The curvature, from its saved `state` if that holds something; by default it is computed again."""
        return self.curvature(train, recipe, damping)

    @abstractmethod
    def gradient_norm(self, train: Examples) -> float | None:
        """‖∇objective‖ relative to gradients with random signs: 0 at the optimum, about 1 for other data.

        None if what training minimised has no gradient.
        """

    def explained_gradient_norm(self, train: Examples) -> float | None:
        """The same for the objective whose curvature is taken, where it is not quite what training minimised.

        None where it is.
        """
        return None

    def why_off_optimum(self, train: Examples) -> str | None:
        """Why the parameters are not at the optimum on these examples, as a sentence; None if it is not known."""
        return None

    @abstractmethod
    def dispersion(self, train: Examples, effective: float) -> float:
        """The dispersion φ of the noise with `effective` parameters; 1 for a likelihood that has none.

        For a squared loss φ is s², the noise variance.
        """

    def hypothetical(self, new_inputs: bool = False) -> Differentiable:
        """The same model, but it accepts training sets that it was not fitted on.

        `new_inputs`: whether the inputs may differ from those that the model was trained on. Raises TypeError if the
        parameters belong to the training inputs (a kernel machine).
        """
        return self

    @abstractmethod
    def measure_shifted(self, queries: Examples, shifts: NDArray[np.float64]) -> NDArray[np.float64]:
        """The measurement of every query at the parameters plus each shift (g, parameters): (m, g)."""


@dataclass(frozen=True, eq=False)
class Movable:
    """The numbers that describe some examples and that a perturbation changes.

    Attributes:
        values: (n, …), one array of numbers per example.
        names: one name per number if an example is a row of numbers, else None.
        described: what the numbers are, for people.
        is_input: whether they are the inputs themselves, so that the model can be trained on changed ones.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...] | None
    described: str
    is_input: bool


class Perturbable(Differentiable):
    """A model whose training examples consist of numbers that can be perturbed."""

    @abstractmethod
    def movable(self, examples: Examples) -> Movable:
        """The numbers to perturb: the inputs, or the features computed from them if they are not numeric."""

    @abstractmethod
    def input_gradients(self, train: Examples, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """∂⟨rowᵢ, v⟩/∂xᵢ for vectors v (k, parameters): (k, n, …); x are the numbers that `movable` returns."""


class Embeddable(Measurable):
    """A model that computes features from its inputs, which are the inputs of its last layer or step."""

    @abstractmethod
    def embed(self, examples: Examples) -> Any:
        """The features of every example, (n, d): an array, or a sparse matrix if most of them are 0."""

    def head_objective(self, train: Examples) -> HeadObjective | None:
        """The training objective as a function of the last step; None if that is not a cross-entropy with l2."""
        return None


class Retrainable(Measurable):
    """A model that can be retrained with other example weights.

    Attributes:
        converges: training ends at the optimum of the objective, wherever it starts. False if it stops after a number
            of steps, as for networks.
        threads: a training uses all processors with its own threads. Trainings then run one after the other in this
            process.
        reads_examples: training uses the examples passed to `retrain`. False if it is a user's function that loads its
            own data and takes weights only.
        has_one_run: training is known as one run only, that of seed 0, and other seeds are refused.
    """

    converges: bool = True
    has_one_run: bool = False
    threads: bool = False
    reads_examples: bool = True

    @abstractmethod
    def retrain(self, train: Examples, weights: NDArray[np.float64], seed: int = 0) -> Retrainable:
        """A new model, trained with these weights (n,) times the examples' own: ones reproduce the model, 0 removes.

        Seed 0 is the run that produced the model; every other seed is another run of the same training.
        """

    def retrain_roughly(self, train: Examples, weights: NDArray[np.float64], seed: int = 0) -> Measurable:
        """Retrain, but only as close to the optimum as the user's fit: for predictions, not for effects."""
        return self.retrain(train, weights, seed)


class Parametric(Measurable):
    """A model that is determined by one vector of trained parameters.

    Attributes:
        at_optimum: whether the user accepts scores at the optimum of the training objective if the model predicts
            something else there; None if the model has no such optimum.
        unfinished: whether training may have ended before its solver was satisfied; True if that is not known.
    """

    at_optimum: bool | None = None
    unfinished: bool = True

    @property
    @abstractmethod
    def parameters(self) -> NDArray[np.float64]:
        """All trained parameters, as one vector."""

    @abstractmethod
    def with_parameters(self, parameters: NDArray[np.float64]) -> Parametric:
        """The same model with other parameters; this model does not change."""

    def is_within_tolerance(self, train: Examples) -> bool:
        """Whether the solver stopped by itself at the gradient that it was asked for; False if that is not known."""
        return False

    @property
    def trained_state(self) -> NDArray[np.float64]:
        """Everything that training changes, as one vector: the parameters first, then e.g. running statistics."""
        return self.parameters

    def with_trained_state(self, state: NDArray[np.float64]) -> Parametric:
        """The same model with another `trained_state`."""
        return self.with_parameters(state)
