"""Queries after their solves with the curvature, and their products with the rows of training examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts
from upweight.core.curvature import Curvature, Solved
from upweight.core.examples import Examples
from upweight.core.model import Differentiable
from upweight.core.rows import Rows

Array = NDArray[np.float64]


class FirstOrderFit(Protocol):
    """What scores are made of.

    Attributes:
        model: the model at the parameters where scores are taken.
        curvature: that is solved with.
        rows: gradients of the training losses, corrected or not.
        early_stopping: (λ, how the loss gradients changed since earlier in training), if λ stands for early stopping.
        followed: positions of the examples whose removal Newton steps followed, in ascending order.
        shifts: how the parameters move without each of these, (followed, parameters).
    """

    model: Differentiable
    curvature: Curvature
    rows: Rows
    early_stopping: tuple[float, Rows] | None
    followed: NDArray[np.intp]
    shifts: Array


class ScoredQueries:
    """Queries after their solves, ready to be multiplied with the rows of training examples."""

    def __init__(self, fitted: FirstOrderFit, queries: Examples) -> None:
        self.fitted = fitted
        solves = [fitted.curvature.solve(fitted.model.measure_rows(queries))]
        self.rate, self.change = fitted.early_stopping or (0.0, fitted.rows)
        if self.rate:
            solves.append(fitted.curvature.solve(solves[0].rows))
        self.solved, self.solved_twice = solves[0].rows, solves[-1].rows
        self.exact = np.empty((len(queries), 0))
        if len(fitted.followed):
            measured = fitted.model.measure(queries)
            self.exact = measured[:, None] - fitted.model.measure_shifted(queries, fitted.shifts)
        self.facts = _facts_of(solves)

    def at(self, positions: NDArray[np.intp]) -> Array:
        """Scores of the training examples at these positions, (m, len(positions))."""
        scores = -self.solved.dot(self.fitted.rows.take(positions))
        if self.rate:
            scores -= self.rate * self.solved_twice.dot(self.change.take(positions))
        if len(self.fitted.followed):
            place = np.minimum(np.searchsorted(self.fitted.followed, positions), len(self.fitted.followed) - 1)
            is_followed = self.fitted.followed[place] == positions
            scores[:, is_followed] = self.exact[:, place[is_followed]]
        return scores


def _facts_of(solves: Sequence[Solved]) -> AnswerFacts:
    """The solver's report of the least accurate of these solves."""
    worst = max(solves, key=lambda solved: solved.residual)
    return solver_facts({"residual": worst.residual, "steps": worst.steps, "converged": worst.converged})


def solver_facts(facts: dict[str, Any]) -> AnswerFacts:
    """The facts of a solve, with a warning if it did not converge."""
    if not facts["converged"]:
        warning = f"The last solve stopped at a residual of {facts['residual']:.2g}: more steps would change it."
        facts = {**facts, "warnings": [warning, *facts.get("warnings", ())]}
    return AnswerFacts(diagnostics=facts)
