"""The interface of a curvature: second derivatives of the training objective that can be solved with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import blocks
from upweight.core.deprecation import RenamedAttribute, adopt_renamed_methods
from upweight.core.rows import Rows
from upweight.core.saved_state import NOTHING_SAVED, SavedState

PAIR_BLOCK = 64  # rows per solve if each is multiplied only with its partner
NEAR_OPTIMUM = 0.1  # gradient norm, relative to that of random data, up to which influences have the size of effects


@dataclass(frozen=True)
class Solved:
    """(H + λ)⁻¹ applied to rows, with the quality of the solution.

    Attributes:
        rows: the solutions x.
        residual: the largest relative residual ‖H x − r‖/‖r‖ over the rows.
        steps: of an iterative solver; 0 for a direct one.
        converged: whether every residual is below the solver's tolerance.
    """

    rows: Rows
    residual: float
    steps: int
    converged: bool


@dataclass(frozen=True)
class NewtonSteps:
    """The change of the trained parameters when the training weights change.

    Attributes:
        shifts: added to the trained parameters, (groups, parameters).
        residual: the remaining gradient norm, relative to that of gradients with random signs, (groups,).
        steps: Newton steps taken.
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
        """Apply (H + λ)⁻¹ to every row."""

    @property
    @abstractmethod
    def calibrated(self) -> bool:
        """Whether (H + λ)⁻¹ is that of the training objective, so that influences have the measurement's unit."""

    def mean_leverage(self) -> float | None:
        """An estimate of the mean leverage of the training examples; None if it is not known."""
        return None

    def second_step(self, plain: Rows, rows: Rows) -> float | None:
        """How large a second Newton step of removals is beside the first, with which it ends; None if not known.

        `plain` are gradients of the training losses, and `rows` those of which H⁻¹ makes the first step.
        """
        return None

    def paired(self, left: Rows, right: Rows) -> NDArray[np.float64]:
        """leftᵢᵀ (H + λ)⁻¹ rightᵢ for two sets of rows of the same examples, shape (n,)."""
        return self._paired(left, right, 1)

    def paired_twice(self, left: Rows, right: Rows) -> NDArray[np.float64]:
        """leftᵢᵀ (H + λ)⁻² rightᵢ, shape (n,)."""
        return self._paired(left, right, 2)

    def _paired(self, left: Rows, right: Rows, power: int) -> NDArray[np.float64]:
        out = np.empty(len(left))
        for block in blocks(len(left), PAIR_BLOCK):
            where = np.arange(block.start, block.stop)
            solved = left.take(where)
            for _ in range(power):
                solved = self.solve(solved).rows
            out[where] = np.diagonal(solved.dot(right.take(where)))
        return out

    def corrected(self, rows: Rows) -> Rows | None:
        """Rows with the leverage correction (I − A S)⁻¹: H⁻¹ times a row is the Newton step of leaving its example out.

        None if this curvature does not know leverages.
        """
        return None

    def earlier(self, rows: Rows) -> tuple[float, Rows] | None:
        """(λ, loss gradients from earlier in the training minus those at its end).

        None if λ does not represent a finite training time, or if no earlier gradients are known.
        """
        return None

    @property
    @abstractmethod
    def diagnostics(self) -> Mapping[str, Any]:
        """Kind, solver, damping and its origin, and warnings."""

    def state(self) -> SavedState:
        """The state that took long to compute, for `Differentiable.restored_curvature`; by default none."""
        return NOTHING_SAVED


class ExactCurvature(Curvature):
    """An exact curvature, with which the new optimum after a removal can be computed."""

    settled = RenamedAttribute("reoptimised")
    after = RenamedAttribute("newton_steps")
    held_without_steps = RenamedAttribute("fixed_without_steps")

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        adopt_renamed_methods(cls)

    @property
    @abstractmethod
    def parameters(self) -> NDArray[np.float64]:
        """The parameters at which the curvature is taken, as one vector."""

    @abstractmethod
    def reoptimised(self) -> ExactCurvature:
        """The curvature at the optimum of the training objective, reached by Newton steps."""

    @abstractmethod
    def corrected(self, rows: Rows) -> Rows:
        """Rows with the leverage correction."""

    def expected(self) -> ExactCurvature:
        """The curvature with the expected (Fisher) information; by default itself, as for canonical links."""
        return self

    def undetermined(self) -> Mapping[int, NDArray[np.float64]]:
        """For examples of leverage 1: position → the directions (r, parameters) that no other example determines.

        Known after `corrected`; by default there are none.
        """
        return {}

    def undetermined_without(self, group: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The directions (r, parameters) that only these examples (n,) determine; by default none."""
        return np.empty((0, len(self.parameters)))

    def smallest(self, parameters: NDArray[np.float64], directions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Parameters moved along undetermined directions to the smallest norm; by default they stay."""
        return parameters

    @property
    def fixed_without_steps(self) -> str | None:
        """A clause about what removals leave out if Newton steps do not follow them; None if nothing."""
        return None

    @abstractmethod
    def leverage(self) -> NDArray[np.float64]:
        """Leverage of every training example, (n,), each in [0, outputs]; they sum to the effective parameters."""

    @abstractmethod
    def part_matvec(self, membership: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """H_U v for every group U: the part of the Hessian that its examples contribute.

        `membership` (g, n) says which examples are in a group; `vectors` are (g, parameters).
        """

    @abstractmethod
    def newton_steps(
        self, factors: NDArray[np.float64], start: NDArray[np.float64] | None, steps: int, tolerance: float = 1e-10
    ) -> NewtonSteps:
        """Newton steps towards the optimum under other example weights.

        Args:
            factors: of the training weights, (groups, n); 0 removes an example.
            start: first guess of the shifts, (groups, parameters); None for no shift.
            steps: Newton steps at most.
            tolerance: a group is done when its gradient norm is below this, relative to that of gradients with random
                signs.
        """

    @property
    @abstractmethod
    def step_cost(self) -> tuple[float, float]:
        """Floating-point operations: (assembly and factorisation, one Newton step of one removal)."""


def gives_effects(curvature: Curvature, *gradient_norms: Callable[[], float | None]) -> bool:
    """Whether influences by this curvature have the size of effects: it is calibrated, and the model near its optimum.

    Far from the optimum the effect of a removal is that on the rest of the training, which no curvature knows. Where
    the parameters of an `ExactCurvature` are, Newton steps and their own warnings take care of.

    `gradient_norms`: of what training minimised, and of what is explained; None for those that are not known.
    """
    if not curvature.calibrated or isinstance(curvature, ExactCurvature):
        return curvature.calibrated
    norms = (gradient_norm() for gradient_norm in gradient_norms)
    return all(norm is None or norm <= NEAR_OPTIMUM for norm in norms)
