"""Small sets of pictures with masks and boxes, of recordings, and of series, for the gallery."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

import upweight as uw

COUNT, RATE = 24, 8000
Case = tuple[uw.Scores, uw.Examples, uw.Examples]


def kinds_of_examples() -> dict[str, Case]:
    """Name → scores of two queries, training set and queries."""
    labels = np.arange(COUNT) % 2
    rng = np.random.default_rng(0)
    x = np.stack([labels + 0.6 * rng.normal(size=COUNT), rng.normal(size=COUNT)], axis=1)
    shown = {
        "marked": _streets(labels, x[:, 0]),
        "recordings": uw.Audio.each(_calls(labels, x[:, 0]), RATE),
        "series": uw.Series.each(_machines(labels, x[:, 0])),
    }
    return {name: _case(x, labels, contents) for name, contents in shown.items()}


def _case(x: NDArray[np.float64], labels: NDArray[np.intp], shown: list[object]) -> Case:
    everything = uw.Examples(x, labels, shown=shown, labels={0: "calm", 1: "busy"})
    train, queries = everything.take(range(COUNT - 4)), everything.take(range(COUNT - 4, COUNT))
    model = uw.explainable(LogisticRegression(tol=1e-8).fit(train.x, train.y), train)
    return uw.Influence().fit(model, train).attribute(queries), train, queries


def _streets(labels: NDArray[np.intp], level: NDArray[np.float64]) -> list[object]:
    """A road at the bottom, as a mask, and cars on it, as boxes: more of them on busy streets."""
    height, width = 48, 72
    pictures, masks, boxes = [], [], []
    rows, columns = np.indices((height, width))
    for i, busy in enumerate(labels.tolist()):
        picture = np.stack([110 + rows, 130 + rows, 200 - rows], axis=2).astype(np.uint8)
        road = rows > 26 + 3 * np.sin(columns / 15 + i)
        picture[road] = 70
        cars = [[6 + 22 * j, 30 + 2 * (i % 3), 22 + 22 * j, 40 + 2 * (i % 3)] for j in range(1 + 2 * busy)]
        for left, top, right, bottom in cars:
            picture[top:bottom, left:right] = (60 + 40 * (i % 4), 60, 120)
        pictures.append(picture)
        masks.append(road.astype(int))
        boxes.append(cars)
    classes = [[2] * len(cars) for cars in boxes]
    return list(uw.Picture.each(pictures, masks, boxes, classes, {1: "road", 2: "car"}))


def _calls(labels: NDArray[np.intp], level: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Half a second of a tone that rises; of busy ones, with a second one that falls."""
    seconds = np.arange(RATE // 2) / RATE
    rising = [np.sin(2 * np.pi * (500 + 300 * abs(v)) * seconds * (1 + seconds)) for v in level.tolist()]
    falling = np.sin(2 * np.pi * 3200 * seconds * (1 - 0.6 * seconds))
    return [tone + busy * falling for tone, busy in zip(rising, labels.tolist(), strict=True)]


def _machines(labels: NDArray[np.intp], level: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Two sensors over time; of busy machines one swings faster, and each has a scale of its own."""
    steps = np.arange(160)
    return [
        np.stack([v * np.sin(steps / (12 - 7 * busy)), 3 * np.cos(steps / 30 + i)], axis=1)
        for i, (busy, v) in enumerate(zip(labels.tolist(), (1 + np.abs(level)).tolist(), strict=True))
    ]
