"""Course: what examples looked like to the model while it was trained, and when their influence came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.checkpoints import Checkpointed
from upweight.core.examples import Examples, Id
from upweight.core.model import require
from upweight.core.scores import Scores

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Course:
    """Queries and their strongest training examples at every checkpoint.

    Attributes:
        steps: (c,) optimiser steps taken before each checkpoint.
        query_ids, train_ids: who is followed, (m,) and (k,).
        of_queries, of_train: the measurement of each, (c, m) and (c, k); higher = more.
        pushes: (c, m, k) −τ_c ∇m_q·∇ℓ_i / n, what the steps nearest to the checkpoint did to the measurement of the
            query along the training example: the terms of TracIn. NaN for pairs that were not asked for.
    """

    steps: NDArray[np.intp]
    query_ids: NDArray[Any]
    train_ids: NDArray[Any]
    of_queries: Array
    of_train: Array
    pushes: NDArray[np.float32]


def follow(model: Checkpointed, train: Examples, queries: Examples, scores: Scores, k: int = 10) -> Course:
    """Follow the queries of these scores and the k strongest examples at both ends of each over the checkpoints.

    Cost: per checkpoint a pass over the queries and the training examples followed, and their inner products.

    Raises:
        TypeError, ValueError: a model without checkpoints; scores of other examples.
    """
    require(model, [Checkpointed], "follow")
    if k < 1:
        raise ValueError(f"expected k of at least 1, got {k}")
    checkpoints = model.checkpoints()
    asked = queries.select(scores.query_ids)
    strongest = [_strongest(scores, query, k) for query in scores.query_ids.tolist()]
    ids = list(dict.fromkeys(identifier for some in strongest for identifier in some))
    followed = train.select(ids)
    wanted = np.zeros((len(asked), len(ids)), dtype=bool)
    for row, some in zip(wanted, strongest, strict=True):
        row[followed.positions(some)] = True
    of_queries, of_train = np.empty((len(checkpoints), len(asked))), np.empty((len(checkpoints), len(ids)))
    pushes, over = np.full((len(checkpoints), *wanted.shape), np.nan, dtype=np.float32), model.mean_over(train)
    for place, checkpoint in enumerate(checkpoints):
        there = checkpoint.model()
        of_queries[place], of_train[place] = there.measure(asked), there.measure(followed)
        products = there.measure_rows(asked).dot(there.loss_rows(followed))
        pushes[place][wanted] = (-checkpoint.travelled / over * products)[wanted]
    steps = np.array([checkpoint.step for checkpoint in checkpoints], dtype=np.intp)
    return Course(steps, asked.ids, followed.ids, of_queries, of_train, pushes)


def _strongest(scores: Scores, query: Id, k: int) -> list[Id]:
    return [found.id for found in [*scores.proponents(query, k), *scores.opponents(query, k)]]
