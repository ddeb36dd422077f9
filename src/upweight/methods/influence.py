"""Influence: the effect of upweighting or removing a training example, by the inverse of the curvature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive import stored_array
from upweight.core.attributor import Attributor, Promises
from upweight.core.capability_checks import require
from upweight.core.checkpoints import Layered
from upweight.core.choices import require_auto_or_number
from upweight.core.curvature import ExactCurvature
from upweight.core.curvature_recipes import CG, EKFAC, CurvatureRecipe, DataInf, EmpiricalFisher, Hessian, Identity
from upweight.core.examples import Examples
from upweight.core.model import Differentiable, Parametric
from upweight.core.modules import Modules, as_parts
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.core.scores import Unit
from upweight.methods.parts.fitted_influence import FittedInfluence
from upweight.methods.parts.partial_influence import PartialInfluence


@dataclass(frozen=True, kw_only=True)
class Influence(Attributor):
    """Koh & Liang (2017): −I_up,loss/n = ∇m_qᵀ (H + λ)⁻¹ ∇ℓ_i, corrected to the effect of removing the example.

    Args:
        curvature: `Hessian(…)`, and for networks `GaussNewton(…)`, `EmpiricalFisher()`, `DataInf()`, `KFAC()`,
            `EKFAC()`, `Diagonal()`, `Identity()`; None for that of a convex model, and for networks `WithinBudget()`,
            the best one that 60 passes over the training set allow.
        damping: λ on the scale of the mean loss. "auto" adds none beyond the objective's l2 if the Hessian can be
            inverted; otherwise it adds some and reports how much.
        correction: "leverage" applies the leverage correction (I − AS)⁻¹, which turns first order into the Newton step
            of leaving the example out. None gives the plain first-order value of the paper, at the parameters of the
            model as they are. "auto" corrects if scores are effects; on networks, where scores are a ranking, the
            correction brings their size nearer to retraining but costs a little of the order.
        polish: Newton steps at most for the examples that move the model most (with the correction); most examples
            need one or two.
        modules: the part of a network that the scores are about, with all other parameters held fixed: patterns of
            modules (`["head", "*.mlp.*"]`), or pattern → rows of embeddings (`{"user_*": [12], "item_*": [40]}`,
            Cheng et al. 2019). A pattern matches a module, all modules inside it, or a parameter. None for all of it.

    Scores are EFFECT: in the unit of the measurement, with slope 1 against retraining. Plain first order has the same
    unit, but underestimates by the leverage. With `modules` they are RANK: retraining moves all parameters.
    """

    summary = "The effect of upweighting a training example, by the inverse of the curvature"
    paper = "Koh & Liang (2017)"
    cost = "one Hessian and its factorisation; per query a solve and a product with the training features"
    unit = Unit.EFFECT
    needs = (Differentiable,)
    answers_from_store = True
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
    modules: Modules | None = None

    def __post_init__(self) -> None:
        require_auto_or_number("damping", self.damping)
        if self.correction not in ("auto", "leverage", None):
            raise ValueError(f'expected correction="auto", "leverage" or None, got {self.correction!r}')
        if self.polish < 0:
            raise ValueError(f"expected polish ≥ 0 Newton steps, got {self.polish}")
        if self.modules is not None:
            object.__setattr__(self, "modules", as_parts(self.modules))

    @property
    def promises(self) -> Promises:
        """Corrected effects equal those of retraining, up to the smoothing of a hinge loss.

        Without the correction, effects are too small for examples of high leverage. RANK scores, as on networks, agree
        with retraining in part of the order; there is no floor for a Hessian, which may be indefinite.
        """
        ranking = None if isinstance(self.curvature, Hessian) else 0.3
        if self.correction is None:
            return Promises(correlation=0.25, slope=(0.4, 2.6), ranking=ranking)
        return Promises(correlation=0.99, slope=(0.95, 1.05), ranking=ranking)

    def fit(self, model: Any, train: Examples, store: Any = None) -> FittedInfluence | PartialInfluence:
        """Compute curvature, leverages and Newton steps: everything that does not depend on the queries.

        With `store=uw.Store(folder)` training gradients are read from there, and built first if they are missing.
        """
        if self.modules is not None:
            return self._fit_modules(model, train)
        return self._fit(model, train, model)

    def _fit_modules(
        self, model: Any, train: Examples, saved: SavedState = NOTHING_SAVED
    ) -> FittedInfluence | PartialInfluence:
        """The fit with all other parameters held fixed, on the examples that the chosen ones act on."""
        require(model, [Layered], "Influence(modules=…)")
        narrowed = model.narrowed(self.modules)
        dependent = narrowed.with_dependent(train)
        if dependent is not None:
            narrowed, positions = dependent
            if not len(positions):
                raise ValueError(
                    "expected rows of embeddings that training examples look up, got rows that none of the "
                    f"{len(train):,} examples does: they have no gradient"
                )
            inner = self._fit(narrowed, train.take(positions), narrowed)
            return PartialInfluence(self, model, train, inner, positions)
        fitted = self._fit(narrowed, train, model, saved)
        fitted.unit = Unit.RANK
        return fitted

    def _fit(self, model: Any, train: Examples, original: Any, saved: SavedState = NOTHING_SAVED) -> FittedInfluence:
        fitted = self._first_order(model, train, original, saved)
        is_damped = self.damping not in ("auto", 0)  # Newton steps have no damping
        if self._correct(fitted) and self.polish > 0 and not is_damped:
            fitted.polish(self.polish)
        fitted.require_one_step()
        if fitted.rows is not fitted.plain_rows and isinstance(fitted.curvature, ExactCurvature):
            fitted.follow_undetermined()
        return fitted

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedInfluence | PartialInfluence:
        """Take curvature and Newton steps from the saved state; what it does not hold is computed again."""
        saved = SavedState(state, facts).part("curvature")
        if self.modules is not None:
            return self._fit_modules(model, train, saved)
        fitted = self._first_order(model, train, model, saved)
        if self._correct(fitted):
            fitted.undetermined = cast(ExactCurvature, fitted.curvature).undetermined()
            followed = stored_array(state, "moved", (None,), "i")
            if (np.diff(followed, prepend=-1) <= 0).any() or (followed >= len(train)).any():
                raise ValueError("expected ascending positions in the training set as 'moved'")
            fitted.followed, fitted.shifts = followed, stored_array(state, "shifts", (len(followed), None))
        fitted.require_one_step()
        return fitted

    def _correct(self, fitted: FittedInfluence) -> bool:
        """Correct the rows of the fit if this recipe requires it; returns whether Newton steps are possible."""
        if self.correction is None or (self.correction == "auto" and fitted.unit != Unit.EFFECT):
            return False
        rows = fitted.curvature.corrected(fitted.plain_rows)
        if rows is None:
            kind = type(fitted.curvature).__name__
            if self.correction == "leverage":
                raise TypeError(
                    f'correction="leverage" needs a curvature that has leverages, got {kind}, '
                    "which has none; use correction=None, or curvature=GaussNewton() or EKFAC()"
                )
            return False
        fitted.rows = rows
        return isinstance(fitted.curvature, ExactCurvature)

    def _first_order(
        self, model: Any, train: Examples, original: Any, saved: SavedState = NOTHING_SAVED
    ) -> FittedInfluence:
        """The fit without correction, at the optimum of the objective if the curvature can be taken there."""
        damping = None if self.damping == "auto" else float(self.damping)
        curvature = model.restored_curvature(train, self.curvature, damping, saved)
        if self.correction is not None and isinstance(curvature, ExactCurvature):
            at_optimum = curvature.reoptimised()
            if at_optimum is not curvature:
                optimum = cast(Differentiable, cast(Parametric, model).with_parameters(at_optimum.parameters))
                return FittedInfluence(self, optimum, original, train, at_optimum)
        return FittedInfluence(self, model, original, train, curvature)
