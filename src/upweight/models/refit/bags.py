"""The members of a bagging ensemble or of a forest, each with the sample of the training set that it was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.input_kinds import as_array
from upweight.models.pipeline import last_step

Array = NDArray[np.float64]


def has_bags(estimator: Any) -> bool:
    """Whether the estimator, or the last step of a pipeline, records the sample of every member."""
    final = last_step(estimator)
    return bool(getattr(final, "bootstrap", False)) and hasattr(type(final), "estimators_samples_")


def bags_of(estimator: Any, examples: int) -> Array:
    """How often each example is in the bag of each member, (members, n)."""
    counts = [np.bincount(rows, minlength=examples) for rows in last_step(estimator).estimators_samples_]
    if any(len(row) != examples for row in counts):
        raise ValueError(
            f"expected the examples that the ensemble was fitted on, got {examples:,}, and it drew from more; pass the "
            "same rows as to fit()"
        )
    return np.stack(counts).astype(np.float64)


def member_outputs(estimator: Any, features: Any, classes: NDArray[Any] | None) -> list[Array]:
    """For each member its class probabilities, or its predictions, (m, K).

    A member without probabilities has 1 for the class that it predicts. Members know classes by their positions.
    """
    final = last_step(estimator)
    x = as_array(features) if hasattr(features, "to_numpy") else features
    columns = getattr(final, "estimators_features_", [slice(None)] * len(final.estimators_))
    pairs = zip(final.estimators_, columns, strict=True)
    return [_outputs(member, x[:, part], classes) for member, part in pairs]


def _outputs(member: Any, x: Any, classes: NDArray[Any] | None) -> Array:
    if classes is None:
        return np.asarray(member.predict(x), dtype=np.float64).reshape(x.shape[0], -1)
    if not hasattr(member, "predict_proba"):
        return np.asarray(np.asarray(member.predict(x), dtype=np.intp)[:, None] == np.arange(len(classes)), dtype=float)
    out = np.zeros((x.shape[0], len(classes)))
    out[:, np.asarray(member.classes_, dtype=np.intp)] = member.predict_proba(x)
    return out
