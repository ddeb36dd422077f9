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
    """The `count` correct images of the first class that are nearest in features to the least confident one."""
    same_class = right[test.y[right] == 0]
    middle = same_class[np.argmin(p[same_class])]
    far = np.linalg.norm(test.features[same_class] - test.features[middle], axis=1)
    return np.asarray(same_class[np.argsort(far, kind="stable")[:count]])


def observations(head: LogisticRegression, train: Photographs, place: int, moved: Array, after: Array) -> list[Row]:
    """Of one attacked training image: how sure the model was of it, how far it moved, and where to."""
    p = head.predict_proba(train.features)[np.arange(len(train.y)), train.y]
    pixels = (moved - train.pictures[place]).ravel()
    step = after - train.features[place]
    inside, outside = _split(train.features, after)
    along, beside = _split(train.features, step)
    return [
        Row(
            "(1) p of the attacked image; its rank, least confident first",
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
            f"(3) its features after the move, inside and outside of {COMPONENTS} principal components",
            "20.16, 5.75",
            f"{inside:.2f}, {outside:.2f}",
        ),
        Row("(3) the move, inside and outside of them", "–", f"{along:.2f}, {beside:.2f}"),
        Row(
            "(3) training images and features", "1,800 and 2,048", f"{len(train.y):,} and {{train.features.shape[1]:,}}"
        ),
    ]


def difficulty(head: LogisticRegression, train: Photographs) -> Row:
    """How hard it is to tell the two kinds apart: what an attack starts from, beside the paper's release."""
    p = head.predict_proba(train.features)[np.arange(len(train.y)), train.y]
    loss, norm, l2 = -np.log(p).mean(), np.linalg.norm(head.coef_), 1 / (head.C * len(train.y))
    return Row(
        "training loss, without and with l2; norm of the parameters; lowest p of a training image",
        ".0040, .0121; 4.04; .773",
        f"{loss:.4f}, {loss + l2 * norm**2 / 2:.4f}; {norm:.2f}; {p.min():.3f}",
    )


def _split(features: Array, step: Array) -> tuple[float, float]:
    centred = features - features.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    along = vectors[:, -min(COMPONENTS, len(features)) :]
    part = along @ (along.T @ step)
    return float(np.linalg.norm(part)), float(np.linalg.norm(step - part))
