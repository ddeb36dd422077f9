"""Forest weights: what an example adds to the leaves of a forest, or to the trees that drew it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.examples import Examples
from upweight.core.laws import Law
from upweight.core.model import Averaged
from upweight.core.scores import Unit
from upweight.trees.ensemble import Indices, TreeEnsemble
from upweight.trees.forest import Forest

Array = NDArray[np.float64]
BLOCK = 256  # training examples whose removals are held at a time


@dataclass(frozen=True, kw_only=True)
class ForestWeights(Attributor):
    """A forest's prediction is Σ_i w_i(q) y_i; without an example its leaves (or its trees) are averaged anew (EFFECT).

    Args:
        removal: "leaves" takes the example out of every leaf mean, splits and draws held; a leaf left empty takes its
            tree out of the vote. "trees" averages the trees that never drew it (jackknife after bootstrap, Efron
            1992; Wager, Hastie & Efron 2014): splits move as well, at the price of noise that falls with the number of
            trees.
    """

    summary = "What an example adds to the leaves of a forest, or to the trees that drew it"
    paper = "Wager, Hastie & Efron (2014)"
    cost = "a sparse product with trees × queries numbers per training example, and a measurement per pair"
    unit = Unit.EFFECT
    needs = (Averaged,)
    variants: ClassVar = {"trees that never drew it": {"removal": "trees"}}

    removal: Literal["leaves", "trees"] = "leaves"

    def __post_init__(self) -> None:
        if self.removal not in ("leaves", "trees"):
            raise ValueError(f'expected removal="leaves" or "trees", got {self.removal!r}')

    @property
    def promises(self) -> Promises:
        """Nothing about single retrainings."""
        reason = "an example outside every tree that could tell decides nothing alone"
        waives = {Law.COPY: reason} if self.removal == "trees" else {}
        drawn = "trained again, a forest draws anew, which moves predictions more than one example does"
        return Promises(no_floor=drawn, waives=waives)

    def fit(self, model: Any, train: Examples) -> FittedForestWeights:
        """Nothing beyond the leaves."""
        grown = model.grown(train)
        if self.removal == "trees" and not grown.bootstrap:
            raise TypeError("trees that saw all examples cannot say what they would be without one; removal='leaves'")
        if self.removal == "leaves" and not grown.exact:
            raise ValueError(f"leaf values are no means of training examples: {'; '.join(grown.unrecorded)}")
        return FittedForestWeights(self, model, train, grown)


class FittedForestWeights(Fitted[ForestWeights, Averaged]):
    """A forest, ready to answer."""

    def __init__(self, recipe: ForestWeights, model: Any, train: Examples, forest: Forest) -> None:
        super().__init__(recipe, model, train, Unit.EFFECT)
        self.forest = forest
        self.drawn: NDArray[np.bool_] = np.asarray(forest.weights > 0)

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """The measurement at the forest's margins minus at those without each example."""
        at = self.model.leaves(queries)
        margins = self.forest.ensemble.margins(at)
        measured = self.model.measure_margins(queries, margins)
        for start in range(0, len(self.train), BLOCK):
            where = np.arange(start, min(start + BLOCK, len(self.train)))
            moved = self._moved(at, margins, where)
            after = [self.model.measure_margins(queries, margins + moved[:, c]) for c in range(len(where))]
            yield slice(start, int(where[-1]) + 1), measured[:, None] - np.stack(after, axis=1)

    def self_values(self) -> Array:
        """Each example's own measurement."""
        at = self.model.leaves(self.train)
        margins = self.forest.ensemble.margins(at)
        moved = [self._moved(at[[i]], margins[[i]], np.array([i]))[0] for i in range(len(at))]
        before = self.model.measure_margins(self.train, margins)
        return np.asarray(before - self.model.measure_margins(self.train, margins + np.concatenate(moved)))

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """What is held, and who cannot be judged."""
        warnings = list(self.model.notes)
        if self.recipe.removal == "leaves":
            warnings.append("Splits and draws are held: what an example did to the structure is not in these scores.")
            return {"fixed_structure": True, "warnings": warnings}
        everywhere = int(self.drawn.all(axis=1).sum())
        if everywhere:
            warnings.append(f"{everywhere} examples were drawn by every tree and score 0: grow more trees.")
        return {"trees": self.forest.ensemble.trees, "warnings": warnings}

    def _moved(self, at: Indices, margins: Array, where: NDArray[np.intp]) -> Array:
        """How the margins of queries in these leaves move without each of these examples, (m, examples, K)."""
        forest, ensemble = self.forest, self.forest.ensemble
        if self.recipe.removal == "trees":
            free = np.logical_not(self.drawn[where])  # (examples, trees)
            each = ensemble.values[at] * ensemble.trees  # (m, trees, K)
            mean = np.einsum("mtk,et->mek", each, free) / np.maximum(free.sum(axis=1), 1)[:, None]
            known = (free.sum(axis=1) > 0)[:, None]
            return np.where(known, mean - margins[:, None], 0.0)
        places, weight = forest.leaves[where], forest.weights[where]
        left = forest.leaf_weights[places] - weight
        alone = (left <= 1e-9 * forest.leaf_weights[places]) & (weight > 0)
        share = np.where(alone, 0.0, weight / np.where(alone, 1.0, left))
        others = (margins[:, None] - ensemble.trees * ensemble.values[at]) / max(ensemble.trees - 1, 1)
        out = np.empty((len(at), len(where), ensemble.width))
        for output, target in enumerate(forest.targets):
            off = ensemble.values[places, output] - target[where, None] / ensemble.trees
            taken = _shared(ensemble, at, np.ones(at.shape), places, share * off)
            out[..., output] = taken + _shared(ensemble, at, others[..., output], places, alone.astype(float))
        return out


def _shared(ensemble: TreeEnsemble, at: Indices, ours: Array, places: Indices, theirs: Array) -> Array:
    """Σ over shared leaves of the products of two numbers, (m, examples)."""
    product = ensemble.membership(at, ours) @ ensemble.membership(places, theirs).T
    return np.asarray(product.toarray())
