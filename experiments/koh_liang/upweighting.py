"""Upweighting one training image by ε (the talk): the slope at ε = 0 is its influence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from experiments.koh_liang.fig4 import L2, head
from experiments.koh_liang.photographs import dogs_and_fish
from experiments.koh_liang.pictures import panels, picture, save
from experiments.results import Result, Row
from numpy.typing import NDArray

import upweight as uw

Array = NDArray[Any]
SMALL = 1e-3  # share of the image's own weight by which it is moved for the slope
MOST = 20.0  # times its own weight, at the far end of the curve


def reproduce(folder: Path, fast: bool, path: Path) -> Result:
    """Train with many weights of one image; p(dog) and loss of one test dog."""
    train, test, side = dogs_and_fish(folder, fast)
    examples, machine = train.examples(), head(train)
    p = machine.predict_proba(test.features)[:, 0]
    query = int(np.argmin(np.where(test.y == 0, np.abs(p - 0.82), np.inf)))
    queries = test.examples().take([query])
    loss = uw.explainable(machine, examples, objective="mean")
    dog = uw.explainable(machine, examples, uw.Probability(of=0), objective="mean")
    first = uw.Influence(correction=None)
    effect, effect_p = (first.fit(m, examples).attribute(queries).values[0] for m in (loss, dog))
    place = int(np.argmin(effect_p))  # the image that lowers p(dog) most: upweighted, it lowers it further
    times = np.concatenate([[0.0], np.linspace(0.5, 1.5, 5), np.geomspace(2, MOST, 4 if fast else 10)])
    losses, chances = curve(loss, dog, examples, queries, place, times)
    near, _ = curve(loss, dog, examples, queries, place, np.array([1 - SMALL, 1 + SMALL]))
    slope, predicted = (near[1] - near[0]) / (2 * SMALL), -effect[place]
    whole = dict(zip(times.tolist(), chances, strict=True))
    figure, axes = panels(4, size=(2.9, 2.8))
    picture(axes[0], test.pictures[query], f"test image: dog ({p[query]:.0%})")
    picture(axes[1], train.pictures[place], f"training image ({examples.label(place)})")
    for ax, values, tangent, name in (
        (axes[2], chances, effect_p[place], "p(dog)"),
        (axes[3], losses, -effect[place], "loss"),
    ):
        ax.plot(times - 1, values, "o-", markersize=3, label="retrained")
        ax.plot(times - 1, values[times == 1.0] + (times - 1) * tangent, "--", label="influence")
        ax.set(xlabel="ε in weights of one image", ylabel=name)
    axes[2].legend(fontsize=7)
    save(figure, path)
    return Result(
        title="Upweighting by ε",
        claim="A dog that is recognised with some confidence is recognised with less after one training image is "
        "upweighted; the slope of the curve at 0 is the influence of that image.",
        rows=[
            Row(
                "slope of the loss over influence",
                "1",
                f"{slope / predicted:.5f}",
                bool(abs(slope / predicted - 1) < 1e-3),
            ),
            Row("p(dog) before; with the image upweighted", "82 %; 79 %", f"{whole[1.0]:.1%}; {chances[-1]:.1%}"),
            Row("p(dog) without the image", "–", f"{whole[0.0]:.1%}"),
        ],
        settings=f"{len(train.y):,} photographs, features of EfficientNet-lite0 at {side} pixels, logistic regression "
        f"without bias, l2 {L2:g}; test dog {query}, training image {place} at up to {MOST:.0f} times its weight.",
        numbers={"times": times.tolist(), "loss": losses.tolist(), "p": chances.tolist()},
    )


def curve(
    loss: Any, dog: Any, train: uw.Examples, queries: uw.Examples, place: int, times: Array
) -> tuple[Array, Array]:
    """(loss, p) of the query after training with so many times the image's weight."""
    losses, chances = np.empty(len(times)), np.empty(len(times))
    for i, many in enumerate(times):
        weights = np.ones(len(train))
        weights[place] = many
        parameters = loss.retrain(train, weights).parameters
        losses[i] = -loss.with_parameters(parameters).measure(queries)[0]
        chances[i] = dog.with_parameters(parameters).measure(queries)[0]
    return losses, chances
