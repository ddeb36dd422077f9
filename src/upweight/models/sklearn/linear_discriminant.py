"""LinearDiscriminantAnalysis of scikit-learn: one normal distribution per class, with a common covariance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from sklearn.covariance import ledoit_wolf

from upweight.core.forecast import counted
from upweight.core.model_reader import UnsupportedSettingsError
from upweight.linear.losses.class_scores import LogScoreLoss
from upweight.models.sklearn.class_priors import ClassPriors
from upweight.models.sklearn.closed_form_spec import FormSpec
from upweight.models.sklearn.outputs_by_weights import Array, ClosedForm

SINGULAR = 1e-10  # share of the scatter's curvature below which a removal leaves no regular covariance
ALONE = "without it the covariance of its class would be singular"


def linear_discriminant(estimator: Any) -> list[FormSpec]:
    """LinearDiscriminantAnalysis with any solver; its versions divide the scatter of `svd` by n or n − K."""
    if getattr(estimator, "covariance_estimator", None) is not None:
        raise UnsupportedSettingsError(
            "expected LinearDiscriminantAnalysis without covariance_estimator, got one, whose estimates without an "
            "example have no closed form; use shrinkage=, or leave it out"
        )
    classes, is_svd = len(estimator.classes_), estimator.solver == "svd"
    priors = ClassPriors.of(classes, estimator.priors)
    settings: dict[str, Any] = {"priors": priors, "shrinkage": estimator.shrinkage, "is_centred": is_svd}
    lost = (0, classes) if is_svd else (0,)
    forms = [partial(LinearDiscriminantForm, lost_degrees=degrees, **settings) for degrees in lost]
    return [FormSpec(LogScoreLoss(estimator.classes_, has_decision=True), form, takes_weights=False) for form in forms]


class _Normals(NamedTuple):
    """For every class the weight (K,) and the mean (K, d); and the inverse of the common covariance (d, d)."""

    counts: Array
    means: Array
    precision: Array


@dataclass(frozen=True, eq=False)
class LinearDiscriminantForm(ClosedForm):
    """Linear discriminant scores.

    Attributes:
        priors: the prior probabilities of the classes.
        shrinkage: None, a share, or "auto" (Ledoit–Wolf), as in scikit-learn.
        is_centred: scores are taken about the mean of all classes, as the solver `svd` does.
        lost_degrees: what is subtracted from the number of examples that the scatter is divided by.
    """

    priors: ClassPriors
    shrinkage: Any
    is_centred: bool
    lost_degrees: int

    def fitted(self, factors: Array) -> _Normals:
        """Weights and means of the classes, and the inverse of the covariance."""
        weights = factors * self.weights
        counts = self.priors.count(self.targets, weights)
        means = np.zeros((len(counts), self.x.shape[1]))
        np.add.at(means, self.targets, weights[:, None] * self.x)
        means /= counts[:, None]
        return _Normals(counts, means, inverse_covariance(self._covariance(weights, counts, means)))

    def outputs(self, fitted: _Normals, x: Any) -> Array:
        """Scores (m, K)."""
        priors = self.priors.probabilities(fitted.counts)
        centre = priors @ fitted.means if self.is_centred else np.zeros(x.shape[1])
        means = fitted.means - centre
        directions = means @ fitted.precision
        return np.asarray(
            (x - centre) @ directions.T - 0.5 * (directions * means).sum(axis=1) + self.priors.logs(fitted.counts)
        )

    def outputs_without(self, positions: NDArray[np.intp], x: Any) -> Array:
        """Rank-one changes of the scatter, if the covariance is the scatter over a number of examples."""
        if not self._is_scatter:
            return super().outputs_without(positions, x)
        counts, means, precision = self._full
        label, weight = self.targets[positions], self.weights[positions]
        remaining = counts[label] - weight
        deviation = self.x[positions] - means[label]
        # W without i is W − f d dᵀ; with u = W⁻¹d, its inverse is W⁻¹ + g u uᵀ.
        inverse = precision / (counts.sum() - self.lost_degrees)
        solved = deviation @ inverse
        factor = weight * counts[label] / remaining
        gain = factor / (1.0 - factor * (deviation * solved).sum(axis=1))
        degrees = counts.sum() - weight - self.lost_degrees

        all_counts = np.repeat(counts[None], len(positions), axis=0)
        all_counts[np.arange(len(positions)), label] = remaining
        priors = self.priors.probabilities(all_counts)
        shift = np.zeros((len(positions), len(counts)))  # means of the classes move by multiples of the deviation
        shift[np.arange(len(positions)), label] = -weight / remaining
        if self.is_centred:
            shift_of_centre = (priors * shift).sum(axis=1)
            centres = priors @ means
            own = means[None] - centres[:, None]  # (b, K, d), before the shift
            shift = shift - shift_of_centre[:, None]
        else:
            shift_of_centre, centres = np.zeros(len(positions)), np.zeros((1, means.shape[1]))
            own = np.broadcast_to(means, (len(positions), *means.shape))
        out = np.empty((len(x), len(positions), len(counts)))
        for b in counted(range(len(positions)), len(positions)):
            class_means = own[b] + shift[b][:, None] * deviation[b]
            directions = class_means @ inverse
            directions += gain[b] * np.outer(class_means @ solved[b], solved[b])
            directions *= degrees[b]
            centre = centres[b if self.is_centred else 0] + shift_of_centre[b] * deviation[b]
            out[:, b] = (x - centre) @ directions.T - 0.5 * (directions * class_means).sum(axis=1)
        return out + self.priors.logs(all_counts)

    def refusals(self) -> dict[int, str]:
        """Examples without which the covariance would be singular."""
        if not self._is_scatter:
            return {}
        counts, means, precision = self._full
        deviation = self.x - means[self.targets]
        squares = (deviation @ precision * deviation).sum(axis=1) / (counts.sum() - self.lost_degrees)
        remaining = counts[self.targets] - self.weights
        with np.errstate(divide="ignore", invalid="ignore"):
            left = 1.0 - squares * self.weights * counts[self.targets] / remaining
        return {int(i): ALONE for i in np.flatnonzero((remaining > 0) & (left < SINGULAR))}

    @property
    def _is_scatter(self) -> bool:
        """Whether the covariance is the scatter within classes over a number of examples."""
        return self.is_centred or (self.shrinkage is None and self.priors.given is None)

    @cached_property
    def _full(self) -> _Normals:
        return self.fitted(np.ones(len(self.weights)))

    def _covariance(self, weights: Array, counts: Array, means: Array) -> Array:
        """The covariance (d, d): that of all classes, or a mean of their covariances."""
        centred = self.x - means[self.targets]
        if self._is_scatter:
            return np.asarray((centred.T * weights) @ centred / (counts.sum() - self.lost_degrees))
        covariance = np.zeros((self.x.shape[1], self.x.shape[1]))
        for c, prior in enumerate(self.priors.probabilities(counts)):
            inside = self.targets == c
            covariance += prior * self._class_covariance(centred[inside], weights[inside])
        return covariance

    def _class_covariance(self, centred: Array, weights: Array) -> Array:
        """The covariance of one class, shrunk as scikit-learn does."""
        if self.shrinkage == "auto":
            rows = np.repeat(centred, weights.astype(np.intp), axis=0)
            scale = np.where(rows.std(axis=0) > 0, rows.std(axis=0), 1.0)
            return np.asarray(ledoit_wolf(rows / scale)[0] * scale[:, None] * scale)
        covariance = (centred.T * weights) @ centred / weights.sum()
        if self.shrinkage is None:
            return np.asarray(covariance)
        mean = np.trace(covariance) / len(covariance)
        return np.asarray((1.0 - self.shrinkage) * covariance + self.shrinkage * mean * np.eye(len(covariance)))


def inverse_covariance(covariance: Array) -> Array:
    """The inverse of a covariance (d, d). Raises ValueError if it is singular."""
    scale = np.sqrt(np.diagonal(covariance))
    try:
        if not (scale > 0).all():
            raise LinAlgError
        factor = cho_factor(covariance / np.outer(scale, scale), lower=True)
        if np.diagonal(factor[0]).min() ** 2 < SINGULAR:
            raise LinAlgError
    except LinAlgError:
        raise UnsupportedSettingsError(
            "expected classes with a regular covariance, got one that is singular (constant or dependent columns, or "
            "too few examples); drop such columns, or use shrinkage or reg_param"
        ) from None
    return np.asarray(cho_solve(factor, np.diag(1.0 / scale)) / scale[:, None])
