"""Linear models without some training examples: Newton steps to the new optimum, written into a new estimator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from upweight.core.examples import Examples
from upweight.core.forgettable import Route, Unlearned
from upweight.core.input_kinds import as_array, columns_of
from upweight.core.objective import Objective
from upweight.core.weights import require_classes
from upweight.linear.curvature import LinearCurvature
from upweight.linear.curvature_choice import curvature_of
from upweight.linear.model import LinearModel
from upweight.linear.retraining import retrained_optimum
from upweight.linear.sparse_curvature import SparseCurvature
from upweight.models.pipeline import last_step
from upweight.models.sklearn.cross_validated import chosen_estimator
from upweight.models.sklearn.preprocessing import PreprocessingSteps
from upweight.models.unlearning import REFITTED, refit_estimator, refit_steps, step_records, with_last_step

Array = NDArray[np.float64]
Read = Callable[[Any, PreprocessingSteps, Examples, Any], LinearModel]
# What a fitted linear model holds: what Newton steps compute, what depends on the classes and columns alone, and what
# reports on the fit. An estimator that holds anything else is refitted.
COMPUTED = frozenset({"coef_", "intercept_"})
OF_COLUMNS_AND_CLASSES = frozenset(
    {"classes_", "n_features_in_", "feature_names_in_", "_base_loss", "_label_binarizer"}
)
FAR_GRADIENT_NORM = 1e-9  # relative to gradients with random signs; from it on, the Hessian is factored again
REPORTS = frozenset({"n_iter_", "rank_", "singular_", "solver_"})


@dataclass(frozen=True)
class Forgetting:
    """How a linear model forgets training examples.

    Attributes:
        read: (estimator, the steps before its last one, examples, what the steps make of them) → the model as it is.
        objective: what the estimator itself minimises.
    """

    read: Read
    objective: Objective

    def __call__(
        self, model: LinearModel, train: Examples, remaining: NDArray[np.bool_], seed: int, refit: bool
    ) -> Unlearned:
        """The estimator at the optimum without the examples; refitted if it holds more than an optimum."""
        estimator = model.predictor
        require_classes(train, remaining.astype(np.float64), model.family)
        reason = "refit=True was passed" if refit else self._why_refit(model, last_step(estimator))
        if reason is not None:
            return self._refit(model, train, remaining, seed, reason)
        settings = last_step(estimator).get_params(deep=False)
        keeps_columns = last_step(estimator) is estimator and not isinstance(settings.get("class_weight"), str)
        if keeps_columns and model.objective == self.objective:
            moved, facts = _moved(model, model.optimum(train), remaining.astype(np.float64))
            steps, columns = None, None
        else:
            given = train.take(remaining)
            steps, matrix = refit_steps(estimator, given, seed)
            columns = None if steps is None else columns_of(matrix)
            moved, facts = self._at_new_columns(model, given, steps, matrix)
        final = _written(last_step(estimator), moved, columns)
        whole = with_last_step(estimator, steps, final)
        return Unlearned(
            estimator=whole,
            model=self._model(model, moved, whole),
            route=Route.OPTIMUM,
            steps=step_records(whole, REFITTED, "Newton steps to the optimum without these examples"),
            facts=facts,
        )

    def _model(self, model: LinearModel, moved: LinearModel, estimator: Any) -> LinearModel:
        """The moved model as that of the new estimator."""
        return replace(
            moved,
            predictor=estimator,
            is_original=True,
            unfinished=False,
            stopping=None,
            notes=model.notes,
            forgetting=self,
        )

    def _why_refit(self, model: LinearModel, final: Any) -> str | None:
        """Why Newton steps cannot give the whole estimator, as a clause; None if they can."""
        if model.refit is not None or model.objective.l1:
            return "its loss or its penalty has kinks"
        learned = {name for name in vars(final) if name.endswith("_") or name.startswith("_")}
        more = learned - set(final.get_params(deep=False)) - COMPUTED - OF_COLUMNS_AND_CLASSES - REPORTS
        return f"it also holds {', '.join(sorted(more)[:4])}" if more else None

    def _refit(
        self, model: LinearModel, train: Examples, remaining: NDArray[np.bool_], seed: int, reason: str
    ) -> Unlearned:
        fitted, steps = refit_estimator(model.predictor, train, remaining, seed)
        note = f"{model.name} was fitted again, because {reason}."
        given = train.take(remaining)
        final, _ = chosen_estimator(last_step(fitted))
        before = fitted[:-1] if last_step(fitted) is not fitted else None
        inputs = PreprocessingSteps(before, getattr(final, "n_features_in_", None), None)
        read = self.read(with_last_step(fitted, before, final), inputs, given, inputs(given.x))
        again = replace(read, predictor=fitted, is_hypothetical=True, at_optimum=None, forgetting=self)
        return Unlearned(fitted, again, Route.REFIT, steps, notes=(note,))

    def _at_new_columns(
        self, model: LinearModel, given: Examples, steps: Any, matrix: Any
    ) -> tuple[LinearModel, dict[str, Any]]:
        """The model at its optimum on these examples, from the coefficients that the columns had before."""
        final, width = last_step(model.predictor), matrix.shape[1]
        start = clone(final)
        start.__dict__.update({k: v for k, v in vars(final).items() if k in OF_COLUMNS_AND_CLASSES | COMPUTED})
        if np.shape(final.coef_)[-1] != width:
            start.coef_ = np.zeros((*np.shape(final.coef_)[:-1], width))
        start.n_features_in_ = width
        start.__dict__.pop("feature_names_in_", None)
        whole = with_last_step(model.predictor, steps, start)
        matrix = matrix.tocsr() if hasattr(matrix, "tocsr") else as_array(matrix)
        at_start = self.read(whole, PreprocessingSteps(steps, width, None), given, matrix)
        at_start = replace(at_start, is_hypothetical=True, at_optimum=None)
        at_start.know_features(given, matrix)
        return _moved(at_start, curvature_of(at_start.problem(given), None, 0.0), np.ones(len(given)))


def _moved(
    model: LinearModel, start: LinearCurvature | SparseCurvature, weights: Array
) -> tuple[LinearModel, dict[str, Any]]:
    """The model at the optimum under these weights (n,), and how near to it the Newton steps ended."""
    parameters, taken = retrained_optimum(start, weights)
    if taken.residual[0] > FAR_GRADIENT_NORM:
        parameters, taken = retrained_optimum(start.reoptimised(), weights)
    moved = replace(model.with_parameters(parameters), is_hypothetical=True, at_optimum=None)
    return moved, {"gradient_norm": float(taken.residual[0]), "newton_steps": taken.steps}


def _written(final: Any, moved: LinearModel, columns: Sequence[str] | None) -> Any:
    """A new estimator with the settings of this one and the coefficients of the model."""
    new, at = clone(final), moved.coefficients()
    new.__dict__.update({name: value for name, value in vars(final).items() if name in OF_COLUMNS_AND_CLASSES})
    old = np.asarray(final.coef_)
    new.coef_ = at.values.reshape(*old.shape[:-1], at.values.shape[-1]).astype(old.dtype)
    intercept = np.asarray(final.intercept_)
    new.intercept_ = at.intercepts.reshape(intercept.shape) if at.has_intercept else final.intercept_
    new.n_features_in_ = at.values.shape[-1]
    if "feature_names_in_" in vars(new) and columns is not None:
        new.feature_names_in_ = np.asarray(columns, dtype=object)
    return new
