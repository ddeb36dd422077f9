"""Forest weights: what an example adds to the leaf means of a forest, or to the trees whose bootstrap sample has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.blocks import blocks
from upweight.core.choices import require_choice
from upweight.core.examples import Examples
from upweight.core.forecast import counted
from upweight.core.laws import Law
from upweight.core.scores import Unit
from upweight.core.tree_based import Averaged
from upweight.trees.ensemble import Indices, TreeEnsemble
from upweight.trees.forest import Forest

Array = NDArray[np.float64]
TRAIN_BLOCK = 256  # training examples whose removals are held in memory at once


@dataclass(frozen=True, kw_only=True)
class ForestWeights(Attributor):
    """A forest predicts Σ_i w_i(q) y_i; to remove an example, its leaf means (or the trees) are averaged anew. EFFECT.

    Args:
        removal: "leaves" takes the example out of every leaf mean, with splits and bootstrap samples held fixed; a tree
            whose leaf is left empty does not vote. "trees" averages the trees whose bootstrap sample lacks the example
            (jackknife after bootstrap, Efron 1992; Wager, Hastie & Efron 2014): splits move as well, at the price of
            noise that falls with the number of trees.
    """

    summary = "What an example adds to the leaf means of a forest, or to the trees whose bootstrap sample has it"
    paper = "Wager, Hastie & Efron (2014)"
    cost = "a sparse product with trees × queries numbers per training example, and a measurement per pair"
    unit = Unit.EFFECT
    needs = (Averaged,)
    variants: ClassVar = {"trees that never drew it": {"removal": "trees"}}

    removal: Literal["leaves", "trees"] = "leaves"

    def __post_init__(self) -> None:
        require_choice("removal", self.removal, "leaves", "trees")

    @property
    def promises(self) -> Promises:
        """No floor against retraining without single examples."""
        reason = "trees that did not draw an example differ by more than this example, so a copy may be an opponent"
        waives = {Law.COPY: reason} if self.removal == "trees" else {}
        redrawn = "retraining draws new bootstrap samples, which moves predictions more than one example does"
        return Promises(no_floor=redrawn, waives=waives)

    def fit(self, model: Any, train: Examples) -> FittedForestWeights:
        """Find the leaves and the bootstrap samples of the training set."""
        forest = model.grown(train)
        if self.removal == "trees" and not forest.bootstrap:
            raise TypeError(
                "removal='trees' needs a forest of bootstrap samples, but every tree of this one was trained on all "
                "examples; use removal='leaves'"
            )
        if self.removal == "leaves" and not forest.exact:
            raise ValueError(
                "removal='leaves' needs leaf values that are means of training examples, which they are not here: "
                f"{'; '.join(forest.unrecorded)}"
            )
        return FittedForestWeights(self, model, train, forest)


class FittedForestWeights(Fitted[ForestWeights, Averaged]):
    """A forest, ready to answer."""

    def __init__(self, recipe: ForestWeights, model: Any, train: Examples, forest: Forest) -> None:
        super().__init__(recipe, model, train, Unit.EFFECT)
        self.forest = forest
        self.drawn: NDArray[np.bool_] = np.asarray(forest.weights > 0)

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """The measurement at the forest's margins minus the measurement at the margins without each example."""
        leaves = self.model.leaves(queries)
        margins = self.forest.ensemble.margins(leaves)
        before = self.model.measure_margins(queries, margins)
        for block in blocks(len(self.train), TRAIN_BLOCK):
            changes = self._margin_changes(leaves, margins, np.arange(block.start, block.stop))
            columns = counted(range(changes.shape[1]), changes.shape[1])
            after = [self.model.measure_margins(queries, margins + changes[:, c]) for c in columns]
            yield block, before[:, None] - np.stack(after, axis=1)

    def self_values(self) -> Array:
        """The effect of each training example on its own measurement."""
        leaves = self.model.leaves(self.train)
        margins = self.forest.ensemble.margins(leaves)
        positions = counted(range(len(leaves)), len(leaves))
        changes = [self._margin_changes(leaves[[i]], margins[[i]], np.array([i]))[0] for i in positions]
        before = self.model.measure_margins(self.train, margins)
        return np.asarray(before - self.model.measure_margins(self.train, margins + np.concatenate(changes)))

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """Notes about what is held fixed, and how many examples cannot be judged."""
        warnings = list(self.model.notes)
        if self.recipe.removal == "leaves":
            warnings.append(
                "Splits and bootstrap samples are held fixed: effects on the structure of the trees are left out."
            )
            return {"fixed_structure": True, "warnings": warnings}
        in_every_tree = int(self.drawn.all(axis=1).sum())
        if in_every_tree:
            warnings.append(f"{in_every_tree} examples were drawn by every tree and score 0: grow more trees.")
        return {"trees": self.forest.ensemble.trees, "warnings": warnings}

    def _margin_changes(self, query_leaves: Indices, margins: Array, positions: NDArray[np.intp]) -> Array:
        """Changes of the queries' margins when each of these training examples is removed, (m, examples, K)."""
        if self.recipe.removal == "trees":
            return self._by_other_trees(query_leaves, margins, positions)
        return self._by_leaf_means(query_leaves, margins, positions)

    def _by_other_trees(self, query_leaves: Indices, margins: Array, positions: NDArray[np.intp]) -> Array:
        """Changes if only the trees vote that did not draw the example; 0 if every tree drew it."""
        ensemble = self.forest.ensemble
        not_drawn = np.logical_not(self.drawn[positions])  # (examples, trees)
        votes = ensemble.values[query_leaves] * ensemble.trees  # (m, trees, K)
        mean = np.einsum("mtk,et->mek", votes, not_drawn) / np.maximum(not_drawn.sum(axis=1), 1)[:, None]
        has_trees = (not_drawn.sum(axis=1) > 0)[:, None]
        return np.where(has_trees, mean - margins[:, None], 0.0)

    def _by_leaf_means(self, query_leaves: Indices, margins: Array, positions: NDArray[np.intp]) -> Array:
        """Changes if every leaf mean goes without the example, and a tree whose leaf becomes empty does not vote."""
        forest, ensemble = self.forest, self.forest.ensemble
        train_leaves, weight = forest.leaves[positions], forest.weights[positions]
        remaining = forest.leaf_weights[train_leaves] - weight
        is_alone = (remaining <= 1e-9 * forest.leaf_weights[train_leaves]) & (weight > 0)
        share = np.where(is_alone, 0.0, weight / np.where(is_alone, 1.0, remaining))
        other_votes = (margins[:, None] - ensemble.trees * ensemble.values[query_leaves]) / max(ensemble.trees - 1, 1)
        changes = np.empty((len(query_leaves), len(positions), ensemble.width))
        ones = np.ones(query_leaves.shape)
        for output, target in enumerate(forest.targets):
            residual = ensemble.values[train_leaves, output] - target[positions, None] / ensemble.trees
            from_means = _sum_over_shared(ensemble, query_leaves, ones, train_leaves, share * residual)
            from_votes = _sum_over_shared(
                ensemble, query_leaves, other_votes[..., output], train_leaves, is_alone.astype(float)
            )
            changes[..., output] = from_means + from_votes
        return changes


def _sum_over_shared(
    ensemble: TreeEnsemble, query_leaves: Indices, per_query: Array, train_leaves: Indices, per_example: Array
) -> Array:
    """Σ over shared leaves of the query's number times the example's number, (m, examples)."""
    product = ensemble.membership(query_leaves, per_query) @ ensemble.membership(train_leaves, per_example).T
    return np.asarray(product.toarray())
