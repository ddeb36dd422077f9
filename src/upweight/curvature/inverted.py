"""A curvature of a network that one solver inverts: what the Hessian and the Gauss–Newton matrix have in common."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from upweight.core.curvature import Curvature, Solved
from upweight.core.rows import Rows
from upweight.core.saved_state import SavedState
from upweight.curvature.early_stopping import earlier_gradients
from upweight.curvature.second_step import second_step
from upweight.curvature.solvers.algebra import standard_normal, to_blocks
from upweight.curvature.solvers.cg import ConjugateGradients
from upweight.curvature.solvers.dual import DualForm
from upweight.curvature.solvers.inverse import Inverse
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.outputs import NoOutputsError, outputs
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]


class InvertedCurvature(Curvature):
    """The curvature of an objective, with its inverse.

    Attributes:
        kind: the curvature, as diagnostics name it.
        matrix: the matrix, as sentences name it.
        summed: the objective.
        damping_from: where the damping came from, as a phrase.
        inverse: the inverse that the solver made.
    """

    kind: ClassVar[str]
    matrix: ClassVar[str]
    summed: SummedObjective
    damping_from: str
    inverse: Inverse | DualForm

    @property
    def shift(self) -> float:
        """ridge + damping, with what the solver added."""
        return float(self.inverse.shift)

    @property
    def rows(self) -> int:
        """Rows of the dual form; 0 if the inverse has another form."""
        return len(self.inverse.roots) if isinstance(self.inverse, DualForm) else 0

    @property
    def condition(self) -> float | None:
        """About the condition number that the preconditioner of conjugate gradients leaves; None if not known."""
        solver = None if isinstance(self.inverse, DualForm) else self.inverse.solver
        return solver.condition if isinstance(solver, ConjugateGradients) else None

    def matvec(self, vectors: Array) -> Array:
        """(H + λ) v for vectors (k, parameters); λ includes what the solver added."""
        return self.inverse.matvec(vectors)

    def solve(self, rows: Rows) -> Solved:
        """(H + λ)⁻¹ rows; lazy in the dual form."""
        return self.inverse.solve(rows)

    def mean_leverage(self) -> float:
        """tr A (A + shift)⁻¹ / n of each output, with A the curvature, estimated along one random direction."""
        network = self.summed.network
        v = standard_normal(network, 1, torch.Generator().manual_seed(0))
        solved = self.solve(TensorRows(network, to_blocks(network, v))).rows.dense()
        shifted = float(v.double().cpu().numpy()[0] @ solved[0])
        trace = network.size - self.inverse.shift * shifted
        return float(trace / (self.summed.copies.sum() * self._outputs_per_example()))

    def second_step(self, plain: Rows, rows: Rows) -> float | None:
        """The Newton decrement after one step, relative to that before it; None if the net is linear or too large."""
        return second_step(self.summed, self.solve, plain, rows) if isinstance(plain, CapturedRows) else None

    def _outputs_per_example(self) -> int:
        network, first = self.summed.network, self.summed.train.take(np.arange(1))
        try:
            with network.preserved():
                return int(outputs(network, network.batch(first), first.ids).values[0].numel())
        except NoOutputsError:
            return 1

    def earlier(self, rows: Rows) -> tuple[float, Rows] | None:
        """(λ, loss gradients at ¾ of the output minus those at it); None unless damping is matched to time."""
        return earlier_gradients(self.summed, rows)

    def state(self) -> SavedState:
        """The state of the inverse, and the corrected slopes."""
        state = SavedState.joined({"inverse": self.inverse.state()}, {"is_dual": isinstance(self.inverse, DualForm)})
        return self.summed.saved_state(self, SavedState({**state.arrays, **self._saved_slopes()}, state.facts))

    def _saved_slopes(self) -> dict[str, Array]:
        """Slopes of corrected rows, if this curvature corrects rows; by default none."""
        return {}

    @property
    def calibrated(self) -> bool:
        """True without added damping: then this is the objective's own curvature, or that of the linearised net."""
        return self.inverse.shift <= self.summed.ridge

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Kind, solver, size, damping (of the mean loss) and its origin, and warnings of the solver."""
        is_raised = self.inverse.shift > self.summed.shift
        return {
            "curvature": self.kind,
            "solver": self.inverse.name,
            "parameters": self.summed.network.size,
            "damping": (self.inverse.shift - self.summed.ridge) / self.summed.total,
            "damping_from": self.damping_from
            + (f", raised until the {self.matrix} could be inverted" if is_raised else ""),
            "coverage": 1.0,
            **self.summed.choice_diagnostics,
            "warnings": self.inverse.warnings,
        }
