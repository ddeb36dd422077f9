"""`Responsive`: models whose response to a removal can be followed from their own parameters, without training."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Measurable

Array = NDArray[np.float64]


class UnboundedError(ArithmeticError):
    """The objective has no minimum that can be reached from the trained parameters."""


@dataclass(frozen=True)
class ResponseTerms:
    """Which terms the objective has.

    Attributes:
        bregman: the losses of the training set are replaced by their Bregman divergences from the trained outputs,
            whose minimum is the trained net, whether or not its training converged.
        proximity: λ of λ/2 ‖θ − θ₀‖².
    """

    bregman: bool
    proximity: float


@dataclass(frozen=True, eq=False)
class Response:
    """How far an objective was minimised.

    Attributes:
        shift: of the parameters, (p,).
        gradient: the norm of the gradient there, relative to that at the start of the search.
    """

    shift: Array
    gradient: float


class ResponseObjective(Protocol):
    """The training objective near the trained parameters."""

    def minimise(
        self, removed: NDArray[np.intp], terms: ResponseTerms, steps: int, start: Array | None = None
    ) -> Response:
        """Minimise without the examples at these positions, from a shift of the trained parameters (None: from them).

        Raises UnboundedError if there is no minimum.
        """


class Responsive(Measurable):
    """A model with outputs, on which its loss depends, and parameters that can be moved away from the trained ones."""

    @abstractmethod
    def response_objective(self, train: Examples) -> ResponseObjective:
        """The objective of its training near its parameters."""

    @abstractmethod
    def measure_shifted(self, queries: Examples, shifts: Array) -> Array:
        """The measurement at θ + shift, for every shift (g, parameters): (m, g)."""

    @abstractmethod
    def output_divergences(self, reference: Responsive, examples: Examples) -> tuple[Array, Array]:
        """Squared distance of the outputs from the reference's, and the divergence of the reference's loss, each (m,).

        Raises:
            TypeError: a model of another kind.
            ValueError: outputs of different shapes.
        """
