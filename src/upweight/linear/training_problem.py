"""The training objective of a linear model on a training set, from the weights that its training used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.objective import Objective
from upweight.core.weights import sample_weights
from upweight.linear.features import Features
from upweight.linear.losses.loss import LinearLoss
from upweight.linear.observations import Observations
from upweight.linear.problem import Problem


@dataclass(frozen=True)
class Weighting:
    """How losses and regulariser are weighted.

    Attributes:
        objective: how losses are combined, with the l2.
        class_weights: class → weight; None for ones.
        counts_examples: the objective is a mean over examples, whatever their weights (SGD); else over weights.
        observations: how many observations every row stands for.
    """

    objective: Objective
    class_weights: Mapping[Any, float] | None
    counts_examples: bool
    observations: Observations = field(default_factory=Observations)


def training_problem(
    train: Examples, features: Features, family: LinearLoss, theta: NDArray[np.float64], weighting: Weighting
) -> Problem:
    """The objective on these examples, which have labels, at the parameters θ (K, d)."""
    assert train.y is not None
    weights = sample_weights(train)
    counts = weighting.observations.counts_of(train)
    if weighting.class_weights is not None:
        weights = weights * np.array([weighting.class_weights.get(label, 1.0) for label in train.y.tolist()])
    is_mean, l2 = weighting.objective.reduction == "mean", weighting.objective.l2
    fixed = 0.0 if is_mean else weighting.objective.ridge(weights)
    each, shares = l2 if is_mean else 0.0, None
    if weighting.counts_examples:  # SGD shrinks θ at every row, also at rows of weight 0, whose share always stays
        shares = (weights > 0).astype(np.float64)
        fixed += each * float((shares == 0).sum())
    l1 = weighting.objective.l1
    l1_fixed, l1_each = (0.0, l1) if is_mean else (l1 * (1.0 if l2 == 0 else fixed / l2), 0.0)
    targets = family.encode(train.y)
    return Problem(features, targets, weights, family, fixed, each, theta, shares, counts, l1_fixed, l1_each)
