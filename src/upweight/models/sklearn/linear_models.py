"""scikit-learn's linear models and support vector machines, and pipelines that end in one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.class_weight import compute_class_weight

from upweight.core.choices import require_choice
from upweight.core.examples import Examples
from upweight.core.input_kinds import is_sparse
from upweight.core.labels import require_labels
from upweight.core.measurement import Measurement
from upweight.core.objective import Objective
from upweight.core.weights import weighted_positions
from upweight.linear.design import Design
from upweight.linear.features import Features
from upweight.linear.model import LinearModel
from upweight.linear.model_cache import ModelCache
from upweight.models.fitted_estimators import require_fitted
from upweight.models.pipeline import last_step
from upweight.models.sklearn.column_scales import note_on_scales
from upweight.models.sklearn.cross_validated import chosen_estimator
from upweight.models.sklearn.forgetting import Forgetting
from upweight.models.sklearn.generalised_linear import (
    bayesian_ridge,
    elastic_net,
    huber,
    least_squares,
    logistic_regression,
    sgd,
    tweedie,
)
from upweight.models.sklearn.kernel_ridge import kernel_ridge
from upweight.models.sklearn.linear_spec import LinearSpec, LinearSpecReader
from upweight.models.sklearn.nu_machines import nu_svc, nu_svr
from upweight.models.sklearn.preprocessing import PreprocessingSteps
from upweight.models.sklearn.quantile_regression import quantile
from upweight.models.sklearn.stopping import may_be_unfinished, stopping_of
from upweight.models.sklearn.support_vector_regression import linear_svr, svr
from upweight.models.sklearn.support_vectors import linear_svc, svc

Array = NDArray[np.float64]
WITHOUT_CLASS_WEIGHTS = frozenset({"NuSVC"})  # libsvm takes them as factors of C, which ν-machines do not have
FAR_FROM_ZERO = 1e3  # standard deviations of a column, from which its offset costs digits

SPEC_READERS: dict[str, LinearSpecReader] = {
    "LogisticRegression": logistic_regression,
    "LinearRegression": least_squares,
    "Ridge": least_squares,
    "RidgeClassifier": least_squares,
    "PoissonRegressor": tweedie,
    "GammaRegressor": tweedie,
    "TweedieRegressor": tweedie,
    "LinearSVC": linear_svc,
    "SVC": svc,
    "LinearSVR": linear_svr,
    "SVR": svr,
    "NuSVC": nu_svc,
    "NuSVR": nu_svr,
    "KernelRidge": kernel_ridge,
    "BayesianRidge": bayesian_ridge,
    "ARDRegression": bayesian_ridge,
    "Lasso": elastic_net,
    "ElasticNet": elastic_net,
    "LassoLars": elastic_net,
    "HuberRegressor": huber,
    "QuantileRegressor": quantile,
    "SGDClassifier": sgd,
}


def reads(estimator: Any) -> bool:
    """Whether the estimator, or the last step of a pipeline, is one of these models."""
    return type(last_step(estimator)).__name__.removesuffix("CV") in SPEC_READERS


def read(
    estimator: Any,
    train: Examples,
    measure: Measurement,
    *,
    smoothing: float = 0.001,
    objective: Literal["sum", "mean"] | None = None,
    at: Literal["model", "optimum"] = "model",
) -> LinearModel:
    """The fitted estimator as a LinearModel."""
    require_choice("at", at, "model", "optimum")
    final = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    name = type(final).__name__
    final, choice_notes = chosen_estimator(final)
    require_fitted(final, name)
    require_labels(train)
    inputs = _inputs(estimator, final)
    chosen = (
        Pipeline([*estimator.steps[:-1], (estimator.steps[-1][0], final)]) if isinstance(estimator, Pipeline) else final
    )
    read_fixed = partial(_linear_model, measure=measure, smoothing=smoothing)
    matrix = inputs(train.x)
    model = read_fixed(chosen, inputs, train, matrix)
    model.know_features(train, matrix)
    model = replace(
        model,
        name=name,
        predictor=estimator,
        at_optimum=at == "optimum",
        notes=(*choice_notes, *model.notes),
        forgetting=Forgetting(read_fixed, model.objective),
    )
    query = model.parameter_query()
    if query is not None:
        model.measure(query)  # raises for an unknown column, or if columns have no coefficients
    return _with_reduction(model, train, objective)


def _linear_model(
    estimator: Any, inputs: PreprocessingSteps, train: Examples, matrix: Any, *, measure: Measurement, smoothing: float
) -> LinearModel:
    """The model of an estimator whose settings are fixed, whether or not it was fitted on these examples.

    `matrix` is what `inputs`, the steps before the last one, make of the examples.
    """
    final = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    Features(matrix, 0.0)  # refuses NaN, infinities and text before anything is computed from them
    read_spec = SPEC_READERS[type(final).__name__]
    spec = read_spec(final, matrix, train, smoothing)
    rows = weighted_positions(train)
    design, theta = _design(spec, inputs, matrix if len(rows) == len(train) else matrix[rows])
    stopping = None if spec.objective.l1 else stopping_of(final, matrix)
    return LinearModel(
        name=type(final).__name__,
        design=design,
        family=spec.family,
        objective=spec.objective,
        theta=theta,
        measurement_of=measure,
        predictor=estimator,
        class_weights=_class_weights(final, train),
        refit=spec.refit,
        fit_copy=None if spec.kernel is not None else _EstimatorRetraining(final, read_spec, inputs, smoothing),
        counts_examples=spec.counts_examples,
        unfinished=may_be_unfinished(final),
        stopping=None if stopping is None else replace(stopping, offset=design.offset),
        notes=(*spec.notes, *_notes_on_class_weights(final), *note_on_scales(final, matrix, spec.objective)),
        column_names=_column_names(inputs, train),
    )


def _inputs(estimator: Any, final: Any) -> PreprocessingSteps:
    """The steps before the last one, and the columns that the last one was fitted on."""
    steps = estimator[:-1] if isinstance(estimator, Pipeline) else None
    names = getattr(final, "feature_names_in_", None) if not steps else None
    return PreprocessingSteps(
        steps, getattr(final, "n_features_in_", None), None if names is None else tuple(map(str, names))
    )


def _column_names(inputs: PreprocessingSteps, train: Examples) -> tuple[str, ...] | None:
    """Names of the columns that enter the linear model: of the pipeline, the estimator or the training set."""
    given = None if train.names is None else tuple(map(str, train.names))
    return inputs.names if inputs.steps is not None else inputs.columns_named or given


def _with_reduction(model: LinearModel, train: Examples, reduction: Literal["sum", "mean"] | None) -> LinearModel:
    """The same objective on these examples as a sum or as a mean, which changes what removal means."""
    problem = model.problem(train)
    if reduction not in (None, "sum", "mean"):
        raise ValueError(f'expected objective "sum" or "mean", got {reduction!r}')
    if reduction in (None, model.objective.reduction):
        return model
    scale = float(problem.weights.sum()) if reduction == "mean" else 1.0
    return replace(
        model,
        objective=Objective(reduction, problem.ridge / scale, problem.l1 / scale),
        counts_examples=False,
        _cache=ModelCache(),
    )


@dataclass(frozen=True)
class _EstimatorRetraining:
    """Fits a clone of the estimator on the outputs of the same steps, which are not fitted again."""

    final: Any
    read_spec: LinearSpecReader
    inputs: PreprocessingSteps
    smoothing: float

    def __call__(self, train: Examples, weights: Array) -> tuple[Design, Array]:
        """The feature map of the retrained estimator, and its parameters."""
        matrix = self.inputs(train.x)
        total = weights if train.weights is None else weights * train.weights
        weighted = {} if (total == 1).all() else {"sample_weight": total}
        final = clone(self.final).fit(matrix, train.y, **weighted)
        return _column_design(self.read_spec(final, matrix, train, self.smoothing), self.inputs)


def _column_design(spec: LinearSpec, inputs: PreprocessingSteps) -> tuple[Design, Array]:
    """The feature map whose features are the columns themselves, and θ on them."""
    value = 0.0 if spec.intercepts is None else spec.intercept_value
    design, coefficients, scale = Design(inputs, value, spec.penalised_intercept), spec.coefficients, spec.column_scale
    if scale is not None:
        coefficients = np.divide(coefficients, scale, out=np.zeros_like(coefficients), where=scale > 0)
        design = design.scaled(scale)
    if spec.intercepts is None:
        return design, coefficients
    return design, np.hstack([coefficients, spec.intercepts[:, None] / value])


def _design(spec: LinearSpec, inputs: PreprocessingSteps, matrix: Any) -> tuple[Design, Array]:
    """The feature map and θ on it: Gram coordinates for a kernel, and if there are fewer examples than columns.

    `matrix` has the rows of weight above 0, which determine the model.
    """
    design, theta = _column_design(spec, inputs)
    is_wide = matrix.shape[0] < matrix.shape[1] and spec.objective.l2 > 0 and spec.objective.l1 == 0
    if spec.kernel is None and not is_wide:
        return _without_offset(design, theta, matrix)
    design = design.in_gram_coordinates(matrix, spec.kernel)
    coordinates = design.parameters(matrix, spec.coefficients if spec.support is None else spec.support)
    return design, np.hstack([coordinates, theta[:, spec.coefficients.shape[1] :]])


def _without_offset(design: Design, theta: Array, matrix: Any) -> tuple[Design, Array]:
    """The design and θ with columns far from 0 shifted to their means, if a free intercept takes up the shift."""
    if is_sparse(matrix) or not design.intercept or design.penalised_intercept:
        return design, theta
    columns = np.asarray(matrix, dtype=np.float64)
    means = columns.mean(axis=0)
    offset = np.where(np.abs(means) > FAR_FROM_ZERO * columns.std(axis=0), means, 0.0)
    if not offset.any():
        return design, theta
    shifted = theta.copy()
    on_columns = theta[:, :-1] if design.scale is None else theta[:, :-1] * design.scale
    shifted[:, -1] += on_columns @ offset / design.intercept
    return design.shifted(offset), shifted


def _notes_on_class_weights(estimator: Any) -> tuple[str, ...]:
    """A note if the classes have balanced weights, which are held fixed, or weights that training does not use."""
    class_weight = getattr(estimator, "class_weight", None)
    if class_weight is not None and type(estimator).__name__ in WITHOUT_CLASS_WEIGHTS:
        return (f"{type(estimator).__name__} does not use its class_weight: all classes weigh the same.",)
    if not isinstance(class_weight, str):
        return ()
    return (
        f"class_weight={class_weight!r}: the classes keep the weights of the full training set. Removals do not "
        "balance them anew, and retraining does not either.",
    )


def _class_weights(estimator: Any, train: Examples) -> dict[Any, float] | None:
    """The weight of each class in training; None if classes are not weighted."""
    given = getattr(estimator, "class_weight", None)
    if given is None or type(estimator).__name__ in WITHOUT_CLASS_WEIGHTS:
        return None
    more = {}
    # Newer versions of scikit-learn balance classes by sample weight in these two estimators.
    uses_weights = type(estimator).__name__ in ("LogisticRegression", "LinearSVC")
    if uses_weights and train.weights is not None and "sample_weight" in signature(compute_class_weight).parameters:
        more["sample_weight"] = train.weights
    weights = compute_class_weight(given, classes=estimator.classes_, y=train.y, **more)
    return dict(zip(estimator.classes_.tolist(), weights.tolist(), strict=True))
