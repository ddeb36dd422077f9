"""ClosedForm: the outputs of an estimator as a function of the weights of its training examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClosedForm(ABC):
    """The outputs of an estimator as a function of the weights of its training examples.

    Weight factors κ (n,) multiply the sample weights: 1 leaves an example as it is, 0 removes it.

    Attributes:
        x: (n, columns) what enters the estimator, dense or sparse.
        targets: (n,) positions of the labels among the classes, or (n, outputs) target values.
        weights: (n,) sample weights.
    """

    x: Any
    targets: NDArray[Any]
    weights: Array

    @abstractmethod
    def fitted(self, factors: Array) -> Any:
        """What the estimator learns from the examples with these weight factors (n,)."""

    @abstractmethod
    def outputs(self, fitted: Any, x: Any) -> Array:
        """The outputs (m, K) for inputs (m, columns), from what `fitted` returned."""

    def outputs_without(self, positions: NDArray[np.intp], x: Any) -> Array:
        """The outputs without each of these examples, (m, positions, K). By default one by one."""
        without = []
        for position in positions:
            factors = np.ones(len(self.weights))
            factors[position] = 0.0
            without.append(self.outputs(self.fitted(factors), x))
        return np.stack(without, axis=1)

    def refusals(self) -> dict[int, str]:
        """Position → why the estimator cannot be fitted without this example, beyond the loss of a class."""
        return {}

    def probes(self, positions: NDArray[np.intp]) -> Any:
        """Inputs whose outputs show whether an estimator was fitted on the examples: by default these rows."""
        return self.x[positions]

    def is_determined(self, x: Any) -> NDArray[np.bool_]:
        """Whether the outputs for each input depend on the examples alone, not on their order, (m,)."""
        return np.ones(x.shape[0], dtype=bool)

    def doubts(self, x: Any) -> list[str]:
        """Sentences that a reader of the scores of these queries should know."""
        return []

    def refusal(self, factors: Array) -> str | None:
        """Why the estimator cannot be fitted under these factors, beyond the loss of a class; None if it can."""
        return None


def whole_weights(name: str, weights: Array) -> NDArray[np.intp]:
    """Weights (n,) as numbers of copies. Raises ValueError if they are not whole numbers."""
    if (weights != np.round(weights)).any():
        raise ValueError(
            f"{name} takes no sample weights, so that a weight has to be a whole number of copies, got "
            f"{weights[weights != np.round(weights)][0]:g}; pass whole weights, or none"
        )
    return weights.astype(np.intp)
