"""The convex polytope against a victim that trains all layers of a network further, on poisoned pictures."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from experiments.poison import data, polytope
from experiments.poison.polytope import FROG, SHIP, Pictures
from experiments.poison.runs import Run
from experiments.poison.trial import Attack
from numpy.typing import NDArray
from torch import nn

import upweight as uw

TARGETS = 4
FEATURES = 256
EPOCHS = 5  # of the training that the attacker and the victim share


def backbone() -> nn.Sequential:
    """Three convolutions and a hidden layer: pictures (n, 3, 32, 32) → (n, 256)."""
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, FEATURES), nn.ReLU())


def with_new_layer(features: nn.Module) -> nn.Sequential:
    """A copy of these layers with a new last one."""
    return nn.Sequential(*deepcopy(features), nn.Linear(FEATURES, 10))


def pretrained(x: NDArray[np.float32], y: NDArray[np.intp]) -> nn.Sequential:
    """The layers below the last one, after training on these pictures."""
    torch.manual_seed(0)
    run = Run(partial(with_new_layer, backbone()), uw.Examples(x, y), epochs=EPOCHS, lr=0.02, batch=50)
    net = run(np.ones(len(x)), 0)
    return nn.Sequential(*list(net)[:-1]).requires_grad_(False)


def fine_tuning(pictures: Pictures) -> Run:
    """The training of all layers on the pictures to fine-tune on."""
    initial = partial(with_new_layer, deepcopy(pictures.features).requires_grad_())
    return Run(initial, uw.Examples(pictures.x, pictures.y), epochs=10, lr=0.01, batch=50)


def on_all_layers(pictures: Pictures, poisoned: Pictures, target: NDArray[np.float32]) -> Attack:
    """All layers, trained further on the poisoned pictures."""
    changed = polytope.changed_pictures(pictures, poisoned)
    run, count = fine_tuning(poisoned), len(pictures.x)
    idle = polytope.without_part(poisoned.embed(poisoned.x[changed]), pictures.embed(target[None])[0])
    return Attack(
        model=run.model(),
        train=run.train,
        poisons=np.isin(np.arange(count), changed),
        queries=uw.Examples(np.concatenate([pictures.queries, target[None]]), np.append(pictures.truth, FROG)),
        targets=np.array([len(pictures.truth)]),
        wanted=np.array([SHIP]),
        inert=np.isin(np.arange(count), changed[idle]),
    )


def pictures_of(folder: Path) -> tuple[Pictures, NDArray[np.float32]]:
    """(what the attack knows, the targets): a network trained on the pictures that are not fine-tuned on.

    The targets are frogs of the test set that the net recognises after fine-tuning on clean pictures.
    """
    (x, y), (xt, yt) = data.cifar(folder)
    tuned, queries, frogs = polytope.parts(y, yt)
    pictures = Pictures(pretrained(x[~tuned], y[~tuned]), x[tuned], y[tuned], xt[queries], yt[queries])
    clean = fine_tuning(pictures).model()
    recognised = np.array(clean.predict(uw.Examples(xt[frogs], yt[frogs])).predicted) == FROG
    return pictures, xt[frogs][recognised][:TARGETS]
