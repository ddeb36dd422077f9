"""QuadraticDiscriminantAnalysis of scikit-learn: one normal distribution with a covariance of its own per class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.core.model_reader import UnsupportedSettingsError
from upweight.linear.losses.class_scores import LogScoreLoss
from upweight.models.sklearn.class_priors import ClassPriors
from upweight.models.sklearn.closed_form_spec import FormSpec
from upweight.models.sklearn.outputs_by_weights import Array, ClosedForm

SINGULAR = 1e-10  # share of a covariance below which a removal leaves none that is regular
SINGULAR_CLASS = "scikit-learn would refuse the covariance of a class as singular"


def quadratic_discriminant(estimator: Any) -> list[FormSpec]:
    """QuadraticDiscriminantAnalysis; its versions divide a scatter by the number of examples or one less."""
    others = {"solver": "svd", "shrinkage": None, "covariance_estimator": None}
    for name, value in others.items():
        if getattr(estimator, name, value) != value:
            raise UnsupportedSettingsError(
                f"expected QuadraticDiscriminantAnalysis({name}={value!r}), got {getattr(estimator, name)!r}, whose "
                "covariances without an example have no closed form; use reg_param= in its place"
            )
    settings: dict[str, Any] = {
        "priors": ClassPriors.of(len(estimator.classes_), estimator.priors),
        "regulariser": float(estimator.reg_param),
        "least": float(estimator.tol),
    }
    forms = [partial(QuadraticDiscriminantForm, lost_degrees=degrees, **settings) for degrees in (0, 1)]
    return [FormSpec(LogScoreLoss(estimator.classes_, has_decision=True), form, takes_weights=False) for form in forms]


class _Normals(NamedTuple):
    """For every class the weight (K,), the mean (K, d) and the scatter (K, d, d)."""

    counts: Array
    means: Array
    scatters: Array


@dataclass(frozen=True, eq=False)
class QuadraticDiscriminantForm(ClosedForm):
    """Quadratic discriminant scores, with covariances (1 − r)·scatter/degrees + r·I.

    Attributes:
        priors: the prior probabilities of the classes.
        regulariser: r.
        least: the eigenvalue of a covariance up to which scikit-learn refuses to fit.
        lost_degrees: what is subtracted from the examples of a class.
    """

    priors: ClassPriors
    regulariser: float
    least: float
    lost_degrees: int

    def fitted(self, factors: Array) -> _Normals:
        """Weights, means and scatters."""
        weights, columns = factors * self.weights, self.x.shape[1]
        counts = self.priors.count(self.targets, weights)
        means, scatters = np.empty((len(counts), columns)), np.empty((len(counts), columns, columns))
        for c in range(len(counts)):
            inside = self.targets == c
            means[c] = weights[inside] @ self.x[inside] / counts[c]
            centred = self.x[inside] - means[c]
            scatters[c] = (centred.T * weights[inside]) @ centred
        return _Normals(counts, means, scatters)

    def outputs(self, fitted: _Normals, x: Any) -> Array:
        """Scores (m, K)."""
        columns = [self._log_density(fitted, c, x) for c in range(len(fitted.counts))]
        return np.stack(columns, axis=1) + self.priors.logs(fitted.counts)

    def outputs_without(self, positions: NDArray[np.intp], x: Any) -> Array:
        """The outputs without each example: its own class (a rank-one change of the scatter) and the priors change."""
        full = self.fitted(np.ones(len(self.weights)))
        base = np.stack([self._log_density(full, c, x) for c in range(len(full.counts))], axis=1)
        out, label, weight = np.repeat(base[:, None], len(positions), axis=1), self.targets[positions], self.weights
        counts = np.repeat(full.counts[None], len(positions), axis=0)
        counts[np.arange(len(positions)), label] -= weight[positions]
        for c in range(len(full.counts)):
            for w in np.unique(weight[positions[label == c]]):
                where = np.flatnonzero((label == c) & (weight[positions] == w))
                out[:, where, c] = self._log_density_without(full, c, positions[where], float(w), x)
        return out + self.priors.logs(counts)

    def refusals(self) -> dict[int, str]:
        """Examples without which scikit-learn refuses the covariance of their class."""
        full, refused = self.fitted(np.ones(len(self.weights))), {}
        for c, (count, mean, scatter) in enumerate(zip(*full, strict=True)):
            rows = np.flatnonzero(self.targets == c)
            eigenvalues, vectors = np.linalg.eigh(scatter)
            for i in rows[self.weights[rows] > 0].tolist():
                remaining = count - self.weights[i]
                if remaining < max(2, len(mean)) or not self._stays_regular(
                    eigenvalues, (self.x[i] - mean) @ vectors, i, count
                ):
                    refused[i] = SINGULAR_CLASS
        return refused

    def refusal(self, factors: Array) -> str | None:
        """A reason if scikit-learn refuses the covariance of a class; else None."""
        fitted = self.fitted(factors)
        for count, scatter in zip(fitted.counts, fitted.scatters, strict=True):
            if count < max(2, len(scatter)) or np.linalg.eigvalsh(self._covariance(scatter, count))[0] <= self.least:
                return SINGULAR_CLASS
        return None

    def _stays_regular(self, eigenvalues: Array, deviation: Array, i: int, count: float) -> bool:
        """Whether the smallest eigenvalue of the covariance without example i is above the least one.

        The scatter less f d dᵀ has no eigenvalue below s if Σ f dⱼ²/(λⱼ − s) < 1 and all λⱼ > s (Sylvester's inertia).
        """
        weight = self.weights[i]
        remaining = count - weight
        limit = (self.least - self.regulariser) * (remaining - self.lost_degrees) / max(1.0 - self.regulariser, 1e-300)
        factor = weight * count / remaining
        limit = max(limit, SINGULAR * float(eigenvalues[-1])) if self.regulariser == 0 else limit
        return bool(eigenvalues[0] > limit and factor * (deviation**2 / (eigenvalues - limit)).sum() < 1.0)

    def _covariance(self, scatter: Array, count: float) -> Array:
        """(1 − r)·scatter/degrees + r·I."""
        covariance = (1.0 - self.regulariser) * scatter / (count - self.lost_degrees)
        return np.asarray(covariance + self.regulariser * np.eye(len(scatter)))

    def _log_density(self, fitted: _Normals, c: int, x: Array) -> Array:
        """−½(Mahalanobis² + log det) of class c, (m,)."""
        covariance = self._covariance(fitted.scatters[c], fitted.counts[c])
        deviation = x - fitted.means[c]
        squares = (np.linalg.solve(covariance, deviation.T).T * deviation).sum(axis=1)
        return np.asarray(-0.5 * (squares + np.linalg.slogdet(covariance)[1]))

    def _log_density_without(self, full: _Normals, c: int, rows: NDArray[np.intp], weight: float, x: Array) -> Array:
        """The same without each of these examples of class c, which have one weight, (m, rows)."""
        count, mean = full.counts[c], full.means[c]
        remaining = count - weight
        base = self._covariance(full.scatters[c], remaining)
        scale = (1.0 - self.regulariser) / (remaining - self.lost_degrees) * weight * count / remaining
        own, deviation = self.x[rows] - mean, x - mean
        solved = np.linalg.solve(base, own.T).T
        lost = scale * (own * solved).sum(axis=1)
        # The mean moves by −weight/remaining of the deviation: x − mean' = deviation + step·own.
        step = weight / remaining
        squares = (np.linalg.solve(base, deviation.T).T * deviation).sum(axis=1)
        cross, of_own = deviation @ solved.T, lost / scale
        total = squares[:, None] + 2.0 * step * cross + step**2 * of_own
        total += scale / (1.0 - lost) * (cross + step * of_own) ** 2
        log_determinant = np.linalg.slogdet(base)[1] + np.log1p(-lost)
        return np.asarray(-0.5 * (total + log_determinant))
