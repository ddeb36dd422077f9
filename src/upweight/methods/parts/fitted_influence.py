"""Fitted influence: scores, self-influence and the removal of groups from one curvature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts, Blocks
from upweight.core.attributor import Attributor
from upweight.core.blocks import blocks
from upweight.core.curvature import Curvature, ExactCurvature, gives_effects
from upweight.core.examples import Examples, Id
from upweight.core.group_removal import GroupEffects, GroupRemoval
from upweight.core.inverse_hvp import InverseHVP
from upweight.core.model import Differentiable, Parametric
from upweight.core.rows import Rows
from upweight.core.saved_state import SavedState
from upweight.core.scores import Scores, Unit
from upweight.core.token_scoring import LinearScores, ScoreDirection, Span, measuring
from upweight.core.weights import sample_weights
from upweight.methods.parts.deletion_diagnostics import DeletionDiagnostics
from upweight.methods.parts.newton_removal import (
    MAX_GROUP_STEPS,
    follow_groups,
    follow_largest_removals,
    second_order_shifts,
    smallest_norm_shifts,
)
from upweight.methods.parts.scored_queries import ScoredQueries, solver_facts

Array = NDArray[np.float64]
TRAIN_BLOCK = 1024  # training examples whose scores are held in memory at once
MEASURED_BLOCK = 64  # training examples that are measured at once, each at its own parameters
SMALL_LEVERAGE = 0.05  # mean leverage up to which effects of first order have no warning
LARGE_SECOND_STEP = 0.5  # relative to the first, above which the first does not describe a removal
OFF_OPTIMUM = 1e-3  # gradient norm, relative to that of random data, above which an answer has a warning
# Gradient norm for a solver that stopped by itself, if scores are taken at the optimum: a query for which that predicts
# something else has a warning of its own.
OFF_OPTIMUM_IF_CONVERGED = 0.1


class FittedInfluence(
    DeletionDiagnostics,
    GroupRemoval[Attributor, Differentiable],
    InverseHVP[Attributor, Differentiable],
    LinearScores[Attributor, Differentiable],
):
    """Influence, ready to answer.

    Attributes:
        plain_rows: gradients of the training losses.
        rows: the same with the correction of the recipe.
        early_stopping: (λ, how the loss gradients changed since earlier in training), if λ stands for early stopping.
        followed: positions of the examples whose removal Newton steps followed, in ascending order.
        shifts: how the parameters move without each of these, (followed, parameters).
        undetermined: position → directions that no other example determines, for examples of leverage 1.
        train_block: training examples whose scores are held in memory at once.
    """

    forms = ("newton", "first", "second")

    def __init__(
        self,
        recipe: Attributor,
        model: Differentiable,
        original_model: Differentiable,
        train: Examples,
        curvature: Curvature,
    ) -> None:
        super().__init__(recipe, model, train, Unit.RANK, original_model)
        self.curvature = curvature
        if gives_effects(curvature, lambda: self.gradient_norm, partial(model.explained_gradient_norm, train)):
            self.unit = Unit.EFFECT
        self.plain_rows: Rows = model.loss_rows(train)
        self.rows = self.plain_rows
        self.early_stopping = curvature.earlier(self.plain_rows)
        self.followed = np.empty(0, dtype=np.intp)
        self.shifts = np.empty((0, 0))
        self.train_block = TRAIN_BLOCK
        self.undetermined: Mapping[int, Array] = {}
        self.second_step: float | None = None

    @cached_property
    def gradient_norm(self) -> float | None:
        """The gradient norm of the model passed to `fit`, computed late, since scoring may sum the gradients anyway."""
        self.require_unchanged()
        is_narrowed = self.recipe.described().get("modules") is not None
        return (self.model if is_narrowed else self.original_model).gradient_norm(self.train)

    def require_one_step(self) -> None:
        """Make scores a ranking if the first Newton steps of removals do not end near the new optimum."""
        if self.unit == Unit.EFFECT:
            is_plain = self.rows is self.plain_rows and not isinstance(self.curvature, ExactCurvature)
            corrected = self.curvature.corrected(self.plain_rows) if is_plain else None
            rows = self.rows if corrected is None else corrected
            self.second_step = self.curvature.second_step(self.plain_rows, rows)
        if self.second_step is not None and self.second_step > LARGE_SECOND_STEP:
            self.unit = Unit.RANK

    def polish(self, max_steps: int) -> None:
        """Take Newton steps for the removals that move the model most, as many as the budget allows."""
        self.followed, self.shifts = follow_largest_removals(
            self._exact(), self.rows, sample_weights(self.train), max_steps
        )

    def follow_undetermined(self) -> None:
        """Without an example of leverage 1 the data do not determine the model: follow it to the smallest norm."""
        exact = self._exact()
        self.undetermined = exact.undetermined()
        if not self.undetermined:
            return
        positions = np.array(list(self.undetermined), dtype=np.intp)
        shifts = smallest_norm_shifts(exact, self.undetermined, len(self.train))
        others = ~np.isin(self.followed, positions)
        if others.any():
            positions = np.concatenate([self.followed[others], positions])
            shifts = np.concatenate([self.shifts[others], shifts])
        ascending = np.argsort(positions)
        self.followed, self.shifts = positions[ascending], shifts[ascending]

    def blocks(self, queries: Examples) -> Blocks:
        """−∇m_qᵀ (H + λ)⁻¹ rowᵢ; for examples that Newton steps followed, the change of the measurement itself."""
        scored = ScoredQueries(self, queries)
        for block in blocks(len(self.train), self.train_block):
            yield block, scored.at(np.arange(block.start, block.stop))
        return scored.facts

    def selected_values(self, queries: Examples, positions: NDArray[np.intp]) -> tuple[Array, AnswerFacts]:
        """Scores of these training examples, whose gradients alone are computed."""
        scored, values = ScoredQueries(self, queries), np.empty((len(queries), len(positions)))
        for block in blocks(len(positions), self.train_block):
            values[:, block] = scored.at(positions[block])
        return values, scored.facts

    def self_values(self) -> Array:
        """∇ℓᵢᵀ (H + λ)⁻¹ wᵢ∇ℓᵢ with the recipe's correction: the effect of the example's weight on its own loss."""
        measure_rows = self.model.measure_rows(self.train)
        values = -self.curvature.paired(measure_rows, self.rows)
        if self.early_stopping is not None:
            rate, change = self.early_stopping
            values -= rate * self.curvature.paired_twice(measure_rows, change)
        for block in blocks(len(self.followed), MEASURED_BLOCK):  # so that a pipeline runs once per block
            positions = self.followed[block]
            examples = self.train.take(positions)
            shifted = self.model.measure_shifted(examples, self.shifts[block])
            values[positions] = self.model.measure(examples) - shifted.diagonal()
        return values

    def query_ihvps(self, queries: Examples) -> Array:
        """(H + λ)⁻¹ ∇m of every query, (m, parameters)."""
        return self.curvature.solve(self.model.measure_rows(queries)).rows.dense()

    def score_directions(self, queries: Examples, tokens: Span | None = None) -> list[ScoreDirection]:
        """(H + λ)⁻¹ ∇m of every query. Raises TypeError if the scores are corrected, which adds other terms."""
        if self.rows is not self.plain_rows or len(self.followed) or self.early_stopping is not None:
            raise TypeError(
                "the scores of this fit are not first order: a correction for leverage or for early stopping is part "
                "of them and belongs to no token; fit Influence(curvature=uw.EKFAC(), correction=None), with a number "
                "as damping if it is matched to the training time"
            )
        model = measuring(self.model, tokens)
        return [ScoreDirection(model, self.curvature.solve(model.measure_rows(queries)).rows.dense())]

    def joint_directions(self, positions: NDArray[np.intp]) -> list[ScoreDirection]:
        """(H + λ)⁻¹ Σ rowᵢ."""
        total = self.rows.take(positions).sums(np.ones((1, len(positions))))
        return [ScoreDirection(self.model, self.curvature.solve(total).rows.dense())]

    def remove(
        self,
        groups: Mapping[str, Sequence[Id]],
        queries: Examples | None = None,
        form: str | None = None,
        steps: int = MAX_GROUP_STEPS,
    ) -> Scores:
        """The effect of whole groups: one column each, the measurement with the group minus without it.

        Args:
            groups: name → train ids.
            queries: what to measure; None for a measurement of the parameters alone.
            form: "newton" (or None): the Newton step (H − H_U)⁻¹ g_U and further ones, with the measurement taken at
                the new parameters. "first": the sum of first-order influences (Koh et al. 2019). "second":
                H⁻¹g_U + H⁻¹H_U H⁻¹g_U (Basu et al. 2020, on the summed objective).
            steps: Newton steps at most; fewer if a group is at its optimum before. One step alone has slope .8 against
                retraining if half of the data goes.
        """
        return self.answer_groups(groups, queries, form, partial(self.removed, steps=steps))

    def removed(
        self, membership: NDArray[np.bool_], queries: Examples, form: str, steps: int = MAX_GROUP_STEPS
    ) -> GroupEffects:
        """Effects of groups by Newton steps, or by the first terms of the series in the group's Hessian."""
        if form != "newton":
            shifts = self._series_shifts(membership.astype(np.float64), second=form == "second")
            return -self.model.measure_rows(queries).project(np.ascontiguousarray(shifts.T)), AnswerFacts()
        shifts, facts = follow_groups(self._exact(), membership, steps)
        effects = self.model.measure(queries)[:, None] - self.model.measure_shifted(queries, shifts)
        return effects, solver_facts(facts)

    def lacks_removal(self) -> str | None:
        """An exact curvature, which most networks lack."""
        return None if isinstance(self.curvature, ExactCurvature) else "its curvature is not an exact Hessian"

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """Diagnostics of the curvature, the distance to the optimum, and the number of removals with Newton steps."""
        facts = dict(self.curvature.diagnostics)
        sentences = list(self.model.notes) + list(facts.pop("warnings", ()))
        if self.undetermined:
            sentences.append(
                f"{self._of_leverage_one(self.undetermined)}: without it the data do not determine the model, and "
                "scores are those of the parameters of smallest norm then."
            )
        if self.second_step is not None and self.second_step > LARGE_SECOND_STEP:
            sentences.append(
                f"Without one example the optimum of this net is farther than one Newton step: a second step would be "
                f"{self.second_step:.2g} of the first. So scores are a ranking, which may be wrong for the examples "
                "with the largest scores; check these by retraining (uw.verify). A larger l2 brings optima nearer."
            )
        sentences += self._fixed_warnings() + self._first_order_warnings() + self._off_optimum_warnings()
        return {
            **facts,
            "gradient_norm": self.gradient_norm,
            "correction": None if self.rows is self.plain_rows else "leverage",
            "newton_followed": len(self.followed),
            "warnings": sentences,
        }

    def _fixed_warnings(self) -> list[str]:
        """The parts that stay fixed for examples that Newton steps did not follow."""
        fixed = self.curvature.fixed_without_steps if isinstance(self.curvature, ExactCurvature) else None
        others = np.count_nonzero(sample_weights(self.train)) - len(self.followed)
        if fixed is None or others <= 0:
            return []
        return [f"For {others:,} examples, those whose removal moves the model least, {fixed}."]

    def _first_order_warnings(self) -> list[str]:
        """That effects are of first order because the solver has no leverages, if these are not small."""
        if self._mean_leverage is None or self._mean_leverage <= SMALL_LEVERAGE:
            return []
        return [
            "Scores are first order, because this solver has no leverages to correct them with: real effects are "
            f"larger by 1/(1 − leverage), and the mean leverage is about {self._mean_leverage:.2g}. Up to 15,000 "
            "parameters solver=Direct() has them."
        ]

    @cached_property
    def _mean_leverage(self) -> float | None:
        is_asked = self.recipe.described().get("correction", "auto") is not None
        if self.unit != Unit.EFFECT or self.rows is not self.plain_rows or not is_asked:
            return None
        return self.curvature.mean_leverage()

    def _off_optimum_warnings(self) -> list[str]:
        """A warning that the original model is not at its optimum on these examples, with the likely cause."""
        gradient_norm = self.gradient_norm
        cause = None if gradient_norm is None else self.original_model.why_off_optimum(self.train)
        is_moved, is_exact = self.model is not self.original_model, isinstance(self.curvature, ExactCurvature)
        has_converged = isinstance(self.original_model, Parametric) and not self.original_model.unfinished
        limit = OFF_OPTIMUM_IF_CONVERGED if is_moved and is_exact and has_converged else OFF_OPTIMUM
        if cause is not None or gradient_norm is None or gradient_norm <= limit:
            return [] if cause is None else [cause]
        consequence = "at the optimum that Newton steps reach from it" if is_moved else "where it stopped"
        advice = "lower tol or raise max_iter" if is_exact else "usual after early stopping; more steps lower it"
        return [
            f"The given model is not at the optimum of its training objective (gradient norm {gradient_norm:.2g} "
            f"of what random data would leave; {advice}): scores are taken {consequence}."
        ]

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The curvature, and the Newton steps, which take most of the time beyond the factorisation."""
        saved = SavedState.joined({"curvature": self.curvature.state()})
        return {**saved.arrays, "moved": self.followed, "shifts": self.shifts}, dict(saved.facts)

    def step_without(self, membership: NDArray[np.bool_]) -> Array:
        """The change of the parameters without each group, a row of `membership`, to first order: H⁻¹g_U."""
        return self._series_shifts(membership.astype(np.float64), second=False)

    def _series_shifts(self, membership: Array, second: bool) -> Array:
        """H⁻¹g_U for members (groups, n), with the second-order term if `second`."""
        first_order = self.curvature.solve(self.plain_rows.sums(membership)).rows.dense()
        if self.early_stopping is not None:
            rate, change = self.early_stopping
            solved = self.curvature.solve(change.sums(membership)).rows
            first_order += rate * self.curvature.solve(solved).rows.dense()
        return second_order_shifts(self._exact(), membership, first_order) if second else first_order
