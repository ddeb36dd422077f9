"""ν-support vector machines of scikit-learn: their training objectives, and how they are retrained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import NuSVC, NuSVR

from upweight.core.examples import Examples
from upweight.core.model_reader import UnsupportedSettingsError
from upweight.core.objective import Objective
from upweight.core.weights import sample_weights, weighted_positions
from upweight.linear.features import Features
from upweight.linear.losses.nu import NuEpsilonLoss, NuHingeLoss
from upweight.models.sklearn.kernels import as_dense, fixed_width_note, named_kernel
from upweight.models.sklearn.linear_spec import Array, LinearSpec
from upweight.models.sklearn.support_vector_regression import require_support as require_tube
from upweight.models.sklearn.support_vector_regression import target_spread
from upweight.models.sklearn.support_vectors import class_pairs, pair_coefficients, require_support

NARROW = 10.0  # tolerances of the solver, within which a margin is not known
FREE = 1e-6  # a support vector on the margin is one whose coefficient is smaller than the largest by this share


def nu_svc(estimator: Any, matrix: Any, train: Examples, smoothing: float) -> LinearSpec:
    """NuSVC: a hinge per pair of classes, whose margin follows from ν. It does not use weights of classes."""
    kernel, pairs = named_kernel(estimator, estimator._gamma), class_pairs(estimator)
    coefficients, nu = pair_coefficients(estimator, pairs), float(estimator.nu)
    # The coefficients of a pair are divided by its margin, and sum to ν times the weights of its classes.
    weights = [sample_weights(train)[np.asarray(train.y) == label].sum() for label in estimator.classes_]
    sizes = np.abs(coefficients).sum(axis=1)
    margins = np.array([nu * (weights[i] + weights[j]) / size for (i, j), size in zip(pairs, sizes, strict=True)])
    try:
        require_support(estimator, matrix, train)
    except ValueError as error:
        raise _undetermined_margin(estimator, float(margins.min()), error) from error
    family = NuHingeLoss(estimator.classes_, smoothing, pairs if len(estimator.classes_) > 2 else None, nu, margins)
    return LinearSpec(
        family,
        Objective("sum", float(margins.mean())),
        np.zeros((len(pairs), 0)),
        np.asarray(estimator.intercept_, dtype=np.float64),
        kernel=kernel,
        support=(estimator.support_vectors_, coefficients),
        refit=NuHingeRefit(nu),
        notes=fixed_width_note(estimator),
    )


def _undetermined_margin(estimator: Any, margin: float, error: ValueError) -> ValueError:
    """The refusal of support vectors that a solver with this tolerance finds at random; else the error itself."""
    if margin > NARROW * float(estimator.tol):
        return error
    return ValueError(
        f"NuSVC with nu={estimator.nu:g} has a margin of {margin:.1g} here, which its tol of {estimator.tol:g} does "
        "not tell from 0, so that its support vectors are not those of an optimum. Raise nu; if classes do not "
        f"overlap, a lower tol helps too. If it was fitted on other data: {error}"
    )


def nu_svr(estimator: Any, matrix: Any, train: Examples, smoothing: float) -> LinearSpec:
    """NuSVR: the ε-insensitive loss, whose ε follows from ν."""
    if estimator.nu >= 1.0:
        raise UnsupportedSettingsError(
            f"expected NuSVR with nu below 1, got {estimator.nu}: without an example inside the tube, nothing "
            "determines its width"
        )
    kernel = named_kernel(estimator, estimator._gamma)
    epsilon = _found_epsilon(estimator, matrix, train)
    require_tube(estimator, matrix, train, epsilon)
    return LinearSpec(
        NuEpsilonLoss(epsilon, smoothing * target_spread(train), float(estimator.nu)),
        Objective("sum", 1.0 / estimator.C),
        np.zeros((1, 0)),
        np.asarray(estimator.intercept_, dtype=np.float64),
        kernel=kernel,
        support=(estimator.support_vectors_, as_dense(estimator.dual_coef_)),
        refit=NuTubeRefit(float(estimator.nu), float(estimator.C)),
        notes=fixed_width_note(estimator),
    )


def _found_epsilon(estimator: Any, matrix: Any, train: Examples) -> float:
    """Half the width of the tube: the distance of the support vectors on its edge, or of the nearest outside of it."""
    weighted = weighted_positions(train)
    rows = weighted[estimator.support_[estimator.support_ < len(weighted)]]
    distances = np.abs(np.asarray(train.y, np.float64)[rows] - estimator.predict(matrix[rows]))
    coefficients = np.abs(as_dense(estimator.dual_coef_).ravel()[: len(rows)])
    limits = float(estimator.C) * sample_weights(train)[rows]
    at_edge = coefficients < (1.0 - FREE) * limits
    return float(np.median(distances[at_edge]) if at_edge.any() else distances.min(initial=np.inf))


@dataclass(frozen=True)
class NuHingeRefit:
    """Retrains NuSVC, one output at a time, on the same features and to a tight tolerance."""

    nu: float

    def __call__(self, features: Features, targets: NDArray[Any], weights: Array) -> Array:
        """θ (K, d) of the classifiers trained with these example weights."""
        theta = np.zeros((targets.shape[1], features.width))
        for c in range(len(theta)):
            used = (weights > 0) & (targets[:, c] != 0)
            machine = NuSVC(kernel="linear", nu=self.nu, tol=1e-8, random_state=0)
            theta[c] = _fitted(machine, features, targets[:, c], weights, used)
        return theta


@dataclass(frozen=True)
class NuTubeRefit:
    """Retrains NuSVR on the same features, to a tight tolerance."""

    nu: float
    strength: float

    def __call__(self, features: Features, targets: NDArray[Any], weights: Array) -> Array:
        """θ (1, d) of the regression trained with these example weights."""
        machine = NuSVR(kernel="linear", nu=self.nu, C=self.strength, tol=1e-8)
        return _fitted(machine, features, targets[:, 0], weights, weights > 0)[None]


def _fitted(machine: Any, features: Features, targets: Array, weights: Array, used: NDArray[np.bool_]) -> Array:
    """θ (d,) of one machine fitted on these rows."""
    machine.fit(features.x[used], targets[used], sample_weight=weights[used])
    return np.append(as_dense(machine.coef_).ravel(), float(np.ravel(machine.intercept_)[0]) / features.intercept)
