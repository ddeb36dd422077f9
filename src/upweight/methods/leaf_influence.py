"""Leaf influence: the derivative of leaf values in an example's weight, with splits held fixed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive import stored_array
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.blocks import blocks
from upweight.core.capability_checks import require
from upweight.core.examples import Examples
from upweight.core.forecast import expect_results
from upweight.core.laws import Law
from upweight.core.model import Retrainable
from upweight.core.scores import Unit
from upweight.core.tree_based import Boosted
from upweight.core.weights import weighted_positions
from upweight.methods.parts.fixed_structure import fixed_structure_facts
from upweight.trees.boosting import Boosting
from upweight.trees.fixed_structure import (
    margin_blocks,
    margin_changes,
    reverse_derivative,
    single_point_derivative,
)
from upweight.trees.top_leaves import top_leaves_derivative

Array = NDArray[np.float64]
TRAIN_BLOCK = 1024  # training examples whose scores are held in memory at once


@dataclass(frozen=True, kw_only=True)
class LeafInfluence(Attributor):
    """Sharchilev et al. (2018): ∂m_q/∂F · Σ_t ∂(value of q's leaf in tree t)/∂w_i with the splits held fixed.

    Args:
        update: the examples whose margins change from tree to tree: "all" (AllPoints of the paper, the derivative of
            boosting itself), "single" (the removed example alone; SinglePoint), or a number k (the removed example and
            those in the k leaves of each tree whose margins have moved most before it; TopKLeaves).
        bags: how many boosters to train, each on a random half of the examples; an example's score is the mean over
            those whose half has it. 0 uses the trees of the model. Other halves choose other splits, so effects of one
            accidental structure average out.
        seed: for the random halves.

    EFFECT with "all" and without bags: the first-order effect at fixed structure. RANK otherwise.
    """

    summary = "The derivative of leaf values in an example's weight, with splits held fixed"
    paper = "Sharchilev et al. (2018)"
    cost = (
        "examples × trees numbers for 'single'; that times the queries for 'all', from the last tree back to the "
        "first; examples² × trees for a number; a training and half of that for every bag"
    )
    unit = Unit.EFFECT
    needs = (Boosted,)
    variants: ClassVar = {
        "single": {"update": "single"},
        "top leaves": {"update": 2},
        "bags": {"bags": 12},
    }

    update: Literal["all", "single"] | int = "all"
    bags: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        is_count = isinstance(self.update, int) and not isinstance(self.update, bool) and self.update >= 1
        if self.update not in ("single", "all") and not is_count:
            raise ValueError(f'expected update="single", "all" or a number of leaves ≥ 1, got {self.update!r}')
        if self.bags < 0:
            raise ValueError(f"expected bags ≥ 0, got {self.bags}")

    @property
    def promises(self) -> Promises:
        """No floor against retraining without single examples, which also moves splits."""
        waives = {Law.WEIGHTS: "the halves are drawn from rows, regardless of their weights"} if self.bags else {}
        return Promises(
            no_floor="retraining without an example also moves splits, which can change more than the leaf values do",
            waives=waives,
        )

    def fit(self, model: Any, train: Examples) -> FittedLeafInfluence | FittedBags:
        """Compute the derivatives; for update="all" they are taken when queries come."""
        return FittedBags(self, model, train) if self.bags else self._fit(model, train)

    def _fit(self, model: Any, train: Examples) -> FittedLeafInfluence:
        grown = model.grown(train)
        grown.require_derivatives("LeafInfluence")
        if self.update == "all":
            return FittedLeafInfluence(self, model, train, grown)
        if self.update == "single":
            return FittedLeafInfluence(self, model, train, grown, *single_point_derivative(grown))
        expect_results(8.0 * grown.ensemble.values.size * len(train))
        derivatives = [
            top_leaves_derivative(grown, np.arange(block.start, block.stop), self.update)
            for block in margin_blocks(grown, len(train))
        ]
        change, base = (np.concatenate(parts, axis=-1) for parts in zip(*derivatives, strict=True))
        return FittedLeafInfluence(self, model, train, grown, change, base)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedLeafInfluence | FittedBags:
        """Take the derivatives from the saved state; bags are retrained, which gives the same boosters."""
        if self.bags or self.update == "all":
            return self.fit(model, train)
        grown, n = model.grown(train), len(train)
        leaves, trees, width = len(grown.ensemble.values), grown.ensemble.trees, grown.ensemble.width
        change = stored_array(state, "change", (n, trees, width) if self.update == "single" else (leaves, width, n))
        base = stored_array(state, "base", (len(grown.ensemble.base), n))
        return FittedLeafInfluence(self, model, train, grown, change, base)


class FittedLeafInfluence(Fitted[LeafInfluence, Boosted]):
    """Derivatives of leaf values, ready to be applied to queries.

    Attributes:
        change: derivatives of leaf values in log weights. For "single" those of the example's own leaves,
            (n, trees, width); for a number of leaves (leaves, width, n); for "all" empty, since queries decide them.
        base: derivatives of the base margin, (K, n).
    """

    def __init__(
        self,
        recipe: LeafInfluence,
        model: Any,
        train: Examples,
        grown: Boosting,
        change: Array | None = None,
        base: Array | None = None,
    ) -> None:
        is_effect = recipe.update == "all" and not recipe.bags
        super().__init__(recipe, model, train, Unit.EFFECT if is_effect else Unit.RANK)
        self.grown = grown
        self.change = np.empty(0) if change is None else change
        self.base = np.empty(0) if base is None else base

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """∂m/∂F of the query times ∂F/∂ log weight of the training example."""
        ensemble, leaves = self.model.trees(), self.model.leaves(queries)
        slopes = self.model.measure_slopes(queries, ensemble.margins(leaves))
        if self.recipe.update == "all":
            derivatives = [
                reverse_derivative(self.grown, leaves[block], slopes[block])
                for block in margin_blocks(self.grown, len(leaves))
            ]
            yield slice(0, len(self.train)), np.vstack(derivatives) * self.grown.weights
            return
        per_query = [
            ensemble.membership(leaves, slopes[:, ensemble.outputs + w]).T.toarray() for w in range(ensemble.width)
        ]
        train_leaves = self.model.leaves(self.train)
        for block in blocks(len(self.train), TRAIN_BLOCK):
            if self.recipe.update == "single":
                per_example: list[Any] = [
                    ensemble.membership(train_leaves[block], self.change[block, :, w]) for w in range(ensemble.width)
                ]
            else:
                per_example = [np.ascontiguousarray(self.change[:, w, block].T) for w in range(ensemble.width)]
            from_leaves = sum(left @ right for left, right in zip(per_example, per_query, strict=True))
            yield block, slopes @ self.base[:, block] + from_leaves.T

    def self_values(self) -> Array:
        """The effect of each training example on its own measurement."""
        ensemble, leaves = self.model.trees(), self.model.leaves(self.train)
        slopes = self.model.measure_slopes(self.train, ensemble.margins(leaves))
        if self.recipe.update == "all":
            values = [
                np.diagonal(reverse_derivative(self.grown, leaves[block], slopes[block]), block.start)
                for block in margin_blocks(self.grown, len(leaves))
            ]
            return np.concatenate(values) * self.grown.weights
        if self.recipe.update == "single":
            per_tree = np.stack([slopes[:, ensemble.outputs + w] for w in range(ensemble.width)], axis=2)
            return np.asarray(np.einsum("itw,itw->i", self.change, per_tree) + (slopes * self.base.T).sum(axis=1))
        changes = [
            margin_changes(ensemble, leaves[[i]], self.change[..., [i]], self.base[:, [i]])[0, :, 0]
            for i in range(len(leaves))
        ]
        return np.asarray((slopes * np.stack(changes)).sum(axis=1))

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """A warning that splits are held fixed, and the notes of the model."""
        return fixed_structure_facts(self.model.notes)

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The derivatives."""
        return {"change": self.change, "base": self.base}, {}


class FittedBags(Fitted[LeafInfluence, Any]):
    """Boosters on random halves with their derivatives; an example's score is the mean over those whose half has it.

    Attributes:
        halves: (positions of the half in the training set, LeafInfluence fitted on it) of every booster.
        seen: in how many halves each training example is.
    """

    def __init__(self, recipe: LeafInfluence, model: Any, train: Examples) -> None:
        require(model, [Boosted, Retrainable], "LeafInfluence(bags=…)")
        super().__init__(recipe, model, train, Unit.RANK)
        counted = weighted_positions(train)
        rng, by_id = np.random.default_rng(recipe.seed), counted[np.argsort(train.ids[counted], kind="stable")]
        self.halves: list[tuple[NDArray[np.intp], FittedLeafInfluence]] = []
        for _ in range(recipe.bags):
            positions = by_id[np.sort(rng.choice(len(by_id), max(len(by_id) // 2, 1), replace=False))]
            examples = train.take(positions)
            booster = model.retrain(examples, np.ones(len(examples)), recipe.seed)
            self.halves.append((positions, recipe._fit(booster, examples)))
        self.seen = np.zeros(len(train))
        for positions, _ in self.halves:
            self.seen[positions] += 1

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """One block: means over the boosters that saw the example; 0 if none did."""
        total = np.zeros((len(queries), len(self.train)))
        for positions, fitted in self.halves:
            for block, scores in fitted.blocks(queries):
                total[:, positions[block]] += scores
        yield slice(0, len(self.train)), total / np.maximum(self.seen, 1)

    def self_values(self) -> Array:
        """The effect of each training example on its own measurement."""
        total = np.zeros(len(self.train))
        for positions, fitted in self.halves:
            total[positions] += fitted.self_values()
        return np.asarray(total / np.maximum(self.seen, 1))

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """How many boosters there are, and how many examples none of them saw."""
        warnings, missed = list(self.model.notes), int((self.seen[weighted_positions(self.train)] == 0).sum())
        if missed:
            warnings.append(f"{missed} examples were in none of the {len(self.halves)} halves and score 0: raise bags.")
        return {"bags": len(self.halves), "warnings": warnings}
