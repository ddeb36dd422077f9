"""Derivatives through training if gradients are exactly 0, compared with real retraining."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

import upweight as uw
from support.autograd_through_training import by_autograd, measured_gradients

# Two examples a step. Gradients are sums of halves: a 0 is exact under every rounding. By column, the gradient of the
# parameter is: 0 for every example; 0 in every step, as the two examples cancel; 0 until the fifth step; 0 in the first
# step and after the third; 0 in the first step alone, where no parameter has one.
CANCELLING = np.array(
    [
        [[0, 1, 1, 2, 3], [0, -1, -1, -2, -3]],
        [[0, 1, 1, 1, 1], [0, -1, -1, 1, 2]],
        [[0, 2, 2, -3, 1], [0, -2, -2, 1, -2]],
        [[0, 1, 3, 1, -1], [0, -1, -3, -1, 3]],
        [[0, -2, 1, 2, 2], [0, 2, 2, -2, 1]],
        [[0, 3, -2, 1, 1], [0, -3, -1, -1, 1]],
    ]
)
CANCELLED: dict[str, dict[str, Any]] = {
    "momentum, clipped": {"momentum": 0.9, "clip": 0.3},
    "adam": {"optimiser": "adam", "eps": 0.1},
    "adam, eps inside": {"optimiser": "adam", "eps": 0.1, "eps_root": 0.01},
    "adam, clipped": {"optimiser": "adam", "eps": 0.1, "clip": 0.3},
    "adam, decay": {"optimiser": "adam", "eps": 0.1, "weight_decay": 0.5},
    "adam without a first moment": {"optimiser": "adam", "eps": 0.1, "betas": (0.0, 0.9)},
    "adamw": {"optimiser": "adamw", "eps": 0.1, "weight_decay": 0.5},
}


def linear_loss(net: nn.Module, batch: Any) -> Tensor:
    return net(batch.x)[:, 0]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("settings", CANCELLED.values(), ids=CANCELLED)
def test_gradients_of_exactly_zero_have_the_derivative_of_retraining(settings: dict[str, Any]) -> None:
    steps, n = np.arange(12).reshape(6, 2), 12
    weights = np.repeat([1.0, 1.0, 2.0, 0.5, 1.0, 4.0], 2)
    train, queries = uw.Examples(CANCELLING.reshape(n, 5) / 2.0, weights=weights), uw.Examples(np.eye(5))
    start = nn.Linear(5, 1, bias=False).double()
    nn.init.zeros_(start.weight)
    training = uw.Training(lr=0.1, batches=steps, initial=start, **settings)
    model = uw.TorchModel.trained(start, linear_loss, train, training=training)
    replay = model.replay(train, np.ones(n))
    assert (replay.parameters[:2] == 0).all() and (replay.parameters[2:] != 0).all()

    # Central differences of real training: |g| of the second moment makes them wrong by about step/eps, 1e-5, relative.
    step = 1e-6
    up, down = (
        np.array([model.retrain(train, np.ones(n) + sign * step * example, 0).parameters for example in np.eye(n)]).T
        for sign in (1, -1)
    )
    expected = (down - up) / (2 * step)  # a query's measurement is minus one parameter
    sizes = np.abs(expected).max(axis=1)
    assert sizes[0] == 0 and (sizes[1:] > 0.01).all()
    backwards, forwards = measured_gradients(model, replay, queries), -replay.shifts(np.eye(n)).T
    for derivative in (backwards, forwards, by_autograd(model, train, np.ones(n), queries)):
        assert (np.abs(derivative - expected).max(axis=1) <= 1e-4 * sizes).all()
