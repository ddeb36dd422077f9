"""Prior probabilities of classes: given, uniform, or the shares of the classes in the training examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClassPriors:
    """The prior probabilities of classes.

    Attributes:
        classes: number of classes.
        given: (classes,) given probabilities; None to take shares or uniform ones.
        is_uniform: whether all classes have the same one, if none are given.
    """

    classes: int
    given: Array | None
    is_uniform: bool = False

    @classmethod
    def of(cls, classes: int, given: Any, is_uniform: bool = False) -> ClassPriors:
        """Priors from a setting of an estimator, normalised; None for shares or uniform ones."""
        if given is None:
            return cls(classes, None, is_uniform)
        probabilities = np.asarray(given, dtype=np.float64)
        return cls(classes, probabilities / probabilities.sum())

    def probabilities(self, counts: Array) -> Array:
        """The probabilities (…, classes) for weights of the classes (…, classes)."""
        if self.given is not None:
            return np.broadcast_to(self.given, counts.shape)
        if self.is_uniform:
            return np.full(counts.shape, 1.0 / self.classes)
        return np.asarray(counts / counts.sum(axis=-1, keepdims=True))

    def logs(self, counts: Array) -> Array:
        """The logarithms of the priors; −∞ for a probability of 0."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.probabilities(counts)))

    def count(self, positions: NDArray[np.intp], weights: Array) -> Array:
        """The weights of the classes (classes,) from class positions and weights of examples (n,)."""
        return np.bincount(positions, weights, self.classes).astype(np.float64)
