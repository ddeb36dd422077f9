"""Curvature: what the training objective looks like around the trained parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.rows import Rows

PAIR_BLOCK = 64  # rows that are solved for at a time when each meets only its own partner


@dataclass(frozen=True)
class Solved:
    """(H + λ)⁻¹ rows, with what the solver has to say about it.

    `residual` is the largest relative residual ‖H x − r‖/‖r‖ over the rows, `steps` is 0 for a direct solver.
    """

    rows: Rows
    residual: float
    steps: int
    converged: bool


@dataclass(frozen=True)
class Moved:
    """Where the parameters go when the training weights change.

    `shifts` (groups, parameters) is added to the trained parameters; `residual` (groups,) is the gradient norm that is
    left, relative to what examples with random signs would leave.
    """

    shifts: NDArray[np.float64]
    residual: NDArray[np.float64]
    steps: int


class Curvature(ABC):
    """Second derivatives of the training objective (summed over examples) at the trained parameters."""

    @abstractmethod
    def matvec(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """(H + λ) v for vectors of shape (k, parameters)."""

    @abstractmethod
    def solve(self, rows: Rows) -> Solved:
        """(H + λ)⁻¹ applied to every row."""

    @property
    @abstractmethod
    def calibrated(self) -> bool:
        """Whether (H + λ)⁻¹ is the objective's own, so that influences are in the measurement's unit."""

    def paired(self, left: Rows, right: Rows) -> NDArray[np.float64]:
        """leftᵢᵀ (H + λ)⁻¹ rightᵢ for two sets of rows of the same examples, shape (n,); some rows at a time."""
        return self._paired(left, right, 1)

    def paired_twice(self, left: Rows, right: Rows) -> NDArray[np.float64]:
        """leftᵢᵀ (H + λ)⁻² rightᵢ."""
        return self._paired(left, right, 2)

    def _paired(self, left: Rows, right: Rows, power: int) -> NDArray[np.float64]:
        out = np.empty(len(left))
        for start in range(0, len(left), PAIR_BLOCK):
            where = np.arange(start, min(start + PAIR_BLOCK, len(left)))
            solved = left.take(where)
            for _ in range(power):
                solved = self.solve(solved).rows
            out[where] = np.diagonal(solved.dot(right.take(where)))
        return out

    def corrected(self, rows: Rows) -> Rows | None:
        """Rows with the leverage correction (I − A S)⁻¹: H⁻¹ times one is the Newton step of leaving that one out.

        None where this curvature does not know leverages.
        """
        return None

    def earlier(self, rows: Rows) -> tuple[float, Rows] | None:
        """(λ, what the gradients of losses were earlier in the training minus what they are at its end).

        None where λ does not stand for the time that training did not have, and where nothing is known of it.
        """
        return None

    @property
    @abstractmethod
    def diagnostics(self) -> Mapping[str, Any]:
        """What was built and what to know of it: kind, solver, damping and where it came from, warnings."""


class ExactCurvature(Curvature):
    """A curvature so complete that removals can be followed to the new optimum."""

    @property
    @abstractmethod
    def parameters(self) -> NDArray[np.float64]:
        """The parameters it was taken at, one vector."""

    @abstractmethod
    def settled(self) -> ExactCurvature:
        """The curvature at the optimum of the training objective, reached by Newton steps; itself when it is there."""

    @abstractmethod
    def corrected(self, rows: Rows) -> Rows:
        """Rows with the leverage correction, which an exact curvature always knows."""

    @abstractmethod
    def leverage(self) -> NDArray[np.float64]:
        """Leverage of every training example, (n,), each in [0, outputs]; they sum to the effective parameters."""

    @abstractmethod
    def part_matvec(self, member: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """H_U v: the share of the examples in each group, member (g, n) and vectors (g, parameters)."""

    @abstractmethod
    def after(
        self, kept: NDArray[np.float64], start: NDArray[np.float64] | None, steps: int, tolerance: float = 1e-10
    ) -> Moved:
        """Newton steps towards the optimum under these example weights.

        `kept` (groups, n) multiplies the training weights (0 removes), `start` (groups, parameters) is a first guess.
        A group is done when its gradient is below `tolerance` of what examples with random signs would leave.
        """

    @property
    @abstractmethod
    def step_cost(self) -> tuple[float, float]:
        """Floating-point operations of (assembling and factoring once, one Newton step of one removal)."""
