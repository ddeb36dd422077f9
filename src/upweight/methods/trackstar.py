"""TrackStar: cosines of gradients that are corrected by second moments and whitened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.capability_checks import require
from upweight.core.checkpoints import Checkpointed, Layered
from upweight.core.examples import Examples
from upweight.core.matrix_products import expect_products
from upweight.core.modules import Modules, as_settings
from upweight.core.rows import Rows, reciprocal_roots
from upweight.core.scores import Unit
from upweight.core.weights import example_counts, sample_weights
from upweight.methods.parts.gradient_products import chosen_parts

Array = NDArray[np.float64]
PROJECTION_ROWS = 1 << 12  # parameters whose random directions are held in memory at once
GRADIENT_NUMBERS = 1 << 23  # numbers of the gradients that are materialised at once, with copies
COPIES_OF_ROWS = 3  # of the projected gradients
FLOPS_OF_A_DRAW = 600  # operations of a product that take as long as a random number
FLOPS_OF_EIGENVALUES = 20  # over the cube of the width
NEGLIGIBLE = 1e-12  # share of the largest second moment below which it is rounding


@dataclass(frozen=True, kw_only=True)
class TrackStar(Attributor):
    """Chang et al. (2024): −cos(R^{−½} P ∇m_q/√V, R^{−½} P ∇ℓ_i/√V) at the trained parameters. RANK.

    V are second moments of gradients by parameter, P projects onto random directions, and R is the mean of the outer
    products of the projected training gradients, plus `damping` times its mean eigenvalue.

    Args:
        second_moments: "gradients": V is the mean of the squared training gradients. "optimiser": √V is √v̂ + ε of Adam
            at the last checkpoint of the recorded training, as in the paper. None: no correction.
        directions: how many random directions P has; if there are no more parameters, there is no projection.
        damping: what is added to R, as a share of its mean eigenvalue.
        seed: of the directions.
        modules: the part of the model whose gradients count: patterns of modules; "last" is the last layer. None for
            all of it.
    """

    summary = "Cosines of gradients that are corrected by second moments and whitened by their covariance"
    paper = "Chang et al. (2024)"
    cost = "one pass over the training set, a projection of every gradient, and an eigendecomposition of `directions`²"
    needs = (Layered,)
    variants: ClassVar = {"no correction": {"second_moments": None, "directions": 16}}

    second_moments: Literal["gradients", "optimiser"] | None = "gradients"
    directions: int = 1024
    damping: float = 0.1
    seed: int = 0
    modules: Modules | None = None

    def __post_init__(self) -> None:
        if self.second_moments not in ("gradients", "optimiser", None):
            raise ValueError(f'expected second_moments="gradients", "optimiser" or None, got {self.second_moments!r}')
        if self.directions < 1 or self.seed < 0:
            raise ValueError(f"expected directions ≥ 1 and seed ≥ 0, got {self.directions} and {self.seed}")
        if not 0 < self.damping < np.inf:
            raise ValueError(f"expected damping > 0, got {self.damping}")

    @property
    def promises(self) -> Promises:
        """A cosine is not an effect."""
        return Promises(no_floor="directions of gradients say nothing of the size of an effect")

    def fit(self, model: Any, train: Examples) -> FittedTrackStar:
        """Correct and project the gradients of all training examples."""
        return FittedTrackStar(self, model, train)


class FittedTrackStar(Fitted[TrackStar, Any]):
    """Corrected, projected and whitened training gradients, of length 1, (n, k), and the root that whitened them."""

    def __init__(self, recipe: TrackStar, model: Any, train: Examples) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.modules = chosen_parts(model, recipe.modules, "TrackStar")
        self._narrowed = model if self.modules is None else model.narrowed(self.modules)
        # Gradients are those of one copy; a row that stands for k copies counts k times.
        self._counts = example_counts(sample_weights(train))
        rows = self._narrowed.loss_rows(train)
        self._expect(len(train), int(rows.take(np.array([0])).dense().shape[1]))
        self._scales = self._inverse_roots(rows)
        self._rows = self._projected(rows) / np.maximum(self._counts, 1.0)[:, None]
        self._root = self._inverse_root((self._rows * self._counts[:, None]).T @ self._rows / self._counts.sum())
        self._rows = _normalised(self._rows @ self._root)

    def _expect(self, count: int, size: int) -> None:
        """Tell the running job what the fit's products take, with this many examples and parameters."""
        directions = min(self.recipe.directions, size)
        projection = (2.0 * count + FLOPS_OF_A_DRAW) * size * directions if directions < size else 0.0
        products = 4.0 * count * directions**2 + FLOPS_OF_EIGENVALUES * directions**3
        held = COPIES_OF_ROWS * count * directions + 4.0 * directions**2
        if projection:
            held += 2.0 * min(PROJECTION_ROWS, size) * directions + min(GRADIENT_NUMBERS, count * PROJECTION_ROWS)
        expect_products(projection + products, 8.0 * held)

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """One block of all training examples."""
        values = -self._directions(queries) @ self._rows.T
        yield slice(0, len(self.train)), values * self._counts

    def self_values(self) -> Array:
        """The score of each training example on itself."""
        return np.asarray(-(self._directions(self.train) * self._rows).sum(axis=1) * self._counts)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """Numbers of parameters and of directions, and modules."""
        facts: dict[str, Any] = {"parameters": len(self._scales), "directions": self._rows.shape[1]}
        if self.modules is not None:
            facts["modules"] = as_settings(self.modules)
        return {**facts, "warnings": list(self.model.notes)}

    def _directions(self, queries: Examples) -> Array:
        """R^{−½} P ∇m/√V of every query, of length 1, (m, k)."""
        return _normalised(self._projected(self._narrowed.measure_rows(queries)) @ self._root)

    def _inverse_root(self, covariance: Array) -> Array:
        """R^{−½}, (k, k), of the damped covariance."""
        values, vectors = np.linalg.eigh(covariance)
        damped = np.maximum(values, 0.0) + self.recipe.damping * max(float(values.mean()), np.finfo(float).tiny)
        return np.asarray((vectors / np.sqrt(damped)) @ vectors.T)

    def _inverse_roots(self, rows: Rows) -> Array:
        """1/√V, (p,), 0 for parameters whose gradients are 0."""
        kind, size = self.recipe.second_moments, rows.take(np.array([0])).dense().shape[1]
        if kind is None:
            return np.ones(size)
        if kind == "optimiser":
            require(self.model, [Checkpointed], 'TrackStar(second_moments="optimiser")')
            return np.asarray(self.model.checkpoints()[-1].inverse_roots(self._narrowed))
        total, shares = np.zeros(size), 1.0 / np.maximum(self._counts, 1.0) * (self._counts > 0)
        for part, columns, dense in rows.dense_parts(_parts_of(size)):
            total[columns] += shares[part] @ np.square(dense)
        return reciprocal_roots(np.where(total > NEGLIGIBLE * total.max(), total / self._counts.sum(), 0.0))

    def _projected(self, rows: Rows) -> Array:
        """The corrected gradients along the random directions, (n, k)."""
        size, count = len(self._scales), self.recipe.directions
        if count >= size:
            return np.concatenate([dense * self._scales for _, _, dense in rows.dense_parts([slice(0, size)])])
        projected, drawn, directions = np.zeros((len(rows), count)), slice(0, 0), np.empty((0, count))
        for part, columns, dense in rows.dense_parts(_parts_of(size)):
            if columns != drawn:  # drawing them takes longer than a product with few examples
                drawn, directions = columns, self._scaled_directions(columns)
            projected[part] += dense @ directions
        return projected

    def _scaled_directions(self, columns: slice) -> Array:
        """P/√V in these parameters, (parameters, k)."""
        count = self.recipe.directions
        rng = np.random.default_rng([self.recipe.seed, columns.start // PROJECTION_ROWS])
        directions = rng.normal(scale=count**-0.5, size=(columns.stop - columns.start, count))
        directions *= self._scales[columns, None]
        return directions


def _parts_of(size: int) -> list[slice]:
    """The parameters, in parts whose random directions have a seed of their own."""
    return [slice(first, min(first + PROJECTION_ROWS, size)) for first in range(0, size, PROJECTION_ROWS)]


def _normalised(rows: Array) -> Array:
    return rows * reciprocal_roots(np.einsum("ij,ij->i", rows, rows))[:, None]
