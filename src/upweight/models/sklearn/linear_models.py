"""scikit-learn: linear models, support vector machines, and pipelines that end in one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import check_is_fitted

from upweight.core.examples import Examples
from upweight.core.measurement import Measurement
from upweight.core.objective import Objective
from upweight.core.weights import weighted_positions
from upweight.linear.design import Design
from upweight.linear.families import Family, Logistic, Softmax, Squared, Tweedie
from upweight.linear.features import Features
from upweight.linear.model import LinearModel
from upweight.models.pipeline import last_step
from upweight.models.sklearn.cross_validated import chosen_estimator
from upweight.models.sklearn.linear_spec import LinearSpec, linear_spec_of, refuse
from upweight.models.sklearn.preprocessing import PreprocessingSteps
from upweight.models.sklearn.support_vectors import HingeRefit, linear_svc, svc

Array = NDArray[np.float64]


def reads(estimator: Any) -> bool:
    """Whether the estimator, or the last step of a pipeline, has a closed form here."""
    return type(last_step(estimator)).__name__.removesuffix("CV") in READERS


def read(
    estimator: Any,
    train: Examples,
    measure: Measurement,
    *,
    smoothing: float = 0.001,
    objective: Literal["sum", "mean"] | None = None,
) -> LinearModel:
    """The estimator as a LinearModel."""
    final = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    name = type(final).__name__
    final, held = chosen_estimator(final)
    reader = READERS[type(final).__name__.removesuffix("CV")]
    try:
        check_is_fitted(final)
    except NotFittedError:
        raise ValueError(f"this {name} is not fitted; call fit(x, y) on the training set first") from None
    if train.y is None:
        raise ValueError("the training set has no labels; pass Examples(x, y) with the y the model was fitted on")
    steps = estimator[:-1] if isinstance(estimator, Pipeline) else None
    names = getattr(final, "feature_names_in_", None) if not steps else None
    inputs = PreprocessingSteps(
        steps, getattr(final, "n_features_in_", None), None if names is None else tuple(map(str, names))
    )
    matrix = inputs(train.x)
    Features(matrix, 0.0)  # refuses NaN, infinities and text before anything is made of them
    spec = reader(final, matrix, train, smoothing)
    counted = weighted_positions(train)
    design, theta = _design(spec, inputs, matrix if len(counted) == len(train) else matrix[counted])
    model = LinearModel(
        name=name,
        design=design,
        family=spec.family,
        objective=spec.objective,
        theta=theta,
        measurement_of=measure,
        predictor=estimator,
        class_weights=_class_weights(final, train),
        refit=HingeRefit(final, spec.kernel is not None) if spec.hinge else None,
        again=None if spec.kernel is not None else _EstimatorRetraining(final, reader, inputs, smoothing),
        counts_examples=spec.counts_examples,
        unfinished=_unfinished(final),
        notes=(*held, *spec.notes),
    )
    return _reduced(model, train, objective)


def unsupported(final: Any) -> TypeError:
    """The error for an estimator that nobody reads."""
    return TypeError(
        f"{type(final).__name__} has no closed form here; supported, also at the end of a Pipeline: "
        f"{', '.join(sorted(READERS))}, the CV forms of three of them, and boosters and forests. {_instead(final)}"
    )


def _instead(final: Any) -> str:
    """What to do with an estimator that is not read."""
    if hasattr(final, "named_parameters"):
        return "A torch.nn.Module goes through uw.TorchModel(net, loss)"
    inside = next((name for name in ("best_estimator_", "estimator", "base_estimator") if hasattr(final, name)), None)
    if inside == "best_estimator_":
        return "Pass the estimator that the search found: its best_estimator_"
    if inside is not None:
        return f"Fit the estimator inside it ({inside}=) to the training set, and explain that one"
    return "The leave-one-out method needs no closed form, only a subclass of upweight.core.model.Retrainable"


def _reduced(model: LinearModel, train: Examples, reduction: Literal["sum", "mean"] | None) -> LinearModel:
    """The same objective on these examples, with another meaning of removal."""
    problem = model.problem(train)
    if reduction not in (None, "sum", "mean"):
        raise ValueError(f'expected objective "sum" or "mean", got {reduction!r}')
    if reduction in (None, model.objective.reduction):
        return model
    l2 = problem.ridge / (float(problem.weights.sum()) if reduction == "mean" else 1.0)
    return replace(model, objective=Objective(reduction, l2), counts_examples=False, _seen={})


@dataclass(frozen=True)
class _EstimatorRetraining:
    """Fits a fresh copy of an estimator behind the same steps."""

    final: Any
    reader: Callable[[Any, Any, Examples, float], LinearSpec]
    inputs: PreprocessingSteps
    smoothing: float

    def __call__(self, train: Examples, weights: Array) -> tuple[Design, Array]:
        matrix = self.inputs(train.x)
        total = weights if train.weights is None else weights * train.weights
        weighted = {} if (total == 1).all() else {"sample_weight": total}
        final = clone(self.final).fit(matrix, train.y, **weighted)
        return _on_columns(self.reader(final, matrix, train, self.smoothing), self.inputs)


def _on_columns(spec: LinearSpec, inputs: PreprocessingSteps) -> tuple[Design, Array]:
    """The columns themselves as features, and θ on them."""
    value = 0.0 if spec.intercepts is None else spec.intercept_value
    design = Design(inputs, value, spec.penalised_intercept)
    if spec.intercepts is None:
        return design, spec.coefficients
    return design, np.hstack([spec.coefficients, spec.intercepts[:, None] / value])


def _design(spec: LinearSpec, inputs: PreprocessingSteps, matrix: Any) -> tuple[Design, Array]:
    """The feature map and θ on it: Gram coordinates for a kernel, and where there are fewer examples than columns.

    `matrix` holds the rows that the model was made of, those of weight above 0.
    """
    design, theta = _on_columns(spec, inputs)
    wide = matrix.shape[0] < matrix.shape[1] and spec.objective.l2 > 0
    if spec.kernel is None and not wide:
        return design, theta
    design = design.in_gram_coordinates(matrix, spec.kernel)
    body = design.parameters(matrix, spec.coefficients if spec.support is None else spec.support)
    return design, np.hstack([body, theta[:, spec.coefficients.shape[1] :]])


def _unfinished(final: Any) -> bool:
    """SGD stops by its own rule; the others when max_iter is used up."""
    used = getattr(final, "n_iter_", None)
    most, used = getattr(final, "max_iter", None), 0 if used is None else np.max(used)
    return type(final).__name__ == "SGDClassifier" or (most is not None and most > 0 and bool(used >= most))


def _class_weights(final: Any, train: Examples) -> dict[Any, float] | None:
    given = getattr(final, "class_weight", None)
    if given is None:
        return None
    more = {}
    # Newer scikit-learn balances by sample weight, where these two do it.
    weighs = type(final).__name__ in ("LogisticRegression", "LinearSVC")
    if weighs and train.weights is not None and "sample_weight" in signature(compute_class_weight).parameters:
        more["sample_weight"] = train.weights
    weights = compute_class_weight(given, classes=final.classes_, y=train.y, **more)
    return dict(zip(final.classes_.tolist(), weights.tolist(), strict=True))


def _logistic_regression(final: Any, inputs: Any, train: Examples, smoothing: float) -> LinearSpec:
    penalty = getattr(final, "penalty", "deprecated")
    ratio = getattr(final, "l1_ratio", None)
    l1 = penalty in ("l1", "elasticnet") or (penalty == "deprecated" and ratio not in (None, 0, 0.0))
    refuse(l1 and not (penalty == "elasticnet" and ratio == 0), "an l1 penalty", "use penalty l2 (l1_ratio=0)")
    l2 = 0.0 if penalty in (None, "none") or np.isinf(final.C) else 1.0 / final.C
    objective = Objective("sum", l2)
    liblinear = final.solver == "liblinear"
    scale = float(final.intercept_scaling) if liblinear and final.fit_intercept else 1.0
    if len(final.classes_) == 2 or liblinear or getattr(final, "multi_class", None) == "ovr":
        family: Family = Logistic(len(np.atleast_2d(final.coef_)), final.classes_)
        return linear_spec_of(final, objective, family, intercept_value=scale, penalised_intercept=liblinear)
    return _reference(linear_spec_of(final, objective, Softmax(final.classes_)))


def _reference(spec: LinearSpec) -> LinearSpec:
    """Differences to the last class."""
    coefficients, intercepts = spec.coefficients, spec.intercepts
    shifted = None if intercepts is None else intercepts[:-1] - intercepts[-1]
    return replace(spec, coefficients=coefficients[:-1] - coefficients[-1], intercepts=shifted)


def _least_squares(final: Any, inputs: Any, train: Examples, smoothing: float) -> LinearSpec:
    refuse(bool(getattr(final, "positive", False)), "a model with positive=True", "fit without the constraint")
    alpha = getattr(final, "alpha", 0.0)
    if np.ndim(alpha) != 0:
        raise ValueError("expected one alpha for all targets; fit one Ridge per target instead")
    classes = getattr(final, "classes_", None)
    outputs = len(np.atleast_2d(final.coef_))
    return linear_spec_of(final, Objective("sum", float(alpha)), Squared(outputs, classes))


def _generalised(final: Any, inputs: Any, train: Examples, smoothing: float) -> LinearSpec:
    power = {"PoissonRegressor": 1.0, "GammaRegressor": 2.0}.get(type(final).__name__)
    power = float(final.power) if power is None else power
    link = getattr(final, "link", "log")
    log_link = link == "log" or (link == "auto" and power > 0)
    return linear_spec_of(final, Objective("mean", float(final.alpha)), Tweedie(power, log_link))


def _sgd(final: Any, inputs: Any, train: Examples, smoothing: float) -> LinearSpec:
    if final.loss != "log_loss":
        raise ValueError(f"expected SGDClassifier(loss='log_loss'), got {final.loss!r}; LinearSVC covers the hinge")
    refuse(final.penalty not in ("l2", None), f"penalty {final.penalty!r}", "use penalty='l2'")
    l2 = 0.0 if final.penalty is None else float(final.alpha)
    return linear_spec_of(
        final, Objective("mean", l2), Logistic(len(final.coef_), final.classes_), counts_examples=True
    )


READERS: dict[str, Callable[[Any, Any, Examples, float], LinearSpec]] = {
    "LogisticRegression": _logistic_regression,
    "LinearRegression": _least_squares,
    "Ridge": _least_squares,
    "RidgeClassifier": _least_squares,
    "PoissonRegressor": _generalised,
    "GammaRegressor": _generalised,
    "TweedieRegressor": _generalised,
    "LinearSVC": linear_svc,
    "SVC": svc,
    "SGDClassifier": _sgd,
}
