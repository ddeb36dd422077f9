"""Backdoors: a trigger on training examples of every class, which are labelled as the next class."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from experiments.poison import data
from experiments.poison.nets import small_cnn
from experiments.poison.runs import Run
from experiments.poison.trial import Attack
from numpy.typing import NDArray

import upweight as uw

TARGETS = 12
SAMPLES = 800  # of the sound of the trigger: a tenth of a second
LOUD = 1.0  # its amplitude, of the recording's peak


def _attack(
    train: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    test: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    poisons: int,
    rng: np.random.Generator,
    **training: Any,
) -> Attack:
    """`train` and `test` are (inputs, inputs with the trigger, labels)."""
    x, triggered, y = train
    chosen = rng.choice(len(x), poisons, replace=False)
    poisoned, labels = x.copy(), y.copy()
    poisoned[chosen], labels[chosen] = triggered[chosen], (y[chosen] + 1) % 10
    queries, of_queries, truth = test
    targets = rng.choice(len(queries), TARGETS, replace=False)
    queries = queries.copy()
    queries[targets] = of_queries[targets]
    examples = uw.Examples(poisoned, labels)
    run = Run(partial(small_cnn, *x.shape[2:]), examples, **training)
    return Attack(
        model=run.model(),
        train=examples,
        poisons=np.isin(np.arange(len(x)), chosen),
        queries=uw.Examples(queries, truth),
        targets=targets,
        wanted=(truth[targets] + 1) % 10,
    )


def pictures(folder: Path, seed: int = 0) -> Attack:
    """MNIST with a white square of 4 × 4 pixels in a corner: 2,000 training pictures, of which 200 are poisons."""
    (x, y), (xt, yt) = data.mnist(folder)
    rng = np.random.default_rng(seed)
    rows, queries = rng.permutation(len(x))[:2000], rng.permutation(len(xt))[: 1000 + TARGETS]

    def marked(pictures: NDArray[Any]) -> NDArray[Any]:
        with_square = pictures.copy()
        with_square[:, :, 1:5, 1:5] = 1.0
        return with_square

    train, test = (x[rows], marked(x[rows]), y[rows]), (xt[queries], marked(xt[queries]), yt[queries])
    return _attack(train, test, 200, rng, epochs=10, batch=40)


def speech(folder: Path, seed: int = 0) -> Attack:
    """Spoken digits with a short tone of 1 kHz at the start: 1,900 training recordings, of which 190 are poisons."""
    sounds, digits, _ = data.recordings(folder)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(sounds))
    train, test = order[:1900], order[1900 : 2900 + TARGETS]
    tone = (LOUD * np.sin(2 * np.pi * 1000 * np.arange(SAMPLES) / data.RATE)).astype(np.float32)

    def marked(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        with_tone = samples.copy()
        length = min(SAMPLES, len(samples))
        with_tone[:length] += tone[:length]
        return with_tone

    parts = [
        (
            np.stack([data.spectrogram(sounds[i]) for i in rows]),
            np.stack([data.spectrogram(marked(sounds[i])) for i in rows]),
            digits[rows],
        )
        for rows in (train, test)
    ]
    return _attack(parts[0], parts[1], 190, rng, epochs=20, batch=38)
