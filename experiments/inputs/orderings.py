"""Necessity and sufficiency orderings of input attributions on a small convolutional net."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from experiments.results import Result, Row

import upweight as uw

TRAIN, QUERIES, POINTS = 5000, 100, 28
RECIPES = {
    "saliency": uw.Saliency(),
    "gradient × input": uw.GradientTimesInput(),
    "integrated gradients": uw.IntegratedGradients(steps=100),
    "DeepLIFT": uw.DeepLIFT(),
    "occlusion, 4 × 4": uw.Occlusion(window=(1, 4, 4), stride=(1, 1, 1)),
    "influence-directed, 10 neurons": uw.InfluenceDirected(layer="0", neurons=10),
    "erasure of single pixels": uw.Erasure(),
}


def network() -> torch.nn.Module:
    """Two convolutions and a linear layer, every non-linearity a module."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 5, stride=2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 16, 5, stride=2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(256, 10),
    )


def run(digits: Any) -> Result:
    """Areas of both orderings for every recipe, and for random orders."""
    (x, y), (xq, yq) = digits
    train = uw.Examples(x[:TRAIN].reshape(-1, 1, 28, 28).astype(np.float32), y[:TRAIN])
    held_out = uw.Examples(xq[:1000].reshape(-1, 1, 28, 28).astype(np.float32), yq[:1000])
    training = uw.Training(lr=0.1, momentum=0.9, epochs=6, batch_size=64)
    model = uw.TorchModel.trained(
        network(), lambda net, batch: F.cross_entropy(net(batch.x), batch.y, reduction="none"), train, training=training
    )
    accuracy = float(np.mean(np.asarray(model.predict(held_out).predicted) == held_out.y))
    queries = held_out.take(range(QUERIES))
    areas: dict[str, tuple[float, float]] = {}
    for name, recipe in RECIPES.items():
        attributions = uw.attribute_inputs(model, queries, recipe)
        need = uw.necessity(model, attributions, points=POINTS)
        enough = uw.sufficiency(model, attributions, points=POINTS)
        areas[name] = float(need.areas.mean()), float(enough.areas.mean())
        areas["random"] = float(need.random_areas.mean()), float(enough.random_areas.mean())
        print(name, areas[name], attributions.diagnostics, flush=True)
    best = min(areas, key=lambda name: areas[name][0]), max(areas, key=lambda name: areas[name][1])
    rows = [
        Row(
            "best at necessity / at sufficiency", "never the same method", f"{best[0]} / {best[1]}", best[0] != best[1]
        ),
        Row(
            "all recipes beat random orders at both",
            "–",
            ", ".join(n for n in RECIPES if areas[n][0] > areas["random"][0] or areas[n][1] < areas["random"][1])
            or "yes",
        ),
    ]
    rows += [
        Row(f"{name}: necessity area, sufficiency area", "–", f"{a:.3f}, {b:.3f}") for name, (a, b) in areas.items()
    ]
    return Result(
        title="Orderings of input attributions",
        claim="Some attribution methods order pixels better by necessity, others by sufficiency; none is always "
        "best at both "
        "(Wang et al. 2020).",
        rows=rows,
        settings=f"MNIST, {TRAIN:,} training digits, a net of two convolutions (accuracy {accuracy:.3f} on 1,000 "
        "digits), the "
        f"first {QUERIES} test digits, black pixels as the baseline, f the probability of the predicted class, "
        f"{POINTS} steps. "
        "Low is good for necessity, high for sufficiency.",
        notes=[
            "The paper's tables are of convolutional nets on photographs and are not at hand; its claim is what "
            "is compared. "
            "Missed by little: from black pixels, DeepLIFT, integrated gradients and gradient × input hardly "
            "differ here.",
            "Saliency has no sign: pixels that speak against the class are taken for ones that speak for it.",
        ],
        numbers={name: list(pair) for name, pair in areas.items()},
    )
