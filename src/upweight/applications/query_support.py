"""The support of queries: how sparse the training examples are around them, compared with what is usual."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.core.capability_checks import can
from upweight.core.examples import Examples
from upweight.core.input_kinds import is_sparse
from upweight.core.model import Embeddable, Measurable

Array = NDArray[np.float64]
NEIGHBOURS = 10


@dataclass(frozen=True, eq=False)
class QuerySupport:
    """How sparse the training examples are around each query.

    Attributes:
        factor: (m,) local outlier factor in the features of the model: how much sparser than around the ten nearest
            training examples; about 1 is usual (Breunig et al. 2000).
        share: (m,) of the training examples whose own factor is at least as large.
    """

    factor: Array
    share: Array


def support_of(model: Measurable, train: Examples, queries: Examples) -> QuerySupport | None:
    """The support of every query; None if the model has no features, or there are too few training examples."""
    if not (isinstance(model, Embeddable) and can(model, Embeddable)) or len(train) <= NEIGHBOURS:
        return None
    from sklearn.neighbors import LocalOutlierFactor

    train_features, query_features = (
        part.tocsr() if is_sparse(part) else np.asarray(part, dtype=np.float64).reshape(part.shape[0], -1)
        for part in (model.embed(train), model.embed(queries))
    )
    fitted = LocalOutlierFactor(NEIGHBOURS, novelty=True).fit(train_features)
    usual, factor = np.sort(-fitted.negative_outlier_factor_), -fitted.score_samples(query_features)
    shares = 1.0 - np.searchsorted(usual, factor, side="left") / len(usual)
    return QuerySupport(np.asarray(factor), shares)
