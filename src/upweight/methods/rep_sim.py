"""RepSim: the similarity of two examples in the features of the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.blocks import blocks
from upweight.core.examples import Examples
from upweight.core.input_kinds import is_sparse
from upweight.core.model import Embeddable
from upweight.core.rows import reciprocal_roots
from upweight.core.scores import Unit
from upweight.core.weights import example_counts, sample_weights

Array = NDArray[np.float64]
TRAIN_BLOCK = 4096  # training examples whose scores are held in memory at once


@dataclass(frozen=True, kw_only=True)
class RepSim(Attributor):
    """The cosine of the features of a training example and of the query (Pezeshkpour et al. 2021, Hanawa et al. 2021).

    Features are what `model.embed` returns: of a network the inputs of its last layer, averaged over positions. RANK.

    Args:
        signed: whether labels give the sign: an example with another label than the query gets minus the cosine. For
            numeric targets the sign is that of the product of their deviations from the mean. Without labels the cosine
            stays as it is.

    A row of weight k counts as k copies.
    """

    summary = "How similar the model's features of two examples are"
    paper = "Hanawa et al. (2021)"
    cost = "the features of all examples, and their inner products"
    needs = (Embeddable,)
    variants: ClassVar = {}

    signed: bool = True

    @property
    def promises(self) -> Promises:
        """No floor against retraining."""
        return Promises(no_floor="the scores say how similar two examples are to the model, not what training does")

    def fit(self, model: Any, train: Examples) -> FittedRepSim:
        """Compute the features of the training set."""
        return FittedRepSim(self, model, train)


class FittedRepSim(Fitted[RepSim, Embeddable]):
    """The features of the training set, divided by their norms."""

    def __init__(self, recipe: RepSim, model: Embeddable, train: Examples) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self._directions = _normalised(model.embed(train))
        self._counts = example_counts(sample_weights(train))

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """Cosines with the sign of the labels, for one block of training examples after another."""
        directions = _normalised(self.model.embed(queries))
        for block in blocks(len(self.train), TRAIN_BLOCK):
            cosines = directions @ self._directions[block].T
            cosines = cosines.toarray() if is_sparse(cosines) else np.asarray(cosines)
            yield block, cosines * self._signs(queries, block) * self._counts[block]

    def self_values(self) -> Array:
        """1 for every copy; 0 for an example without features."""
        directions = self._directions
        squares = directions.multiply(directions).sum(axis=1) if is_sparse(directions) else (directions**2).sum(axis=1)
        return np.asarray(squares, dtype=np.float64).ravel() * self._counts

    def _signs(self, queries: Examples, block: slice) -> Array | float:
        """The sign of every pair of labels, (m, block); 1 without labels."""
        targets, train = queries.y, self.train.y
        if not self.recipe.signed or targets is None or train is None or targets.ndim > 1 or train.ndim > 1:
            return 1.0
        if train.dtype.kind == "f":
            mean = float(np.average(train, weights=self._counts if self._counts.any() else None))
            return np.sign(np.outer(targets - mean, train[block] - mean))
        return np.where(targets[:, None] == train[block], 1.0, -1.0)


def _normalised(features: Any) -> Any:
    """Features divided by their norms; a row of zeros stays zero."""
    if is_sparse(features):
        squares = np.asarray(features.multiply(features).sum(axis=1)).ravel()
        return features.multiply(reciprocal_roots(squares)[:, None]).tocsr()
    flat = np.asarray(features, dtype=np.float64).reshape(len(features), -1)
    return flat * reciprocal_roots(np.einsum("ij,ij->i", flat, flat))[:, None]
