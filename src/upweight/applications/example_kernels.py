"""Kernels between the examples of a set, read one column at a time: no n × n matrix is ever in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import blocks
from upweight.core.capability_checks import require
from upweight.core.checkpoints import Layered
from upweight.core.curvature import Curvature
from upweight.core.curvature_recipes import CurvatureRecipe
from upweight.core.examples import Examples
from upweight.core.input_kinds import is_sparse
from upweight.core.model import Differentiable, Embeddable, Measurable
from upweight.core.modules import as_parts
from upweight.core.progress import Progress
from upweight.core.rows import Rows
from upweight.core.weights import sample_weights

Array = NDArray[np.float64]
MAX_KERNEL_VALUES = 2**24  # in memory at a time
MEDIAN_EXAMPLES = 1000  # whose distances give the width of the kernel
SINGLE_PRECISION_FROM = 5000  # examples, from which kernel values are computed in float32


class ExampleKernel(ABC):
    """k(i, j) between n examples, with weights.

    Attributes:
        weights: of the examples in means, summing to 1, (n,).
    """

    weights: Array

    @property
    @abstractmethod
    def diagonal(self) -> Array:
        """k(i, i), (n,)."""

    @abstractmethod
    def column(self, i: int) -> Array:
        """k(·, i), (n,)."""

    @abstractmethod
    def mean(self, progress: Progress) -> Array:
        """Σⱼ wⱼ k(·, j), (n,)."""

    @abstractmethod
    def mean_to(self, queries: Examples) -> Array:
        """The mean of k(·, q) over queries, (n,)."""


class KernelRecipe(ABC):
    """Settings of a kernel, from which the kernel of a model and its examples is made."""

    needs: ClassVar[tuple[type, ...]] = (Measurable,)

    @abstractmethod
    def between(self, model: Any, examples: Examples) -> ExampleKernel:
        """The kernel between these examples. Raises TypeError if the model lacks a capability."""


@dataclass(frozen=True, kw_only=True)
class RBFKernel(KernelRecipe):
    """exp(−‖fᵢ − fⱼ‖² / 2σ²) on the features of the model's last step (`embed`).

    Args:
        width: σ, or "median" for the median distance between different examples (of 1,000 drawn at random).
        within_classes: 0 between examples of different classes, as in the local kernel of Kim et al. (2016).
    """

    needs = (Embeddable,)

    width: float | Literal["median"] = "median"
    within_classes: bool = True

    def __post_init__(self) -> None:
        if self.width != "median" and not (isinstance(self.width, int | float) and 0 < self.width < np.inf):
            raise ValueError(f'expected width="median" or a number > 0, got {self.width!r}')

    def between(self, model: Any, examples: Examples) -> RBFBetween:
        """The kernel on the features of these examples."""
        require(model, self.needs, type(self).__name__, examples)
        features = finite_features(model, examples)
        width = _median_distance(features, sample_weights(examples)) if self.width == "median" else float(self.width)
        return RBFBetween(model, examples, features, width, self.within_classes)


@dataclass(frozen=True, kw_only=True)
class FisherKernel(KernelRecipe):
    """gᵢᵀ (H + λ)⁻¹ gⱼ with g the gradient of an example's log-likelihood, −loss (Khanna et al. 2019).

    Args:
        curvature: as for Influence; None for the one that suits the model best.
        damping: λ on the scale of the mean loss; "auto" leaves it to the model.
        modules: the part of a network whose gradients count, as for Influence; None for all of it.
    """

    needs = (Differentiable,)

    curvature: CurvatureRecipe | None = None
    damping: float | Literal["auto"] = "auto"
    modules: str | Sequence[str] | None = None

    def between(self, model: Any, examples: Examples) -> FisherBetween:
        """The kernel on the gradients of these examples, which have to be those that the model was trained on.

        Raises TypeError if the model measures something else than −loss.
        """
        require(model, self.needs, type(self).__name__, examples)
        if not model.measurement.startswith("−loss"):
            raise TypeError(
                f"a Fisher kernel needs gradients of the loss, got a model that measures {model.measurement!r}; make "
                "the model without measure="
            )
        if self.modules is not None:
            require(model, [Layered], "FisherKernel(modules=…)")
            model = model.narrowed(as_parts(self.modules))
        curvature = model.curvature(examples, self.curvature, None if self.damping == "auto" else float(self.damping))
        return FisherBetween(model, curvature, model.measure_rows(examples), sample_weights(examples))


class RBFBetween(ExampleKernel):
    """The RBF kernel between the features of some examples.

    Args:
        model, examples: whose features they are.
        features: of the examples, (n, d).
        width: σ.
        within_classes: 0 between examples of different classes.
        max_values: kernel values in memory at a time.
        single_from: examples from which kernel values are computed in float32.
    """

    def __init__(
        self,
        model: Embeddable,
        examples: Examples,
        features: Any,
        width: float,
        within_classes: bool,
        *,
        max_values: int = MAX_KERNEL_VALUES,
        single_from: int = SINGLE_PRECISION_FROM,
    ) -> None:
        self.width, self._model, self._max_values, self._single_from = width, model, max_values, single_from
        weights = sample_weights(examples)
        self.weights = weights / weights.sum()
        self._labels = _class_labels(examples) if within_classes else None
        if self._labels is None:
            self._groups = [np.arange(len(examples))]
        else:
            self._groups = [np.flatnonzero(self._labels == label) for label in np.unique(self._labels)]
        self._centre = 0.0 if is_sparse(features) else features.mean(axis=0)
        self._features = _Scaled(features, width, self._centre, self._single_from)

    @property
    def diagonal(self) -> Array:
        """Ones."""
        return np.ones(len(self.weights))

    def column(self, i: int) -> Array:
        """k(·, i)."""
        column = self._features.similar_to(self._features.take(np.array([i])))[:, 0]
        return column if self._labels is None else np.where(self._labels == self._labels[i], column, 0.0)

    def mean(self, progress: Progress) -> Array:
        """Σⱼ wⱼ k(·, j): every pair of a class once, in blocks on and above the diagonal."""
        means, done = np.zeros(len(self.weights)), 0
        total = sum(len(group) ** 2 for group in self._groups)
        progress("kernel", 0, total)
        for group in self._groups:
            parts = list(blocks(len(group), int(self._max_values**0.5)))
            for a, first in enumerate(parts):
                rows = self._features.take(group[first])
                for second in parts[a:]:
                    similar = self._features.similar_to(rows, group[second])  # (second, first)
                    means[group[second]] += similar @ self.weights[group[first]]
                    if second != first:
                        means[group[first]] += self.weights[group[second]] @ similar
                    done += similar.size * (1 + (second != first))
                progress("kernel", done, total)
        return means

    def mean_to(self, queries: Examples) -> Array:
        """The mean of k(·, q) over all queries, where k is 0 between classes if `within_classes`."""
        features = _Scaled(finite_features(self._model, queries), self.width, self._centre, self._single_from)
        means = np.zeros(len(self.weights))
        if self._labels is not None and queries.y is None:
            raise ValueError(
                "expected queries with labels for a kernel within classes; pass RBFKernel(within_classes=False)"
            )
        for block in blocks(len(queries), max(1, self._max_values // len(means))):
            positions = np.arange(block.start, block.stop)
            similar = self._features.similar_to(features.take(positions))
            if self._labels is not None and queries.y is not None:
                similar = similar * (self._labels[:, None] == queries.y[positions][None])
            means += similar.sum(axis=1) / len(queries)
        return means


class FisherBetween(ExampleKernel):
    """The Fisher kernel between the gradients of some examples."""

    def __init__(self, model: Differentiable, curvature: Curvature, rows: Rows, weights: Array) -> None:
        self._model, self._curvature, self._rows = model, curvature, rows
        self.weights = weights / weights.sum()

    @cached_property
    def diagonal(self) -> Array:
        """gᵢᵀ (H + λ)⁻¹ gᵢ."""
        return self._curvature.paired(self._rows, self._rows)

    def column(self, i: int) -> Array:
        """(H + λ)⁻¹ gᵢ times all gradients."""
        return self._times(self._rows.take(np.array([i])))

    def mean(self, progress: Progress) -> Array:
        """One solve with the mean gradient."""
        return self._times(self._rows.sums(self.weights[None]))

    def mean_to(self, queries: Examples) -> Array:
        """One solve with the mean gradient of the queries."""
        return self._times(self._model.measure_rows(queries).sums(np.full((1, len(queries)), 1.0 / len(queries))))

    def _times(self, row: Rows) -> Array:
        return np.asarray(self._rows.dot(self._curvature.solve(row).rows)[:, 0])


class _Scaled:
    """Features less a centre, divided by √2 σ, so that k = exp(−‖f − f'‖²).

    The centre changes no distance; without it, numbers in single precision would lose more.
    """

    def __init__(self, features: Any, width: float, centre: Any, single_from: int) -> None:
        single = features.shape[0] >= single_from
        if not is_sparse(features):
            features = np.asarray(features, dtype=np.float64) - centre
        self.rows = (features / (np.sqrt(2.0) * width)).astype(np.float32 if single else np.float64)
        squares = self.rows.multiply(self.rows) if is_sparse(self.rows) else self.rows**2
        self.squares = np.asarray(squares.sum(axis=1)).ravel()

    def take(self, positions: NDArray[np.intp]) -> tuple[Any, Any]:
        """Rows and their squared norms."""
        return self.rows[positions], self.squares[positions]

    def similar_to(self, others: tuple[Any, Any], positions: NDArray[np.intp] | None = None) -> Array:
        """k between the rows at these positions, or all, and others: (positions, others)."""
        rows, squares = (self.rows, self.squares) if positions is None else self.take(positions)
        other_rows, other_squares = others
        inner = rows @ other_rows.T
        inner = inner.toarray() if is_sparse(inner) else inner
        distances = squares[:, None] + other_squares[None] - 2.0 * inner
        return np.asarray(np.exp(-np.maximum(distances, 0.0, out=distances), out=distances))


def finite_features(model: Embeddable, examples: Examples) -> Any:
    """The features of the examples, (n, d). Raises ValueError if they are not all finite."""
    features = model.embed(examples)
    values = features.data if is_sparse(features) else np.asarray(features)
    if not np.isfinite(values).all():
        raise ValueError("expected finite features, got NaN or infinite ones; impute or drop them in the pipeline")
    return features if is_sparse(features) else values.reshape(len(values), -1)


def _class_labels(examples: Examples) -> NDArray[Any] | None:
    """The labels if they are classes, one per example; None for numeric targets and without labels."""
    y = examples.y
    return None if y is None or y.ndim != 1 or y.dtype.kind == "f" else y


def _median_distance(features: Any, weights: Array) -> float:
    """The median distance between two different examples, of at most 1,000."""
    from sklearn.metrics.pairwise import euclidean_distances

    rng, present = np.random.default_rng(0), np.flatnonzero(weights > 0)
    if len(present) > MEDIAN_EXAMPLES:
        present = rng.choice(present, MEDIAN_EXAMPLES, replace=False)
    distances = euclidean_distances(features[np.sort(present)])
    between_pairs = distances[np.triu_indices(len(present), 1)]
    positive = between_pairs[between_pairs > 0]
    return float(np.median(positive)) if len(positive) else 1.0
