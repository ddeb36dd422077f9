"""Fig. 4: two models of dogs and fish see the same test image for different reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from experiments.koh_liang.photographs import Photographs, dogs_and_fish
from experiments.koh_liang.pictures import OTHER, SAME, panels, picture, save
from experiments.results import Result, Row
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import LinearSVC

import upweight as uw

Array = NDArray[Any]
L2 = 1e-3
GAMMA = 0.05 / 1800  # on the paper's 299 × 299 pixels
SIDE = 64  # of the pictures that the kernel sees


def pixels(photographs: Photographs) -> Array:
    """Pictures made small, in [−1, 1], one row each."""
    small = [Image.fromarray(p).resize((SIDE, SIDE), Image.Resampling.BOX) for p in photographs.pictures]
    return np.stack([np.asarray(p, dtype=np.float64).ravel() for p in small]) / 127.5 - 1


def in_kernel_space(train: Array, test: Array) -> tuple[Array, Array]:
    """Rows whose inner products are the RBF kernel's, from one Cholesky factor, as in the release."""
    both = np.vstack([train, test])
    kernel = rbf_kernel(both, gamma=GAMMA * (299 / SIDE) ** 2)
    rows = np.linalg.cholesky(kernel)[:, : len(train)]
    return rows[: len(train)].copy(), rows[len(train) :].copy()


def reproduce(folder: Path, fast: bool, path: Path) -> Result:
    """An RBF machine on pixels beside a logistic regression on features of a trained net."""
    train, test, side = dogs_and_fish(folder, fast)
    raw, raw_test = pixels(train), pixels(test)
    rows, rows_test = in_kernel_space(raw, raw_test)
    machine = LinearSVC(C=1 / (L2 * len(raw)), loss="hinge", tol=1e-6, fit_intercept=False, max_iter=100_000)
    machine.set_params(random_state=24).fit(rows, train.y)
    top = head(train)
    query = chosen(machine, rows_test, top, test)
    labels = {0: "dog", 1: "fish"}
    effects = [
        influence(machine, uw.Examples(rows, train.y, labels=labels), uw.Examples(rows_test[[query]], test.y[[query]])),
        influence(top, train.examples(), test.examples().take([query])),
    ]
    distance = np.linalg.norm(raw - raw_test[query], axis=1) * 299 / SIDE
    fish = train.y == 1
    falls = [spearmanr(distance, np.abs(effect)).statistic for effect in effects]
    agrees = [signs(effect, fish) for effect in effects]
    first_dog = [int(np.argmin(fish[np.argsort(-effect, kind="stable")])) for effect in effects]
    draw(path, distance, effects, fish, (train, test.pictures[query]))
    rows = [
        Row("net: rank of the first dog among the helpful (from 0)", "19", f"{first_dog[1]}", first_dog[1] < 50),
        Row("RBF: of the 20 strongest, fish help or dogs harm", "mostly", f"{agrees[0]:.0%}", agrees[0] > agrees[1]),
        Row("RBF: rank correlation of influence with distance", "falls", f"{falls[0]:.2f}", bool(falls[0] < -0.2)),
        Row("net: the same", "flat", f"{falls[1]:.2f}", bool(abs(falls[1]) < 0.2)),
        Row("net: of the 20 strongest, fish help or dogs harm", "–", f"{agrees[1]:.0%}"),
        Row("RBF: largest influence", "2.2e-2", f"{np.abs(effects[0]).max():.1e}"),
        Row("net: largest influence", "3.9e-4", f"{np.abs(effects[1]).max():.1e}"),
        Row("RBF: test accuracy", "–", f"{machine.score(rows_test, test.y):.3f}"),
        Row("net: test accuracy", ".985", f"{top.score(test.features, test.y):.3f}"),
    ]
    return Result(
        title="Fig. 4: what makes this a fish?",
        claim="For the RBF SVM, near images matter: fish help and dogs harm. For the net, influence has little to do "
        "with distance in pixels, and dogs can help it to recognise a fish.",
        rows=rows,
        settings=f"{len(raw):,} training and {len(raw_test)} test photographs of dogs and fish; "
        f"RBF SVM without bias on {SIDE} × {SIDE} pixels, γ = .05/1800 at the paper's size, smoothed by t = .001; "
        f"logistic regression without bias on the {train.features.shape[1]:,} features of EfficientNet-lite0 at "
        f"{side} pixels; l2 {L2:g}; test image {query}, a fish.",
        notes=[
            "No package registry has the weights of the paper's Inception-v3; there are those of EfficientNet-lite0, "
            "also trained on ImageNet.",
        ],
    )


def head(photographs: Photographs) -> LogisticRegression:
    """Logistic regression without bias on the features."""
    machine = LogisticRegression(C=1 / (L2 * len(photographs.y)), fit_intercept=False, tol=1e-8, max_iter=5000)
    return machine.fit(photographs.features, photographs.y)


def chosen(machine: LinearSVC, rows: Array, top: LogisticRegression, test: Photographs) -> int:
    """Of the fish that both know, with a margin near the paper's (.990): the one with the paper's p (.9966)."""
    margin = machine.decision_function(rows)
    logit = top.decision_function(test.features)
    is_sure = (test.y == 1) & (margin > 0.75) & (margin < 0.995) & (logit > 0)  # beyond 1 the hinge loss is nothing
    return int(np.argmin(np.where(is_sure, np.abs(logit - np.log(0.9966 / 0.0034)), np.inf)))


def influence(machine: Any, train: uw.Examples, query: uw.Examples) -> Array:
    """First order, as in the paper: change of the query's loss by removal."""
    model = uw.explainable(machine, train, objective="mean")
    return uw.Influence(correction=None).fit(model, train).attribute(query).values[0]


def signs(effect: Array, fish: Array) -> float:
    """Of the strongest twenty, those that help as fish or harm as dogs."""
    strongest = np.argsort(-np.abs(effect), kind="stable")[:20]
    return float(((effect > 0) == fish)[strongest].mean())


def draw(path: Path, distance: Array, effects: list[Array], fish: Array, shown: tuple[Photographs, Array]) -> None:
    """Scatter, the test image, the most helpful images of each model, and the net's most helpful dogs."""
    train, image = shown
    figure, axes = panels(4, 3, size=(2.6, 2.3))
    for row, (effect, name) in enumerate(zip(effects, ("RBF SVM (pixels)", "logistic regression (net)"), strict=True)):
        for who, colour in ((fish, SAME), (~fish, OTHER)):
            axes[4 * row].scatter(distance[who], effect[who], s=5, c=colour, linewidths=0)
        axes[4 * row].set_title(name, fontsize=9)
        axes[4 * row].set_ylabel("−I(up, loss) / n", fontsize=8)
        for ax, place in zip(axes[4 * row + 1 : 4 * row + 4], np.argsort(-effect), strict=False):
            picture(ax, train.pictures[place], f"helpful {'fish' if fish[place] else 'dog'}")
    axes[4].set_xlabel("Euclidean distance in pixels", fontsize=8)
    picture(axes[8], image, "test image")
    dogs = np.flatnonzero(~fish)[np.argsort(-effects[1][~fish])]
    for ax, place in zip(axes[9:], dogs, strict=False):
        picture(ax, train.pictures[place], "helpful dog (net)")
    save(figure, path)
