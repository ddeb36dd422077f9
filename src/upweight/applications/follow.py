"""The measurement of examples over the training, and at which checkpoints their influence arose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import require_count
from upweight.core.capability_checks import require
from upweight.core.checkpoints import Checkpointed
from upweight.core.deprecation import RenamedAttribute, ReplacedBy, accept_old_fields
from upweight.core.examples import Examples, Id
from upweight.core.library_calls import with_gradients
from upweight.core.plottable import Plottable
from upweight.core.scores import Scores
from upweight.core.tabular import Tabular

Array = NDArray[np.float64]


@accept_old_fields({"pushes": ReplacedBy("contributions")})
@dataclass(frozen=True, eq=False)
class Course(Plottable, Tabular):
    """Queries and their strongest training examples at every checkpoint.

    Attributes:
        steps: (c,) optimiser steps taken before each checkpoint.
        query_ids, train_ids: the queries and training examples followed, (m,) and (k,).
        of_queries, of_train: their measurements, (c, m) and (c, k); higher = more of the behaviour.
        contributions: (c, m, k), −τ_c ∇m_q·∇ℓ_i / n: the effect of the steps nearest to the checkpoint, along the
            gradient of the training example, on the measurement of the query. These are the terms of TracIn. NaN for
            pairs that were not followed.
    """

    _display: ClassVar = ("TrajectoryDisplay", "from_course")
    steps: NDArray[np.intp]
    query_ids: NDArray[Any]
    train_ids: NDArray[Any]
    of_queries: Array
    of_train: Array
    contributions: NDArray[np.float32]
    pushes = RenamedAttribute("contributions")

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        for c, step in enumerate(self.steps.tolist()):
            for q, query in enumerate(self.query_ids.tolist()):
                for i, example in enumerate(self.train_ids.tolist()):
                    terms = {"query_measured": self.of_queries[c, q], "train_measured": self.of_train[c, i]}
                    contribution = float(self.contributions[c, q, i])
                    yield {"step": step, "query": query, "train": example, **terms, "contribution": contribution}


@with_gradients()
def follow(model: Checkpointed, train: Examples, queries: Examples, scores: Scores, k: int = 10) -> Course:
    """Follow the queries of these scores, and the k strongest proponents and opponents of each, over the checkpoints.

    Cost per checkpoint: one pass over the queries and the followed training examples, and their inner products.

    Raises:
        TypeError, ValueError: a model without checkpoints; scores of other examples.
    """
    require(model, [Checkpointed], "follow")
    require_count("k", k)
    checkpoints = model.checkpoints()
    scored = queries.select(scores.query_ids)
    strongest = [_strongest(scores, query, k) for query in scores.query_ids.tolist()]
    ids = list(dict.fromkeys(identifier for of_query in strongest for identifier in of_query))
    followed = train.select(ids)
    pairs = np.zeros((len(scored), len(ids)), dtype=bool)
    for row, of_query in zip(pairs, strongest, strict=True):
        row[followed.positions(of_query)] = True
    of_queries, of_train = np.empty((len(checkpoints), len(scored))), np.empty((len(checkpoints), len(ids)))
    contributions = np.full((len(checkpoints), *pairs.shape), np.nan, dtype=np.float32)
    denominator = model.mean_over(train)
    for c, checkpoint in enumerate(checkpoints):
        snapshot = checkpoint.model()
        of_queries[c], of_train[c] = snapshot.measure(scored), snapshot.measure(followed)
        products = snapshot.measure_rows(scored).dot(snapshot.loss_rows(followed))
        contributions[c][pairs] = (-checkpoint.learning_rate_sum / denominator * products)[pairs]
    steps = np.array([checkpoint.step for checkpoint in checkpoints], dtype=np.intp)
    return Course(steps, scored.ids, followed.ids, of_queries, of_train, contributions)


def _strongest(scores: Scores, query: Id, k: int) -> list[Id]:
    return [attribution.id for attribution in [*scores.proponents(query, k), *scores.opponents(query, k)]]
