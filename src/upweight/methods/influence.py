"""Influence: the effect of upweighting a training example, by the inverse curvature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts, Blocks
from upweight.core.attributor import Attributor, Promises
from upweight.core.curvature import Curvature, ExactCurvature, Solved
from upweight.core.curvature_recipes import CG, EKFAC, CurvatureRecipe, DataInf, EmpiricalFisher, Hessian, Identity
from upweight.core.examples import Examples, Id
from upweight.core.group_removal import GroupEffects, GroupRemoval
from upweight.core.inverse_hvp import InverseHVP
from upweight.core.model import Differentiable, Parametric
from upweight.core.rows import DenseRows, Rows
from upweight.core.scores import Scores, Unit
from upweight.core.weights import example_counts, sample_weights

Array = NDArray[np.float64]
BLOCK = 1024  # training examples whose scores are held at a time when they are streamed
TOGETHER = 64  # training examples that are measured on their own models at a time
FREE = 2e10  # floating-point operations of Newton steps that are always spent (about a second)
STOPPED_EARLY = 1e-3  # gradient, relative to random data's, above which the reader is told
ARRIVED = 1e-6  # gradient, relative to random data's, below which a group is at its new optimum
STEPS = 20  # Newton steps of a group at most
USUAL = 3  # Newton steps that an example takes when its loss is smooth, for the budget
SHARE = 0.05  # and this share of what the fit costs


@dataclass(frozen=True, kw_only=True)
class Influence(Attributor):
    """Koh & Liang (2017): −I_up,loss/n = ∇m_qᵀ (H + λ)⁻¹ ∇ℓ_i, corrected to what removal really does.

    Args:
        curvature: `Hessian(…)`, and for networks `GaussNewton(…)`, `EmpiricalFisher()`, `DataInf()`, `KFAC()`,
            `EKFAC()`, `Diagonal()`, `Identity()`; None for the model's own best.
        damping: λ on the scale of the mean loss; "auto" adds none beyond the objective's l2 where the Hessian can be
            inverted, and says what it added where it cannot.
        correction: "leverage" divides by what an example holds of its own prediction ((I − AS)⁻¹), which makes first
            order a Newton step of leaving it out; None gives the plain first-order value of the paper, at the
            parameters as they were handed in. "auto" corrects where scores are effects: on networks the correction
            brings their size nearer to retraining and costs a little of the order, which is all that a rank has.
        polish: Newton steps at most for the examples that move the model most (with the correction); most need one
            or two.

    Scores are EFFECT: in the measurement's unit, slope 1 against retraining (plain first order underestimates by the
    leverage; its unit is the measurement's all the same).
    """

    summary = "The effect of upweighting a training example, by the inverse curvature"
    paper = "Koh & Liang (2017)"
    cost = "one Hessian and its factor; a query is a solve and a product with the training features"
    unit = Unit.EFFECT
    needs = (Differentiable,)
    variants: ClassVar = {
        "first order": {"correction": None},
        "CG": {"curvature": Hessian(solver=CG(tolerance=1e-10))},
        "gradient products": {"curvature": Identity()},
        "empirical Fisher": {"curvature": EmpiricalFisher()},
        "EK-FAC": {"curvature": EKFAC()},
        "DataInf": {"curvature": DataInf()},
    }

    curvature: CurvatureRecipe | None = None
    damping: float | Literal["auto"] = "auto"
    correction: Literal["auto", "leverage"] | None = "auto"
    polish: int = 30

    def __post_init__(self) -> None:
        if self.damping != "auto" and not (isinstance(self.damping, int | float) and 0 <= self.damping < np.inf):
            raise ValueError(f'expected damping="auto" or a number ≥ 0, got {self.damping!r}')
        if self.correction not in ("auto", "leverage", None):
            raise ValueError(f'expected correction="auto", "leverage" or None, got {self.correction!r}')
        if self.polish < 0:
            raise ValueError(f"expected polish ≥ 0 Newton steps, got {self.polish}")

    @property
    def promises(self) -> Promises:
        """Corrected: retraining itself, but for what smoothing a hinge costs. Plain: too small by the leverage.

        Of a ranking, as on networks, some of the order; none by a Hessian, which may be indefinite there.
        """
        ranking = None if isinstance(self.curvature, Hessian) else 0.3
        if self.correction is None:
            return Promises(correlation=0.25, slope=(0.4, 2.6), ranking=ranking)
        return Promises(correlation=0.99, slope=(0.95, 1.05), ranking=ranking)

    def fit(self, model: Any, train: Examples) -> FittedInfluence:
        """Curvature, leverages and Newton steps: everything that does not depend on the queries."""
        fitted = self._plain(model, train)
        if self._correct(fitted):
            fitted.polish()
        return fitted

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedInfluence:
        """Leverages and Newton steps from disk, the curvature built again."""
        fitted = self._plain(model, train)
        if self._correct(fitted):
            fitted.moved, fitted.shifts = state["moved"], state["shifts"]
        return fitted

    def _correct(self, fitted: FittedInfluence) -> bool:
        """Give the fit corrected rows where this recipe wants them; True where Newton steps can follow."""
        if self.correction is None or (self.correction == "auto" and fitted.unit != Unit.EFFECT):
            return False
        rows = fitted.curvature.corrected(fitted.plain_rows)
        if rows is None:
            if self.correction == "leverage":
                raise TypeError(
                    f"{type(fitted.curvature).__name__} knows no leverages; use correction=None, or GaussNewton() or "
                    "EKFAC(), which do"
                )
            return False
        fitted.rows = rows
        return isinstance(fitted.curvature, ExactCurvature)

    def _plain(self, model: Any, train: Examples) -> FittedInfluence:
        curvature = model.curvature(train, self.curvature, None if self.damping == "auto" else float(self.damping))
        if self.correction is not None and isinstance(curvature, ExactCurvature):
            settled = curvature.settled()
            if settled is not curvature:
                there = cast(Differentiable, cast(Parametric, model).with_parameters(settled.parameters))
                return FittedInfluence(self, there, model, train, settled)
        return FittedInfluence(self, model, model, train, curvature)


class FittedInfluence(GroupRemoval[Influence, Differentiable], InverseHVP[Influence, Differentiable]):
    """Influence, ready to answer."""

    def __init__(
        self, recipe: Influence, model: Differentiable, handed_in: Differentiable, train: Examples, curvature: Curvature
    ) -> None:
        super().__init__(recipe, model, train, Unit.EFFECT if curvature.calibrated else Unit.RANK, handed_in)
        self.curvature = curvature
        self.plain_rows: Rows = model.loss_rows(train)
        self.rows = self.plain_rows
        self.earlier = curvature.earlier(self.plain_rows)  # (λ, change): what a training that stopped early went by
        self.moved = np.empty(0, dtype=np.intp)  # positions of the examples whose removal was followed by Newton steps
        self.shifts = np.empty((0, 0))  # and where the parameters went, (len(moved), parameters)

    @cached_property
    def off_optimum(self) -> float | None:
        """The gradient norm of the model handed in; asked for late, when scoring may have summed the gradients."""
        self.require_unchanged()
        return self.handed_in.gradient_norm(self.train)

    def polish(self) -> None:
        """Newton steps for the removals that move the model most, as many as the budget allows."""
        curvature, recipe = self._exact(), self.recipe
        if recipe.polish == 0 or recipe.damping not in ("auto", 0):  # Newton steps know no damping
            return
        own, (once, each) = sample_weights(self.train), curvature.step_cost
        count = int(min((own > 0).sum(), max(FREE, SHARE * once) // (min(recipe.polish, USUAL) * each)))
        if count == 0:
            return
        effect = np.where(own > 0, np.abs(curvature.paired(self.rows, self.rows)), -1.0)
        chosen = np.argsort(-effect, kind="stable")[:count]
        start = curvature.solve(self.rows.take(chosen)).rows.dense()
        kept = np.ones((count, len(self.train)))
        kept[np.arange(count), chosen] = 0.0
        tolerance = 1e-4 / float(np.sqrt(example_counts(own).sum()))
        shifts = curvature.after(kept, start, recipe.polish, tolerance).shifts
        order = np.argsort(chosen)
        self.moved, self.shifts = chosen[order], shifts[order]

    def blocks(self, queries: Examples) -> Blocks:
        """−∇m_qᵀ (H + λ)⁻¹ rowᵢ; where the new parameters are known, the measurement itself at them."""
        solves = [self.curvature.solve(self.model.measure_rows(queries))]
        rate, change = self.earlier or (0.0, self.rows)
        if rate:
            solves.append(self.curvature.solve(solves[0].rows))
        solved, twice = solves[0].rows, solves[-1].rows
        known = np.empty((len(queries), 0))
        if len(self.moved):
            known = self.model.measure(queries)[:, None] - self.model.measure_shifted(queries, self.shifts)
        for start in range(0, len(self.train), BLOCK):
            where = np.arange(start, min(start + BLOCK, len(self.train)))
            block = -solved.dot(self.rows.take(where))
            if rate:
                block -= rate * twice.dot(change.take(where))
            first, last = np.searchsorted(self.moved, [start, where[-1] + 1])
            block[:, self.moved[first:last] - start] = known[:, first:last]
            yield slice(start, int(where[-1]) + 1), block
        return _facts_of(solves)

    def self_values(self) -> Array:
        """∇ℓᵢᵀ (H + λ)⁻¹ wᵢ∇ℓᵢ with the correction of the recipe: what all of an example's weight does to its loss."""
        own = self.model.measure_rows(self.train)
        values = -self.curvature.paired(own, self.rows)
        if self.earlier is not None:
            values -= self.earlier[0] * self.curvature.paired_twice(own, self.earlier[1])
        for start in range(0, len(self.moved), TOGETHER):  # what comes before the model is run once for so many
            at, shifts = self.moved[start : start + TOGETHER], self.shifts[start : start + TOGETHER]
            some = self.train.take(at)
            values[at] = self.model.measure(some) - self.model.measure_shifted(some, shifts).diagonal()
        return values

    def query_ihvps(self, queries: Examples) -> Array:
        """(H + λ)⁻¹ ∇m of every query, (m, parameters)."""
        return self.curvature.solve(self.model.measure_rows(queries)).rows.dense()

    forms = ("newton", "first", "second")

    def remove(
        self, groups: Mapping[str, Sequence[Id]], queries: Examples, form: str | None = None, steps: int = STEPS
    ) -> Scores:
        """The effect of whole groups: one column each, the measurement with the group minus without it.

        Args:
            groups: name → train ids.
            queries: what to measure.
            form: "newton" (or None): (H − H_U)⁻¹ g_U, the measurement taken at the new parameters, followed by further
                Newton steps. "first": Σ of first-order influences (Koh et al. 2019). "second": H⁻¹g_U + H⁻¹H_U H⁻¹g_U
                (Basu et al. 2020, on the summed objective).
            steps: Newton steps at most; a group that has arrived takes no more. One step alone has slope .8 at half
                the data.
        """
        return self.answer_groups(groups, queries, form, partial(self.removed, steps=steps))

    def removed(self, member: NDArray[np.bool_], queries: Examples, form: str, steps: int = STEPS) -> GroupEffects:
        """Newton steps, or the first terms of the series in the group."""
        if form != "newton":
            shifts = self._series(member.astype(np.float64), second=form == "second")
            return -self.model.measure_rows(queries).project(np.ascontiguousarray(shifts.T)), AnswerFacts()
        moved = self._exact().after(1.0 - member.astype(np.float64), None, steps)
        residual, has_arrived = float(moved.residual.max()), bool((moved.residual <= ARRIVED).all())
        effects = self.model.measure(queries)[:, None] - self.model.measure_shifted(queries, moved.shifts)
        return effects, _solver_facts({"residual": residual, "converged": has_arrived})

    def lacks_removal(self) -> str | None:
        """An exact curvature, in most networks."""
        return None if isinstance(self.curvature, ExactCurvature) else "its curvature is no exact Hessian"

    def leverage(self) -> Array:
        """h_i in [0, outputs]: how much of its own prediction each training example decides, shape (n,)."""
        self.require_unchanged()
        return self._exact().leverage()

    def cooks_distance(self) -> Array:
        """Cook's distance D_i = Δθᵢᵀ H Δθᵢ / (p s²), (n,), Δθᵢ without all of i's weight (Cook 1977; Pregibon 1981)."""
        self.require_unchanged()
        exact = self._exact()
        corrected = exact.corrected(self.plain_rows)
        effective = float(exact.leverage().sum())
        return np.asarray(
            exact.paired(corrected, corrected) / (effective * self.model.dispersion(self.train, effective))
        )

    def dfbeta(self) -> Array:
        """DFBETA_i = θ̂ − θ̂₋ᵢ, shape (n, parameters), exact for least squares (Belsley, Kuh & Welsch 1980)."""
        self.require_unchanged()
        shifts = self._exact().solve(self._exact().corrected(self.plain_rows)).rows.dense()
        shifts[self.moved] = self.shifts if len(self.moved) else shifts[self.moved]
        return -shifts

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """The curvature's, how far the model was from its optimum, and how many removals Newton steps followed."""
        news = dict(self.curvature.diagnostics)
        warnings = list(self.model.notes) + list(news.pop("warnings", ()))
        if self.off_optimum is not None and self.off_optimum > STOPPED_EARLY:
            followed = self.model is not self.handed_in
            consequence = "at the optimum that Newton steps reach from it" if followed else "where it stopped"
            exact = isinstance(self.curvature, ExactCurvature)
            advice = "lower tol or raise max_iter" if exact else "usual where training stops early; more steps lower it"
            warnings.append(
                f"The model handed in is not at the optimum of its training objective (gradient {self.off_optimum:.2g} "
                f"of what random data would leave; {advice}): scores are taken {consequence}."
            )
        return {
            **news,
            "gradient_norm": self.off_optimum,
            "correction": None if self.rows is self.plain_rows else "leverage",
            "newton_followed": len(self.moved),
            "warnings": warnings,
        }

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The Newton steps, which are what takes time beyond the factorisation."""
        return {"moved": self.moved, "shifts": self.shifts}, {}

    def _series(self, member: Array, second: bool) -> Array:
        first = self.curvature.solve(self.plain_rows.sums(member)).rows.dense()
        if self.earlier is not None:
            change = self.curvature.solve(self.earlier[1].sums(member)).rows
            first += self.earlier[0] * self.curvature.solve(change).rows.dense()
        if not second:
            return first
        return first + self.curvature.solve(DenseRows(self._exact().part_matvec(member, first))).rows.dense()

    def _exact(self) -> ExactCurvature:
        if not isinstance(self.curvature, ExactCurvature):
            raise TypeError(f"{type(self.curvature).__name__} cannot follow removals; it answers `attribute` and `top`")
        return self.curvature


def _facts_of(solves: Sequence[Solved]) -> AnswerFacts:
    """What the solver says of the worst of these solves."""
    worst = max(solves, key=lambda solved: solved.residual)
    return _solver_facts({"residual": worst.residual, "steps": worst.steps, "converged": worst.converged})


def _solver_facts(facts: dict[str, Any]) -> AnswerFacts:
    if not facts["converged"]:
        text = f"The last solve stopped at a residual of {facts['residual']:.2g}: more steps would change it."
        facts = {**facts, "warnings": [text]}
    return AnswerFacts(diagnostics=facts)
