"""FixMatch (Sohn et al. 2020) with one weight per unlabelled example, learned while the net trains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from experiments.reweighting.pictures import SmallNet, strong, weak
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import cross_entropy

from upweight.applications.last_layer import LastLayer, last_layer_slopes
from upweight.applications.weight_steps import WeightSteps

BATCH = 64  # labelled pictures of one step
RATE, DECAY, MOMENTUM = 0.03, 5e-4, 0.9


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled, unlabelled, validation and test pictures; `truth` are the hidden labels of the unlabelled ones."""

    x: Tensor
    y: Tensor
    unlabelled: Tensor
    truth: NDArray[Any]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    flips: bool


@dataclass(frozen=True)
class Plan:
    """How long and how wide: steps, unlabelled pictures per labelled one, steps between two updates of the weights.

    `sure` is the confidence from which a pseudo-label counts.
    """

    steps: int
    ratio: int
    every: int
    width: int
    rate: float = 0.4
    sure: float = 0.95
    damping: float = 1.0


@dataclass(frozen=True, eq=False)
class Trained:
    """Accuracies and losses of a net, and its weights of unlabelled pictures.

    `area` is the AUC of low weights for wrong pseudo-labels, `wrong` the share of these.
    """

    validation: float
    test: float
    correct: NDArray[np.bool_]
    weights: NDArray[np.float64]
    area: float
    wrong: float


def trained(split: Split, plan: Plan, seed: int, weight: float, learned: bool) -> Trained:
    """Train with this one weight for all unlabelled pictures, from which each goes its own way if `learned`."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = SmallNet(split.x.shape[1], 10, plan.width)
    net(split.x[:2])  # the lazy layer gets its size
    optimiser = torch.optim.SGD(net.parameters(), RATE, MOMENTUM, weight_decay=DECAY, nesterov=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: math.cos(7 * math.pi * step / (16 * plan.steps))
    )
    weights, steps = np.full(len(split.unlabelled), float(weight)), WeightSteps(plan.rate, 2.0)
    for step in range(plan.steps):
        if learned and step and step % plan.every == 0:
            weights = steps.taken(weights, _slopes(net, split, weights, plan))
        chosen = torch.from_numpy(rng.integers(len(split.x), size=BATCH))
        loss = _loss(net, split, chosen, rng, plan, weights)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    probabilities = _answers(net, split.unlabelled)[1]
    classes = probabilities.argmax(axis=1)
    is_wrong = classes != split.truth
    accuracies, correct = [], np.empty(0, dtype=bool)
    for x, y in (split.validation, split.test):
        correct = _answers(net, x)[1].argmax(axis=1) == y.numpy()
        accuracies.append(float(correct.mean()))
    area = float(roc_auc_score(is_wrong, -weights)) if learned and 0 < is_wrong.mean() < 1 else math.nan
    return Trained(accuracies[0], accuracies[1], correct, weights, area, float(is_wrong.mean()))


def _loss(
    net: SmallNet, split: Split, chosen: Tensor, rng: np.random.Generator, plan: Plan, weights: NDArray[np.float64]
) -> Tensor:
    """Mean loss of the labelled pictures plus the weighted mean of that of the unlabelled ones."""
    net.train()
    x = weak(split.x[chosen], split.flips)
    if not weights.any():
        return cross_entropy(net(x), split.y[chosen])
    drawn = rng.integers(len(split.unlabelled), size=BATCH * plan.ratio)
    pictures = split.unlabelled[torch.from_numpy(drawn)]
    with torch.no_grad():
        confidence, labels = net(weak(pictures, split.flips)).softmax(dim=1).max(dim=1)
    outputs = net(torch.cat([x, strong(pictures, split.flips)]))
    losses = cross_entropy(outputs[BATCH:], labels, reduction="none") * (confidence >= plan.sure)
    shares = torch.from_numpy(weights[drawn]).to(losses)
    return cross_entropy(outputs[:BATCH], split.y[chosen]) + (shares * losses).mean()


def _slopes(net: SmallNet, split: Split, weights: NDArray[np.float64], plan: Plan) -> NDArray[np.float64]:
    """By influence on the last layer: of strongly augmented pictures with the labels that weak ones get."""
    features, probabilities = _answers(net, weak(split.unlabelled, split.flips))
    classes, sure = probabilities.argmax(axis=1), probabilities.max(axis=1) >= plan.sure
    features, probabilities = _answers(net, strong(split.unlabelled, split.flips))
    x, y = split.validation
    validation = LastLayer.of(*_answers(net, x), y.numpy())
    slopes = np.zeros(len(weights))
    if sure.any():
        unlabelled = LastLayer.of(features[sure], probabilities[sure], classes[sure])
        slopes[sure] = last_layer_slopes(unlabelled, weights[sure], validation, plan.damping)
    return slopes


@torch.no_grad()
def _answers(net: SmallNet, x: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inputs of the last layer and probabilities."""
    net.eval()
    parts = [net.body(block) for block in x.split(1000)]
    features = torch.cat(parts)
    return features.double().numpy(), net.head(features).softmax(dim=1).double().numpy()
