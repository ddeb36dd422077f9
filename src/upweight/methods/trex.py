"""TREX: a kernel machine on the trees' own similarity stands in for them, and says what each example adds to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.examples import Examples
from upweight.core.model import TreeBased
from upweight.core.scores import Unit
from upweight.core.weights import example_counts, sample_weights
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.losses import Squared

Array = NDArray[np.float64]
BLOCK = 4096  # training examples whose scores are held at a time when they are streamed
FAITHFUL = 0.9  # correlation of the surrogate's margins with the model's below which the reader is told


@dataclass(frozen=True, kw_only=True)
class TREX(Attributor):
    """Brophy & Lowd (2020), after Yeh et al. (2018): F(q) ≈ Σ_i α_i k(i, q), score = ∂m_q/∂F · α_i k(i, q).

    k counts shared leaves, each by one over the training examples in it, averaged over the trees. The surrogate
    minimises Σ w ℓ + l2/2 ‖W‖² of the model's own loss on it (squared loss where that has no curvature), so that
    α_i = −w_i ∂ℓ_i/∂F / l2.

    Args:
        l2: the surrogate's regulariser. Less follows single examples more closely.

    RANK: these are contributions to a surrogate. `diagnostics["faithful"]` is its correlation with the model.
    """

    summary = "A kernel machine on the trees' own similarity stands in for them, and says what each example adds to it"
    paper = "Brophy & Lowd (2020)"
    cost = "some hundred passes over examples × trees"
    needs = (TreeBased,)

    l2: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.l2 < np.inf:
            raise ValueError(f"expected a finite l2 > 0, got {self.l2}")

    @property
    def promises(self) -> Promises:
        """Nothing about retraining."""
        return Promises(
            no_floor="it says what an example adds to a surrogate on fixed trees, which retraining grows anew"
        )

    def fit(self, model: Any, train: Examples) -> FittedTREX:
        """The surrogate."""
        ensemble, at, grown = model.trees(), model.leaves(train), model.grown(train)
        weights = sample_weights(train)
        counts = example_counts(weights)
        held = ensemble.leaf_weights(at, counts)
        scale = 1.0 / np.sqrt(np.where(held > 0, held, 1.0) * ensemble.trees)
        features = ensemble.membership(at, scale[at])
        loss = grown.loss if grown.loss.differentiable else Squared()
        surrogate, pull = _minimised(features, loss, grown.targets, weights, self.l2)
        theirs = ensemble.margins(at)
        faithful = _correlation(surrogate, _centred(theirs), counts)
        return FittedTREX(self, model, train, pull / self.l2, scale, faithful)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedTREX:
        """The surrogate from disk."""
        return FittedTREX(self, model, train, state["alpha"], state["scale"], facts["faithful"])


class FittedTREX(Fitted[TREX, TreeBased]):
    """The surrogate, ready to answer."""

    def __init__(
        self, recipe: TREX, model: Any, train: Examples, alpha: Array, scale: Array, faithful: float
    ) -> None:  # α (n, K), and the root of every leaf's worth (leaves,)
        super().__init__(recipe, model, train, Unit.RANK)
        self.alpha, self.scale, self.faithful = alpha, scale, faithful

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """Kernel times the product of α and the measurement's gradient."""
        ensemble, at, places = self.model.trees(), self.model.leaves(queries), self.model.leaves(self.train)
        slopes = self.model.measure_slopes(queries, ensemble.margins(at))
        asked = ensemble.membership(at, self.scale[at] ** 2).T.toarray()
        for start in range(0, len(self.train), BLOCK):
            where = slice(start, min(start + BLOCK, len(self.train)))
            kernel = ensemble.membership(places[where]) @ asked
            yield where, (kernel * (self.alpha[where] @ slopes.T)).T

    def self_values(self) -> Array:
        """An example shares every leaf with itself."""
        at = self.model.leaves(self.train)
        slopes = self.model.measure_slopes(self.train, self.model.trees().margins(at))
        return np.asarray((self.scale[at] ** 2).sum(axis=1) * (self.alpha * slopes).sum(axis=1))

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """How well the surrogate stands in for the model."""
        warnings = list(self.model.notes)
        if not self.faithful >= FAITHFUL:
            l2 = self.recipe.l2
            warnings.append(
                f"The surrogate's outputs correlate with the model's by {self.faithful:.2f} only; try l2={l2 / 10:g}."
            )
        return {"faithful": self.faithful, "warnings": warnings}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """α, and every leaf's worth."""
        return {"alpha": self.alpha, "scale": self.scale}, {"faithful": self.faithful}


def _minimised(
    features: sparse.csr_matrix, loss: BoostingLoss, targets: Array, weights: Array, l2: float
) -> tuple[Array, Array]:
    """(outputs of the surrogate on the training set, −w ∂ℓ/∂F there), both (n, K), by L-BFGS."""
    outputs, back = len(targets), features.T.tocsr()

    def objective(flat: Array) -> tuple[float, Array]:
        coefficients = flat.reshape(-1, outputs)
        z = np.ascontiguousarray((features @ coefficients).T)
        slope = back @ (weights * loss.derivatives(z, targets)[0]).T + l2 * coefficients
        return float(weights @ loss.value(z, targets) + 0.5 * l2 * flat @ flat), slope.ravel()

    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-15, "gtol": 1e-9 * float(weights.sum()), "maxcor": 20}
    start = np.zeros(features.shape[1] * outputs)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x.reshape(-1, outputs)
    z = np.ascontiguousarray((features @ found).T)
    return _centred(z.T), -(weights * loss.derivatives(z, targets)[0]).T


def _correlation(ours: Array, theirs: Array, counts: Array) -> float:
    """Pearson's, over all outputs (n, K) of the examples, each counted so many times."""
    covariance = np.cov(ours.ravel(), theirs.ravel(), aweights=np.repeat(counts, ours.shape[1]), ddof=0)
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


def _centred(z: Array) -> Array:
    """Margins of several classes up to what softmax does not see."""
    return z - z.mean(axis=1, keepdims=True) if z.shape[1] > 1 else z
