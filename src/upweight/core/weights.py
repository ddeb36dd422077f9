"""Sample weights: a row of weight 0 is absent; if all weights are whole numbers, a row of weight k is k copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.row_index import require_index_of_ids

Array = NDArray[np.float64]
MAX_NAMED = 10  # examples that a warning names


def sample_weights(train: Examples) -> Array:
    """The sample weights of the examples, (n,); ones if they have none. In a part of a set all may be 0."""
    return np.ones(len(train)) if train.weights is None else train.weights


def require_any_weight(train: Examples) -> None:
    """Raise ValueError if no example has a weight above 0."""
    if not sample_weights(train).any():
        raise ValueError(
            f"expected training examples with sample weights that are not all zero, got {len(train)} of weight 0: "
            "nothing would be left to train on"
        )


def weighted_positions(train: Examples) -> NDArray[np.intp]:
    """Positions of the examples of weight above 0."""
    return np.flatnonzero(sample_weights(train))


def require_part(train: Examples, name: str, positions: NDArray[np.intp]) -> None:
    """Raise ValueError if a group has no examples, or all examples of positive weight."""
    remaining = sample_weights(train).copy()
    remaining[positions] = 0.0
    if len(positions) == 0 or not remaining.any():
        raise ValueError(
            f"expected group {name!r} to be some of the {len(weighted_positions(train))} training examples, "
            f"got {len(positions)}: removing none changes nothing, removing all leaves nothing to train on"
        )


def only_examples(train: Examples) -> dict[Any, Any]:
    """Label → id of the only training example of positive weight with that label."""
    if train.y is None or train.y.ndim != 1:
        return {}
    rows = weighted_positions(train)
    labels, first, counts = np.unique(train.y[rows], return_index=True, return_counts=True)
    alone = counts == 1
    return dict(zip(labels[alone].tolist(), train.ids[rows[first[alone]]].tolist(), strict=True))


def warning_of_single_examples(alone: Mapping[Any, Any], is_needed: bool) -> str | None:
    """A warning if some classes have one training example only, whose removal would remove the class; else None.

    Args:
        alone: class → id of its only training example.
        is_needed: whether training needs an example of each class.
    """
    if not alone:
        return None
    described = [f"{id_!r} of class {label!r}" for label, id_ in list(alone.items())[:MAX_NAMED]]
    return (
        f"Of {len(alone)} class{'es'[: 2 * (len(alone) > 1)]} there is one training example only "
        f"({', '.join(described)}{', …' if len(alone) > len(described) else ''}): without it the class is gone"
        f"{' and this model cannot be retrained' * is_needed}, so its scores are an extrapolation"
        f"{' that no retraining confirms' * is_needed}."
    )


class Classes(Protocol):
    """A loss with its classes; None for numeric targets."""

    classes: NDArray[Any] | None

    def class_positions(self, y: NDArray[Any]) -> NDArray[np.intp]:
        """Position of each label among the classes, (n,)."""


def require_classes(train: Examples, weights: Array, loss: Classes) -> None:
    """Raise ValueError if a class of the training set has no weight left under these weights (n,)."""
    if loss.classes is None or train.y is None:
        return
    present, positions, count = sample_weights(train), loss.class_positions(train.y), len(loss.classes)
    gone = (np.bincount(positions, present, count) > 0) & (np.bincount(positions, present * weights, count) == 0)
    if gone.any():
        label = loss.classes.tolist()[int(gone.argmax())]
        raise ValueError(
            f"without these examples none of class {label!r} is left, and a model of {count} classes cannot be "
            "trained; remove fewer, or fit a model without that class"
        )


def example_counts(weights: Array) -> Array:
    """The number of examples that every row counts for, (n,).

    If all weights are whole numbers, a row of weight k counts as k copies. Otherwise weights scale the losses and do
    not count examples, and every row of positive weight is one example.
    """
    whole = bool((weights == np.round(weights)).all())
    return weights if whole else (weights > 0).astype(np.float64)


def checked_weights(train: Examples, weights: Any, models: int | None = None) -> Array:
    """Example weights as float64, shape (n,), or (models, n) for several models.

    Raises ValueError if the shape is wrong, if weights are negative or not finite, or if nothing is left to train on:
    every example has weight 0 here or as its sample weight.
    """
    require_index_of_ids("weights", weights, train.ids)
    checked = np.asarray(weights, dtype=np.float64)
    shape = (len(train),) if models is None else (models, len(train))
    if checked.shape != shape:
        raise ValueError(f"expected one weight per training example {shape}, got shape {checked.shape}")
    if (
        not np.isfinite(checked).all()
        or (checked < 0).any()
        or not (checked * sample_weights(train)).any(axis=-1).all()
    ):
        raise ValueError("expected finite weights ≥ 0 that are not all zero: nothing would be left to train on")
    return checked
