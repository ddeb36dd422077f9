"""Support vector machines of scikit-learn: their training objectives, and how they are retrained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.svm import SVC

from upweight.core.examples import Examples
from upweight.core.model_reader import UnsupportedSettingsError
from upweight.core.objective import Objective
from upweight.linear.features import Features
from upweight.linear.losses.binary import SmoothHingeLoss, SquaredHingeLoss
from upweight.models.sklearn.kernels import as_dense, fixed_width_note, named_kernel
from upweight.models.sklearn.linear_spec import Array, LinearSpec, linear_spec_of, refuse_if

MARGIN_TOLERANCE = 0.05  # how far examples outside the margin may lie inside it: the tolerance of usual fits


def linear_svc(estimator: Any, matrix: Any, train: Examples, smoothing: float) -> LinearSpec:
    """LinearSVC: the squared hinge, or the smoothed hinge; one binary classifier per class."""
    refuse_if(estimator.penalty == "l1", "an l1 penalty", "use penalty='l2'")
    if estimator.multi_class != "ovr":
        raise UnsupportedSettingsError(
            f"expected one classifier per class, got multi_class={estimator.multi_class!r}, which trains all classes "
            "jointly; use multi_class='ovr'"
        )
    outputs = len(estimator.coef_)
    hinge = estimator.loss == "hinge"
    family = (
        SmoothHingeLoss(outputs, estimator.classes_, smoothing)
        if hinge
        else SquaredHingeLoss(outputs, estimator.classes_)
    )
    scale = float(estimator.intercept_scaling) if estimator.fit_intercept else 1.0
    return linear_spec_of(
        estimator,
        Objective("sum", 1.0 / estimator.C),
        family,
        intercept_value=scale,
        penalised_intercept=True,
        refit=HingeRefit(estimator, is_kernel=False) if hinge else None,
    )


def svc(estimator: Any, matrix: Any, train: Examples, smoothing: float) -> LinearSpec:
    """SVC: the smoothed hinge in the coordinates of its kernel; one binary classifier per pair of classes."""
    count, pairs = len(estimator.classes_), class_pairs(estimator)
    kernel = named_kernel(estimator, estimator._gamma)
    require_support(estimator, matrix, train)
    family = SmoothHingeLoss(len(pairs), estimator.classes_, smoothing, pairs if count > 2 else None)
    support = (estimator.support_vectors_, pair_coefficients(estimator, pairs))
    return LinearSpec(
        family,
        Objective("sum", 1.0 / estimator.C),
        np.zeros((len(pairs), 0)),
        np.asarray(estimator.intercept_, dtype=np.float64),
        kernel=kernel,
        support=support,
        refit=HingeRefit(estimator, is_kernel=True),
        notes=fixed_width_note(estimator),
    )


def class_pairs(estimator: Any) -> NDArray[np.intp]:
    """The two class positions of every binary classifier, (K, 2)."""
    count = len(estimator.classes_)
    return np.array([(i, j) for i in range(count) for j in range(i + 1, count)], dtype=np.intp)


def require_support(estimator: Any, matrix: Any, train: Examples) -> None:
    """Raise ValueError for rows or labels that are not those of the fit.

    Support vectors and their classes have to match exactly, and all other rows have to lie outside the margin.
    """
    # libsvm numbers only the rows of positive weight.
    weighted = np.arange(len(train)) if train.weights is None else np.flatnonzero(train.weights)
    matrix, rows, y = matrix[weighted], estimator.support_, np.asarray(train.y)[weighted]
    matches = max(rows) < matrix.shape[0] and np.allclose(as_dense(matrix[rows]), as_dense(estimator.support_vectors_))
    if matches:
        matches = bool(np.array_equal(y[rows], np.repeat(estimator.classes_, estimator.n_support_)))
    others = np.setdiff1d(np.arange(matrix.shape[0]), rows)
    if matches and not len(others):
        return
    if matches and len(estimator.classes_) == 2:  # with more classes a prediction is a vote, which is a weaker check
        signed = estimator.decision_function(matrix[others]) * np.where(y[others] == estimator.classes_[1], 1, -1)
        matches = bool((signed >= 1 - MARGIN_TOLERANCE).all())
    elif matches:
        matches = bool(np.array_equal(estimator.predict(matrix[others]), y[others]))
    if not matches:
        raise ValueError(
            f"expected the data that {type(estimator).__name__} was fitted on, got rows and labels that do not fit its "
            "support vectors; pass the same rows in the same order, with the same labels, as to fit()"
        )


def pair_coefficients(estimator: Any, pairs: NDArray[np.intp]) -> Array:
    """α y of every support vector for every pair of classes, (pairs, support vectors).

    libsvm stores those of pair (i, j) in row j − 1 for the vectors of class i, and in row i for those of class j.
    """
    dual = as_dense(estimator.dual_coef_)
    if len(estimator.classes_) == 2:
        return dual
    edges = np.concatenate([[0], np.cumsum(estimator.n_support_)])
    out = np.zeros((len(pairs), dual.shape[1]))
    for row, (i, j) in enumerate(pairs):
        out[row, edges[i] : edges[i + 1]] = dual[j - 1, edges[i] : edges[i + 1]]
        out[row, edges[j] : edges[j + 1]] = dual[i, edges[j] : edges[j + 1]]
    return out


@dataclass(frozen=True)
class HingeRefit:
    """Retrains the estimator itself, one output at a time, on the same features and to a tight tolerance."""

    estimator: Any
    is_kernel: bool

    def __call__(self, features: Features, targets: NDArray[Any], weights: Array) -> Array:
        """θ (K, d) of the classifiers trained with these example weights."""
        theta = np.zeros((targets.shape[1], features.width))
        for c in range(len(theta)):
            used = (weights > 0) & (targets[:, c] != 0)
            if self.is_kernel:
                classifier = SVC(kernel="linear", C=self.estimator.C, tol=1e-8)
            else:
                classifier = clone(self.estimator).set_params(
                    tol=1e-8, max_iter=2_000_000, class_weight=None, random_state=0
                )
            classifier.fit(features.x[used], targets[used, c], sample_weight=weights[used])
            theta[c, : features.columns] = np.asarray(classifier.coef_).ravel()
            if features.intercept:
                theta[c, -1] = classifier.intercept_.item() / features.intercept
        return theta
