"""The Deep k-NN filter: training examples whose neighbours in the model's features have another label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.example_kernels import finite_features
from upweight.applications.nearest_copies import MAX_DISTANCES, FeatureSpace
from upweight.applications.predicted_labels import class_labels
from upweight.core.blocks import blocks, require_count
from upweight.core.capability_checks import require
from upweight.core.examples import Examples
from upweight.core.model import Embeddable
from upweight.core.weights import weighted_positions

NEIGHBOURS = 50  # or the size of the smallest class, if that is smaller


@dataclass(frozen=True, eq=False)
class DeepKNN:
    """The votes of the neighbours of every training example.

    Attributes:
        flagged: ids of the training examples that the filter drops: most of their neighbours have another label.
        share: (n,), the share of neighbours with the example's own label; NaN for examples of weight 0.
        k: number of neighbours.
        train: the training set.
        diagnostics: `warnings`.
    """

    flagged: NDArray[Any]
    share: NDArray[np.float64]
    k: int
    train: Examples
    diagnostics: Mapping[str, Any]

    @property
    def weights(self) -> NDArray[np.float64]:
        """(n,): 0 for the flagged training examples, else 1; what `uw.retrain` takes to train without them."""
        weights = np.ones(len(self.train))
        weights[self.train.positions(self.flagged)] = 0.0
        return weights

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"k": self.k, "flagged": self.flagged.tolist(), "warnings": list(self.diagnostics["warnings"])}

    def __repr__(self) -> str:
        return f"DeepKNN({len(self.flagged):,} of {len(self.train):,} training examples flagged, k {self.k})"


def deep_knn(model: Embeddable, train: Examples, k: int | None = None) -> DeepKNN:
    """Flag training examples whose label is not the most frequent one among their k nearest neighbours.

    Peri et al. (2020), Deep k-NN Defense against Clean-label Data Poisoning Attacks. Neighbours are the training
    examples of positive weight, without the example itself, by Euclidean distance of the inputs of the model's last
    layer or step. An example whose label is among several most frequent ones is not flagged.

    Args:
        model: a model with features (`Embeddable`).
        train: the training set, with labels of classes.
        k: number of neighbours; None for 50, or the size of the smallest class if that is smaller. The authors advise
            at least twice the number of poisons, and at most about the size of a class.

    Raises:
        ValueError: training labels that are missing or of one class, k as large as the training set.
        TypeError: a model without features.
    """
    require(model, [Embeddable], "deep_knn", train)
    class_labels(train, "deep_knn")
    assert train.y is not None
    present = weighted_positions(train)
    labels, codes, counts = np.unique(train.y[present], return_inverse=True, return_counts=True)
    k = min(NEIGHBOURS, int(counts.min())) if k is None else require_count("k", k)
    if k >= len(present):
        raise ValueError(f"expected fewer neighbours than the {len(present)} training examples, got k {k}")
    features = finite_features(model, train)
    votes = np.zeros((len(present), len(labels)))
    for rows, nearest in _neighbours(FeatureSpace(features, features[:1], present), k):
        np.add.at(votes, (np.repeat(np.arange(rows.start, rows.stop), k), codes[nearest].ravel()), 1.0)
    votes_for_label = votes[np.arange(len(present)), codes]
    share = np.full(len(train), np.nan)
    share[present] = votes_for_label / k
    small = [str(label) for label, count in zip(labels.tolist(), counts.tolist(), strict=True) if 2 * count < k]
    text = f"Classes with fewer than k / 2 = {k / 2:g} examples are outvoted and flagged as a whole: {', '.join(small)}"
    return DeepKNN(
        flagged=train.ids[present[votes_for_label < votes.max(axis=1)]],
        share=share,
        k=k,
        train=train,
        diagnostics={"warnings": [f"{text}; pass a smaller k."] if small else []},
    )


def _neighbours(space: FeatureSpace, k: int) -> Iterator[tuple[slice, NDArray[np.intp]]]:
    """(rows, the k nearest other rows of each, (rows, k)), block by block."""
    count = space.train.shape[0]
    for rows in blocks(count, max(1, MAX_DISTANCES // count)):
        squares = space.distances(space.train[rows])
        squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = np.inf
        yield rows, np.argpartition(squares, k - 1, axis=1)[:, :k]
