"""Sample weights: a row of weight 0 is absent, and where all weights are whole a row of weight k is k copies."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples

Array = NDArray[np.float64]


def sample_weights(train: Examples) -> Array:
    """The examples' own weights, (n,): ones where none are given. They may all be zero in a part of a training set."""
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


def require_part(train: Examples, name: str, member: NDArray[np.intp]) -> None:
    """Raise ValueError if the examples at these positions are none, or all that weigh anything."""
    left = sample_weights(train).copy()
    left[member] = 0.0
    if len(member) == 0 or not left.any():
        raise ValueError(
            f"expected group {name!r} to be some of the {len(weighted_positions(train))} training examples, "
            f"got {len(member)}: removing none changes nothing, removing all leaves nothing to train on"
        )


class Classes(Protocol):
    """A loss that knows its classes; None for numeric targets."""

    classes: NDArray[Any] | None

    def places(self, y: NDArray[Any]) -> NDArray[np.intp]:
        """Which class each label is, (n,)."""


def require_classes(train: Examples, weights: Array, loss: Classes) -> None:
    """Raise ValueError if with these weights (n,) on top of the examples' own a class that was there is gone."""
    if loss.classes is None or train.y is None:
        return
    own, places, count = sample_weights(train), loss.places(train.y), len(loss.classes)
    gone = (np.bincount(places, own, count) > 0) & (np.bincount(places, own * weights, count) == 0)
    if gone.any():
        label = loss.classes.tolist()[int(gone.argmax())]
        raise ValueError(
            f"without these examples none of class {label!r} is left, and a model of {count} classes cannot be "
            "trained; remove fewer, or fit a model without that class"
        )


def example_counts(weights: Array) -> Array:
    """How many examples every row counts for, (n,), where examples are counted and not weighed.

    Whole weights are counts, as if every row were written out so many times. Other weights say how much a loss counts,
    not how often it was seen: there a row of weight above 0 is one example.
    """
    whole = bool((weights == np.round(weights)).all())
    return weights if whole else (weights > 0).astype(np.float64)


def checked_weights(train: Examples, weights: Any, models: int | None = None) -> Array:
    """Example weights as float64, shape (n,), or (models, n) for so many models.

    Raises ValueError for another length, for weights that are negative or not finite, and where nothing is left: all
    zero, or zero wherever the examples' own weights are not.
    """
    found = np.asarray(weights, dtype=np.float64)
    shape = (len(train),) if models is None else (models, len(train))
    if found.shape != shape:
        raise ValueError(f"expected one weight per training example {shape}, got shape {found.shape}")
    if not np.isfinite(found).all() or (found < 0).any() or not (found * sample_weights(train)).any(axis=-1).all():
        raise ValueError("expected finite weights ≥ 0 that are not all zero: nothing would be left to train on")
    return found
