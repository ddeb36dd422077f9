"""The training objectives of scikit-learn's generalised linear models: logistic, least squares, Tweedie and SGD."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from upweight.core.examples import Examples
from upweight.core.model_reader import UnsupportedSettingsError
from upweight.core.objective import Objective
from upweight.linear.losses.binary import LogisticLoss
from upweight.linear.losses.huber import HuberLoss
from upweight.linear.losses.loss import LinearLoss
from upweight.linear.losses.softmax import SoftmaxLoss
from upweight.linear.losses.squared import SquaredLoss
from upweight.linear.losses.tweedie import TweedieLoss
from upweight.models.sklearn.linear_spec import LinearSpec, linear_spec_of, refuse_if


def logistic_regression(estimator: Any, matrix: Any, train: Examples, smoothing: float) -> LinearSpec:
    """LogisticRegression: one output for two classes, one per class for one-versus-rest, else softmax."""
    penalty, liblinear = getattr(estimator, "penalty", "deprecated"), estimator.solver == "liblinear"
    given = getattr(estimator, "l1_ratio", None) or 0.0
    ratio = {"l1": 1.0, "l2": 0.0, None: 0.0, "none": 0.0}.get(penalty, float(given))
    refuse_if(ratio > 0 and liblinear, "an l1 penalty of the intercept too", "use solver='saga'")
    refuse_if(
        ratio > 0 and len(estimator.classes_) > 2, "an l1 penalty of several classes", "use penalty l2 (l1_ratio=0)"
    )
    strength = 0.0 if penalty in (None, "none") or np.isinf(estimator.C) else 1.0 / estimator.C
    objective = Objective("sum", strength * (1.0 - ratio), strength * ratio)
    scale = float(estimator.intercept_scaling) if liblinear and estimator.fit_intercept else 1.0
    if len(estimator.classes_) == 2 or liblinear or getattr(estimator, "multi_class", None) == "ovr":
        family: LinearLoss = LogisticLoss(len(np.atleast_2d(estimator.coef_)), estimator.classes_)
        return linear_spec_of(estimator, objective, family, intercept_value=scale, penalised_intercept=liblinear)
    return _relative_to_last_class(linear_spec_of(estimator, objective, SoftmaxLoss(estimator.classes_)))


def _relative_to_last_class(spec: LinearSpec) -> LinearSpec:
    """The parameters as differences from those of the last class, which then has none."""
    coefficients, intercepts = spec.coefficients, spec.intercepts
    differences = None if intercepts is None else intercepts[:-1] - intercepts[-1]
    return replace(spec, coefficients=coefficients[:-1] - coefficients[-1], intercepts=differences)


def least_squares(estimator: Any, matrix: Any, train: Examples, smoothing: float) -> LinearSpec:
    """LinearRegression, Ridge and RidgeClassifier."""
    positive = bool(getattr(estimator, "positive", False))
    refuse_if(positive, "a model with positive=True", "fit without the constraint")
    alpha = getattr(estimator, "alpha", 0.0)
    if np.ndim(alpha) != 0:
        raise UnsupportedSettingsError(
            f"expected one alpha for all targets, got {np.size(alpha)}; fit one Ridge per target instead"
        )
    classes = getattr(estimator, "classes_", None)
    outputs = len(np.atleast_2d(estimator.coef_))
    return linear_spec_of(estimator, Objective("sum", float(alpha)), SquaredLoss(outputs, classes))


def elastic_net(estimator: Any, matrix: Any, train: Examples, smoothing: float) -> LinearSpec:
    """Lasso, ElasticNet and LassoLars: half the mean squared error, with an l1 and an l2."""
    name = type(estimator).__name__
    refuse_if(bool(estimator.positive), "a model with positive=True", "fit without the constraint")
    if np.ndim(estimator.coef_) != 1:
        raise UnsupportedSettingsError(
            f"expected {name} with one target, got {len(estimator.coef_)}; fit one {name} per target instead"
        )
    ratio = float(getattr(estimator, "l1_ratio", 1.0))
    objective = Objective("mean", float(estimator.alpha) * (1.0 - ratio), float(estimator.alpha) * ratio)
    return linear_spec_of(estimator, objective, SquaredLoss(1))


def huber(estimator: Any, matrix: Any, train: Examples, smoothing: float) -> LinearSpec:
    """HuberRegressor: the Huber loss at the scale that it found together with its coefficients."""
    family = HuberLoss(float(estimator.epsilon), float(estimator.scale_))
    return linear_spec_of(estimator, Objective("sum", 2.0 * float(estimator.alpha)), family)


def bayesian_ridge(estimator: Any, matrix: Any, train: Examples, smoothing: float) -> LinearSpec:
    """BayesianRidge and ARDRegression: ridge regression at the precisions that they found."""
    penalties = np.asarray(estimator.lambda_, dtype=np.float64) / float(estimator.alpha_)
    held = "were chosen from the data and are held fixed: removals do not change them."
    if penalties.ndim == 0:
        l2 = float(penalties)
        note = f"The precisions of noise and weights (an l2 of {l2:.4g}) {held}"
        return linear_spec_of(estimator, Objective("sum", l2), SquaredLoss(1), notes=(note,))
    is_used = estimator.lambda_ < estimator.threshold_lambda
    note = (
        f"The precisions of noise and of every weight, by which {int((~is_used).sum())} of {len(is_used)} columns have "
        f"no weight, {held}"
    )
    # An l2 of 1 on a scaled column is one of 1/scale² on the column.
    l2 = float(np.exp(np.log(penalties[is_used]).mean())) if is_used.any() else 1.0
    scale = np.where(is_used, np.sqrt(l2 / penalties), 0.0)
    return linear_spec_of(estimator, Objective("sum", l2), SquaredLoss(1), column_scale=scale, notes=(note,))


def tweedie(estimator: Any, matrix: Any, train: Examples, smoothing: float) -> LinearSpec:
    """PoissonRegressor, GammaRegressor and TweedieRegressor."""
    power = {"PoissonRegressor": 1.0, "GammaRegressor": 2.0}.get(type(estimator).__name__)
    power = float(estimator.power) if power is None else power
    link = getattr(estimator, "link", "log")
    log_link = link == "log" or (link == "auto" and power > 0)
    return linear_spec_of(estimator, Objective("mean", float(estimator.alpha)), TweedieLoss(power, log_link))


def sgd(estimator: Any, matrix: Any, train: Examples, smoothing: float) -> LinearSpec:
    """SGDClassifier with the logistic loss; its mean is over examples, whatever their weights."""
    if estimator.loss != "log_loss":
        raise UnsupportedSettingsError(
            f"expected SGDClassifier(loss='log_loss'), got {estimator.loss!r}; for the hinge use LinearSVC instead"
        )
    penalty = estimator.penalty
    refuse_if(penalty not in ("l2", None), f"penalty {penalty!r}", "use penalty='l2'")
    objective = Objective("mean", 0.0 if penalty is None else float(estimator.alpha))
    family = LogisticLoss(len(estimator.coef_), estimator.classes_)
    return linear_spec_of(estimator, objective, family, counts_examples=True)
