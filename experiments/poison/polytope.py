"""Clean-label poisons that surround a target in the features of a network: convex polytope and feature collision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from experiments.koh_liang.photographs import extractor
from experiments.poison import data
from experiments.poison.runs import Run
from experiments.poison.trial import Attack
from numpy.typing import NDArray
from torch import Tensor, nn

import upweight as uw

FROG, SHIP = 6, 8  # the class of the targets, and the label that they are to get
REACH = 0.1  # how far a pixel of a poison may be from its picture, of pixels in [0, 1]
PER_CLASS = 50  # training pictures that are fine-tuned on
TARGETS = 10
INERT = 0.1  # coefficient below which a poison has no part in the polytope
SIDE = 64  # pixels of the enlarged pictures


class Enlarged(nn.Module):
    """A network for large pictures with 8-bit channels, on small pictures in [0, 1]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 32, 32) → (n, 1280)."""
        return self.net(255 * nn.functional.interpolate(x, SIDE, mode="bilinear", align_corners=False))


@dataclass(frozen=True)
class Pictures:
    """What the attack knows.

    Attributes:
        features: the frozen network, pictures (n, 3, 32, 32) → (n, 1280).
        x, y: the pictures to fine-tune on, (500, 3, 32, 32), and their labels.
        queries, truth: clean test pictures and their labels.
    """

    features: nn.Module
    x: NDArray[np.float32]
    y: NDArray[np.intp]
    queries: NDArray[np.float32]
    truth: NDArray[np.intp]

    @cached_property
    def of_train(self) -> NDArray[np.float32]:
        """The features of the pictures to fine-tune on."""
        return self.embed(self.x)

    @cached_property
    def of_queries(self) -> NDArray[np.float32]:
        """The features of the clean test pictures."""
        return self.embed(self.queries)

    def embed(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The features of pictures, (n, 1280)."""
        with torch.no_grad():
            return torch.cat([self.features(part) for part in torch.as_tensor(x).split(50)]).numpy()


def simplex(values: Tensor) -> Tensor:
    """The nearest point of the probability simplex."""
    ordered = values.sort(descending=True).values
    shifted = (ordered.cumsum(0) - 1) / torch.arange(1, len(values) + 1)
    return (values - shifted[(ordered > shifted).nonzero().max()]).clamp(min=0)


def coefficients(poisons: Tensor, target: Tensor, start: Tensor, tolerance: float = 1e-6) -> Tensor:
    """c on the simplex that minimises ½ ‖cᵀ poisons − target‖², by forward-backward splitting."""
    c, step = start, 1.0 / float(torch.linalg.matrix_norm(poisons, 2) ** 2)
    for _ in range(200):
        moved = simplex(c - step * (poisons @ (c @ poisons - target)))
        if float((moved - c).norm()) < tolerance:
            return moved
        c = moved
    return c


def craft(features: nn.Module, bases: Tensor, target: Tensor, iterations: int) -> tuple[Tensor, float]:
    """(poisons within `REACH` of the bases whose features surround those of the target, the relative distance left)."""
    with torch.no_grad():
        goal = features(target[None])[0]
    poisons = bases.clone().requires_grad_()
    optimiser = torch.optim.Adam([poisons], lr=0.04)
    c = torch.full((len(bases),), 1 / len(bases))
    loss = torch.tensor(torch.inf)
    for _ in range(iterations):
        of_poisons = features(poisons)
        c = coefficients(of_poisons.detach(), goal, c)
        loss = 0.5 * (c @ of_poisons - goal).square().sum() / goal.square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            poisons.copy_(torch.maximum(torch.minimum(poisons, bases + REACH), bases - REACH).clamp(0, 1))
    return poisons.detach(), float(2 * loss.detach()) ** 0.5


def crafted(
    pictures: Pictures, target: NDArray[np.float32], count: int, iterations: int = 150
) -> tuple[Pictures, float]:
    """The pictures in which `count` ships were replaced by poisons, those nearest to the target; (they, distance)."""
    ships = np.flatnonzero(pictures.y == SHIP)
    goal = pictures.embed(target[None])[0]
    near = ships[np.argsort(((pictures.of_train[ships] - goal) ** 2).sum(axis=1))[:count]]
    poisons, left = craft(pictures.features, torch.as_tensor(pictures.x[near]), torch.as_tensor(target), iterations)
    x = pictures.x.copy()
    x[near] = poisons.numpy()
    return replace(pictures, x=x), left


def on_frozen_features(pictures: Pictures, poisoned: Pictures, target: NDArray[np.float32]) -> Attack:
    """A new last layer on the features of the poisoned pictures."""
    changed = changed_pictures(pictures, poisoned)
    features = pictures.of_train.copy()
    features[changed] = poisoned.embed(poisoned.x[changed])
    run, goal = head(features, poisoned.y), pictures.embed(target[None])
    queries = np.concatenate([pictures.of_queries, goal])
    return Attack(
        model=run.model(),
        train=run.train,
        poisons=np.isin(np.arange(len(pictures.x)), changed),
        queries=uw.Examples(queries, np.append(pictures.truth, FROG)),
        targets=np.array([len(pictures.truth)]),
        wanted=np.array([SHIP]),
        inert=np.isin(np.arange(len(pictures.x)), changed[without_part(features[changed], goal[0])]),
    )


def changed_pictures(pictures: Pictures, poisoned: Pictures) -> NDArray[np.intp]:
    """Positions of the poisons."""
    return np.flatnonzero((pictures.x != poisoned.x).reshape(len(pictures.x), -1).any(axis=1))


def without_part(poisons: NDArray[np.float32], goal: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which poisons have next to no part in the polytope around the target, by their features."""
    start = torch.full((len(poisons),), 1 / len(poisons))
    shares: NDArray[np.float32] = coefficients(torch.as_tensor(poisons), torch.as_tensor(goal), start).numpy()
    return shares < INERT


def head(features: NDArray[np.float32], y: NDArray[np.intp]) -> Run:
    """The training of a last layer."""
    return Run(partial(nn.Linear, features.shape[1], 10), uw.Examples(features, y), epochs=60, lr=0.02, batch=50)


def pictures_of(folder: Path) -> tuple[Pictures, NDArray[np.float32]]:
    """(what the attack knows, the targets): EfficientNet-lite0, trained on ImageNet, and pictures of CIFAR-10.

    The targets are frogs of the test set that a clean last layer recognises; the 1,000 clean queries are 100 other test
    pictures of each class.
    """
    (x, y), (xt, yt) = data.cifar(folder)
    tuned, queries, frogs = parts(y, yt)
    net = Enlarged(extractor(folder))
    pictures = Pictures(net, x[tuned], y[tuned], xt[queries], yt[queries])
    clean = head(pictures.of_train, pictures.y).model()
    recognised = np.array(clean.predict(uw.Examples(pictures.embed(xt[frogs]), yt[frogs])).predicted) == FROG
    return pictures, xt[frogs][recognised][:TARGETS]


def parts(y: NDArray[np.intp], yt: NDArray[np.intp]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.intp]]:
    """(the training pictures to fine-tune on, the test pictures that are clean queries, frogs that may be targets)."""
    tuned = np.concatenate([np.arange(count) for count in np.bincount(y)]) < PER_CLASS
    place = np.concatenate([np.arange(count) for count in np.bincount(yt)])
    return tuned, place < 100, np.flatnonzero((place >= 100) & (yt == FROG))[: 4 * TARGETS]
