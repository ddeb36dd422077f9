"""Leaf influence: how leaf values move when an example's weight does, splits held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.examples import Examples
from upweight.core.laws import Law
from upweight.core.model import Boosted, Retrainable, require
from upweight.core.scores import Unit
from upweight.core.weights import weighted_positions
from upweight.trees.boosting import Boosting
from upweight.trees.fixed_structure import (
    forward_derivative,
    margin_blocks,
    margin_changes,
    reverse_derivative,
    single_point_derivative,
)

Array = NDArray[np.float64]
BLOCK = 1024  # training examples whose scores are held at a time when they are streamed


@dataclass(frozen=True, kw_only=True)
class LeafInfluence(Attributor):
    """Sharchilev et al. (2018): ∂m_q/∂F · Σ_t ∂(value of q's leaf in tree t)/∂w_i with the splits where they are.

    Args:
        update: whose margins are followed from tree to tree: "all" (AllPoints of the paper, the derivative of boosting
            itself), "single" (the example's own; SinglePoint), or a number k (those in the k leaves of each tree that
            move most; TopKLeaves).
        bags: train so many boosters again, each on a random half of the examples, and average over those that an
            example had a part in; 0 stays with the model's own trees. Other halves choose other splits, so what
            depends on one accidental structure averages out.
        seed: for the halves.

    EFFECT with "all" and without bags: the first-order effect at fixed structure; RANK otherwise.
    """

    summary = "How leaf values move when an example's weight does, splits held"
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
        """Nothing about single retrainings, whose splits move."""
        waives = {Law.WEIGHTS: "the halves are drawn from rows, whatever they weigh"} if self.bags else {}
        return Promises(
            no_floor="without an example splits move too, which can do more than the leaf values", waives=waives
        )

    def fit(self, model: Any, train: Examples) -> FittedLeafInfluence | FittedBags:
        """All derivatives."""
        return FittedBags(self, model, train) if self.bags else self._fit(model, train)

    def _fit(self, model: Any, train: Examples) -> FittedLeafInfluence:
        grown = model.grown(train)
        grown.require_exact("LeafInfluence")
        if self.update == "all":
            return FittedLeafInfluence(self, model, train, grown)
        if self.update == "single":
            return FittedLeafInfluence(self, model, train, grown, *single_point_derivative(grown))
        found = [
            forward_derivative(grown, np.arange(part.start, part.stop), self.update)
            for part in margin_blocks(grown, len(train))
        ]
        change, base = (np.concatenate(both, axis=-1) for both in zip(*found, strict=True))
        return FittedLeafInfluence(self, model, train, grown, change, base)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedLeafInfluence | FittedBags:
        """The derivatives from disk; bags are trained again, which gives the same."""
        if self.bags or self.update == "all":
            return self.fit(model, train)
        return FittedLeafInfluence(self, model, train, model.grown(train), state["change"], state["base"])


class FittedLeafInfluence(Fitted[LeafInfluence, Boosted]):
    """Derivatives of leaf values, ready to be applied to queries."""

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
        # "single": (n, trees, width), of the example's own leaves; k: (leaves, width, n); "all": from the queries.
        self.change = np.empty(0) if change is None else change
        self.base = np.empty(0) if base is None else base  # (K, n)

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """∂m/∂F at the query times how F moves."""
        ensemble, at = self.model.trees(), self.model.leaves(queries)
        slopes = self.model.measure_slopes(queries, ensemble.margins(at))
        if self._follows_all:
            parts = [
                reverse_derivative(self.grown, at[part], slopes[part]) for part in margin_blocks(self.grown, len(at))
            ]
            yield slice(0, len(self.train)), np.vstack(parts) * self.grown.weights
            return
        asked = [ensemble.membership(at, slopes[:, ensemble.outputs + w]).T.toarray() for w in range(ensemble.width)]
        places = self.model.leaves(self.train)
        for start in range(0, len(self.train), BLOCK):
            where = slice(start, min(start + BLOCK, len(self.train)))
            if self._is_single:
                rows = [ensemble.membership(places[where], self.change[where, :, w]) for w in range(ensemble.width)]
            else:
                rows = [np.ascontiguousarray(self.change[:, w, where].T) for w in range(ensemble.width)]
            moved = sum(row @ column for row, column in zip(rows, asked, strict=True))
            yield where, slopes @ self.base[:, where] + moved.T

    def self_values(self) -> Array:
        """Each example's own measurement."""
        ensemble, at = self.model.trees(), self.model.leaves(self.train)
        slopes = self.model.measure_slopes(self.train, ensemble.margins(at))
        if self._follows_all:
            parts = margin_blocks(self.grown, len(at))
            own = [np.diagonal(reverse_derivative(self.grown, at[p], slopes[p]), p.start) for p in parts]
            return np.concatenate(own) * self.grown.weights
        if self._is_single:
            per_tree = np.stack([slopes[:, ensemble.outputs + w] for w in range(ensemble.width)], axis=2)
            return np.asarray(np.einsum("itw,itw->i", self.change, per_tree) + (slopes * self.base.T).sum(axis=1))
        own = [
            margin_changes(ensemble, at[[i]], self.change[..., [i]], self.base[:, [i]])[0, :, 0] for i in range(len(at))
        ]
        return np.asarray((slopes * np.stack(own)).sum(axis=1))

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """What is held."""
        held = "Splits are held: what an example did to the structure of the trees is not in these scores."
        return {"fixed_structure": True, "warnings": [*self.model.notes, held]}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The derivatives."""
        return {"change": self.change, "base": self.base}, {}

    @property
    def _follows_all(self) -> bool:
        return self.recipe.update == "all"

    @property
    def _is_single(self) -> bool:
        return self.recipe.update == "single"


class FittedBags(Fitted[LeafInfluence, Any]):
    """Boosters on random halves, each with its derivatives; an example's score is the mean over those that saw it."""

    def __init__(self, recipe: LeafInfluence, model: Any, train: Examples) -> None:
        require(model, [Boosted, Retrainable], "LeafInfluence(bags=…)")
        super().__init__(recipe, model, train, Unit.RANK)
        counted = weighted_positions(train)
        rng, by_id = np.random.default_rng(recipe.seed), counted[np.argsort(train.ids[counted], kind="stable")]
        self.halves: list[tuple[NDArray[np.intp], FittedLeafInfluence]] = []
        for _ in range(recipe.bags):
            kept = by_id[np.sort(rng.choice(len(by_id), max(len(by_id) // 2, 1), replace=False))]
            some = train.take(kept)
            half = model.retrain(some, np.ones(len(some)), recipe.seed)
            self.halves.append((kept, recipe._fit(half, some)))
        self.seen = np.zeros(len(train))
        for kept, _ in self.halves:
            self.seen[kept] += 1

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """One block: means over the boosters that saw the example; 0 where none did."""
        total = np.zeros((len(queries), len(self.train)))
        for kept, fitted in self.halves:
            for where, block in fitted.blocks(queries):
                total[:, kept[where]] += block
        yield slice(0, len(self.train)), total / np.maximum(self.seen, 1)

    def self_values(self) -> Array:
        """Each example's own measurement."""
        total = np.zeros(len(self.train))
        for kept, fitted in self.halves:
            total[kept] += fitted.self_values()
        return np.asarray(total / np.maximum(self.seen, 1))

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """How many boosters, and who was in none."""
        warnings, missed = list(self.model.notes), int((self.seen[weighted_positions(self.train)] == 0).sum())
        if missed:
            warnings.append(f"{missed} examples were in none of the {len(self.halves)} halves and score 0: more bags.")
        return {"bags": len(self.halves), "warnings": warnings}
