"""TREX: a kernel machine on the similarity of leaves replaces the trees, and shows what each example adds to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize

from upweight.core.archive import stored_array
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.blocks import blocks
from upweight.core.examples import Examples
from upweight.core.scores import Unit
from upweight.core.tree_based import TreeBased
from upweight.core.weights import example_counts, sample_weights
from upweight.trees.boosting import Boosting
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.losses import Squared

Array = NDArray[np.float64]
TRAIN_BLOCK = 4096  # training examples whose scores are held in memory at once
FAITHFUL = 0.9  # correlation of the surrogate's margins with the model's below which an answer has a warning


@dataclass(frozen=True, kw_only=True)
class TREX(Attributor):
    """Brophy & Lowd (2020), after Yeh et al. (2018): F(q) ≈ Σ_i α_i k(i, q), score = ∂m_q/∂F · α_i k(i, q).

    The kernel k sums over shared leaves one over the number of training examples in the leaf, averaged over the trees.
    The surrogate minimises Σ w ℓ + l2/2 ‖W‖² with the loss of the model (squared loss if that has no curvature), so
    that α_i = −w_i ∂ℓ_i/∂F / l2.

    Args:
        l2: the surrogate's regulariser. A smaller one follows single examples more closely.

    RANK: these are contributions to a surrogate. `diagnostics["faithful"]` is its correlation with the model.
    """

    summary = "A kernel machine on the similarity of leaves replaces the trees, and shows what each example adds to it"
    paper = "Brophy & Lowd (2020)"
    cost = "some hundred passes over examples × trees"
    needs = (TreeBased,)

    l2: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.l2 < np.inf:
            raise ValueError(f"expected a finite l2 > 0, got {self.l2}")

    @property
    def promises(self) -> Promises:
        """No floor against retraining."""
        return Promises(
            no_floor="the scores are what an example adds to a surrogate on fixed trees, and retraining grows new trees"
        )

    def fit(self, model: Any, train: Examples) -> FittedTREX:
        """Fit the surrogate."""
        ensemble, leaves, grown = model.trees(), model.leaves(train), model.grown(train)
        counts = example_counts(sample_weights(train))
        weights = grown.weights if isinstance(grown, Boosting) else sample_weights(train)
        in_leaf = ensemble.leaf_weights(leaves, counts)
        scale = 1.0 / np.sqrt(np.where(in_leaf > 0, in_leaf, 1.0) * ensemble.trees)
        features = ensemble.membership(leaves, scale[leaves])
        loss = grown.loss if grown.loss.differentiable else Squared()
        surrogate_margins, pull = _fit_surrogate(features, loss, grown.targets, weights, self.l2)
        faithful = _correlation(surrogate_margins, _centred(ensemble.margins(leaves)), counts)
        return FittedTREX(self, model, train, pull / self.l2, scale, faithful)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedTREX:
        """Take the surrogate from the saved state."""
        ensemble = model.trees()
        alpha = stored_array(state, "alpha", (len(train), len(ensemble.base)))
        scale = stored_array(state, "scale", (len(ensemble.values),))
        return FittedTREX(self, model, train, alpha, scale, float(facts["faithful"]))


class FittedTREX(Fitted[TREX, TreeBased]):
    """The surrogate, ready to answer."""

    def __init__(
        self, recipe: TREX, model: Any, train: Examples, alpha: Array, scale: Array, faithful: float
    ) -> None:  # α (n, K), and the square root of every leaf's share in the kernel (leaves,)
        super().__init__(recipe, model, train, Unit.RANK)
        self.alpha, self.scale, self.faithful = alpha, scale, faithful

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """Kernel times the product of α and the measurement's gradient."""
        ensemble = self.model.trees()
        query_leaves, train_leaves = self.model.leaves(queries), self.model.leaves(self.train)
        slopes = self.model.measure_slopes(queries, ensemble.margins(query_leaves))
        per_query = ensemble.membership(query_leaves, self.scale[query_leaves] ** 2).T.toarray()
        for block in blocks(len(self.train), TRAIN_BLOCK):
            kernel = ensemble.membership(train_leaves[block]) @ per_query
            yield block, (kernel * (self.alpha[block] @ slopes.T)).T

    def self_values(self) -> Array:
        """The same for each example with itself, which shares all its leaves."""
        leaves = self.model.leaves(self.train)
        slopes = self.model.measure_slopes(self.train, self.model.trees().margins(leaves))
        return np.asarray((self.scale[leaves] ** 2).sum(axis=1) * (self.alpha * slopes).sum(axis=1))

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """How well the surrogate agrees with the model."""
        warnings = list(self.model.notes)
        if not self.faithful >= FAITHFUL:
            l2 = self.recipe.l2
            warnings.append(
                f"The surrogate's outputs correlate with the model's at only {self.faithful:.2f}; try l2={l2 / 10:g}."
            )
        return {"faithful": self.faithful, "warnings": warnings}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """α, and the scale of every leaf."""
        return {"alpha": self.alpha, "scale": self.scale}, {"faithful": self.faithful}


def _fit_surrogate(
    features: sparse.csr_matrix, loss: BoostingLoss, targets: Array, weights: Array, l2: float
) -> tuple[Array, Array]:
    """(margins of the surrogate on the training set, −w ∂ℓ/∂F at them), both (n, K), by L-BFGS."""
    outputs, transposed = len(targets), features.T.tocsr()

    def objective(flat: Array) -> tuple[float, Array]:
        coefficients = flat.reshape(-1, outputs)
        z = np.ascontiguousarray((features @ coefficients).T)
        slope = transposed @ (weights * loss.derivatives(z, targets)[0]).T + l2 * coefficients
        return float(weights @ loss.value(z, targets) + 0.5 * l2 * flat @ flat), slope.ravel()

    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-15, "gtol": 1e-9 * float(weights.sum()), "maxcor": 20}
    start = np.zeros(features.shape[1] * outputs)
    coefficients = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x.reshape(-1, outputs)
    z = np.ascontiguousarray((features @ coefficients).T)
    return _centred(z.T), -(weights * loss.derivatives(z, targets)[0]).T


def _correlation(surrogate: Array, model: Array, counts: Array) -> float:
    """Pearson's correlation of two sets of margins (n, K), each example with its count."""
    covariance = np.cov(surrogate.ravel(), model.ravel(), aweights=np.repeat(counts, surrogate.shape[1]), ddof=0)
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


def _centred(z: Array) -> Array:
    """Margins of several classes minus their mean, which softmax ignores."""
    return z - z.mean(axis=1, keepdims=True) if z.shape[1] > 1 else z
