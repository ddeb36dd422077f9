"""Naive Bayes models of scikit-learn whose statistics are sums of columns by class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from upweight.core.blocks import blocks
from upweight.models.sklearn.class_priors import ClassPriors
from upweight.models.sklearn.outputs_by_weights import Array, ClosedForm

MAX_NUMBERS = 2_000_000  # numbers of one temporary array


class _Counts(NamedTuple):
    """The weight of every class (K,), and the weighted sums of its columns (K, d)."""

    classes: Array
    columns: Array


@dataclass(frozen=True, eq=False)
class CountForm(ClosedForm):
    """The naive Bayes models whose statistics are sums of the columns by class.

    Attributes:
        priors: the prior probabilities of the classes.
        alpha: what is added to the counts, for all columns or (d,).
    """

    priors: ClassPriors
    alpha: Any

    def fitted(self, factors: Array) -> _Counts:
        """Sums of weights and columns by class."""
        weights = factors * self.weights
        shape = (self.priors.classes, len(weights))
        by_class = sparse.csr_array((weights, (self.targets, np.arange(len(weights)))), shape)
        return _Counts(np.asarray(by_class.sum(axis=1)), (by_class @ self._columns).toarray())

    def columns(self, x: Any) -> Any:
        """The columns that are summed, sparse (m, d), from the inputs."""
        return sparse.csr_array(x, dtype=np.float64)

    @cached_property
    def _columns(self) -> Any:
        return self.columns(self.x)

    def _full(self) -> _Counts:
        return self.fitted(np.ones(len(self.weights)))

    def _counts_without(self, positions: NDArray[np.intp], full: _Counts) -> Array:
        """Weights of all classes without each example, (positions, K)."""
        counts = np.repeat(full.classes[None], len(positions), axis=0)
        counts[np.arange(len(positions)), self.targets[positions]] -= self.weights[positions]
        return counts

    def _removed(self, positions: NDArray[np.intp]) -> Any:
        """What each example adds to the sums of its class, sparse (positions, d)."""
        rows = self._columns[positions]
        return sparse.csr_array(rows.multiply(self.weights[positions][:, None]))


def _changed_logs(full: Array, change: Any, alpha: Any) -> Any:
    """log(full − change + α) − log(full + α) where `change`, sparse (b, d), is not 0; full is (b, d) or (d,)."""
    row, column = np.repeat(np.arange(change.shape[0]), np.diff(change.indptr)), change.indices
    before = full[column] if full.ndim == 1 else full[row, column]
    added = alpha if np.ndim(alpha) == 0 else alpha[column]
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(before - change.data, 0.0) + added) - np.log(before + added)
    return sparse.csr_array((logs, column, change.indptr), change.shape)


@dataclass(frozen=True, eq=False)
class MultinomialForm(CountForm):
    """MultinomialNB."""

    def outputs(self, fitted: _Counts, x: Any) -> Array:
        """Joint log-likelihoods (m, K)."""
        smoothed = fitted.columns + self.alpha
        with np.errstate(divide="ignore"):
            logs = np.log(smoothed) - np.log(smoothed.sum(axis=1, keepdims=True))
        return np.asarray(x @ logs.T + self.priors.logs(fitted.classes))

    def outputs_without(self, positions: NDArray[np.intp], x: Any) -> Array:
        """The outputs without each example: only the counts of its columns in its own class, and the priors, change."""
        full, label, removed, x = self._full(), self.targets[positions], self._removed(positions), self.columns(x)
        counts = self._counts_without(positions, full)
        base = self.outputs(full, x) - self.priors.logs(full.classes)
        out = np.repeat(base[:, None], len(positions), axis=1)
        totals = (full.columns + self.alpha).sum(axis=1)[label]
        change = np.asarray((x @ _changed_logs(full.columns[label], removed, self.alpha).T).toarray())
        lengths = np.asarray(x.sum(axis=1)).reshape(-1, 1)
        change -= lengths * (np.log(totals - removed.sum(axis=1)) - np.log(totals))
        out[:, np.arange(len(positions)), label] += change
        return out + self.priors.logs(counts)


@dataclass(frozen=True, eq=False)
class ComplementForm(CountForm):
    """ComplementNB: the columns of all other classes.

    Attributes:
        norm: whether the weights of a class are divided by their sum.
    """

    norm: bool

    def outputs(self, fitted: _Counts, x: Any) -> Array:
        """Scores (m, K)."""
        complement = fitted.columns.sum(axis=0) - fitted.columns + self.alpha
        with np.errstate(divide="ignore"):
            logs = np.log(complement) - np.log(complement.sum(axis=1, keepdims=True))
        return np.asarray(x @ (logs / logs.sum(axis=1, keepdims=True) if self.norm else -logs).T)

    def outputs_without(self, positions: NDArray[np.intp], x: Any) -> Array:
        """The outputs without each example: the counts of its columns change for all classes but its own."""
        full, removed, x = self._full(), self._removed(positions), self.columns(x)
        complement = full.columns.sum(axis=0) - full.columns
        totals, width = (complement + self.alpha).sum(axis=1), complement.shape[1]
        logs = np.log(complement + self.alpha) - np.log(totals)[:, None]
        base, lengths = np.asarray(x @ logs.T), np.asarray(x.sum(axis=1)).reshape(-1, 1)
        out = np.empty((x.shape[0], len(positions), len(totals)))
        for c, total in enumerate(totals):
            is_other = (self.targets[positions] != c)[:, None]
            change = sparse.csr_array(removed.multiply(is_other))
            log_change = _changed_logs(complement[c], change, self.alpha)
            log_total = np.log(total - change.sum(axis=1)) - np.log(total)
            scores = base[:, c, None] + np.asarray((x @ log_change.T).toarray()) - lengths * log_total
            sums = logs[c].sum() + log_change.sum(axis=1) - width * log_total
            out[:, :, c] = scores / sums if self.norm else -scores
        return out


@dataclass(frozen=True, eq=False)
class BernoulliForm(CountForm):
    """BernoulliNB, on columns of 0 and 1.

    Attributes:
        threshold: above it, a value is 1; None if the inputs are 0 and 1 already.
    """

    threshold: float | None

    def columns(self, x: Any) -> Any:
        """The inputs as 0 and 1."""
        return sparse.csr_array(x if self.threshold is None else (x > self.threshold), dtype=np.float64)

    def outputs(self, fitted: _Counts, x: Any) -> Array:
        """Joint log-likelihoods (m, K)."""
        return self._scores(fitted.classes, fitted.columns, x) + self.priors.logs(fitted.classes)

    def outputs_without(self, positions: NDArray[np.intp], x: Any) -> Array:
        """The outputs without each example: the share of every column in its own class, and the priors, change."""
        full, label = self._full(), self.targets[positions]
        out = np.repeat(self._scores(full.classes, full.columns, x)[:, None], len(positions), axis=1)
        counts = self._counts_without(positions, full)
        for block in blocks(len(positions), max(1, MAX_NUMBERS // self._columns.shape[1])):
            of_class = label[block]
            columns = np.maximum(full.columns[of_class] - self._removed(positions[block]).toarray(), 0.0)
            weights = counts[np.arange(block.start, block.stop), of_class]
            out[:, np.arange(block.start, block.stop), of_class] = self._scores(weights, columns, x)
        return out + self.priors.logs(counts)

    def _scores(self, weights: Array, columns: Array, x: Any) -> Array:
        """Log-likelihoods (m, b) for weights (b,) and sums of columns (b, d)."""
        with np.errstate(divide="ignore"):
            ones = np.log(columns + self.alpha)
            zeros = np.log(np.maximum(weights[:, None] - columns, 0.0) + self.alpha)
            total = np.log(weights[:, None] + 2.0 * self.alpha)
        return np.asarray(self.columns(x) @ (ones - zeros).T + (zeros - total).sum(axis=1))


@dataclass(frozen=True, eq=False)
class CategoricalForm(CountForm):
    """CategoricalNB: each column holds the number of a category.

    Attributes:
        least: (columns,) numbers of categories that each column has at least.
    """

    least: NDArray[np.intp]

    @cached_property
    def _categories(self) -> NDArray[np.intp]:
        return self._categories_under(np.ones(len(self.weights)))

    def _categories_under(self, factors: Array) -> NDArray[np.intp]:
        """(columns,) how many categories each column has, with the examples that these factors leave."""
        return np.asarray(np.maximum(self._codes(self.x[factors > 0]).max(axis=0) + 1, self.least), dtype=np.intp)

    @staticmethod
    def _codes(x: Any) -> NDArray[np.intp]:
        return np.asarray(x).astype(np.intp)  # as scikit-learn does

    def columns(self, x: Any) -> Any:
        """One column of 0 and 1 per category. Raises ValueError for a category that training has not seen."""
        codes = self._codes(x)
        unknown = (codes < 0) | (codes >= self._categories)
        if unknown.any():
            row, column = np.argwhere(unknown)[0]
            raise ValueError(
                f"expected categories from 0 to {self._categories[column] - 1} in column {column}, got "
                f"{codes[row, column]}; pass min_categories= to CategoricalNB for categories that are not in training"
            )
        starts = np.concatenate([[0], np.cumsum(self._categories)])
        where = (codes + starts[:-1]).ravel()
        pointers = np.arange(0, len(where) + 1, codes.shape[1])
        return sparse.csr_array((np.ones(len(where)), where, pointers), (len(codes), int(starts[-1])))

    def outputs(self, fitted: _Counts, x: Any) -> Array:
        """Joint log-likelihoods (m, K)."""
        with np.errstate(divide="ignore"):
            logs = np.log(fitted.columns + self.alpha)
        return np.asarray(self.columns(x) @ logs.T - self._totals(fitted.classes) + self.priors.logs(fitted.classes))

    def outputs_without(self, positions: NDArray[np.intp], x: Any) -> Array:
        """The outputs without each example: only the counts of its categories and the weight of its class change."""
        full, label, removed = self._full(), self.targets[positions], self._removed(positions)
        counts = self._counts_without(positions, full)
        base = self.outputs(full, x) - self.priors.logs(full.classes)
        out = np.repeat(base[:, None], len(positions), axis=1)
        change = (self.columns(x) @ _changed_logs(full.columns[label], removed, self.alpha).T).toarray()
        of_class = counts[np.arange(len(positions)), label]
        change -= self._totals(of_class) - self._totals(full.classes)[label]
        out[:, np.arange(len(positions)), label] += change
        return out + self.priors.logs(counts)

    def refusals(self) -> dict[int, str]:
        """Examples that are the only ones with the last category of a column, which queries may have."""
        reasons, codes = {}, self._codes(self.x)
        for column, last in enumerate(codes.max(axis=0).tolist()):
            rows = np.flatnonzero(codes[:, column] == last)
            if len(rows) == 1 and last >= self.least[column]:
                reasons[int(rows[0])] = _lost_category(column, last)
        return reasons

    def refusal(self, factors: Array) -> str | None:
        """A reason if a column would have fewer categories; else None."""
        lost = np.flatnonzero(self._categories_under(factors) < self._categories)
        return _lost_category(int(lost[0]), int(self._categories[lost[0]]) - 1) if len(lost) else None

    def _totals(self, weights: Array) -> Array:
        """Σ over columns of log(weight of the class + α · categories), in the shape of the weights."""
        return np.asarray(np.log(weights[..., None] + self.alpha * self._categories).sum(axis=-1))


def _lost_category(column: int, category: int) -> str:
    return (
        f"no example of the last category {category} of column {column} would be left, which the refitted model then "
        "could not predict; pass min_categories= to CategoricalNB"
    )
