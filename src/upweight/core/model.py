"""What a model can do: each model family picks the capabilities it has, each method names the ones it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import Curvature
from upweight.core.examples import Examples
from upweight.core.rows import Rows


@dataclass(frozen=True)
class Objective:
    """How the training loss was put together, which says what removing an example means.

    `sum`: Σ wᵢℓᵢ + l2/2 ‖θ‖² (scikit-learn's C-type models): the regulariser stays when an example goes.
    `mean`: Σ wᵢℓᵢ / Σ wᵢ + l2/2 ‖θ‖² (Koh & Liang, PyTorch): the average is renormalised, so an example takes its
    share of the regulariser along, and its row carries the regulariser's gradient.
    """

    reduction: Literal["sum", "mean"]
    l2: float = 0.0


@dataclass(frozen=True)
class Predictions:
    """What the model says of some examples: `predicted` (m,), and `probabilities` (m, classes) where it has them."""

    predicted: tuple[Any, ...]
    classes: tuple[Any, ...] = ()
    probabilities: NDArray[np.float64] | None = None


class Measurable(ABC):
    """A model whose behaviour on a query is a number."""

    @property
    @abstractmethod
    def measurement(self) -> str:
        """What is measured, in words and with its unit, e.g. `−loss (nats)`."""

    @abstractmethod
    def measure(self, queries: Examples) -> NDArray[np.float64]:
        """The measurement of every query, shape (m,); higher = more of the behaviour."""

    @abstractmethod
    def predict(self, examples: Examples) -> Predictions:
        """Predictions, for people to read."""


class Differentiable(Measurable):
    """A model with gradients and a curvature."""

    @abstractmethod
    def loss_rows(self, train: Examples) -> Rows:
        """∇θ of every training example's share of the objective (weight and regulariser share included)."""

    @abstractmethod
    def measure_rows(self, queries: Examples) -> Rows:
        """∇θ of every query's measurement."""

    @abstractmethod
    def curvature(self, train: Examples, recipe: Any, damping: float | None) -> Curvature:
        """The curvature on the training set at the model's parameters; `recipe=None` is the model's own best.

        `damping` is λ on the scale of the mean loss, beyond the objective's own l2; None leaves it to the model.
        """

    @abstractmethod
    def gradient_norm(self, train: Examples) -> float | None:
        """‖∇objective‖ in units of what random-sign gradients would leave: 0 at the optimum, about 1 for other data.

        None where training minimised something without a gradient.
        """

    @abstractmethod
    def dispersion(self, train: Examples, effective: float) -> float:
        """s², the noise variance of a squared loss with this many effective parameters; 1 for a likelihood."""

    @abstractmethod
    def measure_shifted(self, queries: Examples, shifts: NDArray[np.float64]) -> NDArray[np.float64]:
        """The measurement of every query under each of these parameter shifts (g, parameters): (m, g)."""


class Parametric(Measurable):
    """A model that is a point in a space: training chose one vector and nothing else."""

    @property
    @abstractmethod
    def parameters(self) -> NDArray[np.float64]:
        """Everything training chose, as one vector."""

    @abstractmethod
    def with_parameters(self, parameters: NDArray[np.float64]) -> Parametric:
        """The same model with other parameters; this one stays as it is."""


class Retrainable(Measurable):
    """A model that can be trained again with other example weights."""

    @abstractmethod
    def retrain(self, train: Examples, weights: NDArray[np.float64], seed: int = 0) -> Retrainable:
        """Another model, trained with these weights (n,) on top of its own; ones reproduce the model, 0 removes."""


class TreeBased(Measurable):
    """A sum of trees: every example falls into one leaf of each, and leaves hold numbers.

    `grown` and `trees` are nouns of the room `trees`, which this one does not know.
    """

    @abstractmethod
    def trees(self) -> Any:
        """The `TreeEnsemble`: leaf values, which output each tree adds to, and at which step."""

    @abstractmethod
    def leaves(self, examples: Examples) -> NDArray[np.intp]:
        """Which leaf of every tree each example falls into, (n, trees), leaves counted over all trees."""

    @abstractmethod
    def grown(self, train: Examples) -> Any:
        """How the leaf values followed from these examples: a `Boosting` or a `Forest`."""

    @abstractmethod
    def measure_margins(self, queries: Examples, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """The measurement of every query if these (m, outputs) were its margins, (m,)."""

    @abstractmethod
    def measure_slopes(self, queries: Examples, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """∂measurement/∂margins there, (m, outputs)."""


def require(model: Any, capabilities: Sequence[type], wanted_by: str) -> None:
    """Raise TypeError when the model lacks a capability, in words that say which and what to do."""
    missing = [c.__name__ for c in capabilities if not isinstance(model, c)]
    if missing:
        raise TypeError(
            f"{wanted_by} needs a model that is {' and '.join(missing)}, got {type(model).__name__}; "
            "wrap a fitted estimator with upweight.explainable(estimator, train) first"
        )
