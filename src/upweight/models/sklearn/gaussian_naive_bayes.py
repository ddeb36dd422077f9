"""GaussianNB of scikit-learn: a normal distribution for each class and column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import blocks
from upweight.models.sklearn.class_priors import ClassPriors
from upweight.models.sklearn.outputs_by_weights import Array, ClosedForm

MAX_NUMBERS = 2_000_000  # numbers of one temporary array
SMALL_CHANGE = 1e-8  # relative change of a variance up to which its first order is exact enough


class _Gaussians(NamedTuple):
    """For every class the weight (K,), the means and the sums of squared deviations (K, d); and the added variance."""

    counts: Array
    means: Array
    squares: Array
    added: float

    @property
    def variances(self) -> Array:
        """(K, d), with the added variance."""
        return np.asarray(self.squares / self.counts[:, None] + self.added)


@dataclass(frozen=True, eq=False)
class GaussianForm(ClosedForm):
    """GaussianNB: one normal distribution per class and column.

    The added variance is a share of the largest variance of a column, over all rows whatever they weigh.

    Attributes:
        priors: the prior probabilities of the classes.
        smoothing: that share.
    """

    priors: ClassPriors
    smoothing: float

    def fitted(self, factors: Array) -> _Gaussians:
        """Weights, means, sums of squares and the added variance."""
        weights, x = factors * self.weights, self.x
        present = x[factors > 0]
        counts = self.priors.count(self.targets, weights)
        means = _sums(self.targets, weights[:, None] * x, self.priors.classes) / counts[:, None]
        squares = _sums(self.targets, weights[:, None] * (x - means[self.targets]) ** 2, self.priors.classes)
        return _Gaussians(counts, means, squares, self.smoothing * float(present.var(axis=0).max()))

    def outputs(self, fitted: _Gaussians, x: Any) -> Array:
        """Joint log-likelihoods (m, K)."""
        log_priors, variances = self.priors.logs(fitted.counts), fitted.variances
        columns = [_log_density(x, mean, variance) for mean, variance in zip(fitted.means, variances, strict=True)]
        return np.stack(columns, axis=1) + log_priors

    def outputs_without(self, positions: NDArray[np.intp], x: Any) -> Array:
        """The outputs without each example: only its class, and the variance that is added to all classes, change."""
        full = self.fitted(np.ones(len(self.weights)))
        added = self._added_without(positions)
        out = np.empty((len(x), len(positions), len(full.counts)))
        out[:] = self._with_added_variance(full, added, x)
        for block in blocks(len(positions), max(1, MAX_NUMBERS // max(1, x.size))):
            rows = positions[block]
            label, weight = self.targets[rows], self.weights[rows][:, None]
            remaining = full.counts[label][:, None] - weight
            deviation = self.x[rows] - full.means[label]
            means = full.means[label] - weight * deviation / remaining
            squares = full.squares[label] - weight * deviation**2 * (remaining + weight) / remaining
            variances = np.maximum(squares, 0.0) / remaining + added[block, None]
            out[:, np.arange(block.start, block.stop), label] = _log_density(x[:, None], means, variances)
        counts = np.repeat(full.counts[None], len(positions), axis=0)
        counts[np.arange(len(positions)), self.targets[positions]] -= self.weights[positions]
        return out + self.priors.logs(counts)

    def _added_without(self, positions: NDArray[np.intp]) -> Array:
        """The added variance without each row, (positions,)."""
        n, means = len(self.x), self.x.mean(axis=0)
        squares = ((self.x - means) ** 2).sum(axis=0)
        without = squares - (self.x[positions] - means) ** 2 * n / (n - 1)
        return np.asarray(self.smoothing * np.maximum(without, 0.0).max(axis=1) / (n - 1))

    def _with_added_variance(self, full: _Gaussians, added: Array, x: Array) -> Array:
        """Log-densities (m, positions, K) with another added variance for each position."""
        change, variances = added - full.added, full.variances
        pairs = list(zip(full.means, variances, strict=True))
        if np.abs(change).max() > SMALL_CHANGE * variances.min():
            columns = [
                np.stack([_log_density(x, mean, variance + step) for step in change], axis=1)
                for mean, variance in pairs
            ]
            return np.stack(columns, axis=2)
        base = np.stack([_log_density(x, mean, variance) for mean, variance in pairs], axis=1)
        slopes = [0.5 * (((x - mean) / variance) ** 2 - 1.0 / variance).sum(axis=1) for mean, variance in pairs]
        return np.asarray(base[:, None] + change[:, None] * np.stack(slopes, axis=1)[:, None])


def _log_density(x: Array, means: Array, variances: Array) -> Array:
    """Σ log N(x; mean, variance) over the last axis."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-0.5 * (np.log(2.0 * np.pi * variances) + (x - means) ** 2 / variances).sum(axis=-1))


def _sums(targets: NDArray[np.intp], rows: Array, classes: int) -> Array:
    """Sums (K, d) of the rows (n, d) of each class."""
    out = np.zeros((classes, rows.shape[1]))
    np.add.at(out, targets, rows)
    return out
