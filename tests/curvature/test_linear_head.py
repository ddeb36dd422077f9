"""A single trainable layer: its Hessian in closed form equals that of products. Other nets are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

import upweight as uw  # noqa: E402
from upweight.curvature.linear_head import linear_head_matrix  # noqa: E402
from upweight.curvature.operators import HessianOperator  # noqa: E402
from upweight.curvature.solvers.direct import assemble  # noqa: E402
from upweight.curvature.summed_objective import SummedObjective  # noqa: E402


class FrozenBody(nn.Module):
    """A trainable layer behind frozen ones, its weight declared after its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Tanh()).requires_grad_(False)
        self.last = nn.Linear(6, 3)
        weight = self.last.weight
        del self.last.weight
        self.last.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.body(x))


def cross_entropy(net: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def summed(net: nn.Module, n: int = 11) -> SummedObjective:
    rng = np.random.default_rng(0)
    train = uw.Examples(rng.normal(size=(n, 4)), rng.integers(0, 3, n), weights=rng.uniform(0, 2, n))
    model = uw.TorchModel(net.double(), cross_entropy)
    return SummedObjective(model.network, train, model.weights(train), 0.0, 0.0)


@pytest.mark.parametrize("make", [lambda: nn.Linear(4, 3), lambda: nn.Linear(4, 3, bias=False), FrozenBody])
def test_the_matrix_is_that_of_products(make) -> None:
    torch.manual_seed(0)
    problem = summed(make())
    matrix = linear_head_matrix(problem, batch_examples=4)
    assert matrix is not None
    np.testing.assert_allclose(matrix, assemble(HessianOperator(problem)), atol=1e-12)


class Squashed(nn.Linear):
    """A linear layer whose own forward applies tanh."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(super().forward(x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Squashed(4, 3),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1)),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3).requires_grad_(False)),
    ],
)
def test_other_nets_are_left_to_products(make) -> None:
    torch.manual_seed(0)
    assert linear_head_matrix(summed(make())) is None
