"""Tree similarity: how often an example and the query fall into the same leaf, with the sign of their gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive import stored_array
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.blocks import blocks
from upweight.core.choices import require_choice
from upweight.core.examples import Examples
from upweight.core.scores import Unit
from upweight.core.tree_based import TreeBased
from upweight.core.weights import example_counts, sample_weights

Array = NDArray[np.float64]
TRAIN_BLOCK = 4096  # training examples whose scores are held in memory at once


@dataclass(frozen=True, kw_only=True)
class TreeSim(Attributor):
    """Similarity of two examples by the leaves that they share, with the sign of their gradients' product. RANK.

    Args:
        kernel: "weighted" divides every shared leaf by the number of training examples in it (TreeSim of Brophy et al.
            2023: a small leaf is stronger evidence of similarity); "leaves" counts all shared leaves alike (LeafSim).
            An example that counts for k copies counts k times in its leaves, and its score is k times as large.

    The sign is that of −∂ℓ_i/∂F · ∂m_q/∂F at the final margins. With the default measurement it is positive if the two
    labels agree. The method does not depend on how leaf values were computed, so it works with every booster.
    """

    summary = "How often an example and the query fall into the same leaf, with the sign of their gradients"
    paper = "Brophy et al. (2023)"
    cost = "a sparse product with trees × queries numbers per training example"
    needs = (TreeBased,)
    variants: ClassVar = {"leaves": {"kernel": "leaves"}}

    kernel: Literal["weighted", "leaves"] = "weighted"

    def __post_init__(self) -> None:
        require_choice("kernel", self.kernel, "weighted", "leaves")

    @property
    def promises(self) -> Promises:
        """No floor against retraining."""
        return Promises(no_floor="the scores say how similar two examples are to the trees, not what training does")

    def fit(self, model: Any, train: Examples) -> FittedTreeSim:
        """Compute the pseudo-residual of every training example, and count the examples in every leaf."""
        targets, ensemble, leaves = model.grown(train).targets, model.trees(), model.leaves(train)
        pseudo_residuals = -model.loss.derivatives(ensemble.margins(leaves).T, targets)[0].T
        counts = ensemble.leaf_weights(leaves, example_counts(sample_weights(train)))
        return FittedTreeSim(self, model, train, pseudo_residuals, counts)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedTreeSim:
        """Take pseudo-residuals and counts from the saved state."""
        ensemble = model.trees()
        pseudo_residuals = stored_array(state, "pull", (len(train), len(ensemble.base)))
        counts = stored_array(state, "counts", (len(ensemble.values),), "fiu")
        return FittedTreeSim(self, model, train, pseudo_residuals, counts)


class FittedTreeSim(Fitted[TreeSim, TreeBased]):
    """TreeSim, ready to answer."""

    def __init__(self, recipe: TreeSim, model: Any, train: Examples, pseudo_residuals: Array, counts: Array) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.pseudo_residuals = pseudo_residuals  # −∂ℓ/∂F, (n, K)
        self.counts = counts  # training examples in every leaf
        self._copies = example_counts(sample_weights(train))
        is_weighted = recipe.kernel == "weighted"
        self.leaf_similarity = 1.0 / np.where(counts > 0, counts, 1.0) if is_weighted else np.ones(len(counts))

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """Similarity times the sign of the gradients' product."""
        ensemble = self.model.trees()
        query_leaves, train_leaves = self.model.leaves(queries), self.model.leaves(self.train)
        slopes = self.model.measure_slopes(queries, ensemble.margins(query_leaves))
        per_query = ensemble.membership(query_leaves, self.leaf_similarity[query_leaves] / ensemble.trees).T.toarray()
        for block in blocks(len(self.train), TRAIN_BLOCK):
            similarity = ensemble.membership(train_leaves[block]) @ per_query
            signs = np.sign(self.pseudo_residuals[block] @ slopes.T) * self._copies[block, None]
            yield block, (similarity * signs).T

    def self_values(self) -> Array:
        """The score of each example on itself; it shares all leaves with itself."""
        leaves = self.model.leaves(self.train)
        slopes = self.model.measure_slopes(self.train, self.model.trees().margins(leaves))
        signs = np.sign((self.pseudo_residuals * slopes).sum(axis=1))
        return np.asarray(self.leaf_similarity[leaves].mean(axis=1) * signs * self._copies)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """The kernel, and the notes of the model."""
        return {"kernel": self.recipe.kernel, "warnings": list(self.model.notes)}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Pseudo-residuals and counts."""
        return {"pull": self.pseudo_residuals, "counts": self.counts}, {}
