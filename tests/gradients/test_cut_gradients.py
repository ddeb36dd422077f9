"""A net whose gradients are not the derivatives of its loss is marked, and others are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import upweight as uw

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 6)), np.arange(30) % 2


class Net(nn.Module):
    """Three layers, used in one of several ways."""

    def __init__(self, use: Any) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.norm, self.use = nn.BatchNorm1d(8), use

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.use(self, x))
        return out


class Reversed(torch.autograd.Function):
    """The identity, with the opposite gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


def without_grad(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net.second(net.first(x).relu()).relu()


def shifted(net: Net, x: Tensor) -> Tensor:
    h = net.first(x)
    return (h - h.max(1, keepdim=True).values.detach()).softmax(1)


def straight_through(net: Net, x: Tensor) -> Tensor:
    h = net.first(x)
    return h + (h.sign() - h).detach()


CLEAN = {
    "relu": lambda net, x: net.second(net.first(x).relu()).relu(),
    "batch norm": lambda net, x: net.norm(net.first(x)).tanh(),
    "a backbone without gradients": without_grad,
    "a detached shift that cancels": shifted,
}
CUT = {
    "detached branch": lambda net, x: net.second(net.first(x).relu().detach()) + net.first(x).relu(),
    "straight-through": straight_through,
    "gradient reversal": lambda net, x: Reversed.apply(net.first(x).relu()) + net.second(net.first(x).relu()),
}


def losses(net: nn.Module, batch: Any) -> Tensor:
    return functional.cross_entropy(net(batch.x), batch.y, reduction="none")


def focal(net: nn.Module, batch: Any) -> Tensor:
    """The loss with detached weights for hard examples."""
    of_each = losses(net, batch)
    return (1 - (-of_each).exp().detach()) ** 2 * of_each


def warnings_of(use: Any, loss: Any, dtype: torch.dtype, method: Any = None) -> list[str]:
    torch.manual_seed(0)
    net = Net(use).to(dtype)
    x = X.astype(np.float32 if dtype == torch.float32 else np.float64)
    train, queries = uw.Examples(x, Y), uw.Examples(x[:3] + 0.1, Y[:3])
    fitted = (method or uw.GradDot()).fit(uw.TorchModel(net.eval(), loss), train)
    return [w for w in fitted.attribute(queries).diagnostics["warnings"] if "are not the derivatives" in w]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("use", list(CLEAN))
def test_gradients_that_are_derivatives_have_no_mark(use: str, dtype: torch.dtype) -> None:
    assert warnings_of(CLEAN[use], losses, dtype) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("use", list(CUT))
def test_gradients_that_are_not_derivatives_are_marked(use: str, dtype: torch.dtype) -> None:
    assert len(warnings_of(CUT[use], losses, dtype)) == 1


def test_a_loss_with_detached_weights_is_marked_by_influence_too() -> None:
    method = uw.Influence(damping=0.1)
    assert warnings_of(CLEAN["relu"], losses, torch.float64, method) == []
    assert len(warnings_of(CLEAN["relu"], focal, torch.float64, method)) == 1
