"""Tree similarity: how often an example and the query fall into the same leaf, with the sign of their gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.examples import Examples
from upweight.core.model import TreeBased
from upweight.core.scores import Unit
from upweight.core.weights import example_counts, sample_weights

Array = NDArray[np.float64]
BLOCK = 4096  # training examples whose scores are held at a time when they are streamed


@dataclass(frozen=True, kw_only=True)
class TreeSim(Attributor):
    """± similarity of two examples in the trees' own terms (RANK); + where the example pulls the query's way.

    Args:
        kernel: "weighted" counts every shared leaf by one over the training examples in it (TreeSim of Brophy et al.
            2023: a leaf that few share says more), "leaves" counts them alike (LeafSim). An example that counts for
            k copies is k of them in a leaf, and scores k times.

    The sign is that of −∂ℓ_i/∂F · ∂m_q/∂F at the final margins: with the default measurement, that of two labels
    agreeing. Nothing is asked of how leaf values came about, so every booster will do.
    """

    summary = "How often an example and the query fall into the same leaf, with the sign of their gradients"
    paper = "Brophy et al. (2023)"
    cost = "a sparse product with trees × queries numbers per training example"
    needs = (TreeBased,)
    variants: ClassVar = {"leaves": {"kernel": "leaves"}}

    kernel: Literal["weighted", "leaves"] = "weighted"

    def __post_init__(self) -> None:
        if self.kernel not in ("weighted", "leaves"):
            raise ValueError(f'expected kernel="weighted" or "leaves", got {self.kernel!r}')

    @property
    def promises(self) -> Promises:
        """Nothing about retraining."""
        return Promises(no_floor="it says how alike two examples are to the trees, and nothing of what training does")

    def fit(self, model: Any, train: Examples) -> FittedTreeSim:
        """The leaf and the gradient of every example."""
        grown, ensemble, at = model.grown(train), model.trees(), model.leaves(train)
        pull = -model.loss.derivatives(ensemble.margins(at).T, grown.targets)[0].T
        counts = ensemble.leaf_weights(at, example_counts(sample_weights(train)))
        return FittedTreeSim(self, model, train, pull, counts)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedTreeSim:
        """Gradients and counts from disk."""
        return FittedTreeSim(self, model, train, state["pull"], state["counts"])


class FittedTreeSim(Fitted[TreeSim, TreeBased]):
    """Similarities, ready to be taken."""

    def __init__(self, recipe: TreeSim, model: Any, train: Examples, pull: Array, counts: Array) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.pull, self.counts = pull, counts  # (n, K) −∂ℓ/∂F, and the training examples in every leaf
        self._copies = example_counts(sample_weights(train))
        weighted = recipe.kernel == "weighted"
        self.worth = 1.0 / np.where(counts > 0, counts, 1.0) if weighted else np.ones(len(counts))

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """Similarity times the sign of the gradients' product."""
        ensemble, at, places = self.model.trees(), self.model.leaves(queries), self.model.leaves(self.train)
        slopes = self.model.measure_slopes(queries, ensemble.margins(at))
        asked = ensemble.membership(at, self.worth[at] / ensemble.trees).T.toarray()
        for start in range(0, len(self.train), BLOCK):
            where = slice(start, min(start + BLOCK, len(self.train)))
            similar = ensemble.membership(places[where]) @ asked
            signs = np.sign(self.pull[where] @ slopes.T) * self._copies[where, None]
            yield where, (similar * signs).T

    def self_values(self) -> Array:
        """An example shares every leaf with itself."""
        at = self.model.leaves(self.train)
        slopes = self.model.measure_slopes(self.train, self.model.trees().margins(at))
        signs = np.sign((self.pull * slopes).sum(axis=1))
        return np.asarray(self.worth[at].mean(axis=1) * signs * self._copies)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """Which kernel."""
        kernel = self.recipe.kernel
        return {"kernel": kernel, "warnings": list(self.model.notes)}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Gradients and counts."""
        return {"pull": self.pull, "counts": self.counts}, {}
