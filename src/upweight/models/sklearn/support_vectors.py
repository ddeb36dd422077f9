"""Support vector machines of scikit-learn, read and trained again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.svm import SVC

from upweight.core.examples import Examples
from upweight.core.objective import Objective
from upweight.linear.families import SmoothHinge, SquaredHinge
from upweight.linear.features import Features
from upweight.models.sklearn.linear_spec import Array, LinearSpec, linear_spec_of, refuse

SLACK = 0.05  # by which an example beside the margin may miss it: the tolerance of usual fits


@dataclass(frozen=True)
class _Kernel:
    """A named kernel with its settings."""

    name: str
    settings: dict[str, Any]

    def __call__(self, a: Any, b: Any) -> Array:
        return np.asarray(pairwise_kernels(a, b, metric=self.name, filter_params=True, **self.settings))


def linear_svc(final: Any, inputs: Any, train: Examples, smoothing: float) -> LinearSpec:
    """LinearSVC: squared hinge as it is, hinge smoothed; one machine per class."""
    refuse(final.penalty == "l1", "an l1 penalty", "use penalty='l2'")
    if final.multi_class != "ovr":
        raise ValueError("multi_class='crammer_singer' is one joint machine; use multi_class='ovr'")
    outputs = len(final.coef_)
    hinge = final.loss == "hinge"
    family = SmoothHinge(outputs, final.classes_, smoothing) if hinge else SquaredHinge(outputs, final.classes_)
    scale = float(final.intercept_scaling) if final.fit_intercept else 1.0
    notes = (_smoothed(smoothing),) if hinge else ()
    return linear_spec_of(
        final,
        Objective("sum", 1.0 / final.C),
        family,
        intercept_value=scale,
        penalised_intercept=True,
        hinge=hinge,
        notes=notes,
    )


def svc(final: Any, inputs: Any, train: Examples, smoothing: float) -> LinearSpec:
    """SVC: the hinge, smoothed, in the coordinates of its kernel; one machine per pair of classes."""
    if callable(final.kernel) or final.kernel == "precomputed":
        raise ValueError("a precomputed or callable kernel cannot be evaluated on queries here; name a kernel")
    if final.kernel == "sigmoid":
        raise ValueError("the sigmoid kernel is no inner product, so it has no coordinates; use rbf, poly or linear")
    count = len(final.classes_)
    pairs = np.array([(i, j) for i in range(count) for j in range(i + 1, count)])
    kernel = _Kernel(final.kernel, {"gamma": final._gamma, "degree": final.degree, "coef0": final.coef0})
    _recognise_support(final, inputs, train)
    family = SmoothHinge(len(pairs), final.classes_, smoothing, pairs if count > 2 else None)
    support = (final.support_vectors_, _pair_coefficients(final, pairs))
    return LinearSpec(
        family,
        Objective("sum", 1.0 / final.C),
        np.zeros((len(pairs), 0)),
        np.asarray(final.intercept_, dtype=np.float64),
        kernel=kernel,
        support=support,
        hinge=True,
        notes=(_smoothed(smoothing),),
    )


def _recognise_support(final: Any, inputs: Any, train: Examples) -> None:
    """Refuse rows or labels that are not those of the fit: support vectors and their classes are known exactly."""
    # libsvm counts the rows of positive weight alone.
    counted = np.arange(len(train)) if train.weights is None else np.flatnonzero(train.weights)
    inputs, rows, y = inputs[counted], final.support_, np.asarray(train.y)[counted]
    same = max(rows) < inputs.shape[0] and np.allclose(_dense(inputs[rows]), _dense(final.support_vectors_))
    if same:
        same = bool(np.array_equal(y[rows], np.repeat(final.classes_, final.n_support_)))
    if same and len(final.classes_) == 2:  # with more classes a prediction is a vote, which says less
        bounded = np.setdiff1d(np.arange(inputs.shape[0]), rows)
        signed = final.decision_function(inputs[bounded]) * np.where(y[bounded] == final.classes_[1], 1, -1)
        same = bool((signed >= 1 - SLACK).all())
    elif same:
        others = np.setdiff1d(np.arange(inputs.shape[0]), rows)
        same = bool(np.array_equal(final.predict(inputs[others]), y[others]))
    if not same:
        raise ValueError(
            "expected the data that SVC was fitted on: these rows and labels do not fit its support vectors; pass the "
            "same rows in the same order, with the same labels, as to fit()"
        )


def _dense(x: Any) -> Array:
    return np.asarray(x.toarray() if hasattr(x, "toarray") else x, dtype=np.float64)


def _pair_coefficients(final: Any, pairs: Array) -> Array:
    """libsvm keeps α y of pair (i, j) in row j−1 for class i's vectors and in row i for class j's."""
    dual = _dense(final.dual_coef_)
    if len(final.classes_) == 2:
        return dual
    edges = np.concatenate([[0], np.cumsum(final.n_support_)])
    out = np.zeros((len(pairs), dual.shape[1]))
    for row, (i, j) in enumerate(pairs):
        out[row, edges[i] : edges[i + 1]] = dual[j - 1, edges[i] : edges[i + 1]]
        out[row, edges[j] : edges[j + 1]] = dual[i, edges[j] : edges[j + 1]]
    return out


def _smoothed(smoothing: float) -> str:
    return (
        f"The hinge has no curvature: influence is taken on the hinge smoothed at temperature {smoothing:g}, at the "
        "weights of the hinge fit."
    )


@dataclass(frozen=True)
class HingeRefit:
    """Train the machine itself again, one output at a time, on the same features and to a tight tolerance."""

    machine: Any
    is_kernel: bool

    def __call__(self, features: Features, targets: NDArray[Any], weights: Array) -> Array:
        """θ (K, d) of the machines trained with these example weights."""
        theta = np.zeros((targets.shape[1], features.width))
        for c in range(len(theta)):
            seen = (weights > 0) & (targets[:, c] != 0)
            if self.is_kernel:
                machine = SVC(kernel="linear", C=self.machine.C, tol=1e-8)
            else:
                machine = clone(self.machine).set_params(
                    tol=1e-8, max_iter=2_000_000, class_weight=None, random_state=0
                )
            machine.fit(features.x[seen], targets[seen, c], sample_weight=weights[seen])
            theta[c, : features.columns] = np.asarray(machine.coef_).ravel()
            if features.intercept:
                theta[c, -1] = machine.intercept_.item() / features.intercept
        return theta
