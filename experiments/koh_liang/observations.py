"""What the attack shows (three observations of the talk), and the kind of test images it is aimed at."""

from __future__ import annotations

from typing import Any

import numpy as np
from experiments.koh_liang.photographs import Photographs, spread
from experiments.results import Row
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

Array = NDArray[Any]
COMPONENTS = 700


def cluster(test: Photographs, right: Array, p: Array, count: int) -> Array:
    """So many dogs of a kind: of those it knows, the nearest in features to the one it is least sure of."""
    dogs = right[test.y[right] == 0]
    middle = dogs[np.argmin(p[dogs])]
    far = np.linalg.norm(test.features[dogs] - test.features[middle], axis=1)
    return np.asarray(dogs[np.argsort(far, kind="stable")[:count]])


def observations(head: LogisticRegression, train: Photographs, place: int, moved: Array, after: Array) -> list[Row]:
    """Of one attacked training image: how sure the model was of it, how far it moved, and where to."""
    p = head.predict_proba(train.features)[np.arange(len(train.y)), train.y]
    pixels = (moved - train.pictures[place]).ravel()
    step = after - train.features[place]
    inside, outside = _split(train.features, step)
    return [
        Row(
            "(1) p of the attacked image; its rank, least sure first",
            ".773; 1",
            f"{p[place]:.3f}; {int((p < p[place]).sum()) + 1}",
        ),
        Row(
            "(2) largest move of a pixel, grey levels",
            ".5",
            f"{np.abs(pixels).max():.3f}",
            bool(np.abs(pixels).max() < 0.5),
        ),
        Row("(2) L2 of the move, pixels in [−1, 1]", "1.88", f"{np.linalg.norm(pixels) / 127.5:.2f}"),
        Row(
            "(2) move in features over the class's mean distance to its centre",
            "11.13 / 12.86",
            f"{np.linalg.norm(step):.2f} / {spread(train, train.y[place]):.2f}",
        ),
        Row(
            f"(3) the move inside and outside of {COMPONENTS} principal components",
            "20.16, 0.80",
            f"{inside:.2f}, {outside:.2f}",
        ),
        Row("(3) training images and features", "1,800 and 2,048", f"{len(train.y):,} and {train.features.shape[1]:,}"),
    ]


def _split(features: Array, step: Array) -> tuple[float, float]:
    centred = features - features.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    along = vectors[:, -min(COMPONENTS, len(features)) :]
    part = along @ (along.T @ step)
    return float(np.linalg.norm(part)), float(np.linalg.norm(step - part))
