"""Labels of a training set, which a model needs to be read."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from upweight.core.examples import Examples


def require_labels(train: Examples) -> NDArray[Any]:
    """The labels of a training set. Raises ValueError if it has none."""
    if train.y is None:
        raise ValueError("the training set has no labels; pass Examples(x, y) with the y the model was fitted on")
    return train.y
