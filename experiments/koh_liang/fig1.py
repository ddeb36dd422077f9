"""Fig. 1: what influence has that the inner product of two images lacks: the training loss and the Hessian."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.koh_liang.digits import image, one_or_seven
from experiments.koh_liang.pictures import OTHER, SAME, panels, picture, save
from experiments.results import Result, Row
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import binary_cross_entropy_with_logits

import upweight as uw

Array = NDArray[Any]
L2 = 0.01
QUERY = 30
CHOSEN = 4  # the fifth most harmful of the same class is shown


def logistic(net: torch.nn.Module, batch: Any) -> torch.Tensor:
    """Of one output."""
    return binary_cross_entropy_with_logits(net(batch.x)[:, 0], batch.y.double(), reduction="none")


def without_hessian(machine: LogisticRegression, train: uw.Examples, query: uw.Examples) -> Array:
    """∇L(z_test) · ∇L(z): the Hessian replaced by the identity."""
    net = torch.nn.Linear(784, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(torch.from_numpy(machine.coef_))
    model = uw.TorchModel(net, logistic, objective="sum")
    return uw.Influence(curvature=uw.Identity(), damping=0.0).fit(model, train).attribute(query).values[0]


def reproduce(folder: Path, fast: bool, path: Path) -> Result:
    """Full influence on one seven beside influence without train loss, without Hessian, without both."""
    train, test = one_or_seven(folder, fast=fast)
    query = test.take([QUERY])
    machine = LogisticRegression(C=1 / (L2 * len(train)), fit_intercept=False, solver="newton-cholesky", tol=1e-9)
    machine.fit(train.x, train.y)
    model = uw.explainable(machine, train)
    full = uw.Influence(correction=None).fit(model, train).attribute(query).values[0] * len(train)
    bare = without_hessian(machine, train, query)
    sign = 2 * train.y - 1
    one_minus_p = expit(-sign * machine.decision_function(train.x))  # σ(−y θᵀx): the factor that the train loss brings
    same = train.y == query.y[0]
    lacking = {"train loss": full / one_minus_p, "Hessian": bare, "both": bare / one_minus_p}
    harmful = np.flatnonzero(same)[np.argsort(full[same])[CHOSEN]]
    draw(path, full, lacking, same, (image(test, QUERY), image(train, harmful)))
    share = [f"{(v[same] < 0).mean():.0%} / {(v[~same] > 0).mean():.0%}" for v in (full, bare)]
    overestimated = np.median(np.abs(lacking["train loss"] / full)[one_minus_p < 0.05])
    pearson = np.corrcoef(lacking["both"], full)[0, 1]
    crosses = (full[same] < 0).any() and (full[~same] > 0).any()
    return Result(
        title="Fig. 1: influence without its terms",
        claim="Without the Hessian every image of the same label helps and every other harms, because pixels are not "
        "negative; with the Hessian, both signs occur in both classes. Without the training loss, images on which "
        "the model is confident look important.",
        rows=[
            Row("with H: same label harmful / other label helpful", "both occur", share[0], bool(crosses)),
            Row("without H: the same", "0% / 0%", share[1], share[1] == "0% / 0%"),
            Row("without train loss: over-estimate where p > .95 (median factor)", "large", f"{overestimated:.0f}"),
            Row("Pearson of the Euclidean inner product with influence", "–", f"{pearson:.2f}"),
        ],
        settings=f"MNIST 1 against 7, {len(train):,} images, logistic regression without bias, l2 {L2:g}; test image "
        f"{QUERY} of the pair (a 7).",
    )


def draw(path: Path, full: Array, lacking: dict[str, Array], same: Array, images: tuple[Array, Array]) -> None:
    """Three scatters and two images, as in the paper; green for the same label."""
    figure, axes = panels(5, size=(2.7, 2.8))
    for ax, (name, values) in zip(axes, lacking.items(), strict=False):
        for who, colour in ((same, SAME), (~same, OTHER)):
            ax.scatter(values[who], full[who], s=4, c=colour, linewidths=0, rasterized=True)
        ax.set_xlabel(f"without {name}")
        ax.axhline(0, color="0.8", zorder=0)
        ax.axvline(0, color="0.8", zorder=0)
    axes[0].set_ylabel("−I(up, loss)")
    picture(axes[3], images[0], "test image (7)")
    picture(axes[4], images[1], "harmful training image (7)")
    save(figure, path)
